/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many threads read, fill, verify, pool and evict objects in a cache far too small for them, while
 * the limit is sampled from the accounts, and now and then, with everybody waiting, from what the
 * files take. Written for TSan.
 */
#include "agent/test/store_fixture.h"

#include <sys/mman.h>

#define THREADS 8
#define OBJECTS 40
#define LIMIT (24 * MIB)
#define POOL 6
#ifdef WD_SANITIZED
#define ROUNDS 60
#else
#define ROUNDS 300
#endif

static struct fixture fx;
static unsigned rounds;
static _Atomic bool is_over;
static _Atomic unsigned filled, refused, failures;

static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static struct object *pool[POOL];
static pthread_barrier_t barrier;

static uint64_t size_of(unsigned n)
{
	return n % 3 == 0 ? 100000 + n : (n % 20 + 1) * BLOCK + n;
}

static int give_back(void *arg, const struct object_id *id)
{
	struct object *found = NULL;

	pthread_mutex_lock(&pool_lock);
	for (int i = 0; i < POOL && !found; i++)
		if (pool[i] && memcmp(object_id(pool[i]), id, sizeof(*id)) == 0) {
			found = pool[i];
			pool[i] = NULL;
		}
	pthread_mutex_unlock(&pool_lock);
	if (!found)
		return -EBUSY;
	object_unpool(found);
	object_unref(found);
	return 0;
}

/* Puts o into the pool in place of another, which is let go. Takes the reference. */
static void put_into_pool(struct object *o, unsigned slot)
{
	struct object *old;

	object_pool(o);
	pthread_mutex_lock(&pool_lock);
	old = pool[slot];
	pool[slot] = o;
	pthread_mutex_unlock(&pool_lock);
	if (old) {
		object_unpool(old);
		object_unref(old);
	}
}

static void check(bool is_right, const char *what)
{
	if (!is_right) {
		fprintf(stderr, "%s\n", what);
		atomic_fetch_add(&failures, 1);
	}
}

static void fill(struct object *o, unsigned n, uint32_t block)
{
	uint64_t charge = object_block_charge(o, block);

	if (object_has_block(o, block))
		return;
	if (admit(&fx, o, charge) != 0) {
		atomic_fetch_add(&refused, 1);
		return;
	}
	if (size_of(n) <= BLOCK)
		check(put_all(o, n) == 0, "put");
	else
		check(write_block(o, n, block) == 0, "write");
	check(object_has_block(o, block), "present after commit");
	atomic_fetch_add(&filled, 1);
}

static void look(struct object *o, unsigned n, uint32_t block, const struct wd_livemap *live)
{
	bool is_live = live && wd_livemap_has(live, block * BLOCK, 1);

	if (is_live || object_has_block(o, block)) {
		check(object_has_block(o, block), "the live map knows no more than the store");
		check(block_is_right(o, n, block), "bytes of a present block");
		check(object_verify(o, block) == 0, "hash of a present block");
	}
}

static uint64_t disk_usage(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	struct stat st;
	uint64_t sum = 0;

	while (dir && (e = readdir(dir)) != NULL) {
		if (e->d_name[0] == '.')
			continue;
		if (fstatat(dirfd(dir), e->d_name, &st, 0) == 0)
			sum += (uint64_t)st.st_blocks * 512;
		if (e->d_type == DT_DIR)
			sum += disk_usage(dirfd(dir), e->d_name);
	}
	if (dir)
		closedir(dir);
	return sum;
}

static void stop_and_measure(void)
{
	char path[96];

	snprintf(path, sizeof(path), "%s/objects", fx.dir);
	if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD) {
		uint64_t usage = disk_usage(AT_FDCWD, path);

		if (usage > LIMIT)
			fprintf(stderr, "%llu bytes on disk\n", (unsigned long long)usage);
		check(usage <= LIMIT, "the disk is over the limit");
	}
	pthread_barrier_wait(&barrier);
}

static void *work(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	for (unsigned r = 0; r < rounds; r++) {
		unsigned n = (unsigned)rand_r(&seed) % OBJECTS;
		struct object *o = get(&fx, n, size_of(n));
		uint32_t nblocks = wd_nblocks(size_of(n));
		const struct wd_livemap *live = NULL;
		size_t len = 0;
		int fd = rand_r(&seed) % 2 ? object_open_map(o, NULL) : -1;

		if (fd >= 0) {
			live = wd_livemap_map(fd, &len, NULL);
			close(fd);
			check(live != NULL, "live map");
		}
		for (int i = 0; i < 8; i++) {
			fill(o, n, (uint32_t)rand_r(&seed) % nblocks);
			look(o, n, (uint32_t)rand_r(&seed) % nblocks, live);
		}
		if (live)
			munmap((void *)live, len);
		if (rand_r(&seed) % 3 == 0) {
			put_into_pool(o, (unsigned)rand_r(&seed) % POOL);
		} else {
			object_unref(o);
		}
		if (rand_r(&seed) % 50 == 0) {
			struct object_id id = make_id((unsigned)rand_r(&seed) % OBJECTS);

			(void)store_evict(fx.store, &id);
		}
		if (r % 30 == 29)
			stop_and_measure();
	}
	return NULL;
}

static void *watch(void *arg)
{
	while (!atomic_load(&is_over)) {
		struct store_stats st = stats_of(&fx);

		check(st.used_bytes + st.admitted_bytes <= LIMIT,
			"the accounts are over the limit");
	}
	return NULL;
}

static void threads_share_a_cache_that_is_too_small(void **state)
{
	pthread_t threads[THREADS], watcher;
	uint64_t used;

	rounds = getenv("WD_TEST_ROUNDS") ? (unsigned)atoi(getenv("WD_TEST_ROUNDS")) : ROUNDS;
	assert_int_equal(pthread_barrier_init(&barrier, NULL, THREADS), 0);
	fx_begin(&fx, LIMIT);
	store_close(fx.store);
	fx.config.reclaim = give_back;
	assert_int_equal(store_open(&fx.config, fx.meta, &fx.store, NULL), 0);
	assert_int_equal(pthread_create(&watcher, NULL, watch, NULL), 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, work, (void *)(i + 1)), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	atomic_store(&is_over, true);
	pthread_join(watcher, NULL);
	for (int i = 0; i < POOL; i++) {
		if (!pool[i])
			continue;
		object_unpool(pool[i]);
		object_unref(pool[i]);
	}
	assert_int_equal(atomic_load(&failures), 0);
	assert_true(atomic_load(&filled) > 0);
	print_message("%u blocks filled, %u refused, %llu objects evicted\n", atomic_load(&filled),
		atomic_load(&refused), (unsigned long long)stats_of(&fx).evicted_objects);
	assert_true(stats_of(&fx).evicted_objects > 0);
	assert_int_equal(stats_of(&fx).admitted_bytes, 0);

	/* the accounts are what the records say, and nothing is left when everything is evicted */
	used = stats_of(&fx).used_bytes;
	fx_reopen(&fx);
	assert_true(stats_of(&fx).used_bytes <= used);
	for (unsigned n = 0; n < OBJECTS; n++) {
		struct object *o = get(&fx, n, size_of(n));
		struct object_id id = make_id(n);

		for (uint32_t block = 0; block < wd_nblocks(size_of(n)); block++)
			look(o, n, block, NULL);
		object_unref(o);
		(void)store_evict(fx.store, &id);
	}
	assert_int_equal(atomic_load(&failures), 0);
	assert_int_equal(stats_of(&fx).used_bytes, 0);
	assert_int_equal(stats_of(&fx).objects, 0);
	fx_end(&fx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(threads_share_a_cache_that_is_too_small),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
