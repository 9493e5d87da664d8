/* SPDX-License-Identifier: Apache-2.0 */
/* The shared memory of a mount: what is refused, how entries are found and claimed, what it costs.
 */
#include "common/mountmem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LEAST_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

/* A small table whose probing wraps and fills up quickly. */
enum { SMALL = 8 };

static struct wd_mm_inode small_inodes[SMALL];
static const struct wd_mm small = {.inodes = small_inodes, .ninodes = SMALL};

static int clear_small(void **state)
{
	memset(small_inodes, 0, sizeof(small_inodes));
	return 0;
}

static struct wd_mm_inode *claim(const struct wd_mm *mm, uint64_t node, uint32_t then)
{
	bool is_new = false;
	struct wd_mm_inode *e = wd_mm_claim(mm, node, &is_new);

	assert_non_null(e);
	assert_true(is_new);
	assert_int_equal(e->state, WD_INO_OPENING);
	e->state = then;
	return e;
}

/* ---- tables ---- */

static void a_fresh_tables_memfd_maps_and_is_all_free(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct wd_mm mm;
	int fd = wd_mm_create(&err);

	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(wd_mm_map(fd, &mm, &err), 0);
	assert_int_equal(mm.nslots, WD_MM_SLOTS);
	assert_int_equal(mm.slot_size, WD_MM_SLOT_SIZE);
	assert_int_equal(mm.ninodes, WD_MM_INODES);
	assert_int_equal(mm.nhandles, WD_MM_HANDLES);
	assert_int_equal(mm.header->generation, 0);
	assert_int_equal(mm.slots[mm.nslots - 1].state, WD_SLOT_FREE);
	assert_int_equal(mm.inodes[mm.ninodes - 1].state, WD_INO_FREE);
	assert_int_equal(mm.handles[mm.nhandles - 1].state, WD_HANDLE_FREE);
	memset(wd_mm_request(&mm, mm.nslots - 1), 0xff, mm.slot_size);
	assert_int_equal((uintptr_t)wd_mm_request(&mm, 0) % 65536, (uintptr_t)mm.header % 65536);
	wd_mm_unmap(&mm);
	assert_null(mm.header);
	wd_mm_unmap(&mm);
	close(fd);
}

static void the_tables_can_be_written_but_not_resized_or_sealed_further(void **state)
{
	int fd = wd_mm_create(NULL);
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(ftruncate(fd, st.st_size - 1), -1);
	assert_int_equal(ftruncate(fd, st.st_size + 1), -1);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
	assert_int_equal(errno, EPERM);
	close(fd);
}

static void mapping_the_tables_costs_no_memory_until_they_are_used(void **state)
{
	struct stat st;
	struct wd_mm mm;
	int fd = wd_mm_create(NULL);

	assert_int_equal(wd_mm_map(fd, &mm, NULL), 0);
	assert_null(wd_mm_find(&mm, 99));
	assert_int_equal(fstat(fd, &st), 0);
	assert_true(st.st_size > 10 << 20);
	/* the header's page and the one probed, of whatever size pages are */
	assert_true(st.st_blocks * 512 <= 2 * sysconf(_SC_PAGESIZE));
	wd_mm_unmap(&mm);
	close(fd);
}

static void two_mappings_see_each_other(void **state)
{
	struct wd_mm a, b;
	int fd = wd_mm_create(NULL);

	assert_int_equal(wd_mm_map(fd, &a, NULL), 0);
	assert_int_equal(wd_mm_map(fd, &b, NULL), 0);
	claim(&a, 5, WD_INO_IDLE)->backing_id = 17;
	assert_int_equal(wd_mm_find(&b, 5)->backing_id, 17);
	wd_mm_unmap(&a);
	wd_mm_unmap(&b);
	close(fd);
}

/* A memfd with the given header, otherwise as wd_mm_create makes them. */
static int make_tables(const struct wd_mm_header *h, off_t size, int seals)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	if (size >= (off_t)sizeof(*h))
		assert_int_equal(pwrite(fd, h, sizeof(*h), 0), sizeof(*h));
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static struct wd_mm_header good_header(void)
{
	struct wd_mm_header h;
	int fd = wd_mm_create(NULL);

	assert_int_equal(pread(fd, &h, sizeof(h), 0), sizeof(h));
	close(fd);
	return h;
}

static void expect_map(const struct wd_mm_header *h, off_t size, int seals, int want)
{
	struct wd_err err = WD_ERR_INIT;
	struct wd_mm mm = {.size = 12345};
	int fd = make_tables(h, size, seals);

	assert_int_equal(wd_mm_map(fd, &mm, &err), want);
	if (want < 0) {
		assert_int_equal(err.code, -want);
		assert_int_equal(mm.size, 12345); /* untouched */
	} else {
		wd_mm_unmap(&mm);
	}
	close(fd);
}

static void every_spoiled_header_field_is_refused(void **state)
{
	static const uint32_t counts[] = {0, 3, 1u << 31, UINT32_MAX};
	static const uint64_t offsets[] = {
		0, 1, 8, UINT64_MAX, UINT64_MAX - 63, 1ull << 63, 1ull << 32};
	const struct wd_mm_header good = good_header();
	const off_t size = (off_t)good.total_size;
	struct wd_mm_header h = good;

	expect_map(&good, size, LEAST_SEALS, 0);
#define REFUSED(change)                                                                            \
	do {                                                                                       \
		h = good;                                                                          \
		change;                                                                            \
		expect_map(&h, size, LEAST_SEALS, -EPROTO);                                        \
	} while (0)
	REFUSED(h.magic++);
	REFUSED(h.version = 0);
	REFUSED(h.version = WD_MM_VERSION + 1);
	REFUSED(h.total_size--);
	REFUSED(h.total_size = UINT64_MAX);
	REFUSED(h.slot_size = 0);
	REFUSED(h.slot_size = 4096);
	REFUSED(h.slot_size = WD_MM_SLOT_SIZE + 1);
	REFUSED(h.slot_size = UINT32_MAX & ~63u);
	h = good;
	h.slot_size = WD_MM_SLOT_MIN; /* as a release before made them */
	expect_map(&h, size, LEAST_SEALS, 0);
	for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
		REFUSED(h.ninodes = counts[i]);
		if (counts[i] != 3) { /* fewer of these would be fine */
			REFUSED(h.nslots = counts[i]);
			REFUSED(h.nhandles = counts[i]);
		}
	}
	for (size_t i = 0; i < sizeof(offsets) / sizeof(*offsets); i++) {
		REFUSED(h.states_off = offsets[i]);
		REFUSED(h.inodes_off = offsets[i]);
		REFUSED(h.handles_off = offsets[i]);
		REFUSED(h.slots_off = offsets[i]);
	}
	REFUSED(h.inodes_off = h.states_off);
	REFUSED(h.handles_off -= 65536);
	REFUSED(h.slots_off += 65536);
	REFUSED(h.slots_off = h.total_size);
#undef REFUSED
}

static void tables_that_could_shrink_or_are_no_memfd_are_refused(void **state)
{
	const struct wd_mm_header good = good_header();
	struct wd_err err = WD_ERR_INIT;
	char name[] = "/tmp/wd-mm-XXXXXX";
	struct wd_mm mm;
	int fd;

	expect_map(&good, (off_t)good.total_size, F_SEAL_GROW, -EPROTO);
	expect_map(&good, (off_t)good.total_size, F_SEAL_SHRINK, -EPROTO);
	expect_map(&good, (off_t)good.total_size - 65536, LEAST_SEALS, -EPROTO);
	expect_map(&good, sizeof(good), LEAST_SEALS, -EPROTO);
	expect_map(&good, sizeof(good) - 1, LEAST_SEALS, -EPROTO);
	expect_map(&good, 0, LEAST_SEALS, -EPROTO);
	fd = mkstemp(name);
	assert_true(fd >= 0);
	unlink(name);
	assert_int_equal(wd_mm_map(fd, &mm, &err), -EPROTO);
	close(fd);
	assert_int_equal(wd_mm_map(-1, &mm, &err), -EPROTO);
}

static void counts_changed_after_the_mapping_change_nothing(void **state)
{
	struct wd_mm mm;
	int fd = wd_mm_create(NULL);

	assert_int_equal(wd_mm_map(fd, &mm, NULL), 0);
	mm.header->ninodes = UINT32_MAX;
	mm.header->slot_size = UINT32_MAX;
	for (uint64_t node = 1; node < 2000; node++)
		assert_null(wd_mm_find(&mm, node * 0x9e3779b97f4a7c15u));
	memset(wd_mm_request(&mm, mm.nslots - 1), 1, mm.slot_size);
	wd_mm_unmap(&mm);
	close(fd);
}

/* In both directions: a server of either release goes on with what the other one left. */
static void counts_are_kept_where_there_are_any_and_the_release_before_has_none(void **state)
{
	struct wd_mm_header h = good_header();
	struct wd_mm mm;
	int fd;

	h.minor = WD_MM_MINOR_COUNTS;
	for (int round = 0; round < 2; round++) {
		fd = make_tables(&h, (off_t)h.total_size, LEAST_SEALS);
		for (int server = 1; server <= 2; server++) {
			assert_int_equal(wd_mm_map(fd, &mm, NULL), 0);
			wd_mm_add(&mm, WD_MM_READ_BYTES, 10);
			assert_int_equal(wd_mm_counted(&mm, WD_MM_READ_BYTES), round == 0 ? 10 * server : 0);
			assert_int_equal(mm.header->counts[WD_MM_READ_BYTES], round == 0 ? 10 * server : 0);
			wd_mm_unmap(&mm);
		}
		close(fd);
		h.minor = 0;
	}
	h.minor = WD_MM_MINOR + 1; /* it has more, which we leave alone */
	expect_map(&h, (off_t)h.total_size, LEAST_SEALS, 0);
}

/* ---- info ---- */

static void the_info_is_read_back_and_can_never_change(void **state)
{
	struct wd_mm_info info = {.mount = 77,
		.mount_flags = 3,
		.has_resend = 1,
		.init_len = 104,
		.reply_len = 80,
		.init = "in",
		.reply = "out"};
	struct wd_err err = WD_ERR_INIT;
	struct wd_mm_info back;
	int fd = wd_mm_info_create(&info, &err);

	assert_true(fd >= 0);
	assert_int_equal(wd_mm_info_read(fd, &back, &err), 0);
	assert_int_equal(back.magic, WD_MM_INFO_MAGIC);
	assert_int_equal(back.version, WD_MM_VERSION);
	assert_int_equal(back.mount, 77);
	assert_int_equal(back.init_len, 104);
	assert_memory_equal(back.reply, info.reply, sizeof(info.reply));
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_ptr_equal(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
	close(fd);
}

static void info_that_is_unsealed_or_too_long_is_refused(void **state)
{
	const int all = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	struct wd_mm_info info = {.magic = WD_MM_INFO_MAGIC, .version = WD_MM_VERSION}, back;
	struct wd_err err = WD_ERR_INIT;
	int fd;

	for (int spoil = 0; spoil < 7; spoil++) {
		struct wd_mm_info bad = info;

		if (spoil == 1)
			bad.init_len = sizeof(bad.init) + 1;
		if (spoil == 2)
			bad.reply_len = UINT32_MAX;
		if (spoil == 3)
			bad.magic = WD_MM_MAGIC;
		if (spoil == 4)
			bad.version++;
		fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		assert_int_equal(write(fd, &bad, sizeof(bad)), sizeof(bad));
		if (spoil == 5)
			assert_int_equal(ftruncate(fd, sizeof(bad) - 1), 0);
		assert_int_equal(fcntl(fd, F_ADD_SEALS, spoil == 6 ? all & ~F_SEAL_WRITE : all), 0);
		assert_int_equal(wd_mm_info_read(fd, &back, &err), spoil ? -EPROTO : 0);
		close(fd);
	}
}

/* ---- inode entries ---- */

static void an_entry_is_claimed_once_and_found_in_every_state_but_the_free_ones(void **state)
{
	bool is_new = true;
	struct wd_mm_inode *e = claim(&small, 1000, WD_INO_OPENING);

	assert_int_equal(e->node, 1000);
	assert_ptr_equal(wd_mm_claim(&small, 1000, &is_new), e);
	assert_false(is_new);
	for (uint32_t s = WD_INO_OPENING; s <= WD_INO_RECLAIM; s++) {
		e->state = s;
		assert_ptr_equal(wd_mm_find(&small, 1000), e);
	}
	assert_null(wd_mm_find(&small, 1001));
	e->state = WD_INO_GONE;
	assert_null(wd_mm_find(&small, 1000));
	e->state = WD_INO_FREE;
	assert_null(wd_mm_find(&small, 1000));
}

static void a_reused_tombstone_starts_clean(void **state)
{
	struct wd_mm_inode *e = claim(&small, 7, WD_INO_IDLE), *again;

	e->opens = 3;
	e->backing_id = 4;
	e->size = 5;
	e->state = WD_INO_GONE;
	again = claim(&small, 7, WD_INO_OPENING);
	assert_ptr_equal(again, e);
	assert_int_equal(again->opens, 0);
	assert_int_equal(again->backing_id, 0);
	assert_int_equal(again->size, 0);
}

static void probing_goes_on_behind_tombstones_and_around_the_end(void **state)
{
	struct wd_mm_inode *e[SMALL];

	for (uint64_t n = 0; n < SMALL; n++)
		e[n] = claim(&small, n + 1, WD_INO_CACHED);
	for (uint64_t n = 0; n < SMALL; n++)
		assert_ptr_equal(wd_mm_find(&small, n + 1), e[n]);
	for (uint64_t n = 0; n < SMALL - 1; n++) {
		e[n]->state = WD_INO_GONE;
		assert_null(wd_mm_find(&small, n + 1));
		assert_ptr_equal(wd_mm_find(&small, SMALL), e[SMALL - 1]);
	}
}

static void a_full_table_refuses_and_takes_the_next_after_a_release(void **state)
{
	struct wd_mm_inode *e = NULL;
	bool is_new;

	for (uint64_t n = 1; n <= SMALL; n++)
		e = claim(&small, n, WD_INO_PASSTHROUGH);
	assert_null(wd_mm_claim(&small, 100, &is_new));
	assert_null(wd_mm_find(&small, 100));
	e->state = WD_INO_GONE;
	assert_ptr_equal(claim(&small, 100, WD_INO_OPENING), e);
}

static void a_table_full_of_nonsense_ends_every_search(void **state)
{
	bool is_new;

	memset(small_inodes, 0xff, sizeof(small_inodes));
	assert_null(wd_mm_find(&small, 1));
	assert_null(wd_mm_claim(&small, 1, &is_new));
	assert_non_null(wd_mm_find(&small, UINT64_MAX)); /* a lie about itself only */
	for (int i = 0; i < SMALL; i++)
		small_inodes[i].state = WD_INO_GONE;
	assert_null(wd_mm_find(&small, UINT64_MAX));
}

static void node_zero_is_neither_found_nor_claimed(void **state)
{
	bool is_new;

	small_inodes[0].state = WD_INO_IDLE;
	assert_null(wd_mm_find(&small, 0));
	assert_null(wd_mm_claim(&small, 0, &is_new));
}

static void a_claim_cut_short_is_invisible_and_recovered(void **state)
{
	struct wd_mm_inode *e = claim(&small, 3, WD_INO_GONE);

	/* killed right after the first step: the tombstone's old node is still in place */
	e->state = WD_INO_CLAIMED;
	assert_null(wd_mm_find(&small, 3));
	claim(&small, 3, WD_INO_CACHED); /* goes elsewhere */
	wd_mm_recover(&small);
	assert_int_equal(e->state, WD_INO_GONE);
	assert_int_equal(wd_mm_find(&small, 3)->state, WD_INO_CACHED);
}

enum { WORKERS = 4, ROUNDS = 3000, NODES_EACH = 16 };

struct worker {
	const struct wd_mm *mm;
	uint64_t first_node;
	pthread_t thread;
	bool is_broken;
};

/* Claims its own nodes, finds them, releases them; the tables are crowded by the others. */
static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct wd_mm_inode *mine[NODES_EACH] = {0};

	for (int round = 0; round < ROUNDS; round++) {
		int k = round % NODES_EACH;
		uint64_t node = w->first_node + (uint64_t)k;
		bool is_new = false;

		if (mine[k]) {
			w->is_broken |= wd_mm_find(w->mm, node) != mine[k] || mine[k]->node != node;
			atomic_store(&mine[k]->state, WD_INO_GONE);
			w->is_broken |= wd_mm_find(w->mm, node) != NULL;
		}
		mine[k] = wd_mm_claim(w->mm, node, &is_new);
		w->is_broken |= !mine[k] || !is_new;
		if (mine[k])
			atomic_store(&mine[k]->backing_id, (uint32_t)node);
		w->is_broken |= mine[k] && mine[k]->backing_id != (uint32_t)node;
	}
	return NULL;
}

static void threads_that_claim_at_once_never_share_an_entry(void **state)
{
	static struct wd_mm_inode crowded[128];
	const struct wd_mm mm = {.inodes = crowded, .ninodes = 128};
	struct worker w[WORKERS];

	for (unsigned i = 0; i < WORKERS; i++) {
		w[i] = (struct worker){.mm = &mm, .first_node = 1 + i * NODES_EACH};
		assert_int_equal(pthread_create(&w[i].thread, NULL, worker_main, &w[i]), 0);
	}
	for (unsigned i = 0; i < WORKERS; i++) {
		pthread_join(w[i].thread, NULL);
		assert_false(w[i].is_broken);
	}
}

static void twenty_thousand_open_files_fit(void **state)
{
	struct wd_mm mm;
	int fd = wd_mm_create(NULL);

	assert_int_equal(wd_mm_map(fd, &mm, NULL), 0);
	for (uint64_t n = 1; n <= 20000; n++)
		claim(&mm, n << 16 | 1, WD_INO_CACHED);
	for (uint64_t n = 1; n <= 20000; n++)
		assert_int_equal(wd_mm_find(&mm, n << 16 | 1)->node, n << 16 | 1);
	wd_mm_unmap(&mm);
	close(fd);
}

/* ---- the live map ---- */

enum { BLOCKS = 200 };

/* A live map as an agent makes it; `ret_writable` is the agent's own mapping. */
static int make_livemap(uint64_t size, struct wd_livemap **ret_writable)
{
	uint32_t nblocks = wd_nblocks(size);
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct wd_livemap *w;

	assert_int_equal(ftruncate(fd, (off_t)wd_livemap_bytes(nblocks)), 0);
	w = mmap(NULL, wd_livemap_bytes(nblocks), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(w, MAP_FAILED);
	w->magic = WD_LIVEMAP_MAGIC;
	w->version = WD_LIVEMAP_VERSION;
	w->size = size;
	w->block_size = WD_BLOCK_SIZE;
	w->nblocks = nblocks;
	*ret_writable = w;
	return fd;
}

static int seal_livemap(int fd)
{
	return fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW);
}

static void a_range_is_present_when_all_its_blocks_are(void **state)
{
	const uint64_t block = WD_BLOCK_SIZE, size = BLOCKS * block - 5;
	struct wd_err err = WD_ERR_INIT;
	const struct wd_livemap *map;
	struct wd_livemap *w;
	size_t len;
	int fd = make_livemap(size, &w);

	assert_int_equal(seal_livemap(fd), 0);
	map = wd_livemap_map(fd, &len, &err);
	assert_non_null(map);
	assert_false(wd_livemap_has(map, 0, 1));
	assert_true(wd_livemap_has(map, 0, 0));
	/* blocks 60..130 cross two words */
	for (unsigned b = 60; b <= 130; b++)
		w->bits[b / 64] |= (uint64_t)1 << b % 64;
	for (unsigned from = 50; from < 140; from++)
		for (unsigned to = from; to < 140; to++) {
			bool want = from >= 60 && to <= 130;

			assert_int_equal(
				wd_livemap_has(map, from * block, (to - from + 1) * block), want);
			assert_int_equal(wd_livemap_has(map, from * block + block - 1,
						 (to - from) * block + (to == from)),
				want && true);
		}
	assert_false(wd_livemap_has(map, 60 * block - 1, 2));
	assert_false(wd_livemap_has(map, 131 * block - 1, 2));
	munmap((void *)map, len);
	munmap(w, len);
	close(fd);
}

static void what_lies_behind_the_end_counts_as_present(void **state)
{
	const uint64_t block = WD_BLOCK_SIZE, size = 3 * block + 10;
	const struct wd_livemap *map;
	struct wd_livemap *w;
	size_t len;
	int fd = make_livemap(size, &w);

	assert_int_equal(seal_livemap(fd), 0);
	map = wd_livemap_map(fd, &len, NULL);
	assert_non_null(map);
	w->bits[0] = 1 << 3;
	assert_true(wd_livemap_has(map, 3 * block, 4096)); /* a page that ends behind the object */
	assert_true(wd_livemap_has(map, 3 * block, UINT64_MAX));
	assert_true(wd_livemap_has(map, size, 1));
	assert_true(wd_livemap_has(map, UINT64_MAX, UINT64_MAX));
	assert_false(wd_livemap_has(map, 2 * block, UINT64_MAX));
	w->flags = WD_LIVEMAP_COMPLETE;
	assert_true(wd_livemap_has(map, 0, UINT64_MAX));
	munmap((void *)map, len);
	munmap(w, len);
	close(fd);
}

static void an_empty_object_has_a_map_without_blocks(void **state)
{
	const struct wd_livemap *map;
	struct wd_livemap *w;
	size_t len;
	int fd = make_livemap(0, &w);

	assert_int_equal(seal_livemap(fd), 0);
	map = wd_livemap_map(fd, &len, NULL);
	assert_non_null(map);
	assert_true(wd_livemap_has(map, 0, 4096));
	munmap((void *)map, len);
	munmap(w, sizeof(*w));
	close(fd);
}

static void a_live_map_that_lies_about_itself_is_refused(void **state)
{
	struct wd_err err;
	struct wd_livemap *w;
	size_t len;

	for (int spoil = 0; spoil < 9; spoil++) {
		int fd = make_livemap((uint64_t)BLOCKS * WD_BLOCK_SIZE, &w);
		const struct wd_livemap *map;

		err = WD_ERR_INIT;
		w->magic += spoil == 1;
		w->version += spoil == 2;
		w->block_size = spoil == 3 ? 0 : w->block_size;
		w->nblocks += spoil == 4;
		w->size = spoil == 5 ? UINT64_MAX : w->size;
		if (spoil == 6) {
			w->size += 64ull * WD_BLOCK_SIZE;
			w->nblocks += 64;
		}
		if (spoil == 7) /* a product that wraps in 32 bits */
			w->size += (uint64_t)WD_BLOCK_SIZE << 32;
		if (spoil == 8)
			assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
		else
			assert_int_equal(seal_livemap(fd), 0);
		map = wd_livemap_map(fd, &len, &err);
		if (spoil == 0) {
			assert_non_null(map);
			munmap((void *)map, len);
		} else {
			assert_null(map);
			assert_int_equal(err.code, EPROTO);
		}
		munmap(w, wd_livemap_bytes(BLOCKS));
		close(fd);
	}
}

#define ON_SMALL(f) cmocka_unit_test_setup(f, clear_small)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_fresh_tables_memfd_maps_and_is_all_free),
		cmocka_unit_test(the_tables_can_be_written_but_not_resized_or_sealed_further),
		cmocka_unit_test(mapping_the_tables_costs_no_memory_until_they_are_used),
		cmocka_unit_test(two_mappings_see_each_other),
		cmocka_unit_test(every_spoiled_header_field_is_refused),
		cmocka_unit_test(tables_that_could_shrink_or_are_no_memfd_are_refused),
		cmocka_unit_test(counts_changed_after_the_mapping_change_nothing),
		cmocka_unit_test(counts_are_kept_where_there_are_any_and_the_release_before_has_none),
		cmocka_unit_test(the_info_is_read_back_and_can_never_change),
		cmocka_unit_test(info_that_is_unsealed_or_too_long_is_refused),
		ON_SMALL(an_entry_is_claimed_once_and_found_in_every_state_but_the_free_ones),
		ON_SMALL(a_reused_tombstone_starts_clean),
		ON_SMALL(probing_goes_on_behind_tombstones_and_around_the_end),
		ON_SMALL(a_full_table_refuses_and_takes_the_next_after_a_release),
		ON_SMALL(a_table_full_of_nonsense_ends_every_search),
		ON_SMALL(node_zero_is_neither_found_nor_claimed),
		ON_SMALL(a_claim_cut_short_is_invisible_and_recovered),
		cmocka_unit_test(threads_that_claim_at_once_never_share_an_entry),
		cmocka_unit_test(twenty_thousand_open_files_fit),
		cmocka_unit_test(a_range_is_present_when_all_its_blocks_are),
		cmocka_unit_test(what_lies_behind_the_end_counts_as_present),
		cmocka_unit_test(an_empty_object_has_a_map_without_blocks),
		cmocka_unit_test(a_live_map_that_lies_about_itself_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
