/* SPDX-License-Identifier: Apache-2.0 */
/* Files that are fetched before they are opened, by a whole agent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "agent/metrics.h"
#include "agent/mount.h"
#include "agent/test/agent_fixture.h"

#define KIB 1024ULL
#define MIB (1024 * KIB)

static struct rig rig;
static struct wd_msg msg;
static uint64_t next_mount = 500;

static int start(void **state)
{
	rig_start(&rig, NULL);
	return 0;
}

static int stop(void **state)
{
	rig_stop(&rig);
	return 0;
}

static uint64_t count(enum metric m)
{
	return atomic_load(&metric_values[m]);
}

/* n files PREFIX-0000 ... in the directory, and a mount of it. */
static void mount_files(struct rig_mount *m, const char *dir, unsigned n, uint64_t size, const char *options)
{
	for (unsigned i = 0; i < n; i++) {
		char path[64];

		snprintf(path, sizeof(path), "%s/f-%04u", dir, i);
		rig_file(&rig, path, size);
	}
	rig_mount(&rig, m, next_mount++, dir, options);
}

static uint64_t look_up(struct rig_mount *m, unsigned i)
{
	uint64_t node = 0;
	char name[32];

	snprintf(name, sizeof(name), "f-%04u", i);
	assert_int_equal(rig_lookup(m, &msg, RIG_ROOT, name, &node), 0);
	return node;
}

/* Opens and closes the i-th file; the mode. */
static int open_one(struct rig_mount *m, unsigned i)
{
	uint64_t node = look_up(m, i), size = 0;
	int mode;

	mode = rig_open(m, &msg, node, 0, &size);
	assert_true(mode > 0);
	wd_msg_close_fds(&msg);
	wd_msg_start(&msg, WD_MSG_RELEASE, 0);
	wd_put_u64(&msg, node);
	wd_msg_send(m->sock, &msg, 0);
	return mode;
}

/* Has the agent fetch the first len bytes, as a reader does. */
static void read_some(struct rig_mount *m, unsigned i, uint32_t len)
{
	uint64_t node = look_up(m, i), size = 0, position = 0;

	assert_true(rig_open(m, &msg, node, 0, &size) > 0);
	wd_msg_close_fds(&msg);
	assert_true(rig_ensure(m, &msg, node, 0, len, 0, &position) >= 0);
	wd_msg_close_fds(&msg);
	wd_msg_start(&msg, WD_MSG_RELEASE, 0);
	wd_put_u64(&msg, node);
	wd_msg_send(m->sock, &msg, 0);
}

/* Until the i-th file is whole, though nobody has opened it. */
static void wait_until_cached(struct rig_mount *m, unsigned i)
{
	uint64_t node = look_up(m, i);
	const char *value;
	size_t len = 0;

	do {
		struct wd_rd r;

		wd_msg_start(&msg, WD_MSG_GETXATTR, 0);
		wd_put_u64(&msg, node);
		wd_put_str(&msg, "user.warpdrive.cached");
		assert_int_equal(rig_call(m, &msg), 0);
		r = wd_rd_start(&msg);
		value = wd_rd_bytes(&r, &len);
	} while (len != 3 || memcmp(value, "100", 3) != 0);
}

/* Until so many files more than `before` were fetched ahead. */
static void wait_for_files(uint64_t before, uint64_t n)
{
	while (count(METRIC_AHEAD_FILES_ISSUED) - before < n)
		usleep(1000); /* they are: nothing else ends this */
}

static void the_next_shard_is_whole_when_it_is_opened(void **state)
{
	uint64_t files = count(METRIC_AHEAD_FILES_ISSUED), used = count(METRIC_AHEAD_FILES_USED);
	uint64_t bytes = count(METRIC_PREFETCH_USED), sorted = count(METRIC_DIRS_SORTED);
	struct rig_mount m;

	mount_files(&m, "shards", 8, 3 * MIB, "");
	for (unsigned i = 0; i < 8; i++) {
		/* the first two, which nobody expected, are streamed */
		if (i < 2)
			read_some(&m, i, 2 * MIB);
		else
			assert_int_equal(open_one(&m, i), WD_OPEN_PASSTHROUGH);
		if (i >= 1 && i < 7)
			wait_until_cached(&m, i + 1);
	}
	wait_for_files(files, 6);
	while (count(METRIC_AHEAD_FILES_USED) - used < 6)
		usleep(1000); /* one that was opened when its last block had come counts a moment later */
	assert_int_equal(count(METRIC_AHEAD_FILES_ISSUED) - files, 6);
	assert_int_equal(count(METRIC_PREFETCH_USED) - bytes, 18 * MIB);
	assert_int_equal(count(METRIC_DIRS_SORTED) - sorted, 1);
	rig_umount(&m);
}

static void small_files_cost_one_get_each(void **state)
{
	struct rig_mount m;
	uint64_t gets;

	mount_files(&m, "small", 60, 100 * KIB, "");
	gets = atomic_load(&origin_stats.requests[ORIGIN_OP_GET]);
	for (unsigned i = 0; i < 60; i++) {
		assert_int_equal(open_one(&m, i), WD_OPEN_PASSTHROUGH);
		if (i == 1) /* from then on the opens are told, one by one */
			wait_until_cached(&m, 2);
	}
	assert_int_equal(atomic_load(&origin_stats.requests[ORIGIN_OP_GET]) - gets, 60);
	rig_umount(&m);
}

static void what_is_not_opened_is_unused_when_the_mount_ends(void **state)
{
	uint64_t files = count(METRIC_AHEAD_FILES_ISSUED), unused = count(METRIC_AHEAD_FILES_UNUSED);
	uint64_t used = count(METRIC_AHEAD_FILES_USED);
	struct rig_mount m;

	mount_files(&m, "left", 40, 10 * KIB, "");
	for (unsigned i = 0; i < 20; i++) {
		open_one(&m, i);
		if (i == 1)
			wait_until_cached(&m, 2);
	}
	wait_until_cached(&m, 20);
	rig_umount(&m);
	while (count(METRIC_AHEAD_FILES_ISSUED) - files !=
		count(METRIC_AHEAD_FILES_USED) - used + count(METRIC_AHEAD_FILES_UNUSED) - unused)
		usleep(1000); /* what was under way has landed by then */
	assert_true(count(METRIC_AHEAD_FILES_UNUSED) - unused >= 1);
}

static void options_and_other_orders_fetch_nothing(void **state)
{
	static const unsigned order[] = {7, 2, 11, 0, 9, 4, 13, 6};
	static const char *const options[] = {"\"prefetch\":\"off\"", "\"prefetch\":\"file\"", "\"prefetch\":\"auto\""};
	uint64_t files = count(METRIC_AHEAD_FILES_ISSUED);

	for (int k = 0; k < 3; k++) {
		struct rig_mount m;
		char dir[32];

		snprintf(dir, sizeof(dir), "none-%d", k);
		mount_files(&m, dir, 16, 10 * KIB, options[k]);
		for (unsigned i = 0; i < 8; i++)
			open_one(&m, k < 2 ? i : order[i]);
		rig_umount(&m);
	}
	rig_halt(&rig); /* whatever was under way has landed */
	assert_int_equal(count(METRIC_AHEAD_FILES_ISSUED), files);
	rig_launch(&rig);
}

static void large_files_that_are_read_here_and_there_are_not_fetched(void **state)
{
	uint64_t files = count(METRIC_AHEAD_FILES_ISSUED);
	struct rig_mount m;

	mount_files(&m, "parts", 16, 3 * MIB, "");
	for (unsigned i = 0; i < 16; i++)
		read_some(&m, i, 256 * KIB);
	rig_halt(&rig); /* whatever was under way has landed */
	assert_int_equal(count(METRIC_AHEAD_FILES_ISSUED), files);
	rig_launch(&rig);
	rig_drop_mount(&m);
}

static void a_file_that_has_gone_is_passed_over(void **state)
{
	uint64_t files = count(METRIC_AHEAD_FILES_ISSUED);
	struct rig_mount m;
	char path[300];

	mount_files(&m, "gone", 12, 2 * MIB, "");
	read_some(&m, 0, MIB); /* the directory is listed for the second */
	read_some(&m, 1, MIB);
	snprintf(path, sizeof(path), "%s/data/gone/f-0003", rig.dir);
	assert_int_equal(unlink(path), 0);
	for (unsigned i = 2; i < 12; i++) {
		if (i == 3)
			continue;
		open_one(&m, i);
		if (i == 6)
			wait_for_files(files, 1);
	}
	rig_umount(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_next_shard_is_whole_when_it_is_opened, start, stop),
		cmocka_unit_test_setup_teardown(small_files_cost_one_get_each, start, stop),
		cmocka_unit_test_setup_teardown(what_is_not_opened_is_unused_when_the_mount_ends, start, stop),
		cmocka_unit_test_setup_teardown(options_and_other_orders_fetch_nothing, start, stop),
		cmocka_unit_test_setup_teardown(
			large_files_that_are_read_here_and_there_are_not_fetched, start, stop),
		cmocka_unit_test_setup_teardown(a_file_that_has_gone_is_passed_over, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
