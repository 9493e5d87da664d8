/* SPDX-License-Identifier: Apache-2.0 */
/* The pattern of reads of one object: what is asked ahead, and what is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "agent/stream.h"
#include "common/mountmem.h"

#define MIB (1024ULL * 1024)
#define SIZE (1024 * MIB)
#define WINDOW (64 * MIB)
#define GET (8 * MIB)

static uint64_t drain(struct streams *ss, uint64_t *ret_end)
{
	uint64_t offset, len, sum = 0;

	while (streams_next(ss, SIZE, GET, &offset, &len)) {
		assert_true(len > 0 && len <= GET);
		assert_int_equal(offset % WD_BLOCK_SIZE, 0);
		assert_true(offset + len <= SIZE);
		sum += len;
		if (ret_end)
			*ret_end = offset + len;
	}
	return sum;
}

static void one_read_asks_for_nothing_ahead(void **state)
{
	struct streams ss = {0};

	assert_false(streams_touch(&ss, 0, 128 * 1024, SIZE, WINDOW));
	assert_int_equal(drain(&ss, NULL), 0);
}

static void sequential_reads_open_the_window_to_its_bound(void **state)
{
	struct streams ss = {0};
	uint64_t end = 0, ahead = 0;

	for (uint64_t at = 0; at < 200 * MIB; at += MIB) {
		streams_touch(&ss, at, MIB, SIZE, WINDOW);
		drain(&ss, &end);
		if (end > at + MIB)
			ahead = end - at - MIB;
		assert_true(ahead <= WINDOW);
	}
	assert_true(ahead > WINDOW / 2);
}

static void every_byte_is_asked_once(void **state)
{
	struct streams ss = {0};
	uint64_t offset, len, next = 0;

	for (uint64_t at = 0; at < SIZE; at += MIB) {
		streams_touch(&ss, at, MIB, SIZE, WINDOW);
		while (streams_next(&ss, SIZE, GET, &offset, &len)) {
			assert_true(offset >= next);
			next = offset + len;
		}
	}
	assert_int_equal(next, SIZE);
}

static void random_reads_ask_for_nothing_ahead(void **state)
{
	struct streams ss = {0};
	uint64_t x = 88172645463325252ULL, ahead = 0;

	for (int i = 0; i < 1000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		/* places too far from each other to be mistaken for a stream */
		streams_touch(&ss, x % 64 * 16 * MIB, 128 * 1024, SIZE, WINDOW);
		ahead += drain(&ss, NULL);
	}
	assert_true(ahead <= 1000 * 4ULL * WD_BLOCK_SIZE);
}

static void eight_interleaved_streams_are_told_apart(void **state)
{
	struct streams ss = {0};

	for (uint64_t step = 0; step < 16; step++)
		for (uint64_t s = 0; s < STREAMS; s++)
			streams_touch(&ss, s * 100 * MIB + step * MIB, MIB, SIZE, WINDOW);
	for (int i = 0; i < STREAMS; i++)
		assert_int_equal(ss.s[i].window, WINDOW);
}

static void a_short_step_back_keeps_the_stream(void **state)
{
	struct streams ss = {0};

	for (uint64_t at = 0; at < 8 * MIB; at += MIB)
		streams_touch(&ss, at, MIB, SIZE, WINDOW);
	streams_touch(&ss, 7 * MIB, 64 * 1024, SIZE, WINDOW);
	assert_int_equal(ss.s[0].next, 8 * MIB);
	assert_false(ss.s[1].is_live);
}

static void the_end_of_the_object_ends_the_window(void **state)
{
	struct streams ss = {0};
	uint64_t offset, len, end = 0, size = 5 * MIB + 17;

	streams_touch(&ss, 0, MIB, size, WINDOW);
	for (uint64_t at = MIB; at < 5 * MIB; at += MIB) {
		streams_touch(&ss, at, MIB, size, WINDOW);
		while (streams_next(&ss, size, GET, &offset, &len))
			end = offset + len;
	}
	assert_int_equal(end, size);
}

static void a_reader_at_the_very_end_wants_nothing(void **state)
{
	struct streams ss = {0};
	uint64_t offset, len, size = 5 * MIB + 17;
	int n = 0;

	streams_touch(&ss, 4 * MIB, MIB, size, WINDOW);
	streams_touch(&ss, 5 * MIB, 17, size, WINDOW);
	while (streams_next(&ss, size, GET, &offset, &len))
		assert_true(++n < 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_read_asks_for_nothing_ahead),
		cmocka_unit_test(sequential_reads_open_the_window_to_its_bound),
		cmocka_unit_test(every_byte_is_asked_once),
		cmocka_unit_test(random_reads_ask_for_nothing_ahead),
		cmocka_unit_test(eight_interleaved_streams_are_told_apart),
		cmocka_unit_test(a_short_step_back_keeps_the_stream),
		cmocka_unit_test(the_end_of_the_object_ends_the_window),
		cmocka_unit_test(a_reader_at_the_very_end_wants_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
