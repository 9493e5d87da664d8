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
 * begin anew when it is over. Begun on the evictor's thread, on that of a job, or by who opens a file beyond
 * the bound (open_pool.c); ended on the thread that brings the keeper's answer, however late that comes.
 */
#include "agent/open_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#include "agent/metrics.h"

#define RECLAIM_WAIT_NS 2000000000LL
#define DROP_AT_ONCE 256 /* ids */
#define MOUNTS_MAX 256

/* Who waits until some ids were taken back. */
struct batch {
	struct wd_mutex lock;
	struct wd_cond ended;
	unsigned npending WD_GUARDED_BY(lock), nfailed WD_GUARDED_BY(lock);
	unsigned refs WD_GUARDED_BY(lock); /* the waiter, and each reclaim */
};

struct reclaim {
	struct mount *mnt;
	struct open_file *of; /* RECLAIMING: ours */
	struct wd_mm_inode *entry;
	struct batch *batch; /* or NULL */
};

static struct batch *batch_new(void)
{
	struct batch *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	wd_mutex_init(&b->lock);
	wd_cond_init(&b->ended);
	b->refs = 1;
	return b;
}

static void batch_unref(struct batch *b)
{
	unsigned refs;

	wd_lock(&b->lock);
	refs = --b->refs;
	wd_unlock(&b->lock);
	if (refs > 0)
		return;
	wd_cond_done(&b->ended);
	wd_mutex_done(&b->lock);
	free(b);
}

static void batch_add(struct batch *b)
{
	wd_lock(&b->lock);
	b->npending++;
	b->refs++;
	wd_unlock(&b->lock);
}

static void batch_end_one(struct batch *b, bool is_back)
{
	wd_lock(&b->lock);
	b->npending--;
	b->nfailed += !is_back;
	wd_cond_broadcast(&b->ended);
	wd_unlock(&b->lock);
	batch_unref(b);
}

/* True when all were taken back. The caller's reference goes. */
static bool batch_wait(struct batch *b)
{
	int64_t deadline = wd_now_ns() + RECLAIM_WAIT_NS;
	bool is_all;

	wd_lock(&b->lock);
	while (b->npending > 0 && wd_cond_wait_until(&b->ended, &b->lock, deadline) == 0)
		;
	is_all = b->npending == 0 && b->nfailed == 0;
	wd_unlock(&b->lock);
	batch_unref(b);
	return is_all;
}

/* The keeper's answer. One that died while it was asked (EPIPE) may have closed the id before: nobody may open the
 * file with it any longer. If it had not, the id stays registered until the mount ends. */
static void given_back(void *arg, int status, uint32_t backing_id, const char *reason)
{
	struct reclaim *r = arg;
	struct mount *mnt = r->mnt;
	struct waiting *w, *tmp, *waiting;
	uint64_t node = r->of->node;
	bool is_over;

	wd_lock(&mnt->lock);
	waiting = r->of->waiting;
	r->of->waiting = NULL;
	is_over = status == 0 || status == -ENOENT || status == -EPIPE || mnt->is_gone;
	if (is_over) {
		open_take_out_locked(mnt, r->of);
		atomic_store(&r->entry->state, WD_INO_GONE);
	} else {
		r->of->state = OPEN;
		atomic_store(&r->entry->state, WD_INO_IDLE);
		open_pool_stay(mnt->agent->pool, r->of);
	}
	wd_unlock(&mnt->lock);
	if (is_over) {
		metric_inc(METRIC_BACKING_RECLAIMS);
		open_file_free(r->of);
	}
	LL_FOREACH_SAFE(waiting, w, tmp) {
		open_on_open(mnt, w->conn, w->id, node, w->flags);
		waiting_free(w);
	}
	if (r->batch)
		batch_end_one(r->batch, is_over);
	mount_unref(mnt);
	free(r);
}

/* Moves an open file to RECLAIMING if its id is idle in the pool. */
static struct wd_mm_inode *take_idle_locked(struct mount *mnt, struct open_file *of) WD_REQUIRES(mnt->lock)
{
	struct wd_mm_inode *e;
	uint32_t idle = WD_INO_IDLE;

	if (of->state != OPEN || of->mode != WD_OPEN_PASSTHROUGH)
		return NULL;
	e = wd_mm_find(&mnt->mm, of->node);
	if (!e || !atomic_compare_exchange_strong(&e->state, &idle, WD_INO_RECLAIM))
		return NULL;
	if (atomic_load(&e->node) != of->node) {
		atomic_store(&e->state, WD_INO_IDLE); /* another node's by now */
		return NULL;
	}
	of->state = RECLAIMING;
	return e;
}

/* Begins to take an id back; false when it is not idle. r is used up if it is. */
static bool begin_locked(struct mount *mnt, struct open_file *of, struct batch *b, struct reclaim *r)
	WD_REQUIRES(mnt->lock)
{
	struct wd_mm_inode *e = take_idle_locked(mnt, of);

	if (!e)
		return false;
	*r = (struct reclaim){.mnt = mount_ref(mnt), .of = of, .entry = e, .batch = b};
	if (b)
		batch_add(b);
	return true;
}

static void ask_keeper(struct reclaim *r)
{
	keeper_backing_close(r->mnt->agent->keeper, r->mnt->id, r->of->backing_id, given_back, r);
}

/* Begins to take the id of an open file back, if it is idle. */
static bool begin(struct mount *mnt, uint64_t node, struct batch *b)
{
	struct reclaim *r = calloc(1, sizeof(*r));
	struct open_file *of;
	bool is_begun = false;

	wd_lock(&mnt->lock);
	HASH_FIND(hh, mnt->opens, &node, sizeof(node), of);
	if (of && r)
		is_begun = begin_locked(mnt, of, b, r);
	if (of && !is_begun && of->state != RECLAIMING)
		open_pool_stay(mnt->agent->pool, of);
	wd_unlock(&mnt->lock);
	if (is_begun)
		ask_keeper(r);
	else
		free(r);
	return is_begun;
}

void open_give_back(struct mount *mnt, uint64_t node)
{
	(void)begin(mnt, node, NULL);
}

/* 0: no file of this object is open or pooled in the mount, or it was taken back; -EBUSY. */
static int reclaim_in(struct mount *mnt, const struct object_id *id)
{
	struct open_file *of;
	struct batch *b;
	uint64_t node = 0;
	bool is_begun, is_back;

	wd_lock(&mnt->lock);
	HASH_FIND(hh_object, mnt->by_object, id, sizeof(*id), of);
	if (of)
		node = of->node;
	wd_unlock(&mnt->lock);
	if (!of)
		return 0;
	b = batch_new();
	if (!b)
		return -ENOMEM;
	is_begun = begin(mnt, node, b);
	is_back = batch_wait(b);
	return is_begun && is_back ? 0 : -EBUSY;
}

/* Nodes of files that only the pool has, at most DROP_AT_ONCE. */
static unsigned find_idle(struct mount *mnt, uint64_t ret_nodes[DROP_AT_ONCE])
{
	struct open_file *of, *tmp;
	unsigned n = 0;

	wd_lock(&mnt->lock);
	HASH_ITER(hh, mnt->opens, of, tmp) {
		const struct wd_mm_inode *e = of->state == OPEN && of->mode == WD_OPEN_PASSTHROUGH
						      ? wd_mm_find(&mnt->mm, of->node)
						      : NULL;

		if (e && atomic_load(&e->state) == WD_INO_IDLE)
			ret_nodes[n++] = of->node;
		if (n == DROP_AT_ONCE)
			break;
	}
	wd_unlock(&mnt->lock);
	return n;
}

void open_drop_idle(struct mount *mnt)
{
	uint64_t nodes[DROP_AT_ONCE];
	unsigned n;

	while ((n = find_idle(mnt, nodes)) > 0) {
		struct batch *b = batch_new();
		unsigned nbegun = 0;

		if (!b)
			break;
		for (unsigned i = 0; i < n; i++)
			nbegun += begin(mnt, nodes[i], b);
		if (!batch_wait(b) || nbegun == 0)
			break;
	}
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
