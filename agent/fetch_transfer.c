/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One ranged GET into the cache: admitted, streamed block by block into the cache file, each block
 * committed with its hash as its last byte lands, its waits woken at once. A small object is held in
 * memory until whole, then put beside the cache and renamed. Blocks that are suspect (agent/store.h) are
 * checked first, and only what is absent then is fetched.
 *
 * A transfer owns a reference to its fetch. Its callbacks run on the origin's transfer threads and, for
 * a late admission, on the evictor thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>
#include <xxhash.h>

#include "agent/fetch_internal.h"
#include "agent/metrics.h"
#include "agent/proof.h"
#include "common/log.h"

#define NO_ROOM_NS 1000000000LL
#define JUST_FAILED_NS 200000000LL

struct transfer {
	struct origin_get get;
	struct fetch *fetch;
	uint32_t first, count;
	uint32_t done; /* blocks committed */
	uint64_t admitted;
	bool is_demand, is_small;
	bool is_refused; /* by the cache: no room, or a disk error */
	struct identity who;   /* whose credentials the dataset had when it began */
	unsigned char *buffer; /* the object when small, else the block that is arriving */
};

static void transfer_free(struct transfer *t)
{
	struct fetch *f = t->fetch;
	struct fetcher *fr = f->fetcher;
	bool is_demand = t->is_demand;

	free(t->buffer);
	free(t);
	fetch_unref(f);
	if (is_demand)
		return;
	wd_lock(&fr->lock);
	fr->prefetch_transfers--;
	fr->prefetch_bytes -= (uint64_t)fr->settings->max_get_size;
	wd_unlock(&fr->lock);
	fetcher_pump(fr);
}

/* The next block is in the cache: wakes who waits for it. */
static void block_landed(struct transfer *t, uint32_t block)
{
	struct fetch *f = t->fetch;
	struct fetch_wait *over = NULL;
	bool is_first;

	t->done++;
	t->admitted -= object_block_charge(f->object, block);
	wd_lock(&f->lock);
	is_first = !f->has_proof;
	f->has_proof = true;
	fetch_block_over_locked(f, block, 0, &over);
	wd_unlock(&f->lock);
	if (is_first)
		proof_record(f->fetcher->meta, &t->who, &f->key.object, f->fetcher->settings);
	fetch_answer(f, over, &(struct fetch_end){.status = 0});
}

/* Everything that did not land is no longer in flight; its waits get status, or another way. */
static void transfer_over(struct transfer *t, int status, const struct wd_err *err)
{
	struct fetch *f = t->fetch;
	struct fetch_wait *over = NULL;
	struct fetch_end end = {.status = status,
		.is_refused = t->is_refused,
		.is_out_of_time = status == -EIO && t->get.is_out_of_time,
		.err = err};

	if (t->admitted)
		store_unadmit(f->fetcher->store, f->object, t->admitted);
	fetch_note_end(f, &end);
	wd_lock(&f->lock);
	if (end.is_out_of_time && t->is_demand) {
		f->failed_until_ns = wd_now_ns() + JUST_FAILED_NS;
		f->failed_first = t->first + t->done;
		f->failed_end = t->first + t->count;
	}
	if (t->is_refused)
		f->no_room_until_ns = wd_now_ns() + NO_ROOM_NS;
	for (uint32_t i = t->done; i < t->count; i++)
		fetch_block_over_locked(f, t->first + i, status ? status : -EIO, &over);
	wd_unlock(&f->lock);
	fetch_answer(f, over, &end);
	transfer_free(t);
}

/* A whole block is in the buffer: into the cache file with it, in one write, with its hash. */
static int store_block(struct transfer *t, uint32_t block)
{
	struct fetch *f = t->fetch;
	uint64_t size = block_len(f, block);
	int rc = object_pwrite(f->object, t->buffer, size, (uint64_t)block * WD_BLOCK_SIZE);

	if (rc == 0)
		rc = object_commit(f->object, block, XXH3_64bits(t->buffer, size));
	if (rc < 0) {
		t->is_refused = true;
		return rc;
	}
	block_landed(t, block);
	return 0;
}

/* curl gives 16 KiB at a time: gathered to blocks, since every write takes the file's lock. */
static int gather_blocks(struct transfer *t, uint64_t offset, const unsigned char *data, size_t len)
{
	while (len > 0) {
		uint32_t block = (uint32_t)(offset / WD_BLOCK_SIZE);
		uint64_t at = offset % WD_BLOCK_SIZE, size = block_len(t->fetch, block);
		size_t n = len < size - at ? len : (size_t)(size - at);

		memcpy(t->buffer + at, data, n);
		if (at + n == size) {
			int rc = store_block(t, block);

			if (rc < 0)
				return rc;
		}
		offset += n;
		data += n;
		len -= n;
	}
	return 0;
}

static int transfer_sink(void *arg, uint64_t offset, const void *data, size_t len)
{
	struct transfer *t = arg;

	metric_add(METRIC_READ_ORIGIN, len);
	if (!t->buffer)
		t->buffer = malloc(t->is_small ? t->fetch->size : WD_BLOCK_SIZE);
	if (!t->buffer)
		return -ENOMEM;
	if (!t->is_small)
		return gather_blocks(t, offset, data, len);
	memcpy(t->buffer + offset, data, len);
	return 0;
}

static void transfer_done(void *arg, int status, const struct wd_err *err)
{
	struct transfer *t = arg;

	if (status == 0 && t->is_small) {
		status = object_put(t->fetch->object, t->buffer, t->fetch->size);
		if (status < 0)
			t->is_refused = true;
		else
			for (uint32_t i = 0; i < t->count; i++)
				block_landed(t, t->first + i);
	}
	transfer_over(t, status, err);
}

static void transfer_admitted(void *arg, int status)
{
	struct transfer *t = arg;

	if (status < 0) {
		t->admitted = 0;
		t->is_refused = true;
		transfer_over(t, status, NULL);
		return;
	}
	dataset_who(t->fetch->dataset, &t->who);
	if (fetcher_get(t->fetch->fetcher, dataset_origin(t->fetch->dataset), &t->get) < 0)
		transfer_over(t, -ECANCELED, NULL);
}

/* deadline_ns: of the reader that it is for; 0: none. */
static struct transfer *transfer_new(struct fetch *f, uint32_t first, uint32_t count, bool is_demand,
	int64_t deadline_ns)
{
	struct transfer *t = calloc(1, sizeof(*t));
	uint64_t end = (uint64_t)(first + count) * WD_BLOCK_SIZE;

	if (!t)
		return NULL;
	t->fetch = fetch_ref(f);
	t->first = first;
	t->count = count;
	t->is_demand = is_demand;
	t->is_small = first == 0 && count == f->nblocks &&
		f->size <= (uint64_t)f->fetcher->settings->small_object_size;
	t->get = (struct origin_get){
		.key = f->name,
		.version = &f->version,
		.offset = (uint64_t)first * WD_BLOCK_SIZE,
		.length = (end < f->size ? end : f->size) - (uint64_t)first * WD_BLOCK_SIZE,
		.is_demand = is_demand,
		.deadline_ns = deadline_ns,
		.sink = transfer_sink,
		.done = transfer_done,
		.arg = t,
	};
	return t;
}

static void transfer_admit(struct transfer *t)
{
	struct fetch *f = t->fetch;

	for (uint32_t i = 0; i < t->count; i++)
		t->admitted += object_block_charge(f->object, t->first + i);
	if (!t->is_demand)
		metric_add(METRIC_PREFETCH_BYTES, t->get.length);
	store_admit(f->fetcher->store, f->object, t->admitted, transfer_admitted, t);
}

/* The blocks of a transfer that could not begin. */
static void give_up(struct fetch *f, uint32_t first, uint32_t count)
{
	struct wd_err err = {ENOMEM, "fetch: out of memory"};
	struct fetch_wait *over = NULL;

	wd_lock(&f->lock);
	for (uint32_t i = 0; i < count; i++)
		fetch_block_over_locked(f, first + i, -ENOMEM, &over);
	wd_unlock(&f->lock);
	fetch_answer(f, over, &(struct fetch_end){.status = -ENOMEM, .err = &err});
}

/* What was suspect is present or absent by now: only the absent is fetched, a small object as a whole. */
static void transfer_checked(void *arg)
{
	struct transfer *t = arg;
	struct fetch *f = t->fetch;
	struct fetch_wait *over = NULL;
	uint32_t end = t->first + t->count, b = t->first;

	if (t->is_small && !object_is_complete(f->object)) {
		transfer_admit(t);
		return;
	}
	while (b < end) {
		struct transfer *part;
		uint32_t first;

		wd_lock(&f->lock);
		for (; b < end && object_has_block(f->object, b); b++)
			fetch_block_over_locked(f, b, 0, &over);
		wd_unlock(&f->lock);
		fetch_answer(f, over, &(struct fetch_end){.status = 0});
		over = NULL;
		for (first = b; b < end && !object_has_block(f->object, b);)
			b++;
		if (b == first)
			continue;
		part = transfer_new(f, first, b - first, true, t->get.deadline_ns);
		if (part)
			transfer_admit(part);
		else
			give_up(f, first, b - first);
	}
	transfer_free(t);
}

void fetch_transfer_start(struct fetch *f, uint32_t first, uint32_t count, const struct fetch_wait *demand)
{
	struct transfer *t = transfer_new(f, first, count, demand != NULL, demand ? demand->deadline_ns : 0);

	if (!t)
		give_up(f, first, count);
	else if (object_is_suspect(f->object))
		store_check(f->fetcher->store, f->object, first, count, transfer_checked, t);
	else
		transfer_admit(t);
}
