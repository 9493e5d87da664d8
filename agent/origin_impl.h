/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_ORIGIN_IMPL_H
#define WD_AGENT_ORIGIN_IMPL_H
/*
 * Between origin.c and the kinds of origin; nobody else includes this. A kind is a struct that
 * begins with `struct origin base` and a row of functions; origin.c lists the rows.
 */
#include "agent/flow.h"
#include "agent/origin.h"
#include "agent/pace.h"

#define ORIGIN_DEADLINE_MS 60000

/* One row per scheme. Contracts as in origin.h; a NULL err is allowed everywhere. */
struct origin_ops {
	const char *scheme;
	/* Makes the kind's struct; origin.c has checked the scheme and fills base afterwards. */
	int (*open)(const char *url, const struct origin_options *options,
		struct origin **ret_origin, struct wd_err *err);
	void (*close)(struct origin *o); /* frees; every get has ended */
	/* Cancels what is queued or under way for o, and waits for the last done(). */
	void (*drain)(struct origin *o);
	int (*check)(struct origin *o, struct wd_err *err);
	/* NULL: it has none that lasts */
	enum origin_trouble (*trouble)(struct origin *o, char *text, size_t cap);
	/* NULL: the kind has no credentials */
	int (*set_credentials)(struct origin *o, const struct origin_options *options, struct wd_err *err);
	bool (*lists_recursively)(const struct origin *o);
	int (*list)(struct origin *o, const char *prefix, bool is_recursive, unsigned max_pages,
		origin_entry_cb cb, void *arg, bool *ret_is_complete, struct wd_err *err);
	int (*probe)(struct origin *o, const char *key, enum origin_kind *ret_kind,
		struct version *ret_version, struct wd_err *err);
	int (*stat)(
		struct origin *o, const char *key, struct version *ret_version, struct wd_err *err);
	void (*get)(struct origin *o, struct origin_get *get);
	void (*cancel)(struct origin *o, struct origin_get *get);
	void (*prioritise)(struct origin *o, struct origin_get *get, enum get_priority priority);
};

struct origin {
	const struct origin_ops *ops;
	char *url; /* without user info */
	char *manifest; /* key of the pinned version's (origin_manifest.h); NULL: the dataset as it is */
	struct origin *next_retired;
	int64_t deadline_ms;
	/* origin_clock_skew(); INT64_MIN while no answer had a date */
	_Atomic int64_t clock_skew_s;
	struct pace *pace; /* of the endpoint; NULL: there is nothing to pace */
	struct flow flow;  /* of reads that have none */
	unsigned in_flight; /* gets not yet done; guarded by the lock of the queue they go through */
};

extern const struct origin_ops origin_file_ops;
extern const struct origin_ops origin_http_ops;
extern const struct origin_ops origin_https_ops;
extern const struct origin_ops origin_s3_ops;

/* The reading threads of the file origin. */
int origin_file_start(unsigned threads, struct wd_err *err);
void origin_file_stop(void);

/* A copy of the URL for eyes: user info cut out. NULL without memory. */
char *origin_redact_url(const char *url);

/* strdup that keeps NULL; false without memory. */
bool origin_copy(char **ret_copy, const char *text);
/* Overwrites and frees a secret; NULL is fine. */
void origin_forget(char *secret);

#endif
