/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_GET_QUEUE_H
#define WD_AGENT_GET_QUEUE_H
/*
 * Which ranged read runs where and when. A queue has lanes, one per thread, and places for a fixed
 * number of running reads. A read that finds a place goes to the least loaded lane at once; others
 * wait by class (agent/priority.h), and a higher class goes first. Within a class the flow (agent/flow.h)
 * that has the fewest reads running goes first, and the reads of one flow in order of arrival. A quarter of
 * the places is for demand alone, so that it finds one free while all lower classes want more than there is.
 *
 * A read also waits while its flow, or all flows together, have used up their bandwidth, and while its
 * origin takes no more, or no more of its class while readers are there (agent/pace.h): others go on meanwhile.
 * The queue holds no memory of its own per waiting read: the callers bound how many there are.
 *
 * A read is done exactly once, on a lane's thread, also when it was cancelled while it waited.
 * Thread-safe; one lock, never held over a callback. Below it are those of pace and flow.
 */
#include <stdbool.h>
#include <stdint.h>

#include "agent/origin_impl.h"

struct get_queue;

/* A read that has a place. */
struct get_job {
	struct origin *origin;
	struct origin_get *get;
	_Atomic bool is_cancelled; /* looked at by the lane's thread when it was woken */
	/* the queue's */
	struct get_job *next;
	unsigned lane;
	bool is_busy;
	enum get_priority began_as;
	struct flow *flow;
	uint64_t charged, given_before; /* bytes that its flow paid for, and had at the begin */
};

/* wake(arg, lane): something is there for the lane's thread to take, or (lane 0) get_queue_unpark() is due earlier
 * than it said; any thread, no lock held. Up to 64 lanes. */
struct get_queue *get_queue_new(unsigned lanes, unsigned max_running, void (*wake)(void *arg, unsigned lane),
	void *arg, int64_t (*now_ns)(void));
/* The queue must be empty. */
void get_queue_free(struct get_queue *q);

void get_queue_push(struct get_queue *q, struct origin *o, struct origin_get *get);
void get_queue_cancel(struct get_queue *q, struct origin_get *get);
/* As origin_prioritise(). */
void get_queue_prioritise(struct get_queue *q, struct origin_get *get, enum get_priority priority);
/* Cancels all reads of o and waits until each is done. Not from a lane's thread. */
void get_queue_drain(struct get_queue *q, struct origin *o);

/* For the lane's thread: the next job of this lane, or NULL. */
struct get_job *get_queue_take(struct get_queue *q, unsigned lane);
/* The same, waiting for one; NULL once the queue is stopping and the lane is empty. */
struct get_job *get_queue_wait(struct get_queue *q, unsigned lane);
/* What the job's read is for by now: it may have been raised while it runs. */
enum get_priority get_queue_class(struct get_queue *q, const struct get_job *job);
/* Calls done() and gives the place to a waiting read. */
void get_queue_finish(
	struct get_queue *q, struct get_job *job, int status, const struct wd_err *err);
/* The read waits for something else than a place, and gives its own back. It comes to the thread again
 * as a new job when get_queue_unpark() finds that due_ns has come. */
void get_queue_park(struct get_queue *q, struct get_job *job, int64_t due_ns);
/* Lines up the parked reads that are due by now_ns, INT64_MAX: all, and begins what waited for its flow or origin.
 * Returns when to call it next, INT64_MAX: nothing waits for a time. Lane 0 is woken when that comes earlier. */
int64_t get_queue_unpark(struct get_queue *q, int64_t now_ns);
/* Ends the waiting reads that were cancelled: calls their done(). */
void get_queue_end_cancelled(struct get_queue *q);

/* Refuses nothing yet, but get_queue_wait() returns NULL and get_queue_is_stopping() is true. */
void get_queue_stop(struct get_queue *q);
bool get_queue_is_stopping(struct get_queue *q);

#endif
