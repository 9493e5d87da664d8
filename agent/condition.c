/* SPDX-License-Identifier: Apache-2.0 */
/* See condition.h. Everything is read where it is kept; only the probe of an ill origin is this file's own. */
#include "agent/condition.h"

#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/lock.h"

#define PROBE_EVERY_NS 10000000000LL

static const char *const names[CONDITION_PARTS_COUNT] = {
#define P(id, word) word,
	CONDITION_PARTS(P)
#undef P
};

const char *condition_part_name(enum condition_part part)
{
	return names[part];
}

/* ---- the origin ---- */

static void probe_job(void *arg)
{
	struct mount *mnt = arg;
	struct wd_err err = WD_ERR_INIT;
	char text[300];

	origin_check(mnt->origin, &err);
	if (origin_trouble(dataset_origin(mnt->dataset), text, sizeof(text)) != ORIGIN_WELL)
		origin_check(dataset_origin(mnt->dataset), &err);
	atomic_store(&mnt->probed_ns, wd_now_ns());
	atomic_store(&mnt->is_being_probed, false);
	mount_unref(mnt);
}

static void probe(struct mount *mnt)
{
	int64_t at_ns = atomic_load(&mnt->probed_ns);

	if ((at_ns && wd_now_ns() - at_ns < PROBE_EVERY_NS) || atomic_exchange(&mnt->is_being_probed, true))
		return;
	jobs_run(mnt->agent->control, probe_job, mount_ref(mnt));
}

static void look_at_origin(struct mount *mnt, struct condition *c)
{
	struct origin *origins[] = {dataset_origin(mnt->dataset), mnt->origin};

	for (int i = 0; i < 2; i++) {
		char text[300];
		enum origin_trouble trouble = origin_trouble(origins[i], text, sizeof(text));
		char *out = c->text[trouble == ORIGIN_AWAY ? CONDITION_ORIGIN : CONDITION_CREDENTIALS];

		if (trouble != ORIGIN_WELL)
			snprintf(out, sizeof(c->text[0]), "%s", text);
	}
	if (c->text[CONDITION_ORIGIN][0] || c->text[CONDITION_CREDENTIALS][0])
		probe(mnt);
	if (atomic_load(&mnt->is_disallowed))
		snprintf(c->text[CONDITION_ORIGIN], sizeof(c->text[0]),
			"allowed-origins does not list '%.200s' any longer; it cannot be mounted again", mnt->display);
}

static void look_at_credentials(struct mount *mnt, struct condition *c)
{
	int64_t expires_s = atomic_load(&mnt->expires_s), left_s = expires_s - (int64_t)time(NULL);
	char *out = c->text[CONDITION_CREDENTIALS];

	wd_lock(&mnt->lock);
	if (mnt->renewal_trouble.code)
		snprintf(out, sizeof(c->text[0]), "the new ones are not taken over: %.260s", mnt->renewal_trouble.msg);
	wd_unlock(&mnt->lock);
	if (out[0] || !expires_s || left_s > CONDITION_EXPIRY_S)
		return;
	if (left_s > 0)
		snprintf(out, sizeof(c->text[0]), "they expire in %" PRId64 " s and have not been renewed", left_s);
	else
		snprintf(out, sizeof(c->text[0]), "they expired %" PRId64 " s ago", -left_s);
}

/* ---- the node ---- */

static void look_at_cache(struct agent *a, struct condition *c)
{
	struct store_stats s;
	struct meta_stats m;
	char *out = c->text[CONDITION_CACHE];

	store_get_stats(a->store, &s);
	meta_get_stats(a->meta, &m);
	if (s.is_broken)
		snprintf(out, sizeof(c->text[0]), "the disk of '%.200s' gives errors; reads go past the cache",
			a->settings->cache_dir);
	else if (m.is_memory_only || m.is_failing)
		snprintf(out, sizeof(c->text[0]), "metadata in '%.200s' cannot be %s; it goes on in memory",
			a->settings->cache_dir, m.is_memory_only ? "read" : "written");
}

static void look_at_server(struct mount *mnt, struct condition *c)
{
	bool is_served;

	wd_lock(&mnt->lock);
	is_served = mnt->conn != NULL;
	wd_unlock(&mnt->lock);
	if (!is_served)
		snprintf(c->text[CONDITION_SERVER], sizeof(c->text[0]), "no FUSE server is connected to the agent");
}

void condition_of_node(struct agent *a, struct condition *ret_node)
{
	*ret_node = (struct condition){0};
	look_at_cache(a, ret_node);
	if (!keeper_link_is_up(a->keeper))
		snprintf(ret_node->text[CONDITION_KEEPER], sizeof(ret_node->text[0]), "it is not connected to the agent");
}

void condition_of_mount(struct mount *mnt, const struct condition *node, struct condition *ret_condition)
{
	*ret_condition = *node;
	look_at_origin(mnt, ret_condition);
	look_at_credentials(mnt, ret_condition);
	look_at_server(mnt, ret_condition);
}

void condition_look(struct mount *mnt, struct condition *ret_condition)
{
	struct condition node;

	condition_of_node(mnt->agent, &node);
	condition_of_mount(mnt, &node, ret_condition);
}
