/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_GET_QUEUE_H
#define WD_AGENT_GET_QUEUE_H
/*
 * Which ranged read runs where and when. A queue has lanes, one per thread, and places for a fixed
 * number of running reads. A read that finds a place goes to the least loaded lane at once; others
 * wait in the line of their class (agent/priority.h), each in order of arrival, and a higher class goes
 * first. A quarter of the places is for demand alone, so that it finds one free while all lower classes
 * want more than there is. The queue holds no memory of its own per waiting read: the callers bound how
 * many there are.
 *
 * A read is done exactly once, on a lane's thread, also when it was cancelled while it waited.
 * Thread-safe; one lock, a leaf, never held over a callback.
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
	bool is_busy, is_low; /* is_low: began below demand */
};

/* wake(arg, lane): something is there for the lane's thread to take; any thread, no lock held. */
struct get_queue *get_queue_new(
	unsigned lanes, unsigned max_running, void (*wake)(void *arg, unsigned lane), void *arg);
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
/* Calls done() and gives the place to a waiting read. */
void get_queue_finish(
	struct get_queue *q, struct get_job *job, int status, const struct wd_err *err);
/* The read waits for something else than a place, and gives its own back. It comes to the thread again
 * as a new job when get_queue_unpark() finds that due_ns has come. */
void get_queue_park(struct get_queue *q, struct get_job *job, int64_t due_ns);
/* Lines up the parked reads that are due by now_ns, INT64_MAX: all. Returns when the next one is due,
 * INT64_MAX: none. Lane 0 is woken when a read is parked that is due earlier than all others. */
int64_t get_queue_unpark(struct get_queue *q, int64_t now_ns);
/* Ends the waiting reads that were cancelled: calls their done(). */
void get_queue_end_cancelled(struct get_queue *q);

/* Refuses nothing yet, but get_queue_wait() returns NULL and get_queue_is_stopping() is true. */
void get_queue_stop(struct get_queue *q);
bool get_queue_is_stopping(struct get_queue *q);

#endif
