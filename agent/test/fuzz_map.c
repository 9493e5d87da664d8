/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer target: a .map file that anybody may have written. The first byte says whether the
 * header is put in order and the entries are; the rest is the file. What is loaded is exactly what
 * map_read says block by block, and no block lies outside of the object.
 */
#include "agent/store_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NBLOCKS 200
#define SIZE ((uint64_t)NBLOCKS * WD_BLOCK_SIZE - 5)

struct seen {
	uint64_t hashes[NBLOCKS];
	bool has[NBLOCKS];
};

static void require(bool is_so)
{
	if (!is_so)
		abort();
}

static void present(void *arg, uint32_t block, uint64_t hash)
{
	struct seen *s = arg;

	require(block < NBLOCKS && !s->has[block]);
	s->has[block] = true;
	s->hashes[block] = hash;
}

/* Bytes as "block, hash" pairs, written as the store does. */
static void write_entries(int fd, const struct object_id *id, const uint8_t *data, size_t size)
{
	for (; size >= 2; data += 2, size -= 2) {
		uint32_t block = data[0] % NBLOCKS;
		uint64_t hash;

		require(map_write(fd, id, block, data[1]) == 0);
		require(map_read(fd, id, block, &hash) == 0 && hash == data[1]);
		if (data[1] % 5 == 0) {
			require(map_clear(fd, block) == 0);
			require(map_read(fd, id, block, &hash) == -ENOENT);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct seen seen;
	struct object_id id;
	int fd, flags;
	bool is_cut;

	if (size < 1)
		return -1;
	flags = data[0];
	data++;
	size--;
	object_id_make("fuzz", 4, &id);
	fd = memfd_create("map", MFD_CLOEXEC);
	require(fd >= 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
	if (flags & 1)
		require(map_write_header(fd, &id, SIZE) == 0);
	if (flags & 2)
		write_entries(fd, &id, data, size);
	is_cut = lseek(fd, 0, SEEK_END) < (off_t)map_bytes(NBLOCKS);
	if (map_check_header(fd, &id, SIZE) == 0) {
		memset(&seen, 0, sizeof(seen));
		int rc = map_load(fd, &id, NBLOCKS, present, &seen);

		require(rc == 0 || rc == -EUCLEAN);
		for (uint32_t i = 0; i < NBLOCKS; i++) {
			uint64_t hash = 0;

			bool has = map_read(fd, &id, i, &hash) == 0;

			/* of a file that was cut short the last entries are not loaded */
			require(has == seen.has[i] || (has && is_cut));
			require(!seen.has[i] || hash == seen.hashes[i]);
		}
	} else {
		require(!(flags & 1));
	}
	close(fd);
	return 0;
}
