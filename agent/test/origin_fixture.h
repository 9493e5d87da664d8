/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_TEST_ORIGIN_FIXTURE_H
#define WD_AGENT_TEST_ORIGIN_FIXTURE_H
/* What the tests of origins share: cmocka, a listing kept as text, and a get that can be waited
 * for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/origin.h"

/* Fails with the error's text. */
#define assert_ok(call)                                                                            \
	do {                                                                                       \
		int rc_ = (call);                                                                  \
		if (rc_ < 0)                                                                       \
			fail_msg("%s: %d %s", #call, rc_, err.msg);                                \
	} while (0)
#define assert_says(err, text)                                                                     \
	do {                                                                                       \
		if (!strstr((err).msg, text))                                                      \
			fail_msg("'%s' does not say '%s'", (err).msg, text);                       \
	} while (0)

struct listed {
	size_t n, stop_after; /* stop_after 0: never */
	char keys[16384];     /* "a b/ c ": keys in order, a blank behind each */
	struct version last;
	bool last_is_prefix;
};

static inline bool listed_add(void *arg, const struct origin_entry *e)
{
	struct listed *l = arg;
	size_t used = strlen(l->keys);

	assert_int_equal(e->key[e->key_len], 0);
	assert_int_equal(e->is_prefix, e->key[e->key_len - 1] == '/');
	snprintf(l->keys + used, sizeof(l->keys) - used, "%s ", e->key);
	l->last = e->version;
	l->last_is_prefix = e->is_prefix;
	l->n++;
	return l->n != l->stop_after;
}

struct fetch {
	struct origin_get get;
	struct version version;
	unsigned char *data; /* NULL: bytes are counted only */
	uint64_t got;
	int sink_rc;	     /* what the sink returns */
	uint64_t sink_after; /* ... once it has that many bytes */
	bool in_order;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	int ndone, status;
	struct wd_err err;
	struct fetch **order; /* appended to at done, when set */
	unsigned *norder;
};

static inline int fetch_sink(void *arg, uint64_t offset, const void *data, size_t len)
{
	struct fetch *f = arg;

	if (f->sink_rc && f->got >= f->sink_after)
		return f->sink_rc;
	f->in_order =
		f->in_order && offset == f->get.offset + f->got && f->got + len <= f->get.length;
	if (f->data && f->in_order)
		memcpy(f->data + f->got, data, len);
	f->got += len;
	return 0;
}

static inline void fetch_done(void *arg, int status, const struct wd_err *err)
{
	struct fetch *f = arg;

	pthread_mutex_lock(&f->lock);
	f->ndone++;
	f->status = status;
	f->err = *err;
	if (f->order)
		f->order[__atomic_fetch_add(f->norder, 1, __ATOMIC_RELAXED)] = f;
	pthread_cond_broadcast(&f->cond);
	pthread_mutex_unlock(&f->lock);
}

static inline void fetch_init(struct fetch *f, const char *key, const struct version *version,
	uint64_t offset, uint64_t length)
{
	*f = (struct fetch){.version = *version, .in_order = true};
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->cond, NULL);
	f->data = malloc(length);
	assert_non_null(f->data);
	f->get = (struct origin_get){.key = key,
		.version = &f->version,
		.offset = offset,
		.length = length,
		.priority = GET_DEMAND,
		.sink = fetch_sink,
		.done = fetch_done,
		.arg = f};
}

static inline int fetch_wait(struct fetch *f)
{
	pthread_mutex_lock(&f->lock);
	while (f->ndone == 0)
		pthread_cond_wait(&f->cond, &f->lock);
	pthread_mutex_unlock(&f->lock);
	assert_int_equal(f->ndone, 1);
	assert_true(f->in_order);
	if (f->status == 0)
		assert_int_equal(f->got, f->get.length);
	return f->status;
}

static inline void fetch_free(struct fetch *f)
{
	pthread_mutex_destroy(&f->lock);
	pthread_cond_destroy(&f->cond);
	free(f->data);
}

#endif
