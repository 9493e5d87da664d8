/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_FAULT_H
#define WD_COMMON_FAULT_H
/*
 * Named fault points: `if (WD_FAULT("store.rename")) return -EIO;`
 *
 * Compiled in by -DWD_FAULTS=ON (every preset but release) and armed by wd_fault_arm() or the
 * environment: WARPDRIVE_FAULTS="store.rename=1,fetch.block=3" fires the first 1 and 3 times that
 * the point is passed; "name=0" fires always; "name=@5" fires only at the fifth pass. In a release
 * build a point is the constant false. Thread-safe.
 */
#include <stdbool.h>

#ifdef WD_FAULTS
#define WD_FAULT(name) wd_fault_hit(name)
#else
#define WD_FAULT(name) false
#endif

bool wd_fault_hit(const char *name);
/* spec as in the environment variable; replaces what was armed; NULL disarms all. */
void wd_fault_arm(const char *spec);

#endif
