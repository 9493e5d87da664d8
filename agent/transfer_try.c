/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tries of one read, in a slot of its thread.
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
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "agent/receive_window.h"
#include "agent/transfer_internal.h"
#include "common/fault.h"
#include "common/log.h"

#define PROGRESS_BYTES (256 * 1024)

/* ---- the body ---- */

static size_t end_try(struct slot *s, enum http_verdict verdict)
{
	s->bad = verdict;
	return 0;
}

/* What came since it was told last. */
static void tell_pace(struct slot *s)
{
	int64_t now_ns = wd_now_ns();

	pace_bytes(s->job->origin->pace, now_ns, s->given - s->paced, now_ns - s->body_ns);
	s->paced = s->given;
	s->body_ns = now_ns;
}

/* Bytes that nobody waits for are kept from standing in line before those of demand. */
static void set_window(struct slot *s)
{
	struct pace *pace = s->job->origin->pace;
	bool is_low = get_queue_class(s->queue, s->job) < GET_DEMAND;

	if (s->try.fd < 0)
		return;
	pace_rtt(pace, receive_window_rtt_ns(s->try.fd));
	receive_window_set(s->try.fd, is_low ? pace_low_window(pace) : RECEIVE_WINDOW_ANY);
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
		tell_pace(s);
		set_window(s);
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
		s->body_ns = wd_now_ns();
		s->paced = s->given;
		pace_first_byte(s->job->origin->pace, s->body_ns, s->body_ns - s->begun_ns);
		health_first_byte(s->try.site->health, s->body_ns - s->begun_ns);
		set_window(s);
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

	job->get->resume.given = s->given;
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

	if (s->retry.tries > 1 && s->last[0] && health_may_say(transfer_site(s)->health, &unsaid))
		wd_info("fetch '%s%s' bytes %" PRIu64 "-%" PRIu64 ": %s; right at try %u (%u more like it)",
			s->job->origin->url, get->key, get->offset, get->offset + get->length - 1, s->last,
			s->retry.tries, unsaid);
}

void transfer_finish(struct transfer_thread *t, struct slot *s, int status, const char *text)
{
	const struct origin_get *get = s->job->get;
	struct wd_err err = WD_ERR_INIT;

	if (status == 0) {
		say_overcome(s);
		health_fetched(transfer_site(s)->health, wd_now_ns() - s->taken_ns);
	} else {
		wd_err_set(&err, -status, "fetch '%s%s' bytes %" PRIu64 "-%" PRIu64 ": %s after %u %s",
			s->job->origin->url, get->key, get->offset, get->offset + get->length - 1, text,
			s->retry.tries, s->retry.tries == 1 ? "try" : "tries");
		if (status != -ECANCELED)
			origin_stats.errors[ORIGIN_OP_GET]++;
	}
	get_queue_finish(t->queue, leave_slot(t, s), status, &err);
}

void transfer_finish_out_of_time(struct transfer_thread *t, struct slot *s, const char *text)
{
	s->job->get->is_out_of_time = true;
	health_gave_up(transfer_site(s)->health);
	transfer_finish(t, s, -EIO, text);
}

/* The endpoint is away: the read waits for it without a place. at_ns: time for a probe. */
static void park(struct transfer_thread *t, struct slot *s, int64_t at_ns)
{
	struct origin_get *get = s->job->get;

	get->deadline_ns = s->retry.deadline_ns;
	get->resume.progress_at = s->progress_at;
	get->resume.tries = s->retry.tries;
	get->resume.last_ns = s->retry.last_ns;
	get_queue_park(t->queue, leave_slot(t, s),
		at_ns < get->resume.last_ns ? at_ns : get->resume.last_ns);
}

/* May a request go? If not, the slot is free again. */
static bool wait_turn(struct transfer_thread *t, struct slot *s)
{
	struct health *health = transfer_site(s)->health;
	int64_t at_ns;
	char why[300];

	while (!health_allows(health, &at_ns)) {
		if (!health_is_open(health, why, sizeof(why)))
			continue; /* it closed meanwhile */
		if (wd_now_ns() >= s->retry.last_ns)
			transfer_finish_out_of_time(t, s, why);
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
	s->try.site = transfer_site(s);
	s->try.sockets = &t->sockets;
	s->queue = t->queue;
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
	s->begun_ns = wd_now_ns();
	s->state = SLOT_TRYING;
	origin_stats.requests[ORIGIN_OP_GET]++;
	return 0;
}

void transfer_begin_try(struct transfer_thread *t, struct slot *s)
{
	int rc;

	if (s->try.hops == 0 && !wait_turn(t, s))
		return;
	rc = start_try(t, s);
	if (rc < 0)
		health_abandoned(transfer_site(s)->health);
	if (rc < 0)
		transfer_finish(t, s, rc == -ENOMEM ? -EIO : rc, strerror(-rc));
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
		transfer_finish_out_of_time(t, s, s->text);
		return;
	}
	wd_debug("fetch '%s%s': %s: trying again", s->job->origin->url, s->job->get->key, s->text);
	snprintf(s->last, sizeof(s->last), "%s", s->text);
	http_try_reset(&s->try);
	origin_stats.retries++;
	s->state = SLOT_WAITING;
	/* an open breaker says when, not our own backoff */
	if (health_is_open(transfer_site(s)->health, why, sizeof(why)))
		s->due_ns = 0;
}

void transfer_try_ended(struct transfer_thread *t, struct slot *s, CURLcode rc)
{
	enum http_verdict v = judge(s, rc);

	if (s->is_checked && s->given > s->paced)
		tell_pace(s);
	if (s->job->is_cancelled || (s->sink_rc < 0 && !s->is_checked))
		health_abandoned(s->try.site->health);
	else
		http_try_report(&s->try, s->sink_rc < 0 ? HTTP_OK : v, s->text);
	curl_multi_remove_handle(t->multi, s->try.easy);
	http_try_end(&s->try);
	if (s->job->is_cancelled)
		transfer_finish(t, s, -ECANCELED, "cancelled");
	else if (s->sink_rc < 0)
		transfer_finish(t, s, s->sink_rc, strerror(-s->sink_rc));
	else if (v == HTTP_OK)
		transfer_finish(t, s, 0, "");
	else if (v == HTTP_REDIRECT)
		transfer_begin_try(t, s);
	else if (v == HTTP_RETRY)
		retry_or_fail(t, s);
	else
		transfer_finish(t, s, http_verdict_errno(v), s->text);
}
