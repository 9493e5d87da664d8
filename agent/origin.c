/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registry of origins: one row per scheme, and the dispatch to it. What all kinds have in
 * common is here: the URL for eyes, the default deadline, which options make sense where, and the
 * life of the threads. No state but the counters.
 */
#include "agent/origin.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/http_client.h"
#include "agent/metrics.h"
#include "agent/origin_health.h"
#include "agent/origin_impl.h"
#include "agent/origin_manifest.h"
#include "agent/transfer.h"
#include "common/cleanup.h"

#define FILE_THREADS 4
#define URL_MAX_LEN 2048

struct origin_stats origin_stats;

static const struct origin_ops *const kinds[] = {
	&origin_file_ops,
	&origin_http_ops,
	&origin_https_ops,
	&origin_s3_ops,
};
#define NKINDS (sizeof(kinds) / sizeof(kinds[0]))

bool version_equal(const struct version *a, const struct version *b)
{
	if (a->size != b->size)
		return false;
	if (a->etag[0] && b->etag[0])
		return strcmp(a->etag, b->etag) == 0;
	/* HTTP knows seconds only: a missing fraction is no difference */
	return a->mtime_s == b->mtime_s &&
	       (a->mtime_ns == b->mtime_ns || !a->mtime_ns || !b->mtime_ns);
}

bool origin_copy(char **ret_copy, const char *text)
{
	*ret_copy = text ? strdup(text) : NULL;
	return !text || *ret_copy;
}

void origin_forget(char *secret)
{
	if (!secret)
		return;
	explicit_bzero(secret, strlen(secret));
	free(secret);
}

char *origin_redact_url(const char *url)
{
	const char *sep = strstr(url, "://"), *end, *at;
	char *copy = strdup(url);

	if (!sep || !copy)
		return copy;
	sep += 3;
	end = sep + strcspn(sep, "/");
	at = memrchr(sep, '@', (size_t)(end - sep));
	if (at)
		memmove(copy + (sep - url), copy + (at + 1 - url), strlen(at + 1) + 1);
	return copy;
}

int origins_start(unsigned threads, unsigned max_transfers, struct wd_err *err)
{
	int rc = transfer_start(threads ? threads : 1, max_transfers, err);

	if (rc < 0)
		return rc;
	rc = origin_file_start(FILE_THREADS, err);
	if (rc < 0)
		transfer_stop();
	return rc;
}

void origins_set_stall_timeout(int64_t timeout_ms)
{
	http_limits.low_speed_s = timeout_ms > 1000 ? (long)((timeout_ms + 999) / 1000) : 1;
}

void origins_set_policy(const struct origin_policy *policy)
{
	http_client_set_policy(policy);
}

void origins_interrupt(void)
{
	http_client_stop();
}

void origins_stop(void)
{
	origins_interrupt();
	transfer_stop();
	origin_file_stop();
}

static const struct origin_ops *find_kind(const char *url)
{
	const char *sep = strstr(url, "://");

	for (size_t i = 0; sep && i < NKINDS; i++) {
		size_t len = strlen(kinds[i]->scheme);

		if ((size_t)(sep - url) == len && memcmp(url, kinds[i]->scheme, len) == 0)
			return kinds[i];
	}
	return NULL;
}

static int unknown_scheme(const char *shown, struct wd_err *err)
{
	char known[128] = "";

	for (size_t i = 0; i < NKINDS; i++)
		snprintf(known + strlen(known), sizeof(known) - strlen(known), "%s%s://",
			i ? ", " : "", kinds[i]->scheme);
	return wd_err_set(
		err, EINVAL, "open '%s': unknown kind of URL; known are %s", shown, known);
}

/* Options that mean nothing for the kind would be ignored silently: refuse them by name. */
static int check_options(const struct origin_ops *kind, const struct origin_options *options,
	const char *shown, struct wd_err *err)
{
	bool is_s3 = kind == &origin_s3_ops, is_file = kind == &origin_file_ops;
	const char *bad = NULL;

	if (options->index && (is_s3 || is_file))
		bad = "index";
	else if (options->endpoint && !is_s3)
		bad = "endpoint";
	else if (options->ca_cert && is_file)
		bad = "ca-cert";
	if (bad)
		return wd_err_set(err, EINVAL,
			"open '%s': option '%s' means nothing for a %s:// URL", shown, bad,
			kind->scheme);
	if (options->deadline_ms < 0)
		return wd_err_set(err, EINVAL, "open '%s': the deadline is negative", shown);
	if (options->version && options->index)
		return wd_err_set(err, EINVAL, "open '%s': 'version' and 'index' at once: a version is an index", shown);
	if (options->version && !manifest_is_name(options->version))
		return wd_err_set(err, EINVAL,
			"open '%s': version '%.64s': a name of letters, digits, '.', '_' and '-' that does not begin with '.'",
			shown, options->version);
	return 0;
}

int origin_open(const char *url, const struct origin_options *options, struct origin **ret_origin,
	struct wd_err *err)
{
	static const struct origin_options none;
	wd_autofree char *shown = origin_redact_url(url), *manifest = NULL;
	const struct origin_ops *kind = find_kind(url);
	struct origin *o = NULL;
	int rc;

	if (!options)
		options = &none;
	if (!shown)
		return wd_err_sys(err, ENOMEM, "open the origin");
	if (strlen(url) > URL_MAX_LEN)
		return wd_err_set(err, EINVAL, "open '%.64s...': the URL is longer than %d bytes",
			shown, URL_MAX_LEN);
	if (!kind)
		return unknown_scheme(shown, err);
	rc = check_options(kind, options, shown, err);
	if (rc < 0)
		return rc;
	if (options->version && !(manifest = manifest_key(options->version)))
		return wd_err_sys(err, ENOMEM, "open '%s'", shown);
	rc = kind->open(url, options, &o, err);
	if (rc < 0) {
		wd_err_wrap(err, "open '%s'", shown);
		return rc;
	}
	o->ops = kind;
	o->manifest = wd_steal_ptr(manifest);
	o->clock_skew_s = INT64_MIN;
	if (!o->url)
		o->url = wd_steal_ptr(shown);
	o->deadline_ms = options->deadline_ms ? options->deadline_ms : ORIGIN_DEADLINE_MS;
	*ret_origin = o;
	return 0;
}

void origin_close(struct origin *o)
{
	if (!o)
		return;
	o->ops->drain(o);
	free(o->url);
	free(o->manifest);
	o->ops->close(o);
}

static struct {
	pthread_mutex_t lock;
	struct origin *head;
} retired = {.lock = PTHREAD_MUTEX_INITIALIZER};

void origin_retire(struct origin *o)
{
	if (!o)
		return;
	pthread_mutex_lock(&retired.lock);
	o->next_retired = retired.head;
	retired.head = o;
	pthread_mutex_unlock(&retired.lock);
}

void origins_reap(void)
{
	struct origin *o, *next;

	pthread_mutex_lock(&retired.lock);
	o = retired.head;
	retired.head = NULL;
	pthread_mutex_unlock(&retired.lock);
	for (; o; o = next) {
		next = o->next_retired;
		origin_close(o);
	}
}

int origin_set_credentials(struct origin *o, const struct origin_options *options, struct wd_err *err)
{
	return o->ops->set_credentials ? o->ops->set_credentials(o, options, err) : 0;
}

int origin_check(struct origin *o, struct wd_err *err)
{
	return o->manifest ? manifest_check(o, err) : o->ops->check(o, err);
}

enum origin_trouble origin_trouble(struct origin *o, char *text, size_t cap)
{
	return o->ops->trouble ? o->ops->trouble(o, text, cap) : ORIGIN_WELL;
}

bool origin_clock_skew(const struct origin *o, int64_t *ret_s)
{
	int64_t skew_s = o->clock_skew_s;

	if (skew_s != INT64_MIN)
		*ret_s = skew_s;
	return skew_s != INT64_MIN;
}

const char *origin_url(const struct origin *o)
{
	return o->url;
}

bool origin_lists_recursively(const struct origin *o)
{
	return o->manifest || o->ops->lists_recursively(o);
}

int origin_list(struct origin *o, const char *prefix, bool is_recursive, unsigned max_pages,
	origin_entry_cb cb, void *arg, bool *ret_is_complete, struct wd_err *err)
{
	size_t len = strlen(prefix);
	bool is_complete = false;
	int rc;

	if (len > ORIGIN_KEY_MAX || (len > 0 && prefix[len - 1] != '/'))
		return wd_err_set(err, EINVAL, "list '%s%.64s': not a prefix", o->url, prefix);
	if (is_recursive && !origin_lists_recursively(o))
		return wd_err_set(err, EOPNOTSUPP, "list '%s%s': it lists one level at a time",
			o->url, prefix);
	if (o->manifest)
		rc = manifest_list(o, prefix, is_recursive, cb, arg, &is_complete, err);
	else
		rc = o->ops->list(o, prefix, is_recursive, max_pages, cb, arg, &is_complete, err);
	if (rc == 0 && ret_is_complete)
		*ret_is_complete = is_complete;
	return rc;
}

int origin_probe(struct origin *o, const char *key, enum origin_kind *ret_kind,
	struct version *ret_version, struct wd_err *err)
{
	if (strlen(key) > ORIGIN_KEY_MAX) {
		*ret_kind = ORIGIN_NONE;
		return 0;
	}
	return o->manifest ? manifest_probe(o, key, ret_kind, ret_version, err)
			   : o->ops->probe(o, key, ret_kind, ret_version, err);
}

int origin_stat(struct origin *o, const char *key, struct version *ret_version, struct wd_err *err)
{
	if (strlen(key) > ORIGIN_KEY_MAX)
		return wd_err_set(
			err, ENOENT, "look up '%s%.64s...': the key is too long", o->url, key);
	return o->manifest ? manifest_stat(o, key, ret_version, err) : o->ops->stat(o, key, ret_version, err);
}

void origin_get(struct origin *o, struct origin_get *get)
{
	assert(get->length > 0 && get->offset + get->length > get->offset);
	if (!get->deadline_ns)
		get->deadline_ns = wd_now_ns() + o->deadline_ms * 1000000;
	get->is_out_of_time = false;
	memset(&get->resume, 0, sizeof(get->resume));
	o->ops->get(o, get);
}

void origin_cancel(struct origin *o, struct origin_get *get)
{
	o->ops->cancel(o, get);
}

void origin_prioritise(struct origin *o, struct origin_get *get, enum get_priority priority)
{
	o->ops->prioritise(o, get, priority);
}

#define LOCAL_WINDOW (32ULL << 20) /* where the origin is a file system */
#define LIMITED_GET_S 4		    /* under a limit, a GET is a quarter of a second's worth */
#define LIMITED_GET_MIN (256ULL << 10)

void origin_advise(struct origin *o, const struct flow *flow, struct origin_advice *ret_advice)
{
	uint64_t limit = flows_limit();
	struct pace_advice pace = {.get_bytes = UINT64_MAX, .window_bytes = LOCAL_WINDOW};

	if (flow && flow->rate && (limit == 0 || flow->rate < limit))
		limit = flow->rate;
	if (o->pace)
		pace_advise(o->pace, &pace);
	while (limit && pace.get_bytes > limit / LIMITED_GET_S && pace.get_bytes > LIMITED_GET_MIN)
		pace.get_bytes = pace.get_bytes == UINT64_MAX ? 16ULL << 20 : pace.get_bytes / 2;
	*ret_advice = (struct origin_advice){pace.get_bytes, pace.window_bytes};
}

/* ---- metrics ---- */

static const char *const fault_labels[ORIGIN_FAULT_COUNT] = {
#define F(id, label) label,
	ORIGIN_FAULTS(F)
#undef F
};

/* One figure for each label. */
static void print_each(FILE *out, enum family family, const char *const *labels, size_t n, const _Atomic uint64_t *values)
{
	wd_family_begin(out, &families[family]);
	for (size_t i = 0; i < n; i++)
		wd_sample(out, &families[family], &labels[i], atomic_load(&values[i]));
}

void origin_print_metrics(FILE *out)
{
	static const char *const ops[ORIGIN_OP_COUNT] = {"list", "head", "get", "sts"};

	print_each(out, FAMILY_ORIGIN_REQUESTS, ops, ORIGIN_OP_COUNT, origin_stats.requests);
	print_each(out, FAMILY_ORIGIN_ERRORS, ops, ORIGIN_OP_COUNT, origin_stats.errors);
	print_each(out, FAMILY_ORIGIN_FAULTS, fault_labels, ORIGIN_FAULT_COUNT, origin_stats.faults);
	wd_family_one(out, &families[FAMILY_ORIGIN_RETRIES], atomic_load(&origin_stats.retries));
	wd_family_one(out, &families[FAMILY_ORIGIN_BYTES], atomic_load(&origin_stats.bytes));
	health_print_metrics(out);
}
