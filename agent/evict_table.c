/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Remembered objects: a hash table of chains whose entries are linked into one of a few lists as well. All
 * memory is taken at the beginning, and touched as it is used; links are indices.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/evict_internal.h"

static uint32_t *bucket_of(const struct evict_table *t, const struct object_id *id)
{
	uint32_t n;

	memcpy(&n, id->b, sizeof(n)); /* ids are hashes */
	return &t->buckets[n & t->mask];
}

int table_init(struct evict_table *t, uint32_t max)
{
	uint32_t nbuckets = 1;

	while (nbuckets < max && nbuckets < (1u << 30))
		nbuckets *= 2;
	*t = (struct evict_table){.max = max, .free = EVICT_NONE, .mask = nbuckets - 1};
	for (int i = 0; i < LISTS; i++)
		t->lists[i].head = t->lists[i].tail = EVICT_NONE;
	t->entries = calloc(max ? max : 1, sizeof(*t->entries));
	t->buckets = calloc(nbuckets, sizeof(*t->buckets)); /* index + 1, so that zeros are empty */
	if (t->entries && t->buckets)
		return 0;
	table_done(t);
	return -ENOMEM;
}

void table_done(struct evict_table *t)
{
	free(t->entries);
	free(t->buckets);
	t->entries = NULL;
	t->buckets = NULL;
}

struct evict_entry *table_find(const struct evict_table *t, const struct object_id *id)
{
	for (uint32_t i = *bucket_of(t, id); i != 0; i = t->entries[i - 1].chain)
		if (memcmp(&t->entries[i - 1].id, id, sizeof(*id)) == 0)
			return &t->entries[i - 1];
	return NULL;
}

static struct evict_entry *at(const struct evict_table *t, uint32_t i)
{
	return i == EVICT_NONE ? NULL : &t->entries[i];
}

static void link_last(struct evict_table *t, struct evict_entry *x, enum evict_list list)
{
	uint32_t i = (uint32_t)(x - t->entries);

	x->list = (uint8_t)list;
	x->prev = t->lists[list].tail;
	x->next = EVICT_NONE;
	if (x->prev == EVICT_NONE)
		t->lists[list].head = i;
	else
		t->entries[x->prev].next = i;
	t->lists[list].tail = i;
	t->lists[list].count++;
	t->lists[list].bytes += x->size;
}

static void unlink_entry(struct evict_table *t, const struct evict_entry *x)
{
	if (x->prev == EVICT_NONE)
		t->lists[x->list].head = x->next;
	else
		t->entries[x->prev].next = x->next;
	if (x->next == EVICT_NONE)
		t->lists[x->list].tail = x->prev;
	else
		t->entries[x->next].prev = x->prev;
	t->lists[x->list].count--;
	t->lists[x->list].bytes -= x->size;
}

struct evict_entry *table_add(struct evict_table *t, enum evict_list list, const struct object_id *id,
	uint64_t size)
{
	uint32_t *bucket = bucket_of(t, id), i = t->free;
	struct evict_entry *x;

	if (i != EVICT_NONE)
		t->free = t->entries[i].next;
	else if (t->used < t->max)
		i = t->used++;
	else
		return NULL;
	x = &t->entries[i];
	*x = (struct evict_entry){.id = *id, .size = size, .chain = *bucket};
	*bucket = i + 1;
	link_last(t, x, list);
	return x;
}

void table_move(struct evict_table *t, struct evict_entry *x, enum evict_list list)
{
	unlink_entry(t, x);
	link_last(t, x, list);
}

void table_remove(struct evict_table *t, struct evict_entry *x)
{
	uint32_t i = (uint32_t)(x - t->entries), *link = bucket_of(t, &x->id);

	while (*link != i + 1)
		link = &t->entries[*link - 1].chain;
	*link = x->chain;
	unlink_entry(t, x);
	x->next = t->free;
	t->free = i;
}

struct evict_entry *table_oldest(const struct evict_table *t, enum evict_list list)
{
	return at(t, t->lists[list].head);
}

struct evict_entry *table_newest(const struct evict_table *t, enum evict_list list)
{
	return at(t, t->lists[list].tail);
}

struct evict_entry *table_next(const struct evict_table *t, const struct evict_entry *x)
{
	return at(t, x->next);
}
