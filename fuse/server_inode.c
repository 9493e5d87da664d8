/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The per-inode rule, the pool of idle inodes and the handles.
 *
 * A handle's fh is its index + 1 in the low half and 32 bits of the OPEN's unique in the high half.
 * The index is reused; the unique is not: a RELEASE that is answered twice (killed between the
 * table and the answer, or resent after a replay) cannot hit the handle's next owner.
 *
 * The pool is a ring of inode indices in the order in which they went idle. An inode is in the
 * ring at most once; one that was opened again since gets a second round.
 *
 * A pool may be large, and an agent that knows nothing of it yet (or may not: the server is new) is asked about
 * one after the other, oldest first, while it answers readers. Until then an idle inode is out of the ring.
 *
 *	new agent or server ─► line ─► asked ─ inode_known() ─► ring
 */
#include "fuse/server_inode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum inode_mark {
	INODE_IN_RING = 1,
	INODE_POOLED = 2, /* counted in npooled; the agent may have taken it back since */
	INODE_USED = 4,	  /* went idle again after it was put into the ring */
	INODE_IN_LINE = 8,
	INODE_UNKNOWN = 16, /* to the agent, perhaps: not in the ring */
};

#define INODES_LIMIT 65536u /* what we are ready to keep marks for */

int inodes_init(struct inodes *t, const struct wd_mm *mm)
{
	*t = (struct inodes){.mm = *mm, .pool_max = WD_MM_POOL};
	if (mm->ninodes > INODES_LIMIT || mm->nhandles > 4 * INODES_LIMIT)
		return -EPROTO;
	t->free_handles = calloc(mm->nhandles, sizeof(*t->free_handles));
	t->marks = calloc(mm->ninodes, sizeof(*t->marks));
	t->idle.at = calloc(mm->ninodes, sizeof(*t->idle.at));
	t->line.at = calloc(mm->ninodes, sizeof(*t->line.at));
	if (!t->free_handles || !t->marks || !t->idle.at || !t->line.at) {
		inodes_done(t);
		return -ENOMEM;
	}
	return 0;
}

void inodes_done(struct inodes *t)
{
	free(t->free_handles);
	free(t->marks);
	free(t->idle.at);
	free(t->line.at);
	*t = (struct inodes){0};
}

static uint32_t index_of(const struct inodes *t, const struct wd_mm_inode *inode)
{
	return (uint32_t)(inode - t->mm.inodes);
}

static bool change_state(struct wd_mm_inode *inode, uint32_t from, uint32_t to)
{
	return atomic_compare_exchange_strong(&inode->state, &from, to);
}

static void set_state(struct wd_mm_inode *inode, uint32_t state)
{
	atomic_store_explicit(&inode->state, state, memory_order_release);
}

static bool is_in_force(uint32_t state)
{
	return state == WD_INO_CACHED || state == WD_INO_DIRECT || state == WD_INO_PASSTHROUGH;
}

/* ---- the pool ---- */

/* A ring has room for all inodes, and each is in it at most once. */
static void push(const struct inodes *t, struct inode_ring *r, uint32_t index)
{
	r->at[(r->first + r->len++) % t->mm.ninodes] = index;
}

static uint32_t pop(const struct inodes *t, struct inode_ring *r)
{
	uint32_t index = r->at[r->first];

	r->first = (r->first + 1) % t->mm.ninodes;
	r->len--;
	return index;
}

static void set_mark(struct inodes *t, uint32_t index, unsigned set, unsigned clear)
{
	t->marks[index] = (unsigned char)((t->marks[index] & ~clear) | set);
}

static void unpool(struct inodes *t, uint32_t index)
{
	if (!(t->marks[index] & INODE_POOLED))
		return;
	set_mark(t, index, 0, INODE_POOLED);
	t->npooled--;
}

static void pool(struct inodes *t, uint32_t index)
{
	if (!(t->marks[index] & INODE_POOLED))
		t->npooled++;
	set_mark(t, index, INODE_POOLED, 0);
	if (t->marks[index] & INODE_UNKNOWN)
		return;
	if (t->marks[index] & INODE_IN_RING) {
		set_mark(t, index, INODE_USED, 0);
		return;
	}
	push(t, &t->idle, index);
	set_mark(t, index, INODE_IN_RING, 0);
}

static bool is_overfull(const struct inodes *t)
{
	uint32_t room = t->mm.ninodes - t->mm.ninodes / 4; /* probing stays short */

	room = t->nopen < room ? room - t->nopen : 0;
	return t->npooled > (room < t->pool_max ? room : t->pool_max);
}

uint64_t inode_evict(struct inodes *t)
{
	for (uint32_t left = t->idle.len; left > 0 && is_overfull(t); left--) {
		uint32_t index = pop(t, &t->idle);
		struct wd_mm_inode *inode = &t->mm.inodes[index];
		unsigned mark = t->marks[index];
		uint64_t node = inode_node(inode);

		if ((mark & INODE_POOLED) && (mark & INODE_USED)) {
			set_mark(t, index, 0, INODE_USED);
			push(t, &t->idle, index);
			continue;
		}
		set_mark(t, index, 0, INODE_IN_RING | INODE_USED);
		if (!(mark & INODE_POOLED))
			continue; /* open */
		unpool(t, index);
		if (change_state(inode, WD_INO_IDLE, WD_INO_GONE))
			return node;
	}
	return 0;
}

static void line_up(struct inodes *t, uint32_t index)
{
	if (!(t->marks[index] & INODE_IN_LINE))
		push(t, &t->line, index);
	set_mark(t, index, INODE_IN_LINE | INODE_UNKNOWN, 0);
}

struct wd_mm_inode *inode_next_unknown(struct inodes *t)
{
	while (t->line.len > 0) {
		uint32_t index = pop(t, &t->line), state;
		struct wd_mm_inode *inode = &t->mm.inodes[index];

		set_mark(t, index, 0, INODE_IN_LINE);
		if (!(t->marks[index] & INODE_UNKNOWN))
			continue; /* another's entry by now */
		state = inode_state(inode);
		if (state == WD_INO_IDLE || is_in_force(state))
			return inode;
		inode_known(t, inode); /* the agent itself has taken it */
	}
	return NULL;
}

void inode_known(struct inodes *t, const struct wd_mm_inode *inode)
{
	uint32_t index = index_of(t, inode);

	if (!(t->marks[index] & INODE_UNKNOWN))
		return;
	set_mark(t, index, 0, INODE_UNKNOWN);
	if (t->marks[index] & INODE_POOLED)
		pool(t, index);
}

/* ---- inodes ---- */

enum inode_verdict inode_begin(struct inodes *t, uint64_t node, struct wd_mm_inode **ret_inode)
{
	bool is_new;
	struct wd_mm_inode *inode = wd_mm_claim(&t->mm, node, &is_new);

	if (!inode)
		return INODE_FULL;
	*ret_inode = inode;
	if (is_new) {
		unpool(t, index_of(t, inode)); /* of the one that had the entry before */
		set_mark(t, index_of(t, inode), 0, INODE_UNKNOWN);
		t->nopen++;
		return INODE_ASK;
	}
	switch (inode_state(inode)) {
	case WD_INO_CACHED:
	case WD_INO_DIRECT:
	case WD_INO_PASSTHROUGH:
		return INODE_OPEN;
	case WD_INO_OPENING:
		return INODE_OPENING;
	case WD_INO_IDLE:
		if (change_state(inode, WD_INO_IDLE, WD_INO_PASSTHROUGH)) {
			unpool(t, index_of(t, inode));
			t->nopen++;
			return INODE_OPEN;
		}
		return INODE_RECLAIM;
	default: /* RECLAIM, or gone since it was found */
		return INODE_RECLAIM;
	}
}

void inode_settle(
	struct wd_mm_inode *inode, enum wd_open_mode mode, uint32_t backing_id, uint64_t size)
{
	uint32_t state = mode == WD_OPEN_PASSTHROUGH ? WD_INO_PASSTHROUGH
			 : mode == WD_OPEN_CACHED    ? WD_INO_CACHED
						     : WD_INO_DIRECT;

	atomic_store_explicit(&inode->backing_id, mode == WD_OPEN_PASSTHROUGH ? backing_id : 0,
		memory_order_relaxed);
	atomic_store_explicit(&inode->size, size, memory_order_relaxed);
	set_state(inode, state);
}

/* One entry less is in force. */
static void uncount(struct inodes *t)
{
	if (t->nopen > 0)
		t->nopen--;
}

void inode_forget(struct inodes *t, struct wd_mm_inode *inode)
{
	uncount(t);
	set_state(inode, WD_INO_GONE);
}

bool inode_drop(struct inodes *t, struct wd_mm_inode *inode)
{
	uncount(t);
	if (inode_state(inode) == WD_INO_PASSTHROUGH) {
		pool(t, index_of(t, inode));
		set_state(inode, WD_INO_IDLE);
		return false;
	}
	set_state(inode, WD_INO_GONE);
	return true;
}

/* ---- handles ---- */

static uint64_t make_fh(uint32_t index, uint64_t unique)
{
	return (uint64_t)(uint32_t)(unique >> 1) << 32 | (index + 1);
}

/* The handle that fh names, if it is in use and still the one that it was made for. */
static struct wd_mm_handle *find_handle(const struct inodes *t, uint64_t fh, uint64_t node)
{
	uint32_t index = (uint32_t)fh - 1; /* 0 becomes an index that is out of range */
	struct wd_mm_handle *h;

	if (index >= t->mm.nhandles)
		return NULL;
	h = &t->mm.handles[index];
	if (atomic_load(&h->state) == WD_HANDLE_FREE ||
		make_fh(index, atomic_load(&h->unique)) != fh || atomic_load(&h->node) != node)
		return NULL;
	return h;
}

/* The inode of a handle in use, in force; NULL when the tables do not fit together. */
static struct wd_mm_inode *inode_of(const struct inodes *t, const struct wd_mm_handle *h)
{
	uint32_t index = atomic_load(&h->inode);
	struct wd_mm_inode *inode;

	if (index >= t->mm.ninodes)
		return NULL;
	inode = &t->mm.inodes[index];
	if (inode_node(inode) != atomic_load(&h->node) || !is_in_force(inode_state(inode)))
		return NULL;
	return inode;
}

bool handle_add(struct inodes *t, struct wd_mm_inode *inode, uint64_t unique, uint64_t *ret_fh)
{
	uint32_t high = atomic_load(&t->mm.header->handle_high), index;
	struct wd_mm_handle *h;

	if (t->nfree_handles > 0)
		index = t->free_handles[--t->nfree_handles];
	else if (high < t->mm.nhandles)
		atomic_store(&t->mm.header->handle_high, (index = high) + 1);
	else
		return false;
	h = &t->mm.handles[index];
	atomic_store_explicit(&h->unique, unique, memory_order_relaxed);
	atomic_store_explicit(&h->node, inode_node(inode), memory_order_relaxed);
	atomic_store_explicit(&h->inode, index_of(t, inode), memory_order_relaxed);
	atomic_store_explicit(&h->state, WD_HANDLE_OPENING, memory_order_release);
	atomic_fetch_add(&inode->opens, 1);
	*ret_fh = make_fh(index, unique);
	return true;
}

uint64_t handle_adopt(struct inodes *t, uint64_t node, uint64_t unique)
{
	uint32_t high = atomic_load(&t->mm.header->handle_high);

	if (high > t->mm.nhandles)
		high = t->mm.nhandles;
	for (uint32_t i = 0; i < high; i++) {
		struct wd_mm_handle *h = &t->mm.handles[i];

		if (atomic_load(&h->unique) != unique || atomic_load(&h->state) == WD_HANDLE_FREE ||
			atomic_load(&h->node) != node || !inode_of(t, h))
			continue;
		atomic_store(&h->state, WD_HANDLE_ACTIVE);
		return make_fh(i, unique);
	}
	return 0;
}

void handle_opened(struct inodes *t, uint64_t fh)
{
	uint32_t index = (uint32_t)fh - 1, opening = WD_HANDLE_OPENING;
	struct wd_mm_handle *h = &t->mm.handles[index];

	/* its RELEASE may be done already, and the handle be another's by now */
	if (index < t->mm.nhandles && make_fh(index, atomic_load(&h->unique)) == fh)
		atomic_compare_exchange_strong(&h->state, &opening, WD_HANDLE_ACTIVE);
}

/* Frees a handle in use and takes its open away from its inode. */
static struct wd_mm_inode *drop_handle(struct inodes *t, struct wd_mm_handle *h)
{
	struct wd_mm_inode *inode = inode_of(t, h);

	atomic_store_explicit(&h->state, WD_HANDLE_FREE, memory_order_release);
	if (t->nfree_handles < t->mm.nhandles)
		t->free_handles[t->nfree_handles++] = (uint32_t)(h - t->mm.handles);
	if (!inode || atomic_load(&inode->opens) == 0)
		return NULL;
	return atomic_fetch_sub(&inode->opens, 1) == 1 ? inode : NULL;
}

struct wd_mm_inode *handle_not_opened(struct inodes *t, uint64_t fh, uint64_t node)
{
	struct wd_mm_handle *h = find_handle(t, fh, node);

	if (!h || atomic_load(&h->state) != WD_HANDLE_OPENING)
		return NULL;
	return drop_handle(t, h);
}

struct wd_mm_inode *handle_inode(const struct inodes *t, uint64_t fh, uint64_t node)
{
	struct wd_mm_handle *h = find_handle(t, fh, node);

	return h ? inode_of(t, h) : NULL;
}

struct wd_mm_inode *handle_remove(struct inodes *t, uint64_t fh, uint64_t node)
{
	struct wd_mm_handle *h = find_handle(t, fh, node);

	return h ? drop_handle(t, h) : NULL;
}

/* ---- taking over ---- */

static void recount(struct inodes *t)
{
	uint32_t high = atomic_load(&t->mm.header->handle_high);

	if (high > t->mm.nhandles)
		high = t->mm.nhandles;
	t->nfree_handles = 0;
	for (uint32_t i = high; i-- > 0;) {
		struct wd_mm_handle *h = &t->mm.handles[i];
		struct wd_mm_inode *inode;

		inode = atomic_load(&h->state) == WD_HANDLE_FREE ? NULL : inode_of(t, h);
		if (inode) {
			atomic_fetch_add(&inode->opens, 1);
		} else {
			atomic_store(&h->state, WD_HANDLE_FREE);
			t->free_handles[t->nfree_handles++] = i;
		}
	}
}

static void line_up_idle(struct inodes *t)
{
	for (uint32_t i = 0; i < t->mm.ninodes; i++) {
		if (inode_state(&t->mm.inodes[i]) != WD_INO_IDLE)
			continue;
		line_up(t, i);
		pool(t, i);
	}
}

void inodes_recover(struct inodes *t, void (*inode_dropped)(uint64_t node),
	void (*inode_kept)(struct wd_mm_inode *inode))
{
	wd_mm_recover(&t->mm);
	for (uint32_t i = 0; i < t->mm.ninodes; i++)
		if (inode_state(&t->mm.inodes[i]) != WD_INO_FREE)
			atomic_store(&t->mm.inodes[i].opens, 0);
	recount(t);
	/* the agent is asked of files that somebody has open first: their readers may be waiting */
	for (uint32_t i = 0; i < t->mm.ninodes; i++) {
		struct wd_mm_inode *inode = &t->mm.inodes[i];
		uint32_t state = inode_state(inode);

		if (state != WD_INO_OPENING && !is_in_force(state))
			continue;
		set_mark(t, i, INODE_UNKNOWN, 0);
		t->nopen++;
		if (is_in_force(state) && atomic_load(&inode->opens) > 0)
			inode_kept(inode);
		else if (inode_drop(t, inode))
			inode_dropped(inode_node(inode));
	}
	line_up_idle(t);
}

void inodes_ask_all(struct inodes *t, void (*inode_kept)(struct wd_mm_inode *inode))
{
	while (t->idle.len > 0) { /* the oldest is asked for first */
		uint32_t index = pop(t, &t->idle);

		set_mark(t, index, 0, INODE_IN_RING | INODE_USED);
		if (t->marks[index] & INODE_POOLED)
			line_up(t, index);
	}
	for (uint32_t i = 0; i < t->mm.ninodes; i++) {
		if (!is_in_force(inode_state(&t->mm.inodes[i])))
			continue;
		set_mark(t, i, INODE_UNKNOWN, 0);
		inode_kept(&t->mm.inodes[i]);
	}
	line_up_idle(t);
}
