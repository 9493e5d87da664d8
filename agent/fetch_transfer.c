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
	uint64_t charge; /* of the prefetch budget; 0: it began as demand */
	enum get_priority began_as;
	bool is_small;
	bool has_begun;	 /* a byte came */
	bool is_refused; /* by the cache: no room, or a disk error */
	/* guarded by fetch->lock */
	unsigned refs;
	enum get_priority priority; /* how it stands; get.priority is the origin's */
	bool is_dropped;
	struct transfer *prev, *next;
	struct identity who;   /* whose credentials the dataset had when it began */
	unsigned char *buffer; /* the object when small, else the block that is arriving */
};

static void transfer_unref(struct transfer *t)
{
	struct fetch *f = t->fetch;
	bool is_last;

	wd_lock(&f->lock);
	is_last = --t->refs == 0;
	wd_unlock(&f->lock);
	if (!is_last)
		return;
	flow_unref(t->get.flow);
	free(t->buffer);
	free(t);
	fetch_unref(f);
}

static void transfer_end(struct transfer *t)
{
	struct fetcher *fr = t->fetch->fetcher;
	uint64_t charge = t->charge;

	wd_lock(&t->fetch->lock);
	DL_DELETE(t->fetch->transfers, t);
	wd_unlock(&t->fetch->lock);
	transfer_unref(t);
	if (charge)
		fetcher_uncharge(fr, charge);
}

/* The origin has given a block. Before anybody sees it in the cache: who opens the object then would ask again. */
static void note_proof(struct transfer *t)
{
	struct fetch *f = t->fetch;
	bool is_first;

	wd_lock(&f->lock);
	is_first = !f->has_proof;
	f->has_proof = true;
	wd_unlock(&f->lock);
	if (is_first)
		proof_record(f->fetcher->meta, &t->who, &f->key.object, f->fetcher->settings);
}

/* The next block is in the cache: wakes who waits for it. */
static void block_landed(struct transfer *t, uint32_t block)
{
	struct fetch *f = t->fetch;
	struct fetch_wait *over = NULL;

	t->done++;
	t->admitted -= object_block_charge(f->object, block);
	wd_lock(&f->lock);
	fetch_block_over_locked(f, block, 0, &over);
	wd_unlock(&f->lock);
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
	end.is_dropped = t->is_dropped && status == -ECANCELED;
	if (end.is_dropped && t->charge)
		metric_add(METRIC_PREFETCH_CANCELLED, t->get.length);
	if (end.is_out_of_time && t->priority == GET_DEMAND) {
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
	transfer_end(t);
}

/* A whole block is in the buffer: into the cache file with it, in one write, with its hash. */
static int store_block(struct transfer *t, uint32_t block)
{
	struct fetch *f = t->fetch;
	uint64_t size = block_len(f, block);
	int rc = object_pwrite(f->object, t->buffer, size, (uint64_t)block * WD_BLOCK_SIZE);

	note_proof(t);
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

static const enum metric ahead_metrics[GET_PRIORITIES] = {
	[GET_WARM] = METRIC_AHEAD_WARM,
	[GET_DIRECTORY] = METRIC_AHEAD_DIRECTORY,
	[GET_STREAM] = METRIC_PREFETCH_BYTES,
	[GET_DEMAND] = METRIC_PREFETCH_BYTES, /* the rest of a transfer that was raised while it was checked */
};

static int transfer_sink(void *arg, uint64_t offset, const void *data, size_t len)
{
	struct transfer *t = arg;

	metric_add(METRIC_READ_ORIGIN, len);
	if (!t->has_begun && t->charge)
		metric_add(ahead_metrics[t->began_as], t->get.length);
	t->has_begun = true;
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
		note_proof(t);
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

static struct transfer *transfer_new(struct fetch *f, struct run run, enum get_priority priority, struct flow *flow,
	int64_t deadline_ns, uint64_t charge)
{
	struct transfer *t = calloc(1, sizeof(*t));
	uint64_t end = (uint64_t)(run.first + run.count) * WD_BLOCK_SIZE;

	if (!t)
		return NULL;
	t->fetch = fetch_ref(f);
	t->first = run.first;
	t->count = run.count;
	t->refs = 1;
	t->priority = t->began_as = priority;
	t->charge = charge;
	t->is_small = run.first == 0 && run.count == f->nblocks &&
		f->size <= (uint64_t)f->fetcher->settings->small_object_size;
	t->get = (struct origin_get){
		.key = f->name,
		.version = &f->version,
		.offset = (uint64_t)run.first * WD_BLOCK_SIZE,
		.length = (end < f->size ? end : f->size) - (uint64_t)run.first * WD_BLOCK_SIZE,
		.priority = priority,
		.flow = flow_ref(flow),
		.deadline_ns = deadline_ns,
		.sink = transfer_sink,
		.done = transfer_done,
		.arg = t,
	};
	wd_lock(&f->lock);
	DL_APPEND(f->transfers, t);
	wd_unlock(&f->lock);
	return t;
}

static void transfer_admit(struct transfer *t)
{
	struct fetch *f = t->fetch;

	for (uint32_t i = 0; i < t->count; i++)
		t->admitted += object_block_charge(f->object, t->first + i);
	store_admit(f->fetcher->store, f->object, t->admitted, transfer_admitted, t);
}

/* The blocks of a transfer that could not begin. */
static void give_up(struct fetch *f, struct run run, uint64_t charge)
{
	struct wd_err err = {ENOMEM, "fetch: out of memory"};
	struct fetch_wait *over = NULL;

	wd_lock(&f->lock);
	for (uint32_t i = 0; i < run.count; i++)
		fetch_block_over_locked(f, run.first + i, -ENOMEM, &over);
	wd_unlock(&f->lock);
	fetch_answer(f, over, &(struct fetch_end){.status = -ENOMEM, .err = &err});
	if (charge)
		fetcher_uncharge(f->fetcher, charge);
}

/* What was suspect is present or absent by now: only the absent is fetched, a small object as a whole. */
static void transfer_checked(void *arg)
{
	struct transfer *t = arg;
	struct fetch *f = t->fetch;
	struct fetch_wait *over = NULL;
	uint32_t end = t->first + t->count, b = t->first;
	enum get_priority priority;

	if (t->is_small && !object_is_complete(f->object)) {
		transfer_admit(t);
		return;
	}
	while (b < end) {
		struct transfer *part;
		struct run run;
		uint64_t charge;

		wd_lock(&f->lock);
		priority = t->priority;
		for (; b < end && object_has_block(f->object, b); b++)
			fetch_block_over_locked(f, b, 0, &over);
		wd_unlock(&f->lock);
		fetch_answer(f, over, &(struct fetch_end){.status = 0});
		over = NULL;
		for (run.first = b; b < end && !object_has_block(f->object, b);)
			b++;
		run.count = b - run.first;
		if (run.count == 0)
			continue;
		charge = t->charge ? run_bytes(f, run) : 0;
		if (charge)
			fetcher_charge_part(f->fetcher, charge);
		part = transfer_new(f, run, priority, t->get.flow, t->get.deadline_ns, charge);
		if (part)
			transfer_admit(part);
		else
			give_up(f, run, charge);
	}
	transfer_end(t);
}

void fetch_transfer_start(struct fetch *f, struct run run, enum get_priority priority, struct flow *flow,
	int64_t deadline_ns, uint64_t charge)
{
	struct transfer *t = transfer_new(f, run, priority, flow, deadline_ns, charge);

	if (!t)
		give_up(f, run, charge);
	else if (object_is_suspect(f->object))
		store_check(f->fetcher->store, f->object, run.first, run.count, transfer_checked, t);
	else
		transfer_admit(t);
}

/* ---- more urgent, or not at all ---- */

#define BATCH 16

/* Some wish counts on what the transfer brings. */
static bool is_wished_locked(const struct fetch *f, const struct transfer *t) WD_REQUIRES(f->lock)
{
	for (const struct fetch_wait *w = f->waits; w; w = w->next)
		if (w->offset < t->get.offset + t->get.length && t->get.offset < w->offset + w->len)
			return true;
	return false;
}

/* Up to BATCH transfers among these blocks whose class is to change, each with a reference. */
static unsigned pick_locked(struct fetch *f, uint32_t first, uint32_t last, enum get_priority priority,
	struct transfer *ret_batch[BATCH]) WD_REQUIRES(f->lock)
{
	struct transfer *t;
	unsigned n = 0;

	DL_FOREACH(f->transfers, t) {
		if (t->first > last || t->first + t->count <= first || t->priority == GET_DEMAND)
			continue;
		if (priority == GET_UNWANTED) {
			if (t->is_dropped || is_wished_locked(f, t) ||
				streams_await(&f->streams, t->get.offset, t->get.offset + t->get.length))
				continue;
			t->is_dropped = true;
		} else {
			t->priority = priority;
		}
		t->refs++;
		ret_batch[n++] = t;
		if (n == BATCH)
			break;
	}
	return n;
}

void fetch_transfers_prioritise(struct fetch *f, uint32_t first, uint32_t last, enum get_priority priority)
{
	struct transfer *batch[BATCH];
	unsigned n;

	do {
		wd_lock(&f->lock);
		n = pick_locked(f, first, last, priority, batch);
		wd_unlock(&f->lock);
		for (unsigned i = 0; i < n; i++) {
			origin_prioritise(dataset_origin(f->dataset), &batch[i]->get, priority);
			transfer_unref(batch[i]);
		}
	} while (n == BATCH);
}
