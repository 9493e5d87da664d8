/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening files: which cache object, and by which mode.
 *
 *	OPEN ─► bind version ─► proof of access ─► small: fetch whole ─► complete? ─┬─► register ─► PASSTHROUGH
 *	        (origin, job)   (origin, async)    (origin, async)                  └─► CACHED
 *
 * An open_file exists per (mount, node) from the first OPEN to the RELEASE; OPENs that come while it
 * is being made wait on it and get the same answer. It holds a reference to the cache object, so an
 * open file's object is never evicted. A passthrough file that nobody has open any longer stays
 * pooled in the shared tables without a message to us; its reference is marked as the pool's, and an
 * eviction takes the id back (open_reclaim.c).
 *
 * mount->lock guards the table of open files and their states. Steps run on the hub, a worker, a
 * transfer or the evictor thread, one at a time per open file.
 */
#include "agent/open_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#include "agent/ahead.h"
#include "agent/metrics.h"
#include "agent/pins.h"
#include "agent/proof.h"
#include "agent/trace.h"
#include "common/cleanup.h"
#include "common/log.h"

void waiting_free(struct waiting *w)
{
	conn_end(w->conn);
	conn_unref(w->conn);
	free(w);
}

static void open_decide(struct open_file *of);

void open_file_free(struct open_file *of)
{
	open_pool_remove(of->mount->agent->pool, of);
	if (of->object && of->mode == WD_OPEN_PASSTHROUGH && of->state != OPENING)
		object_unpool(of->object);
	fetch_close(of->fetch);
	if (of->object)
		object_unref(of->object);
	mount_unref(of->mount);
	free(of);
}

/* ---- answering ---- */

/* The cache file and live map of a cached open. */
static int cached_fds(struct object *object, int ret_fds[2], struct wd_err *err)
{
	ret_fds[0] = object_open_file(object, err);
	if (ret_fds[0] < 0)
		return ret_fds[0];
	ret_fds[1] = object_open_map(object, err);
	if (ret_fds[1] < 0) {
		close(ret_fds[0]);
		return ret_fds[1];
	}
	return 0;
}

static void reply_open(struct conn *c, uint64_t id, enum wd_open_mode mode, uint32_t backing_id,
	struct object *object)
{
	struct wd_err err = WD_ERR_INIT;
	int fds[2] = {-1, -1};
	struct wd_msg *m = hub_scratch();

	if (mode == WD_OPEN_CACHED && cached_fds(object, fds, &err) < 0) {
		/* the cache disk is ill: serve without it */
		wd_warn("open without cache file: %s", err.msg);
		mode = WD_OPEN_DIRECT;
	}
	wd_msg_start_reply(m, WD_MSG_OPEN, id, 0);
	wd_put_u8(m, (uint8_t)mode);
	wd_put_u32(m, backing_id);
	wd_put_u64(m, object_size(object));
	if (mode == WD_OPEN_CACHED) {
		wd_put_fd(m, fds[0]);
		wd_put_fd(m, fds[1]);
	}
	conn_send(c, m);
	if (fds[0] >= 0)
		close(fds[0]);
	if (fds[1] >= 0)
		close(fds[1]);
}

/* ---- telling who listens (trace.h) ---- */

/* What an OPEN that went well is to them. was_complete: before anything was fetched for it. */
static struct trace_event event_of(enum wd_open_mode mode, const struct object *object, bool was_complete)
{
	struct trace_event e = {.kind = TRACE_OPEN};

	if (mode == WD_OPEN_PASSTHROUGH) {
		e.mode = TRACE_PASSTHROUGH;
		e.tier = was_complete ? TRACE_LOCAL : TRACE_ORIGIN;
		e.length = object_size(object);
	} else {
		e.mode = object_present_bytes(object) ? TRACE_CACHED : TRACE_COLD;
	}
	return e;
}

/* w is about to be answered: so what one reader does is told in its order. */
static void tell_open(struct mount *mnt, uint64_t node, const struct waiting *w, struct trace_event e)
{
	struct node info;

	if (!w->asked_ns)
		return;
	e.path = tree_node(mnt->dataset, node, &info) == 0 ? info.key : "";
	trace_tell(mnt, w->asked_ns, &e);
}

/* ---- opening ---- */

static void count_open(const struct open_file *of)
{
	if (of->mode == WD_OPEN_PASSTHROUGH) {
		metric_inc(METRIC_OPENS_PASSTHROUGH);
		metric_add(METRIC_READ_LOCAL, object_size(of->object));
	} else {
		metric_inc(object_present_bytes(of->object) ? METRIC_OPENS_CACHED : METRIC_OPENS_COLD);
	}
	mount_count_open(of->mount, of->mode == WD_OPEN_PASSTHROUGH ? object_size(of->object) : 0);
}

/* Takes a file that is out of the table out of the world. */
void open_close(struct open_file *of)
{
	if (of->mode == WD_OPEN_PASSTHROUGH)
		keeper_backing_close(of->mount->agent->keeper, of->mount->id, of->backing_id, NULL, NULL);
	open_file_free(of);
}

static void index_locked(struct mount *mnt, struct open_file *of) WD_REQUIRES(mnt->lock)
{
	of->id = *object_id(of->object);
	HASH_ADD(hh_object, mnt->by_object, id, sizeof(of->id), of);
	of->is_indexed = true;
}

void open_take_out_locked(struct mount *mnt, struct open_file *of)
{
	HASH_DEL(mnt->opens, of);
	if (of->is_indexed)
		HASH_DELETE(hh_object, mnt->by_object, of);
	of->is_indexed = false;
}

/* Answers all who wait. The mount may have gone meanwhile, or the file been released: then nothing stays
 * open. */
static void open_done(struct open_file *of)
{
	struct mount *mnt = of->mount;
	struct agent *agent = mnt->agent;
	struct waiting *w, *tmp, *waiting;
	enum wd_open_mode mode = of->mode;
	uint32_t backing_id = of->backing_id;
	struct object *object = object_ref(of->object);
	struct trace_event event = event_of(mode, object, of->was_complete);
	uint64_t node = of->node;
	bool is_gone, is_released;

	mount_ref(mnt); /* of may be released by whoever was answered */
	count_open(of);
	of->uses = open_uses(of);
	if (mode == WD_OPEN_PASSTHROUGH) {
		/* a fetch refers to the object, too: with one it would never be evicted */
		fetch_close(of->fetch);
		of->fetch = NULL;
		object_pool(of->object);
		open_pool_add(mnt->agent->pool, of);
	}
	wd_lock(&mnt->lock);
	is_gone = mnt->is_gone;
	is_released = of->is_released;
	of->state = OPEN;
	waiting = of->waiting;
	of->waiting = NULL;
	if (is_gone || is_released)
		open_take_out_locked(mnt, of);
	else
		index_locked(mnt, of);
	wd_unlock(&mnt->lock);
	LL_FOREACH_SAFE(waiting, w, tmp) {
		tell_open(mnt, node, w, event);
		reply_open(w->conn, w->id, mode, backing_id, object);
		waiting_free(w);
	}
	if (is_gone)
		open_file_free(of);
	else if (is_released)
		open_close(of);
	object_unref(object);
	if (mode == WD_OPEN_PASSTHROUGH)
		open_pool_shrink(agent->pool);
	mount_unref(mnt);
}

static void open_fail(struct open_file *of, int status, const struct wd_err *err)
{
	struct mount *mnt = of->mount;
	struct waiting *w, *tmp, *waiting;

	/* gone: the kernel looks the name up again, and finds that, or what is there instead */
	if (status == -ENOENT)
		status = -ESTALE;
	wd_lock(&mnt->lock);
	HASH_DEL(mnt->opens, of);
	waiting = of->waiting;
	of->waiting = NULL;
	wd_unlock(&mnt->lock);
	if (status == -ESTALE && of->info.node)
		tree_expire(mnt->dataset, of->node);
	LL_FOREACH_SAFE(waiting, w, tmp) {
		tell_open(mnt, of->node, w, (struct trace_event){.kind = TRACE_OPEN, .mode = TRACE_COLD, .code = -status});
		conn_reply_error(w->conn, WD_MSG_OPEN, w->id, status, err ? err->msg : "");
		waiting_free(w);
	}
	open_file_free(of);
}

/* ---- passthrough ---- */

static void backing_done(void *arg, int status, uint32_t backing_id, const char *reason)
{
	struct open_file *of = arg;

	if (status < 0) {
		/* no passthrough in this kernel, or the keeper went: cached mode does */
		/* ENOENT: a new keeper that has not yet taken the mount back */
		if (status != -EPIPE && status != -ENOMEM && status != -ENOENT &&
			!atomic_exchange(&of->mount->has_no_passthrough, true))
			wd_warn("no passthrough on '%s': %s", of->mount->target, reason);
		of->mode = WD_OPEN_CACHED;
	} else {
		metric_inc(METRIC_BACKING_OPENS);
		of->mode = WD_OPEN_PASSTHROUGH;
		of->backing_id = backing_id;
	}
	open_done(of);
}

static void open_passthrough(struct open_file *of)
{
	struct agent *a = of->mount->agent;
	struct wd_err err = WD_ERR_INIT;
	int fd = object_open_file(of->object, &err);

	if (fd < 0) {
		wd_warn("%s", err.msg);
		of->mode = WD_OPEN_CACHED;
		open_done(of);
		return;
	}
	keeper_backing_open(a->keeper, of->mount->id, fd, backing_done, of);
	close(fd);
}

/* The whole object is here, or could not be kept; and the identity may read it. */
static void whole_proven(void *arg, int status, const struct wd_err *err)
{
	struct open_file *of = arg;

	if (status < 0) {
		open_fail(of, status, err);
	} else if (object_is_complete(of->object) && !atomic_load(&of->mount->has_no_passthrough)) {
		open_passthrough(of);
	} else {
		of->mode = WD_OPEN_CACHED;
		open_done(of);
	}
}

static void whole_done(struct fetch_wait *w, int status, int fd, const struct wd_err *err)
{
	struct open_file *of = (struct open_file *)((char *)w - offsetof(struct open_file, whole));

	if (fd >= 0)
		close(fd);
	if (status < 0 && status != -ENOSPC) {
		open_fail(of, status, err);
		return;
	}
	/* another identity may have fetched it while we waited: free for who fetched it himself */
	proof_check(of->mount, &of->info, of->object, false, whole_proven, of);
}

/* The object is known and may be read: choose the mode. */
static void open_decide(struct open_file *of)
{
	struct mount *mnt = of->mount;
	uint64_t size = object_size(of->object);
	bool is_complete = object_is_complete(of->object);

	if (of->flags & WD_OPEN_REOPEN) {
		struct wd_mm_inode *e = wd_mm_find(&mnt->mm, of->node);

		of->mode = (of->flags & WD_OPEN_WAS_PASSTHROUGH) && e ? WD_OPEN_PASSTHROUGH : WD_OPEN_CACHED;
		of->backing_id = of->mode == WD_OPEN_PASSTHROUGH ? atomic_load(&e->backing_id) : 0;
		open_done(of);
	} else if (is_complete && !atomic_load(&mnt->has_no_passthrough)) {
		open_passthrough(of);
	} else if (!is_complete && fetch_is_stale(of->fetch)) {
		struct wd_err err = {ESTALE, "open: the object has changed at the origin"};

		open_fail(of, -ESTALE, &err);
	} else if (!is_complete && size > 0 && size <= (uint64_t)mnt->agent->settings->small_object_size) {
		of->whole = (struct fetch_wait){
			.len = size, .flags = FETCH_CACHE_ONLY, .flow = mnt->flow, .cb = whole_done};
		fetch_ensure(of->fetch, &of->whole);
	} else {
		/* what an unclean restart made suspect is checked as it is read, and in the background */
		store_check_whole(mnt->agent->store, of->object);
		of->mode = WD_OPEN_CACHED;
		open_done(of);
	}
}

static void proof_done(void *arg, int status, const struct wd_err *err)
{
	struct open_file *of = arg;

	if (status < 0)
		open_fail(of, status, err);
	else
		open_decide(of);
}

/* What the cache has of it, before anything is fetched. */
static void count_hit(struct open_file *of)
{
	uint64_t size = object_size(of->object), present = object_present_bytes(of->object);
	uint64_t missing = object_is_complete(of->object) || present > size ? 0 : size - present;

	metric_inc(missing ? METRIC_MISSES : METRIC_HITS);
	metric_add(METRIC_HIT_BYTES, size - missing);
	metric_add(METRIC_MISS_BYTES, missing);
	atomic_fetch_add_explicit(&of->mount->missed_bytes, missing, memory_order_relaxed);
}

static void note_use(struct open_file *of)
{
	enum store_pin pin = pins_match(of->mount->agent->pins, of->mount->display, of->info.key);

	count_hit(of);
	object_used(of->object);
	if (pin != STORE_UNPINNED)
		(void)object_pin(of->object, pin); /* else there are too many: counted */
}

/* The version is bound: find its object. */
static void open_object(struct open_file *of)
{
	struct mount *mnt = of->mount;
	struct agent *a = mnt->agent;
	struct object_id id;
	struct wd_err err = WD_ERR_INIT;
	int rc;

	tree_object_id(mnt->dataset, &of->info, &id);
	rc = store_get(a->store, &id, of->info.version.size, &of->object, &err);
	of->was_complete = rc == 0 && object_is_complete(of->object);
	if (rc == 0 && !(of->flags & WD_OPEN_REOPEN))
		note_use(of);
	if (rc == 0)
		rc = fetch_open(a->fetcher, mnt->dataset, &of->info, of->object, &of->fetch);
	if (rc < 0) {
		open_fail(of, rc, &err);
		return;
	}
	if (!(of->flags & WD_OPEN_REOPEN) && mnt->options->prefetch == PREFETCH_AUTO)
		ahead_opened(mnt, &of->info);
	fetch_set_flow(of->fetch, mnt->flow);
	/* what is fetched whole is looked at when it is here (whole_done); in the others, bytes that
	 * another identity fetches later would be read without a question */
	if (!(of->flags & WD_OPEN_REOPEN) && object_present_bytes(of->object) == 0 &&
		object_size(of->object) <= (uint64_t)a->settings->small_object_size)
		open_decide(of);
	else
		proof_check(mnt, &of->info, of->object, of->flags & WD_OPEN_REOPEN, proof_done, of);
}

static void bind_job(void *arg)
{
	struct open_file *of = arg;
	struct wd_err err = WD_ERR_INIT;
	int rc = tree_bind(of->mount->dataset, of->node, true, &of->info, &err);

	if (rc == -EIO || rc == -EACCES)
		wd_error("%s", err.msg);
	if (rc < 0)
		open_fail(of, rc, &err);
	else
		open_object(of);
}

static void open_begin(struct open_file *of)
{
	struct wd_err err = WD_ERR_INIT;
	int rc = tree_bind(of->mount->dataset, of->node, false, &of->info, &err);

	if (rc == -EAGAIN)
		mount_run(of->mount, &of->job, bind_job, of);
	else if (rc < 0)
		open_fail(of, rc, &err);
	else
		open_object(of);
}

void open_on_open(struct mount *mnt, struct conn *c, uint64_t id, uint64_t node, uint32_t flags)
{
	struct waiting *w = calloc(1, sizeof(*w));
	struct open_file *fresh = calloc(1, sizeof(*fresh)), *of;
	struct object *object = NULL;
	enum wd_open_mode mode = 0;
	uint32_t backing_id = 0;
	bool is_full = false;

	if (!w || !fresh) {
		free(w);
		free(fresh);
		conn_reply_error(c, WD_MSG_OPEN, id, -ENOMEM, "the agent is out of memory");
		return;
	}
	w->conn = conn_ref(c);
	conn_begin(c);
	w->id = id;
	w->flags = flags;
	w->asked_ns = flags & WD_OPEN_REOPEN ? 0 : traces_now(mnt->agent->traces); /* a restart is no open */
	wd_lock(&mnt->lock);
	HASH_FIND(hh, mnt->opens, &node, sizeof(node), of);
	if (of && of->state == OPEN) {
		object = object_ref(of->object);
		mode = of->mode;
		backing_id = of->backing_id;
	} else if (of) {
		of->is_released = false;
		LL_APPEND(of->waiting, w);
	} else if (HASH_COUNT(mnt->opens) >= mnt->mm.ninodes) {
		is_full = true; /* no honest server has so many: its tables do not */
	} else {
		fresh->node = node;
		fresh->mount = mount_ref(mnt);
		fresh->flags = flags;
		LL_APPEND(fresh->waiting, w);
		HASH_ADD(hh, mnt->opens, node, sizeof(node), fresh);
	}
	wd_unlock(&mnt->lock);
	if (!of && !is_full) {
		open_begin(fresh);
		return;
	}
	free(fresh);
	if (is_full) {
		conn_reply_error(c, WD_MSG_OPEN, id, -ENFILE, "too many open files in this mount");
		waiting_free(w);
	}
	if (object) {
		if (!(flags & WD_OPEN_REOPEN)) /* a restart is no use */
			object_used(object);
		tell_open(mnt, node, w, event_of(mode, object, true));
		reply_open(c, id, mode, backing_id, object);
		object_unref(object);
		waiting_free(w);
	}
}
