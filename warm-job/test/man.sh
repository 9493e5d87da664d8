#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every subcommand has a manual page, with all that its help tells of; where groff is installed, it has no complaint.
# $1: the program
set -euo pipefail
ctl=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

fail() {
	echo "FAIL: $*"
	exit 1
}

mkdir "$dir/man"
"$ctl" help --man "$dir/man"
for command in $("$ctl" help | sed -n 's/^  \([a-z]*\) .*/\1/p'); do
	page=$dir/man/warpdrive-ctl-$command.1
	[ -s "$page" ] || fail "no page of $command"
	grep -q "^warpdrive\\\\-ctl\\\\-$command \\\\- ." "$page" || fail "$command: no NAME"
	grep -q "warpdrive\\\\-ctl\\\\-$command (1)" "$dir/man/warpdrive-ctl.1" || fail "$command is not listed"
	# each word of an option that help has
	for option in $("$ctl" "$command" --help | sed -nE 's/^  (-[a-z], )?(--[a-z-]+).*/\2/p'); do
		grep -q -- "^\.B .*${option//-/\\\\-}" "$page" || fail "$command: no $option"
	done
done
! "$ctl" help --man "$dir/missing" 2>"$dir/err" || fail "pages were written into nothing"
[ "$(wc -l <"$dir/err")" = 1 ] || fail "not one line: $(cat "$dir/err")"
if command -v groff >/dev/null; then
	for page in "$dir"/man/*; do
		groff -man -Tutf8 -ww -z "$page" 2>"$dir/err" || fail "$page: $(cat "$dir/err")"
		[ ! -s "$dir/err" ] || fail "$page: $(cat "$dir/err")"
	done
fi
if command -v mandoc >/dev/null; then
	mandoc -Tlint -Werror "$dir"/man/* >"$dir/err" || fail "$(cat "$dir/err")"
fi
echo ok
