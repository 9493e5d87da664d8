#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The units are well-formed, where systemd is installed to say so. $1: warm-job/systemd
set -euo pipefail
units=$1
command -v systemd-analyze >/dev/null || { echo "no systemd-analyze" && exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
# programs that are there, and an instance
for unit in "$units"/*.service; do
	name=$(basename "$unit")
	sed 's|/usr/bin/warpdrive-[a-z]*|/bin/true|; s|/sbin/modprobe|/bin/true|' "$unit" >"$dir/${name/@./@mnt-data.}"
done
said=$(systemd-analyze verify --man=no "$dir"/*.service 2>&1) || { echo "$said" && exit 1; }
# it says what it does not know without failing
if grep -F "$dir/" <<<"$said"; then exit 1; fi
echo ok
