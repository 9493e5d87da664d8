/* SPDX-License-Identifier: Apache-2.0 */
/* The ring between who sees reads and who tells of them, and the access log: what is in it, and its bounds. */
#include <errno.h>
#include <ftw.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/access_log.h"
#include "agent/metrics.h"
#include "agent/trace_ring.h"
#include "common/fault.h"

static char dir[] = "/tmp/wd-access-XXXXXX", path[64], old_path[80];

static int make_dir(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/access.jsonl", dir);
	snprintf(old_path, sizeof(old_path), "%s.1", path);
	return 0;
}

static int remove_files(void **state)
{
	unlink(path);
	unlink(old_path);
	wd_fault_arm(NULL);
	return 0;
}

static int remove_dir(void **state)
{
	return rmdir(dir);
}

static struct trace_event event(uint64_t offset, const char *name)
{
	return (struct trace_event){.at_us = 1700000000123456, .mount = 1, .offset = offset, .length = 4096,
		.wait_us = 77, .kind = TRACE_READ, .tier = TRACE_ORIGIN, .mode = TRACE_CACHED,
		.target = "/var/lib/kubelet/pods/6b1e-uid/volumes/kubernetes.io~csi/pv/mount", .dataset = "s3://bucket/set",
		.path = name};
}

/* ---- the ring ---- */

static void ring_keeps_order_over_its_end(void **state)
{
	static char taken[2 * TRACE_RECORD_MAX];
	struct trace_ring ring;
	uint64_t next = 0, lost, put = 0;

	assert_int_equal(trace_ring_init(&ring, TRACE_RECORD_MAX), 0);
	for (int round = 0; round < 50; round++) {
		struct trace_event e;
		size_t at = 0, len;

		for (int i = 0; i < 5; i++, put++) {
			e = event(put, put % 2 ? "odd" : "an/even/one");
			assert_true(trace_ring_put(&ring, &e));
		}
		len = trace_ring_take(&ring, taken, sizeof(taken), INT64_MAX, &lost);
		while (trace_next(taken, len, &at, &e)) {
			assert_int_equal(e.offset, next);
			assert_string_equal(e.path, next % 2 ? "odd" : "an/even/one");
			assert_string_equal(e.dataset, "s3://bucket/set");
			next++;
		}
	}
	assert_int_equal(next, put);
	assert_int_equal(lost, 0);
	trace_ring_done(&ring);
}

static void full_ring_loses_the_newest_and_counts_them(void **state)
{
	static char taken[2 * TRACE_RECORD_MAX];
	struct trace_ring ring;
	struct trace_event e;
	unsigned put = 0, found = 0;
	uint64_t lost;
	size_t at = 0, len;

	assert_int_equal(trace_ring_init(&ring, TRACE_RECORD_MAX), 0);
	for (uint64_t i = 0; i < 100; i++) {
		e = event(i, "file");
		put += trace_ring_put(&ring, &e);
	}
	len = trace_ring_take(&ring, taken, sizeof(taken), INT64_MAX, &lost);
	while (trace_next(taken, len, &at, &e))
		assert_int_equal(e.offset, found++);
	assert_int_equal(found, put);
	assert_true(put > 0 && put < 100);
	assert_int_equal(lost, 100 - put);
	trace_ring_done(&ring);
}

static void long_names_are_cut(void **state)
{
	static char taken[TRACE_RECORD_MAX], name[5000];
	struct trace_event e = event(0, name);
	struct trace_ring ring;
	uint64_t lost;
	size_t at = 0, len;

	memset(name, 'n', sizeof(name) - 1);
	e.target = e.dataset = name;
	assert_int_equal(trace_ring_init(&ring, TRACE_RECORD_MAX), 0);
	assert_true(trace_ring_put(&ring, &e));
	len = trace_ring_take(&ring, taken, sizeof(taken), INT64_MAX, &lost);
	assert_true(trace_next(taken, len, &at, &e));
	assert_int_equal(strlen(e.path), TRACE_TEXT_MAX);
	assert_int_equal(strlen(e.target), TRACE_TEXT_MAX);
	trace_ring_done(&ring);
}

static void ended_ring_takes_nothing_and_keeps_nobody_waiting(void **state)
{
	struct trace_event e = event(0, "file");
	char taken[TRACE_RECORD_MAX];
	struct trace_ring ring;
	uint64_t lost;

	assert_int_equal(trace_ring_init(&ring, TRACE_RECORD_MAX), 0);
	trace_ring_end(&ring);
	assert_false(trace_ring_put(&ring, &e));
	assert_int_equal(trace_ring_take(&ring, taken, sizeof(taken), INT64_MAX, &lost), 0);
	trace_ring_done(&ring);
}

/* ---- the log ---- */

static struct access_log *start(int64_t one_in, int64_t size)
{
	struct settings s = {.access_log = path, .access_log_one_in = one_in, .access_log_size = size};
	struct wd_err err = WD_ERR_INIT;
	struct access_log *l;

	assert_int_equal(access_log_start(&s, &l, &err), 0);
	assert_non_null(l);
	return l;
}

static void put(struct access_log *l, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct trace_event e = event(i, "train/a \"quoted\"\n\xff name");

		access_log_put(l, &e);
	}
}

/* Lines of a file, each of which must be an object. The last one's is returned. */
static unsigned count_lines(const char *file, json_t **ret_last)
{
	FILE *in = fopen(file, "re");
	char line[8192];
	unsigned n = 0;

	*ret_last = NULL;
	while (in && fgets(line, sizeof(line), in)) {
		json_decref(*ret_last);
		*ret_last = json_loads(line, 0, NULL);
		assert_true(json_is_object(*ret_last));
		n++;
	}
	if (in)
		fclose(in);
	return n;
}

static void line_tells_who_read_what_from_where(void **state)
{
	struct access_log *l = start(1, 1 << 20);
	struct stat st;
	json_t *last;

	put(l, 3);
	access_log_stop(l);
	assert_int_equal(count_lines(path, &last), 3);
	assert_string_equal(json_string_value(json_object_get(last, "time")), "2023-11-14T22:13:20.123456Z");
	assert_string_equal(json_string_value(json_object_get(last, "event")), "read");
	assert_string_equal(json_string_value(json_object_get(last, "pod")), "6b1e-uid");
	assert_string_equal(json_string_value(json_object_get(last, "dataset")), "s3://bucket/set");
	assert_string_equal(json_string_value(json_object_get(last, "path")), "train/a \"quoted\"\n? name");
	assert_string_equal(json_string_value(json_object_get(last, "tier")), "origin");
	assert_string_equal(json_string_value(json_object_get(last, "mode")), "cached");
	assert_int_equal(json_integer_value(json_object_get(last, "offset")), 2);
	assert_int_equal(json_integer_value(json_object_get(last, "length")), 4096);
	assert_int_equal(json_integer_value(json_object_get(last, "wait_us")), 77);
	assert_int_equal(json_integer_value(json_object_get(last, "errno")), 0);
	json_decref(last);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void sample_is_about_one_in_so_many(void **state)
{
	struct access_log *l = start(10, 1 << 20);
	json_t *last;
	unsigned n;

	put(l, 2000);
	access_log_stop(l);
	n = count_lines(path, &last);
	json_decref(last);
	/* 200, and a deviation of 13: eight of these */
	assert_in_range(n, 93, 307);
}

static void full_file_becomes_the_old_one(void **state)
{
	json_t *last;
	struct stat st;

	/* each start goes on where the one before ended; a take is at most 64 KiB of events */
	for (int i = 0; i < 8; i++) {
		struct access_log *l = start(1, 64 << 10);

		put(l, 100);
		access_log_stop(l);
	}
	assert_int_equal(stat(path, &st), 0);
	assert_in_range(st.st_size, 1, (64 << 10) + 100 * 400);
	assert_int_equal(stat(old_path, &st), 0);
	assert_in_range(st.st_size, 64 << 10, (64 << 10) + 100 * 400);
	assert_true(count_lines(old_path, &last) > 0);
	json_decref(last);
}

static void file_that_was_removed_is_begun_anew(void **state)
{
	struct access_log *l = start(1, 1 << 20);
	json_t *last;

	unlink(path);
	put(l, 2);
	access_log_stop(l);
	assert_int_equal(count_lines(path, &last), 2);
	json_decref(last);
}

#ifdef WD_FAULTS
static void what_cannot_be_written_is_counted(void **state)
{
	uint64_t before = metric_values[METRIC_ACCESS_LOG_DROPPED];
	struct access_log *l = start(1, 1 << 20);
	json_t *last;

	wd_fault_arm("access-log.write=0");
	put(l, 5);
	access_log_stop(l);
	assert_int_equal(metric_values[METRIC_ACCESS_LOG_DROPPED] - before, 5);
	assert_int_equal(count_lines(path, &last), 0);
}
#endif

static void place_that_cannot_be_written_is_refused_by_name(void **state)
{
	struct settings s = {.access_log = "/proc/nowhere/log", .access_log_one_in = 1, .access_log_size = 65536};
	struct wd_err err = WD_ERR_INIT;
	struct access_log *l;

	assert_true(access_log_start(&s, &l, &err) < 0);
	assert_non_null(strstr(err.msg, "access-log '/proc/nowhere/log'"));
	s.access_log = dir;
	assert_true(access_log_start(&s, &l, &err) < 0);
	s.access_log = "";
	assert_int_equal(access_log_start(&s, &l, &err), 0);
	assert_null(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ring_keeps_order_over_its_end),
		cmocka_unit_test(full_ring_loses_the_newest_and_counts_them),
		cmocka_unit_test(long_names_are_cut),
		cmocka_unit_test(ended_ring_takes_nothing_and_keeps_nobody_waiting),
		cmocka_unit_test_teardown(line_tells_who_read_what_from_where, remove_files),
		cmocka_unit_test_teardown(sample_is_about_one_in_so_many, remove_files),
		cmocka_unit_test_teardown(full_file_becomes_the_old_one, remove_files),
		cmocka_unit_test_teardown(file_that_was_removed_is_begun_anew, remove_files),
#ifdef WD_FAULTS
		cmocka_unit_test_teardown(what_cannot_be_written_is_counted, remove_files),
#endif
		cmocka_unit_test(place_that_cannot_be_written_is_refused_by_name),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
