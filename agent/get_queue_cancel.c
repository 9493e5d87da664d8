/* SPDX-License-Identifier: Apache-2.0 */
/* Cancelling: what waits moves to a list of its own and is done on a lane's thread; what runs is told by a mark. */
#include <errno.h>

#include "agent/get_queue_internal.h"

static bool cancel_one_locked(struct get_queue *q, struct origin_get *get) WD_REQUIRES(q->lock)
{
	if (get->line == &q->cancelled)
		return false;
	get_queue_unwait_locked(q, get);
	get_queue_join(&q->cancelled, get);
	return true;
}

/* All that wait for o. */
static bool cancel_waiting_locked(struct get_queue *q, const struct origin *o) WD_REQUIRES(q->lock)
{
	struct flow_line *line, *next_line;
	struct origin_get *get, *next;
	bool found = false;

	for (int i = 0; i < GET_PRIORITIES; i++)
		DL_FOREACH_SAFE(q->rings[i], line, next_line)
			DL_FOREACH_SAFE(line->head, get, next)
				if (get->priv == o)
					found |= cancel_one_locked(q, get);
	DL_FOREACH_SAFE(q->parked, get, next)
		if (get->priv == o)
			found |= cancel_one_locked(q, get);
	return found;
}

static void cancel_matching(struct get_queue *q, struct origin_get *get, const struct origin *o)
{
	bool found = false;

	wd_lock(&q->lock);
	if (get && get->line)
		found = cancel_one_locked(q, get);
	if (o)
		found = cancel_waiting_locked(q, o);
	for (unsigned i = 0; i < q->njobs; i++) {
		struct get_job *job = &q->jobs[i];

		if (job->is_busy && (job->get == get || (o && job->origin == o))) {
			job->is_cancelled = true;
			found = true;
		}
	}
	for (unsigned i = 0; found && i < q->nlanes; i++)
		wd_cond_signal(&q->lanes[i].wake);
	wd_unlock(&q->lock);
	if (found)
		get_queue_wake(q, UINT64_MAX);
}

void get_queue_cancel(struct get_queue *q, struct origin_get *get)
{
	cancel_matching(q, get, NULL);
}

void get_queue_drain(struct get_queue *q, struct origin *o)
{
	cancel_matching(q, NULL, o);
	wd_lock(&q->lock);
	while (o->in_flight > 0)
		wd_cond_wait(&q->drained, &q->lock);
	wd_unlock(&q->lock);
}

void get_queue_end_cancelled(struct get_queue *q)
{
	for (;;) {
		struct wd_err err = WD_ERR_INIT;
		struct origin_get *get;
		struct origin *o;

		wd_lock(&q->lock);
		get = q->cancelled;
		if (get)
			get_queue_leave(get);
		wd_unlock(&q->lock);
		if (!get)
			return;
		o = get->priv;
		wd_err_set(&err, ECANCELED, "cancelled");
		get->done(get->arg, -ECANCELED, &err);
		get_queue_count_done(q, o);
	}
}
