/* SPDX-License-Identifier: Apache-2.0 */
/* The pattern of reads of one object: what is asked ahead, and what is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "agent/stream.h"
#include "common/mountmem.h"

#define MIB (1024ULL * 1024)
#define SIZE (1024 * MIB)
#define WINDOW (64 * MIB)
#define GET (8 * MIB)
#define KIB 1024ULL

static bool read_at(struct streams *ss, uint64_t offset, uint64_t len, uint64_t size)
{
	return streams_touch(ss, &(struct stream_read){offset, len, false}, size, WINDOW).is_wanting;
}

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

	assert_false(read_at(&ss, 0, 128 * 1024, SIZE));
	assert_int_equal(drain(&ss, NULL), 0);
}

static void sequential_reads_open_the_window_to_its_bound(void **state)
{
	struct streams ss = {0};
	uint64_t end = 0, ahead = 0;

	for (uint64_t at = 0; at < 200 * MIB; at += MIB) {
		read_at(&ss, at, MIB, SIZE);
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
		read_at(&ss, at, MIB, SIZE);
		while (streams_next(&ss, SIZE, GET, &offset, &len)) {
			assert_true(offset >= next);
			next = offset + len;
		}
	}
	assert_int_equal(next, SIZE);
}

/* ---- traces: what a cache that starts empty and gets all it asks for at once would fetch ---- */

struct trace {
	struct streams ss;
	uint64_t size;
	unsigned char *state; /* per block */
	uint64_t asked, fetched, ahead, used; /* bytes; of them fetched ahead, and of those read */
};
enum { PRESENT = 1, AHEAD = 2 };

static void trace_start(struct trace *t, uint64_t size)
{
	*t = (struct trace){.size = size, .state = calloc(size / WD_BLOCK_SIZE + 1, 1)};
	assert_non_null(t->state);
}

static struct stream_touch trace_read(struct trace *t, uint64_t offset, uint64_t len)
{
	struct stream_touch touch;
	uint64_t at, n;
	bool is_present = true;

	for (uint64_t b = offset / WD_BLOCK_SIZE; b * WD_BLOCK_SIZE < offset + len; b++) {
		is_present = is_present && (t->state[b] & PRESENT);
		if (!(t->state[b] & PRESENT))
			t->fetched += WD_BLOCK_SIZE;
		if (t->state[b] & AHEAD)
			t->used += WD_BLOCK_SIZE;
		t->state[b] = PRESENT;
	}
	t->asked += len;
	touch = streams_touch(&t->ss, &(struct stream_read){offset, len, is_present}, t->size, WINDOW);
	while (streams_next(&t->ss, t->size, GET, &at, &n))
		for (uint64_t b = at / WD_BLOCK_SIZE; b * WD_BLOCK_SIZE < at + n; b++) {
			if (t->state[b] & PRESENT)
				continue;
			t->state[b] = PRESENT | AHEAD;
			t->fetched += WD_BLOCK_SIZE;
			t->ahead += WD_BLOCK_SIZE;
		}
	return touch;
}

static double accuracy(struct trace *t)
{
	free(t->state);
	return t->ahead ? (double)t->used / (double)t->ahead : 1;
}

static uint64_t dice(void)
{
	static uint64_t x = 88172645463325252ULL;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

static void random_reads_fetch_what_they_touch(void **state)
{
	struct trace t;

	trace_start(&t, SIZE);
	for (int i = 0; i < 4000; i++)
		trace_read(&t, dice() % (SIZE / WD_BLOCK_SIZE) * WD_BLOCK_SIZE, WD_BLOCK_SIZE);
	assert_true(t.ahead <= t.fetched / 50);
	accuracy(&t);
}

static void random_reads_of_several_requests_soon_fetch_little_more(void **state)
{
	struct trace t;

	/* a sample of 1.5 MiB, as twelve requests of the kernel, anywhere */
	trace_start(&t, 16 * SIZE);
	for (int i = 0; i < 1000; i++) {
		uint64_t at = dice() % (15 * SIZE / WD_BLOCK_SIZE) * WD_BLOCK_SIZE;

		for (int k = 0; k < 12; k++)
			trace_read(&t, at + (uint64_t)k * 128 * KIB, 128 * KIB);
	}
	assert_true((double)t.fetched <= 1.1 * (double)t.asked);
	accuracy(&t);
}

static void after_short_runs_a_long_one_is_read_ahead_again(void **state)
{
	struct trace t;
	uint64_t before;

	trace_start(&t, SIZE);
	for (int i = 0; i < 100; i++)
		for (uint64_t k = 0; k < 8; k++)
			trace_read(&t, (dice() % 512) * MIB + k * 128 * KIB, 128 * KIB);
	before = t.ahead;
	for (uint64_t at = 600 * MIB; at < 800 * MIB; at += MIB)
		trace_read(&t, at, MIB);
	assert_true(t.ahead - before > 150 * MIB);
	accuracy(&t);
}

static void what_a_sequential_reader_fetches_ahead_it_reads(void **state)
{
	struct trace t;

	trace_start(&t, SIZE);
	for (uint64_t at = 0; at < SIZE; at += 128 * KIB)
		trace_read(&t, at, 128 * KIB);
	assert_true(t.ahead > SIZE * 9 / 10);
	assert_true(accuracy(&t) == 1);
}

static void strided_reads_are_read_ahead_in_both_directions(void **state)
{
	for (int is_down = 0; is_down < 2; is_down++) {
		struct trace t;
		unsigned found = 0;

		trace_start(&t, 16 * SIZE);
		for (uint64_t i = 0; i < 1000; i++)
			found += trace_read(&t, (is_down ? 1000 - i : i) * 10 * MIB, 100 * KIB).found ==
				 STREAM_STRIDED;
		assert_int_equal(found, 1);
		assert_true(t.ahead > 900 * WD_BLOCK_SIZE);
		/* nothing between the strides, and little behind the end */
		assert_true(t.fetched <= 1300 * WD_BLOCK_SIZE);
		assert_true(accuracy(&t) >= 0.8);
	}
}

static void a_sequence_that_begins_in_the_middle_is_found(void **state)
{
	struct trace t;

	trace_start(&t, SIZE);
	trace_read(&t, 100 * MIB, 64 * KIB); /* a footer, an index */
	for (uint64_t at = 500 * MIB; at < 600 * MIB; at += MIB)
		trace_read(&t, at, MIB);
	assert_true(t.ahead > 90 * MIB);
	accuracy(&t);
}

static void eight_interleaved_streams_are_told_apart(void **state)
{
	struct streams ss = {0};

	for (uint64_t step = 0; step < 80; step++)
		for (uint64_t s = 0; s < STREAMS; s++)
			read_at(&ss, s * 100 * MIB + step * MIB, MIB, SIZE);
	for (int i = 0; i < STREAMS; i++)
		assert_int_equal(ss.s[i].window, WINDOW);
}

static void a_short_step_back_keeps_the_stream(void **state)
{
	struct streams ss = {0};

	for (uint64_t at = 0; at < 8 * MIB; at += MIB)
		read_at(&ss, at, MIB, SIZE);
	read_at(&ss, 7 * MIB, 64 * 1024, SIZE);
	assert_int_equal(ss.s[0].next, 8 * MIB);
	assert_false(ss.s[1].is_live);
}

static void the_end_of_the_object_ends_the_window(void **state)
{
	struct streams ss = {0};
	uint64_t offset, len, end = 0, size = 5 * MIB + 17;

	read_at(&ss, 0, MIB, size);
	for (uint64_t at = MIB; at < 5 * MIB; at += MIB) {
		read_at(&ss, at, MIB, size);
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

	read_at(&ss, 4 * MIB, MIB, size);
	read_at(&ss, 5 * MIB, 17, size);
	while (streams_next(&ss, size, GET, &offset, &len))
		assert_true(++n < 2);
}

/* ---- formats: what their readers read first, and then ---- */

#define SHORT_END (SIZE + 3 * KIB) /* a last block of 3 KiB */

static void a_first_read_of_the_end_brings_the_tail_and_no_stream(void **state)
{
	static const uint64_t lens[] = {8, 22, 4 * KIB, 64 * KIB};
	uint64_t offset, len;

	for (int i = 0; i < 4; i++) {
		struct streams ss = {0};
		struct stream_touch touch = streams_touch(
			&ss, &(struct stream_read){SHORT_END - lens[i], lens[i], false}, SHORT_END, WINDOW);

		assert_int_equal(touch.found, STREAM_TAIL_READ);
		/* 4 KiB touch the block before by themselves */
		assert_int_equal(touch.is_wanting, i < 2);
		assert_int_equal(streams_next(&ss, SHORT_END, GET, &offset, &len), i < 2);
		if (i < 2)
			assert_int_equal(offset, SIZE - WD_BLOCK_SIZE);
		assert_false(streams_next(&ss, SHORT_END, GET, &offset, &len));
	}
	/* one whole block is all of the tail */
	struct streams ss = {0};

	assert_false(streams_touch(&ss, &(struct stream_read){SIZE - 8, 8, false}, SIZE, WINDOW).is_wanting);
	assert_int_equal(drain(&ss, NULL), 0);
}

static void parquet_costs_its_footer_and_the_columns_that_are_read(void **state)
{
	struct trace t;
	uint64_t wanted = 0;

	trace_start(&t, SHORT_END);
	trace_read(&t, SHORT_END - 8, 8);
	trace_read(&t, SHORT_END - 400 * KIB, 400 * KIB - 8); /* the footer */
	for (uint64_t group = 0; group < 32; group++) {
		/* two of the columns of each row group, 1.5 MiB and 700 KiB, by requests of 128 KiB */
		uint64_t at = group * 32 * MIB + 4 * MIB + group * 77 * KIB;

		for (uint64_t n = 0; n < 12; n++)
			trace_read(&t, at + n * 128 * KIB, 128 * KIB);
		for (uint64_t n = 0; n < 6; n++)
			trace_read(&t, at + 16 * MIB + n * 128 * KIB, 128 * KIB);
		wanted += 18 * 128 * KIB + 2 * WD_BLOCK_SIZE;
	}
	assert_true(t.fetched <= (wanted + 3 * WD_BLOCK_SIZE) * 5 / 4);
	accuracy(&t);
}

static void members_of_a_zip_cost_the_blocks_that_they_touch(void **state)
{
	struct trace t;

	trace_start(&t, SHORT_END);
	trace_read(&t, SHORT_END - 22, 22);
	trace_read(&t, SHORT_END - 64 * KIB, 64 * KIB);
	trace_read(&t, SHORT_END - 900 * KIB, 128 * KIB); /* the directory */
	for (int i = 0; i < 1000; i++) {
		uint64_t at = dice() % (SIZE - 10 * MIB);

		trace_read(&t, at, 4 * KIB); /* the local header, and the member */
		trace_read(&t, at + 4 * KIB, 96 * KIB);
	}
	assert_true(t.ahead <= t.fetched / 50 + 2 * WD_BLOCK_SIZE);
	accuracy(&t);
}

static void a_header_at_the_beginning_asks_for_nothing_behind_it(void **state)
{
	static const uint64_t header[] = {128, 8 * KIB, 100 * KIB, 200 * KIB};

	for (int i = 0; i < 4; i++) {
		struct trace t;

		trace_start(&t, SIZE);
		trace_read(&t, 0, 16 * KIB); /* the length, as the kernel reads it */
		if (header[i] > 16 * KIB)
			trace_read(&t, 16 * KIB, header[i] - 16 * KIB);
		assert_int_equal(t.fetched, WD_BLOCK_SIZE);
		for (int n = 0; n < 200; n++) /* tensors anywhere */
			trace_read(&t, dice() % (SIZE / WD_BLOCK_SIZE) * WD_BLOCK_SIZE, WD_BLOCK_SIZE);
		assert_true(t.ahead <= 4 * WD_BLOCK_SIZE);
		accuracy(&t);
	}
}

static void headers_of_large_members_of_a_tar_cost_a_block_each(void **state)
{
	struct trace t;
	uint64_t at = 0;
	int n = 0;

	trace_start(&t, SIZE);
	for (; at < SIZE - 20 * MIB; n++) {
		trace_read(&t, at, 4 * KIB);
		at += 3 * MIB + dice() % (8 * MIB) / 512 * 512;
	}
	assert_true(t.fetched <= (uint64_t)n * 2 * WD_BLOCK_SIZE);
	assert_true(t.ahead <= t.fetched / 20);
	accuracy(&t);
}

static void a_tar_that_is_read_through_is_a_sequence(void **state)
{
	struct trace t;

	trace_start(&t, SIZE);
	for (uint64_t at = 0; at < SIZE;) {
		uint64_t member = (dice() % (400 * KIB) + 511) / 512 * 512, end = at + 512 + member;

		if (end > SIZE)
			end = SIZE;
		for (; at < end; at += 128 * KIB < end - at ? 128 * KIB : end - at)
			trace_read(&t, at, 128 * KIB < end - at ? 128 * KIB : end - at);
	}
	assert_true(t.ahead >= t.fetched * 9 / 10);
	assert_true(accuracy(&t) >= 0.99);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_read_asks_for_nothing_ahead),
		cmocka_unit_test(sequential_reads_open_the_window_to_its_bound),
		cmocka_unit_test(every_byte_is_asked_once),
		cmocka_unit_test(random_reads_fetch_what_they_touch),
		cmocka_unit_test(random_reads_of_several_requests_soon_fetch_little_more),
		cmocka_unit_test(after_short_runs_a_long_one_is_read_ahead_again),
		cmocka_unit_test(what_a_sequential_reader_fetches_ahead_it_reads),
		cmocka_unit_test(strided_reads_are_read_ahead_in_both_directions),
		cmocka_unit_test(a_sequence_that_begins_in_the_middle_is_found),
		cmocka_unit_test(eight_interleaved_streams_are_told_apart),
		cmocka_unit_test(a_short_step_back_keeps_the_stream),
		cmocka_unit_test(the_end_of_the_object_ends_the_window),
		cmocka_unit_test(a_first_read_of_the_end_brings_the_tail_and_no_stream),
		cmocka_unit_test(parquet_costs_its_footer_and_the_columns_that_are_read),
		cmocka_unit_test(members_of_a_zip_cost_the_blocks_that_they_touch),
		cmocka_unit_test(a_header_at_the_beginning_asks_for_nothing_behind_it),
		cmocka_unit_test(headers_of_large_members_of_a_tar_cost_a_block_each),
		cmocka_unit_test(a_tar_that_is_read_through_is_a_sequence),
		cmocka_unit_test(a_reader_at_the_very_end_wants_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
