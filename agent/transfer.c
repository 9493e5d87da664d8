/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transfer threads.
 *
 * Each thread runs one curl multi: it takes reads from its lane of the queue, runs their tries
 * (transfer_try.c), and keeps the reads that wait for their next try in `slots` with the time they are
 * due. It sleeps in curl_multi_poll() until a socket, a curl timer, a due retry or a wake-up.
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

#include "agent/transfer_internal.h"

#define SPARES_IDLE 2 /* handles a thread keeps while it has nothing to do */

static struct {
	struct get_queue *queue;
	struct transfer_thread *threads;
	unsigned nthreads;
} transfers;

/* Sets a slot's clock for a job that got its place. Standing in line counts only while the origin is
 * away: a line in front of an origin that is well is no fault. */
static void start_clock(struct slot *s, const struct origin_get *get)
{
	int64_t now_ns = wd_now_ns(), full_ns = now_ns + s->job->origin->deadline_ms * 1000000;
	int64_t deadline_ns = get->deadline_ns;
	char why[300];

	if (deadline_ns < full_ns && get->resume.tries == 0 && get->resume.due_ns == 0 &&
		!health_is_open(transfer_site(s)->health, why, sizeof(why)))
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
		s->taken_ns = wd_now_ns();
		start_clock(s, job->get);
		t->nused++;
		if (job->is_cancelled)
			transfer_finish(t, s, -ECANCELED, "cancelled");
		else
			transfer_begin_try(t, s);
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
		transfer_finish(t, s, -ECANCELED, "cancelled");
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
		transfer_finish_out_of_time(t, s, s->last[0] ? s->last : s->text);
	}
}

static void run_due(struct transfer_thread *t)
{
	int64_t now_ns = wd_now_ns();

	for (struct slot *s = t->slots; s < t->slots + t->nslots; s++)
		if (s->state == SLOT_WAITING && s->due_ns <= now_ns)
			transfer_begin_try(t, s);
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
		transfer_try_ended(t, s, msg->data.result);
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
	t->queue = transfers.queue;
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
		http_sockets_done(&t->sockets);
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
	transfers.queue = get_queue_new(threads, max_transfers, wake_thread, NULL, wd_now_ns);
	transfers.threads = calloc(threads, sizeof(*transfers.threads));
	if (!transfers.queue || !transfers.threads) {
		free_threads(0);
		return wd_err_sys(err, ENOMEM, "start transfers");
	}
	transfers.nthreads = threads;
	health_start(origin_is_back, max_transfers * 3 / 4);
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
	health_start(NULL, 0); /* the transfer threads call it until they end */
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

void transfer_prioritise(struct origin_get *get, enum get_priority priority)
{
	get_queue_prioritise(transfers.queue, get, priority);
}

void transfer_drain(struct http_site *s)
{
	if (transfers.queue)
		get_queue_drain(transfers.queue, &s->base);
}
