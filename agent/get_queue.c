/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue of ranged reads in front of a set of threads (see the header for the rules).
 *
 *	push ──► place free? ──► lane's inbox ──► take() ──► running ──► finish() ─┐
 *	             │ no                                                         │ place
 *	             └──────► waiting (demand | others) ◄─────────────────────────┘
 *
 * While a read waits it is linked by get->next and get->priv is its origin. A cancelled one moves
 *to the `cancelled` list, so that its done() comes from a lane's thread as the contract says.
 */
#include "agent/get_queue.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "common/lock.h"

struct get_list {
	struct origin_get *head, **tail;
};

struct lane {
	struct get_job *head, **tail; /* given to the lane, not yet taken */
	unsigned load;		      /* given and running */
	struct wd_cond wake;
};

struct get_queue {
	struct wd_mutex lock;
	struct wd_cond drained;
	struct get_list waiting[2] WD_GUARDED_BY(lock); /* [1]: demand */
	struct get_list cancelled WD_GUARDED_BY(lock);
	struct get_list parked WD_GUARDED_BY(lock);
	int64_t parked_due_ns WD_GUARDED_BY(lock); /* the earliest; too early at times */
	bool is_stopping WD_GUARDED_BY(lock);
	struct get_job *free_jobs WD_GUARDED_BY(lock);
	unsigned nlanes, njobs;
	struct lane *lanes;
	struct get_job *jobs;
	void (*wake)(void *arg, unsigned lane);
	void *arg;
};

static void list_init(struct get_list *l)
{
	l->head = NULL;
	l->tail = &l->head;
}

static void list_push(struct get_list *l, struct origin_get *get)
{
	get->next = NULL;
	*l->tail = get;
	l->tail = &get->next;
}

static struct origin_get *list_pop(struct get_list *l)
{
	struct origin_get *get = l->head;

	if (!get)
		return NULL;
	l->head = get->next;
	if (!l->head)
		l->tail = &l->head;
	get->next = NULL;
	return get;
}

/* Moves what matches (get, or everything of o) to another list; true when something moved. */
static bool list_move(struct get_list *from, struct get_list *to, const struct origin_get *get,
	const struct origin *o)
{
	struct get_list kept;
	struct origin_get *g;
	bool moved = false;

	list_init(&kept);
	while ((g = list_pop(from))) {
		bool is_match = g == get || (o && g->priv == o);

		list_push(is_match ? to : &kept, g);
		moved |= is_match;
	}
	list_init(from);
	while ((g = list_pop(&kept)))
		list_push(from, g);
	return moved;
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
	list_init(&q->waiting[0]);
	list_init(&q->waiting[1]);
	list_init(&q->cancelled);
	list_init(&q->parked);
	q->parked_due_ns = INT64_MAX;
	q->nlanes = lanes;
	q->njobs = max_running < lanes ? lanes : max_running;
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
	unsigned best = 0;

	if (!job)
		return -1;
	q->free_jobs = job->next;
	for (unsigned i = 1; i < q->nlanes; i++)
		if (q->lanes[i].load < q->lanes[best].load)
			best = i;
	job->origin = o;
	job->get = get;
	job->is_cancelled = false;
	job->is_busy = true;
	job->lane = best;
	job->next = NULL;
	*q->lanes[best].tail = job;
	q->lanes[best].tail = &job->next;
	q->lanes[best].load++;
	wd_cond_signal(&q->lanes[best].wake);
	return (int)best;
}

void get_queue_push(struct get_queue *q, struct origin *o, struct origin_get *get)
{
	int lane;

	get->next = NULL;
	get->priv = o;
	wd_lock(&q->lock);
	o->in_flight++;
	lane = place_locked(q, o, get);
	if (lane < 0)
		list_push(&q->waiting[get->is_demand], get);
	wd_unlock(&q->lock);
	if (lane >= 0 && q->wake)
		q->wake(q->arg, (unsigned)lane);
}

static void wake_all(struct get_queue *q)
{
	for (unsigned i = 0; q->wake && i < q->nlanes; i++)
		q->wake(q->arg, i);
}

static void cancel_matching(
	struct get_queue *q, const struct origin_get *get, const struct origin *o)
{
	bool found = false;

	wd_lock(&q->lock);
	for (int i = 0; i < 2; i++)
		found |= list_move(&q->waiting[i], &q->cancelled, get, o);
	found |= list_move(&q->parked, &q->cancelled, get, o);
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
		if (q->cancelled.head) {
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

/* Frees the job's place and gives it to a waiting read; returns that one's lane, -1: none waits. */
static int leave_locked(struct get_queue *q, struct get_job *job) WD_REQUIRES(q->lock)
{
	struct origin_get *waiting;

	q->lanes[job->lane].load--;
	job->is_busy = false;
	job->get = NULL;
	job->next = q->free_jobs;
	q->free_jobs = job;
	waiting = list_pop(&q->waiting[1]);
	if (!waiting)
		waiting = list_pop(&q->waiting[0]);
	return waiting ? place_locked(q, waiting->priv, waiting) : -1;
}

void get_queue_park(struct get_queue *q, struct get_job *job, int64_t due_ns)
{
	struct origin_get *get = job->get;
	bool is_cancelled, is_next;
	int lane;

	wd_lock(&q->lock);
	is_cancelled = job->is_cancelled;
	lane = leave_locked(q, job);
	get->resume.due_ns = due_ns;
	list_push(is_cancelled ? &q->cancelled : &q->parked, get);
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
	struct get_list left;
	struct origin_get *get;
	int64_t next_ns;
	bool has_moved = false;

	wd_lock(&q->lock);
	if (now_ns >= q->parked_due_ns) {
		list_init(&left);
		q->parked_due_ns = INT64_MAX;
		while ((get = list_pop(&q->parked))) {
			if (get->resume.due_ns > now_ns) {
				if (get->resume.due_ns < q->parked_due_ns)
					q->parked_due_ns = get->resume.due_ns;
				list_push(&left, get);
				continue;
			}
			has_moved = true;
			if (place_locked(q, get->priv, get) < 0)
				list_push(&q->waiting[get->is_demand], get);
		}
		list_init(&q->parked);
		while ((get = list_pop(&left)))
			list_push(&q->parked, get);
	}
	next_ns = q->parked_due_ns;
	wd_unlock(&q->lock);
	for (unsigned i = 0; has_moved && q->wake && i < q->nlanes; i++)
		q->wake(q->arg, i);
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
		get = list_pop(&q->cancelled);
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
