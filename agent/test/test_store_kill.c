/* SPDX-License-Identifier: Apache-2.0 */
/* The store is killed at random moments: what is marked present afterwards is whole and right. */
#include "agent/test/store_fixture.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#define OBJECTS 12
#define KILLS 50

static uint64_t size_of(unsigned n)
{
	return n % 4 == 0 ? 5000 + n : n % 4 == 1 ? 9 * BLOCK + n : 60 * BLOCK + n;
}

/* Fills and evicts until killed. */
static void write_for_ever(struct fixture *f, unsigned seed)
{
	for (;;) {
		unsigned n = (unsigned)rand_r(&seed) % OBJECTS;
		struct object *o = get(f, n, size_of(n));

		for (int i = 0; i < 5; i++) {
			uint32_t block = (uint32_t)rand_r(&seed) % wd_nblocks(size_of(n));

			if (n % 4 == 0)
				(void)put_all(o, n);
			else if (admit(f, o, object_block_charge(o, block)) == 0)
				(void)write_block(o, n, block);
		}
		object_unref(o);
		if (rand_r(&seed) % 64 == 0) {
			struct object_id id = make_id(n);

			(void)store_evict(f->store, &id);
		}
	}
}

static void what_is_present_after_a_kill_is_whole(void **state)
{
	unsigned seed = (unsigned)time(NULL), blocks = 0;
	struct fixture f;
	int ready[2];

	fx_begin(&f, 64 * MIB);
	print_message("seed %u\n", seed);
	assert_int_equal(pipe(ready), 0);
	for (int kills = 0; kills < KILLS; kills++) {
		struct timespec pause = {0, (long)(rand_r(&seed) % 60) * 1000000};
		uint64_t used = 0;
		pid_t pid;
		char c;

		fx_close(&f);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			fx_open(&f);
			if (write(ready[1], "x", 1) != 1)
				_exit(1);
			write_for_ever(&f, seed);
		}
		assert_int_equal(read(ready[0], &c, 1), 1);
		nanosleep(&pause, NULL); /* the moment of the kill is the point */
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		fx_open(&f);
		assert_false(meta_was_unclean(f.meta));
		for (unsigned n = 0; n < OBJECTS; n++) {
			struct object *o = get(&f, n, size_of(n));
			uint64_t present = 0;

			for (uint32_t b = 0; b < wd_nblocks(size_of(n)); b++) {
				int rc = object_verify(o, b); /* adopted ones are suspect */

				if (rc == -ENOENT)
					continue;
				assert_int_equal(rc, 0);
				assert_true(block_is_right(o, n, b));
				present += length_of(o, b);
				used += object_block_charge(o, b);
				blocks++;
			}
			assert_int_equal(object_present_bytes(o), present);
			object_unref(o);
		}
		/* Blocks, and the maps of twelve objects at most. Records of what was evicted just
		 * before the kill may make the cache look too full at the start: then more is
		 * evicted. */
		assert_true(stats_of(&f).evicted_objects > 0 || stats_of(&f).used_bytes >= used);
		assert_true(stats_of(&f).used_bytes <= used + OBJECTS * 8192);
	}
	print_message("%u present blocks checked\n", blocks);
	assert_true(blocks > 0);
	for (unsigned n = 0; n < OBJECTS; n++) {
		struct object_id id = make_id(n);

		(void)store_evict(f.store, &id);
		assert_false(has_file(&f, n, "") || has_file(&f, n, ".map"));
	}
	assert_int_equal(stats_of(&f).used_bytes, 0);
	close(ready[0]);
	close(ready[1]);
	fx_end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_present_after_a_kill_is_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
