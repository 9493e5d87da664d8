/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_ORIGIN_HEALTH_H
#define WD_AGENT_ORIGIN_HEALTH_H
/*
 * What is known about the endpoints of origins: one circuit breaker (agent/breaker.h) for each
 * scheme://host:port, shared by all origins there, whatever their bucket or identity.
 *
 * Opening and closing are logged once each. Thread-safe; one lock, a leaf. The callback of
 * health_start() is called without it, on the thread whose request got an answer.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "agent/origin.h"

struct health;

/* closed(): a breaker closed, requests that wait may go on. max_low: see pace_init(). */
void health_start(void (*closed)(void), unsigned max_low);

/* Finds or makes the endpoint's; NULL without memory. It lives as long as somebody holds it, and its
 * state is forgotten then. */
struct health *health_open(const char *endpoint);
void health_close(struct health *h);

/* As breaker_allows(). A request that was allowed reports once how it went. */
bool health_allows(struct health *h, int64_t *ret_at_ns);
/* No request is allowed right now; says in words why, e.g. "no answer since 12 s: Connection refused". */
bool health_is_open(struct health *h, char *text, size_t cap);

/* How fast it is, and how many requests it takes; it lives as long as h. */
struct pace *health_pace(struct health *h);

void health_answered(struct health *h);
/* A request failed for good because the endpoint was away, and no answer came since; text says how. */
bool health_is_away(struct health *h, char *text, size_t cap);
void health_gave_up(struct health *h);
/* `fault` decides whether the endpoint counts as away (see origin_fault_is_outage). */
void health_failed(struct health *h, enum origin_fault fault, int64_t asked_ms, const char *text);
void health_abandoned(struct health *h);

/* May a fault that was overcome be logged now? At most one line per second and endpoint; *ret_unsaid is
 * how many were not said since the last. */
bool health_may_say(struct health *h, unsigned *ret_unsaid);

/* Does the fault mean that the endpoint is away or wants to be left alone? */
bool origin_fault_is_outage(enum origin_fault fault);

/* A ranged read's first byte came after so long. */
void health_first_byte(struct health *h, int64_t took_ns);
/* ... and all of it did. h NULL: it was one of a file system. */
void health_fetched(struct health *h, int64_t took_ns);

/* So many endpoints have series of their own; what takes time at the others is added up as "other". */
#define HEALTH_SERIES_MAX 64
/* warpdrive_origin_...: one sample per endpoint. */
void health_print_metrics(FILE *out);

#endif
