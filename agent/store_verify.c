/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking a block against its recorded hash, and what follows when it is bad: the block ceases to be
 * present, on disk first, and the object is partial again (with a map, if it had lost its own). The
 * bytes stay where they are until they are fetched anew: no space is freed under a reader. Where the
 * disk does not take the change, the record says that nothing of the object is to be believed.
 *
 * A suspect block that turns out right becomes present here. Runs on the checker thread and on workers;
 * reads with descriptors of its own.
 */
#include "agent/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/log.h"

int map_remake(struct object *o, uint32_t but, const uint64_t *hashes)
{
	wd_autoclose int fd = file_open(o->store, &o->id, ".map", O_RDWR | O_CREAT | O_TRUNC);
	int rc;

	if (fd < 0)
		return fd;
	rc = map_write_header(fd, &o->id, o->size);
	if (rc == 0 && ftruncate(fd, (off_t)map_bytes(o->nblocks)) < 0)
		rc = -errno;
	for (uint32_t i = 0; rc == 0 && i < o->nblocks; i++)
		if (i != but)
			rc = map_write(fd, &o->id, i, hashes[i]);
	return rc;
}

static int clear_entry(struct object *o, uint32_t block)
{
	wd_autoclose int fd = file_open(o->store, &o->id, ".map", O_RDWR);

	if (fd == -ENOENT)
		return 0; /* it vouches for nothing */
	return fd < 0 ? fd : map_clear(fd, block);
}

static void clear_locked(struct store *s, struct object *o, uint32_t block) WD_REQUIRES(s->lock)
	WD_REQUIRES(o->lock)
{
	_Atomic uint64_t *bits = atomic_load(&o->bits);
	uint64_t mask = (uint64_t)1 << (block % 64);

	if (suspect_clear_locked(o, block)) {
		o->charged -= block_charge(o, block);
		s->used -= block_charge(o, block);
		record_write_locked(s, o);
		return;
	}
	if (atomic_load(&o->is_complete)) {
		for (uint32_t i = 0; i < o->nblocks; i++)
			atomic_fetch_or(&bits[i / 64], (uint64_t)1 << (i % 64));
		if (!o->has_map) {
			o->has_map = true;
			o->charged += map_charge(o->nblocks);
			s->used += map_charge(o->nblocks);
		}
	}
	if (!(atomic_fetch_and(&bits[block / 64], ~mask) & mask))
		return;
	live_clear_locked(o, block);
	atomic_fetch_sub(&o->present, block_len(o, block));
	o->charged -= block_charge(o, block);
	s->used -= block_charge(o, block);
	atomic_store_explicit(&o->is_complete, false, memory_order_release);
	record_write_locked(s, o);
}

static int spoil(struct object *o, uint32_t block)
{
	struct store *s = o->store;
	uint64_t hashes[SMALL_BLOCKS];
	bool is_small_complete;
	int rc = object_alloc_bits(o);

	if (rc < 0)
		return rc;
	wd_lock(&o->lock);
	while (o->is_opening)
		wd_cond_wait(&o->cond, &o->lock);
	o->is_opening = true;
	is_small_complete = atomic_load(&o->is_complete) && o->nblocks <= SMALL_BLOCKS;
	memcpy(hashes, o->hashes, sizeof(hashes));
	wd_unlock(&o->lock);

	rc = is_small_complete ? map_remake(o, block, hashes) : clear_entry(o, block);

	wd_lock(&s->lock);
	wd_lock(&o->lock);
	o->is_opening = false;
	o->is_doubtful |= rc < 0;
	clear_locked(s, o, block);
	wd_cond_broadcast(&o->cond);
	wd_unlock(&o->lock);
	wd_unlock(&s->lock);
	meta_throttle(s->meta);
	return rc < 0 ? store_io_error(s, -rc, "write a map file") : 0;
}

static int recorded_hash(struct object *o, uint32_t block, uint64_t *ret_hash)
{
	wd_autoclose int fd = -1;

	if (o->nblocks <= SMALL_BLOCKS) {
		wd_lock(&o->lock);
		*ret_hash = o->hashes[block];
		wd_unlock(&o->lock);
		return 0;
	}
	fd = file_open(o->store, &o->id, ".map", O_RDONLY);
	return fd < 0 ? fd : map_read(fd, &o->id, block, ret_hash);
}

/* A suspect block is right. */
static void believe(struct object *o, uint32_t block, uint64_t hash)
{
	struct store *s = o->store;

	wd_lock(&s->lock);
	wd_lock(&o->lock);
	if (suspect_has_locked(o, block)) {
		object_mark_locked(o, block, hash);
		o->is_dirty = true;
		if (atomic_load(&o->present) == o->size)
			object_complete_locked(s, o);
	}
	wd_unlock(&o->lock);
	wd_unlock(&s->lock);
	meta_throttle(s->meta);
}

static void tell(struct object *o, uint32_t block)
{
	bool is_news;
	char hex[33];

	atomic_fetch_add(&o->store->corrupt_blocks, 1);
	wd_lock(&o->lock);
	is_news = !o->is_told;
	o->is_told = true;
	wd_unlock(&o->lock);
	if (!is_news)
		return;
	object_id_format(&o->id, hex);
	wd_warn("cache '%s': block %u of object %s does not match its hash: it is fetched anew, as are "
		"others of that object",
		o->store->dir, block, hex);
}

static int read_block(struct object *o, uint32_t block, void *data, bool drops_pages)
{
	wd_autoclose int fd = file_open(o->store, &o->id, "", O_RDONLY);
	off_t at = (off_t)block * WD_BLOCK_SIZE, len = (off_t)block_len(o, block);
	int rc;

	if (fd < 0)
		return fd;
	if (drops_pages) /* what is in memory says nothing about the disk */
		(void)posix_fadvise(fd, at, len, POSIX_FADV_DONTNEED);
	rc = WD_FAULT("store.pread") ? -EIO : pread_all(fd, data, (size_t)len, (uint64_t)at);
	if (drops_pages)
		(void)posix_fadvise(fd, at, len, POSIX_FADV_DONTNEED);
	return rc;
}

int block_verify(struct object *o, uint32_t block, bool drops_pages)
{
	wd_autofree void *data = NULL;
	bool is_suspect = suspect_has(o, block);
	uint64_t hash = 0;
	int rc;

	if (block >= o->nblocks || (!is_suspect && !object_has_block(o, block)))
		return -ENOENT;
	data = malloc(WD_BLOCK_SIZE);
	if (!data)
		return -ENOMEM;
	rc = recorded_hash(o, block, &hash);
	if (rc == 0)
		rc = read_block(o, block, data, drops_pages);
	if (rc < 0 && rc != -ENOENT && rc != -ENODATA) {
		store_io_error(o->store, -rc, "read a cache file");
		return -EIO;
	}
	atomic_fetch_add(&o->store->checked_blocks, 1);
	if (rc == 0 && XXH3_64bits(data, block_len(o, block)) == hash) {
		if (is_suspect)
			believe(o, block, hash);
		return 0;
	}
	tell(o, block);
	return spoil(o, block) < 0 ? -EIO : -EILSEQ;
}

int object_verify(struct object *o, uint32_t block)
{
	return block < o->nblocks ? block_verify(o, block, false) : -ENOENT;
}
