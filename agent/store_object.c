/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The blocks of an object: present bits, writing, committing, checking.
 *
 *	object_pwrite -> bytes in the page cache of the data file
 *	object_commit -> map entry on disk -> bit (and live bit) -> accounts, record
 *
 * Present bits are read without a lock and set with release order under object.lock. The
 *descriptors of a partial object are opened by its first writer and closed when it is complete or
 *at rest; whoever uses them is counted (fd_users). Called on fetch threads and workers; file I/O
 *runs without locks.
 */
#include "agent/store_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/log.h"

#define WRITEBACK_BYTES ((uint64_t)8 << 20)
#define RECORD_BYTES ((uint64_t)64 << 20) /* progress after which the record is renewed */
#define FOLD_DELAY_NS (200 * 1000000LL)

static uint64_t round_page(uint64_t n)
{
	return (n + 4095) / 4096 * 4096;
}

uint64_t block_len(const struct object *o, uint32_t block)
{
	uint64_t start = (uint64_t)block * WD_BLOCK_SIZE;

	assert(block < o->nblocks);
	return o->size - start < WD_BLOCK_SIZE ? o->size - start : WD_BLOCK_SIZE;
}

uint64_t block_charge(const struct object *o, uint32_t block)
{
	return round_page(block_len(o, block));
}

uint64_t object_block_charge(const struct object *o, uint32_t block)
{
	return block_charge(o, block);
}

/* The map, and the extent tree of a file written in pieces: beyond the four extents that fit
 * into an inode it takes a page per 340 of them. */
uint64_t map_charge(uint32_t nblocks)
{
	if (nblocks == 0)
		return 0;
	return round_page(map_bytes(nblocks)) + (nblocks > 4 ? (nblocks / 256 + 1) * 4096ull : 0);
}

/* ---- present bits ---- */

int object_alloc_bits(struct object *o)
{
	_Atomic uint64_t *bits = atomic_load(&o->bits);

	if (bits)
		return 0;
	bits = calloc((o->nblocks + 63) / 64 + 1, sizeof(*bits));
	if (!bits)
		return -ENOMEM;
	atomic_store_explicit(&o->bits, bits, memory_order_release);
	return 0;
}

bool object_has_block(const struct object *o, uint32_t block)
{
	_Atomic uint64_t *bits;

	if (atomic_load_explicit(&o->is_complete, memory_order_acquire))
		return true;
	bits = atomic_load_explicit(&o->bits, memory_order_acquire);
	return block < o->nblocks && bits &&
	       (atomic_load_explicit(&bits[block / 64], memory_order_acquire) >> (block % 64) & 1);
}

bool object_has(const struct object *o, uint64_t offset, uint64_t len)
{
	uint64_t end;

	if (len == 0 || offset >= o->size)
		return true;
	if (atomic_load_explicit(&o->is_complete, memory_order_acquire))
		return true;
	end = len > o->size - offset ? o->size : offset + len;
	for (uint64_t block = offset / WD_BLOCK_SIZE; block <= (end - 1) / WD_BLOCK_SIZE; block++)
		if (!object_has_block(o, (uint32_t)block))
			return false;
	return true;
}

bool object_mark_locked(struct object *o, uint32_t block, uint64_t hash)
{
	_Atomic uint64_t *bits = atomic_load(&o->bits);
	uint64_t mask = (uint64_t)1 << (block % 64);

	suspect_clear_locked(o, block);
	if (o->nblocks <= SMALL_BLOCKS)
		o->hashes[block] = hash;
	if (atomic_load_explicit(&bits[block / 64], memory_order_relaxed) & mask)
		return false;
	atomic_fetch_or_explicit(&bits[block / 64], mask, memory_order_release);
	atomic_fetch_add(&o->present, block_len(o, block));
	live_mark_locked(o, block);
	return true;
}

static void clear_bits_locked(struct object *o) WD_REQUIRES(o->lock)
{
	_Atomic uint64_t *bits = atomic_load(&o->bits);

	for (uint32_t i = 0; i < (o->nblocks + 63) / 64; i++)
		atomic_store(&bits[i], 0);
	atomic_store(&o->present, 0);
	if (atomic_load(&o->suspect_bytes))
		for (uint32_t i = 0; i < o->nblocks; i++)
			suspect_clear_locked(o, i);
}

void object_complete_locked(struct store *s, struct object *o)
{
	atomic_store_explicit(&o->is_complete, true, memory_order_release);
	live_complete_locked(o);
	account_return_locked(s, o); /* what was admitted twice for a block, or for a map */
	if (o->nblocks <= SMALL_BLOCKS && o->has_map && !o->is_folding) {
		if (!s->folds)
			s->fold_ns = wd_now_ns() + FOLD_DELAY_NS;
		o->is_folding = true;
		o->refs++;
		o->fold_next = s->folds;
		s->folds = o;
		evict_wake_locked(s);
	}
	record_write_locked(s, o);
}

/* The files are not what the record says: somebody else was here. Begin anew. */
static void forget(struct object *o)
{
	struct store *s = o->store;
	int fds[2] = {-1, -1};

	if (object_alloc_bits(o) < 0)
		return;
	store_tell_damage(s, &o->id, "its file is missing or was cut: it is fetched anew");
	wd_lock(&s->lock);
	wd_lock(&o->lock);
	if (o->is_recorded && o->fd_users == 0 && !o->is_opening) {
		record_delete(s->meta, &o->id, &o->recorded_use);
		store_untouch_locked(s, o);
		o->is_recorded = o->is_dirty = o->is_marked = false;
		s->nobjects--;
		evict_removed(s->policy, &o->id, o->size, false);
		s->used -= o->charged;
		o->charged = 0;
		o->has_map = false;
		clear_bits_locked(o);
		live_abandon_locked(o); /* it went with a file that is no more */
		atomic_store(&o->is_complete, o->size == 0);
		o->is_created = false;
		fds[0] = wd_steal_fd(&o->data_fd);
		fds[1] = wd_steal_fd(&o->map_fd);
	}
	wd_unlock(&o->lock);
	wd_unlock(&s->lock);
	for (int i = 0; i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

/* ---- descriptors ---- */

static int open_pair(struct object *o, bool is_new, int *ret_data, int *ret_map)
{
	wd_autoclose int data = -1;
	int map;

	if (is_new) {
		/* A record of an earlier life may say "complete" until its removal is committed: a
		 * kill would leave it beside a new file full of holes. */
		if (meta_is_pending(o->store->meta, META_OBJECTS, &o->id, sizeof(o->id))) {
			int rc = meta_flush(o->store->meta);

			if (rc < 0)
				return rc;
		}
		return file_create(o->store, o, ret_data, ret_map);
	}
	data = file_open(o->store, &o->id, "", O_RDWR);
	if (data < 0)
		return data;
	map = file_open(o->store, &o->id, ".map", O_RDWR);
	if (map < 0)
		return map;
	*ret_map = map;
	*ret_data = wd_steal_fd(&data);
	return 0;
}

/* The descriptors of a partial object, making its files when there are none. -EALREADY when it is
 * complete. Every success is followed by release_fds(). */
static int acquire_fds(struct object *o, int *ret_data, int *ret_map)
{
	struct store *s = o->store;
	int data = -1, map = -1, rc = 0;
	bool is_new;

	wd_lock(&o->lock);
	while (o->is_opening)
		wd_cond_wait(&o->cond, &o->lock);
	if (o->is_created && atomic_load(&o->is_complete))
		rc = -EALREADY;
	if (rc < 0 || o->data_fd >= 0) {
		o->fd_users += rc == 0;
		*ret_data = o->data_fd;
		*ret_map = o->map_fd;
		wd_unlock(&o->lock);
		return rc;
	}
	o->is_opening = true;
	is_new = !o->is_created;
	wd_unlock(&o->lock);

	rc = open_pair(o, is_new, &data, &map);

	wd_lock(&s->lock);
	wd_lock(&o->lock);
	o->is_opening = false;
	if (rc == 0) {
		*ret_data = o->data_fd = data;
		*ret_map = o->map_fd = map;
		o->fd_users++;
		o->is_created = true;
		if (is_new) {
			o->has_map = o->nblocks > 0;
			account_map_locked(s, o);
			store_touch_locked(s, o);
			record_write_locked(s, o);
		}
	}
	wd_cond_broadcast(&o->cond);
	wd_unlock(&o->lock);
	wd_unlock(&s->lock);
	if (rc == 0 && is_new)
		meta_throttle(s->meta);
	if (rc == -ENOENT && !is_new) {
		forget(o);
		return rc;
	}
	return rc < 0 ? store_io_error(s, -rc, "make a cache file") : 0;
}

static void release_fds(struct object *o)
{
	wd_autoclose int data = -1, map = -1;

	wd_lock(&o->lock);
	if (--o->fd_users == 0 && atomic_load(&o->is_complete)) {
		data = wd_steal_fd(&o->data_fd);
		map = wd_steal_fd(&o->map_fd);
	}
	wd_unlock(&o->lock);
}

void object_rest(struct object *o, int ret_fds[2])
{
	wd_lock(&o->lock);
	ret_fds[0] = wd_steal_fd(&o->data_fd);
	ret_fds[1] = wd_steal_fd(&o->map_fd);
	live_close_locked(o);
	wd_unlock(&o->lock);
}

/* ---- writing ---- */

/* Starts writing back what was written, so that dirty pages never pile up; waits for nothing. */
static void write_back_early(struct object *o, int fd, uint64_t offset, uint64_t len)
{
	uint64_t from = 0, to = 0;

	wd_lock(&o->lock);
	if (o->dirty_bytes == 0 || offset < o->dirty_from)
		o->dirty_from = offset;
	if (o->dirty_bytes == 0 || offset + len > o->dirty_to)
		o->dirty_to = offset + len;
	o->dirty_bytes += len;
	if (o->dirty_bytes >= WRITEBACK_BYTES) {
		from = o->dirty_from;
		to = o->dirty_to;
		o->dirty_bytes = 0;
	}
	wd_unlock(&o->lock);
	if (to > from)
		(void)sync_file_range(fd, (off_t)from, (off_t)(to - from), SYNC_FILE_RANGE_WRITE);
}

int object_pwrite(struct object *o, const void *data, size_t len, uint64_t offset)
{
	int data_fd, map_fd, rc;

	assert(offset <= o->size && len <= o->size - offset);
	/* a present block is never written again: somebody may be reading it through the kernel */
	if (object_has(o, offset, len))
		return 0;
	if (object_is_suspect(o)) {
		rc = suspect_give_up(o, offset, len);
		if (rc < 0)
			return rc;
	}
	rc = acquire_fds(o, &data_fd, &map_fd);
	if (rc < 0)
		return rc == -EALREADY ? 0 : rc;
	rc = WD_FAULT("store.pwrite") ? -EIO : pwrite_all(data_fd, data, len, offset);
	if (rc == 0)
		write_back_early(o, data_fd, offset, len);
	release_fds(o);
	return rc < 0 ? store_io_error(o->store, -rc, "write a cache file") : 0;
}

static void committed_locked(struct store *s, struct object *o, uint32_t block) WD_REQUIRES(s->lock)
	WD_REQUIRES(o->lock)
{
	account_commit_locked(s, o, block_charge(o, block));
	o->unrecorded += block_len(o, block);
	o->is_dirty = true;
	if (atomic_load(&o->present) == o->size)
		object_complete_locked(s, o);
	else if (!o->is_marked || o->unrecorded >= RECORD_BYTES)
		record_write_locked(s, o);
}

int object_commit(struct object *o, uint32_t block, uint64_t hash)
{
	struct store *s = o->store;
	int data_fd, map_fd, rc;

	assert(block < o->nblocks);
	if (object_has_block(o, block))
		return 0;
	rc = acquire_fds(o, &data_fd, &map_fd);
	if (rc < 0)
		return rc == -EALREADY ? 0 : rc;
	rc = map_write(map_fd, &o->id, block, hash);
	if (rc == 0) {
		wd_lock(&s->lock);
		wd_lock(&o->lock);
		if (object_mark_locked(o, block, hash))
			committed_locked(s, o, block);
		wd_unlock(&o->lock);
		wd_unlock(&s->lock);
	}
	release_fds(o);
	if (rc < 0)
		return store_io_error(s, -rc, "write a map file");
	meta_throttle(s->meta);
	return 0;
}

/* By blocks: for what is not small, or has begun already. */
static int put_blocks(struct object *o, const unsigned char *data, size_t len)
{
	int rc = object_pwrite(o, data, len, 0);

	for (uint32_t block = 0; rc == 0 && block < o->nblocks; block++)
		rc = object_commit(o, block,
			XXH3_64bits(data + (size_t)block * WD_BLOCK_SIZE, block_len(o, block)));
	return rc;
}

static void put_done(struct object *o, const uint64_t *hashes, int rc)
{
	struct store *s = o->store;

	wd_lock(&s->lock);
	wd_lock(&o->lock);
	o->is_opening = false;
	if (rc == 0) {
		o->is_created = true;
		for (uint32_t i = 0; i < o->nblocks; i++) {
			if (object_mark_locked(o, i, hashes[i]))
				account_commit_locked(s, o, block_charge(o, i));
		}
		store_touch_locked(s, o);
		object_complete_locked(s, o);
	}
	wd_cond_broadcast(&o->cond);
	wd_unlock(&o->lock);
	wd_unlock(&s->lock);
}

int object_put(struct object *o, const void *data, size_t len)
{
	uint64_t hashes[SMALL_BLOCKS];
	bool is_created;
	int rc;

	assert(len == o->size);
	if (object_is_complete(o))
		return 0;
	if (o->nblocks > SMALL_BLOCKS)
		return put_blocks(o, data, len);
	for (uint32_t i = 0; i < o->nblocks; i++)
		hashes[i] = XXH3_64bits(
			(const char *)data + (size_t)i * WD_BLOCK_SIZE, block_len(o, i));
	wd_lock(&o->lock);
	while (o->is_opening)
		wd_cond_wait(&o->cond, &o->lock);
	is_created = o->is_created;
	if (!is_created)
		o->is_opening = true;
	wd_unlock(&o->lock);
	if (is_created)
		return put_blocks(o, data, len);
	rc = file_put(o->store, o, data, len);
	put_done(o, hashes, rc);
	if (rc < 0)
		return store_io_error(o->store, -rc, "write a cache file");
	meta_throttle(o->store->meta);
	return 0;
}

void object_fold(struct object *o)
{
	struct store *s = o->store;
	char name[FILE_NAME_MAX];
	bool is_removed;

	wd_lock(&o->lock);
	while (o->is_opening)
		wd_cond_wait(&o->cond, &o->lock);
	if (!atomic_load(&o->is_complete)) { /* a damaged block was found meanwhile */
		wd_unlock(&o->lock);
		return;
	}
	o->is_opening = true;
	wd_unlock(&o->lock);
	file_name(&o->id, ".map", name);
	is_removed = unlinkat(s->dir_fd, name, 0) == 0 || errno == ENOENT;
	wd_lock(&s->lock);
	wd_lock(&o->lock);
	o->is_opening = false;
	if (is_removed && o->has_map) {
		o->has_map = false;
		o->charged -= map_charge(o->nblocks);
		s->used -= map_charge(o->nblocks);
		record_write_locked(s, o);
	}
	wd_cond_broadcast(&o->cond);
	wd_unlock(&o->lock);
	wd_unlock(&s->lock);
	meta_throttle(s->meta);
}

/* ---- reading ---- */

static int open_read(struct object *o)
{
	int fd = file_open(o->store, &o->id, "", O_RDONLY | O_NOATIME);

	return fd == -EPERM ? file_open(o->store, &o->id, "", O_RDONLY) : fd;
}

int object_open_file(struct object *o, struct wd_err *err)
{
	wd_autoclose int fd = -1;
	int data_fd, map_fd, rc;
	struct stat st;

	rc = acquire_fds(o, &data_fd, &map_fd); /* so that there is a file */
	if (rc == 0)
		release_fds(o);
	else if (rc != -EALREADY)
		return wd_err_sys(err, -rc, "make a cache file in '%s'", o->store->dir);
	fd = open_read(o);
	if (fd >= 0 && fstat(fd, &st) == 0 && (uint64_t)st.st_size == o->size)
		return wd_steal_fd(&fd);
	if (fd >= 0 || fd == -ENOENT) {
		forget(o);
		return wd_err_set(
			err, ENOENT, "a cache file in '%s' is missing or was cut", o->store->dir);
	}
	return wd_err_sys(err, -fd, "open a cache file in '%s'", o->store->dir);
}

bool object_is_complete(const struct object *o)
{
	return atomic_load_explicit(&o->is_complete, memory_order_acquire);
}

uint64_t object_present_bytes(const struct object *o)
{
	return atomic_load(&o->present) + atomic_load(&o->suspect_bytes);
}
