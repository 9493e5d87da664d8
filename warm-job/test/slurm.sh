#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The Slurm scripts with a warpdrive-ctl that only notes how it was called. $1: warm-job/slurm
set -euo pipefail
scripts=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/bin"
# shellcheck disable=SC2016 # the script's own variables
printf '#!/bin/bash\nprintf "%%s|" "$@" >>"%s/calls"\necho >>"%s/calls"\necho "$SAYS"\nexit "$CODE"\n' "$dir" "$dir" \
	>"$dir/bin/warpdrive-ctl"
# no syslog: what is logged comes on stderr
printf '#!/bin/bash\nexit 1\n' >"$dir/bin/logger"
chmod +x "$dir/bin/"*

fail() {
	echo "FAIL: $*"
	exit 1
}

# run SCRIPT CODE VARIABLE=VALUE...: with an empty environment but for these
run() {
	local script=$1 want=$2 code=0
	shift 2
	: >"$dir/calls"
	env -i PATH="$dir/bin:/usr/bin:/bin" CODE=0 SAYS=7 SLURM_JOB_ID=42 WARPDRIVE_WARMUP_SETTINGS="$dir/settings" \
		WARPDRIVE_WARMUP_STATE="$dir/state" "$@" "$scripts/$script" >"$dir/out" 2>"$dir/log" || code=$?
	[ "$code" = "$want" ] || fail "$script $*: exit code $code, not $want: $(cat "$dir/log")"
	[ ! -s "$dir/out" ] || fail "$script prints on stdout, which Slurm reads: $(cat "$dir/out")"
}

called() {
	[ "$(cat "$dir/calls")" = "$1" ] || fail "called '$(cat "$dir/calls")', not '$1'"
}

run prolog 0
called ''
run prolog 0 WARPDRIVE_WARMUP_PATH=/data
called 'warm|--progress=none|--timeout|10m|--|/data|'
run prolog 0 SPANK_WARPDRIVE_WARMUP_PATH=/spank
called 'warm|--progress=none|--timeout|10m|--|/spank|'
run prolog 0 'SLURM_JOB_COMMENT=mine warpdrive-warmup=s3://b/d, more' WARPDRIVE_WARMUP_TIMEOUT=5s
called 'warm|--progress=none|--timeout|5s|--|s3://b/d,|'
run prolog 0 'SLURM_JOB_COMMENT=nothing of ours'
called ''
# a path is never an option, and keeps its blanks
run prolog 0 "WARPDRIVE_WARMUP_PATH=--from-file=/etc/shadow"$'\n'"/a b" 'WARPDRIVE_WARMUP_OPTIONS=--workers 8'
called 'warm|--progress=none|--timeout|10m|--workers|8|--|--from-file=/etc/shadow|/a b|'
run prolog 0 WARPDRIVE_WARMUP_PATH=/data SLURM_LOCALID=1
called ''

# failures are logged, and are the job's only where that is wished
for code in 1 3 143; do
	run prolog 0 WARPDRIVE_WARMUP_PATH=/data CODE=$code SAYS='it went wrong'
	grep -qx 'warpdrive-warmup: job 42: it went wrong' "$dir/log" || fail "not logged: $(cat "$dir/log")"
	run prolog 1 WARPDRIVE_WARMUP_PATH=/data CODE=$code WARPDRIVE_WARMUP_REQUIRED=1
done
run prolog 0 WARPDRIVE_WARMUP_PATH=/data WARPDRIVE_WARMUP_REQUIRED=1
mv "$dir/bin/warpdrive-ctl" "$dir/ctl"
run prolog 0 WARPDRIVE_WARMUP_PATH=/data
grep -q 'no warpdrive-ctl' "$dir/log" || fail "not logged: $(cat "$dir/log")"
run prolog 1 WARPDRIVE_WARMUP_PATH=/data WARPDRIVE_WARMUP_REQUIRED=1
mv "$dir/ctl" "$dir/bin/warpdrive-ctl"

# a file of settings
echo 'WARPDRIVE_WARMUP_PATH=/from/file WARPDRIVE_WARMUP_TIMEOUT=1m' >"$dir/settings"
run prolog 0
called 'warm|--progress=none|--timeout|1m|--|/from/file|'
rm "$dir/settings"

# begun and left, and cancelled by the epilog, once
run prolog 0 WARPDRIVE_WARMUP_PATH=/data WARPDRIVE_WARMUP_DETACH=1 SAYS=$'7\n8'
called 'warm|--detach|--|/data|'
run epilog 0 SLURM_JOB_ID=43
called ''
run epilog 0 CODE=1
called $'warm|--cancel|7|\nwarm|--cancel|8|'
run epilog 0
called ''
run prolog 1 WARPDRIVE_WARMUP_PATH=/data WARPDRIVE_WARMUP_DETACH=1 CODE=1 WARPDRIVE_WARMUP_REQUIRED=1
[ ! -e "$dir/state/42" ] || fail "a task that did not begin is kept"
echo ok
