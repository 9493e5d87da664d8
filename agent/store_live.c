/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The live map of an object that is read in cached mode: a memfd with its present bits
 * (common/mountmem.h), made when the first server asks for it and kept while somebody references it. A
 * complete object has one too: should a block turn out to be bad, those who read must know.
 *
 * The store's own bits are the truth, and the live map repeats them: an object that no server looks
 * at costs neither descriptor nor page. Both change under object.lock. The memfd is mapped writable
 * here before it is sealed, which is what keeps others from writing.
 */
#include "agent/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/cleanup.h"

void live_mark_locked(struct object *o, uint32_t block)
{
	if (o->live)
		atomic_fetch_or_explicit(&o->live->bits[block / 64], (uint64_t)1 << (block % 64),
			memory_order_release);
}

void live_clear_locked(struct object *o, uint32_t block)
{
	if (!o->live)
		return;
	atomic_fetch_and_explicit(&o->live->bits[block / 64], ~((uint64_t)1 << (block % 64)),
		memory_order_release);
	atomic_fetch_and_explicit(
		&o->live->flags, ~(uint32_t)WD_LIVEMAP_COMPLETE, memory_order_release);
}

void live_close_locked(struct object *o)
{
	if (!o->live)
		return;
	munmap(o->live, wd_livemap_bytes(o->nblocks));
	close(o->live_fd);
	o->live = NULL;
	o->live_fd = -1;
}

void live_complete_locked(struct object *o)
{
	/* it stays: a block may yet be found to be bad */
	if (o->live)
		atomic_fetch_or_explicit(
			&o->live->flags, WD_LIVEMAP_COMPLETE, memory_order_release);
}

void live_abandon_locked(struct object *o)
{
	if (!o->live)
		return;
	atomic_store_explicit(&o->live->flags, 0, memory_order_release);
	for (uint32_t i = 0; i < (o->nblocks + 63) / 64; i++)
		atomic_store_explicit(&o->live->bits[i], 0, memory_order_release);
	live_close_locked(o);
}

/* A sealed memfd without bits. */
static int make_live(const struct object *o, struct wd_livemap **ret_live, struct wd_err *err)
{
	size_t bytes = wd_livemap_bytes(o->nblocks);
	wd_autoclose int fd = memfd_create("warpdrive-live", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct wd_livemap *live;

	if (fd < 0)
		return wd_err_sys(err, errno, "make a live map");
	if (ftruncate(fd, (off_t)bytes) < 0)
		return wd_err_sys(err, errno, "make a live map of %zu bytes", bytes);
	live = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (live == MAP_FAILED)
		return wd_err_sys(err, errno, "map a live map of %zu bytes", bytes);
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW) < 0) {
		munmap(live, bytes);
		return wd_err_sys(err, errno, "seal a live map");
	}
	live->magic = WD_LIVEMAP_MAGIC;
	live->version = WD_LIVEMAP_VERSION;
	live->size = o->size;
	live->block_size = WD_BLOCK_SIZE;
	live->nblocks = o->nblocks;
	*ret_live = live;
	return wd_steal_fd(&fd);
}

/* Publishes a new live map, unless somebody was faster. */
static int publish(struct object *o, struct wd_livemap *live, int live_fd, struct wd_err *err)
{
	_Atomic uint64_t *bits;
	int fd;

	wd_lock(&o->lock);
	bits = atomic_load(&o->bits);
	if (!o->live && live) {
		bool is_complete = atomic_load(&o->is_complete);

		for (uint32_t i = 0; i < (o->nblocks + 63) / 64; i++) {
			uint64_t word = is_complete ? ~(uint64_t)0
				: bits ? atomic_load_explicit(&bits[i], memory_order_relaxed)
				       : 0;

			if (word) /* touch no page for nothing */
				atomic_store_explicit(&live->bits[i], word, memory_order_release);
		}
		if (is_complete)
			atomic_store_explicit(
				&live->flags, WD_LIVEMAP_COMPLETE, memory_order_release);
		o->live = live;
		o->live_fd = live_fd;
		live = NULL;
	}
	fd = fcntl(o->live_fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		fd = wd_err_sys(err, errno, "hand out a live map");
	wd_unlock(&o->lock);
	if (live) {
		munmap(live, wd_livemap_bytes(o->nblocks));
		close(live_fd);
	}
	return fd;
}

int object_open_map(struct object *o, struct wd_err *err)
{
	struct wd_livemap *live = NULL;
	int live_fd = -1;
	bool has_live;

	wd_lock(&o->lock);
	has_live = o->live != NULL;
	wd_unlock(&o->lock);
	if (!has_live) {
		live_fd = make_live(o, &live, err);
		if (live_fd < 0)
			return live_fd;
	}
	return publish(o, live, live_fd, err);
}
