/* SPDX-License-Identifier: Apache-2.0 */
#include "common/rpc_lane.h"

void rpc_lane_init(struct rpc_lane *l, unsigned most, void (*run)(struct rpc_job *job))
{
	l->run = run;
	l->most = most;
	wd_mutex_init(&l->lock);
	wd_cond_init(&l->queued);
	wd_lock(&l->lock);
	l->last = &l->first;
	wd_unlock(&l->lock);
}

void rpc_lane_done(struct rpc_lane *l)
{
	wd_cond_done(&l->queued);
	wd_mutex_done(&l->lock);
}

static void *work(void *arg)
{
	struct rpc_lane *l = arg;

	wd_lock(&l->lock);
	while (l->first || !l->is_stopping) {
		struct rpc_job *job = l->first;

		if (!job) {
			wd_cond_wait(&l->queued, &l->lock);
			continue;
		}
		l->first = job->next;
		if (!l->first)
			l->last = &l->first;
		wd_unlock(&l->lock);
		l->run(job);
		wd_lock(&l->lock);
		l->njobs--;
	}
	wd_unlock(&l->lock);
	return NULL;
}

int rpc_lane_start(struct rpc_lane *l, unsigned workers)
{
	int rc = 0;

	while (rc == 0 && l->nworkers < workers && l->nworkers < RPC_WORKERS_MAX) {
		rc = pthread_create(&l->workers[l->nworkers], NULL, work, l);
		l->nworkers += rc == 0;
	}
	return -rc;
}

bool rpc_lane_push(struct rpc_lane *l, struct rpc_job *job)
{
	bool has_room;

	wd_lock(&l->lock);
	has_room = l->njobs < l->most;
	if (has_room) {
		job->next = NULL;
		*l->last = job;
		l->last = &job->next;
		l->njobs++;
		wd_cond_signal(&l->queued);
	}
	wd_unlock(&l->lock);
	return has_room;
}

void rpc_lane_stop(struct rpc_lane *l)
{
	wd_lock(&l->lock);
	l->is_stopping = true;
	wd_cond_broadcast(&l->queued);
	wd_unlock(&l->lock);
	for (unsigned i = 0; i < l->nworkers; i++)
		pthread_join(l->workers[i], NULL);
	l->nworkers = 0;
}
