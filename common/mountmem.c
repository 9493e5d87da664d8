/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making, checking and mapping the memory that a mount shares between keeper, agent and server.
 *
 * Everything here is called from any thread and blocks on nothing but page faults. Two kinds of
 * trust: sizes, offsets and counts are read once with pread(2), checked, and then used from the
 * private copies in struct wd_mm, so that a hostile writer can change them as it likes; the words
 * of the tables may be nonsense at any time and are never used as an index here.
 *
 * Memory that can shrink is a SIGBUS in whoever maps it: nothing is mapped without F_SEAL_SHRINK.
 *
 * Sections start at multiples of 64 KiB, the largest page of any machine we run on, so that a
 * section can be locked or advised by itself whatever the page size. Nothing is touched before it
 * is used: a fresh tables memfd of 29 MiB costs one page.
 */
#include "common/mountmem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/cleanup.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define SECTION_ALIGN 65536u
#define TABLES_MAX (256u << 20) /* bytes that a received memfd may make us map */
#define SLOT_SIZE_MAX (2u << 20)
#define TABLES_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define INFO_SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* ---- memfds ---- */

static int make_memfd(const char *name)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd < 0 ? -errno : fd;
}

static int pwrite_all(int fd, const void *data, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pwrite(fd, (const char *)data + done, len - done, (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

/* Reads exactly len bytes from the start. */
static int pread_all(int fd, void *data, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pread(fd, (char *)data + done, len - done, (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EPROTO;
		done += (size_t)n;
	}
	return 0;
}

/* A sealed memfd of size bytes that begins with data. */
static int make_sealed(
	const char *name, const void *data, size_t len, size_t size, int seals, struct wd_err *err)
{
	wd_autoclose int fd = make_memfd(name);
	int rc = fd;

	if (rc >= 0 && ftruncate(fd, (off_t)size) < 0)
		rc = -errno;
	if (rc >= 0)
		rc = pwrite_all(fd, data, len);
	if (rc >= 0 && fcntl(fd, F_ADD_SEALS, seals) < 0)
		rc = -errno;
	if (rc < 0)
		return wd_err_sys(err, -rc, "make the memfd '%s'", name);
	return wd_steal_fd(&fd);
}

/* The size of a received memfd that carries at least these seals; -EPROTO for anything else. */
static int check_sealed(const char *what, int fd, int seals, uint64_t *ret_size, struct wd_err *err)
{
	int have = fcntl(fd, F_GET_SEALS);
	/* not fstat, which takes a path as well: a server's filter does not let it through */
	off_t size = have < 0 ? -1 : lseek(fd, 0, SEEK_END);

	if (size < 0)
		return wd_err_sys(err, EPROTO, "%s: not a memfd", what);
	if ((have & seals) != seals)
		return wd_err_sys(err, EPROTO, "%s: seals %#x are not the %#x it must have", what,
			(unsigned)have, (unsigned)seals);
	*ret_size = (uint64_t)size;
	return 0;
}

/* ---- the tables ---- */

static uint64_t align_section(uint64_t off)
{
	return (off + SECTION_ALIGN - 1) / SECTION_ALIGN * SECTION_ALIGN;
}

int wd_mm_create(struct wd_err *err)
{
	struct wd_mm_header h = {.magic = WD_MM_MAGIC,
		.version = WD_MM_VERSION,
		.minor = WD_MM_MINOR,
		.nslots = WD_MM_SLOTS,
		.slot_size = WD_MM_SLOT_SIZE,
		.ninodes = WD_MM_INODES,
		.nhandles = WD_MM_HANDLES};

	h.states_off = align_section(sizeof(h));
	h.inodes_off = align_section(h.states_off + sizeof(struct wd_mm_slot) * WD_MM_SLOTS);
	h.handles_off = align_section(h.inodes_off + sizeof(struct wd_mm_inode) * WD_MM_INODES);
	h.slots_off = align_section(h.handles_off + sizeof(struct wd_mm_handle) * WD_MM_HANDLES);
	h.total_size = align_section(h.slots_off + (uint64_t)WD_MM_SLOT_SIZE * WD_MM_SLOTS);
	return make_sealed("warpdrive-tables", &h, sizeof(h), h.total_size, TABLES_SEALS, err);
}

/* Checks that count items of item_size bytes lie at off, after *end; moves *end behind them. Counts
 * are below 2^32 and items below 2^22 bytes, so the product cannot overflow. */
static bool section_fits(
	uint64_t off, uint32_t count, uint32_t item_size, uint64_t total, uint64_t *end)
{
	uint64_t len = (uint64_t)count * item_size;

	if (count == 0 || off % 64 != 0 || off < *end || off > total || len > total - off)
		return false;
	*end = off + len;
	return true;
}

static const char *find_flaw(const struct wd_mm_header *h, uint64_t size)
{
	uint64_t end = sizeof(*h);

	if (h->magic != WD_MM_MAGIC)
		return "wrong magic";
	if (h->version == 0 || h->version > WD_MM_VERSION)
		return "a version that this program does not know";
	if (h->total_size != size || size > TABLES_MAX)
		return "wrong size";
	if (h->slot_size < WD_MM_SLOT_MIN || h->slot_size > SLOT_SIZE_MAX || h->slot_size % 64)
		return "bad slot size";
	if (h->ninodes == 0 || (h->ninodes & (h->ninodes - 1)) != 0)
		return "the number of inodes is not a power of two";
	if (!section_fits(h->states_off, h->nslots, sizeof(struct wd_mm_slot), size, &end) ||
		!section_fits(h->inodes_off, h->ninodes, sizeof(struct wd_mm_inode), size, &end) ||
		!section_fits(
			h->handles_off, h->nhandles, sizeof(struct wd_mm_handle), size, &end) ||
		!section_fits(h->slots_off, h->nslots, h->slot_size, size, &end))
		return "a section lies outside of the file or over another";
	return NULL;
}

int wd_mm_map(int fd, struct wd_mm *ret_mm, struct wd_err *err)
{
	struct wd_mm_header h;
	const char *flaw;
	unsigned char *base;
	uint64_t size = 0;
	int rc = check_sealed("mount tables", fd, F_SEAL_SHRINK | F_SEAL_GROW, &size, err);

	if (rc < 0)
		return rc;
	if (size < sizeof(h) || pread_all(fd, &h, sizeof(h)) < 0)
		return wd_err_set(err, EPROTO, "mount tables: no header");
	flaw = find_flaw(&h, size);
	if (flaw)
		return wd_err_set(err, EPROTO, "mount tables: %s", flaw);
	base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED)
		return wd_err_sys(err, errno, "mount tables: map %zu bytes", (size_t)size);
	/* A huge page would make the sparse tables cost their whole size. */
	madvise(base, size, MADV_NOHUGEPAGE);
	*ret_mm = (struct wd_mm){
		.header = (struct wd_mm_header *)base,
		.slots = (struct wd_mm_slot *)(base + h.states_off),
		.inodes = (struct wd_mm_inode *)(base + h.inodes_off),
		.handles = (struct wd_mm_handle *)(base + h.handles_off),
		.requests = base + h.slots_off,
		.size = size,
		.nslots = h.nslots,
		.slot_size = h.slot_size,
		.ninodes = h.ninodes,
		.nhandles = h.nhandles,
		.has_counts = WD_MM_MINOR >= WD_MM_MINOR_COUNTS && h.minor >= WD_MM_MINOR_COUNTS,
	};
	return 0;
}

void wd_mm_unmap(struct wd_mm *mm)
{
	if (mm->header)
		munmap(mm->header, mm->size);
	*mm = (struct wd_mm){0};
}

/* ---- the info ---- */

int wd_mm_info_create(const struct wd_mm_info *info, struct wd_err *err)
{
	struct wd_mm_info copy = *info;

	copy.magic = WD_MM_INFO_MAGIC;
	copy.version = WD_MM_VERSION;
	return make_sealed("warpdrive-info", &copy, sizeof(copy), sizeof(copy), INFO_SEALS, err);
}

int wd_mm_info_read(int fd, struct wd_mm_info *ret_info, struct wd_err *err)
{
	struct wd_mm_info info;
	uint64_t size = 0;
	int rc = check_sealed("mount info", fd, INFO_SEALS, &size, err);

	if (rc < 0)
		return rc;
	if (size != sizeof(info) || pread_all(fd, &info, sizeof(info)) < 0)
		return wd_err_set(err, EPROTO, "mount info: wrong size");
	if (info.magic != WD_MM_INFO_MAGIC || info.version == 0 || info.version > WD_MM_VERSION)
		return wd_err_set(err, EPROTO, "mount info: unknown version %u", info.version);
	if (info.init_len > sizeof(info.init) || info.reply_len > sizeof(info.reply))
		return wd_err_set(err, EPROTO, "mount info: INIT is longer than the room for it");
	*ret_info = info;
	return 0;
}

/* ---- inode entries ---- */

/* Where the probing for a node begins. Nodes are often consecutive, so all bits are stirred. */
static uint32_t home_of(const struct wd_mm *mm, uint64_t node)
{
	node = (node ^ (node >> 30)) * 0xbf58476d1ce4e5b9u;
	node = (node ^ (node >> 27)) * 0x94d049bb133111ebu;
	return (uint32_t)(node ^ (node >> 31)) & (mm->ninodes - 1);
}

static uint32_t probe_limit(const struct wd_mm *mm)
{
	return mm->ninodes < WD_MM_PROBES ? mm->ninodes : WD_MM_PROBES;
}

static bool is_reusable(uint32_t state)
{
	return state == WD_INO_FREE || state == WD_INO_GONE;
}

struct wd_mm_inode *wd_mm_find(const struct wd_mm *mm, uint64_t node)
{
	uint32_t home = home_of(mm, node), limit = probe_limit(mm);

	for (uint32_t i = 0; node != 0 && i < limit; i++) {
		struct wd_mm_inode *e = &mm->inodes[(home + i) & (mm->ninodes - 1)];
		uint32_t state = atomic_load_explicit(&e->state, memory_order_acquire);

		if (state == WD_INO_FREE)
			return NULL;
		if (state == WD_INO_GONE || state == WD_INO_CLAIMED)
			continue;
		if (atomic_load_explicit(&e->node, memory_order_relaxed) == node)
			return e;
	}
	return NULL;
}

/*
 * A claim has three steps: state FREE or GONE -> CLAIMED by compare-and-swap, the fields written,
 * state -> OPENING with release order. Who sees OPENING sees the node; until then nobody finds the
 * entry, neither under its new node nor under the one that a tombstone still holds.
 *
 * A server killed between the steps leaves a CLAIMED entry, whose node may be 0, old or new. Nobody
 * refers to it: no handle was active and no backing id existed. The next server gives it back
 * with wd_mm_recover() before it starts to serve; until then it costs its 32 bytes. One killed
 * after the last step leaves OPENING with the right node, which the recount from the handles
 * settles.
 */
struct wd_mm_inode *wd_mm_claim(const struct wd_mm *mm, uint64_t node, bool *ret_is_new)
{
	struct wd_mm_inode *found = wd_mm_find(mm, node);
	uint32_t home = home_of(mm, node), limit = probe_limit(mm);

	if (found) {
		*ret_is_new = false;
		return found;
	}
	for (uint32_t i = 0; node != 0 && i < limit; i++) {
		struct wd_mm_inode *e = &mm->inodes[(home + i) & (mm->ninodes - 1)];
		uint32_t state = atomic_load_explicit(&e->state, memory_order_relaxed);

		if (!is_reusable(state) ||
			!atomic_compare_exchange_strong_explicit(&e->state, &state, WD_INO_CLAIMED,
				memory_order_acquire, memory_order_relaxed))
			continue;
		atomic_store_explicit(&e->node, node, memory_order_relaxed);
		atomic_store_explicit(&e->opens, 0, memory_order_relaxed);
		atomic_store_explicit(&e->backing_id, 0, memory_order_relaxed);
		atomic_store_explicit(&e->size, 0, memory_order_relaxed);
		atomic_store_explicit(&e->state, WD_INO_OPENING, memory_order_release);
		*ret_is_new = true;
		return e;
	}
	return NULL;
}

void wd_mm_recover(const struct wd_mm *mm)
{
	for (uint32_t i = 0; i < mm->ninodes; i++) {
		uint32_t claimed = WD_INO_CLAIMED;

		atomic_compare_exchange_strong(&mm->inodes[i].state, &claimed, WD_INO_GONE);
	}
}

/* ---- the live map ---- */

const struct wd_livemap *wd_livemap_map(int fd, size_t *ret_len, struct wd_err *err)
{
	struct wd_livemap h;
	uint64_t size = 0, nblocks;
	void *map;

	if (check_sealed("live map", fd, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE, &size,
		    err) < 0)
		return NULL;
	if (size < sizeof(h) || pread_all(fd, &h, sizeof(h)) < 0) {
		wd_err_set(err, EPROTO, "live map: no header");
		return NULL;
	}
	nblocks = h.size / WD_BLOCK_SIZE + (h.size % WD_BLOCK_SIZE != 0);
	if (h.magic != WD_LIVEMAP_MAGIC || h.version != WD_LIVEMAP_VERSION ||
		h.block_size != WD_BLOCK_SIZE || h.nblocks != nblocks ||
		size < wd_livemap_bytes(h.nblocks)) {
		wd_err_set(err, EPROTO, "live map: the header makes no sense");
		return NULL;
	}
	map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) {
		wd_err_sys(err, errno, "live map: map %zu bytes", (size_t)size);
		return NULL;
	}
	*ret_len = size;
	return map;
}

/* Bits [from, to) of a word, 0 <= from < to <= 64. */
static uint64_t bit_range(unsigned from, unsigned to)
{
	return (~(uint64_t)0 >> (64 - (to - from))) << from;
}

bool wd_livemap_has(const struct wd_livemap *map, uint64_t offset, uint64_t len)
{
	uint64_t first, end, last;

	if (atomic_load_explicit(&map->flags, memory_order_acquire) & WD_LIVEMAP_COMPLETE)
		return true;
	/* The kernel asks for whole pages: what lies behind the end of the object is in no block.
	 */
	if (offset >= map->size || len == 0)
		return true;
	end = len > map->size - offset ? map->size : offset + len;
	first = offset / WD_BLOCK_SIZE;
	last = (end - 1) / WD_BLOCK_SIZE;
	for (uint64_t word = first / 64; word <= last / 64; word++) {
		unsigned from = word == first / 64 ? first % 64 : 0;
		unsigned to = word == last / 64 ? last % 64 + 1 : 64;
		uint64_t want = bit_range(from, to);

		if ((atomic_load_explicit(&map->bits[word], memory_order_acquire) & want) != want)
			return false;
	}
	return true;
}
