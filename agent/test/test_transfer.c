/* SPDX-License-Identifier: Apache-2.0 */
/* Ranged reads against a server that misbehaves: what arrives is right, or the error is. */
#include "agent/test/origin_fixture.h"

#include "agent/http_client.h"
#include "agent/origin_impl.h"
#include "agent/test/exposition.h"
#include "agent/test/http_origin.h"
#include "common/fault.h"

#define SIZE (3 * 1024 * 1024 + 17)

static unsigned char *content;

/* for faults that never end: room for two tries on a busy machine */
#define LASTING_MS 2000

struct setup {
	struct http_origin *server;
	struct origin *origin;
	char url[64];
};

static struct version version(void)
{
	return (struct version){
		.size = SIZE, .mtime_s = 1767225600, .etag = "\"v1\"", .is_bound = true};
}

static int begin(void **state)
{
	struct setup *s = calloc(1, sizeof(*s));
	struct origin_options options = {.deadline_ms = 60000};
	struct wd_err err = WD_ERR_INIT;

	s->server = http_origin_start();
	http_origin_put(s->server, "/d/f", content, SIZE, "\"v1\"", NULL);
	snprintf(s->url, sizeof(s->url), "http://127.0.0.1:%d/d", s->server->port);
	if (origins_start(2, 8, &err) < 0 || origin_open(s->url, &options, &s->origin, &err) < 0)
		return -1;
	*state = s;
	return 0;
}

static int end(void **state)
{
	struct setup *s = *state;

	wd_fault_arm(NULL);
	origin_close(s->origin);
	origins_stop();
	http_origin_stop(s->server);
	http_limits = (struct http_limits){.connect_ms = 5000, .low_speed_s = 15};
	free(s);
	return 0;
}

/* Fetches a range of /d/f and checks its bytes when it came. */
static int fetch(struct setup *s, uint64_t offset, uint64_t length, struct wd_err *ret_err)
{
	struct version v = version();
	struct fetch f;
	int rc;

	fetch_init(&f, "f", &v, offset, length);
	origin_get(s->origin, &f.get);
	rc = fetch_wait(&f);
	assert_memory_equal(f.data, content + offset, f.got);
	if (ret_err)
		*ret_err = f.err;
	fetch_free(&f);
	return rc;
}

static void ranges_come_as_asked(void **state)
{
	struct setup *s = *state;
	char head[200];

	assert_int_equal(fetch(s, 0, SIZE, NULL), 0);
	assert_int_equal(fetch(s, 0, 1, NULL), 0);
	assert_int_equal(fetch(s, SIZE - 1, 1, NULL), 0);
	assert_int_equal(fetch(s, 1000001, 70000, NULL), 0);
	assert_true(http_origin_header(s->server->last, "Range", head, sizeof(head)));
	assert_string_equal(head, "bytes=1000001-1070000");
	assert_true(http_origin_header(s->server->last, "If-Match", head, sizeof(head)));
	assert_string_equal(head, "\"v1\"");
	assert_true(http_origin_header(s->server->last, "Accept-Encoding", head, sizeof(head)));
	assert_string_equal(head, "identity");
}

static void weak_validator_is_not_sent_but_time_is(void **state)
{
	struct setup *s = *state;
	struct version v = version();
	struct fetch f;
	char head[200];

	snprintf(v.etag, sizeof(v.etag), "W/\"v1\"");
	fetch_init(&f, "f", &v, 0, 10);
	origin_get(s->origin, &f.get);
	assert_int_equal(fetch_wait(&f), 0);
	assert_false(http_origin_header(s->server->last, "If-Match", head, sizeof(head)));
	assert_true(http_origin_header(s->server->last, "If-Unmodified-Since", head, sizeof(head)));
	assert_string_equal(head, "Thu, 01 Jan 2026 00:00:00 GMT");
	fetch_free(&f);
	/* the server pays no heed to it: the answer's Last-Modified tells */
	v.mtime_s++;
	fetch_init(&f, "f", &v, 0, 10);
	origin_get(s->origin, &f.get);
	assert_int_equal(fetch_wait(&f), -ESTALE);
	fetch_free(&f);
}

/* Each of these once, and then a good answer. */
static void transient_faults_are_overcome(void **state)
{
	static const enum http_fault faults[] = {FAULT_IGNORE_RANGE, FAULT_SHORT_BODY,
		FAULT_SHORT_LENGTH, FAULT_LONG_BODY, FAULT_WRONG_RANGE, FAULT_NO_RANGE_HEADER,
		FAULT_COMPRESSED, FAULT_RESET, FAULT_RESET_HALF};
	struct wd_err err = WD_ERR_INIT;
	struct setup *s = *state;

	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
		unsigned before = http_origin_requests(s->server);

		http_origin_fail(s->server, faults[i], 0, NULL);
		if (fetch(s, 100, 1000000, &err) < 0)
			fail_msg("fault %d: %s", faults[i], err.msg);
		if (http_origin_requests(s->server) < before + 2)
			fail_msg("fault %d was not noticed", faults[i]);
	}
}

static void several_statuses_are_tried_again(void **state)
{
	static const int statuses[] = {500, 502, 503, 504, 429, 408};
	struct setup *s = *state;
	uint64_t retries = exposed("warpdrive_origin_retries_total");

	for (size_t i = 0; i < 6; i++)
		http_origin_fail(s->server, FAULT_STATUS, statuses[i], "busy");
	assert_int_equal(fetch(s, 0, 4096, NULL), 0);
	assert_int_equal(http_origin_requests(s->server), 7);
	assert_int_equal(exposed("warpdrive_origin_retries_total") - retries, 6);
}

static void retry_asks_only_for_what_is_missing(void **state)
{
	struct setup *s = *state;
	char head[100];
	uint64_t first = 0;

	http_origin_fail(s->server, FAULT_SHORT_BODY, 0, NULL);
	assert_int_equal(fetch(s, 0, 2000000, NULL), 0);
	assert_true(http_origin_header(s->server->last, "Range", head, sizeof(head)));
	assert_int_equal(sscanf(head, "bytes=%" SCNu64, &first), 1);
	assert_int_equal(first, 1000000);
}

static void lasting_fault_names_itself(void **state)
{
	struct setup *s = *state;
	struct origin_options options = {.deadline_ms = LASTING_MS};
	struct wd_err err = WD_ERR_INIT;

	origin_close(s->origin);
	assert_ok(origin_open(s->url, &options, &s->origin, &err));
	http_origin_fail_always(s->server, FAULT_STATUS, 503, "");
	assert_int_equal(fetch(s, 0, 8192, &err), -EIO);
	assert_says(err, "fetch 'http://127.0.0.1:");
	assert_says(err, "HTTP 503 after ");
	assert_says(err, "/d/f' bytes 0-8191: ");
	assert_true(http_origin_requests(s->server) >= 2);
}

static void server_that_always_ignores_ranges_is_named(void **state)
{
	struct setup *s = *state;
	struct origin_options options = {.deadline_ms = LASTING_MS};
	struct wd_err err = WD_ERR_INIT;

	origin_close(s->origin);
	assert_ok(origin_open(s->url, &options, &s->origin, &err));
	http_origin_fail_always(s->server, FAULT_IGNORE_RANGE, 0, NULL);
	assert_int_equal(fetch(s, 0, 8192, &err), -EIO);
	assert_says(err, "ignored the range");
}

static void refused_connection_is_tried_until_the_deadline(void **state)
{
	struct setup *s = *state;
	struct origin_options options = {.deadline_ms = LASTING_MS};
	struct wd_err err = WD_ERR_INIT;
	struct sockaddr_in addr = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	/* bound but not listening: refuses */
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
	snprintf(s->url, sizeof(s->url), "http://127.0.0.1:%d/d", ntohs(addr.sin_port));
	origin_close(s->origin);
	assert_ok(origin_open(s->url, &options, &s->origin, &err));
	assert_int_equal(fetch(s, 0, 1, &err), -EIO);
	assert_says(err, "connect");
	close(fd);
}

static void another_version_is_estale_at_once(void **state)
{
	struct setup *s = *state;
	struct wd_err err;

	http_origin_put(s->server, "/d/f", content, SIZE, "\"v2\"", NULL);
	assert_int_equal(fetch(s, 0, 100, &err), -ESTALE);
	assert_says(err, "HTTP 412: the object changed");
	/* also from a server that does not know If-Match */
	http_origin_fail(s->server, FAULT_IGNORE_IF_MATCH, 0, NULL);
	assert_int_equal(fetch(s, 0, 100, &err), -ESTALE);
	assert_says(err, "ETag \"v2\" instead of \"v1\"");
	http_origin_put(s->server, "/d/f", content, SIZE, "\"v1\"", NULL);
	http_origin_fail(s->server, FAULT_OTHER_TOTAL, 0, NULL);
	assert_int_equal(fetch(s, 0, 100, &err), -ESTALE);
	/* it shrank */
	http_origin_put(s->server, "/d/f", content, 1000, "", NULL);
	assert_int_equal(fetch(s, 5000, 100, &err), -ESTALE);
	assert_int_equal(http_origin_requests(s->server), 4);
}

static void version_that_changes_between_tries_is_estale(void **state)
{
	struct setup *s = *state;

	http_origin_fail(s->server, FAULT_SHORT_BODY, 0, NULL);
	http_origin_fail(s->server, FAULT_OTHER_ETAG, 0, NULL);
	assert_int_equal(fetch(s, 0, 100000, NULL), -ESTALE);
}

static void absent_and_refused_are_told_apart(void **state)
{
	struct setup *s = *state;
	struct wd_err err;

	http_origin_fail(s->server, FAULT_STATUS, 404, "");
	assert_int_equal(fetch(s, 0, 1, &err), -ENOENT);
	http_origin_fail(s->server, FAULT_STATUS, 403, "");
	assert_int_equal(fetch(s, 0, 1, &err), -EACCES);
	http_origin_fail(s->server, FAULT_STATUS, 401, "");
	assert_int_equal(fetch(s, 0, 1, &err), -EACCES);
	http_origin_fail(s->server, FAULT_STATUS, 400, "");
	assert_int_equal(fetch(s, 0, 1, &err), -EIO);
	assert_int_equal(http_origin_requests(s->server), 4);
}

static void hanging_server_is_left_and_tried_again(void **state)
{
	struct setup *s = *state;

	http_limits.low_speed_s = 1;
	http_origin_fail(s->server, FAULT_HANG, 0, NULL);
	assert_int_equal(fetch(s, 0, 1000, NULL), 0);
	assert_int_equal(http_origin_requests(s->server), 2);
}

static void cancel_ends_a_running_read(void **state)
{
	struct setup *s = *state;
	struct version v = version();
	struct fetch f;

	http_origin_fail(s->server, FAULT_HANG, 0, NULL);
	fetch_init(&f, "f", &v, 0, 100);
	origin_get(s->origin, &f.get);
	http_origin_wait_requests(s->server, 1);
	origin_cancel(s->origin, &f.get);
	assert_int_equal(fetch_wait(&f), -ECANCELED);
	/* once more is harmless */
	origin_cancel(s->origin, &f.get);
	fetch_free(&f);
}

static void closing_cancels_what_runs_and_what_waits(void **state)
{
	struct setup *s = *state;
	struct origin_options options = {0};
	struct version v = version();
	struct wd_err err = WD_ERR_INIT;
	struct fetch f[20];

	http_origin_fail_always(s->server, FAULT_HANG, 0, NULL);
	for (int i = 0; i < 20; i++) {
		fetch_init(&f[i], "f", &v, 0, 100);
		origin_get(s->origin, &f[i].get);
	}
	http_origin_wait_requests(s->server, 8);
	origin_close(s->origin);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(f[i].ndone, 1);
		assert_int_equal(f[i].status, -ECANCELED);
		fetch_free(&f[i]);
	}
	assert_int_equal(http_origin_requests(s->server), 8);
	assert_ok(origin_open(s->url, &options, &s->origin, &err));
}

static void cancel_ends_a_read_that_waits_for_its_retry(void **state)
{
	struct setup *s = *state;
	struct version v = version();
	struct fetch f;
	uint64_t retries = exposed("warpdrive_origin_retries_total");

	http_origin_fail_always(s->server, FAULT_STATUS, 503, "");
	fetch_init(&f, "f", &v, 0, 100);
	origin_get(s->origin, &f.get);
	http_origin_wait_requests(s->server, 3);
	origin_cancel(s->origin, &f.get);
	assert_int_equal(fetch_wait(&f), -ECANCELED);
	assert_true(exposed("warpdrive_origin_retries_total") - retries >= 2);
	fetch_free(&f);
}

static void demand_goes_before_the_others(void **state)
{
	struct setup *s = *state;
	struct version v = version();
	struct fetch f[8 + 20], *order[28];
	unsigned norder = 0, first_other = 28, last_demand = 0;

	/* fill all places, then queue ten others and behind them ten that a reader waits for */
	for (int i = 0; i < 8; i++)
		http_origin_fail(s->server, FAULT_HOLD, 0, NULL);
	for (int i = 0; i < 28; i++) {
		fetch_init(&f[i], "f", &v, 0, 100);
		f[i].order = order;
		f[i].norder = &norder;
		f[i].get.priority = i < 8 || i >= 18 ? GET_DEMAND : GET_STREAM;
		origin_get(s->origin, &f[i].get);
		if (i == 7)
			http_origin_wait_requests(s->server, 8);
	}
	http_origin_release(s->server);
	for (int i = 0; i < 28; i++)
		assert_int_equal(fetch_wait(&f[i]), 0);
	/* two threads finish them: not quite in order, but no other before most of the demand */
	for (unsigned i = 0; i < 28; i++) {
		if (order[i]->get.priority == GET_DEMAND)
			last_demand = i;
		else if (order[i] >= &f[8] && i < first_other)
			first_other = i;
	}
	assert_true(last_demand < 27);
	assert_true(first_other >= 8);
	for (int i = 0; i < 28; i++)
		fetch_free(&f[i]);
}

static void sink_may_end_the_transfer(void **state)
{
	struct setup *s = *state;
	struct version v = version();
	struct fetch f;

	fetch_init(&f, "f", &v, 0, SIZE);
	f.sink_rc = -ENOSPC;
	f.sink_after = 100000;
	origin_get(s->origin, &f.get);
	assert_int_equal(fetch_wait(&f), -ENOSPC);
	assert_true(f.got >= 100000 && f.got < SIZE);
	assert_int_equal(http_origin_requests(s->server), 1);
	fetch_free(&f);
}

static void fault_while_writing_is_a_retry(void **state)
{
	struct setup *s = *state;

	wd_fault_arm("transfer.write=@3");
	assert_int_equal(fetch(s, 0, 1000000, NULL), 0);
	assert_int_equal(http_origin_requests(s->server), 2);
}

static void redirects_are_followed_a_few_times(void **state)
{
	struct setup *s = *state;
	struct wd_err err;
	char to[100];

	snprintf(to, sizeof(to), "http://127.0.0.1:%d/d/f", s->server->port);
	for (int i = 0; i < 4; i++)
		http_origin_fail(s->server, FAULT_REDIRECT, 307, to);
	assert_int_equal(fetch(s, 0, 100, NULL), 0);
	assert_int_equal(http_origin_requests(s->server), 5);
	http_origin_fail_always(s->server, FAULT_REDIRECT, 302, to);
	assert_int_equal(fetch(s, 0, 100, &err), -EIO);
	assert_says(err, "more than 4 redirects");
}

static void redirects_elsewhere_are_refused(void **state)
{
	struct setup *s = *state;
	struct wd_err err;
	char to[100];

	http_origin_fail(s->server, FAULT_REDIRECT, 302, "ftp://127.0.0.1/f");
	assert_int_equal(fetch(s, 0, 100, &err), -EIO);
	/* another name of this machine: an address that only the machine has */
	snprintf(to, sizeof(to), "http://localhost:%d/d/f", s->server->port);
	http_origin_fail(s->server, FAULT_REDIRECT, 302, to);
	assert_int_equal(fetch(s, 0, 100, &err), -EACCES);
	assert_says(err, "blocked-addresses");
	http_origin_fail(s->server, FAULT_REDIRECT, 302, "http://user:pw@127.0.0.1/f");
	assert_int_equal(fetch(s, 0, 100, &err), -EIO);
	assert_null(strstr(err.msg, "pw"));
	assert_int_equal(http_origin_requests(s->server), 3);
}

static void credentials_stay_with_their_server(void **state)
{
	struct setup *s = *state;
	struct http_origin *other = http_origin_start();
	struct origin_options options = {0};
	struct wd_err err = WD_ERR_INIT;
	char url[100], to[100], head[100];

	snprintf(url, sizeof(url), "http://me:p%%40ss@127.0.0.1:%d/d", s->server->port);
	snprintf(to, sizeof(to), "http://127.0.0.1:%d/d/f", other->port);
	http_origin_put(other, "/d/f", content, SIZE, "\"v1\"", NULL);
	origin_close(s->origin);
	assert_ok(origin_open(url, &options, &s->origin, &err));
	assert_null(strstr(origin_url(s->origin), "me:"));
	http_origin_fail(s->server, FAULT_REDIRECT, 302, to);
	assert_int_equal(fetch(s, 0, 100, NULL), 0);
	assert_true(http_origin_header(s->server->last, "Authorization", head, sizeof(head)));
	assert_string_equal(head, "Basic bWU6cEBzcw==");
	assert_int_equal(http_origin_requests(other), 1);
	assert_false(http_origin_header(other->last, "Authorization", head, sizeof(head)));
	http_origin_stop(other);
}

/* ---- the windows of connections ---- */

#define SLOW_LINE (100 << 20) /* bytes per second */

struct windowed {
	struct fetch fetch;
	struct setup *setup;
	bool is_raised_half_way;
	unsigned bounded, free_ones; /* connections to the server as the last bytes came, by whose window it is */
};

static void count_windows(struct windowed *w)
{
	for (int fd = 3; fd < 256; fd++) {
		struct sockaddr_in peer;
		socklen_t len = sizeof(peer);
		int lock = 0;

		if (getpeername(fd, (struct sockaddr *)&peer, &len) < 0 || peer.sin_family != AF_INET ||
			ntohs(peer.sin_port) != w->setup->server->port)
			continue;
		len = sizeof(lock);
		assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &lock, &len), 0);
		w->bounded += lock != 0;
		w->free_ones += lock == 0;
	}
}

static int windowed_sink(void *arg, uint64_t offset, const void *data, size_t len)
{
	struct windowed *w = arg;
	int rc = fetch_sink(&w->fetch, offset, data, len);

	if (w->is_raised_half_way && w->fetch.got >= SIZE / 2) {
		w->is_raised_half_way = false;
		origin_prioritise(w->setup->origin, &w->fetch.get, GET_DEMAND);
	}
	if (w->fetch.got == SIZE)
		count_windows(w);
	return rc;
}

static void windowed_done(void *arg, int status, const struct wd_err *err)
{
	struct windowed *w = arg;

	fetch_done(&w->fetch, status, err);
}

static void fetch_windowed(struct windowed *w, struct setup *s, enum get_priority priority)
{
	struct version v = version();

	fetch_init(&w->fetch, "f", &v, 0, SIZE);
	w->setup = s;
	w->bounded = w->free_ones = 0;
	w->fetch.get.priority = priority;
	w->fetch.get.sink = windowed_sink;
	w->fetch.get.done = windowed_done;
	w->fetch.get.arg = w;
	origin_get(s->origin, &w->fetch.get);
	assert_int_equal(fetch_wait(&w->fetch), 0);
	assert_memory_equal(w->fetch.data, content, SIZE);
	fetch_free(&w->fetch);
}

/* Before it is known that there is a slow line, and then for who waits, nothing is kept short. */
static void what_nobody_waits_for_has_a_short_window_at_a_slow_line(void **state)
{
	struct setup *s = *state;
	struct windowed w = {0};
	int64_t now;

	fetch_windowed(&w, s, GET_WARM);
	assert_int_equal(w.bounded, 0);
	assert_true(w.free_ones > 0);
	now = wd_now_ns() + 1000000000; /* behind all that was measured */
	for (int i = 0; i < 200; i++, now += 10000000)
		pace_bytes(s->origin->pace, now, SLOW_LINE / 100, 10000000);
	fetch_windowed(&w, s, GET_WARM);
	assert_true(w.bounded > 0);
	fetch_windowed(&w, s, GET_DEMAND);
	assert_int_equal(w.bounded, 0);
	fetch_windowed(&w, s, GET_STREAM);
	assert_true(w.bounded > 0);
	w.is_raised_half_way = true;
	fetch_windowed(&w, s, GET_WARM);
	assert_int_equal(w.bounded, 0);
}

static void *many(void *arg)
{
	struct setup *s = arg;
	struct version v = version();
	struct fetch f[32];

	for (int round = 0; round < 4; round++) {
		for (int i = 0; i < 32; i++) {
			fetch_init(&f[i], "f", &v, (uint64_t)i * 1000, 50000 + (uint64_t)i);
			f[i].get.priority = i & 1 ? GET_DEMAND : GET_WARM;
			origin_get(s->origin, &f[i].get);
			if (i % 8 == 7)
				origin_cancel(s->origin, &f[i - 4].get);
		}
		for (int i = 0; i < 32; i++) {
			int rc = fetch_wait(&f[i]);

			assert_true(rc == 0 || rc == -ECANCELED);
			assert_memory_equal(f[i].data, content + i * 1000, f[i].got);
			fetch_free(&f[i]);
		}
	}
	return NULL;
}

static void many_readers_at_once_get_their_own_bytes(void **state)
{
	struct setup *s = *state;
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		for (int j = 0; j < 4; j++)
			http_origin_fail(
				s->server, j ? FAULT_SHORT_BODY : FAULT_RESET_HALF, 0, NULL);
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, many, s);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(ranges_come_as_asked),
		TEST(weak_validator_is_not_sent_but_time_is),
		TEST(transient_faults_are_overcome),
		TEST(several_statuses_are_tried_again),
		TEST(retry_asks_only_for_what_is_missing),
		TEST(lasting_fault_names_itself),
		TEST(server_that_always_ignores_ranges_is_named),
		TEST(refused_connection_is_tried_until_the_deadline),
		TEST(another_version_is_estale_at_once),
		TEST(version_that_changes_between_tries_is_estale),
		TEST(absent_and_refused_are_told_apart),
		TEST(hanging_server_is_left_and_tried_again),
		TEST(cancel_ends_a_running_read),
		TEST(closing_cancels_what_runs_and_what_waits),
		TEST(cancel_ends_a_read_that_waits_for_its_retry),
		TEST(demand_goes_before_the_others),
		TEST(sink_may_end_the_transfer),
		TEST(fault_while_writing_is_a_retry),
		TEST(redirects_are_followed_a_few_times),
		TEST(redirects_elsewhere_are_refused),
		TEST(credentials_stay_with_their_server),
		TEST(what_nobody_waits_for_has_a_short_window_at_a_slow_line),
		TEST(many_readers_at_once_get_their_own_bytes),
	};
	int rc;

	content = malloc(SIZE);
	for (size_t i = 0; i < SIZE; i++)
		content[i] = (unsigned char)(i * 2654435761u >> 13);
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	free(content);
	return rc;
}
