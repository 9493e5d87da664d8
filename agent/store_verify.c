/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking a present block against its recorded hash, and what follows when it is bad: the block
 * ceases to be present, on disk first, and the object is partial again (with a map, if it had lost
 * its own). The bytes stay where they are until they are fetched anew: no space is freed under a
 * reader.
 *
 * Runs on workers; reads with descriptors of its own.
 */
#include "agent/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/cleanup.h"
#include "common/log.h"

/* A map with every block but one: for a complete object that has none. */
static int remake_map(struct object *o, uint32_t but, const uint64_t *hashes)
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

	return fd < 0 ? fd : map_clear(fd, block);
}

static void clear_locked(struct store *s, struct object *o, uint32_t block) WD_REQUIRES(s->lock)
	WD_REQUIRES(o->lock)
{
	_Atomic uint64_t *bits = atomic_load(&o->bits);
	uint64_t mask = (uint64_t)1 << (block % 64);

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

	rc = is_small_complete ? remake_map(o, block, hashes) : clear_entry(o, block);

	wd_lock(&s->lock);
	wd_lock(&o->lock);
	o->is_opening = false;
	if (rc == 0)
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

int object_verify(struct object *o, uint32_t block)
{
	wd_autoclose int fd = -1;
	wd_autofree void *data = NULL;
	uint64_t hash = 0;
	int rc;

	if (block >= o->nblocks || !object_has_block(o, block))
		return -ENOENT;
	data = malloc(WD_BLOCK_SIZE);
	if (!data)
		return -ENOMEM;
	rc = recorded_hash(o, block, &hash);
	if (rc == 0) {
		fd = file_open(o->store, &o->id, "", O_RDONLY);
		rc = fd < 0 ? fd
			    : pread_all(fd, data, block_len(o, block),
				      (uint64_t)block * WD_BLOCK_SIZE);
	}
	if (rc < 0 && rc != -ENOENT && rc != -ENODATA) {
		store_io_error(o->store, -rc, "read a cache file");
		return -EIO;
	}
	if (rc == 0 && XXH3_64bits(data, block_len(o, block)) == hash)
		return 0;
	wd_warn("cache: block %u of an object does not match its hash: it is fetched anew", block);
	return spoil(o, block) < 0 ? -EIO : -EILSEQ;
}
