/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is fetched before anybody waits for it, from a server that holds its answers until it is told: wishes,
 * and what becomes of GETs in line when a reader comes or goes.
 */
#include "agent/test/fetch_fixture.h"

#include "agent/metrics.h"
#include "agent/test/http_origin.h"

struct server_fixture {
	struct fixture base;
	struct http_origin *server;
	unsigned char *data;
};

static int setup_server(void **state)
{
	struct server_fixture *f;
	void *base = NULL;

	assert_int_equal(setup(&base), 0);
	f = realloc(base, sizeof(*f));
	f->base.settings.max_get_size = MIB;
	f->data = malloc(SIZE);
	for (uint64_t i = 0; i < SIZE; i++)
		f->data[i] = byte_at(i);
	f->server = http_origin_start();
	http_origin_put(f->server, "/d/big", f->data, SIZE, "\"big\"", NULL);
	http_origin_put(f->server, "/d/small", f->data, 300000, "\"small\"", NULL);
	http_origin_put(f->server, "/d/empty", f->data, 0, "\"empty\"", NULL);
	snprintf(f->base.url, sizeof(f->base.url), "http://127.0.0.1:%d/d/", f->server->port);
	*state = f;
	return 0;
}

static int teardown_server(void **state)
{
	struct server_fixture *f = *state;
	unsigned char *data = f->data;

	http_origin_stop(f->server);
	free(data);
	return teardown(state);
}

/* A wish that the test waits for. */
struct wished {
	struct wd_mutex lock;
	struct wd_cond cond;
	int status, answers;
	struct fetch_wish *wish;
};

static void wish_is_over(void *arg, int status)
{
	struct wished *w = arg;

	wd_lock(&w->lock);
	w->status = status;
	w->answers++;
	wd_cond_broadcast(&w->cond);
	wd_unlock(&w->lock);
}

static void wish_for(struct wished *w, struct fetch *f, uint64_t offset, uint64_t len, enum get_priority class)
{
	*w = (struct wished){0};
	wd_mutex_init(&w->lock);
	wd_cond_init(&w->cond);
	assert_int_equal(fetch_wish(f, offset, len, class, wish_is_over, w, &w->wish), 0);
}

static int wait_for(struct wished *w)
{
	int answers;

	wd_lock(&w->lock);
	while (w->answers == 0)
		wd_cond_wait(&w->cond, &w->lock);
	answers = w->answers;
	wd_unlock(&w->lock);
	assert_int_equal(answers, 1);
	fetch_wish_unref(w->wish);
	wd_cond_done(&w->cond);
	wd_mutex_done(&w->lock);
	return w->status;
}

static uint64_t gets(void)
{
	return atomic_load(&origin_stats.requests[ORIGIN_OP_GET]);
}

static void what_is_wished_is_whole_when_it_is_told(void **state)
{
	struct server_fixture *f = *state;
	struct wished big, small, empty, again;
	uint64_t before = atomic_load(&origin_stats.bytes);

	start(&f->base, 0);
	struct fetch *fb = open_one(&f->base, "big"), *fs = open_one(&f->base, "small"),
		     *fe = open_one(&f->base, "empty");

	wish_for(&big, fb, 0, 0, GET_WARM);
	wish_for(&small, fs, 0, 0, GET_DIRECTORY);
	wish_for(&empty, fe, 0, 0, GET_DIRECTORY);
	assert_int_equal(wait_for(&empty), 0);
	assert_int_equal(wait_for(&small), 0);
	assert_int_equal(wait_for(&big), 0);
	assert_true(object_is_complete(fetch_object(fb)));
	assert_true(object_is_complete(fetch_object(fs)));
	assert_int_equal(atomic_load(&origin_stats.bytes) - before, SIZE + 300000);
	wish_for(&again, fb, 0, 0, GET_STREAM);
	assert_int_equal(wait_for(&again), 0);
	assert_int_equal(atomic_load(&origin_stats.bytes) - before, SIZE + 300000);
	fetch_close(fb);
	fetch_close(fs);
	fetch_close(fe);
	stop(&f->base);
}

static void only_the_wished_range_is_fetched(void **state)
{
	struct server_fixture *f = *state;
	struct wished a, b;
	uint64_t before = atomic_load(&origin_stats.bytes);

	start(&f->base, 0);
	struct fetch *fetch = open_one(&f->base, "big");

	wish_for(&a, fetch, 5 * MIB + 1, 3 * MIB, GET_DIRECTORY);
	wish_for(&b, fetch, 7 * MIB, 2 * MIB, GET_WARM);
	fetch_close(fetch); /* the wishes hold it */
	assert_int_equal(wait_for(&a), 0);
	assert_int_equal(wait_for(&b), 0);
	assert_int_equal(atomic_load(&origin_stats.bytes) - before, 4 * MIB);
	stop(&f->base);
}

static void a_full_cache_ends_a_wish(void **state)
{
	struct server_fixture *f = *state;
	struct wished w;
	uint64_t before = atomic_load(&origin_stats.bytes);

	start(&f->base, 4 * MIB);
	struct fetch *fetch = open_one(&f->base, "big");

	wish_for(&w, fetch, 0, 0, GET_WARM);
	assert_int_equal(wait_for(&w), -ENOSPC);
	assert_true(atomic_load(&origin_stats.bytes) - before <= 4 * MIB);
	fetch_close(fetch);
	stop(&f->base);
}

static void an_object_that_changed_ends_a_wish(void **state)
{
	struct server_fixture *f = *state;
	struct wished w, later;

	start(&f->base, 0);
	struct fetch *fetch = open_one(&f->base, "big");

	http_origin_put(f->server, "/d/big", f->data, SIZE, "\"new\"", NULL);
	wish_for(&w, fetch, 0, 0, GET_WARM);
	assert_int_equal(wait_for(&w), -ESTALE);
	wish_for(&later, fetch, 0, 0, GET_WARM);
	assert_int_equal(wait_for(&later), -ESTALE);
	fetch_close(fetch);
	stop(&f->base);
}

/* Holds every answer from now on; the GETs of the wish take the places that it may. */
static void hold(struct server_fixture *f)
{
	http_origin_fail_always(f->server, FAULT_HOLD, 0, NULL);
}

static void let_go(struct server_fixture *f)
{
	http_origin_heal(f->server);
	http_origin_release(f->server);
}

static void a_reader_raises_what_waits_in_line(void **state)
{
	struct server_fixture *f = *state;
	unsigned char *out = malloc(MIB);
	struct sleeper s = {.wait = {.offset = 9 * MIB, .len = 1000, .cb = answered}};
	struct wished w;

	/* 8 places, 6 of them for those who do not wait; the classes begin up to 8 transfers */
	f->base.settings.max_transfers = 16;
	start(&f->base, 0);
	struct fetch *fetch = open_one(&f->base, "big");
	unsigned before = http_origin_requests(f->server);

	hold(f);
	wish_for(&w, fetch, 0, 12 * MIB, GET_STREAM);
	http_origin_wait_requests(f->server, before + 6);
	/* block 36 is asked for in the tenth GET, which waits */
	wd_mutex_init(&s.lock);
	wd_cond_init(&s.cond);
	fetch_ensure(fetch, &s.wait);
	http_origin_wait_requests(f->server, before + 7);
	char range[64];

	assert_true(http_origin_header(f->server->last, "Range", range, sizeof(range)));
	assert_string_equal(range, "bytes=9437184-10485759");
	let_go(f);
	wd_lock(&s.lock);
	while (!s.answers)
		wd_cond_wait(&s.cond, &s.lock);
	wd_unlock(&s.lock);
	assert_int_equal(s.status, 0);
	assert_int_equal(wait_for(&w), 0);
	assert_int_equal(read_range(fetch, 9 * MIB, 1000, 0, out, NULL), 0);
	check(out, 9 * MIB, 1000, 0);
	assert_int_equal(http_origin_requests(f->server) - before, 12);
	wd_cond_done(&s.cond);
	wd_mutex_done(&s.lock);
	fetch_close(fetch);
	stop(&f->base);
	free(out);
}

static void a_cancelled_wish_fetches_no_more(void **state)
{
	struct server_fixture *f = *state;
	struct wished w, other;

	f->base.settings.max_transfers = 16;
	start(&f->base, 0);
	struct fetch *fetch = open_one(&f->base, "big");
	unsigned before = http_origin_requests(f->server);

	hold(f);
	wish_for(&w, fetch, 0, 0, GET_STREAM);
	http_origin_wait_requests(f->server, before + 6);
	fetch_wish_cancel(w.wish);
	assert_int_equal(w.answers, 1);
	assert_int_equal(w.status, -ECANCELED);
	fetch_wish_cancel(w.wish); /* once more is harmless */
	assert_int_equal(wait_for(&w), -ECANCELED);
	let_go(f);
	/* whoever wants what was given up gets it */
	wish_for(&other, fetch, 0, 9 * MIB, GET_WARM);
	assert_int_equal(wait_for(&other), 0);
	assert_int_equal(http_origin_requests(f->server) - before, 9);
	fetch_close(fetch);
	stop(&f->base);
}

static void closing_gives_up_what_was_asked_ahead(void **state)
{
	struct server_fixture *f = *state;
	unsigned char *out = malloc(MIB);
	uint64_t cancelled = atomic_load(&metric_values[METRIC_PREFETCH_CANCELLED]);

	f->base.settings.max_transfers = 64;
	f->base.settings.prefetch_window = 24 * MIB;
	start(&f->base, 0);
	struct fetch *fetch = open_one(&f->base, "big"), *second = open_one(&f->base, "big");
	unsigned before;

	/* a reader in sequence, whose window has grown to many GETs when the server falls silent */
	for (int i = 0; i < 3; i++) {
		assert_int_equal(read_range(fetch, (uint64_t)i * MIB, MIB, 0, out, NULL), 0);
		check(out, (uint64_t)i * MIB, MIB, 0);
	}
	hold(f);
	before = http_origin_requests(f->server);
	for (int i = 3; i < 9; i++)
		fetch_hint(fetch, (uint64_t)i * MIB, MIB);
	http_origin_wait_requests(f->server, before + 6);
	fetch_close(second); /* one still reads */
	assert_int_equal(atomic_load(&metric_values[METRIC_PREFETCH_CANCELLED]), cancelled);
	fetch_ref(fetch);
	fetch_close(fetch);
	let_go(f);
	/* what was given up is fetched when somebody wants it after all */
	assert_int_equal(read_range(fetch, SIZE - MIB, MIB, 0, out, NULL), 0);
	check(out, SIZE - MIB, MIB, 0);
	assert_true(atomic_load(&metric_values[METRIC_PREFETCH_CANCELLED]) > cancelled);
	fetch_unref(fetch);
	stop(&f->base);
	free(out);
}

static void wishes_end_with_the_agent(void **state)
{
	struct server_fixture *f = *state;
	struct wished w[8];

	start(&f->base, 0);
	struct fetch *fetch = open_one(&f->base, "big");

	hold(f);
	for (int i = 0; i < 8; i++)
		wish_for(&w[i], fetch, (uint64_t)i * 3 * MIB, 3 * MIB, GET_WARM);
	fetcher_stop(f->base.fetcher);
	let_go(f);
	for (int i = 0; i < 8; i++) {
		int status = wait_for(&w[i]);

		assert_true(status == 0 || status == -ECANCELED);
	}
	fetch_close(fetch);
	stop(&f->base);
}

struct crowd {
	struct fetch *fetch;
	unsigned seed;
};

/* Wishes, cancels and reads at random. */
static void *crowd_main(void *arg)
{
	struct crowd *c = arg;
	unsigned char *out = malloc(MIB);
	uint64_t x = c->seed * 2654435761u + 1;

	for (int i = 0; i < 40; i++) {
		struct wished w;
		uint64_t offset;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		offset = x % (SIZE - 4 * MIB);
		wish_for(&w, c->fetch, offset, 3 * MIB, (enum get_priority)(x >> 40 & 1));
		assert_int_equal(read_range(c->fetch, offset, 100000, 0, out, NULL), 0);
		check(out, offset, 100000, 0);
		if (x >> 50 & 1)
			fetch_wish_cancel(w.wish);
		int status = wait_for(&w);

		assert_true(status == 0 || status == -ECANCELED);
		if (status == 0)
			assert_true(object_has(fetch_object(c->fetch), offset, 3 * MIB));
	}
	free(out);
	return NULL;
}

static void wishes_and_readers_at_once_fetch_no_byte_twice(void **state)
{
	struct server_fixture *f = *state;
	struct crowd crowd[6];
	pthread_t threads[6];
	uint64_t before = gets() ? atomic_load(&origin_stats.bytes) : 0;

	start(&f->base, 0);
	struct fetch *fetch = open_one(&f->base, "big");

	for (unsigned i = 0; i < 6; i++) {
		crowd[i] = (struct crowd){fetch, i};
		pthread_create(&threads[i], NULL, crowd_main, &crowd[i]);
	}
	for (unsigned i = 0; i < 6; i++)
		pthread_join(threads[i], NULL);
	assert_true(atomic_load(&origin_stats.bytes) - before <= SIZE);
	fetch_close(fetch);
	stop(&f->base);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup_server, teardown_server)
	const struct CMUnitTest tests[] = {
		T(what_is_wished_is_whole_when_it_is_told),
		T(only_the_wished_range_is_fetched),
		T(a_full_cache_ends_a_wish),
		T(an_object_that_changed_ends_a_wish),
		T(a_reader_raises_what_waits_in_line),
		T(a_cancelled_wish_fetches_no_more),
		T(closing_gives_up_what_was_asked_ahead),
		T(wishes_end_with_the_agent),
		T(wishes_and_readers_at_once_fetch_no_byte_twice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
