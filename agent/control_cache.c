/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control API's calls that change what the cache keeps: evict, pin, unpin. They go over the names that are known
 * (tree_known), so they ask the origin for no listing; a call ends after a while, and who wants the rest asks again:
 * what is done already costs little then.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/control_internal.h"
#include "agent/pins.h"
#include "common/cleanup.h"
#include "common/lock.h"
#include "common/log.h"

#define SLICE_NS 20000000000LL
#define KEPT_MAX 100
#define BELIEVED (INT64_MAX / 2) /* names are, however old: nothing is asked that is known */

typedef Warpdrive__V1__EvictResponse Evicted;
typedef Warpdrive__V1__PinResponse Pinned;

struct work {
	struct rpc_call *call;
	struct mount *mount;
	int64_t until_ns;
	Evicted *evicted;
	Pinned *pinned;
	bool is_unpinning;
};

static bool is_time_up(const struct work *w)
{
	return wd_now_ns() > w->until_ns || rpc_is_cancelled(w->call);
}

/* ---- evict ---- */

static void note_kept(struct work *w, const char *path, int code, const char *text)
{
	Warpdrive__V1__WarmFailure *f;

	if (w->evicted->n_kept == KEPT_MAX || !(f = arena_alloc(w->call->arena, sizeof(*f))))
		return;
	warpdrive__v1__warm_failure__init(f);
	f->path = control_text(w->call, path);
	f->code = code;
	f->text = (char *)(uintptr_t)text;
	if (f->path)
		w->evicted->kept[w->evicted->n_kept++] = f;
}

static int evict_object_of(struct agent *a, const struct object_id *id)
{
	int rc = store_evict(a->store, id);

	/* what nobody has open, but a pool of open files holds */
	if (rc == -EBUSY && open_reclaim(a, id) == 0)
		rc = store_evict(a->store, id);
	return rc;
}

static bool evict_file(void *arg, const struct node *node)
{
	struct work *w = arg;
	struct agent *a = w->mount->agent;
	Evicted *out = w->evicted;
	struct object_id id;
	uint64_t present = 0;
	int rc;

	tree_object_id(w->mount->dataset, node, &id);
	store_peek(a->store, &id, node->version.size, &present);
	if (present == 0)
		return true;
	if (is_time_up(w))
		return false;
	if (store_pin_of(a->store, &id) != STORE_UNPINNED) {
		out->files_pinned++;
		out->bytes_pinned += present;
		note_kept(w, node->key, EPERM, "it is pinned");
		return true;
	}
	rc = evict_object_of(a, &id);
	if (rc == 0) {
		out->files++;
		out->bytes += present;
	} else if (rc == -EBUSY) {
		out->files_in_use++;
		out->bytes_in_use += present;
		note_kept(w, node->key, EBUSY, "it is in use");
	} else if (rc != -ENOENT) {
		out->files_failed++;
		note_kept(w, node->key, -rc, strerrordesc_np(-rc));
	}
	return true;
}

/* Does it with a file, or with all files that are known below a directory. False: time is up. */
static bool each_file(struct work *w, const struct node *node, tree_known_cb cb)
{
	return node->is_dir ? tree_known(w->mount->dataset, node->node, cb, w, NULL) == 0 : cb(w, node);
}

static bool evict_path(struct work *w, const char *path)
{
	struct wd_err err = WD_ERR_INIT;
	struct node node;
	int rc = tree_find(w->mount->dataset, path, BELIEVED, &node, &err);

	if (rc == 0)
		return each_file(w, &node, evict_file);
	w->evicted->files_failed++;
	note_kept(w, path[0] ? path : ".", -rc,
		rc == -ENOENT ? "there is no such file or directory" : strerrordesc_np(-rc));
	return true;
}

enum rpc_code control_evict(struct rpc_call *call, const void *request, void *response)
{
	const Warpdrive__V1__EvictRequest *in = request;
	struct work w = {.call = call, .until_ns = wd_now_ns() + SLICE_NS, .evicted = response};
	enum rpc_code code = control_target(call, in->target, &w.mount);
	bool goes_on = true;

	if (code != RPC_OK)
		return code;
	w.evicted->kept = arena_alloc(call->arena, KEPT_MAX * sizeof(*w.evicted->kept));
	if (w.evicted->kept) {
		if (in->n_paths == 0)
			goes_on = evict_path(&w, "");
		for (size_t i = 0; goes_on && i < in->n_paths; i++)
			goes_on = evict_path(&w, in->paths[i]);
		w.evicted->is_done = goes_on;
		wd_info("evict of '%s': %llu files, %llu bytes; %llu are in use, %llu pinned", w.mount->target,
			(unsigned long long)w.evicted->files, (unsigned long long)w.evicted->bytes,
			(unsigned long long)w.evicted->files_in_use, (unsigned long long)w.evicted->files_pinned);
	} else {
		code = control_no_memory(call);
	}
	mount_unref(w.mount);
	return code;
}

/* ---- pin ---- */

/* Makes the mark of what is in the cache what the rules say. */
static bool mark_file(void *arg, const struct node *node)
{
	struct work *w = arg;
	struct agent *a = w->mount->agent;
	struct object_id id;
	enum store_pin want, have;
	uint64_t present = 0;
	int rc = 0;

	tree_object_id(w->mount->dataset, node, &id);
	store_peek(a->store, &id, node->version.size, &present);
	if (present == 0)
		return true;
	if (is_time_up(w))
		return false;
	want = pins_match(a->pins, w->mount->display, node->key);
	have = store_pin_of(a->store, &id);
	if (have != want)
		rc = store_pin(a->store, &id, node->version.size, want);
	if (rc < 0) {
		w->pinned->files_refused++;
	} else if (w->is_unpinning ? have != STORE_UNPINNED && want == STORE_UNPINNED : want != STORE_UNPINNED) {
		w->pinned->files++;
		w->pinned->bytes += present;
	}
	return true;
}

static int change_rule(struct work *w, const char *path, struct wd_err *err)
{
	struct pins *pins = w->mount->agent->pins;
	struct node node;
	int rc = 0;

	if (!w->is_unpinning)
		rc = tree_find(w->mount->dataset, path, BELIEVED, &node, err);
	if (rc == 0)
		rc = (w->is_unpinning ? pins_remove : pins_add)(pins, w->mount->display, path, err);
	store_set_pin_tag(w->mount->agent->store, pins_tag(pins, STORE_PIN_ASKED));
	return rc;
}

static enum rpc_code pin_path(struct work *w, const char *path, bool goes_on)
{
	struct wd_err err = WD_ERR_INIT;
	struct node node;
	int rc = goes_on ? 0 : change_rule(w, path, &err);

	if (rc < 0)
		return rpc_fail(w->call, rpc_code_of(-rc), "%s", err.code ? err.msg : strerrordesc_np(-rc));
	if (tree_find(w->mount->dataset, path, BELIEVED, &node, &err) == 0 && !each_file(w, &node, mark_file))
		w->pinned->is_done = false;
	return RPC_OK;
}

static enum rpc_code pin_all(struct rpc_call *call, const Warpdrive__V1__PinRequest *in, Pinned *out, bool is_unpinning)
{
	struct work w = {
		.call = call, .until_ns = wd_now_ns() + SLICE_NS, .pinned = out, .is_unpinning = is_unpinning};
	enum rpc_code code = control_target(call, in->target, &w.mount);

	if (code != RPC_OK)
		return code;
	out->is_done = true;
	if (in->n_paths == 0)
		code = pin_path(&w, "", in->goes_on);
	for (size_t i = 0; code == RPC_OK && i < in->n_paths; i++)
		code = pin_path(&w, in->paths[i], in->goes_on);
	if (code == RPC_OK)
		wd_info("%s of '%s': %llu files that are in the cache", is_unpinning ? "unpin" : "pin", w.mount->target,
			(unsigned long long)out->files);
	mount_unref(w.mount);
	return code;
}

enum rpc_code control_pin(struct rpc_call *call, const void *request, void *response)
{
	return pin_all(call, request, response, false);
}

enum rpc_code control_unpin(struct rpc_call *call, const void *request, void *response)
{
	return pin_all(call, request, response, true);
}

enum rpc_code control_list_pins(struct rpc_call *call, const void *request, void *response)
{
	Warpdrive__V1__ListPinsResponse *out = response;
	struct agent *a = control_agent(call);
	struct store_stats stats;
	size_t cap = 0;

	store_get_stats(a->store, &stats);
	out->pinned_bytes = stats.pinned_bytes;
	out->most_bytes = stats.limit_bytes / 2;
	for (unsigned i = 0;; i++) {
		enum store_pin kind;
		wd_autofree char *url = pins_rule(a->pins, i, &kind);
		Warpdrive__V1__PinRule *rule = url ? arena_alloc(call->arena, sizeof(*rule)) : NULL;

		if (!url)
			return RPC_OK;
		if (out->n_rules == cap) {
			void *more = arena_alloc(call->arena, (cap = cap ? 2 * cap : 16) * sizeof(*out->rules));

			if (more && out->n_rules)
				memcpy(more, out->rules, out->n_rules * sizeof(*out->rules));
			out->rules = more;
		}
		if (!rule || !out->rules)
			return control_no_memory(call);
		warpdrive__v1__pin_rule__init(rule);
		rule->url = control_text(call, url);
		rule->is_setting = kind == STORE_PIN_SETTING;
		if (!rule->url)
			return control_no_memory(call);
		out->rules[out->n_rules++] = rule;
	}
}
