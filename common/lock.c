/* SPDX-License-Identifier: Apache-2.0 */
#include "common/lock.h"

#include <assert.h>
#include <errno.h>
#include <time.h>

void wd_mutex_init(struct wd_mutex *m)
{
	int rc = pthread_mutex_init(&m->m, NULL);

	assert(rc == 0);
}

void wd_mutex_done(struct wd_mutex *m)
{
	pthread_mutex_destroy(&m->m);
}

void wd_lock(struct wd_mutex *m) WD_NO_ANALYSIS
{
	int rc = pthread_mutex_lock(&m->m);

	assert(rc == 0);
}

void wd_unlock(struct wd_mutex *m) WD_NO_ANALYSIS
{
	int rc = pthread_mutex_unlock(&m->m);

	assert(rc == 0);
}

void wd_cond_init(struct wd_cond *c)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->c, &attr);
	pthread_condattr_destroy(&attr);
}

void wd_cond_done(struct wd_cond *c)
{
	pthread_cond_destroy(&c->c);
}

void wd_cond_wait(struct wd_cond *c, struct wd_mutex *m)
{
	pthread_cond_wait(&c->c, &m->m);
}

int wd_cond_wait_until(struct wd_cond *c, struct wd_mutex *m, int64_t deadline_ns)
{
	struct timespec ts = {deadline_ns / 1000000000, deadline_ns % 1000000000};

	return -pthread_cond_timedwait(&c->c, &m->m, &ts);
}

void wd_cond_signal(struct wd_cond *c)
{
	pthread_cond_signal(&c->c);
}

void wd_cond_broadcast(struct wd_cond *c)
{
	pthread_cond_broadcast(&c->c);
}

int64_t wd_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}
