#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What the shell sees of warpdrive-ctl without any daemon: help, completion, exit codes. $1: the program.
set -euo pipefail
ctl=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export WARPDRIVE_RUN_DIR=$dir

fail() {
	echo "FAIL: $*"
	exit 1
}

# expect CODE COMMAND...: its exit code, and one line on stderr for anything but 0
expect() {
	local want=$1 code=0
	shift
	"$@" >"$dir/out" 2>"$dir/err" || code=$?
	[ "$code" = "$want" ] || fail "$*: exit code $code, not $want"
	[ "$want" = 0 ] || [ "$(wc -l <"$dir/err")" = 1 ] || fail "$*: not one line: $(cat "$dir/err")"
}

# ---- help ----

expect 0 "$ctl" warm --help
awk 'length($0) > 80 { print; long = 1 } END { exit long }' "$dir/out" || fail "help of warm is wider than 80 columns"
for option in recursive include exclude max-size from-file verify workers bandwidth timeout resume run-dir progress \
	wait detach list cancel pin; do
	grep -q -- "--$option" "$dir/out" || fail "warm --help does not tell of --$option"
done
for command in $("$ctl" help | sed -n 's/^  \([a-z]*\) .*/\1/p'); do
	expect 0 "$ctl" "$command" --help
	awk 'length($0) > 80 { print; long = 1 } END { exit long }' "$dir/out" || fail "$command --help is wider than 80 columns"
done

expect 0 "$ctl" trace --help
awk 'length($0) > 80 { print; long = 1 } END { exit long }' "$dir/out" || fail "help of trace is wider than 80 columns"

# ---- no agent, nothing mounted ----

expect 1 "$ctl" trace
expect 1 "$ctl" trace --mount "$dir" file
expect 2 "$ctl" trace --count 0
expect 2 "$ctl" trace --count many
expect 2 "$ctl" trace -o yaml
expect 2 "$ctl" trace --follow
expect 2 "$ctl" trace --pod
expect 2 "$ctl" trace one two

expect 1 "$ctl" warm "$dir"
expect 1 "$ctl" warm s3://bucket/x
expect 1 "$ctl" warm --list
expect 1 "$ctl" warm --cancel 1
expect 1 "$ctl" warm --from-file "$dir/missing"
expect 2 "$ctl" warm
expect 2 "$ctl" completion fish

# ---- completion ----

expect 0 "$ctl" completion bash
[ ! -s "$dir/err" ] || fail "completion: $(cat "$dir/err")"
if command -v shellcheck >/dev/null; then shellcheck -s bash "$dir/out"; fi
complete_words() {
	(
		# shellcheck source=/dev/null
		. "$dir/out"
		COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
		_warpdrive_ctl
		echo "${COMPREPLY[*]}"
	)
}
[ "$(complete_words warpdrive-ctl wa)" = warm ] || fail "wa: $(complete_words warpdrive-ctl wa)"
[ "$(complete_words warpdrive-ctl warm --from)" = --from-file ] || fail "warm --from: $(complete_words warpdrive-ctl warm --from)"
[ "$(complete_words warpdrive-ctl umount --fo)" = --force ] || fail "umount --fo: $(complete_words warpdrive-ctl umount --fo)"
touch "$dir/file-of-mine"
[ "$(complete_words warpdrive-ctl warm "$dir/file-o")" = "$dir/file-of-mine" ] || fail "no file names"
for command in $("$ctl" help | sed -n 's/^  \([a-z]*\) .*/\1/p'); do
	[[ " $(complete_words warpdrive-ctl '') " == *" $command "* ]] || fail "'$command' is not completed"
	[ "$(complete_words warpdrive-ctl "$command" --h)" = --help ] || fail "$command --h is not completed"
done
echo ok
