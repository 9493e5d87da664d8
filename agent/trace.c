/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See trace.h. A tracer is a filter and a ring; whoever tells copies into every ring that wants it. A tracer whose
 * reader went away without a word is ended by the next one that tells or begins.
 */
#include "agent/trace.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/access_log.h"
#include "agent/metrics.h"

#define RING_BYTES ((size_t)256 << 10)

struct tracer {
	struct traces *traces;
	uint64_t id;
	_Atomic int refs;
	char *target, *path, *pod;
	size_t path_len;
	uint64_t mount; /* id; 0: all */
	struct trace_ring ring;
	_Atomic int64_t asked_ns; /* when somebody last took from it */
	struct trace_counts base;
};

struct traces {
	struct agent *agent;
	struct access_log *log;
	_Atomic unsigned listeners; /* the log, and tracers */
	struct wd_mutex lock;
	struct tracer *tracers[TRACERS_MAX] WD_GUARDED_BY(lock); /* a reference each */
	uint64_t next_id WD_GUARDED_BY(lock);
	bool is_stopping WD_GUARDED_BY(lock);
};

int traces_new(struct agent *a, struct traces **ret_traces, struct wd_err *err)
{
	struct traces *t = calloc(1, sizeof(*t));
	int rc = t ? access_log_start(a->settings, &t->log, err) : wd_err_set(err, ENOMEM, "out of memory");

	if (rc < 0) {
		free(t);
		return rc;
	}
	t->agent = a;
	atomic_store(&t->listeners, t->log != NULL);
	wd_mutex_init(&t->lock);
	*ret_traces = t;
	return 0;
}

static void tracer_free(struct tracer *tr)
{
	trace_ring_done(&tr->ring);
	free(tr->target);
	free(tr->path);
	free(tr->pod);
	free(tr);
}

void tracer_unref(struct tracer *tr)
{
	if (tr && atomic_fetch_sub(&tr->refs, 1) == 1)
		tracer_free(tr);
}

static void end_locked(struct traces *t, unsigned i) WD_REQUIRES(t->lock)
{
	struct tracer *tr = t->tracers[i];

	t->tracers[i] = NULL;
	atomic_fetch_sub(&t->listeners, 1);
	trace_ring_end(&tr->ring);
	tracer_unref(tr);
}

static bool is_forsaken(struct tracer *tr, int64_t now_ns)
{
	return now_ns - atomic_load(&tr->asked_ns) > TRACER_PATIENCE_MS * 1000000LL;
}

void traces_stop(struct traces *t)
{
	if (!t)
		return;
	wd_lock(&t->lock);
	t->is_stopping = true;
	for (unsigned i = 0; i < TRACERS_MAX; i++)
		if (t->tracers[i])
			end_locked(t, i);
	wd_unlock(&t->lock);
}

void traces_free(struct traces *t)
{
	if (!t)
		return;
	access_log_stop(t->log);
	wd_mutex_done(&t->lock);
	free(t);
}

/* ---- who sees ---- */

bool traces_are_on(const struct traces *t)
{
	return atomic_load_explicit(&t->listeners, memory_order_relaxed) > 0;
}

int64_t traces_now(const struct traces *t)
{
	return traces_are_on(t) ? wd_now_ns() : 0;
}

static bool is_below(const struct tracer *tr, const char *path)
{
	return tr->path_len == 0 || (strncmp(path, tr->path, tr->path_len) == 0 &&
					    (path[tr->path_len] == '\0' || path[tr->path_len] == '/'));
}

static bool wants(const struct tracer *tr, const struct trace_event *e)
{
	const char *pod;

	if ((tr->mount && tr->mount != e->mount) || !is_below(tr, e->path))
		return false;
	return !tr->pod || (trace_pod(e->target, &pod) == strlen(tr->pod) &&
				   strncmp(pod, tr->pod, strlen(tr->pod)) == 0);
}

void trace_tell(struct mount *mnt, int64_t asked_ns, struct trace_event *e)
{
	struct traces *t = mnt->agent->traces;
	int64_t now_ns = wd_now_ns();
	struct timespec now;

	if (asked_ns == 0 || !traces_are_on(t))
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	e->wait_us = (uint64_t)(now_ns - asked_ns) / 1000;
	e->at_us = now.tv_sec * 1000000LL + now.tv_nsec / 1000 - (int64_t)e->wait_us;
	e->mount = mnt->id;
	e->target = mnt->target;
	e->dataset = mnt->display;
	if (t->log)
		access_log_put(t->log, e);
	wd_lock(&t->lock);
	for (unsigned i = 0; i < TRACERS_MAX; i++) {
		struct tracer *tr = t->tracers[i];

		if (tr && is_forsaken(tr, now_ns))
			end_locked(t, i);
		else if (tr && wants(tr, e) && !trace_ring_put(&tr->ring, e))
			metric_inc(METRIC_TRACE_LOST);
	}
	wd_unlock(&t->lock);
}

/* ---- who listens ---- */

/* What servers have counted: of one mount, or of all. -ENOTCONN: there is no such mount any more. */
static int count(struct agent *a, uint64_t mount, struct trace_counts *ret_counts)
{
	struct mount *mnt = mount ? mount_find(a, mount) : NULL;

	if (mount && !mnt)
		return -ENOTCONN;
	if (!mount)
		mounts_counts_take(a);
	ret_counts->server_bytes = mnt ? wd_mm_counted(&mnt->mm, WD_MM_READ_BYTES) : mounts_counted(WD_MM_READ_BYTES);
	ret_counts->unseen_opens = mnt ? wd_mm_counted(&mnt->mm, WD_MM_PASSTHROUGH_OPENS) +
						  wd_mm_counted(&mnt->mm, WD_MM_CACHED_OPENS)
				       : mounts_counted(WD_MM_PASSTHROUGH_OPENS) + mounts_counted(WD_MM_CACHED_OPENS);
	if (mnt)
		mount_unref(mnt);
	return 0;
}

static char *copy_of(const char *text)
{
	return text && text[0] ? strdup(text) : NULL;
}

static uint64_t find_target(struct agent *a, const char *target)
{
	uint64_t id = 0;

	wd_lock(&a->lock);
	for (struct mount *mnt = a->mounts; mnt; mnt = mnt->next)
		if (strcmp(mnt->target, target) == 0)
			id = mnt->id;
	wd_unlock(&a->lock);
	return id;
}

static struct tracer *tracer_new(struct traces *t, const struct trace_filter *filter)
{
	struct tracer *tr = calloc(1, sizeof(*tr));

	if (!tr)
		return NULL;
	tr->traces = t;
	atomic_store(&tr->refs, 1);
	atomic_store(&tr->asked_ns, wd_now_ns());
	tr->target = copy_of(filter->target);
	tr->path = copy_of(filter->path);
	tr->pod = copy_of(filter->pod);
	tr->path_len = tr->path ? strlen(tr->path) : 0;
	if (trace_ring_init(&tr->ring, RING_BYTES) < 0 || (filter->target && filter->target[0] && !tr->target) ||
		(filter->path && filter->path[0] && !tr->path) || (filter->pod && filter->pod[0] && !tr->pod)) {
		tracer_free(tr);
		return NULL;
	}
	return tr;
}

/* Gives it a place and a number. */
static bool enter(struct traces *t, struct tracer *tr)
{
	int64_t now_ns = wd_now_ns();
	bool is_in = false;

	wd_lock(&t->lock);
	for (unsigned i = 0; i < TRACERS_MAX; i++)
		if (t->tracers[i] && is_forsaken(t->tracers[i], now_ns))
			end_locked(t, i);
	for (unsigned i = 0; i < TRACERS_MAX && !is_in && !t->is_stopping; i++) {
		if (t->tracers[i])
			continue;
		tr->id = ++t->next_id;
		t->tracers[i] = tr;
		atomic_fetch_add(&t->listeners, 1);
		is_in = true;
	}
	wd_unlock(&t->lock);
	return is_in;
}

int tracer_begin(struct traces *t, const struct trace_filter *filter, uint64_t *ret_id, struct wd_err *err)
{
	struct tracer *tr = tracer_new(t, filter);

	if (!tr)
		return wd_err_set(err, ENOMEM, "trace: the agent is out of memory");
	if (tr->target)
		tr->mount = find_target(t->agent, tr->target);
	if ((tr->target && !tr->mount) || count(t->agent, tr->mount, &tr->base) < 0) {
		tracer_free(tr);
		return wd_err_set(err, ENOENT, "nothing of WarpDrive is mounted on '%s'", filter->target);
	}
	if (!enter(t, tr)) {
		tracer_free(tr);
		return wd_err_set(err, EAGAIN, "trace: %d are under way, and not more may be", TRACERS_MAX);
	}
	*ret_id = tr->id;
	return 0;
}

struct tracer *tracer_find(struct traces *t, uint64_t id)
{
	struct tracer *found = NULL;

	wd_lock(&t->lock);
	for (unsigned i = 0; i < TRACERS_MAX; i++)
		if (t->tracers[i] && t->tracers[i]->id == id)
			found = t->tracers[i];
	if (found)
		atomic_fetch_add(&found->refs, 1);
	wd_unlock(&t->lock);
	return found;
}

void tracer_end(struct traces *t, uint64_t id)
{
	wd_lock(&t->lock);
	for (unsigned i = 0; i < TRACERS_MAX; i++)
		if (t->tracers[i] && t->tracers[i]->id == id)
			end_locked(t, i);
	wd_unlock(&t->lock);
}

int tracer_take(struct tracer *tr, void *out, size_t cap, int64_t deadline_ns, size_t *ret_len,
	struct trace_counts *ret_counts)
{
	struct trace_counts counts = {0};
	int rc;

	atomic_store(&tr->asked_ns, wd_now_ns());
	*ret_len = trace_ring_take(&tr->ring, out, cap, deadline_ns, &counts.lost);
	atomic_store(&tr->asked_ns, wd_now_ns());
	if (*ret_len == 0 && trace_ring_has_ended(&tr->ring))
		return -ESHUTDOWN;
	rc = count(tr->traces->agent, tr->mount, &counts);
	if (rc < 0 && *ret_len == 0)
		return rc;
	if (rc == 0) {
		counts.server_bytes -= tr->base.server_bytes;
		counts.unseen_opens -= tr->base.unseen_opens;
	}
	*ret_counts = counts;
	return 0;
}
