/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine goes down without a clean end: what is on disk is believed block by block. The boot id is
 * faked, and files are damaged as a loss of power does.
 */
#include "agent/test/store_fixture.h"

#include <sched.h>
#include <sys/wait.h>

#include "agent/store_internal.h"

#define SMALL (4 * BLOCK + 100)
#define LARGE (40 * BLOCK + 100)
#define PARTIAL (60 * BLOCK)

static void boot(const char *id)
{
	setenv("WARPDRIVE_BOOT_ID", id, 1);
}

/* Objects 1 (small), 2 (large), both complete, and 3 with blocks 0 to 9, by a process that just ends. */
static void fill_and_die(struct fixture *f)
{
	pid_t pid;

	fx_close(f);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct object *o;

		fx_open(f);
		if (add_object(f, 1, SMALL) < 0 || add_object(f, 2, LARGE) < 0)
			_exit(1);
		o = get(f, 3, PARTIAL);
		for (uint32_t i = 0; i < 10; i++)
			if (write_block(o, 3, i) < 0)
				_exit(1);
		object_unref(o);
		_exit(meta_flush(f->meta) == 0 ? 0 : 1);
	}
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void begin(struct fixture *f)
{
	boot("first");
	fx_begin(f, 1024 * MIB);
	fill_and_die(f);
}

static void end(struct fixture *f)
{
	fx_end(f);
	unsetenv("WARPDRIVE_BOOT_ID");
}

static void zero_block(struct fixture *f, unsigned n, uint32_t block)
{
	static const char zeros[BLOCK];
	char path[160];
	int fd;

	path_of(f, n, "", path);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, zeros, BLOCK, (off_t)(block * BLOCK)), BLOCK);
	close(fd);
}

static void checked(void *arg)
{
	ticket_cb(arg, 0);
}

/* Checks on the checker thread and waits for it. */
static void check(struct fixture *f, struct object *o, uint32_t first, uint32_t count)
{
	struct ticket t = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, 0};

	store_check(f->store, o, first, count, checked, &t);
	pthread_mutex_lock(&t.lock);
	while (!t.is_done)
		pthread_cond_wait(&t.cond, &t.lock);
	pthread_mutex_unlock(&t.lock);
}

static void after_a_kill_in_the_same_boot_everything_is_believed(void **state)
{
	struct fixture f;
	struct object *o;

	begin(&f);
	fx_open(&f);
	for (unsigned n = 1; n <= 2; n++) {
		o = get(&f, n, n == 1 ? SMALL : LARGE);
		assert_false(object_is_suspect(o));
		assert_true(object_is_complete(o));
		object_unref(o);
	}
	o = get(&f, 3, PARTIAL);
	assert_true(object_has_block(o, 9) && !object_is_suspect(o));
	object_unref(o);
	end(&f);
}

static void after_a_clean_end_another_boot_changes_nothing(void **state)
{
	struct fixture f;
	struct object *o;

	begin(&f);
	fx_open(&f);
	fx_close(&f);
	boot("second");
	fx_open(&f);
	o = get(&f, 2, LARGE);
	assert_true(object_is_complete(o) && !object_is_suspect(o));
	object_unref(o);
	end(&f);
}

static void after_a_loss_of_power_no_block_is_shown_unchecked(void **state)
{
	const uint64_t fold = map_charge(wd_nblocks(SMALL));
	struct fixture f;
	struct object *o;
	uint64_t used;

	begin(&f);
	damage(&f, 1, 2);
	zero_block(&f, 2, 17);
	zero_block(&f, 3, 4);
	boot("second");
	fx_open(&f);
	for (unsigned n = 1; n <= 3; n++) {
		uint64_t size = n == 1 ? SMALL : n == 2 ? LARGE : PARTIAL;
		uint32_t bad = n == 1 ? 2 : n == 2 ? 17 : 4, nblocks = n == 3 ? 10 : wd_nblocks(size);

		o = get(&f, n, size);
		assert_true(object_is_suspect(o));
		assert_false(object_is_complete(o));
		for (uint32_t i = 0; i < nblocks; i++)
			assert_false(object_has_block(o, i));
		assert_true(object_present_bytes(o) > 0); /* somebody was allowed to fetch it */
		used = stats_of(&f).used_bytes;
		check(&f, o, 0, nblocks);
		assert_false(object_is_suspect(o));
		for (uint32_t i = 0; i < nblocks; i++) {
			assert_int_equal(object_has_block(o, i), i != bad);
			if (i != bad)
				assert_true(block_is_right(o, n, i));
		}
		/* the map of the small one goes when the evictor comes to it */
		assert_in_range(stats_of(&f).used_bytes, used - BLOCK - fold, used - BLOCK);
		assert_int_equal(stats_of(&f).corrupt_blocks, n);
		assert_int_equal(write_block(o, n, bad), 0);
		assert_int_equal(object_is_complete(o), n < 3);
		assert_in_range(stats_of(&f).used_bytes, used - fold, used);
		object_unref(o);
	}
	/* what was checked stays believed; a small file is plain again */
	fx_reopen(&f);
	assert_false(has_file(&f, 1, ".map"));
	for (unsigned n = 1; n <= 3; n++) {
		o = get(&f, n, n == 1 ? SMALL : n == 2 ? LARGE : PARTIAL);
		assert_false(object_is_suspect(o));
		assert_true(block_is_right(o, n, 2));
		object_unref(o);
	}
	end(&f);
}

static void what_was_not_checked_stays_suspect_through_further_restarts(void **state)
{
	struct fixture f;
	struct object *o;

	begin(&f);
	zero_block(&f, 2, 30);
	boot("second");
	for (int round = 0; round < 3; round++) {
		fx_open(&f);
		o = get(&f, 2, LARGE);
		assert_true(object_is_suspect(o));
		check(&f, o, (uint32_t)round, 1);
		assert_true(object_has_block(o, (uint32_t)round));
		object_unref(o);
		o = get(&f, 1, SMALL);
		assert_true(object_is_suspect(o));
		object_unref(o);
		fx_close(&f); /* cleanly, and in the same boot */
	}
	fx_open(&f);
	o = get(&f, 2, LARGE);
	check(&f, o, 30, 1);
	assert_false(object_has_block(o, 30));
	object_unref(o);
	end(&f);
}

static void torn_missing_and_foreign_maps_cost_a_fetch_and_nothing_else(void **state)
{
	struct fixture f;
	char map[160], data[160];
	struct object *o;
	int fd;

	begin(&f);
	path_of(&f, 2, ".map", map); /* zeros over a page of it: a sector that was never written */
	fd = open(map, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, (char[64]){0}, 64, (off_t)map_bytes(8)), 64);
	close(fd);
	path_of(&f, 3, ".map", map);
	assert_int_equal(truncate(map, 100), 0);
	path_of(&f, 1, "", data);
	assert_int_equal(truncate(data, 1000), 0);
	boot("second");
	fx_open(&f);
	o = get(&f, 2, LARGE);
	check(&f, o, 0, wd_nblocks(LARGE));
	for (uint32_t i = 0; i < wd_nblocks(LARGE); i++)
		assert_int_equal(object_has_block(o, i), i < 8 || i >= 12);
	object_unref(o);
	o = get(&f, 3, PARTIAL);
	check(&f, o, 0, 10);
	assert_int_equal(object_present_bytes(o), 2 * BLOCK);
	assert_int_equal(write_block(o, 3, 5), 0);
	assert_true(block_is_right(o, 3, 5));
	object_unref(o);
	o = get(&f, 1, SMALL);
	assert_int_equal(object_present_bytes(o), 0);
	assert_int_equal(put_all(o, 1), 0);
	assert_true(block_is_right(o, 1, 0));
	object_unref(o);
	assert_int_equal(stats_of(&f).corrupt_blocks, 0);
	end(&f);
}

static void a_suspect_block_that_is_written_is_not_believed_before_it_is_whole(void **state)
{
	struct fixture f;
	struct object *o;
	uint64_t used;

	begin(&f);
	boot("second");
	fx_open(&f);
	o = get(&f, 2, LARGE);
	used = stats_of(&f).used_bytes;
	assert_int_equal(object_pwrite(o, "other", 5, 3 * BLOCK), 0);
	assert_false(object_has_block(o, 3));
	assert_int_equal(object_verify(o, 3), -ENOENT);
	assert_int_equal(stats_of(&f).used_bytes, used - BLOCK);
	assert_int_equal(write_block(o, 2, 3), 0);
	assert_int_equal(stats_of(&f).used_bytes, used);
	check(&f, o, 0, wd_nblocks(LARGE));
	assert_true(object_is_complete(o));
	object_unref(o);
	end(&f);
}

static void a_disk_that_cannot_be_read_leaves_blocks_suspect(void **state)
{
	struct fixture f;
	struct object *o;

	begin(&f);
	boot("second");
	fx_open(&f);
	o = get(&f, 1, SMALL);
	wd_fault_arm("store.pread=1");
	check(&f, o, 0, 1);
	assert_false(object_has_block(o, 0));
	assert_true(object_is_suspect(o));
	assert_true(stats_of(&f).is_broken);
	check(&f, o, 0, 1);
	assert_true(object_has_block(o, 0));
	object_unref(o);
	end(&f);
}

static void a_bad_block_that_cannot_be_recorded_is_remembered_all_the_same(void **state)
{
	struct fixture f;
	struct object *o;

	begin(&f);
	fx_open(&f);
	damage(&f, 2, 5);
	o = get(&f, 2, LARGE);
	wd_fault_arm("store.map-clear=1");
	assert_int_equal(object_verify(o, 5), -EIO);
	assert_false(object_has_block(o, 5));
	object_unref(o);
	fx_reopen(&f); /* the map still has it */
	o = get(&f, 2, LARGE);
	assert_true(object_is_suspect(o));
	check(&f, o, 0, wd_nblocks(LARGE));
	assert_false(object_has_block(o, 5));
	assert_true(object_has_block(o, 6));
	object_unref(o);
	end(&f);
}

static void open_files_are_checked_whole_in_the_background(void **state)
{
	struct fixture f;
	struct object *o;

	begin(&f);
	boot("second");
	fx_open(&f);
	o = get(&f, 2, LARGE);
	store_check_whole(f.store, o);
	store_check_whole(f.store, o);
	while (!object_is_complete(o))
		sched_yield(); /* ctest's time-out guards */
	object_unref(o);
	end(&f);
}

/* ---- the scrubber ---- */

struct damage_log {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned n;
	struct object_id id;
	uint64_t offset, len;
};

static void on_damage(void *arg, const struct object_id *id, uint64_t offset, uint64_t len)
{
	struct damage_log *log = arg;

	pthread_mutex_lock(&log->lock);
	log->n++;
	log->id = *id;
	log->offset = offset;
	log->len = len;
	pthread_cond_signal(&log->cond);
	pthread_mutex_unlock(&log->lock);
}

static bool note_use(void *arg, const struct object_id *id, uint64_t size, uint64_t present)
{
	struct object_id **next = arg;

	*(*next)++ = *id;
	return true;
}

static void the_scrubber_finds_a_flipped_bit_and_changes_no_order(void **state)
{
	struct damage_log log = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
	struct object_id before[4], after[4], *next = before, id = make_id(2);
	struct fixture f;

	begin(&f);
	damage(&f, 2, 40); /* the short last one */
	fx_open(&f);
	assert_int_equal(store_scan(f.store, note_use, &next), 0);
	fx_close(&f);
	f.config.damaged = on_damage;
	f.config.damaged_arg = &log;
	f.config.scrub_bytes_per_s = 10000 * MIB;
	f.config.scrub_interval_ms = 1;
	fx_open(&f);
	pthread_mutex_lock(&log.lock);
	while (log.n == 0)
		pthread_cond_wait(&log.cond, &log.lock);
	assert_memory_equal(&log.id, &id, sizeof(id));
	assert_int_equal(log.offset, 40 * BLOCK);
	assert_int_equal(log.len, 100);
	pthread_mutex_unlock(&log.lock);
	while (stats_of(&f).checked_blocks < 200) /* it goes on, walk after walk */
		sched_yield();
	assert_int_equal(stats_of(&f).corrupt_blocks, 1);
	assert_int_equal(log.n, 1);
	next = after;
	assert_int_equal(store_scan(f.store, note_use, &next), 0);
	assert_memory_equal(before, after, 3 * sizeof(before[0]));
	end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(after_a_kill_in_the_same_boot_everything_is_believed),
		cmocka_unit_test(after_a_clean_end_another_boot_changes_nothing),
		cmocka_unit_test(after_a_loss_of_power_no_block_is_shown_unchecked),
		cmocka_unit_test(what_was_not_checked_stays_suspect_through_further_restarts),
		cmocka_unit_test(torn_missing_and_foreign_maps_cost_a_fetch_and_nothing_else),
		cmocka_unit_test(a_suspect_block_that_is_written_is_not_believed_before_it_is_whole),
		cmocka_unit_test(a_disk_that_cannot_be_read_leaves_blocks_suspect),
		cmocka_unit_test(a_bad_block_that_cannot_be_recorded_is_remembered_all_the_same),
		cmocka_unit_test(open_files_are_checked_whole_in_the_background),
		cmocka_unit_test(the_scrubber_finds_a_flipped_bit_and_changes_no_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
