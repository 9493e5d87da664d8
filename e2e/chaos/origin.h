/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_E2E_CHAOS_ORIGIN_H
#define WD_E2E_CHAOS_ORIGIN_H
/*
 * What the own origin's process is told, in memory that it shares with the chaos program.
 */
#include <stdatomic.h>
#include <stdint.h>

struct origin_control {
	uint64_t seed;
	_Atomic unsigned status_503, cut_short, reset, stall_ms; /* struct origin_faults */
	_Atomic uint64_t requests, bytes;			 /* answered so far */
};

#endif
