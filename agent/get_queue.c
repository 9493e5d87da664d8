/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue of ranged reads in front of a set of threads (see the header for the rules).
 *
 *	push ──► place free? ──► lane's inbox ──► take() ──► running ──► finish() ─┐
 *	             │ no                                                         │ place
 *	             └──────► waiting (a line per class) ◄────────────────────────┘
 *
 * While a read waits, get->line is where (NULL: nowhere) and get->priv is its origin. A cancelled one moves
 * to the `cancelled` list, so that its done() comes from a lane's thread as the contract says.
 */
#include "agent/get_queue.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#include "common/lock.h"

struct lane {
	struct get_job *head, **tail; /* given to the lane, not yet taken */
	unsigned load;		      /* given and running */
	struct wd_cond wake;
};

struct get_queue {
	struct wd_mutex lock;
	struct wd_cond drained;
	struct origin_get *waiting[GET_PRIORITIES] WD_GUARDED_BY(lock);
	struct origin_get *cancelled WD_GUARDED_BY(lock);
	struct origin_get *parked WD_GUARDED_BY(lock);
	int64_t parked_due_ns WD_GUARDED_BY(lock); /* the earliest; too early at times */
	bool is_stopping WD_GUARDED_BY(lock);
	struct get_job *free_jobs WD_GUARDED_BY(lock);
	unsigned nlow WD_GUARDED_BY(lock); /* places taken by reads below demand ... */
	unsigned max_low;		   /* ... and how many they may take */
	unsigned nlanes, njobs;
	struct lane *lanes;
	struct get_job *jobs;
	void (*wake)(void *arg, unsigned lane);
	void *arg;
};

static void join_line(struct origin_get **line, struct origin_get *get)
{
	get->line = line;
	DL_APPEND(*line, get);
}

static void leave_line(struct origin_get *get)
{
	DL_DELETE(*get->line, get);
	get->line = NULL;
}

/* Where a read waits for a place. */
static struct origin_get **line_of_locked(struct get_queue *q, const struct origin_get *get) WD_REQUIRES(q->lock)
{
	return get->priority == GET_UNWANTED ? &q->cancelled : &q->waiting[get->priority];
}

struct get_queue *get_queue_new(
	unsigned lanes, unsigned max_running, void (*wake)(void *arg, unsigned lane), void *arg)
{
	struct get_queue *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	wd_mutex_init(&q->lock);
	wd_cond_init(&q->drained);
	wd_lock(&q->lock);
	q->parked_due_ns = INT64_MAX;
	q->nlanes = lanes;
	q->njobs = max_running < lanes ? lanes : max_running;
	q->max_low = q->njobs * 3 / 4 ? q->njobs * 3 / 4 : 1;
	q->lanes = calloc(lanes, sizeof(*q->lanes));
	q->jobs = calloc(q->njobs, sizeof(*q->jobs));
	for (unsigned i = 0; q->jobs && i < q->njobs; i++) {
		q->jobs[i].next = q->free_jobs;
		q->free_jobs = &q->jobs[i];
	}
	for (unsigned i = 0; q->lanes && i < lanes; i++) {
		q->lanes[i].tail = &q->lanes[i].head;
		wd_cond_init(&q->lanes[i].wake);
	}
	q->wake = wake;
	q->arg = arg;
	wd_unlock(&q->lock);
	if (!q->lanes || !q->jobs) {
		q->nlanes = q->lanes ? lanes : 0;
		get_queue_free(q);
		return NULL;
	}
	return q;
}

void get_queue_free(struct get_queue *q)
{
	if (!q)
		return;
	for (unsigned i = 0; i < q->nlanes; i++)
		wd_cond_done(&q->lanes[i].wake);
	free(q->lanes);
	free(q->jobs);
	wd_cond_done(&q->drained);
	wd_mutex_done(&q->lock);
	free(q);
}

/* Gives a read a place on the least loaded lane; -1 when there is none. */
static int place_locked(struct get_queue *q, struct origin *o, struct origin_get *get)
	WD_REQUIRES(q->lock)
{
	struct get_job *job = q->free_jobs;
	bool is_low = get->priority < GET_DEMAND;
	unsigned best = 0;

	if (!job || get->priority == GET_UNWANTED || (is_low && q->nlow >= q->max_low))
		return -1;
	q->nlow += is_low;
	q->free_jobs = job->next;
	for (unsigned i = 1; i < q->nlanes; i++)
		if (q->lanes[i].load < q->lanes[best].load)
			best = i;
	job->origin = o;
	job->get = get;
	job->is_cancelled = false;
	job->is_busy = true;
	job->is_low = is_low;
	job->lane = best;
	job->next = NULL;
	*q->lanes[best].tail = job;
	q->lanes[best].tail = &job->next;
	q->lanes[best].load++;
	wd_cond_signal(&q->lanes[best].wake);
	return (int)best;
}

static void wake_all(struct get_queue *q)
{
	for (unsigned i = 0; q->wake && i < q->nlanes; i++)
		q->wake(q->arg, i);
}

/* Gives a read that waits nowhere its place, or its place in a line. Returns the lane to wake, -1: none. */
static int enter_locked(struct get_queue *q, struct origin_get *get) WD_REQUIRES(q->lock)
{
	int lane = place_locked(q, get->priv, get);

	if (lane >= 0)
		return lane;
	join_line(line_of_locked(q, get), get);
	if (get->priority != GET_UNWANTED)
		return -1;
	for (unsigned i = 0; i < q->nlanes; i++)
		wd_cond_signal(&q->lanes[i].wake);
	return 0;
}

void get_queue_push(struct get_queue *q, struct origin *o, struct origin_get *get)
{
	int lane;

	get->priv = o;
	wd_lock(&q->lock);
	o->in_flight++;
	lane = enter_locked(q, get);
	wd_unlock(&q->lock);
	if (lane >= 0 && q->wake)
		q->wake(q->arg, (unsigned)lane);
}

void get_queue_prioritise(struct get_queue *q, struct origin_get *get, enum get_priority priority)
{
	int lane = -1;

	wd_lock(&q->lock);
	if (get->line == &q->parked && priority != GET_UNWANTED) {
		get->priority = priority; /* it comes back with that */
	} else if (get->line && get->line != &q->cancelled && get->priority != priority) {
		leave_line(get);
		get->priority = priority;
		lane = enter_locked(q, get);
	} else if (!get->line) {
		get->priority = priority;
	}
	wd_unlock(&q->lock);
	if (lane >= 0 && q->wake)
		q->wake(q->arg, (unsigned)lane);
}

/* Moves the reads of o, or just this one, to the cancelled. */
static bool cancel_line_locked(struct get_queue *q, struct origin_get **line, const struct origin_get *get,
	const struct origin *o) WD_REQUIRES(q->lock)
{
	struct origin_get *g, *tmp;
	bool found = false;

	DL_FOREACH_SAFE(*line, g, tmp) {
		if (g != get && (!o || g->priv != o))
			continue;
		leave_line(g);
		join_line(&q->cancelled, g);
		found = true;
	}
	return found;
}

static void cancel_matching(struct get_queue *q, const struct origin_get *get, const struct origin *o)
{
	bool found = false;

	wd_lock(&q->lock);
	for (int i = 0; i < GET_PRIORITIES; i++)
		found |= cancel_line_locked(q, &q->waiting[i], get, o);
	found |= cancel_line_locked(q, &q->parked, get, o);
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
		wake_all(q);
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

static struct get_job *take_locked(struct get_queue *q, unsigned lane) WD_REQUIRES(q->lock)
{
	struct lane *l = &q->lanes[lane];
	struct get_job *job = l->head;

	if (!job)
		return NULL;
	l->head = job->next;
	if (!l->head)
		l->tail = &l->head;
	job->next = NULL;
	return job;
}

struct get_job *get_queue_take(struct get_queue *q, unsigned lane)
{
	struct get_job *job;

	wd_lock(&q->lock);
	job = take_locked(q, lane);
	wd_unlock(&q->lock);
	return job;
}

struct get_job *get_queue_wait(struct get_queue *q, unsigned lane)
{
	struct get_job *job;

	wd_lock(&q->lock);
	while (!(job = take_locked(q, lane)) && !q->is_stopping) {
		if (q->cancelled) {
			wd_unlock(&q->lock);
			get_queue_end_cancelled(q);
			wd_lock(&q->lock);
		} else {
			wd_cond_wait(&q->lanes[lane].wake, &q->lock);
		}
	}
	wd_unlock(&q->lock);
	return job;
}

static void count_done(struct get_queue *q, struct origin *o)
{
	wd_lock(&q->lock);
	assert(o->in_flight > 0);
	if (--o->in_flight == 0)
		wd_cond_broadcast(&q->drained);
	wd_unlock(&q->lock);
}

/* The first that may have a place, or NULL. */
static struct origin_get *next_locked(struct get_queue *q) WD_REQUIRES(q->lock)
{
	for (int i = GET_PRIORITIES - 1; i >= 0; i--)
		if (q->waiting[i] && (i == GET_DEMAND || q->nlow < q->max_low))
			return q->waiting[i];
	return NULL;
}

/* Frees the job's place and gives it to a waiting read; returns that one's lane, -1: none waits. */
static int leave_locked(struct get_queue *q, struct get_job *job) WD_REQUIRES(q->lock)
{
	struct origin_get *next;

	q->lanes[job->lane].load--;
	q->nlow -= job->is_low;
	job->is_busy = false;
	job->get = NULL;
	job->next = q->free_jobs;
	q->free_jobs = job;
	next = next_locked(q);
	if (!next)
		return -1;
	leave_line(next);
	return place_locked(q, next->priv, next);
}

void get_queue_park(struct get_queue *q, struct get_job *job, int64_t due_ns)
{
	struct origin_get *get = job->get;
	bool is_cancelled, is_next;
	int lane;

	wd_lock(&q->lock);
	is_cancelled = job->is_cancelled || get->priority == GET_UNWANTED;
	lane = leave_locked(q, job);
	get->resume.due_ns = due_ns;
	join_line(is_cancelled ? &q->cancelled : &q->parked, get);
	is_next = is_cancelled || due_ns < q->parked_due_ns;
	if (!is_cancelled && is_next)
		q->parked_due_ns = due_ns;
	wd_unlock(&q->lock);
	if (lane >= 0 && q->wake)
		q->wake(q->arg, (unsigned)lane);
	if (is_next && q->wake)
		q->wake(q->arg, 0);
}

int64_t get_queue_unpark(struct get_queue *q, int64_t now_ns)
{
	struct origin_get *get, *tmp;
	int64_t next_ns;
	bool has_moved = false;

	wd_lock(&q->lock);
	if (now_ns >= q->parked_due_ns) {
		q->parked_due_ns = INT64_MAX;
		DL_FOREACH_SAFE(q->parked, get, tmp) {
			if (get->resume.due_ns > now_ns) {
				if (get->resume.due_ns < q->parked_due_ns)
					q->parked_due_ns = get->resume.due_ns;
				continue;
			}
			has_moved = true;
			leave_line(get);
			enter_locked(q, get);
		}
	}
	next_ns = q->parked_due_ns;
	wd_unlock(&q->lock);
	if (has_moved)
		wake_all(q);
	return next_ns;
}

void get_queue_finish(
	struct get_queue *q, struct get_job *job, int status, const struct wd_err *err)
{
	struct origin *o = job->origin;
	struct origin_get *get = job->get;
	int lane;

	/* the place goes on before done(), which may take its time */
	wd_lock(&q->lock);
	lane = leave_locked(q, job);
	wd_unlock(&q->lock);
	if (lane >= 0 && q->wake)
		q->wake(q->arg, (unsigned)lane);
	get->done(get->arg, status, err);
	count_done(q, o);
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
			leave_line(get);
		wd_unlock(&q->lock);
		if (!get)
			return;
		o = get->priv;
		wd_err_set(&err, ECANCELED, "cancelled");
		get->done(get->arg, -ECANCELED, &err);
		count_done(q, o);
	}
}

void get_queue_stop(struct get_queue *q)
{
	wd_lock(&q->lock);
	q->is_stopping = true;
	for (unsigned i = 0; i < q->nlanes; i++)
		wd_cond_signal(&q->lanes[i].wake);
	wd_unlock(&q->lock);
	wake_all(q);
}

bool get_queue_is_stopping(struct get_queue *q)
{
	bool is_stopping;

	wd_lock(&q->lock);
	is_stopping = q->is_stopping;
	wd_unlock(&q->lock);
	return is_stopping;
}
