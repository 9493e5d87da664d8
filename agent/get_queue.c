/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue of ranged reads in front of a set of threads (see the header for the rules).
 *
 *	push ──► waiting ──► place free, and its turn? ──► lane's inbox ──► take() ──► running ──► finish() ─┐
 *	            ▲                                                                                      │ place
 *	            └────────────────────── fill: the next in turn ◄───────────────────────────────────────┘
 *
 * Those who wait stand in lines of their flow, one per class; the lines of a class that are not empty form a ring.
 * While a read waits, get->line is where (NULL: nowhere) and get->priv is its origin. A cancelled one moves
 * to the `cancelled` list, so that its done() comes from a lane's thread as the contract says.
 */
#include "agent/get_queue_internal.h"

#include <assert.h>
#include <stdlib.h>

#include "agent/metrics.h"

static struct flow *flow_of(const struct origin_get *get)
{
	struct origin *o = get->priv;

	return get->flow ? get->flow : &o->flow;
}

/* A read that waits nowhere waits for its turn; one that nobody wants, for its end. */
static void wait_locked(struct get_queue *q, struct origin_get *get) WD_REQUIRES(q->lock)
{
	struct flow_line *line;

	if (get->priority == GET_UNWANTED) {
		get_queue_join(&q->cancelled, get);
		return;
	}
	line = &flow_of(get)->lines[get->priority];
	if (!line->head) {
		line->flow = flow_of(get);
		DL_APPEND(q->rings[get->priority], line);
	}
	get_queue_join(&line->head, get);
}

/* Takes a read out of wherever it waits. */
void get_queue_unwait_locked(struct get_queue *q, struct origin_get *get) WD_REQUIRES(q->lock)
{
	bool is_in_flow = get->line != &q->parked && get->line != &q->cancelled;
	struct flow_line *line = is_in_flow ? &flow_of(get)->lines[get->priority] : NULL;

	get_queue_leave(get);
	if (line && !line->head)
		DL_DELETE(q->rings[get->priority], line);
}

struct get_queue *get_queue_new(unsigned lanes, unsigned max_running, void (*wake)(void *arg, unsigned lane),
	void *arg, int64_t (*now_ns)(void))
{
	struct get_queue *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	wd_mutex_init(&q->lock);
	wd_cond_init(&q->drained);
	wd_lock(&q->lock);
	assert(lanes > 0 && lanes <= 64);
	q->parked_due_ns = INT64_MAX;
	q->turn_due_ns = INT64_MAX;
	q->now_ns = now_ns;
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

static void pay(struct get_job *job)
{
	struct origin_get *get = job->get;

	job->given_before = get->resume.given;
	job->charged = get->length - get->resume.given;
	bucket_take(&job->flow->bucket, job->charged);
	flows_take(job->charged);
}

static void settle(struct get_job *job)
{
	uint64_t came = job->get->resume.given - job->given_before;

	if (came >= job->charged)
		return;
	bucket_return(&job->flow->bucket, job->charged - came);
	flows_return(job->charged - came);
}

static void count(const struct origin_get *get, int64_t now_ns)
{
	enum get_priority class = get->priority;

	metric_inc(get->length <= 256 << 10  ? METRIC_GETS_SMALL
		: get->length <= 1 << 20 ? METRIC_GETS_MEDIUM
		: get->length <= 4 << 20 ? METRIC_GETS_LARGE
					 : METRIC_GETS_HUGE);
	metric_inc(METRIC_QUEUED_WARM + class);
	metric_add(METRIC_QUEUE_US_WARM + class, (uint64_t)(now_ns - get->queued_ns) / 1000);
}

/* Gives a read that is next a place on the least loaded lane; there is one. Returns the lane. */
static unsigned place_locked(struct get_queue *q, struct origin_get *get, int64_t now_ns) WD_REQUIRES(q->lock)
{
	struct get_job *job = q->free_jobs;
	unsigned best = 0;

	q->free_jobs = job->next;
	count(get, now_ns);
	for (unsigned i = 1; i < q->nlanes; i++)
		if (q->lanes[i].load < q->lanes[best].load)
			best = i;
	job->origin = get->priv;
	job->get = get;
	job->is_cancelled = false;
	job->is_busy = true;
	job->began_as = get->priority;
	job->flow = flow_of(get);
	job->flow->running++;
	q->nlow += job->began_as < GET_DEMAND;
	if (job->origin->pace)
		pace_began(job->origin->pace, job->began_as, now_ns);
	pay(job);
	job->lane = best;
	job->next = NULL;
	*q->lanes[best].tail = job;
	q->lanes[best].tail = &job->next;
	q->lanes[best].load++;
	wd_cond_signal(&q->lanes[best].wake);
	return best;
}

/* May the first of a line begin? If not, *due_ns is lowered to when it may, where that is a time. */
static bool may_begin(struct flow_line *line, enum get_priority class, int64_t now_ns, int64_t *due_ns)
{
	struct flow *flow = line->flow;
	struct origin *o = line->head->priv;
	int64_t at_ns = INT64_MAX;

	if (flow->rate && flow->bucket.rate == 0)
		bucket_init(&flow->bucket, flow->rate, now_ns);
	if (bucket_allows(&flow->bucket, now_ns, &at_ns) && flows_allow(now_ns, &at_ns) &&
		(!o->pace || pace_allows(o->pace, class, now_ns, &at_ns)))
		return true;
	if (at_ns < *due_ns)
		*due_ns = at_ns;
	return false;
}

/* The read whose turn it is, or NULL: the highest class, the flow with the fewest running. */
static struct origin_get *next_locked(struct get_queue *q, int64_t now_ns, int64_t *due_ns) WD_REQUIRES(q->lock)
{
	for (int class = GET_PRIORITIES - 1; class >= 0; class--) {
		struct flow_line *line, *best = NULL;

		if (class < GET_DEMAND && q->nlow >= q->max_low)
			return NULL;
		DL_FOREACH(q->rings[class], line) {
			if (best && best->flow->running <= line->flow->running)
				continue;
			if (may_begin(line, (enum get_priority)class, now_ns, due_ns))
				best = line;
		}
		if (!best)
			continue;
		/* the next of as few running is another one */
		DL_DELETE(q->rings[class], best);
		DL_APPEND(q->rings[class], best);
		return best->head;
	}
	return NULL;
}

#define LANE(i) (1ULL << (i))

/* Gives the free places to those whose turn it is. Returns the lanes to wake, a bit for each. */
static uint64_t fill_locked(struct get_queue *q) WD_REQUIRES(q->lock)
{
	int64_t now_ns = q->now_ns(), due_ns = INT64_MAX;
	struct origin_get *get;
	uint64_t lanes = 0;

	while (q->free_jobs && (get = next_locked(q, now_ns, &due_ns))) {
		get_queue_unwait_locked(q, get);
		lanes |= LANE(place_locked(q, get, now_ns));
		due_ns = INT64_MAX;
	}
	if (due_ns < q->turn_due_ns)
		lanes |= LANE(0);
	for (unsigned i = 0; due_ns < q->turn_due_ns && i < q->nlanes; i++)
		wd_cond_signal(&q->lanes[i].wake);
	q->turn_due_ns = due_ns;
	return lanes;
}

void get_queue_wake(struct get_queue *q, uint64_t lanes)
{
	for (unsigned i = 0; q->wake && i < q->nlanes; i++)
		if (lanes & LANE(i))
			q->wake(q->arg, i);
}

/* A read that waits nowhere enters. Returns the lanes to wake. */
static uint64_t enter_locked(struct get_queue *q, struct origin_get *get) WD_REQUIRES(q->lock)
{
	wait_locked(q, get);
	if (get->priority != GET_UNWANTED)
		return fill_locked(q);
	for (unsigned i = 0; i < q->nlanes; i++)
		wd_cond_signal(&q->lanes[i].wake);
	return LANE(0);
}

void get_queue_push(struct get_queue *q, struct origin *o, struct origin_get *get)
{
	uint64_t lanes;

	get->priv = o;
	get->queued_ns = q->now_ns();
	wd_lock(&q->lock);
	o->in_flight++;
	lanes = enter_locked(q, get);
	wd_unlock(&q->lock);
	get_queue_wake(q, lanes);
}

void get_queue_prioritise(struct get_queue *q, struct origin_get *get, enum get_priority priority)
{
	uint64_t lanes = 0;

	wd_lock(&q->lock);
	if (get->line == &q->parked && priority != GET_UNWANTED) {
		get->priority = priority; /* it comes back with that */
	} else if (get->line && get->line != &q->cancelled && get->priority != priority) {
		get_queue_unwait_locked(q, get);
		get->priority = priority;
		lanes = enter_locked(q, get);
	} else if (!get->line) {
		get->priority = priority;
	}
	wd_unlock(&q->lock);
	get_queue_wake(q, lanes);
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
		} else if (q->turn_due_ns == INT64_MAX) {
			wd_cond_wait(&q->lanes[lane].wake, &q->lock);
		} else if (wd_cond_wait_until(&q->lanes[lane].wake, &q->lock, q->turn_due_ns) < 0) {
			fill_locked(q);
		}
	}
	wd_unlock(&q->lock);
	return job;
}

enum get_priority get_queue_class(struct get_queue *q, const struct get_job *job)
{
	enum get_priority class;

	wd_lock(&q->lock);
	class = job->get->priority;
	wd_unlock(&q->lock);
	return class;
}

void get_queue_count_done(struct get_queue *q, struct origin *o)
{
	wd_lock(&q->lock);
	assert(o->in_flight > 0);
	if (--o->in_flight == 0)
		wd_cond_broadcast(&q->drained);
	wd_unlock(&q->lock);
}

/* Frees the job's place, for those who wait; returns the lanes to wake. */
static uint64_t leave_locked(struct get_queue *q, struct get_job *job) WD_REQUIRES(q->lock)
{
	settle(job);
	if (job->origin->pace)
		pace_ended(job->origin->pace, job->began_as, q->now_ns());
	job->flow->running--;
	q->lanes[job->lane].load--;
	q->nlow -= job->began_as < GET_DEMAND;
	job->is_busy = false;
	job->get = NULL;
	job->flow = NULL;
	job->next = q->free_jobs;
	q->free_jobs = job;
	return fill_locked(q);
}

void get_queue_park(struct get_queue *q, struct get_job *job, int64_t due_ns)
{
	struct origin_get *get = job->get;
	bool is_cancelled, is_next;
	uint64_t lanes;

	wd_lock(&q->lock);
	is_cancelled = job->is_cancelled || get->priority == GET_UNWANTED;
	lanes = leave_locked(q, job);
	get->resume.due_ns = due_ns;
	get_queue_join(is_cancelled ? &q->cancelled : &q->parked, get);
	is_next = is_cancelled || due_ns < q->parked_due_ns;
	if (!is_cancelled && is_next)
		q->parked_due_ns = due_ns;
	if (is_next)
		lanes |= LANE(0);
	wd_unlock(&q->lock);
	get_queue_wake(q, lanes);
}

static void unpark_locked(struct get_queue *q, int64_t now_ns) WD_REQUIRES(q->lock)
{
	struct origin_get *get, *next;

	q->parked_due_ns = INT64_MAX;
	DL_FOREACH_SAFE(q->parked, get, next) {
		if (get->resume.due_ns > now_ns) {
			if (get->resume.due_ns < q->parked_due_ns)
				q->parked_due_ns = get->resume.due_ns;
			continue;
		}
		get_queue_leave(get);
		get->queued_ns = now_ns == INT64_MAX ? q->now_ns() : now_ns;
		wait_locked(q, get);
	}
}

int64_t get_queue_unpark(struct get_queue *q, int64_t now_ns)
{
	uint64_t lanes = 0;
	int64_t next_ns;

	wd_lock(&q->lock);
	if (now_ns >= q->parked_due_ns || now_ns >= q->turn_due_ns) {
		if (now_ns >= q->parked_due_ns)
			unpark_locked(q, now_ns);
		lanes = fill_locked(q);
	}
	next_ns = q->parked_due_ns < q->turn_due_ns ? q->parked_due_ns : q->turn_due_ns;
	wd_unlock(&q->lock);
	get_queue_wake(q, lanes);
	return next_ns;
}

void get_queue_finish(
	struct get_queue *q, struct get_job *job, int status, const struct wd_err *err)
{
	struct origin *o = job->origin;
	struct origin_get *get = job->get;
	uint64_t lanes;

	/* the place goes on before done(), which may take its time */
	wd_lock(&q->lock);
	lanes = leave_locked(q, job);
	wd_unlock(&q->lock);
	get_queue_wake(q, lanes);
	get->done(get->arg, status, err);
	get_queue_count_done(q, o);
}

void get_queue_stop(struct get_queue *q)
{
	wd_lock(&q->lock);
	q->is_stopping = true;
	for (unsigned i = 0; i < q->nlanes; i++)
		wd_cond_signal(&q->lanes[i].wake);
	wd_unlock(&q->lock);
	get_queue_wake(q, UINT64_MAX);
}

bool get_queue_is_stopping(struct get_queue *q)
{
	bool is_stopping;

	wd_lock(&q->lock);
	is_stopping = q->is_stopping;
	wd_unlock(&q->lock);
	return is_stopping;
}
