/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/test/origin_fixture.h"

#include "agent/breaker.h"

#define MS 1000000LL

static void fail_times(struct breaker *b, unsigned n, int64_t now_ns)
{
	for (unsigned i = 0; i < n; i++)
		assert_false(breaker_failed(b, now_ns, -1, 0));
}

/* Opens it at now_ns; the first probe is due 125 ms later. */
static void open_it(struct breaker *b, int64_t now_ns)
{
	*b = (struct breaker){0};
	fail_times(b, BREAKER_FAILURES - 1, now_ns);
	assert_true(breaker_failed(b, now_ns, -1, 0));
	assert_int_equal(b->state, BREAKER_OPEN);
}

static void scattered_failures_never_open_it(void **state)
{
	struct breaker b = {0};
	int64_t at = -1;

	(void)state;
	for (int i = 0; i < 100; i++) {
		fail_times(&b, BREAKER_FAILURES - 1, i * MS);
		assert_true(breaker_allows(&b, i * MS, &at));
		assert_false(breaker_answered(&b));
	}
	assert_int_equal(b.state, BREAKER_CLOSED);
	assert_int_equal(at, -1);
}

static void open_breaker_lets_one_probe_go_when_it_is_due(void **state)
{
	struct breaker b;
	int64_t at = 0;

	(void)state;
	open_it(&b, 1000 * MS);
	assert_false(breaker_allows(&b, 1000 * MS, &at));
	assert_int_equal(at, 1125 * MS);
	assert_false(breaker_allows(&b, 1125 * MS - 1, &at));
	assert_int_equal(b.state, BREAKER_OPEN);
	assert_true(breaker_allows(&b, 1125 * MS, &at));
	assert_int_equal(b.state, BREAKER_HALF_OPEN);
	assert_false(breaker_allows(&b, 1126 * MS, &at));
	assert_int_equal(at, (1125 + BREAKER_PROBE_MS) * MS);
}

static void answer_closes_it_whoever_asked(void **state)
{
	struct breaker b;
	int64_t at;

	(void)state;
	open_it(&b, 0);
	/* one that was under way when it opened */
	assert_true(breaker_answered(&b));
	assert_true(breaker_allows(&b, 0, &at));
	open_it(&b, 0);
	assert_true(breaker_allows(&b, 125 * MS, &at));
	assert_true(breaker_answered(&b));
	assert_false(breaker_answered(&b));
	/* and the count starts anew */
	fail_times(&b, BREAKER_FAILURES - 1, 200 * MS);
}

static void probes_that_fail_come_less_often_up_to_the_cap(void **state)
{
	static const int64_t least_ms[] = {250, 500, 500, 500, 500};
	struct breaker b;
	int64_t now = 125 * MS, at;

	(void)state;
	open_it(&b, 0);
	for (size_t i = 0; i < sizeof(least_ms) / sizeof(least_ms[0]); i++) {
		struct breaker most;

		assert_true(breaker_allows(&b, now, &at));
		most = b;
		assert_false(breaker_failed(&most, now, -1, UINT32_MAX));
		assert_int_equal(most.probe_at_ns, now + 2 * least_ms[i] * MS);
		assert_false(breaker_failed(&b, now, -1, 0));
		assert_int_equal(b.probe_at_ns, now + least_ms[i] * MS);
		assert_int_equal(b.opened_ns, 0);
		now = b.probe_at_ns;
	}
}

static void late_failures_do_not_push_the_probe_away(void **state)
{
	struct breaker b;

	(void)state;
	open_it(&b, 0);
	for (int i = 0; i < 50; i++)
		assert_false(breaker_failed(&b, i * MS, 1000, 0));
	assert_int_equal(b.probe_at_ns, 125 * MS);
}

static void server_that_asks_for_time_gets_it_within_bounds(void **state)
{
	struct breaker b = {0};
	int64_t at;

	(void)state;
	fail_times(&b, BREAKER_FAILURES - 1, 0);
	assert_true(breaker_failed(&b, 0, 3000, 0));
	assert_int_equal(b.probe_at_ns, 3000 * MS);
	assert_true(breaker_allows(&b, 3000 * MS, &at));
	assert_false(breaker_failed(&b, 3000 * MS, 86400000, 0));
	assert_int_equal(b.probe_at_ns, (3000 + BREAKER_ASKED_MAX_MS) * MS);
}

static void probe_that_hangs_or_is_cancelled_makes_room_for_another(void **state)
{
	struct breaker b;
	int64_t at;

	(void)state;
	open_it(&b, 0);
	assert_true(breaker_allows(&b, 125 * MS, &at));
	assert_true(breaker_allows(&b, (125 + BREAKER_PROBE_MS) * MS, &at));
	breaker_abandoned(&b, 6000 * MS);
	assert_true(breaker_allows(&b, 6000 * MS, &at));
	assert_true(breaker_answered(&b));
	breaker_abandoned(&b, 7000 * MS);
	assert_int_equal(b.state, BREAKER_CLOSED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(scattered_failures_never_open_it),
		cmocka_unit_test(open_breaker_lets_one_probe_go_when_it_is_due),
		cmocka_unit_test(answer_closes_it_whoever_asked),
		cmocka_unit_test(probes_that_fail_come_less_often_up_to_the_cap),
		cmocka_unit_test(late_failures_do_not_push_the_probe_away),
		cmocka_unit_test(server_that_asks_for_time_gets_it_within_bounds),
		cmocka_unit_test(probe_that_hangs_or_is_cancelled_makes_room_for_another),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
