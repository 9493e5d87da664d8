/* SPDX-License-Identifier: Apache-2.0 */
/* The pattern of opens in a directory: traces go in, what is asked for ahead comes out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "agent/natural.h"
#include "agent/runs.h"

#define KIB 1024ULL
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define SMALL (100 * KIB)

/* A directory and a cache that starts empty and gets all it asks for at once. */
struct world {
	struct runs *runs;
	uint32_t n;
	bool *is_here; /* was opened or asked for */
	uint64_t size;
	struct runs_limits limits;
	unsigned opens, ready, asked, withdrawn, used, most; /* ready: opens of what was asked for before */
	unsigned found[RUNS_SHUFFLED + 1];
};

static struct world world_of(uint32_t n, uint64_t size, const uint32_t *natural)
{
	struct world w = {.runs = runs_new(n, natural),
		.n = n,
		.is_here = calloc(n, sizeof(bool)),
		.size = size,
		.limits = {GIB, 256, UINT64_MAX}};

	assert_non_null(w.runs);
	assert_non_null(w.is_here);
	return w;
}

static void world_done(struct world *w)
{
	runs_free(w->runs);
	free(w->is_here);
}

static void take_back(struct world *w)
{
	uint32_t place;

	while (runs_withdrawn(w->runs, &place)) {
		assert_true(place < w->n);
		w->withdrawn++;
	}
}

static void ask(struct world *w)
{
	uint32_t place;
	unsigned outstanding;

	while (runs_next(w->runs, &place)) {
		assert_true(place < w->n);
		if (w->is_here[place]) {
			runs_forget(w->runs, place);
			continue;
		}
		w->is_here[place] = true;
		w->asked++;
	}
	outstanding = w->asked - w->used - w->withdrawn;
	if (outstanding > w->most)
		w->most = outstanding;
}

static void open_file(struct world *w, uint32_t place)
{
	struct runs_touch touch = runs_open(w->runs, place, w->size, &w->limits);

	w->opens++;
	w->ready += touch.was_asked;
	w->used += touch.was_asked;
	w->found[touch.found]++;
	w->is_here[place] = true;
	if (touch.is_wanting)
		ask(w);
	take_back(w);
}

static double accuracy(const struct world *w)
{
	return w->asked ? (double)w->used / w->asked : 1;
}

static uint64_t dice = 88172645463325252ULL;
static uint32_t roll(uint32_t n)
{
	dice ^= dice << 13;
	dice ^= dice >> 7;
	dice ^= dice << 17;
	return (uint32_t)(dice % n);
}

static void shuffle(uint32_t *order, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		uint32_t j = roll(i + 1);

		order[i] = order[j];
		order[j] = i;
	}
}

/* ---- sorted ---- */

static void shards_in_order_are_asked_for_from_the_third_open_on(void **state)
{
	struct world w = world_of(64, GIB, NULL);

	open_file(&w, 0);
	assert_int_equal(w.asked, 0);
	open_file(&w, 1); /* it began with the first file: two do */
	assert_int_equal(w.asked, 1);
	for (uint32_t i = 2; i < 64; i++)
		open_file(&w, i);
	assert_int_equal(w.ready, 62);
	assert_int_equal(w.withdrawn, 0);
	assert_int_equal(w.most, 1); /* the window holds one */
	assert_int_equal(w.found[RUNS_SORTED], 1);
	world_done(&w);
}

static void a_run_may_begin_anywhere_and_go_backwards(void **state)
{
	struct world w = world_of(1000, 10 * MIB, NULL);

	for (uint32_t i = 500; i > 400; i--)
		open_file(&w, i);
	assert_int_equal(w.ready, 97);
	assert_true(accuracy(&w) >= 0.6);
	world_done(&w);
}

static void the_number_asked_ahead_doubles_up_to_the_window(void **state)
{
	struct world w = world_of(10000, SMALL, NULL);

	w.limits = (struct runs_limits){64 * MIB, 128, UINT64_MAX};
	for (uint32_t i = 0; i < 10000; i++) {
		open_file(&w, i);
		assert_true(w.asked - w.used <= i + 1);
	}
	assert_int_equal(w.most, 128);
	assert_true(accuracy(&w) == 1);
	world_done(&w);

	w = world_of(10000, SMALL, NULL);
	w.limits = (struct runs_limits){5 * MIB, 128, UINT64_MAX};
	for (uint32_t i = 0; i < 1000; i++)
		open_file(&w, i);
	assert_in_range(w.most, 50, 51);
	world_done(&w);
}

static void names_are_read_in_natural_order(void **state)
{
	enum { N = 200 };
	static char names[N][32];
	uint32_t by_bytes[N], natural[N], place_of[N], n = 0;
	struct world w;

	for (int i = 0; i < N; i++)
		snprintf(names[i], sizeof(names[i]), "part-%d.tar", i);
	/* place: the number of names that are before it in the order of bytes */
	for (int i = 0; i < N; i++) {
		place_of[i] = 0;
		for (int j = 0; j < N; j++)
			place_of[i] += strcmp(names[j], names[i]) < 0;
		by_bytes[place_of[i]] = (uint32_t)i;
	}
	for (int i = 0; i < N; i++) {
		uint32_t rank = 0;

		for (int j = 0; j < N; j++)
			rank += natural_compare(names[by_bytes[j]], names[by_bytes[i]]) < 0;
		natural[rank] = (uint32_t)i;
		n += rank != (uint32_t)i;
	}
	assert_true(n > 0);
	w = world_of(N, 10 * MIB, natural);
	for (int i = 0; i < N; i++)
		open_file(&w, place_of[i]);
	assert_true(w.ready >= N - 5);
	assert_true(accuracy(&w) >= 0.9);
	world_done(&w);
	w = world_of(N, 10 * MIB, natural);
	for (uint32_t i = 0; i < N; i++)
		open_file(&w, i);
	assert_true(w.ready >= N - 5);
	assert_true(accuracy(&w) >= 0.9);
	world_done(&w);
}

static void natural_order_compares_numbers(void **state)
{
	assert_true(natural_compare("a9", "a10") < 0);
	assert_true(natural_compare("a10", "a9") > 0);
	assert_true(natural_compare("a09", "a9") != 0);
	assert_true(natural_compare("a09b1", "a9b2") < 0);
	assert_true(natural_compare("a", "a1") < 0);
	assert_true(natural_compare("a1", "a1") == 0);
	assert_true(natural_compare("1-of-10", "1-of-9") > 0);
	assert_true(natural_compare("99999999999999999999998", "99999999999999999999999") < 0);
	assert_true(natural_are_alike("shard-0001.tar", "shard-0002.tar"));
	assert_true(natural_are_alike("shard-9.tar", "shard-10.tar"));
	assert_true(natural_are_alike("train-00009-of-01024", "train-00010-of-01024"));
	assert_false(natural_are_alike("train-1.tar", "test-2.tar"));
	assert_false(natural_are_alike("config.json", "model.json"));
	assert_false(natural_are_alike("a1", "a1"));
	assert_false(natural_are_alike("a", "a1"));
	assert_false(natural_are_alike("", ""));
}

/* ---- workers ---- */

static void workers_that_share_the_order_are_one_run(void **state)
{
	struct world w = world_of(512, 100 * MIB, NULL);
	uint32_t next[8];

	/* worker k takes every 8th, each at a pace of its own */
	for (uint32_t k = 0; k < 8; k++)
		next[k] = k;
	for (unsigned turn = 0; turn < 480; turn++) {
		uint32_t slow = roll(8), k = 0;

		for (uint32_t j = 1; j < 8; j++) /* about the one that is last */
			if (next[j] < next[k])
				k = j;
		if (roll(4) == 0 && next[slow] < next[k] + 16)
			k = slow;
		if (next[k] < 512)
			open_file(&w, next[k]);
		next[k] += 8;
	}
	assert_true(w.ready >= w.opens * 9 / 10);
	assert_true(accuracy(&w) >= 0.8);
	world_done(&w);
}

static void workers_with_a_part_each_are_runs_of_their_own(void **state)
{
	struct world w = world_of(8000, SMALL, NULL);

	for (uint32_t i = 0; i < 1000; i++)
		for (uint32_t k = 0; k < 8; k++)
			open_file(&w, k * 1000 + i);
	assert_true(w.ready >= w.opens * 9 / 10);
	assert_true(accuracy(&w) >= 0.8);
	world_done(&w);
}

static void every_nth_shard_is_a_run(void **state)
{
	struct world w = world_of(1024, GIB, NULL);

	/* this node is the third of 16 */
	for (uint32_t i = 3; i < 1024; i += 16)
		open_file(&w, i);
	assert_int_equal(w.found[RUNS_STRIDED], 1);
	assert_true(w.ready >= 60 - 1);
	assert_true(accuracy(&w) >= 0.9);
	world_done(&w);
}

static void two_readers_of_every_nth_shard_are_told_apart(void **state)
{
	struct world w = world_of(4000, 10 * MIB, NULL);

	for (uint32_t i = 0; i < 571; i++) {
		if (5 + i * 16 < 4000)
			open_file(&w, 5 + i * 16);
		open_file(&w, 3 + i * 7);
	}
	assert_true(w.ready >= w.opens * 8 / 10);
	assert_true(accuracy(&w) >= 0.8);
	world_done(&w);
}

/* ---- what is not to be asked for ---- */

static void random_opens_with_repeats_ask_for_nothing(void **state)
{
	struct world w = world_of(1000, SMALL, NULL);

	for (int i = 0; i < 5000; i++)
		open_file(&w, roll(1000));
	assert_true(w.asked <= 50); /* what looks like a run by chance */
	world_done(&w);
}

static void a_few_random_opens_ask_for_nothing(void **state)
{
	struct world w = world_of(10000, SMALL, NULL);
	static uint32_t order[10000];

	shuffle(order, 10000);
	for (int i = 0; i < 1000; i++)
		open_file(&w, order[i]);
	assert_true(w.asked <= 10);
	world_done(&w);
}

static void a_run_that_ends_is_withdrawn(void **state)
{
	struct world w = world_of(10000, SMALL, NULL);

	for (uint32_t i = 0; i < 100; i++)
		open_file(&w, i);
	assert_true(w.asked > w.used);
	for (uint32_t i = 0; i < 1000; i++)
		open_file(&w, 5000 + roll(2000)); /* others come, not the reader */
	assert_true(w.asked - w.used - w.withdrawn <= 20);
	assert_true(w.withdrawn > 40);
	world_done(&w);
}

static void an_abandoned_directory_gives_back_all(void **state)
{
	struct world w = world_of(10000, SMALL, NULL);

	for (uint32_t i = 0; i < 100; i++)
		open_file(&w, i);
	runs_abandon(w.runs);
	take_back(&w);
	assert_int_equal(w.asked, w.used + w.withdrawn);
	world_done(&w);
}

static void a_reader_that_keeps_stopping_is_trusted_less(void **state)
{
	struct world w = world_of(100000, SMALL, NULL);

	for (int i = 0; i < 400; i++) {
		uint32_t start = roll(99000);

		for (uint32_t k = 0; k < 5; k++)
			open_file(&w, start + k);
	}
	/* five in a row each time: 2,000 opens */
	assert_true(w.asked <= 1000);
	world_done(&w);
}

static void short_steps_back_and_gaps_do_not_end_a_run(void **state)
{
	struct world w = world_of(2000, SMALL, NULL);

	for (uint32_t i = 0; i < 2000; i++)
		if (i % 10 != 7) /* one in ten is not read */
			open_file(&w, i);
	assert_true(w.ready >= w.opens * 95 / 100);
	assert_true(accuracy(&w) >= 0.85);
	assert_in_range(w.withdrawn, 150, 200);
	world_done(&w);
}

/* ---- epochs ---- */

static void a_set_that_is_read_without_repeats_is_asked_for(void **state)
{
	struct world w = world_of(4000, SMALL, NULL);
	static uint32_t order[4000];

	shuffle(order, 4000);
	for (int i = 0; i < 4000; i++) {
		open_file(&w, order[i]);
		assert_true(w.asked - w.used - w.withdrawn <= (unsigned)i + 1);
	}
	assert_int_equal(w.found[RUNS_SHUFFLED], 1);
	assert_true(accuracy(&w) >= 0.98);
	assert_true(w.ready > 2000);
	world_done(&w);
}

/* What is read at any time of the epoch is not worth an eviction. */
static void of_a_set_nothing_is_asked_for_unless_there_is_room_for_all(void **state)
{
	struct world w = world_of(2000, SMALL, NULL);
	uint32_t order[2000];

	shuffle(order, 2000);
	w.limits.set_bytes = 1400 * SMALL;
	for (uint32_t i = 0; i < 500; i++)
		open_file(&w, order[i]);
	assert_int_equal(w.asked, 0);
	w.limits.set_bytes = 1500 * SMALL;
	open_file(&w, order[500]);
	assert_true(w.asked > 100);
	world_done(&w);
}

static void the_last_epoch_tells_the_set_and_not_the_order(void **state)
{
	struct world w = world_of(2000, SMALL, NULL);
	static uint32_t order[1000];
	unsigned asked;

	/* the first half of the directory is the set */
	for (int epoch = 0; epoch < 3; epoch++) {
		shuffle(order, 1000);
		if (epoch > 0)
			memset(w.is_here, 0, 2000); /* evicted */
		asked = w.asked;
		for (int i = 0; i < 1000; i++)
			open_file(&w, order[i]);
		assert_true(w.asked - asked > 100);
	}
	world_done(&w);
}

static void opens_that_nobody_told_count_as_repeats(void **state)
{
	struct world w = world_of(2000, SMALL, NULL);
	static uint32_t order[2000];

	shuffle(order, 2000);
	for (int i = 0; i < 1000; i++) {
		runs_repeated(w.runs, 1);
		open_file(&w, order[i]);
	}
	assert_true(w.asked <= 20);
	world_done(&w);
}

static void no_directory_is_too_small_or_too_large(void **state)
{
	struct world w = world_of(1, GIB, NULL);

	for (int i = 0; i < 100; i++)
		open_file(&w, 0);
	assert_int_equal(w.asked, 0);
	world_done(&w);
	assert_null(runs_new(RUNS_FILES_MAX + 1, NULL));
	w = world_of(RUNS_FILES_MAX, SMALL, NULL);
	for (uint32_t i = RUNS_FILES_MAX - 300; i < RUNS_FILES_MAX; i++)
		open_file(&w, i);
	assert_true(w.ready > 290);
	assert_true(runs_memory(w.runs) < 2 * MIB);
	world_done(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shards_in_order_are_asked_for_from_the_third_open_on),
		cmocka_unit_test(a_run_may_begin_anywhere_and_go_backwards),
		cmocka_unit_test(the_number_asked_ahead_doubles_up_to_the_window),
		cmocka_unit_test(names_are_read_in_natural_order),
		cmocka_unit_test(natural_order_compares_numbers),
		cmocka_unit_test(workers_that_share_the_order_are_one_run),
		cmocka_unit_test(workers_with_a_part_each_are_runs_of_their_own),
		cmocka_unit_test(every_nth_shard_is_a_run),
		cmocka_unit_test(two_readers_of_every_nth_shard_are_told_apart),
		cmocka_unit_test(random_opens_with_repeats_ask_for_nothing),
		cmocka_unit_test(a_few_random_opens_ask_for_nothing),
		cmocka_unit_test(a_run_that_ends_is_withdrawn),
		cmocka_unit_test(an_abandoned_directory_gives_back_all),
		cmocka_unit_test(a_reader_that_keeps_stopping_is_trusted_less),
		cmocka_unit_test(short_steps_back_and_gaps_do_not_end_a_run),
		cmocka_unit_test(a_set_that_is_read_without_repeats_is_asked_for),
		cmocka_unit_test(of_a_set_nothing_is_asked_for_unless_there_is_room_for_all),
		cmocka_unit_test(the_last_epoch_tells_the_set_and_not_the_order),
		cmocka_unit_test(opens_that_nobody_told_count_as_repeats),
		cmocka_unit_test(no_directory_is_too_small_or_too_large),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
