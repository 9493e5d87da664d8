/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one mount may take of what all share, whatever its server does: worker threads, and memory in
 * the descriptors that were handed to it.
 *
 * Jobs. At most half of the workers work for one mount; its other jobs wait in its own line, in
 * order. A worker that is at it goes on with the line, so that nothing is queued from a worker.
 *
 * Bytes. A read past the cache is answered with a memfd, whose memory is the agent's for as long as
 * anybody holds it. The server says CANCEL when it has read it. Until then a descriptor is kept
 * here too, and when they hold more than the mount's share the oldest are cut to nothing: a server
 * that is merely slow finds a short file and asks again, one that hoards has hoarded nothing.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include <utlist.h>

#include "agent/mount.h"
#include "common/log.h"

/* ---- jobs ---- */

static void run_line(void *arg)
{
	struct mount *mnt = arg;

	for (;;) {
		struct mount_job *job;

		wd_lock(&mnt->lock);
		job = mnt->jobs;
		if (job)
			LL_DELETE(mnt->jobs, job);
		else
			mnt->nworkers--;
		wd_unlock(&mnt->lock);
		if (!job)
			break;
		job->fn(job->arg); /* which frees the job */
	}
	mount_unref(mnt);
}

void mount_run(struct mount *mnt, struct mount_job *job, void (*fn)(void *arg), void *arg)
{
	int64_t share = mnt->agent->settings->metadata_workers / 2;
	bool is_starting;

	job->fn = fn;
	job->arg = arg;
	wd_lock(&mnt->lock);
	LL_APPEND(mnt->jobs, job);
	is_starting = mnt->nworkers < (share > 1 ? share : 1);
	mnt->nworkers += is_starting;
	wd_unlock(&mnt->lock);
	if (is_starting)
		jobs_run(mnt->agent->jobs, run_line, mount_ref(mnt));
}

/* ---- bytes ---- */

struct lent {
	uint64_t id;
	int fd;
	uint64_t len;
	struct lent *prev, *next;
};

static void take_back(struct lent *l, bool is_cut)
{
	if (is_cut && ftruncate(l->fd, 0) < 0)
		wd_warn("take a server's bytes back: %m");
	close(l->fd);
	free(l);
}

bool mount_lend(struct mount *mnt, uint64_t id, int fd, uint64_t len)
{
	uint64_t share = (uint64_t)mnt->agent->settings->memory_limit / 4;
	struct lent *l = calloc(1, sizeof(*l)), *old = NULL, *x, *tmp;

	if (!l)
		return false;
	*l = (struct lent){.id = id, .fd = fcntl(fd, F_DUPFD_CLOEXEC, 3), .len = len};
	if (l->fd < 0) {
		free(l);
		return false;
	}
	wd_lock(&mnt->lock);
	mnt->lent_bytes += len;
	while (mnt->lent && mnt->lent_bytes > share) {
		x = mnt->lent;
		DL_DELETE(mnt->lent, x);
		mnt->lent_bytes -= x->len;
		DL_APPEND(old, x);
	}
	DL_APPEND(mnt->lent, l);
	wd_unlock(&mnt->lock);
	DL_FOREACH_SAFE(old, x, tmp)
		take_back(x, true);
	return true;
}

void mount_lent_is_read(struct mount *mnt, uint64_t id)
{
	struct lent *l;

	wd_lock(&mnt->lock);
	DL_FOREACH(mnt->lent, l)
		if (l->id == id)
			break;
	if (l) {
		DL_DELETE(mnt->lent, l);
		mnt->lent_bytes -= l->len;
	}
	wd_unlock(&mnt->lock);
	if (l)
		take_back(l, false);
}

void mount_lent_drop(struct mount *mnt)
{
	struct lent *old, *l, *tmp;

	wd_lock(&mnt->lock);
	old = mnt->lent;
	mnt->lent = NULL;
	mnt->lent_bytes = 0;
	wd_unlock(&mnt->lock);
	DL_FOREACH_SAFE(old, l, tmp)
		take_back(l, true);
}
