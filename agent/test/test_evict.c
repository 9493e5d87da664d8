/* SPDX-License-Identifier: Apache-2.0 */
/* The eviction policies on generated traces, and one by one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include "agent/test/evict_traces.h"

#define MIB (1ull << 20)
#define OBJECTS 4000

static double best_of_fixed(const struct trace *t)
{
	double best = 0;

	for (int i = 0; i < EVICT_FIXED; i++)
		best = fmax(best, trace_replay(t, (enum evict_policy)i, NULL));
	return best;
}

static void a_shuffled_epoch_finds_what_the_cache_holds_of_it(void **state)
{
	static const double fractions[] = {0.25, 0.5, 0.75};

	for (int i = 0; i < 3; i++) {
		uint64_t switches;
		struct trace t;

		trace_shuffled(&t, OBJECTS, fractions[i]);
		assert_true(trace_replay(&t, EVICT_AUTO, &switches) >= 0.95 * fractions[i]);
		assert_int_equal(switches, 1);
		assert_true(trace_replay(&t, EVICT_UNIFORM, NULL) >= 0.95 * fractions[i]);
		/* or there would be no need of it */
		assert_true(trace_replay(&t, EVICT_LRU, NULL) < 0.6 * fractions[i]);
		trace_free(&t);
	}
}

static void check_auto(struct trace *t)
{
	double best = best_of_fixed(t), is = trace_replay(t, EVICT_AUTO, NULL);

	if (is < 0.98 * best)
		fail_msg("%s: %.3f, the best is %.3f", t->name, is, best);
	trace_free(t);
}

static void auto_is_as_good_as_the_best_of_the_others(void **state)
{
	struct trace t;

	trace_shuffled_unequal(&t, OBJECTS, 0.5);
	check_auto(&t);
	trace_sequential(&t, OBJECTS);
	check_auto(&t);
	trace_zipfian(&t, OBJECTS, 0.8);
	check_auto(&t);
	trace_zipfian(&t, OBJECTS, 1.1);
	check_auto(&t);
	trace_mixed(&t, OBJECTS);
	check_auto(&t);
	trace_scans(&t, OBJECTS);
	check_auto(&t);
	trace_jobs(&t, OBJECTS);
	check_auto(&t);
}

static void nobody_finds_more_than_who_knows_the_future(void **state)
{
	struct trace t;

	trace_scans(&t, 500);
	for (int i = 0; i <= EVICT_AUTO; i++)
		assert_true(trace_replay(&t, (enum evict_policy)i, NULL) <= trace_optimum(&t));
	trace_free(&t);
	trace_shuffled_unequal(&t, 500, 0.5);
	for (int i = 0; i <= EVICT_AUTO; i++)
		assert_true(trace_replay(&t, (enum evict_policy)i, NULL) <= trace_optimum(&t));
	trace_free(&t);
	/* a b c in turn, room for two: two of them stay */
	trace_begin(&t, "by hand", 3, 300);
	for (uint32_t i = 0; i < 300; i++)
		trace_use(&t, i % 3);
	t.capacity = 2 * MIB;
	t.to = t.nuses;
	assert_true(fabs(trace_optimum(&t) - 2. / 3) < 0.01);
	assert_true(trace_replay(&t, EVICT_LRU, NULL) == 0);
	trace_free(&t);
}

static void the_same_uses_have_the_same_outcome(void **state)
{
	struct trace t;

	trace_mixed(&t, 1000);
	for (int i = 0; i <= EVICT_AUTO; i++)
		assert_true(trace_replay(&t, (enum evict_policy)i, NULL) ==
			trace_replay(&t, (enum evict_policy)i, NULL));
	trace_free(&t);
}

static uint32_t sampled_of(const struct evict *e, uint32_t n)
{
	uint32_t sampled = 0;

	for (uint32_t i = 0; i < n; i++) {
		struct object_id id = trace_id(i);

		sampled += evict_is_sampled(e, &id);
	}
	return sampled;
}

/* 400,000 objects pass, of which the cache holds 100,000; then it shrinks to a hundredth. */
static void the_shadows_remember_a_bounded_number_of_objects(void **state)
{
	const uint32_t n = 400000;
	struct evict_config config = {.policy = EVICT_AUTO, .capacity = n / 4 * MIB, .max_queue = 100};
	struct evict *e = evict_new(&config);
	struct evict_shadow_stats stats;
	uint64_t most = 0;

	assert_non_null(e);
	assert_int_equal(sampled_of(e, 10000), 10000);
	for (uint32_t i = 0; i < n; i++) {
		struct evict_use use = {.id = trace_id(i), .size = MIB};

		evict_used(e, &use);
		evict_get_shadow_stats(e, &stats);
		most = stats.entries > most ? stats.entries : most;
	}
	assert_true(most > 4 * 4096 && most <= 4 * 8192);
	assert_in_range(sampled_of(e, 10000), 200, 2500);
	evict_set_capacity(e, n / 400 * MIB);
	for (uint32_t i = 0; i < n; i++) {
		struct evict_use use = {.id = trace_id(i), .size = MIB};

		evict_used(e, &use);
	}
	evict_get_shadow_stats(e, &stats);
	assert_in_range(stats.entries, 3000, 4000);
	assert_int_equal(sampled_of(e, 10000), 10000);
	evict_free(e);
}

/* ---- one by one; the main order is the caller's ---- */

static struct evict *begin(enum evict_policy policy)
{
	struct evict_config config = {.policy = policy, .capacity = 1000, .max_queue = 50, .max_ghosts = 50};
	struct evict *e = evict_new(&config);

	assert_non_null(e);
	return e;
}

static void use(struct evict *e, uint32_t object, bool is_resident)
{
	evict_used(e, &(struct evict_use){trace_id(object), 10, is_resident, is_resident ? 100 : 0});
}

static void come(struct evict *e, uint32_t object)
{
	struct object_id id = trace_id(object);

	use(e, object, false);
	evict_admitted(e, &id, 10, true);
}

static bool is_queued(struct evict *e, uint32_t object)
{
	struct object_id id = trace_id(object);

	return evict_is_queued(e, &id);
}

static void assert_next(struct evict *e, uint32_t object)
{
	struct object_id id, want = trace_id(object);

	assert_true(evict_queue_next(e, &id));
	assert_memory_equal(&id, &want, sizeof(id));
}

static void go(struct evict *e, uint32_t object)
{
	struct object_id id = trace_id(object);

	evict_removed(e, &id, 10, true);
}

static unsigned plan_of(struct evict *e, uint64_t now, struct evict_source plan[EVICT_FROMS])
{
	unsigned n = evict_plan(e, now, 100, plan);

	assert_true(n > 0 && n <= EVICT_FROMS);
	return n;
}

static void lru_has_no_newcomers(void **state)
{
	struct evict_source plan[EVICT_FROMS];
	struct evict *e = begin(EVICT_LRU);
	struct object_id id;

	come(e, 1);
	assert_false(is_queued(e, 1));
	assert_int_equal(plan_of(e, 10, plan), 1);
	assert_int_equal(plan[0].from, EVICT_OLDEST);
	assert_false(evict_queue_next(e, &id));
	evict_free(e);
}

static void s3fifo_sends_newcomers_that_were_not_used_again(void **state)
{
	struct evict_source plan[EVICT_FROMS];
	struct evict *e = begin(EVICT_S3FIFO);

	for (uint32_t i = 0; i < 10; i++)
		come(e, i);
	plan_of(e, 10, plan);
	assert_int_equal(plan[0].from, EVICT_OLDEST); /* a tenth of the cache is theirs */
	come(e, 10);
	plan_of(e, 11, plan);
	assert_int_equal(plan[0].from, EVICT_QUEUE);
	use(e, 0, true);
	assert_next(e, 1);
	assert_false(is_queued(e, 0)); /* promoted */
	go(e, 1);
	assert_next(e, 2);
	assert_next(e, 3); /* 2 could not go: it is in use */
	go(e, 3);
	come(e, 1); /* again, so soon */
	assert_false(is_queued(e, 1));
	come(e, 11);
	assert_true(is_queued(e, 11));
	evict_free(e);
}

static void what_was_fetched_ahead_may_wait_for_its_use(void **state)
{
	struct evict *e = begin(EVICT_S3FIFO);
	struct object_id id = trace_id(1);

	evict_admitted(e, &id, 10, false);
	come(e, 2);
	assert_next(e, 2);
	go(e, 2);
	use(e, 1, true); /* the use that it came for is no second one */
	assert_next(e, 1);
	assert_true(is_queued(e, 1));
	go(e, 1);
	id = trace_id(3);
	evict_admitted(e, &id, 10, false);
	assert_false(evict_queue_next(e, &id));
	for (uint32_t i = 0; i < 24; i++) {
		come(e, 100 + i);
		assert_next(e, 100 + i);
		go(e, 100 + i);
	}
	come(e, 200);
	assert_next(e, 3); /* but not for ever: as much came since as a quarter of the cache */
	evict_free(e);
}

static void uniform_lets_newcomers_pass_and_keeps_the_rest(void **state)
{
	struct evict_source plan[EVICT_FROMS];
	struct evict *e = begin(EVICT_UNIFORM);

	for (uint32_t i = 0; i < 100; i++)
		come(e, i);
	assert_int_equal(evict_queue_count(e), 0); /* there was room */
	assert_int_equal(plan_of(e, 100, plan), 1);
	assert_int_equal(plan[0].from, EVICT_OLDEST); /* once, for newcomers to have room */
	go(e, 0);
	go(e, 1);
	come(e, 100);
	come(e, 101);
	assert_true(is_queued(e, 100) && is_queued(e, 101));
	plan_of(e, 102, plan);
	assert_int_equal(plan[0].from, EVICT_QUEUE);
	assert_int_equal(plan[1].from, EVICT_NEWEST);
	assert_next(e, 100);
	go(e, 100);
	evict_free(e);
}

static void uniform_gives_up_what_was_not_used_for_long(void **state)
{
	struct evict_source plan[EVICT_FROMS];
	struct evict *e = begin(EVICT_UNIFORM);
	struct object_id id;

	for (uint32_t i = 0; i < 100; i++)
		come(e, i);
	for (uint32_t i = 0; i < 100; i++)
		use(e, i, true); /* each 100 uses after the last time */
	plan_of(e, 1000, plan);
	assert_int_equal(plan[0].from, EVICT_STALE);
	assert_true(plan[0].before > 1000 - 200 && plan[0].before <= 1000 - 100);
	/* and its place is a newcomer's, but for what is needed to pass through */
	for (uint32_t i = 0; i < 6; i++) {
		go(e, i);
		come(e, 100 + i);
	}
	assert_int_equal(evict_queue_count(e), 6);
	assert_true(evict_queue_next(e, &id));
	assert_int_equal(evict_queue_count(e), 3);
	assert_false(is_queued(e, 100) || is_queued(e, 101) || is_queued(e, 102));
	evict_free(e);
}

static void more_newcomers_than_can_be_remembered_are_none(void **state)
{
	struct evict *e = begin(EVICT_S3FIFO);

	for (uint32_t i = 0; i < 200; i++)
		come(e, i);
	assert_int_equal(evict_queue_count(e), 50);
	for (uint32_t i = 0; i < 50; i++) {
		assert_next(e, i);
		go(e, i);
	}
	assert_int_equal(evict_queue_count(e), 0);
	evict_free(e);
}

static void names_are_what_settings_say(void **state)
{
	enum evict_policy policy;

	for (int i = 0; i <= EVICT_AUTO; i++) {
		assert_int_equal(evict_policy_parse(evict_policy_name((enum evict_policy)i), &policy), 0);
		assert_int_equal(policy, i);
	}
	assert_int_equal(evict_policy_parse("fifo", &policy), -EINVAL);
	assert_int_equal(evict_policy_parse("", &policy), -EINVAL);
}

/* What was there at start is in the shadows before anybody reads it. */
static void a_cache_that_was_full_at_start_is_known(void **state)
{
	struct evict *e = begin(EVICT_AUTO);
	struct evict_shadow_stats stats;

	for (uint32_t i = 0; i < 100; i++) {
		struct object_id id = trace_id(i);

		evict_seed(e, &id, 10);
	}
	evict_get_shadow_stats(e, &stats);
	assert_int_equal(stats.entries, 300);
	assert_int_equal(stats.bytes, 0);
	use(e, 7, true);
	evict_get_shadow_stats(e, &stats);
	assert_int_equal(stats.hit_bytes[EVICT_LRU], 10);
	assert_int_equal(stats.hit_bytes[EVICT_UNIFORM], 10);
	evict_free(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_shuffled_epoch_finds_what_the_cache_holds_of_it),
		cmocka_unit_test(auto_is_as_good_as_the_best_of_the_others),
		cmocka_unit_test(nobody_finds_more_than_who_knows_the_future),
		cmocka_unit_test(the_same_uses_have_the_same_outcome),
		cmocka_unit_test(the_shadows_remember_a_bounded_number_of_objects),
		cmocka_unit_test(lru_has_no_newcomers),
		cmocka_unit_test(s3fifo_sends_newcomers_that_were_not_used_again),
		cmocka_unit_test(what_was_fetched_ahead_may_wait_for_its_use),
		cmocka_unit_test(uniform_lets_newcomers_pass_and_keeps_the_rest),
		cmocka_unit_test(uniform_gives_up_what_was_not_used_for_long),
		cmocka_unit_test(more_newcomers_than_can_be_remembered_are_none),
		cmocka_unit_test(names_are_what_settings_say),
		cmocka_unit_test(a_cache_that_was_full_at_start_is_known),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
