/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer target: the memory that processes share, as a hostile one may have left it. The first
 * byte chooses what the rest is: the tables (a header that is put in order where the second byte
 * says so, then what is scribbled over sections), the info, a live map. What is accepted is used as
 * its readers use it, and nothing may be touched outside of the mapping.
 */
#include "common/mountmem.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TABLES_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define NODES 64 /* node ids that are looked up */

static void require(bool is_so)
{
	if (!is_so)
		abort();
}

static int memfd_of(const void *data, size_t len, size_t size, int seals)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	require(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
	require(pwrite(fd, data, len, 0) == (ssize_t)len);
	require(fcntl(fd, F_ADD_SEALS, seals) == 0);
	return fd;
}

/* Every pointer of the mapping stays inside, whatever the numbers were. */
static void check_bounds(const struct wd_mm *mm)
{
	const unsigned char *base = (const unsigned char *)mm->header, *end = base + mm->size;

	require((const unsigned char *)(mm->slots + mm->nslots) <= end);
	require((const unsigned char *)(mm->inodes + mm->ninodes) <= end);
	require((const unsigned char *)(mm->handles + mm->nhandles) <= end);
	require((const unsigned char *)wd_mm_request(mm, mm->nslots - 1) + mm->slot_size <= end);
}

static void use_tables(struct wd_mm *mm)
{
	for (uint64_t node = 0; node < NODES; node++) {
		struct wd_mm_inode *e = wd_mm_find(mm, node), *claimed;
		bool is_new;

		require(!e || (node != 0 && e >= mm->inodes && e < mm->inodes + mm->ninodes));
		if (node % 3 != 0)
			continue;
		claimed = wd_mm_claim(mm, node, &is_new);
		require(!claimed || (claimed >= mm->inodes && claimed < mm->inodes + mm->ninodes));
		require(!claimed || is_new == !e);
		require(!e || claimed == e);
	}
	wd_mm_recover(mm);
	for (uint32_t i = 0; i < mm->ninodes; i++)
		require(atomic_load(&mm->inodes[i].state) != WD_INO_CLAIMED);
}

/* What follows the header is records of 16 bytes: where, what. */
static void scribble(struct wd_mm *mm, const uint8_t *data, size_t size)
{
	for (; size >= 16; data += 16, size -= 16) {
		uint64_t where, what;

		memcpy(&where, data, 8);
		memcpy(&what, data + 8, 8);
		if (where % 3 == 0) /* entries that are looked at at all */
			where = (uint64_t)((unsigned char *)mm->inodes -
					   (unsigned char *)mm->header) +
				where / 3 % (mm->ninodes * sizeof(struct wd_mm_inode));
		memcpy((unsigned char *)mm->header + where % (mm->size - 8), &what, 8);
	}
}

static void tables(const uint8_t *data, size_t size)
{
	/* small ones, so that a run is short */
	struct wd_mm_header h = {.magic = WD_MM_MAGIC,
		.version = WD_MM_VERSION,
		.total_size = 4 * 65536,
		.nslots = 2,
		.slot_size = WD_MM_SLOT_SIZE,
		.ninodes = 256,
		.nhandles = 64,
		.states_off = 4096,
		.inodes_off = 65536,
		.handles_off = 2 * 65536,
		.slots_off = 3 * 65536};
	unsigned char start[sizeof(h)] = {0};
	size_t used = size > sizeof(h) ? sizeof(h) : size;
	bool is_in_order = size > 0 && data[0] & 1;
	struct wd_mm mm;
	int fd;

	if (is_in_order)
		used = 0;
	memcpy(start, data, used);
	fd = memfd_of(is_in_order ? (void *)&h : start, sizeof(h), h.total_size,
		size > 1 && data[1] == 7 ? F_SEAL_GROW : TABLES_SEALS);
	if (wd_mm_map(fd, &mm, NULL) == 0) {
		check_bounds(&mm);
		scribble(&mm, data + used, size - used);
		use_tables(&mm);
		wd_mm_unmap(&mm);
	} else {
		require(!is_in_order || data[1] == 7);
	}
	close(fd);
}

static void info(const uint8_t *data, size_t size)
{
	struct wd_mm_info in = {.magic = WD_MM_INFO_MAGIC, .version = WD_MM_VERSION}, out;
	int fd;

	memcpy((unsigned char *)&in + (size > sizeof(in) ? 0 : 8), data,
		size > sizeof(in) ? sizeof(in) : size < sizeof(in) - 8 ? size : sizeof(in) - 8);
	fd = memfd_of(&in, sizeof(in), sizeof(in), TABLES_SEALS | F_SEAL_WRITE);
	if (wd_mm_info_read(fd, &out, NULL) == 0)
		require(out.init_len <= sizeof(out.init) && out.reply_len <= sizeof(out.reply));
	close(fd);
}

static void live_map(const uint8_t *data, size_t size)
{
	const struct wd_livemap *map;
	size_t len = 0;
	int fd = memfd_of(data, size, size, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE);

	map = wd_livemap_map(fd, &len, NULL);
	if (map) {
		uint64_t at = map->size / 2;

		require(len == size && wd_livemap_bytes(map->nblocks) <= len);
		for (int shift = 0; shift < 64; shift += 7) {
			wd_livemap_has(map, 1ULL << shift, at);
			wd_livemap_has(map, at, 1ULL << shift);
		}
		wd_livemap_has(map, 0, UINT64_MAX);
		wd_livemap_has(map, UINT64_MAX, UINT64_MAX);
		require(wd_livemap_has(map, map->size, 1));
		munmap((void *)(uintptr_t)map, len);
	}
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 3)
		return -1;
	switch (data[0] % 4) {
	case 0:
	case 1:
		tables(data + 1, size - 1);
		break;
	case 2:
		info(data + 1, size - 1);
		break;
	default:
		live_map(data + 1, size - 1);
	}
	return 0;
}
