/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transfer threads.
 *
 * Each thread runs one curl multi: it takes reads from its lane of the queue, runs tries, and keeps
 * the reads that wait for their next try in `slots` with the time they are due. It sleeps in
 * curl_multi_poll() until a socket, a curl timer, a due retry or a wake-up.
 *
 *	take ──► TRYING ──► judged: done, or WAITING ──► TRYING ...
 *	  ▲        └──────────────────────┴──► parked, while the endpoint's breaker is open
 *	  └───────────────────────────────────────┘
 *
 * Bytes go to the sink as they arrive, but only after the answer's headers were found to be exactly
 * what was asked for. A retry asks for the first byte not yet given, so that the sink sees each
 * byte once and in order. Progress (256 KiB) restarts the deadline: a slow link is no fault. A try
 * that does not get that far within the deadline is ended by the low-speed limit or by the deadline.
 *
 * A read whose endpoint is away gives its place back and waits in the queue's car park, so that it
 * keeps nobody from other origins. It comes back when the breaker closes, when it is time for a probe,
 * or at its deadline.
 *
 * Nothing is shared between the threads but the queue.
 */
#include "agent/transfer.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/log.h"

#define PROGRESS_BYTES (256 * 1024)
#define SPARES_IDLE 2 /* handles a thread keeps while it has nothing to do */

enum slot_state { SLOT_FREE, SLOT_TRYING, SLOT_WAITING };

struct slot {
	enum slot_state state;
	struct get_job *job;
	struct http_try try;
	struct retry retry;
	uint64_t given;	       /* bytes the sink has */
	uint64_t progress_at;  /* given, at the last progress */
	int64_t due_ns;	       /* WAITING: the next try */
	int sink_rc;	       /* what the sink ended the transfer with */
	enum http_verdict bad; /* why the write callback ended the try; HTTP_OK: it did not */
	bool is_checked;       /* this try's headers are right */
	char text[300];
	char last[300]; /* how the try before this one failed */
};

struct transfer_thread {
	pthread_t thread;
	unsigned lane;
	CURLM *multi;
	struct slot *slots;
	unsigned nslots, nused;
	CURL **spare; /* handles not in use */
	unsigned nspare;
};

static struct {
	struct get_queue *queue;
	struct transfer_thread *threads;
	unsigned nthreads;
} transfers;

static struct http_site *slot_site(const struct slot *s)
{
	return (struct http_site *)s->job->origin;
}

/* ---- the body ---- */

static size_t end_try(struct slot *s, enum http_verdict verdict)
{
	s->bad = verdict;
	return 0;
}

static size_t give(struct slot *s, const char *data, size_t len)
{
	struct origin_get *get = s->job->get;
	int rc;

	if (WD_FAULT("transfer.write")) {
		snprintf(s->text, sizeof(s->text), "fault transfer.write");
		return end_try(s, HTTP_RETRY);
	}
	origin_stats.bytes += len; /* before the sink wakes who may look */
	rc = get->sink(get->arg, get->offset + s->given, data, len);
	if (rc < 0) {
		s->sink_rc = rc;
		return end_try(s, HTTP_FATAL);
	}
	s->given += len;
	if (s->given - s->progress_at >= PROGRESS_BYTES) {
		s->progress_at = s->given;
		retry_progress(&s->retry, wd_now_ns(), s->job->origin->deadline_ms);
	}
	return len;
}

static size_t on_write(char *data, size_t size, size_t n, void *arg)
{
	struct slot *s = arg;
	struct origin_get *get = s->job->get;
	size_t len = size * n;

	if (s->job->is_cancelled)
		return end_try(s, HTTP_FATAL);
	if (http_classify(s->try.answer.status) != HTTP_OK) {
		http_try_error_bytes(&s->try, data, len);
		return len;
	}
	if (!s->is_checked) {
		enum http_verdict v = http_check_get(&s->try.answer, get->version,
			get->offset + s->given, get->length - s->given, s->text, sizeof(s->text));

		if (v != HTTP_OK) {
			http_try_is_wrong(&s->try, v);
			return end_try(s, v);
		}
		s->is_checked = true;
		health_answered(s->try.site->health); /* who waits for this need not wait for the body */
	}
	if (len > get->length - s->given) {
		/* curl ends a body at its Content-Length, which was checked: cannot happen */
		snprintf(s->text, sizeof(s->text), "the body is longer than it should be");
		http_try_is_wrong(&s->try, HTTP_RETRY);
		return end_try(s, HTTP_FATAL);
	}
	return give(s, data, len);
}

/* ---- tries ---- */

/* Takes the job out of its slot. */
static struct get_job *leave_slot(struct transfer_thread *t, struct slot *s)
{
	struct get_job *job = s->job;

	http_try_reset(&s->try);
	if (s->try.easy)
		t->spare[t->nspare++] = s->try.easy;
	s->try.easy = NULL;
	s->try.site = NULL;
	s->state = SLOT_FREE;
	s->job = NULL;
	t->nused--;
	return job;
}

/* A fault that another try overcame leaves one line. */
static void say_overcome(const struct slot *s)
{
	const struct origin_get *get = s->job->get;
	unsigned unsaid = 0;

	if (s->retry.tries > 1 && s->last[0] && health_may_say(slot_site(s)->health, &unsaid))
		wd_info("fetch '%s%s' bytes %" PRIu64 "-%" PRIu64 ": %s; right at try %u (%u more like it)",
			s->job->origin->url, get->key, get->offset, get->offset + get->length - 1, s->last,
			s->retry.tries, unsaid);
}

static void finish(struct transfer_thread *t, struct slot *s, int status, const char *text)
{
	const struct origin_get *get = s->job->get;
	struct wd_err err = WD_ERR_INIT;

	if (status == 0) {
		say_overcome(s);
	} else {
		wd_err_set(&err, -status, "fetch '%s%s' bytes %" PRIu64 "-%" PRIu64 ": %s after %u %s",
			s->job->origin->url, get->key, get->offset, get->offset + get->length - 1, text,
			s->retry.tries, s->retry.tries == 1 ? "try" : "tries");
		if (status != -ECANCELED)
			origin_stats.errors[ORIGIN_OP_GET]++;
	}
	get_queue_finish(transfers.queue, leave_slot(t, s), status, &err);
}

static void finish_out_of_time(struct transfer_thread *t, struct slot *s, const char *text)
{
	s->job->get->is_out_of_time = true;
	finish(t, s, -EIO, text);
}

/* The endpoint is away: the read waits for it without a place. at_ns: time for a probe. */
static void park(struct transfer_thread *t, struct slot *s, int64_t at_ns)
{
	struct origin_get *get = s->job->get;

	get->deadline_ns = s->retry.deadline_ns;
	get->resume.given = s->given;
	get->resume.progress_at = s->progress_at;
	get->resume.tries = s->retry.tries;
	get->resume.last_ns = s->retry.last_ns;
	get_queue_park(transfers.queue, leave_slot(t, s),
		at_ns < get->resume.last_ns ? at_ns : get->resume.last_ns);
}

/* May a request go? If not, the slot is free again. */
static bool wait_turn(struct transfer_thread *t, struct slot *s)
{
	struct health *health = slot_site(s)->health;
	int64_t at_ns;
	char why[300];

	while (!health_allows(health, &at_ns)) {
		if (!health_is_open(health, why, sizeof(why)))
			continue; /* it closed meanwhile */
		if (wd_now_ns() >= s->retry.last_ns)
			finish_out_of_time(t, s, why);
		else
			park(t, s, at_ns);
		return false;
	}
	return true;
}

/* Headers that tie the answer to the version. Lines live in the caller's buffers. */
static void range_headers(const struct slot *s, char range[64], char match[ORIGIN_ETAG_MAX + 16],
	char since[64], const char *lines[4])
{
	const struct origin_get *get = s->job->get;
	const struct version *v = get->version;
	time_t mtime = v->mtime_s;
	struct tm tm;
	int n = 0;

	snprintf(range, 64, "Range: bytes=%" PRIu64 "-%" PRIu64, get->offset + s->given,
		get->offset + get->length - 1);
	lines[n++] = range;
	if (v->etag[0] && !http_etag_is_weak(v->etag)) {
		snprintf(match, ORIGIN_ETAG_MAX + 16, "If-Match: %s", v->etag);
		lines[n++] = match;
	} else if (mtime && gmtime_r(&mtime, &tm)) {
		strftime(since, 64, "If-Unmodified-Since: %a, %d %b %Y %H:%M:%S GMT", &tm);
		lines[n++] = since;
	}
	lines[n] = NULL;
}

static int start_try(struct transfer_thread *t, struct slot *s)
{
	struct http_request request = {.key = s->job->get->key};
	char range[64], match[ORIGIN_ETAG_MAX + 16], since[64];
	const char *lines[4];
	int rc;

	if (!s->try.easy)
		s->try.easy = t->nspare ? t->spare[--t->nspare] : curl_easy_init();
	if (!s->try.easy)
		return -ENOMEM;
	s->try.site = slot_site(s);
	s->try.is_get = true;
	s->bad = HTTP_OK;
	s->is_checked = false;
	s->text[0] = 0;
	range_headers(s, range, match, since, lines);
	rc = http_try_start(&s->try, &request, lines);
	if (rc < 0)
		return rc;
	curl_easy_setopt(s->try.easy, CURLOPT_BUFFERSIZE, 524288L);
	curl_easy_setopt(s->try.easy, CURLOPT_WRITEFUNCTION, on_write);
	curl_easy_setopt(s->try.easy, CURLOPT_WRITEDATA, s);
	curl_easy_setopt(s->try.easy, CURLOPT_PRIVATE, s);
	if (curl_multi_add_handle(t->multi, s->try.easy) != CURLM_OK) {
		http_try_end(&s->try);
		return -ENOMEM;
	}
	if (s->try.hops == 0)
		retry_count(&s->retry);
	s->state = SLOT_TRYING;
	origin_stats.requests[ORIGIN_OP_GET]++;
	return 0;
}

static void begin_try(struct transfer_thread *t, struct slot *s)
{
	int rc;

	if (s->try.hops == 0 && !wait_turn(t, s))
		return;
	rc = start_try(t, s);
	if (rc < 0)
		health_abandoned(slot_site(s)->health);
	if (rc < 0)
		finish(t, s, rc == -ENOMEM ? -EIO : rc, strerror(-rc));
}

/* How the try that curl ended with rc went, in one verdict. */
static enum http_verdict judge(struct slot *s, CURLcode rc)
{
	struct origin_get *get = s->job->get;
	enum http_verdict v;

	if (s->bad != HTTP_OK)
		return s->bad;
	v = http_try_judge(&s->try, rc, s->text, sizeof(s->text));
	if (v != HTTP_OK)
		return v;
	if (!s->is_checked)
		v = http_check_get(&s->try.answer, get->version, get->offset + s->given,
			get->length - s->given, s->text, sizeof(s->text));
	if (v == HTTP_OK && s->given < get->length) {
		snprintf(s->text, sizeof(s->text), "the body ended early");
		v = HTTP_RETRY;
	}
	if (v != HTTP_OK)
		http_try_is_wrong(&s->try, v);
	return v;
}

static void retry_or_fail(struct transfer_thread *t, struct slot *s)
{
	char why[300];

	if (!retry_again(&s->retry, wd_now_ns(), http_answer_wait_ms(&s->try.answer, time(NULL)),
		    http_random(), &s->due_ns)) {
		finish_out_of_time(t, s, s->text);
		return;
	}
	wd_debug("fetch '%s%s': %s: trying again", s->job->origin->url, s->job->get->key, s->text);
	snprintf(s->last, sizeof(s->last), "%s", s->text);
	http_try_reset(&s->try);
	origin_stats.retries++;
	s->state = SLOT_WAITING;
	/* an open breaker says when, not our own backoff */
	if (health_is_open(slot_site(s)->health, why, sizeof(why)))
		s->due_ns = 0;
}

static void try_ended(struct transfer_thread *t, struct slot *s, CURLcode rc)
{
	enum http_verdict v = judge(s, rc);

	if (s->job->is_cancelled || (s->sink_rc < 0 && !s->is_checked))
		health_abandoned(s->try.site->health);
	else
		http_try_report(&s->try, s->sink_rc < 0 ? HTTP_OK : v, s->text);
	curl_multi_remove_handle(t->multi, s->try.easy);
	http_try_end(&s->try);
	if (s->job->is_cancelled)
		finish(t, s, -ECANCELED, "cancelled");
	else if (s->sink_rc < 0)
		finish(t, s, s->sink_rc, strerror(-s->sink_rc));
	else if (v == HTTP_OK)
		finish(t, s, 0, "");
	else if (v == HTTP_REDIRECT)
		begin_try(t, s);
	else if (v == HTTP_RETRY)
		retry_or_fail(t, s);
	else
		finish(t, s, http_verdict_errno(v), s->text);
}

/* ---- the thread ---- */

/* Sets a slot's clock for a job that got its place. Standing in line counts only while the origin is
 * away: a line in front of an origin that is well is no fault. */
static void start_clock(struct slot *s, const struct origin_get *get)
{
	int64_t now_ns = wd_now_ns(), full_ns = now_ns + s->job->origin->deadline_ms * 1000000;
	int64_t deadline_ns = get->deadline_ns;
	char why[300];

	if (deadline_ns < full_ns && get->resume.tries == 0 && get->resume.due_ns == 0 &&
		!health_is_open(slot_site(s)->health, why, sizeof(why)))
		deadline_ns = full_ns;
	retry_start_until(&s->retry, now_ns, deadline_ns);
	s->retry.tries = get->resume.tries;
	if (get->resume.last_ns)
		s->retry.last_ns = get->resume.last_ns;
}

static void take_jobs(struct transfer_thread *t)
{
	struct get_job *job;

	while ((job = get_queue_take(transfers.queue, t->lane))) {
		struct slot *s = t->slots;

		/* the queue gives out no more jobs than there are slots in a lane */
		while (s < t->slots + t->nslots && s->state != SLOT_FREE)
			s++;
		assert(s < t->slots + t->nslots);
		s->job = job;
		s->given = job->get->resume.given;
		s->progress_at = job->get->resume.progress_at;
		s->sink_rc = 0;
		s->last[0] = 0;
		start_clock(s, job->get);
		t->nused++;
		if (job->is_cancelled)
			finish(t, s, -ECANCELED, "cancelled");
		else
			begin_try(t, s);
	}
}

static void end_cancelled(struct transfer_thread *t)
{
	get_queue_end_cancelled(transfers.queue);
	for (struct slot *s = t->slots; s < t->slots + t->nslots; s++) {
		if (s->state == SLOT_FREE || !s->job->is_cancelled)
			continue;
		if (s->state == SLOT_TRYING) {
			health_abandoned(s->try.site->health);
			curl_multi_remove_handle(t->multi, s->try.easy);
			http_try_end(&s->try);
		}
		finish(t, s, -ECANCELED, "cancelled");
	}
}

/* Ends the tries that did not get on until their deadline. */
static void end_overdue(struct transfer_thread *t)
{
	int64_t now_ns = wd_now_ns();

	for (struct slot *s = t->slots; s < t->slots + t->nslots; s++) {
		if (s->state != SLOT_TRYING || s->retry.deadline_ns > now_ns)
			continue;
		snprintf(s->text, sizeof(s->text), "too slow: %" PRIu64 " bytes came in time", s->given);
		s->try.fault = ORIGIN_FAULT_STALL;
		http_try_report(&s->try, HTTP_RETRY, s->text);
		curl_multi_remove_handle(t->multi, s->try.easy);
		http_try_end(&s->try);
		/* what we cut off tells less than the answer before it */
		finish_out_of_time(t, s, s->last[0] ? s->last : s->text);
	}
}

static void run_due(struct transfer_thread *t)
{
	int64_t now_ns = wd_now_ns();

	for (struct slot *s = t->slots; s < t->slots + t->nslots; s++)
		if (s->state == SLOT_WAITING && s->due_ns <= now_ns)
			begin_try(t, s);
}

/* How long until the next retry or deadline, in ms; for ever when there is none. */
static int until_due_ms(const struct transfer_thread *t, int64_t parked_due_ns)
{
	int64_t left_ns, due_ns = parked_due_ns;

	for (const struct slot *s = t->slots; s < t->slots + t->nslots; s++) {
		if (s->state == SLOT_WAITING && s->due_ns < due_ns)
			due_ns = s->due_ns;
		if (s->state == SLOT_TRYING && s->retry.deadline_ns < due_ns)
			due_ns = s->retry.deadline_ns;
	}
	left_ns = due_ns == INT64_MAX ? INT64_MAX : due_ns - wd_now_ns();
	if (left_ns > (int64_t)INT_MAX * 1000000)
		return INT_MAX;
	return left_ns > 0 ? (int)((left_ns + 999999) / 1000000) : 0;
}

static void end_finished(struct transfer_thread *t)
{
	CURLMsg *msg;
	int left;

	while ((msg = curl_multi_info_read(t->multi, &left))) {
		struct slot *s = NULL;

		if (msg->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&s);
		try_ended(t, s, msg->data.result);
	}
}

/* An idle thread keeps its connections, but few of the handles with their buffers of 512 KiB. */
static void drop_spares(struct transfer_thread *t, unsigned keep)
{
	if (t->nspare <= keep)
		return;
	while (t->nspare > keep)
		curl_easy_cleanup(t->spare[--t->nspare]);
	malloc_trim(0);
}

static void *transfer_main(void *arg)
{
	struct transfer_thread *t = arg;
	int64_t parked_due_ns = INT64_MAX;
	int running;

	while (!get_queue_is_stopping(transfers.queue)) {
		if (t->lane == 0)
			parked_due_ns = get_queue_unpark(transfers.queue, wd_now_ns());
		take_jobs(t);
		end_cancelled(t);
		run_due(t);
		curl_multi_perform(t->multi, &running);
		end_finished(t);
		end_overdue(t);
		if (t->nused == 0)
			drop_spares(t, SPARES_IDLE);
		/* a wake-up that came since the last poll ends this one at once */
		curl_multi_poll(t->multi, NULL, 0, until_due_ms(t, parked_due_ns), NULL);
	}
	get_queue_end_cancelled(transfers.queue);
	return NULL;
}

static void wake_thread(void *arg, unsigned lane)
{
	(void)arg;
	curl_multi_wakeup(transfers.threads[lane].multi);
}

/* A breaker closed, on any thread. */
static void origin_is_back(void)
{
	http_client_wake();
	get_queue_unpark(transfers.queue, INT64_MAX);
}

static int init_thread(struct transfer_thread *t, unsigned lane, unsigned nslots)
{
	t->lane = lane;
	t->nslots = nslots;
	t->multi = curl_multi_init();
	t->slots = calloc(nslots, sizeof(*t->slots));
	t->spare = calloc(nslots, sizeof(CURL *));
	if (!t->multi || !t->slots || !t->spare)
		return -ENOMEM;
	curl_multi_setopt(t->multi, CURLMOPT_MAXCONNECTS, (long)nslots + 8);
	curl_multi_setopt(t->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
	return 0;
}

static void free_threads(unsigned nrunning)
{
	for (unsigned i = 0; i < nrunning; i++)
		pthread_join(transfers.threads[i].thread, NULL);
	for (unsigned i = 0; i < transfers.nthreads; i++) {
		struct transfer_thread *t = &transfers.threads[i];

		if (t->spare)
			drop_spares(t, 0);
		if (t->multi)
			curl_multi_cleanup(t->multi);
		free(t->slots);
		free(t->spare);
	}
	free(transfers.threads);
	get_queue_free(transfers.queue);
	transfers.threads = NULL;
	transfers.queue = NULL;
	transfers.nthreads = 0;
}

int transfer_start(unsigned threads, unsigned max_transfers, struct wd_err *err)
{
	unsigned nrunning = 0;
	int rc = 0;

	assert(!transfers.queue && threads > 0);
	http_client_start();
	if (max_transfers < threads)
		max_transfers = threads;
	transfers.queue = get_queue_new(threads, max_transfers, wake_thread, NULL);
	transfers.threads = calloc(threads, sizeof(*transfers.threads));
	if (!transfers.queue || !transfers.threads) {
		free_threads(0);
		return wd_err_sys(err, ENOMEM, "start transfers");
	}
	transfers.nthreads = threads;
	health_start(origin_is_back);
	/* any lane may for a moment hold all jobs */
	for (unsigned i = 0; i < threads && rc == 0; i++)
		rc = init_thread(&transfers.threads[i], i, max_transfers);
	while (nrunning < threads && rc == 0) {
		rc = -pthread_create(&transfers.threads[nrunning].thread, NULL, transfer_main,
			&transfers.threads[nrunning]);
		nrunning += rc == 0;
	}
	if (rc == 0)
		return 0;
	if (nrunning > 0)
		get_queue_stop(transfers.queue);
	free_threads(nrunning);
	return wd_err_sys(err, -rc, "start transfers");
}

void transfer_stop(void)
{
	if (!transfers.queue)
		return;
	get_queue_stop(transfers.queue);
	health_start(NULL); /* the transfer threads call it until they end */
	free_threads(transfers.nthreads);
}

void transfer_get(struct http_site *s, struct origin_get *get)
{
	get_queue_push(transfers.queue, &s->base, get);
}

void transfer_cancel(struct origin_get *get)
{
	get_queue_cancel(transfers.queue, get);
}

void transfer_drain(struct http_site *s)
{
	if (transfers.queue)
		get_queue_drain(transfers.queue, &s->base);
}
