/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_PIN_H
#define WD_WARM_JOB_CTL_PIN_H
/* Pinning what is named, for `pin`, `unpin` and `warm --pin`. */
#include "warm-job/ctl_ask.h"

struct ctl_pinned {
	uint64_t files, bytes, refused;
};

/* Pins or unpins the paths of a target, and adds to the sum. False, and told. */
bool ctl_pin_target(const struct ctl_command *self, const struct warm_target *t, bool is_unpinning,
	struct ctl_pinned *sum);

#endif
