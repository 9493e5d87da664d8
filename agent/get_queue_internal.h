/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_GET_QUEUE_INTERNAL_H
#define WD_AGENT_GET_QUEUE_INTERNAL_H
/* What get_queue.c (whose turn it is) and get_queue_cancel.c share. */
#include <utlist.h>

#include "agent/get_queue.h"
#include "common/lock.h"

struct lane {
	struct get_job *head, **tail; /* given to the lane, not yet taken */
	unsigned load;		      /* given and running */
	struct wd_cond wake;
};

struct get_queue {
	struct wd_mutex lock;
	struct wd_cond drained;
	struct flow_line *rings[GET_PRIORITIES] WD_GUARDED_BY(lock);
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
	int64_t (*now_ns)(void);
	int64_t turn_due_ns WD_GUARDED_BY(lock); /* the turn of somebody who waits comes then; INT64_MAX: not by time */
};

static inline void get_queue_join(struct origin_get **line, struct origin_get *get)
{
	get->line = line;
	DL_APPEND(*line, get);
}

static inline void get_queue_leave(struct origin_get *get)
{
	DL_DELETE(*get->line, get);
	get->line = NULL;
}

/* Takes a read out of wherever it waits. */
void get_queue_unwait_locked(struct get_queue *q, struct origin_get *get) WD_REQUIRES(q->lock);
/* A read of o has been done. */
void get_queue_count_done(struct get_queue *q, struct origin *o);
/* Wakes these lanes, a bit each. Without the lock. */
void get_queue_wake(struct get_queue *q, uint64_t lanes);

#endif
