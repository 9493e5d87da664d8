/* SPDX-License-Identifier: Apache-2.0 */
/* The control API's calls about the cache as a whole: its datasets, its size, draining; and the settings read anew. */
#include <errno.h>
#include <string.h>

#include "agent/control_internal.h"
#include "agent/reload.h"
#include "common/cleanup.h"
#include "common/lock.h"
#include "common/log.h"

typedef Warpdrive__V1__ListDatasetsResponse Datasets;
typedef Warpdrive__V1__CacheState CacheState;

/* ---- datasets ---- */

struct listing {
	struct rpc_call *call;
	Datasets *out;
	size_t cap;
	bool is_out_of_memory;
};

static size_t length_of(const char *url)
{
	size_t len = strlen(url);

	while (len > 0 && url[len - 1] == '/')
		len--;
	return len;
}

/* A "/" at the end means nothing. */
static Warpdrive__V1__DatasetInfo *find_dataset(Datasets *out, const char *url)
{
	for (size_t i = 0; i < out->n_datasets; i++) {
		const char *known = out->datasets[i]->url;

		if (length_of(known) == length_of(url) && strncmp(known, url, length_of(url)) == 0)
			return out->datasets[i];
	}
	return NULL;
}

static Warpdrive__V1__DatasetInfo *new_dataset(struct listing *l, const char *url)
{
	Warpdrive__V1__DatasetInfo *d = arena_alloc(l->call->arena, sizeof(*d));

	if (l->out->n_datasets == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 32;
		void *more = arena_alloc(l->call->arena, cap * sizeof(*l->out->datasets));

		if (!more)
			return NULL;
		if (l->out->n_datasets)
			memcpy(more, l->out->datasets, l->out->n_datasets * sizeof(*l->out->datasets));
		l->out->datasets = more;
		l->cap = cap;
	}
	if (!d)
		return NULL;
	warpdrive__v1__dataset_info__init(d);
	d->url = control_text(l->call, url);
	if (d->url)
		l->out->datasets[l->out->n_datasets++] = d;
	return d->url ? d : NULL;
}

/* Several identities may have seen one dataset, each its names; the bytes are the same. */
static bool add_dataset(void *arg, const char *url, const struct dataset_totals *t)
{
	struct listing *l = arg;
	Warpdrive__V1__DatasetInfo *d = find_dataset(l->out, url);

	if (!d)
		d = new_dataset(l, url);
	l->is_out_of_memory |= !d;
	if (d && t->bytes >= d->size) {
		d->files = t->files;
		d->size = t->bytes;
		d->is_whole = t->is_listed;
	}
	if (d && t->cached_bytes > d->cached)
		d->cached = t->cached_bytes;
	if (d && (int64_t)t->last_used_s > d->last_used)
		d->last_used = (int64_t)t->last_used_s;
	return d && !rpc_is_cancelled(l->call);
}

enum rpc_code control_list_datasets(struct rpc_call *call, const void *request, void *response)
{
	struct listing l = {.call = call, .out = response};
	struct agent *a = control_agent(call);
	struct store_stats stats;
	int rc = tree_datasets(a->tree, a->store, add_dataset, &l);

	if (l.is_out_of_memory || rc == -ENOMEM)
		return control_no_memory(call);
	if (rc < 0 && rc != -ECANCELED)
		return rpc_fail(call, rpc_code_of(-rc), "the metadata cannot be read");
	wd_lock(&a->lock);
	for (const struct mount *mnt = a->mounts; mnt; mnt = mnt->next) {
		Warpdrive__V1__DatasetInfo *d = find_dataset(l.out, mnt->display);

		if (d)
			d->mounts++;
	}
	wd_unlock(&a->lock);
	store_get_stats(a->store, &stats);
	l.out->cache_used = stats.used_bytes;
	return RPC_OK;
}

/* ---- the cache ---- */

static void fill_state(struct agent *a, CacheState *out)
{
	struct store_stats s;

	store_get_stats(a->store, &s);
	out->used = s.used_bytes + s.admitted_bytes;
	out->limit = s.limit_bytes;
	out->configured = s.configured_bytes;
	out->evicted = s.evicted_bytes;
	out->is_draining = s.is_draining;
}

enum rpc_code control_set_cache(struct rpc_call *call, const void *request, void *response)
{
	const Warpdrive__V1__SetCacheRequest *in = request;
	struct agent *a = control_agent(call);
	struct store_stats s;

	store_get_stats(a->store, &s);
	if (in->limit > s.configured_bytes)
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "more than the setting cache-size, %llu bytes",
			(unsigned long long)s.configured_bytes);
	if (in->limit || in->is_default) {
		store_set_limit(a->store, in->is_default ? s.configured_bytes : in->limit);
		wd_info("cache: at most %llu bytes until the agent is restarted",
			(unsigned long long)(in->is_default ? s.configured_bytes : in->limit));
	}
	if (in->drain != WARPDRIVE__V1__DRAIN__DRAIN_AS_IT_IS) {
		store_set_draining(a->store, in->drain == WARPDRIVE__V1__DRAIN__DRAIN_BEGIN);
		wd_info("cache: %s", in->drain == WARPDRIVE__V1__DRAIN__DRAIN_BEGIN
			? "draining: nothing is admitted until that is ended, or the agent restarted" : "admits again");
	}
	fill_state(a, response);
	return RPC_OK;
}

/* ---- settings ---- */

struct changes {
	struct rpc_call *call;
	Warpdrive__V1__ReloadResponse *out;
};

static void note_change(void *arg, const char *name, bool is_applied)
{
	struct changes *c = arg;
	char ***list = is_applied ? &c->out->applied : &c->out->not_applied;
	size_t *n = is_applied ? &c->out->n_applied : &c->out->n_not_applied;

	if (*list)
		(*list)[(*n)++] = (char *)(uintptr_t)name;
}

enum rpc_code control_reload(struct rpc_call *call, const void *request, void *response)
{
	struct changes c = {call, response};
	struct wd_err err = WD_ERR_INIT;
	int rc;

	c.out->applied = arena_alloc(call->arena, RELOAD_KEYS_MAX * sizeof(char *));
	c.out->not_applied = arena_alloc(call->arena, RELOAD_KEYS_MAX * sizeof(char *));
	rc = reload(control_agent(call), note_change, &c, &err);
	return rc < 0 ? rpc_fail(call, rpc_code_of(-rc), "%s", err.msg) : RPC_OK;
}
