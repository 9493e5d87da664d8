/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The .map file of an object that is not complete: a header, then 16 bytes per block.
 *
 *	header  magic, version, object size, block size, number of blocks, id, checksum   (64 bytes)
 *	entry   hash of the block, magic, checksum of (hash, block number, id)            (16 bytes)
 *
 * An entry of zeros is an absent block. An entry is one pwrite within one sector, and the last
 *thing that happens to a block on disk: a kill leaves it whole or absent. Each entry is checked by
 *itself when it is loaded, so that a torn or foreign one only costs its block. Host byte order: a
 *cache does not travel. Nothing here takes locks.
 */
#include "agent/store_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/cleanup.h"
#include "common/fault.h"

#define MAP_MAGIC 0x504d4457u /* "WDMP" */
#define MAP_VERSION 1u
#define ENTRY_MAGIC 0x4b4c4257u /* "WBLK" */
#define CHUNK_ENTRIES 4096

struct map_header {
	uint32_t magic, version;
	uint64_t size;
	uint32_t block_size, nblocks;
	struct object_id id;
	uint64_t reserved[2];
	uint64_t checksum; /* of everything before it */
};
_Static_assert(sizeof(struct map_header) == 64, "on-disk format");

struct map_entry {
	uint64_t hash;
	uint32_t magic;
	uint32_t checksum;
};
_Static_assert(sizeof(struct map_entry) == 16, "on-disk format");

size_t map_bytes(uint32_t nblocks)
{
	return sizeof(struct map_header) + (size_t)nblocks * sizeof(struct map_entry);
}

static uint64_t entry_offset(uint32_t block)
{
	return map_bytes(block);
}

static uint32_t entry_checksum(const struct object_id *id, uint32_t block, uint64_t hash)
{
	struct {
		struct object_id id;
		uint64_t block, hash;
	} text = {*id, block, hash};

	return (uint32_t)XXH3_64bits(&text, sizeof(text));
}

static void make_header(const struct object_id *id, uint64_t size, struct map_header *ret_h)
{
	*ret_h = (struct map_header){.magic = MAP_MAGIC,
		.version = MAP_VERSION,
		.size = size,
		.block_size = WD_BLOCK_SIZE,
		.nblocks = wd_nblocks(size),
		.id = *id};
	ret_h->checksum = XXH3_64bits(ret_h, offsetof(struct map_header, checksum));
}

int map_write_header(int fd, const struct object_id *id, uint64_t size)
{
	struct map_header h;

	make_header(id, size, &h);
	return pwrite_all(fd, &h, sizeof(h), 0);
}

int map_check_header(int fd, const struct object_id *id, uint64_t size)
{
	struct map_header want, h;
	int rc = pread_all(fd, &h, sizeof(h), 0);

	if (rc < 0)
		return rc == -ENODATA ? -EILSEQ : rc;
	make_header(id, size, &want);
	return memcmp(&h, &want, sizeof(h)) == 0 ? 0 : -EILSEQ;
}

int map_write(int fd, const struct object_id *id, uint32_t block, uint64_t hash)
{
	struct map_entry e = {hash, ENTRY_MAGIC, entry_checksum(id, block, hash)};

	if (WD_FAULT("store.map-write"))
		return -EIO;
	return pwrite_all(fd, &e, sizeof(e), entry_offset(block));
}

int map_clear(int fd, uint32_t block)
{
	static const struct map_entry absent;

	if (WD_FAULT("store.map-clear"))
		return -EROFS;
	return pwrite_all(fd, &absent, sizeof(absent), entry_offset(block));
}

static bool is_valid(const struct map_entry *e, const struct object_id *id, uint32_t block)
{
	return e->magic == ENTRY_MAGIC && e->checksum == entry_checksum(id, block, e->hash);
}

int map_read(int fd, const struct object_id *id, uint32_t block, uint64_t *ret_hash)
{
	struct map_entry e;
	int rc = pread_all(fd, &e, sizeof(e), entry_offset(block));

	if (rc < 0)
		return rc == -ENODATA ? -ENOENT : rc;
	if (!is_valid(&e, id, block))
		return -ENOENT;
	*ret_hash = e.hash;
	return 0;
}

static bool is_absent(const struct map_entry *e)
{
	return e->hash == 0 && e->magic == 0 && e->checksum == 0;
}

int map_load(int fd, const struct object_id *id, uint32_t nblocks,
	void (*present)(void *arg, uint32_t block, uint64_t hash), void *arg)
{
	uint32_t chunk = nblocks < CHUNK_ENTRIES ? nblocks : CHUNK_ENTRIES;
	wd_autofree struct map_entry *entries = calloc(chunk ? chunk : 1, sizeof(*entries));
	bool is_damaged = false;

	if (!entries)
		return -ENOMEM;
	for (uint32_t first = 0; first < nblocks; first += chunk) {
		uint32_t n = nblocks - first < chunk ? nblocks - first : chunk;
		int rc = pread_all(fd, entries, n * sizeof(*entries), entry_offset(first));

		if (rc == -ENODATA) { /* cut short: the rest is absent */
			uint32_t whole = 0;

			while (whole < n && pread_all(fd, &entries[whole], sizeof(*entries),
						    entry_offset(first + whole)) == 0)
				whole++;
			/* zeros from the torn entry on */
			if (ftruncate(fd, (off_t)map_bytes(first + whole)) == 0)
				(void)!ftruncate(fd, (off_t)map_bytes(nblocks));
			nblocks = first + whole;
			is_damaged = true;
			n = whole;
			rc = 0;
		}
		if (rc < 0)
			return rc;
		for (uint32_t i = 0; i < n; i++) {
			if (is_valid(&entries[i], id, first + i)) {
				present(arg, first + i, entries[i].hash);
			} else if (!is_absent(&entries[i])) {
				(void)map_clear(fd, first + i);
				is_damaged = true;
			}
		}
	}
	return is_damaged ? -EUCLEAN : 0;
}
