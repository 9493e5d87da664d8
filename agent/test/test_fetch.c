/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fetching over a real directory (file: origin) into a real store: every wait is answered once, with the
 * right bytes, whether the cache has room or not, and blocks come from the origin once.
 */
#include "agent/test/fetch_fixture.h"

#include <sys/wait.h>

static uint64_t origin_bytes(void)
{
	return atomic_load(&origin_stats.bytes);
}

static void a_random_read_brings_only_its_blocks(void **state)
{
	struct fixture *f = *state;
	unsigned char *out = malloc(MIB);
	bool is_cached = false;

	start(f, 0);
	put_file(f, "big", SIZE, 0);
	struct fetch *fetch = open_one(f, "big");
	uint64_t before = origin_bytes();

	assert_int_equal(read_range(fetch, 10 * MIB + 5, 1000, 0, out, &is_cached), 0);
	check(out, 10 * MIB + 5, 1000, 0);
	assert_true(is_cached);
	assert_int_equal(origin_bytes() - before, WD_BLOCK_SIZE);
	/* the tail, which is shorter than a block */
	assert_int_equal(read_range(fetch, SIZE - 100, 100, 0, out, &is_cached), 0);
	check(out, SIZE - 100, 100, 0);
	assert_int_equal(origin_bytes() - before, WD_BLOCK_SIZE + SIZE % WD_BLOCK_SIZE);
	/* again: nothing is fetched */
	assert_int_equal(read_range(fetch, 10 * MIB + 5, 1000, 0, out, &is_cached), 0);
	assert_int_equal(origin_bytes() - before, WD_BLOCK_SIZE + SIZE % WD_BLOCK_SIZE);
	fetch_close(fetch);
	stop(f);
	free(out);
}

static void a_small_object_comes_whole_and_complete(void **state)
{
	struct fixture *f = *state;
	unsigned char out[64];
	bool is_cached = false;

	start(f, 0);
	put_file(f, "small", 700000, 3);
	struct fetch *fetch = open_one(f, "small");

	assert_int_equal(read_range(fetch, 300000, 64, FETCH_CACHE_ONLY, out, &is_cached), 0);
	check(out, 300000, 64, 3);
	assert_true(object_is_complete(fetch_object(fetch)));
	fetch_close(fetch);
	stop(f);
}

struct reader {
	struct fetch *fetch;
	unsigned seed;
	bool is_sequential;
};

static void *read_much(void *arg)
{
	struct reader *r = arg;
	unsigned char *out = malloc(MIB);
	uint64_t x = r->seed * 2654435761u + 1;

	for (int i = 0; i < 60; i++) {
		uint64_t offset, len;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		offset = r->is_sequential ? (uint64_t)i * 400000 : x % SIZE;
		len = r->is_sequential ? 400000 : x >> 20 & (MIB - 1);
		if (offset + len > SIZE)
			len = SIZE - offset;
		if (len == 0)
			continue;
		assert_int_equal(read_range(r->fetch, offset, len, 0, out, NULL), 0);
		check(out, offset, len, 0);
	}
	free(out);
	return NULL;
}

static void many_readers_share_one_fetch(struct fixture *f, uint64_t limit, bool is_exact)
{
	struct reader readers[8];
	pthread_t threads[8];
	uint64_t before;

	start(f, limit);
	put_file(f, "big", SIZE, 0);
	struct fetch *fetch = open_one(f, "big");

	before = origin_bytes();
	for (unsigned i = 0; i < 8; i++) {
		readers[i] = (struct reader){fetch, i, i % 2};
		pthread_create(&threads[i], NULL, read_much, &readers[i]);
	}
	for (unsigned i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	if (is_exact)
		assert_true(origin_bytes() - before <= SIZE);
	fetch_close(fetch);
	stop(f);
}

static void no_byte_is_fetched_twice(void **state)
{
	many_readers_share_one_fetch(*state, 0, true);
}

static void a_cache_smaller_than_the_file_still_gives_right_bytes(void **state)
{
	many_readers_share_one_fetch(*state, 4 * MIB, false);
}

static void a_full_cache_is_an_answer_for_those_who_want_only_it(void **state)
{
	struct fixture *f = *state;
	unsigned char *out = malloc(MIB);

	start(f, MIB);
	put_file(f, "a", 900000, 0);
	put_file(f, "b", 900000, 1);
	struct fetch *a = open_one(f, "a"), *b = open_one(f, "b");
	bool is_cached = true;

	assert_int_equal(read_range(a, 0, 900000, FETCH_CACHE_ONLY, out, NULL), 0);
	/* a is in use, so there is no room for b */
	assert_int_equal(read_range(b, 0, 900000, FETCH_CACHE_ONLY, out, NULL), -ENOSPC);
	assert_int_equal(read_range(b, 0, 900000, 0, out, &is_cached), 0);
	assert_false(is_cached);
	check(out, 0, 900000, 1);
	fetch_close(a);
	fetch_close(b);
	stop(f);
	free(out);
}

static void a_changed_object_is_stale_where_it_is_absent(void **state)
{
	struct fixture *f = *state;
	unsigned char out[1000];

	start(f, 0);
	put_file(f, "big", SIZE, 0);
	struct fetch *fetch = open_one(f, "big");

	assert_int_equal(read_range(fetch, 0, 1000, 0, out, NULL), 0);
	put_file(f, "big", SIZE, 9);
	assert_int_equal(read_range(fetch, 20 * MIB, 1000, 0, out, NULL), -ESTALE);
	assert_true(fetch_is_stale(fetch));
	assert_int_equal(read_range(fetch, 0, 1000, 0, out, NULL), 0);
	check(out, 0, 1000, 0);
	fetch_close(fetch);
	stop(f);
}

static void a_disk_error_is_read_past(void **state)
{
	struct fixture *f = *state;
	unsigned char *out = malloc(MIB);
	bool is_cached = true;

	start(f, 0);
	put_file(f, "big", SIZE, 0);
	struct fetch *fetch = open_one(f, "big");

	wd_fault_arm("store.pwrite=1");
	assert_int_equal(read_range(fetch, MIB, 300000, 0, out, &is_cached), 0);
	assert_false(is_cached);
	check(out, MIB, 300000, 0);
	fetch_close(fetch);
	stop(f);
	free(out);
}

static void bytes_can_be_had_without_the_cache_file(void **state)
{
	struct fixture *f = *state;
	unsigned char out[5000];
	bool is_cached = true;

	start(f, 0);
	put_file(f, "big", SIZE, 0);
	struct fetch *fetch = open_one(f, "big");

	assert_int_equal(read_range(fetch, 12345, 5000, FETCH_BYTES, out, &is_cached), 0);
	assert_false(is_cached);
	check(out, 12345, 5000, 0);
	fetch_close(fetch);
	stop(f);
}

static void nothing_is_read_past_the_cache_for_who_is_gone(void **state)
{
	struct fixture *f = *state;
	unsigned char out[5000];
	uint64_t before;

	start(f, 0);
	put_file(f, "big", SIZE, 0);
	struct fetch *fetch = open_one(f, "big");

	before = origin_bytes();
	is_reader_gone = true;
	assert_int_equal(read_range(fetch, 12345, 5000, FETCH_BYTES, out, NULL), -ECANCELED);
	assert_int_equal(origin_bytes(), before);
	is_reader_gone = false;
	assert_int_equal(read_range(fetch, 12345, 5000, FETCH_BYTES, out, NULL), 0);
	check(out, 12345, 5000, 0);
	fetch_close(fetch);
	stop(f);
}

/* Closes all as a loss of power does: the next start finds no clean mark, and another boot. */
static void lose_power(struct fixture *f)
{
	pid_t pid;

	stop(f);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct meta *m;

		_exit(meta_open(f->cache, &m, NULL) < 0);
	}
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	setenv("WARPDRIVE_BOOT_ID", "another", 1);
	start(f, 0);
}

/* Zeros a block in every cache file of that size. */
static int zero_second_block(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	if (type == FTW_F && (st->st_size == SIZE || st->st_size == 700000)) {
		int fd = open(path, O_WRONLY | O_CLOEXEC);

		assert_int_equal(pwrite(fd, (char[4096]){0}, 4096, WD_BLOCK_SIZE + 8192), 4096);
		close(fd);
	}
	return 0;
}

static void after_a_loss_of_power_only_what_is_bad_is_fetched(void **state)
{
	struct fixture *f = *state;
	unsigned char *out = malloc(4 * MIB);
	bool is_cached = false;

	setenv("WARPDRIVE_BOOT_ID", "one", 1);
	start(f, 0);
	put_file(f, "big", SIZE, 0);
	put_file(f, "small", 700000, 3);
	struct fetch *big = open_one(f, "big"), *small = open_one(f, "small");

	assert_int_equal(read_range(big, 0, 4 * MIB, 0, out, NULL), 0);
	assert_int_equal(read_range(small, 0, 700000, 0, out, NULL), 0);
	fetch_close(big);
	fetch_close(small);
	assert_int_equal(meta_flush(f->meta), 0);
	lose_power(f);
	nftw(f->cache, zero_second_block, 16, FTW_PHYS);
	big = open_one(f, "big");
	small = open_one(f, "small");
	uint64_t before = origin_bytes();

	assert_int_equal(read_range(big, 0, 4 * MIB, 0, out, &is_cached), 0);
	assert_true(is_cached);
	check(out, 0, 4 * MIB, 0);
	assert_int_equal(origin_bytes() - before, WD_BLOCK_SIZE);
	before = origin_bytes();
	assert_int_equal(read_range(small, 300000, 64, FETCH_CACHE_ONLY, out, &is_cached), 0);
	check(out, 300000, 64, 3);
	assert_true(object_is_complete(fetch_object(small)));
	assert_int_equal(origin_bytes() - before, 700000); /* small objects come whole */
	fetch_close(big);
	fetch_close(small);
	/* and what was good costs nothing at all */
	lose_power(f);
	big = open_one(f, "big");
	before = origin_bytes();
	assert_int_equal(read_range(big, 0, 4 * MIB, 0, out, &is_cached), 0);
	check(out, 0, 4 * MIB, 0);
	assert_int_equal(origin_bytes(), before);
	fetch_close(big);
	stop(f);
	unsetenv("WARPDRIVE_BOOT_ID");
	free(out);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_random_read_brings_only_its_blocks),
		T(a_small_object_comes_whole_and_complete),
		T(no_byte_is_fetched_twice),
		T(a_cache_smaller_than_the_file_still_gives_right_bytes),
		T(a_full_cache_is_an_answer_for_those_who_want_only_it),
		T(a_changed_object_is_stale_where_it_is_absent),
		T(a_disk_error_is_read_past),
		T(nothing_is_read_past_the_cache_for_who_is_gone),
		T(bytes_can_be_had_without_the_cache_file),
		T(after_a_loss_of_power_only_what_is_bad_is_fetched),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
