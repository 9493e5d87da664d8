#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# usage: fault_points.sh [ROOT]
#
# Every WD_FAULT("name") in the sources must be armed by some test: a file under a test folder or
# e2e that holds `name=` (the form of WARPDRIVE_FAULTS and wd_fault_arm). Exit code 1 if one is not.
set -u -o pipefail
root=${1:-$(cd "$(dirname "$0")/../.." && pwd)}
cd "$root" || exit 2

sources=()
tests=()
while IFS= read -r -d '' file; do
	case $file in
	*/test/*.c | *.sh) tests+=("$file") ;;
	e2e/*) tests+=("$file") ;;
	common/fault.h) ;; # defines the macro, and speaks of an example
	*.c | *.h) sources+=("$file") ;;
	esac
done < <(find common agent fuse csi warm-job bench e2e -type f ! -path common/test/fault_points.sh \
	! -path common/test/scripts.sh -print0 2>/dev/null)

failures=0
count=0
while IFS=: read -r file line use; do
	count=$((count + 1))
	if [[ ! $use =~ ^WD_FAULT\(\"([A-Za-z0-9_.-]+)\"\)$ ]]; then
		echo "fault_points: $file:$line: the name must be a plain literal: $use"
		failures=$((failures + 1))
		continue
	fi
	name=${BASH_REMATCH[1]}
	if [ ${#tests[@]} -eq 0 ] ||
		! grep -qE "(^|[^A-Za-z0-9_.-])${name//./\\.}=@?[0-9]" -- "${tests[@]}"; then
		echo "fault_points: $file:$line: '$name' is armed by no test"
		failures=$((failures + 1))
	fi
done < <([ ${#sources[@]} -gt 0 ] && grep -HnoE '\<WD_FAULT\([^)]*\)?' -- "${sources[@]}")

echo "fault_points: $count uses, $failures failures"
[ "$failures" -eq 0 ]
