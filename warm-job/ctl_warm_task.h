/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_WARM_TASK_H
#define WD_WARM_JOB_CTL_WARM_TASK_H
/* One task of the agent's, as `warm` sees it: the calls, and what they tell. Nothing here tries again. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "warm-job/ctl_warm_args.h"
#include "warm-job/ctl_warm_line.h"
#include "warm-job/ctl_warm_places.h"
#include "warm-job/ctl_warm_show.h"

struct warm_task {
	const struct warm_target *where;
	size_t first, count; /* of its paths; count 0: all of the mount */
	uint8_t token[16];   /* the same for as long as it is wanted: whoever has it begun already is found by it */
	uint64_t id;
	bool is_begun, is_stale; /* stale: another agent may have come; to be begun again */
	enum warm_end end;
	struct warm_sum sum;

	/* private */
	uint64_t version, failures_seen, elapsed_ms;
	uint64_t fetched_before; /* by predecessors of this task, in agents that have ended */
};

/* The bytes of the request without its paths; what a path adds is at most its length and 4. */
size_t warm_task_size(const struct warm_task *t, const struct warm_args *args);
/* StartWarm. Once more for a task that is stale. */
int warm_task_begin(struct warm_task *t, const struct warm_args *args, struct wd_err *err);
/* GetWarm: waits up to wait_ms for news, fills in sum and end, and shows new failures. -ENOENT: the agent does not know
 * it, since it was restarted. -ESTALE: the agent tells of another task under this id; the task is stale now. */
int warm_task_poll(struct warm_task *t, uint32_t wait_ms, struct warm_show *show, struct wd_err *err);
/* CancelWarm. */
int warm_task_cancel(struct ctl_control *control, uint64_t id, struct wd_err *err);

#endif
