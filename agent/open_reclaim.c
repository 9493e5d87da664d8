/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an eviction asks of open and pooled files: which of them were used without a word to us (the server counts
 * in the shared tables), and to give idle backing ids back.
 *
 *	IDLE ─ compare and swap ─► RECLAIM ─ closed at the keeper ─► GONE, and the file is forgotten
 *	  ▲                           │
 *	  └─────── not closed ────────┘
 *
 * A server that opens the pooled file at the same moment takes the id by the same swap, and one of the two
 * loses: an id that is being closed is used by nobody. OPENs that come meanwhile wait on the open file, and
 * begin anew when it is over. All this runs on the evictor's thread, or on that of a job, which waits for the
 * keeper's answer.
 */
#include "agent/open_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "agent/metrics.h"

#define RECLAIM_WAIT_NS 2000000000LL
#define MOUNTS_MAX 256

struct reclaim {
	struct wd_mutex lock;
	struct wd_cond answered;
	int status; /* 1: not yet */
	int refs;   /* the waiter and the call */
};

static void reclaim_unref(struct reclaim *r)
{
	int refs;

	wd_lock(&r->lock);
	refs = --r->refs;
	wd_unlock(&r->lock);
	if (refs == 0) {
		wd_cond_done(&r->answered);
		wd_mutex_done(&r->lock);
		free(r);
	}
}

static void reclaim_answered(void *arg, int status, uint32_t backing_id, const char *reason)
{
	struct reclaim *r = arg;

	wd_lock(&r->lock);
	r->status = status;
	wd_cond_broadcast(&r->answered);
	wd_unlock(&r->lock);
	reclaim_unref(r);
}

/* Closes an id at the keeper and waits for it. */
static int close_and_wait(struct mount *mnt, uint32_t backing_id)
{
	struct reclaim *r = calloc(1, sizeof(*r));
	int64_t deadline = wd_now_ns() + RECLAIM_WAIT_NS;
	int status;

	if (!r)
		return -ENOMEM;
	wd_mutex_init(&r->lock);
	wd_cond_init(&r->answered);
	r->status = 1;
	r->refs = 2;
	keeper_backing_close(mnt->agent->keeper, mnt->id, backing_id, reclaim_answered, r);
	wd_lock(&r->lock);
	while (r->status == 1 && wd_cond_wait_until(&r->answered, &r->lock, deadline) == 0)
		;
	status = r->status;
	wd_unlock(&r->lock);
	reclaim_unref(r);
	return status == 1 ? -ETIMEDOUT : status == -ENOENT ? 0 : status;
}

/* The open file of this object, or (id NULL) of any that is idle, moved to RECLAIMING when its pooled id could be
 * taken. 0: there is none. */
static int take_idle_locked(struct mount *mnt, const struct object_id *id, struct open_file **ret_of,
	struct wd_mm_inode **ret_entry) WD_REQUIRES(mnt->lock)
{
	struct open_file *of, *tmp;
	struct wd_mm_inode *e;
	uint32_t idle;

	HASH_ITER(hh, mnt->opens, of, tmp) {
		if (!of->object || (id && memcmp(object_id(of->object), id, sizeof(*id)) != 0))
			continue;
		e = of->state == OPEN && of->mode == WD_OPEN_PASSTHROUGH ? wd_mm_find(&mnt->mm, of->node) : NULL;
		idle = WD_INO_IDLE;
		if (!e || !atomic_compare_exchange_strong(&e->state, &idle, WD_INO_RECLAIM)) {
			if (id)
				return -EBUSY;
			continue;
		}
		if (atomic_load(&e->node) != of->node) {
			atomic_store(&e->state, WD_INO_IDLE); /* another node's by now */
			if (id)
				return -EBUSY;
			continue;
		}
		of->state = RECLAIMING;
		*ret_of = of;
		*ret_entry = e;
		return 1;
	}
	return 0;
}

/* 1: one was taken back; 0: there is none; -EBUSY. */
static int reclaim_in(struct mount *mnt, const struct object_id *id)
{
	struct open_file *of = NULL;
	struct wd_mm_inode *e = NULL;
	struct waiting *w, *tmp, *waiting;
	uint64_t node;
	bool is_over;
	int rc, closed;

	wd_lock(&mnt->lock);
	rc = take_idle_locked(mnt, id, &of, &e);
	wd_unlock(&mnt->lock);
	if (rc <= 0)
		return rc;
	node = of->node;
	closed = close_and_wait(mnt, of->backing_id);
	wd_lock(&mnt->lock);
	waiting = of->waiting;
	of->waiting = NULL;
	is_over = closed == 0 || mnt->is_gone;
	if (is_over) {
		HASH_DEL(mnt->opens, of);
		atomic_store(&e->state, WD_INO_GONE);
	} else {
		of->state = OPEN;
		atomic_store(&e->state, WD_INO_IDLE);
	}
	wd_unlock(&mnt->lock);
	if (is_over) {
		metric_inc(METRIC_BACKING_RECLAIMS);
		open_file_free(of);
	}
	LL_FOREACH_SAFE(waiting, w, tmp) {
		open_on_open(mnt, w->conn, w->id, node, w->flags);
		waiting_free(w);
	}
	return is_over ? 1 : -EBUSY;
}

void open_drop_idle(struct mount *mnt)
{
	while (reclaim_in(mnt, NULL) > 0)
		;
}

void open_inherit(struct mount *mnt)
{
	for (uint32_t i = 0; i < mnt->mm.ninodes; i++) {
		struct wd_mm_inode *e = &mnt->mm.inodes[i];

		if (atomic_load(&e->state) != WD_INO_RECLAIM)
			continue;
		/* closed or not: nobody has it open, and once more does no harm */
		keeper_backing_close(mnt->agent->keeper, mnt->id, atomic_load(&e->backing_id), NULL, NULL);
		atomic_store(&e->state, WD_INO_GONE);
	}
}

/* False when there are more than MOUNTS_MAX. */
static bool ref_mounts(struct agent *a, struct mount *ret_mounts[MOUNTS_MAX], unsigned *ret_n)
{
	struct mount *mnt;
	unsigned n = 0;

	wd_lock(&a->lock);
	for (mnt = a->mounts; mnt && n < MOUNTS_MAX; mnt = mnt->next)
		ret_mounts[n++] = mount_ref(mnt);
	wd_unlock(&a->lock);
	*ret_n = n;
	return mnt == NULL;
}

uint32_t open_uses(const struct open_file *of)
{
	const struct wd_mm_inode *e = wd_mm_find(&of->mount->mm, of->node);

	return e ? atomic_load_explicit(&e->uses, memory_order_relaxed) : 0;
}

static void note_uses_in(struct mount *mnt)
{
	struct open_file *of, *tmp;

	wd_lock(&mnt->lock);
	HASH_ITER(hh, mnt->opens, of, tmp) {
		uint32_t uses = of->state == OPEN ? open_uses(of) : of->uses;

		if (uses != of->uses)
			object_used(of->object);
		of->uses = uses;
	}
	wd_unlock(&mnt->lock);
}

void open_note_uses(void *arg)
{
	struct mount *mounts[MOUNTS_MAX];
	unsigned n;

	(void)ref_mounts(arg, mounts, &n);
	for (unsigned i = 0; i < n; i++) {
		note_uses_in(mounts[i]);
		mount_unref(mounts[i]);
	}
}

int open_reclaim(void *arg, const struct object_id *id)
{
	struct mount *mounts[MOUNTS_MAX];
	unsigned n;
	int status = ref_mounts(arg, mounts, &n) ? 0 : -EBUSY; /* more than one sweep takes: leave the object */

	for (unsigned i = 0; i < n; i++) {
		if (status == 0 && reclaim_in(mounts[i], id) < 0)
			status = -EBUSY;
		mount_unref(mounts[i]);
	}
	return status;
}
