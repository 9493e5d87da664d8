/* SPDX-License-Identifier: Apache-2.0 */
/* What `warm` writes: lines by width, sentences, JSON. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "warm-job/ctl_warm_line.h"

#define MIB (1024.0 * 1024)
#define GIB (1024ull << 20)

static const struct warm_sum half = {
	.files = 1000,
	.files_done = 430,
	.bytes = 20 * GIB,
	.bytes_present = 86 * GIB / 10,
	.bytes_fetched = 3 * GIB,
	.is_listed = true,
};

static const char *line(const struct warm_sum *sum, double rate, unsigned columns)
{
	static char out[600];

	warm_line(sum, rate, columns, out, sizeof(out));
	assert_true(strlen(out) < columns);
	return out;
}

static void at_80_columns_all_is_shown(void **state)
{
	assert_string_equal(line(&half, 812 * MIB, 80),
		"[=========>            ]  42%  430/1000 files  8.6/20 GiB  812 MiB/s  0:15 left");
}

static void at_40_columns_the_essence_is_shown(void **state)
{
	assert_string_equal(line(&half, 812 * MIB, 40), "[===>     ]  42%  8.6/20 GiB  0:15 left");
}

static void while_it_is_listed_there_is_no_share(void **state)
{
	struct warm_sum sum = half;

	sum.is_listed = false;
	assert_string_equal(line(&sum, 812 * MIB, 80), "430/1000+ files  8.6/20+ GiB  812 MiB/s");
}

static void failures_are_shown_before_skipped_files(void **state)
{
	struct warm_sum sum = half;

	sum.files_failed = 2;
	sum.files_skipped = 3;
	assert_string_equal(line(&sum, 812 * MIB, 80),
		" 42%  430/1000 files  8.6/20 GiB  812 MiB/s  0:15 left  2 failed  3 skipped");
	assert_string_equal(line(&sum, 812 * MIB, 40), " 42%  8.6/20 GiB  0:15 left  2 failed");
}

static void no_width_is_exceeded(void **state)
{
	struct warm_sum sum = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, 0, 0, true};
	char out[600];

	for (unsigned columns = 0; columns < 200; columns++) {
		warm_line(&sum, 1, columns, out, sizeof(out));
		assert_true(strlen(out) <= (columns > 1 ? columns - 1 : 1));
		warm_line(&half, 1e15, columns, out, sizeof(out));
		assert_true(strlen(out) <= (columns > 1 ? columns - 1 : 1));
	}
	warm_line(&half, 1e9, 400, out, 30);
	assert_true(strlen(out) < 30);
}

static void a_log_line_has_all_of_it(void **state)
{
	struct warm_sum sum = half;
	char out[600];

	sum.files_failed = 2;
	sum.files_skipped = 3;
	warm_log_line(&sum, 812 * MIB, out, sizeof(out));
	assert_string_equal(
		out, "warm: 42%  430/1000 files  8.6/20 GiB  812 MiB/s  0:15 left  2 failed  3 skipped");
}

static void only_what_is_complete_is_100_percent(void **state)
{
	struct warm_sum sum = half;

	sum.bytes_present = sum.bytes - 1;
	assert_non_null(strstr(line(&sum, 0, 80), " 99%"));
	sum.bytes_present = sum.bytes;
	assert_non_null(strstr(line(&sum, 0, 80), "100%"));
	sum = (struct warm_sum){.files = 2, .files_done = 1, .is_listed = true}; /* empty files */
	assert_non_null(strstr(line(&sum, 0, 80), " 50%"));
	sum = (struct warm_sum){.is_listed = true};
	assert_non_null(strstr(line(&sum, 0, 80), "100%"));
}

static void the_end_is_one_sentence(void **state)
{
	struct warm_sum sum = half;
	char out[600];

	sum.files_failed = 2;
	sum.files_skipped = 3;
	warm_result(&sum, WARM_END_PARTLY, 75000, out, sizeof(out));
	assert_string_equal(out,
		"partly done: 430 of 1000 files, 8.6 of 20 GiB are in the cache; 2 failed; 3 skipped");
	warm_result(&half, WARM_END_STOPPED, 4000, out, sizeof(out));
	assert_string_equal(
		out, "stopped: 430 of 1000 files, 8.6 of 20 GiB are in the cache; run it again to go on");
	sum = half;
	sum.is_listed = false;
	warm_result(&sum, WARM_END_TIMEOUT, 4000, out, sizeof(out));
	assert_string_equal(out, "time is up: 430 of at least 1000 files, 8.6 of at least 20 GiB are in the cache; "
				 "run it again to go on");
	sum = half;
	sum.files_done = sum.files;
	sum.bytes_present = sum.bytes;
	warm_result(&sum, WARM_END_DONE, 75000, out, sizeof(out));
	assert_string_equal(out, "done: 1000 files, 20 GiB are in the cache; 3 GiB fetched in 1:15");
	for (enum warm_end end = WARM_END_NONE; end <= WARM_END_FAILED; end++) {
		warm_result(&half, end, 0, out, sizeof(out));
		assert_non_null(strstr(out, "8.6 of 20 GiB"));
		assert_null(strstr(out, "(null)"));
	}
}

static void json_has_every_number(void **state)
{
	json_t *object = warm_json(&half, 10 * MIB, WARM_END_NONE, 1234);
	char *text = json_dumps(object, JSON_COMPACT);

	assert_string_equal(text,
		"{\"event\":\"progress\",\"files\":1000,\"files_done\":430,\"files_failed\":0,\"files_skipped\":0,"
		"\"bytes\":21474836480,\"bytes_present\":9234179686,\"bytes_fetched\":3221225472,\"is_listed\":true,"
		"\"elapsed_ms\":1234,\"bytes_per_second\":10485760,\"seconds_left\":1168}");
	free(text);
	json_decref(object);
	object = warm_json(&half, 0, WARM_END_NO_ROOM, 1234);
	assert_string_equal(json_string_value(json_object_get(object, "event")), "result");
	assert_string_equal(json_string_value(json_object_get(object, "state")), "no-room");
	json_decref(object);
}

static void json_of_a_failure_takes_any_name(void **state)
{
	json_t *object = warm_failure_json("/data/a\xff\n", EACCES, "HTTP 403");
	char *text = json_dumps(object, JSON_COMPACT);

	assert_string_equal(text,
		"{\"event\":\"failure\",\"path\":\"/data/a?\\n\",\"code\":\"EACCES\",\"text\":\"HTTP 403\"}");
	free(text);
	json_decref(object);
	object = warm_failure_json("x", 123456, "");
	assert_string_equal(json_string_value(json_object_get(object, "code")), "EIO");
	json_decref(object);
}

static void times_are_short(void **state)
{
	static const struct {
		int64_t seconds;
		const char *text;
	} rows[] = {{0, "0:00"}, {75, "1:15"}, {3599, "59:59"}, {3675, "1:01:15"}, {400000, "4d 15h"}};
	char out[32];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_string_equal(warm_format_time(rows[i].seconds, out, sizeof(out)), rows[i].text);
}

static void the_rate_follows_and_does_not_jump(void **state)
{
	struct warm_meter m = {0};
	int64_t now = 1000;
	uint64_t bytes = 0;

	warm_meter_add(&m, now, 0);
	for (int i = 0; i < 100; i++)
		warm_meter_add(&m, now += 100, bytes += 1000);
	assert_true(m.rate > 9900 && m.rate < 10100);
	/* one second at ten times the rate */
	for (int i = 0; i < 10; i++)
		warm_meter_add(&m, now += 100, bytes += 10000);
	assert_true(m.rate > 15000 && m.rate < 60000);
	for (int i = 0; i < 600; i++)
		warm_meter_add(&m, now += 100, bytes);
	assert_true(m.rate < 1);
	/* a clock that stands, and a count that begins anew */
	warm_meter_add(&m, now, bytes + 5);
	warm_meter_add(&m, now + 100, 3);
	assert_true(m.rate < 1);
}

static void time_left_is_said_when_it_is_known(void **state)
{
	struct warm_sum sum = {.bytes = 1000, .bytes_present = 500, .is_listed = true};

	assert_int_equal(warm_left_s(&sum, 100), 5);
	assert_int_equal(warm_left_s(&sum, 0), -1);
	sum.is_listed = false;
	assert_int_equal(warm_left_s(&sum, 100), -1);
	sum = (struct warm_sum){.bytes = 1, .bytes_present = 2, .is_listed = true};
	assert_int_equal(warm_left_s(&sum, 100), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(at_80_columns_all_is_shown),
		cmocka_unit_test(at_40_columns_the_essence_is_shown),
		cmocka_unit_test(while_it_is_listed_there_is_no_share),
		cmocka_unit_test(failures_are_shown_before_skipped_files),
		cmocka_unit_test(no_width_is_exceeded),
		cmocka_unit_test(a_log_line_has_all_of_it),
		cmocka_unit_test(only_what_is_complete_is_100_percent),
		cmocka_unit_test(the_end_is_one_sentence),
		cmocka_unit_test(json_has_every_number),
		cmocka_unit_test(json_of_a_failure_takes_any_name),
		cmocka_unit_test(times_are_short),
		cmocka_unit_test(the_rate_follows_and_does_not_jump),
		cmocka_unit_test(time_left_is_said_when_it_is_known),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
