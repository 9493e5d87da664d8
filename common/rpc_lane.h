/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_RPC_LANE_H
#define WD_COMMON_RPC_LANE_H
/*
 * Workers of the gRPC server, and the calls that wait for one, in order of arrival. A lane is bounded: what it cannot
 * take is refused, for the caller to answer. Thread-safe; its lock is a leaf.
 */
#include <pthread.h>
#include <stdbool.h>

#include "common/lock.h"
#include "common/rpc.h"

/* Embedded in a call. */
struct rpc_job {
	struct rpc_job *next;
};

struct rpc_lane {
	void (*run)(struct rpc_job *job); /* on a worker */
	unsigned most;			  /* jobs that wait and run */
	struct wd_mutex lock;
	struct wd_cond queued;
	struct rpc_job *first, **last WD_GUARDED_BY(lock);
	unsigned njobs WD_GUARDED_BY(lock); /* the same */
	bool is_stopping WD_GUARDED_BY(lock);
	pthread_t workers[RPC_WORKERS_MAX];
	unsigned nworkers;
};

void rpc_lane_init(struct rpc_lane *l, unsigned most, void (*run)(struct rpc_job *job));
/* 0 or -errno; those that were started are ended by rpc_lane_stop. */
int rpc_lane_start(struct rpc_lane *l, unsigned workers);
/* False: the lane is full. */
bool rpc_lane_push(struct rpc_lane *l, struct rpc_job *job);
/* Runs what waits, then joins the workers. */
void rpc_lane_stop(struct rpc_lane *l);
void rpc_lane_done(struct rpc_lane *l);

#endif
