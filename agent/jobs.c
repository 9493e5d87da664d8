/* SPDX-License-Identifier: Apache-2.0 */
/* See jobs.h. One mutex, one condition for work and one for room. */
#include "agent/jobs.h"

#include <stdbool.h>
#include <stdlib.h>

#include "agent/origin.h"
#include "common/lock.h"

#define STACK_SIZE (256 * 1024)

struct job {
	void (*fn)(void *arg);
	void *arg;
	int64_t since_ns; /* it waits since then */
};

struct jobs {
	struct wd_mutex lock;
	struct wd_cond has_work, has_room;
	struct job *ring;
	unsigned cap, head, count;
	unsigned max_threads, nthreads, idle;
	bool is_stopping;
	pthread_t *threads;
};

static void *work(void *arg)
{
	struct jobs *j = arg;

	wd_lock(&j->lock);
	for (;;) {
		struct job job;

		while (j->count == 0 && !j->is_stopping) {
			j->idle++;
			wd_cond_wait(&j->has_work, &j->lock);
			j->idle--;
		}
		if (j->count == 0)
			break;
		job = j->ring[j->head];
		j->head = (j->head + 1) % j->cap;
		j->count--;
		wd_cond_signal(&j->has_room);
		wd_unlock(&j->lock);
		origin_waiting_since(job.since_ns);
		job.fn(job.arg);
		wd_lock(&j->lock);
	}
	wd_unlock(&j->lock);
	return NULL;
}

static void spawn_locked(struct jobs *j)
{
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	if (pthread_create(&j->threads[j->nthreads], &attr, work, j) == 0)
		j->nthreads++;
	pthread_attr_destroy(&attr);
}

struct jobs *jobs_new(unsigned max_threads, unsigned max_queue)
{
	struct jobs *j = calloc(1, sizeof(*j));

	if (!j)
		return NULL;
	wd_mutex_init(&j->lock);
	wd_cond_init(&j->has_work);
	wd_cond_init(&j->has_room);
	j->cap = max_queue;
	j->max_threads = max_threads;
	j->ring = calloc(max_queue, sizeof(*j->ring));
	j->threads = calloc(max_threads, sizeof(*j->threads));
	if (j->ring && j->threads) {
		wd_lock(&j->lock);
		spawn_locked(j); /* one is always there */
		wd_unlock(&j->lock);
	}
	if (j->nthreads == 0) {
		jobs_stop(j);
		return NULL;
	}
	return j;
}

void jobs_stop(struct jobs *j)
{
	if (!j)
		return;
	wd_lock(&j->lock);
	j->is_stopping = true;
	wd_cond_broadcast(&j->has_work);
	wd_unlock(&j->lock);
	for (unsigned i = 0; i < j->nthreads; i++)
		pthread_join(j->threads[i], NULL);
	wd_cond_done(&j->has_work);
	wd_cond_done(&j->has_room);
	wd_mutex_done(&j->lock);
	free(j->ring);
	free(j->threads);
	free(j);
}

void jobs_run(struct jobs *j, void (*fn)(void *arg), void *arg)
{
	wd_lock(&j->lock);
	while (j->count == j->cap)
		wd_cond_wait(&j->has_room, &j->lock);
	j->ring[(j->head + j->count) % j->cap] = (struct job){fn, arg, wd_now_ns()};
	j->count++;
	if (j->idle < j->count && j->nthreads < j->max_threads)
		spawn_locked(j);
	wd_cond_signal(&j->has_work);
	wd_unlock(&j->lock);
}
