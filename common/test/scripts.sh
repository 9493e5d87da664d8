#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The checkers checked: layering.sh and fault_points.sh must find what is planted in small trees.
set -u -o pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

fresh() {
	rm -rf "$work/tree"
	mkdir -p "$work/tree"/{common/test,agent/test,fuse,e2e/cases}
	printf '#ifndef A\n#define A\n#include <stdint.h>\n#endif\n' >"$work/tree/common/a.h"
	printf '#ifndef B\n#define B\n#include "common/a.h"\n#endif\n' >"$work/tree/agent/b.h"
	printf '#include "agent/b.h"\n#include "common/a.h"\n' >"$work/tree/agent/b.c"
}

expect() { # NAME SCRIPT WANTED-STATUS TEXT
	local output status
	output=$("$here/$2" "$work/tree" 2>&1)
	status=$?
	if [ "$status" -ne "$3" ] || ! grep -qF -- "$4" <<<"$output"; then
		echo "FAILED $1: exit code $status, said:"
		echo "$output"
		failures=$((failures + 1))
	else
		echo "ok $1"
	fi
}

fresh
expect a_clean_tree_passes layering.sh 0 "4 include lines, 2 headers alone, 0 breaches"
echo '#include "agent/b.h"' >"$work/tree/fuse/f.c"
expect a_sideways_include_is_found layering.sh 1 "fuse/f.c:1: fuse must not include agent"
fresh
echo '  #  include "agent/b.h"' >"$work/tree/common/c.c"
expect common_includes_only_common layering.sh 1 "common/c.c:1: common must not include agent"
fresh
echo '#include "../common/a.h"' >"$work/tree/agent/c.c"
expect an_upward_include_is_found layering.sh 1 "agent/c.c:1: includes upward"
fresh
echo '#include "agent/../common/a.h"' >"$work/tree/agent/c.c"
expect an_upward_include_in_the_middle_is_found layering.sh 1 "agent/c.c:1: includes upward"
fresh
echo '#include "b.h"' >"$work/tree/agent/c.c"
expect a_bare_include_is_found layering.sh 1 'must be named from the root, as "agent/b.h"'
fresh
echo '#include <agent/b.h>' >"$work/tree/fuse/f.c"
expect an_include_in_angle_brackets_is_found layering.sh 1 "<agent/b.h> is ours"
fresh
echo '#include "fuse/f.h"' >"$work/tree/agent/test/test_b.c"
expect tests_are_held_to_the_same layering.sh 1 "agent must not include fuse"
fresh
echo 'extern size_t x;' >"$work/tree/agent/d.h"
expect a_header_that_needs_others_first_is_found layering.sh 1 "agent/d.h does not compile alone"
fresh
echo 'struct s { int i; };' >"$work/tree/agent/d.h"
expect a_header_without_a_guard_is_found layering.sh 1 "agent/d.h does not compile alone"

fresh
expect no_points_is_fine fault_points.sh 0 "0 uses"
echo 'if (WD_FAULT("store.rename"))' >"$work/tree/agent/c.c"
expect a_point_that_no_test_arms_is_found fault_points.sh 1 "agent/c.c:1: 'store.rename' is armed by no"
echo 'wd_fault_arm("prestore.rename=1,store-rename=1,store.renamed=1");' >"$work/tree/agent/test/test_c.c"
expect similar_names_do_not_count fault_points.sh 1 "is armed by no test"
echo 'wd_fault_arm("a=1,store.rename=@2");' >"$work/tree/agent/test/test_c.c"
expect a_point_armed_by_a_unit_test_is_fine fault_points.sh 0 "1 uses, 0 failures"
rm "$work/tree/agent/test/test_c.c"
echo 'WARPDRIVE_FAULTS=store.rename=1 run' >"$work/tree/e2e/cases/10-kill"
expect a_point_armed_by_an_e2e_case_is_fine fault_points.sh 0 "1 uses, 0 failures"
echo 'if (WD_FAULT(name))' >"$work/tree/agent/d.c"
expect a_name_that_is_no_literal_is_found fault_points.sh 1 "agent/d.c:1: the name must be a plain literal"

[ "$failures" -eq 0 ]
