/* SPDX-License-Identifier: Apache-2.0 */
/* The queue of reads, with the test as its only lane: who goes first, and who not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/get_queue.h"
#include "common/lock.h"

#define READS 16

struct read {
	struct origin_get get;
	char name;
	int ndone, status;
};

struct fixture {
	struct get_queue *queue;
	struct origin origin;
	struct read reads[READS];
	struct get_job *running[READS];
	unsigned nreads, nrunning;
	bool brings_nothing;
	char order[64]; /* names of reads as they were given to the lane, cancelled ones in capitals */
};

static struct fixture fixture;
static int64_t now_ns;

static int64_t now(void)
{
	return now_ns;
}

static void done(void *arg, int status, const struct wd_err *err)
{
	struct read *r = arg;

	r->ndone++;
	r->status = status;
	if (status == -ECANCELED)
		snprintf(fixture.order + strlen(fixture.order), 2, "%c", r->name - 32);
}

static int begin(void **state)
{
	struct fixture *f = &fixture;

	memset(f, 0, sizeof(*f));
	f->queue = get_queue_new(1, 4, NULL, NULL, now); /* of 4 places one is for demand */
	assert_non_null(f->queue);
	*state = f;
	return 0;
}

static int end(void **state)
{
	struct fixture *f = *state;

	get_queue_free(f->queue);
	assert_int_equal(f->origin.in_flight, 0);
	for (unsigned i = 0; i < f->nreads; i++)
		assert_int_equal(f->reads[i].ndone, 1);
	return 0;
}

static struct read *push(struct fixture *f, char name, enum get_priority priority)
{
	struct read *r = &f->reads[f->nreads++];

	r->name = name;
	r->get = (struct origin_get){.priority = priority, .done = done, .arg = r};
	get_queue_push(f->queue, &f->origin, &r->get);
	return r;
}

/* The lane's thread takes what it was given. */
static void take(struct fixture *f)
{
	struct get_job *job;

	get_queue_end_cancelled(f->queue);
	while ((job = get_queue_take(f->queue, 0))) {
		const struct read *r = job->get->arg;

		snprintf(f->order + strlen(f->order), 2, "%c", r->name);
		f->running[f->nrunning++] = job;
	}
}

/* ... and has finished the oldest that runs. */
static void finish(struct fixture *f)
{
	if (!f->brings_nothing)
		f->running[0]->get->resume.given = f->running[0]->get->length;
	get_queue_finish(f->queue, f->running[0], 0, NULL);
	memmove(f->running, f->running + 1, sizeof(f->running[0]) * --f->nrunning);
	take(f);
}

static void finish_all(struct fixture *f)
{
	while (f->nrunning > 0)
		finish(f);
}

static void a_higher_class_goes_first(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 4; i++)
		push(f, 'x', GET_DEMAND);
	push(f, 'w', GET_WARM);
	push(f, 'd', GET_DIRECTORY);
	push(f, 's', GET_STREAM);
	push(f, 't', GET_STREAM);
	push(f, 'r', GET_DEMAND);
	take(f);
	finish_all(f);
	assert_string_equal(f->order, "xxxxrstdw");
}

static void a_place_is_kept_for_demand(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 5; i++)
		push(f, 'a', GET_STREAM);
	take(f);
	assert_string_equal(f->order, "aaa");
	push(f, 'r', GET_DEMAND);
	take(f);
	assert_string_equal(f->order, "aaar");
	finish(f);
	assert_string_equal(f->order, "aaara");
	finish_all(f);
}

static void a_raised_read_goes_at_once(void **state)
{
	struct fixture *f = *state;
	struct read *last;

	for (int i = 0; i < 6; i++)
		push(f, 'a', GET_STREAM);
	last = push(f, 'r', GET_WARM);
	take(f);
	assert_string_equal(f->order, "aaa");
	get_queue_prioritise(f->queue, &last->get, GET_DEMAND);
	take(f);
	assert_string_equal(f->order, "aaar");
	/* ... and one that runs is known to be waited for */
	assert_int_equal(get_queue_class(f->queue, f->running[0]), GET_STREAM);
	get_queue_prioritise(f->queue, f->running[0]->get, GET_DEMAND);
	assert_int_equal(get_queue_class(f->queue, f->running[0]), GET_DEMAND);
	finish_all(f);
	assert_string_equal(f->order, "aaaraaa");
	assert_int_equal(last->status, 0);
	get_queue_prioritise(f->queue, &last->get, GET_STREAM); /* it is over: nothing happens */
}

static void a_read_is_raised_before_it_is_pushed(void **state)
{
	struct fixture *f = *state;
	struct read *r = &f->reads[READS - 1];

	for (int i = 0; i < 4; i++)
		push(f, 'a', GET_STREAM);
	*r = (struct read){.name = 'r', .get = {.priority = GET_WARM, .done = done, .arg = r}};
	get_queue_prioritise(f->queue, &r->get, GET_DEMAND);
	get_queue_push(f->queue, &f->origin, &r->get);
	take(f);
	assert_string_equal(f->order, "aaar");
	finish_all(f);
	assert_int_equal(r->ndone, 1);
}

static void what_nobody_wants_ends_if_it_has_not_begun(void **state)
{
	struct fixture *f = *state;
	struct read *first = push(f, 'a', GET_STREAM), *b, *c, *d;

	push(f, 'x', GET_DEMAND);
	push(f, 'x', GET_DEMAND);
	push(f, 'x', GET_DEMAND);
	b = push(f, 'b', GET_STREAM);
	c = push(f, 'c', GET_STREAM);
	d = push(f, 'd', GET_STREAM);
	take(f);
	get_queue_prioritise(f->queue, &first->get, GET_UNWANTED);
	get_queue_prioritise(f->queue, &b->get, GET_UNWANTED);
	get_queue_prioritise(f->queue, &c->get, GET_UNWANTED);
	take(f);
	assert_string_equal(f->order, "axxxBC");
	assert_int_equal(b->status, -ECANCELED);
	assert_int_equal(first->ndone, 0);
	finish_all(f);
	assert_string_equal(f->order, "axxxBCd");
	assert_int_equal(first->status, 0);
	assert_int_equal(d->status, 0);
}

static void a_parked_read_comes_back_in_its_new_class(void **state)
{
	struct fixture *f = *state;
	struct read *p = push(f, 'p', GET_WARM), *u = push(f, 'u', GET_WARM);

	take(f);
	get_queue_park(f->queue, f->running[0], 100);
	get_queue_park(f->queue, f->running[1], 200);
	f->nrunning = 0;
	for (int i = 0; i < 4; i++)
		push(f, 'x', GET_DEMAND);
	push(f, 's', GET_STREAM);
	take(f);
	get_queue_prioritise(f->queue, &p->get, GET_DEMAND);
	get_queue_prioritise(f->queue, &u->get, GET_UNWANTED);
	assert_int_equal(get_queue_unpark(f->queue, 50), 100);
	assert_int_equal(get_queue_unpark(f->queue, 100), INT64_MAX);
	take(f);
	finish_all(f);
	assert_string_equal(f->order, "puxxxxUps");
}

/* ---- flows ---- */

static struct read *push_of(struct fixture *f, char name, struct flow *flow, enum get_priority priority)
{
	struct read *r = &f->reads[f->nreads++];

	r->name = name;
	r->get = (struct origin_get){.priority = priority, .flow = flow, .length = 1000000, .done = done, .arg = r};
	get_queue_push(f->queue, &f->origin, &r->get);
	return r;
}

static void a_flow_with_many_reads_does_not_starve_another(void **state)
{
	struct fixture *f = *state;
	struct flow *many = flow_new(0), *one = flow_new(0);

	for (int i = 0; i < 10; i++)
		push_of(f, 'm', many, GET_DEMAND);
	for (int i = 0; i < 3; i++)
		push_of(f, 'o', one, GET_DEMAND);
	take(f);
	assert_string_equal(f->order, "mmmm");
	finish(f);
	finish(f);
	assert_string_equal(f->order, "mmmmoo"); /* two each by now */
	finish_all(f);
	assert_int_equal(strlen(f->order), 13);
	flow_unref(many);
	flow_unref(one);
}

static void a_flow_keeps_to_its_bandwidth_and_others_go_on(void **state)
{
	struct fixture *f = *state;
	struct flow *slow = flow_new(1000000), *free_flow = flow_new(0);
	int64_t due;

	now_ns = 1000000000;
	for (int i = 0; i < 3; i++)
		push_of(f, 's', slow, GET_DEMAND);
	for (int i = 0; i < 2; i++)
		push_of(f, 'f', free_flow, GET_WARM);
	take(f);
	assert_string_equal(f->order, "sff");
	finish_all(f);
	/* it is in debt with what the first one took, but for the 256 KiB that were saved up */
	due = get_queue_unpark(f->queue, now_ns);
	assert_in_range(due, now_ns + 730000000, now_ns + 740000000);
	take(f);
	assert_string_equal(f->order, "sff");
	now_ns = due;
	assert_in_range(get_queue_unpark(f->queue, now_ns), now_ns + 1, INT64_MAX - 1);
	take(f);
	assert_string_equal(f->order, "sffs");
	/* one that brought nothing costs nothing */
	f->brings_nothing = true;
	finish(f);
	assert_string_equal(f->order, "sffss");
	finish_all(f);
	flow_unref(slow);
	flow_unref(free_flow);
}

static void all_flows_together_keep_to_the_limit_of_all(void **state)
{
	struct fixture *f = *state;
	struct flow *a = flow_new(0), *b = flow_new(0);

	now_ns = 1000000000;
	flows_set_limit(1000000);
	push_of(f, 'a', a, GET_DEMAND);
	push_of(f, 'b', b, GET_DEMAND);
	take(f);
	assert_string_equal(f->order, "a");
	now_ns = wd_now_ns() + 2000000000;
	get_queue_unpark(f->queue, now_ns);
	take(f);
	assert_string_equal(f->order, "ab");
	finish_all(f);
	flows_set_limit(0);
	flow_unref(a);
	flow_unref(b);
}

static void an_origin_that_takes_no_more_leaves_the_places_to_others(void **state)
{
	struct fixture *f = *state;
	struct pace pace;

	pace_init(&pace, 1);
	f->origin.pace = &pace;
	push(f, 'a', GET_STREAM);
	push(f, 'b', GET_STREAM);
	push(f, 'r', GET_DEMAND);
	take(f);
	assert_string_equal(f->order, "ar");
	finish(f);
	assert_string_equal(f->order, "arb");
	finish_all(f);
	pace_done(&pace);
}

/* ---- quiet beside readers ---- */

/* An endpoint that brings so many MB per second. */
static void use_pace(struct fixture *f, struct pace *pace, uint64_t mb)
{
	pace_init(pace, 24);
	for (now_ns = 1000000000; now_ns < 2000000000; now_ns += 10000000)
		pace_bytes(pace, now_ns, mb * 10000, 10000000);
	f->origin.pace = pace;
}

static void few_begin_for_nobody_while_a_reader_waits_and_a_while_longer(void **state)
{
	struct fixture *f = *state;
	struct pace pace;

	use_pace(f, &pace, 100);
	push(f, 'r', GET_DEMAND);
	for (int i = 0; i < 3; i++)
		push(f, 'w', GET_WARM);
	take(f);
	assert_string_equal(f->order, "rww");
	now_ns += 5000000000; /* however long it waits */
	assert_true(get_queue_unpark(f->queue, now_ns) == INT64_MAX);
	finish(f);
	assert_string_equal(f->order, "rww");
	/* the next read may come at any moment: until then nothing has to happen for them to go on */
	assert_true(get_queue_unpark(f->queue, now_ns) == now_ns + PACE_QUIET_NS);
	now_ns += PACE_QUIET_NS;
	get_queue_unpark(f->queue, now_ns);
	take(f);
	assert_string_equal(f->order, "rwww");
	finish_all(f);
	pace_done(&pace);
}

static void readers_that_never_end_leave_a_few_going_on(void **state)
{
	struct fixture *f = *state;
	struct pace pace;

	use_pace(f, &pace, 100);
	for (int i = 0; i < 4; i++)
		push(f, 'w', GET_WARM); /* three places */
	take(f);
	assert_string_equal(f->order, "www");
	push(f, 'r', GET_DEMAND);
	take(f);
	finish(f);
	assert_string_equal(f->order, "wwwr"); /* two run: no third */
	finish(f);
	assert_string_equal(f->order, "wwwrw"); /* ... but another second one */
	finish_all(f);
	pace_done(&pace);
}

static void what_goes_ahead_of_a_reader_is_not_held_up(void **state)
{
	struct fixture *f = *state;
	struct pace pace;

	use_pace(f, &pace, 100);
	push(f, 'r', GET_DEMAND);
	push(f, 'd', GET_DIRECTORY);
	push(f, 'w', GET_WARM);
	push(f, 's', GET_STREAM);
	take(f);
	assert_string_equal(f->order, "rdws");
	finish_all(f);
	pace_done(&pace);
}

static void a_fast_endpoint_has_room_for_all(void **state)
{
	struct fixture *f = *state;
	struct pace pace;

	use_pace(f, &pace, 400);
	push(f, 'r', GET_DEMAND);
	for (int i = 0; i < 3; i++)
		push(f, 'w', GET_WARM);
	take(f);
	assert_string_equal(f->order, "rwww");
	finish_all(f);
	pace_done(&pace);
}

static void a_reader_of_another_origin_is_no_reason(void **state)
{
	struct fixture *f = *state;
	struct pace pace, other_pace;
	struct origin other = {.pace = &other_pace};
	struct read *r = &f->reads[f->nreads++];

	use_pace(f, &pace, 100);
	pace_init(&other_pace, 24);
	for (int64_t t = 1000000000; t < 2000000000; t += 10000000)
		pace_bytes(&other_pace, t, 1000000, 10000000);
	*r = (struct read){.name = 'r', .get = {.priority = GET_DEMAND, .done = done, .arg = r}};
	get_queue_push(f->queue, &other, &r->get);
	for (int i = 0; i < 3; i++)
		push(f, 'w', GET_WARM);
	take(f);
	assert_string_equal(f->order, "rwww");
	finish_all(f);
	pace_done(&pace);
	pace_done(&other_pace);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, begin, end)
	const struct CMUnitTest tests[] = {
		T(a_higher_class_goes_first),
		T(a_place_is_kept_for_demand),
		T(a_raised_read_goes_at_once),
		T(a_read_is_raised_before_it_is_pushed),
		T(what_nobody_wants_ends_if_it_has_not_begun),
		T(a_parked_read_comes_back_in_its_new_class),
		T(a_flow_with_many_reads_does_not_starve_another),
		T(a_flow_keeps_to_its_bandwidth_and_others_go_on),
		T(all_flows_together_keep_to_the_limit_of_all),
		T(an_origin_that_takes_no_more_leaves_the_places_to_others),
		T(few_begin_for_nobody_while_a_reader_waits_and_a_while_longer),
		T(readers_that_never_end_leave_a_few_going_on),
		T(what_goes_ahead_of_a_reader_is_not_held_up),
		T(a_fast_endpoint_has_room_for_all),
		T(a_reader_of_another_origin_is_no_reason),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
