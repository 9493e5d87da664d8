/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checker thread. In this order:
 *
 *	1. suspect blocks that a reader waits for (store_check)
 *	2. the rest of suspect objects that are open (store_check_whole), so that they get passthrough
 *	3. the scrubber: all objects in the order of their ids, block by block from the disk itself, at
 *	   scrub_bytes_per_s; after a walk it rests until scrub_interval_ms from its beginning
 *
 * A block that is found bad is made absent by block_verify; who has the object open hears of it. The
 * scrubber holds an object only while it reads a block of it, and is no use of it: the order of eviction
 * stays what it was. Woken by check_wake; stops by is_check_stopping, when what waits is answered
 * unchecked (the fetcher asks nothing of the origin by then).
 */
#include "agent/store_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "common/log.h"

#define FIRST_SCRUB_NS (60 * 1000000000LL) /* a start has other things to do */
#define SCRUB_PAGE 64

/* The objects that the scrubber looks at next. */
struct scrub_page {
	struct {
		struct object_id id;
		uint64_t size;
	} objects[SCRUB_PAGE];
	unsigned n, pos;
	uint32_t block; /* of objects[pos] */
};

/* ---- what others ask for ---- */

/* Before the first that nobody waits for when somebody does, else at the end. */
static void enqueue_locked(struct store *s, struct check *c) WD_REQUIRES(s->check_lock)
{
	struct check **p = &s->checks;

	if (c->cb)
		while (*p && (*p)->cb)
			p = &(*p)->next;
	else
		p = s->checks_tail;
	c->next = *p;
	*p = c;
	if (!c->next)
		s->checks_tail = &c->next;
	wd_cond_signal(&s->check_wake);
}

static struct check *pop_locked(struct store *s) WD_REQUIRES(s->check_lock)
{
	struct check *c = s->checks;

	s->checks = c->next;
	if (!s->checks)
		s->checks_tail = &s->checks;
	return c;
}

void store_check(struct store *s, struct object *o, uint32_t first, uint32_t count, void (*cb)(void *arg),
	void *arg)
{
	struct check *c = malloc(sizeof(*c));

	if (!c) { /* here and now, then */
		for (uint32_t i = 0; i < count; i++)
			if (suspect_has(o, first + i))
				(void)object_verify(o, first + i);
		cb(arg);
		return;
	}
	*c = (struct check){NULL, object_ref(o), first, count, cb, arg};
	wd_lock(&s->check_lock);
	enqueue_locked(s, c);
	wd_unlock(&s->check_lock);
}

void store_check_whole(struct store *s, struct object *o)
{
	struct check *c = object_is_suspect(o) ? malloc(sizeof(*c)) : NULL;
	bool is_known;

	if (!c)
		return;
	*c = (struct check){NULL, object_ref(o), 0, o->nblocks, NULL, NULL};
	wd_lock(&s->check_lock);
	is_known = o->is_check_queued || s->is_check_stopping;
	if (!is_known) {
		o->is_check_queued = true;
		enqueue_locked(s, c);
	}
	wd_unlock(&s->check_lock);
	if (!is_known)
		return;
	object_unref(c->o);
	free(c);
}

/* One block of the first in the queue; its end when that was the last. */
static void check_step(struct store *s)
{
	struct check *c;
	bool is_over;

	wd_lock(&s->check_lock);
	c = pop_locked(s);
	is_over = s->is_check_stopping;
	wd_unlock(&s->check_lock);
	while (!is_over && c->count > 0 && !suspect_has(c->o, c->first)) {
		c->first++;
		c->count--;
	}
	if (!is_over && c->count > 0) {
		/* a disk that cannot be read leaves it suspect */
		if (block_verify(c->o, c->first, false) == -EIO && !c->cb)
			is_over = true;
		c->first++;
		c->count--;
	}
	wd_lock(&s->check_lock);
	is_over = is_over || c->count == 0;
	if (is_over)
		c->o->is_check_queued &= c->cb != NULL;
	else
		enqueue_locked(s, c);
	wd_unlock(&s->check_lock);
	if (!is_over)
		return;
	if (c->cb)
		c->cb(c->arg);
	object_unref(c->o);
	free(c);
}

/* ---- the scrubber ---- */

static bool collect(void *arg, const void *key, size_t key_len, const void *value, size_t len)
{
	struct scrub_page *page = arg;
	struct record rec;

	if (key_len != sizeof(struct object_id) || !record_decode(value, len, &rec))
		return true;
	memcpy(&page->objects[page->n].id, key, key_len);
	page->objects[page->n++].size = rec.size;
	return page->n < SCRUB_PAGE;
}

/* The id after this one; false when it was the last there can be. */
static bool next_id(struct object_id *id)
{
	for (int i = (int)sizeof(id->b) - 1; i >= 0; i--)
		if (++id->b[i] != 0)
			return true;
	return false;
}

static bool next_page(struct store *s, struct scrub_page *page)
{
	struct scrub *c = &s->scrub;

	page->n = page->pos = page->block = 0;
	if (meta_scan_below(s->meta, META_OBJECTS, &c->next, sizeof(c->next), 0, collect, page) < 0 ||
		page->n == 0)
		return false;
	c->next = page->objects[page->n - 1].id;
	if (!next_id(&c->next))
		memset(&c->next, 0xff, sizeof(c->next));
	return true;
}

static void tell_damage(struct store *s, struct object *o, uint32_t block)
{
	if (s->config.damaged)
		s->config.damaged(s->config.damaged_arg, &o->id, (uint64_t)block * WD_BLOCK_SIZE,
			block_len(o, block));
}

/* Checks the next block that is present. Returns the bytes that were read. */
static uint64_t scrub_block(struct store *s, struct scrub_page *page)
{
	uint64_t len = 0;
	bool is_in_use;
	struct object *o;

	if (store_get(s, &page->objects[page->pos].id, page->objects[page->pos].size, &o, NULL) < 0) {
		page->pos++;
		page->block = 0;
		return 0;
	}
	wd_lock(&s->lock);
	is_in_use = o->refs > 1;
	wd_unlock(&s->lock);
	while (page->block < o->nblocks && !object_has_block(o, page->block) &&
		!suspect_has(o, page->block))
		page->block++;
	if (page->block < o->nblocks) {
		int rc = block_verify(o, page->block, !is_in_use);

		if (rc == -EILSEQ) {
			s->scrub.bad++;
			tell_damage(s, o, page->block);
		}
		s->scrub.checked++;
		len = block_len(o, page->block++);
	}
	if (page->block >= o->nblocks) {
		page->pos++;
		page->block = 0;
	}
	object_unref_quietly(o);
	return len;
}

/* One block further, or the end of the walk. */
static void scrub_step(struct store *s, struct scrub_page *page)
{
	struct scrub *c = &s->scrub;
	int64_t now = wd_now_ns();
	uint64_t len;

	if (!c->is_walking) {
		*c = (struct scrub){.is_walking = true, .pass_ns = now};
		page->n = page->pos = 0;
	}
	if (page->pos == page->n && !next_page(s, page)) {
		if (c->bad > 0)
			wd_warn("cache '%s': of %llu blocks that were checked %llu were bad", s->dir,
				(unsigned long long)c->checked, (unsigned long long)c->bad);
		c->is_walking = false;
		c->due_ns = c->pass_ns + s->config.scrub_interval_ms * 1000000LL;
		return;
	}
	len = scrub_block(s, page);
	c->due_ns = now + (int64_t)(len * 1000000000.0 / (double)s->config.scrub_bytes_per_s);
}

/* ---- the thread ---- */

static void *run_checker(void *arg)
{
	struct scrub_page *page = calloc(1, sizeof(*page));
	struct store *s = arg;
	bool is_scrubbing = page && s->config.scrub_bytes_per_s > 0;

	s->scrub.due_ns = wd_now_ns() + (s->config.scrub_interval_ms * 1000000LL < FIRST_SCRUB_NS
						? s->config.scrub_interval_ms * 1000000LL
						: FIRST_SCRUB_NS);
	wd_lock(&s->check_lock);
	for (;;) {
		bool has_check = s->checks != NULL;

		if (!has_check && s->is_check_stopping)
			break;
		if (has_check || (is_scrubbing && wd_now_ns() >= s->scrub.due_ns)) {
			wd_unlock(&s->check_lock);
			if (has_check)
				check_step(s);
			else
				scrub_step(s, page);
			wd_lock(&s->check_lock);
		} else if (is_scrubbing) {
			(void)wd_cond_wait_until(&s->check_wake, &s->check_lock, s->scrub.due_ns);
		} else {
			wd_cond_wait(&s->check_wake, &s->check_lock);
		}
	}
	wd_unlock(&s->check_lock);
	free(page);
	return NULL;
}

int check_start(struct store *s)
{
	int rc = -pthread_create(&s->checker, NULL, run_checker, s);

	s->has_checker = rc == 0;
	return rc;
}

void check_stop(struct store *s)
{
	if (!s->has_checker)
		return;
	wd_lock(&s->check_lock);
	s->is_check_stopping = true;
	wd_cond_signal(&s->check_wake);
	wd_unlock(&s->check_lock);
	pthread_join(s->checker, NULL);
}
