/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fetching over a real directory (file: origin) into a real store: every wait is answered once, with the
 * right bytes, whether the cache has room or not, and blocks come from the origin once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/fetch.h"
#include "agent/origin.h"
#include "common/fault.h"
#include "common/lock.h"

#define MIB (1024 * 1024)
#define SIZE (24 * MIB + 777)

struct fixture {
	char dir[64], data[96], cache[96];
	struct settings settings;
	struct meta *meta;
	struct store *store;
	struct tree *tree;
	struct fetcher *fetcher;
	struct dataset *ds;
};

static unsigned char byte_at(uint64_t i)
{
	return (unsigned char)(i * 2654435761u >> 13 ^ i >> 20);
}

static void put_file(struct fixture *f, const char *name, uint64_t size, unsigned salt)
{
	char path[256];
	unsigned char *data = malloc(size);
	int fd;

	for (uint64_t i = 0; i < size; i++)
		data[i] = (unsigned char)(byte_at(i) + salt);
	snprintf(path, sizeof(path), "%s/%s", f->data, name);
	fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
	assert_int_equal(write(fd, data, size), size);
	close(fd);
	free(data);
}

static void start(struct fixture *f, uint64_t limit)
{
	struct wd_err err = WD_ERR_INIT;
	struct origin_options options = {0};
	struct store_config config = {.dir = f->cache, .limit_bytes = limit};
	struct origin *origin = NULL;
	char url[128];

	assert_int_equal(origins_start(2, 8, &err), 0);
	assert_int_equal(meta_open(f->cache, &f->meta, &err), 0);
	assert_int_equal(store_open(&config, f->meta, &f->store, &err), 0);
	f->tree = tree_new(f->meta, &f->settings);
	f->fetcher = fetcher_new(f->store, f->meta, &f->settings);
	snprintf(url, sizeof(url), "file://%s", f->data);
	assert_int_equal(origin_open(url, &options, &origin, &err), 0);
	assert_int_equal(tree_dataset(f->tree, origin, url, "me", &(struct identity){0}, false, &f->ds, &err), 0);
}

static void stop(struct fixture *f)
{
	dataset_unref(f->ds);
	origins_stop();
	store_close(f->store);
	fetcher_free(f->fetcher);
	tree_free(f->tree);
	meta_close(f->meta);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/wd-fetch-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->data, sizeof(f->data), "%s/data", f->dir);
	snprintf(f->cache, sizeof(f->cache), "%s/cache", f->dir);
	mkdir(f->data, 0755);
	mkdir(f->cache, 0700);
	f->settings = (struct settings){.metadata_ttl = 60000,
		.list_after_lookups = 8,
		.memory_limit = 64 * MIB,
		.small_object_size = MIB,
		.prefetch_window = 8 * MIB,
		.prefetch_budget = 64 * MIB,
		.max_get_size = 2 * MIB,
		.max_transfers = 8,
		.proof_ttl = 60000};
	*state = f;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	wd_fault_arm(NULL);
	nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static struct fetch *open_one(struct fixture *f, const char *name)
{
	struct node node;
	struct object_id id;
	struct object *object = NULL;
	struct fetch *fetch = NULL;
	struct wd_err err = WD_ERR_INIT;
	uint32_t ttl_ms;

	assert_int_equal(tree_lookup(f->ds, TREE_ROOT, name, 0, true, &node, &ttl_ms, &err), 0);
	assert_int_equal(tree_bind(f->ds, node.node, true, &node, &err), 0);
	tree_object_id(f->ds, &node, &id);
	assert_int_equal(store_get(f->store, &id, node.version.size, &object, &err), 0);
	assert_int_equal(fetch_open(f->fetcher, f->ds, &node, object, &fetch), 0);
	object_unref(object);
	return fetch;
}

/* A wait that a test thread sleeps on. */
struct sleeper {
	struct fetch_wait wait;
	struct wd_mutex lock;
	struct wd_cond cond;
	int status, fd, answers;
};

static void answered(struct fetch_wait *w, int status, int fd, const struct wd_err *err)
{
	struct sleeper *s = (struct sleeper *)w;

	wd_lock(&s->lock);
	s->status = status;
	s->fd = fd;
	s->answers++;
	wd_cond_broadcast(&s->cond);
	wd_unlock(&s->lock);
}

/* Reads a range through ensure; returns the status. */
static bool is_reader_gone;

static bool reader_is_gone(const struct fetch_wait *w)
{
	return is_reader_gone;
}

static int read_range(struct fetch *fetch, uint64_t offset, uint64_t len, unsigned flags, unsigned char *out,
	bool *ret_is_cached)
{
	struct sleeper s = {.wait = {.offset = offset, .len = len, .flags = flags, .cb = answered,
				    .is_gone = reader_is_gone}};
	int fd;

	wd_mutex_init(&s.lock);
	wd_cond_init(&s.cond);
	fetch_ensure(fetch, &s.wait);
	wd_lock(&s.lock);
	while (!s.answers)
		wd_cond_wait(&s.cond, &s.lock);
	wd_unlock(&s.lock);
	assert_int_equal(s.answers, 1);
	wd_cond_done(&s.cond);
	wd_mutex_done(&s.lock);
	if (s.status < 0)
		return s.status;
	fd = s.fd >= 0 ? s.fd : object_open_file(fetch_object(fetch), NULL);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, out, len, s.fd >= 0 ? 0 : (off_t)offset), len);
	close(fd);
	if (ret_is_cached)
		*ret_is_cached = s.fd < 0;
	return 0;
}

static void check(const unsigned char *data, uint64_t offset, uint64_t len, unsigned salt)
{
	for (uint64_t i = 0; i < len; i++)
		if (data[i] != (unsigned char)(byte_at(offset + i) + salt))
			fail_msg("wrong byte at %llu", (unsigned long long)(offset + i));
}

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
	fetch_unref(fetch);
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
	fetch_unref(fetch);
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
	fetch_unref(fetch);
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
	fetch_unref(a);
	fetch_unref(b);
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
	fetch_unref(fetch);
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
	fetch_unref(fetch);
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
	fetch_unref(fetch);
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
	fetch_unref(fetch);
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
	fetch_unref(big);
	fetch_unref(small);
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
	fetch_unref(big);
	fetch_unref(small);
	/* and what was good costs nothing at all */
	lose_power(f);
	big = open_one(f, "big");
	before = origin_bytes();
	assert_int_equal(read_range(big, 0, 4 * MIB, 0, out, &is_cached), 0);
	check(out, 0, 4 * MIB, 0);
	assert_int_equal(origin_bytes(), before);
	fetch_unref(big);
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
