/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of endpoints. There are few (one per server that mounts name), so it is a list under one
 * lock. The path of a good answer takes no lock: `is_calm` says that the breaker is closed and nothing
 * is counted against the endpoint. The lock of a pace is a leaf below this one.
 */
#include "agent/origin_health.h"

#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "agent/breaker.h"
#include "agent/http_client.h"
#include "agent/metrics.h"
#include "agent/pace.h"
#include "common/lock.h"
#include "common/log.h"

#define SAY_EVERY_NS 1000000000LL

struct health {
	char *endpoint;
	unsigned refs;	/* guarded by table.lock, as all below */
	_Atomic bool is_calm;
	struct breaker breaker;
	struct pace pace; /* has its own lock */
	char last[300]; /* how the last request failed */
	bool has_failed; /* a request, for good; until the next answer */
	uint64_t opened, closed;
	bool has_series; /* of metrics; constant */
	struct wd_histogram first_byte, fetched;
	int64_t said_ns;
	unsigned unsaid;
	struct health *next;
};

static struct {
	pthread_once_t once;
	struct wd_mutex lock;
	struct health *head WD_GUARDED_BY(lock);
	unsigned nseries WD_GUARDED_BY(lock);
	struct wd_histogram other_first_byte, other_fetched; /* of those without series of their own */
	struct wd_histogram file_fetched; /* of file: */
	void (*_Atomic closed)(void);
	_Atomic unsigned max_low;
} table = {.once = PTHREAD_ONCE_INIT};

static void table_init(void)
{
	wd_mutex_init(&table.lock);
}

void health_start(void (*closed)(void), unsigned max_low)
{
	pthread_once(&table.once, table_init);
	atomic_store(&table.closed, closed);
	atomic_store(&table.max_low, max_low);
}

struct health *health_open(const char *endpoint)
{
	struct health *h;

	pthread_once(&table.once, table_init);
	wd_lock(&table.lock);
	for (h = table.head; h; h = h->next)
		if (strcmp(h->endpoint, endpoint) == 0)
			break;
	if (!h && (h = calloc(1, sizeof(*h)))) {
		h->endpoint = strdup(endpoint);
		h->is_calm = true;
		if (h->endpoint) {
			pace_init(&h->pace, atomic_load(&table.max_low));
			h->has_series = table.nseries < HEALTH_SERIES_MAX;
			table.nseries += h->has_series;
			h->next = table.head;
			table.head = h;
		} else {
			free(h);
			h = NULL;
		}
	}
	if (h)
		h->refs++;
	wd_unlock(&table.lock);
	return h;
}

void health_close(struct health *h)
{
	struct health **p = &table.head;
	bool is_last;

	if (!h)
		return;
	wd_lock(&table.lock);
	is_last = --h->refs == 0;
	while (is_last && *p != h)
		p = &(*p)->next;
	if (is_last) {
		*p = h->next;
		table.nseries -= h->has_series;
	}
	wd_unlock(&table.lock);
	if (!is_last)
		return;
	pace_done(&h->pace);
	free(h->endpoint);
	free(h);
}

struct pace *health_pace(struct health *h)
{
	return &h->pace;
}

bool health_allows(struct health *h, int64_t *ret_at_ns)
{
	bool is_allowed;

	if (atomic_load_explicit(&h->is_calm, memory_order_acquire))
		return true;
	wd_lock(&table.lock);
	is_allowed = breaker_allows(&h->breaker, wd_now_ns(), ret_at_ns);
	wd_unlock(&table.lock);
	return is_allowed;
}

bool health_is_open(struct health *h, char *text, size_t cap)
{
	bool is_open;

	wd_lock(&table.lock);
	is_open = h->breaker.state != BREAKER_CLOSED;
	if (is_open)
		snprintf(text, cap, "no answer since %" PRId64 " s: %s",
			(wd_now_ns() - h->breaker.opened_ns) / 1000000000, h->last);
	wd_unlock(&table.lock);
	return is_open;
}

bool health_is_away(struct health *h, char *text, size_t cap)
{
	bool is_away;

	if (atomic_load_explicit(&h->is_calm, memory_order_acquire))
		return false;
	wd_lock(&table.lock);
	is_away = h->has_failed || h->breaker.state != BREAKER_CLOSED;
	if (is_away)
		snprintf(text, cap, "'%s' is away: %s", h->endpoint, h->last);
	wd_unlock(&table.lock);
	return is_away;
}

void health_gave_up(struct health *h)
{
	wd_lock(&table.lock);
	/* what answered meanwhile is not away */
	h->has_failed = !atomic_load_explicit(&h->is_calm, memory_order_acquire);
	wd_unlock(&table.lock);
}

void health_answered(struct health *h)
{
	void (*closed)(void);
	int64_t since_ns;
	bool has_closed;

	if (atomic_load_explicit(&h->is_calm, memory_order_acquire))
		return;
	wd_lock(&table.lock);
	since_ns = h->breaker.opened_ns;
	has_closed = breaker_answered(&h->breaker);
	h->has_failed = false;
	h->closed += has_closed;
	atomic_store_explicit(&h->is_calm, true, memory_order_release);
	wd_unlock(&table.lock);
	if (!has_closed)
		return;
	wd_info("origin '%s' answers again after %" PRId64 " s", h->endpoint,
		(wd_now_ns() - since_ns + 500000000) / 1000000000);
	closed = atomic_load(&table.closed);
	if (closed)
		closed();
}

bool origin_fault_is_outage(enum origin_fault fault)
{
	switch (fault) {
	case ORIGIN_FAULT_DNS:
	case ORIGIN_FAULT_CONNECT:
	case ORIGIN_FAULT_RESET:
	case ORIGIN_FAULT_STALL:
	case ORIGIN_FAULT_THROTTLED:
	case ORIGIN_FAULT_SERVER:
		return true;
	default:
		return false;
	}
}

void health_failed(struct health *h, enum origin_fault fault, int64_t asked_ms, const char *text)
{
	bool has_opened;

	if (!origin_fault_is_outage(fault)) {
		health_answered(h);
		return;
	}
	wd_lock(&table.lock);
	atomic_store_explicit(&h->is_calm, false, memory_order_release);
	snprintf(h->last, sizeof(h->last), "%s", text);
	has_opened = breaker_failed(&h->breaker, wd_now_ns(), asked_ms, http_random());
	h->opened += has_opened;
	wd_unlock(&table.lock);
	if (has_opened)
		wd_warn("origin '%s' is away (%s): requests wait for it until their deadline", h->endpoint,
			text);
}

void health_abandoned(struct health *h)
{
	if (atomic_load_explicit(&h->is_calm, memory_order_acquire))
		return;
	wd_lock(&table.lock);
	breaker_abandoned(&h->breaker, wd_now_ns());
	wd_unlock(&table.lock);
}

bool health_may_say(struct health *h, unsigned *ret_unsaid)
{
	int64_t now_ns = wd_now_ns();
	bool may;

	wd_lock(&table.lock);
	may = h->said_ns == 0 || now_ns - h->said_ns >= SAY_EVERY_NS;
	if (may) {
		h->said_ns = now_ns;
		*ret_unsaid = h->unsaid;
		h->unsaid = 0;
	} else {
		h->unsaid++;
	}
	wd_unlock(&table.lock);
	return may;
}

/* ---- metrics ---- */

void health_first_byte(struct health *h, int64_t took_ns)
{
	wd_histogram_add(h->has_series ? &h->first_byte : &table.other_first_byte, took_ns);
}

void health_fetched(struct health *h, int64_t took_ns)
{
	wd_histogram_add(!h ? &table.file_fetched : h->has_series ? &h->fetched : &table.other_fetched, took_ns);
}

static void print_times_locked(FILE *out, enum family family, size_t offset, const struct wd_histogram *other,
	const struct wd_histogram *file) WD_REQUIRES(table.lock)
{
	static const char *const rest = "other", *const files = "file";
	const struct wd_family *f = &families[family];

	wd_family_begin(out, f);
	for (const struct health *h = table.head; h; h = h->next)
		if (h->has_series)
			wd_histogram_print(out, f, (const char *const *)&h->endpoint,
				(const struct wd_histogram *)((const char *)h + offset));
	if (wd_histogram_count(other))
		wd_histogram_print(out, f, &rest, other);
	if (file && wd_histogram_count(file))
		wd_histogram_print(out, f, &files, file);
}

static double pace_value(const struct pace_stats *s, enum family family)
{
	return family == FAMILY_CONNECTIONS   ? s->connections
	       : family == FAMILY_REQUEST_LIMIT ? (uint64_t)s->request_limit
	       : family == FAMILY_LATENCY	? s->latency_s
						: (uint64_t)s->bytes_per_s;
}

static void print_paces_locked(FILE *out) WD_REQUIRES(table.lock)
{
	static const enum family order[] = {FAMILY_CONNECTIONS, FAMILY_REQUEST_LIMIT, FAMILY_LATENCY, FAMILY_RATE};

	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
		const struct wd_family *f = &families[order[i]];

		wd_family_begin(out, f);
		for (struct health *h = table.head; h; h = h->next) {
			struct pace_stats s;

			if (!h->has_series)
				continue;
			pace_get_stats(&h->pace, &s);
			wd_sample_real(out, f, (const char *const *)&h->endpoint, pace_value(&s, order[i]));
		}
	}
}

static void print_breakers_locked(FILE *out) WD_REQUIRES(table.lock)
{
	const struct wd_family *state = &families[FAMILY_BREAKER], *moves = &families[FAMILY_BREAKER_MOVES];

	wd_family_begin(out, state);
	for (const struct health *h = table.head; h; h = h->next)
		if (h->has_series)
			wd_sample(out, state, (const char *const *)&h->endpoint, h->breaker.state);
	wd_family_begin(out, moves);
	for (const struct health *h = table.head; h; h = h->next) {
		if (!h->has_series)
			continue;
		wd_sample(out, moves, (const char *[]){h->endpoint, "open"}, h->opened);
		wd_sample(out, moves, (const char *[]){h->endpoint, "closed"}, h->closed);
	}
}

void health_print_metrics(FILE *out)
{
	pthread_once(&table.once, table_init);
	wd_lock(&table.lock);
	print_breakers_locked(out);
	print_paces_locked(out);
	print_times_locked(out, FAMILY_FIRST_BYTE, offsetof(struct health, first_byte), &table.other_first_byte, NULL);
	print_times_locked(out, FAMILY_FETCH_TIME, offsetof(struct health, fetched), &table.other_fetched,
		&table.file_fetched);
	wd_unlock(&table.lock);
}
