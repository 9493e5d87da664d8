# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What the benchmarks share beside e2e/lib.sh, which this brings in.
shopt -s inherit_errexit # a turn that fails ends the run, not only its own substitution
bench=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
E2E_BIN=${E2E_BIN:-$bench/../build/bin} E2E_ROOT=$bench/../e2e
# shellcheck source=../e2e/lib.sh
. "$E2E_ROOT/lib.sh"

clock_ticks=$(getconf CLK_TCK)

# steady_disk MIB: as much written and deleted first steadies the disk (and its memory)
steady_disk() {
	dd if=/dev/zero of="$E2E_DIR/steady" bs=1M count="$1" status=none
	rm "$E2E_DIR/steady"
	sync -f "$E2E_DIR"
}

# cpu_of PID...: their seconds so far, together
cpu_of() {
	local pid
	for pid; do cat "/proc/$pid/stat"; done |
		awk -v hz="$clock_ticks" '{ sub(/.*\) /, ""); n += ($12 + $13) / hz } END { print n }'
}

# daemons_of DIR: agent, keeper and the mount's server
daemons_of() { printf '%s\n' "$(agent_pid)" "$(keeper_pid)" "$(server_pid "$1")"; }

# usage FILE: what its head says of how to call it
usage() {
	sed -n 's/^#\t\.\/run/usage: .\/run/p' "$1" >&2
	exit 2
}
