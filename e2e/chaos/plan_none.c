/* SPDX-License-Identifier: Apache-2.0 */
/* No faults: what the load finds by itself, and what operations take without faults. */
#include "e2e/chaos/chaos.h"

const struct plan plan_none = {
	.name = "none",
	.help = "no faults",
	.min_ms = 50,
	.max_ms = 50,
};
