#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# docs/metrics.md is what the agent says of its metrics: agent/test/metrics_doc.sh BIN
set -euo pipefail
root=$(dirname "$(dirname "$(dirname "$(readlink -f "$0")")")")
if ! "$1/warpdrive-agent" --print-metrics | diff "$root/docs/metrics.md" -; then
	echo "docs/metrics.md is not that of the tables: cmake --build build-dev --target docs-metrics"
	exit 1
fi
