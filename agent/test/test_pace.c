/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast an origin is asked: bandwidth, requests per second, connections. All with a clock of the test's own,
 * against models of a line.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "agent/bucket.h"
#include "agent/pace.h"

#define MS 1000000LL
#define S (1000 * MS)
#define MIB (1024.0 * 1024)

/* ---- bandwidth ---- */

static void bandwidth_is_kept_on_average_whatever_is_taken(void **state)
{
	struct bucket b;
	int64_t now = 5 * S, at = 0;
	uint64_t taken = 0;

	bucket_init(&b, 10000000, now);
	while (now < 15 * S) {
		if (!bucket_allows(&b, now, &at)) {
			assert_true(at > now);
			now = at;
			continue;
		}
		bucket_take(&b, 3000000);
		taken += 3000000;
	}
	assert_in_range(taken, 100000000, 106000000);
}

static void what_was_not_used_is_given_back(void **state)
{
	struct bucket b;
	int64_t at = 0;

	bucket_init(&b, 1000000, 0);
	bucket_take(&b, 5000000);
	assert_false(bucket_allows(&b, 0, &at));
	assert_in_range(at, 4700 * MS, 4760 * MS); /* 256 KiB were saved up */
	bucket_return(&b, 5000000);
	assert_true(bucket_allows(&b, 0, &at));
}

static void no_limit_is_no_limit(void **state)
{
	struct bucket b;
	int64_t at = 0;

	bucket_init(&b, 0, 0);
	bucket_take(&b, UINT64_MAX / 2);
	assert_true(bucket_allows(&b, 0, &at));
}

static void a_slow_limit_loses_no_part_of_a_byte(void **state)
{
	struct bucket b;
	int64_t at = 0;
	uint64_t taken = 0;

	bucket_init(&b, 1000, 0);
	bucket_take(&b, 256 * 1024);
	/* asked a thousand times a second */
	for (int64_t now = 0; now < 100 * S; now += MS)
		if (bucket_allows(&b, now, &at)) {
			bucket_take(&b, 10);
			taken += 10;
		}
	assert_in_range(taken, 99000, 100020);
}

/* ---- requests ---- */

/* A server that takes `allowed` requests per second and complains about the rest, for ten seconds. */
static unsigned served_in_ten_seconds(struct request_rate *r, int64_t *now, unsigned allowed, unsigned *ret_refused)
{
	int64_t end = *now + 10 * S, second = *now, at = 0;
	unsigned in_second = 0, served = 0;

	*ret_refused = 0;
	for (; *now < end; *now += MS) {
		if (*now - second >= S) {
			second = *now;
			in_second = 0;
		}
		if (!request_rate_allows(r, *now, &at))
			continue;
		request_rate_take(r);
		if (++in_second <= allowed) {
			request_rate_answered(r, *now);
			served++;
		} else {
			request_rate_complain(r, *now);
			(*ret_refused)++;
		}
	}
	return served;
}

static void requests_go_down_to_what_the_server_takes_and_up_again(void **state)
{
	struct request_rate r = {0};
	int64_t now = 100 * S;
	unsigned refused, served;

	/* as many as there are, a thousand a second, where it takes them */
	assert_int_equal(served_in_ten_seconds(&r, &now, 2000, &refused), 10000);
	assert_int_equal(refused, 0);
	served_in_ten_seconds(&r, &now, 200, &refused);
	served = served_in_ten_seconds(&r, &now, 200, &refused);
	assert_in_range(served, 1400, 2000);
	assert_true(refused < served / 5);
	/* it has recovered: a minute without a complaint ends the limit */
	for (int i = 0; i < 8; i++)
		served = served_in_ten_seconds(&r, &now, 2000, &refused);
	assert_int_equal(served, 10000);
	assert_true(r.limit == 0);
}

static void an_outage_is_no_matter_of_rates(void **state)
{
	struct request_rate r = {0};
	int64_t at = 0;

	for (int64_t now = S; now < 20 * S; now += 100 * MS) {
		request_rate_take(&r);
		request_rate_complain(&r, now);
		assert_true(request_rate_allows(&r, now, &at));
	}
}

static void the_time_for_the_next_request_is_told(void **state)
{
	struct request_rate r = {0};
	int64_t now = 10 * S, at = 0;

	for (int i = 0; i < 40; i++)
		request_rate_answered(&r, now);
	request_rate_complain(&r, now);
	request_rate_complain(&r, now);
	assert_true(request_rate_allows(&r, now, &at)); /* two are an accident */
	request_rate_complain(&r, now);
	assert_true(r.limit > 27.9 && r.limit < 28.1);
	assert_false(request_rate_allows(&r, now, &at));
	assert_in_range(at, now + 30 * MS, now + 40 * MS);
	assert_true(request_rate_allows(&r, at, &at));
}

/* ---- connections ---- */

/* A line: n connections get rate(n). Runs `ms` of it, in steps of 10 ms, always with as many as are allowed. */
static void run_line(struct gain *g, int64_t *now, int64_t ms, double (*rate)(unsigned n))
{
	for (int64_t end = *now + ms * MS; *now < end; *now += 10 * MS)
		gain_bytes(g, *now, (uint64_t)(rate(g->limit) / 100), g->limit, 120 * MS);
}

static double far_away(unsigned n) /* each connection brings as much as the others */
{
	return n * 20 * MIB;
}

static double full_line(unsigned n) /* four fill it */
{
	return (n < 4 ? n / 4.0 : 1) * 119 * MIB;
}

static double twelve_fill_it(unsigned n)
{
	return (n < 12 ? n / 12.0 : 1) * 119 * MIB;
}

static void connections_are_added_while_they_pay(void **state)
{
	struct gain g;
	int64_t now = S;

	gain_init(&g, 8, 4, 24);
	run_line(&g, &now, 1500, far_away);
	assert_int_equal(g.limit, 24);
}

static void a_full_line_gets_few(void **state)
{
	struct gain g;
	int64_t now = S;

	gain_init(&g, 8, 4, 24);
	run_line(&g, &now, 10000, full_line);
	assert_in_range(g.limit, 4, 6);
}

static void what_pays_is_kept(void **state)
{
	struct gain g;
	int64_t now = S;
	unsigned good = 0;

	gain_init(&g, 8, 4, 24);
	run_line(&g, &now, 3000, twelve_fill_it);
	for (int i = 0; i < 300; i++) {
		run_line(&g, &now, 100, twelve_fill_it);
		good += g.limit >= 12;
	}
	assert_true(good > 280);
	/* the line is another one all at once */
	run_line(&g, &now, 60000, full_line);
	assert_in_range(g.limit, 4, 9);
	run_line(&g, &now, 60000, far_away);
	assert_int_equal(g.limit, 24);
}

static void a_line_that_is_not_full_tells_nothing(void **state)
{
	struct gain g;

	gain_init(&g, 8, 4, 24);
	for (int64_t now = S; now < 60 * S; now += 10 * MS)
		gain_bytes(&g, now, 1000, 2, 120 * MS);
	assert_int_equal(g.limit, 8);
}

/* ---- what follows ---- */

static void reads_below_demand_keep_to_what_pays(void **state)
{
	struct pace p;
	int64_t at = 0;

	pace_init(&p, 24);
	for (int i = 0; i < 8; i++) {
		assert_true(pace_allows(&p, GET_STREAM, S, &at));
		pace_began(&p, GET_STREAM, S);
	}
	assert_false(pace_allows(&p, GET_STREAM, S, &at));
	assert_true(at == INT64_MAX);
	assert_true(pace_allows(&p, GET_DEMAND, S, &at));
	pace_ended(&p, GET_STREAM, S);
	assert_true(pace_allows(&p, GET_STREAM, S, &at));
	pace_done(&p);
}

/* Of so many reads below demand that bring `mib` MiB per second together. */
static uint64_t low_window(struct pace *p, unsigned nlow, uint64_t mib, int64_t rtt_ns)
{
	pace_init(p, 24);
	for (unsigned i = 0; i < nlow; i++)
		pace_began(p, GET_WARM, S);
	pace_rtt(p, rtt_ns);
	for (int64_t now = S; now < 4 * S; now += 10 * MS)
		pace_bytes(p, now, (mib << 20) / 100, 10 * MS);
	return pace_low_window(p);
}

static void what_nobody_waits_for_keeps_the_line_before_a_full_one_short(void **state)
{
	struct pace p;

	pace_init(&p, 24);
	assert_true(pace_low_window(&p) == UINT64_MAX); /* nothing is known */
	pace_done(&p);
	/* 8 ms of the line, shared */
	assert_in_range(low_window(&p, 4, 100, MS / 100), 200 << 10, 212 << 10);
	pace_done(&p);
	/* a long line holds more: twice, so that the rate can be found to be higher than it was */
	assert_in_range(low_window(&p, 4, 100, 30 * MS), 1700 << 10, 1750 << 10);
	pace_done(&p);
	assert_int_equal(low_window(&p, 24, 1, MS / 100), 64 << 10);
	pace_done(&p);
	assert_true(low_window(&p, 4, 400, MS / 100) == UINT64_MAX);
	/* for some time it is remembered how fast it can be */
	for (int64_t now = 4 * S; now < 6 * S; now += 50 * MS)
		pace_bytes(&p, now, 1 << 20, 50 * MS);
	assert_true(pace_low_window(&p) == UINT64_MAX);
	for (int64_t now = 6 * S; now < 60 * S; now += 50 * MS)
		pace_bytes(&p, now, 1 << 20, 50 * MS);
	assert_in_range(pace_low_window(&p), 64 << 10, 80 << 10);
	pace_done(&p);
}

static void the_window_follows_latency_and_speed(void **state)
{
	struct pace p;
	struct pace_advice slow, fast;

	pace_init(&p, 24);
	pace_first_byte(&p, S, 30 * MS);
	/* 20 MiB/s by one connection: GETs of half a second are 8 MiB, as a power of two */
	for (int64_t now = S; now < 4 * S; now += 50 * MS)
		pace_bytes(&p, now, 1 << 20, 50 * MS);
	pace_advise(&p, &slow);
	assert_int_equal(slow.get_bytes, 8 << 20);
	assert_in_range(slow.window_bytes, 33 << 20, 34 << 20); /* four GETs, and twice what the line holds */
	/* 1 GiB/s by 16 connections at 200 ms */
	pace_done(&p);
	pace_init(&p, 24);
	pace_first_byte(&p, S, 200 * MS);
	for (int64_t now = S; now < 4 * S; now += 10 * MS)
		pace_bytes(&p, now, 10 << 20, 160 * MS);
	pace_advise(&p, &fast);
	assert_int_equal(fast.get_bytes, 16 << 20);
	assert_in_range(fast.window_bytes, 400ULL << 20, 500ULL << 20);
	pace_done(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bandwidth_is_kept_on_average_whatever_is_taken),
		cmocka_unit_test(what_was_not_used_is_given_back),
		cmocka_unit_test(no_limit_is_no_limit),
		cmocka_unit_test(a_slow_limit_loses_no_part_of_a_byte),
		cmocka_unit_test(requests_go_down_to_what_the_server_takes_and_up_again),
		cmocka_unit_test(an_outage_is_no_matter_of_rates),
		cmocka_unit_test(the_time_for_the_next_request_is_told),
		cmocka_unit_test(connections_are_added_while_they_pay),
		cmocka_unit_test(a_full_line_gets_few),
		cmocka_unit_test(what_pays_is_kept),
		cmocka_unit_test(a_line_that_is_not_full_tells_nothing),
		cmocka_unit_test(reads_below_demand_keep_to_what_pays),
		cmocka_unit_test(what_nobody_waits_for_keeps_the_line_before_a_full_one_short),
		cmocka_unit_test(the_window_follows_latency_and_speed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
