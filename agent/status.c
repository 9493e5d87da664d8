/* SPDX-License-Identifier: Apache-2.0 */
/* See status.h. Cached shares are computed from the present blocks at the time of asking. */
#include "agent/status.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent/cache_metrics.h"
#include "agent/condition.h"
#include "agent/metrics.h"
#include "agent/mount.h"
#include "agent/mount_metrics.h"
#include "agent/warm.h"
#include "common/cleanup.h"
#include "common/rpc_stats.h"

#define MAX_MOUNTS 1024

struct ask {
	struct agent *agent;
	struct conn *conn;
	uint64_t id;
};

static json_t *cache_json(struct agent *a)
{
	struct store_stats s;
	struct meta_stats m;

	store_get_stats(a->store, &s);
	meta_get_stats(a->meta, &m);
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:b, s:b, s:s, s:I, s:s}", "dir", a->settings->cache_dir, "limit_bytes",
		(json_int_t)s.limit_bytes, "used_bytes", (json_int_t)s.used_bytes, "free_bytes",
		(json_int_t)s.free_bytes, "objects", (json_int_t)s.objects, "is_broken", s.is_broken, "is_draining", s.is_draining,
		"metadata", m.is_memory_only ? "memory only" : m.is_failing ? "failing" : "ok", "corrupt_blocks",
		(json_int_t)s.corrupt_blocks, "eviction_policy", evict_policy_name(s.ruler));
}

/* The ill parts: an empty object where all is well. */
static json_t *condition_json(struct mount *mnt)
{
	json_t *out = json_object();
	struct condition c;

	condition_look(mnt, &c);
	for (int part = 0; part < CONDITION_PARTS_COUNT; part++)
		if (c.text[part][0])
			json_object_set_new(out, condition_part_name(part), json_string(c.text[part]));
	return out;
}

static json_t *mount_json(struct mount *mnt)
{
	bool is_served;

	wd_lock(&mnt->lock);
	is_served = mnt->conn != NULL;
	wd_unlock(&mnt->lock);
	return json_pack("{s:I, s:s, s:s, s:I, s:b, s:s, s:o}", "id", (json_int_t)mnt->id, "target", mnt->target,
		"url", mnt->display, "open_files", (json_int_t)open_count(mnt), "passthrough",
		!atomic_load(&mnt->has_no_passthrough), "state", is_served ? "ready" : "no server",
		"condition", condition_json(mnt));
}

static json_t *dataset_json(struct agent *a, struct mount *mnt, unsigned nmounts)
{
	struct dataset_totals t;

	tree_totals(mnt->dataset, a->store, &t);
	return json_pack("{s:s, s:I, s:I, s:I, s:b, s:I}", "url", mnt->display, "objects",
		(json_int_t)t.files, "bytes", (json_int_t)t.bytes, "cached_bytes",
		(json_int_t)t.cached_bytes, "is_listed", t.is_listed, "mounts", (json_int_t)nmounts);
}

static json_t *status_json(struct agent *a)
{
	wd_autofree struct mount **mounts = calloc(MAX_MOUNTS, sizeof(*mounts));
	json_t *datasets = json_array(), *list = json_array();
	unsigned n = 0;

	if (!mounts)
		return NULL;
	wd_lock(&a->lock);
	for (struct mount *mnt = a->mounts; mnt && n < MAX_MOUNTS; mnt = mnt->next)
		mounts[n++] = mount_ref(mnt);
	wd_unlock(&a->lock);
	for (unsigned i = 0; i < n; i++) {
		unsigned same = 0;
		bool is_first = true;

		json_array_append_new(list, mount_json(mounts[i]));
		for (unsigned j = 0; j < n; j++) {
			if (mounts[j]->dataset != mounts[i]->dataset)
				continue;
			same++;
			if (j < i)
				is_first = false;
		}
		if (is_first)
			json_array_append_new(datasets, dataset_json(a, mounts[i], same));
	}
	for (unsigned i = 0; i < n; i++)
		mount_unref(mounts[i]);
	return json_pack("{s:s, s:I, s:o, s:o, s:o}", "version", WD_VERSION, "pid", (json_int_t)getpid(),
		"cache", cache_json(a), "datasets", datasets, "mounts", list);
}

char *status_text(struct agent *a, struct mount *only)
{
	json_t *root = only ? json_pack("{s:s, s:[o], s:[o]}", "version", WD_VERSION, "datasets",
					dataset_json(a, only, 1), "mounts", mount_json(only))
			    : status_json(a);
	char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;

	json_decref(root);
	return text;
}

static void status_job(void *arg)
{
	struct ask *ask = arg;
	json_t *root = status_json(ask->agent);
	wd_autofree char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	wd_autoclose int fd = memfd_create("warpdrive-status", MFD_CLOEXEC);
	struct wd_msg *m = hub_scratch();

	json_decref(root);
	if (!text || fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) {
		conn_reply_error(ask->conn, WD_MSG_STATUS, ask->id, -ENOMEM, "status: out of memory");
	} else {
		wd_msg_start_reply(m, WD_MSG_STATUS, ask->id, 0);
		wd_put_fd(m, fd);
		conn_send(ask->conn, m);
	}
	conn_unref(ask->conn);
	free(ask);
}

/* NULL: there was no memory, and c has been told. */
static struct ask *ask_new(struct agent *a, struct conn *c, uint64_t id, uint16_t type)
{
	struct ask *ask = calloc(1, sizeof(*ask));

	if (ask)
		*ask = (struct ask){a, conn_ref(c), id};
	else
		conn_reply_error(c, type, id, -ENOMEM, "status: out of memory");
	return ask;
}

void status_on_request(struct agent *a, struct conn *c, uint64_t id)
{
	struct ask *ask = ask_new(a, c, id, WD_MSG_STATUS);

	if (ask)
		jobs_run(a->control, status_job, ask);
}

static void keeper_answered(void *arg, int status, int fd, const char *reason)
{
	struct ask *ask = arg;
	struct wd_msg *m;

	if (status < 0) {
		conn_reply_error(ask->conn, WD_MSG_KEEPER_STATUS, ask->id, status, reason);
	} else {
		m = hub_scratch();
		wd_msg_start_reply(m, WD_MSG_KEEPER_STATUS, ask->id, 0);
		wd_put_fd(m, fd);
		conn_send(ask->conn, m);
	}
	conn_unref(ask->conn);
	free(ask);
}

void status_on_keeper_request(struct agent *a, struct conn *c, uint64_t id)
{
	struct ask *ask = ask_new(a, c, id, WD_MSG_KEEPER_STATUS);

	if (ask)
		keeper_status(a->keeper, keeper_answered, ask);
}

void status_print_metrics(struct agent *a, FILE *out)
{
	struct fetcher_stats f;

	mounts_counts_take(a);
	metrics_print(out);
	origin_print_metrics(out);
	cache_print_metrics(a->store, a->meta, out);
	fetcher_get_stats(a->fetcher, &f);
	wd_family_one(out, &families[FAMILY_WAITING_READS], f.waits);
	wd_family_one(out, &families[FAMILY_PREFETCHING], f.prefetch_bytes);
	warms_print_metrics(a->warms, out);
	mounts_print_metrics(a, out);
	keeper_link_print_metrics(a->keeper, out);
	rpc_stats_print(out);
	wd_family_begin(out, &families[FAMILY_BUILD]);
	wd_sample(out, &families[FAMILY_BUILD], (const char *[]){WD_VERSION}, 1);
}
