/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes credentials that end anew before they do (credentials.h). One thread, which sleeps until the earliest mount
 * is due and then has a worker do it; a try that fails is made again after a while, and the mount's condition says
 * so meanwhile. The kubelet's next republish, with a fresh token, comes to the same.
 */
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "agent/credentials.h"
#include "agent/mount.h"
#include "agent/renew.h"

#define DUE_AT_ONCE 64
#define LONGEST_SLEEP_S 300 /* the machine's clock may be set meanwhile */

struct refresher {
	struct agent *agent;
	pthread_t thread;
	struct wd_mutex lock;
	struct wd_cond changed;
	bool is_awoken, is_stopping; /* guarded by lock */
};

/* Starts what is due; returns in how many seconds the next is. */
static int64_t run_due(struct agent *a)
{
	int64_t now_s = (int64_t)time(NULL), next_s = now_s + LONGEST_SLEEP_S;
	struct mount *due[DUE_AT_ONCE];
	unsigned n = 0;

	wd_lock(&a->lock);
	for (struct mount *mnt = a->mounts; mnt; mnt = mnt->next) {
		int64_t at_s = atomic_load(&mnt->refresh_at_s);

		if (!at_s)
			continue;
		if (at_s <= now_s && n < DUE_AT_ONCE) {
			atomic_store(&mnt->refresh_at_s, 0); /* set again by its end */
			due[n++] = mount_ref(mnt);
		} else if (at_s < next_s) {
			next_s = at_s;
		}
	}
	wd_unlock(&a->lock);
	for (unsigned i = 0; i < n; i++)
		renew_again(due[i]);
	return next_s > now_s ? next_s - now_s : 0;
}

static void *refresher_run(void *arg)
{
	struct refresher *r = arg;

	wd_lock(&r->lock);
	while (!r->is_stopping) {
		int64_t until_ns;

		r->is_awoken = false;
		wd_unlock(&r->lock);
		until_ns = wd_now_ns() + run_due(r->agent) * 1000000000LL;
		wd_lock(&r->lock);
		while (!r->is_awoken && !r->is_stopping && wd_now_ns() < until_ns)
			wd_cond_wait_until(&r->changed, &r->lock, until_ns);
	}
	wd_unlock(&r->lock);
	return NULL;
}

struct refresher *refresher_new(struct agent *a)
{
	struct refresher *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->agent = a;
	wd_mutex_init(&r->lock);
	wd_cond_init(&r->changed);
	if (pthread_create(&r->thread, NULL, refresher_run, r) != 0) {
		wd_cond_done(&r->changed);
		wd_mutex_done(&r->lock);
		free(r);
		return NULL;
	}
	return r;
}

void refresher_wake(struct refresher *r)
{
	wd_lock(&r->lock);
	r->is_awoken = true;
	wd_cond_broadcast(&r->changed);
	wd_unlock(&r->lock);
}

void refresher_stop(struct refresher *r)
{
	if (!r)
		return;
	wd_lock(&r->lock);
	r->is_stopping = true;
	wd_cond_broadcast(&r->changed);
	wd_unlock(&r->lock);
	pthread_join(r->thread, NULL);
}

void refresher_free(struct refresher *r)
{
	if (!r)
		return;
	wd_cond_done(&r->changed);
	wd_mutex_done(&r->lock);
	free(r);
}
