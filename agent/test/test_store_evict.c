/* SPDX-License-Identifier: Apache-2.0 */
/* Space: admission, the limit, LRU, pools, the free floor, a broken disk, restarts. */
#include "agent/test/store_fixture.h"

#include <sys/statvfs.h>

#include "agent/store_internal.h"

static void what_is_admitted_counts_until_it_is_used_or_given_back(void **state)
{
	struct fixture f;
	struct object *o;

	fx_begin(&f, 64 * MIB);
	o = get(&f, 1, 8 * BLOCK);
	assert_int_equal(object_block_charge(o, 0), BLOCK);
	assert_int_equal(admit(&f, o, 3 * BLOCK), 0);
	assert_true(stats_of(&f).admitted_bytes >= 3 * BLOCK);
	assert_int_equal(stats_of(&f).used_bytes, 0);
	assert_int_equal(write_block(o, 1, 0), 0);
	assert_int_equal(write_block(o, 1, 0), 0);
	assert_int_equal(stats_of(&f).admitted_bytes, 2 * BLOCK);
	assert_true(stats_of(&f).used_bytes >= BLOCK + 4096);
	store_unadmit(f.store, o, BLOCK);
	assert_int_equal(stats_of(&f).admitted_bytes, BLOCK);
	object_unref(o);
	assert_int_equal(stats_of(&f).admitted_bytes, 0);
	fx_end(&f);
}

static void the_oldest_objects_go_first(void **state)
{
	struct fixture f;

	fx_begin(&f, 8 * MIB + 8 * MIB / 64);
	for (unsigned n = 0; n < 8; n++)
		assert_int_equal(add_object(&f, n, MIB), 0);
	object_unref(get(&f, 0, MIB)); /* used again */
	for (unsigned n = 8; n < 11; n++)
		assert_int_equal(add_object(&f, n, MIB), 0);
	assert_true(is_cached(&f, 0, MIB));
	for (unsigned n = 1; n <= 3; n++) {
		assert_false(is_cached(&f, n, MIB));
		assert_false(has_file(&f, n, ""));
	}
	for (unsigned n = 4; n < 11; n++)
		assert_true(is_cached(&f, n, MIB));
	assert_int_equal(stats_of(&f).evicted_objects, 3);
	assert_int_equal(stats_of(&f).evicted_bytes, 3 * MIB);
	fx_reopen(&f);
	assert_int_equal(stats_of(&f).objects, 8);
	assert_int_equal(stats_of(&f).used_bytes, 8 * MIB);
	assert_int_equal(add_object(&f, 11, MIB), 0); /* the order survived */
	assert_false(is_cached(&f, 4, MIB));
	assert_true(is_cached(&f, 5, MIB));
	fx_end(&f);
}

static void what_is_in_use_is_never_evicted_and_then_nothing_is_admitted(void **state)
{
	struct fixture f;
	struct object *held[4], *o;

	fx_begin(&f, 4 * MIB + MIB / 2);
	for (unsigned n = 0; n < 4; n++) {
		assert_int_equal(add_object(&f, n, MIB), 0);
		held[n] = get(&f, n, MIB);
	}
	o = get(&f, 9, MIB);
	for (int i = 0; i < 100; i++)
		assert_int_equal(admit(&f, o, MIB), -ENOSPC);
	assert_int_equal(stats_of(&f).refused_bytes, 100 * MIB);
	for (unsigned n = 0; n < 4; n++)
		assert_true(block_is_right(held[n], n, 3));
	object_unref(held[2]);
	assert_int_equal(admit(&f, o, MIB), 0);
	assert_false(is_cached(&f, 2, MIB));
	object_unref(held[0]);
	object_unref(held[1]);
	object_unref(held[3]);
	object_unref(o);
	fx_end(&f);
}

struct pool {
	struct object *objects[4];
	unsigned calls;
	bool is_stubborn;
};

static int reclaim(void *arg, const struct object_id *id)
{
	struct pool *p = arg;

	p->calls++;
	for (int i = 0; i < 4 && !p->is_stubborn; i++) {
		struct object *o = p->objects[i];

		if (!o || memcmp(object_id(o), id, sizeof(*id)) != 0)
			continue;
		p->objects[i] = NULL;
		object_unpool(o);
		object_unref(o);
		return 0;
	}
	return -EBUSY;
}

static void pooled_objects_are_asked_back_and_only_those(void **state)
{
	struct pool p = {.is_stubborn = true};
	struct fixture f;
	struct object *o, *user;

	fx_begin(&f, 4 * MIB + MIB / 2);
	store_close(f.store);
	f.config.reclaim = reclaim;
	f.config.reclaim_arg = &p;
	assert_int_equal(store_open(&f.config, f.meta, &f.store, NULL), 0);
	for (unsigned n = 0; n < 4; n++) {
		assert_int_equal(add_object(&f, n, MIB), 0);
		p.objects[n] = get(&f, n, MIB);
		object_pool(p.objects[n]);
	}
	user = get(&f, 0, MIB);
	o = get(&f, 9, MIB);
	assert_int_equal(admit(&f, o, MIB), -ENOSPC);
	assert_int_equal(p.calls, 3); /* not for the one with a user */
	p.is_stubborn = false;
	object_unref(user); /* an object comes to rest: worth another try */
	assert_int_equal(admit(&f, o, MIB), 0);
	assert_int_equal(stats_of(&f).evicted_objects, 1);
	assert_false(is_cached(&f, 0, MIB)); /* pooled first of all */
	for (unsigned n = 0; n < 4; n++) {
		if (!p.objects[n])
			continue;
		object_unpool(p.objects[n]);
		object_unref(p.objects[n]);
	}
	object_unref(o);
	fx_end(&f);
}

static void an_object_larger_than_the_cache_gets_what_there_is(void **state)
{
	struct fixture f;
	struct object *o;
	uint32_t n = 0;

	fx_begin(&f, 4 * MIB);
	assert_int_equal(add_object(&f, 1, MIB), 0);
	o = get(&f, 2, 64 * MIB);
	for (uint32_t block = 0; block < 256; block++) {
		if (admit(&f, o, BLOCK) != 0)
			continue;
		assert_int_equal(write_block(o, 2, block), 0);
		n++;
		assert_true(stats_of(&f).used_bytes <= 4 * MIB);
	}
	assert_true(n >= 14 && n <= 16);
	assert_false(is_cached(&f, 1, MIB));
	assert_int_equal(admit(&f, o, 5 * MIB), -ENOSPC);
	object_unref(o);
	fx_end(&f);
}

static void a_partial_object_at_rest_is_evicted_too(void **state)
{
	struct fixture f;
	struct object *o;

	fx_begin(&f, 4 * MIB);
	o = get(&f, 1, 64 * MIB);
	assert_int_equal(admit(&f, o, 3 * MIB), 0);
	for (uint32_t i = 0; i < 12; i++)
		assert_int_equal(write_block(o, 1, i), 0);
	object_unref(o);
	fx_reopen(&f);
	assert_int_equal(add_object(&f, 2, 2 * MIB), 0);
	assert_false(has_file(&f, 1, "") || has_file(&f, 1, ".map"));
	assert_int_equal(stats_of(&f).used_bytes, 2 * MIB);
	o = get(&f, 1, 64 * MIB);
	assert_int_equal(object_present_bytes(o), 0);
	object_unref(o);
	fx_end(&f);
}

static void a_file_that_cannot_be_removed_stays_on_the_books(void **state)
{
	struct object_id id = make_id(1);
	struct fixture f;

	fx_begin(&f, 64 * MIB);
	assert_int_equal(add_object(&f, 1, MIB), 0);
	wd_fault_arm("store.unlink=1");
	assert_int_equal(store_evict(f.store, &id), -EIO);
	assert_int_equal(stats_of(&f).used_bytes, MIB);
	assert_true(is_cached(&f, 1, MIB));
	assert_int_equal(stats_of(&f).io_errors, 1);
	assert_int_equal(store_evict(f.store, &id), 0);
	assert_int_equal(store_evict(f.store, &id), -ENOENT);
	assert_int_equal(stats_of(&f).used_bytes, 0);
	fx_end(&f);
}

static void the_free_floor_is_kept(void **state)
{
	struct fixture f;
	struct statvfs fs;
	struct object *o;

	fx_begin(&f, 0);
	assert_int_equal(statvfs(f.dir, &fs), 0);
	assert_true(stats_of(&f).limit_bytes <= fs.f_blocks * fs.f_frsize / 10 * 9);
	assert_true(stats_of(&f).limit_bytes > fs.f_blocks * fs.f_frsize / 10 * 8);
	assert_int_equal(add_object(&f, 1, MIB), 0);
	store_close(f.store);
	f.config.free_floor_bytes = fs.f_blocks * fs.f_frsize; /* more than can ever be free */
	assert_int_equal(store_open(&f.config, f.meta, &f.store, NULL), 0);
	o = get(&f, 2, MIB);
	assert_int_equal(admit(&f, o, MIB), -ENOSPC);
	assert_false(is_cached(&f, 1, MIB)); /* it was given up for the floor */
	object_unref(o);
	fx_end(&f);
}

static void a_limit_that_shrank_is_reached_by_evicting(void **state)
{
	struct fixture f;

	fx_begin(&f, 64 * MIB);
	for (unsigned n = 0; n < 16; n++)
		assert_int_equal(add_object(&f, n, MIB), 0);
	fx_close(&f);
	f.config.limit_bytes = 6 * MIB;
	fx_open(&f);
	assert_int_equal(add_object(&f, 99, MIB), 0);
	assert_true(stats_of(&f).used_bytes <= 6 * MIB);
	assert_false(is_cached(&f, 3, MIB));
	assert_true(is_cached(&f, 15, MIB));
	fx_end(&f);
}

static void the_books_are_right_after_a_kill(void **state)
{
	struct fixture f;
	struct object *o;
	uint64_t want;

	fx_begin(&f, 64 * MIB);
	o = get(&f, 1, 64 * MIB);
	for (uint32_t i = 0; i < 40; i++)
		assert_int_equal(write_block(o, 1, i), 0);
	want = stats_of(&f).used_bytes;
	store_close(f.store); /* as a kill would: the reference was never let go */
	assert_int_equal(store_open(&f.config, f.meta, &f.store, NULL), 0);
	assert_int_equal(stats_of(&f).used_bytes, want);
	assert_int_equal(stats_of(&f).objects, 1);
	fx_end(&f);
}

static void a_broken_disk_is_used_again_after_a_good_probe(void **state)
{
	struct fixture f;
	struct object *o;

	fx_begin(&f, 64 * MIB);
	o = get(&f, 1, 4 * BLOCK);
	wd_fault_arm("store.pwrite=2");
	assert_int_equal(write_block(o, 1, 0), -EIO);
	for (int round = 0; round < 3; round++) {
		assert_int_equal(admit(&f, o, BLOCK), round < 2 ? -ENOSPC : 0);
		/* the first time it is too early to probe, then the probe fails, then it works */
		wd_lock(&f.store->lock);
		f.store->probe_ns = 0;
		wd_unlock(&f.store->lock);
	}
	assert_false(stats_of(&f).is_broken);
	assert_int_equal(write_block(o, 1, 0), 0);
	object_unref(o);
	fx_end(&f);
}

static void the_sweep_takes_back_or_removes_what_no_record_knows(void **state)
{
	char meta_dir[80], path[160];
	struct fixture f;
	struct object *o;
	int fd;

	fx_begin(&f, 64 * MIB);
	assert_int_equal(add_object(&f, 1, MIB), 0); /* whole, but without hashes then */
	o = get(&f, 2, 20 * BLOCK);
	assert_int_equal(write_block(o, 2, 7), 0);
	object_unref(o);
	o = get(&f, 3, 20 * BLOCK); /* will have lost its data */
	assert_int_equal(write_block(o, 3, 7), 0);
	object_unref(o);
	fx_close(&f);
	snprintf(meta_dir, sizeof(meta_dir), "%s/meta", f.dir);
	remove_tree(AT_FDCWD, meta_dir);
	path_of(&f, 3, "", path);
	assert_int_equal(unlink(path), 0);
	path_of(&f, 1, "", path);
	strcpy(strrchr(path, '/') + 1, "00-something-else-that-is-not-ours");
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);

	fx_open(&f);
	assert_true(f.store->sweep.is_on);
	assert_int_equal(add_object(&f, 4, MIB), 0);
	sweep_run(f.store);
	assert_false(has_file(&f, 1, ""));
	assert_true(is_cached(&f, 4, MIB) && has_file(&f, 4, ""));
	assert_false(has_file(&f, 3, ".map"));
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(stats_of(&f).objects, 2);
	o = get(&f, 2, 20 * BLOCK);
	assert_int_equal(object_present_bytes(o), BLOCK);
	assert_int_equal(object_verify(o, 7), 0);
	object_unref(o);
	fx_reopen(&f);
	assert_false(f.store->sweep.is_on); /* closed properly: nothing to look for */
	fx_end(&f);
}

/* A full queue is answered at once, and closing answers what waits. */
struct slow {
	struct ticket entered, go;
	struct object *o;
};

static int wait_in_reclaim(void *arg, const struct object_id *id)
{
	struct slow *s = arg;

	ticket_cb(&s->entered, 0);
	pthread_mutex_lock(&s->go.lock);
	while (!s->go.is_done)
		pthread_cond_wait(&s->go.cond, &s->go.lock);
	pthread_mutex_unlock(&s->go.lock);
	return -EBUSY;
}

static unsigned answered;

static void count_answer(void *arg, int status)
{
	assert_int_equal(status, -ENOSPC);
	__atomic_add_fetch(&answered, 1, __ATOMIC_SEQ_CST);
}

static void the_queue_is_bounded_and_answered_to_the_last(void **state)
{
	struct slow s = {.entered = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, 0},
		.go = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, 0}};
	struct fixture f;
	struct object *o;

	fx_begin(&f, 2 * MIB);
	store_close(f.store);
	f.config.reclaim = wait_in_reclaim;
	f.config.reclaim_arg = &s;
	assert_int_equal(store_open(&f.config, f.meta, &f.store, NULL), 0);
	assert_int_equal(add_object(&f, 1, MIB), 0);
	s.o = get(&f, 1, MIB);
	object_pool(s.o);
	o = get(&f, 2, MIB + BLOCK);
	answered = 0;
	store_admit(f.store, o, MIB + BLOCK, count_answer, NULL);
	pthread_mutex_lock(&s.entered.lock);
	while (!s.entered.is_done)
		pthread_cond_wait(&s.entered.cond, &s.entered.lock);
	pthread_mutex_unlock(&s.entered.lock);
	for (int i = 0; i < 4095; i++)
		store_admit(f.store, o, MIB + BLOCK, count_answer, NULL);
	assert_int_equal(__atomic_load_n(&answered, __ATOMIC_SEQ_CST), 0);
	store_admit(f.store, o, MIB + BLOCK, count_answer, NULL);
	assert_int_equal(__atomic_load_n(&answered, __ATOMIC_SEQ_CST), 1);
	ticket_cb(&s.go, 0);
	object_unpool(s.o);
	object_unref(s.o);
	object_unref(o);
	fx_end(&f);
	assert_int_equal(__atomic_load_n(&answered, __ATOMIC_SEQ_CST), 4097);
}

static void a_hundred_thousand_objects_are_ready_at_once(void **state)
{
	const unsigned n =
		getenv("WD_TEST_OBJECTS") ? (unsigned)atoi(getenv("WD_TEST_OBJECTS")) : 3000;
	struct timespec from, to;
	struct fixture f;
	double ms;

	fx_begin(&f, 0);
	for (unsigned i = 0; i < n; i++) {
		struct object *o = get(&f, i, 1000);
		char data[1000];

		memset(data, (int)i, sizeof(data));
		assert_int_equal(object_put(o, data, sizeof(data)), 0);
		object_unref(o);
	}
	fx_close(&f);
	clock_gettime(CLOCK_MONOTONIC, &from);
	fx_open(&f);
	clock_gettime(CLOCK_MONOTONIC, &to);
	ms = (double)(to.tv_sec - from.tv_sec) * 1e3 + (double)(to.tv_nsec - from.tv_nsec) / 1e6;
	print_message("%u objects: ready in %.1f ms\n", n, ms);
	assert_int_equal(stats_of(&f).objects, n);
	assert_true(ms < 1000);
	fx_end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_admitted_counts_until_it_is_used_or_given_back),
		cmocka_unit_test(the_oldest_objects_go_first),
		cmocka_unit_test(what_is_in_use_is_never_evicted_and_then_nothing_is_admitted),
		cmocka_unit_test(pooled_objects_are_asked_back_and_only_those),
		cmocka_unit_test(an_object_larger_than_the_cache_gets_what_there_is),
		cmocka_unit_test(a_partial_object_at_rest_is_evicted_too),
		cmocka_unit_test(a_file_that_cannot_be_removed_stays_on_the_books),
		cmocka_unit_test(the_free_floor_is_kept),
		cmocka_unit_test(a_limit_that_shrank_is_reached_by_evicting),
		cmocka_unit_test(the_books_are_right_after_a_kill),
		cmocka_unit_test(a_broken_disk_is_used_again_after_a_good_probe),
		cmocka_unit_test(the_sweep_takes_back_or_removes_what_no_record_knows),
		cmocka_unit_test(the_queue_is_bounded_and_answered_to_the_last),
		cmocka_unit_test(a_hundred_thousand_objects_are_ready_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
