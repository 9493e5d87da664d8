/* SPDX-License-Identifier: Apache-2.0 */
/* Proofs of access, see proof.h. A proof is a record (object, identity) -> expiry in META_PROOFS. */
#include "agent/proof.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/metrics.h"
#include "common/log.h"

struct proof_key {
	struct object_id object, identity;
};

static void save(struct meta *meta, const struct proof_key *key, int64_t ttl_ms)
{
	int64_t expiry = (int64_t)time(NULL) + ttl_ms / 1000;

	meta_put(meta, META_PROOFS, key, sizeof(*key), &expiry, sizeof(expiry));
}

void proof_record(struct meta *meta, const struct identity *who, const struct object_id *object,
	const struct settings *settings)
{
	struct proof_key key = {*object, who->who};

	save(meta, &key, settings->proof_ttl);
}

struct proof {
	struct origin_get get;
	struct mount *mount;
	struct node node;
	struct proof_key key;
	bool is_lapsed; /* there was one */
	void (*cb)(void *arg, int status, const struct wd_err *err);
	void *arg;
};

static int proof_sink(void *arg, uint64_t offset, const void *data, size_t len)
{
	return 0;
}

static void proof_done(void *arg, int status, const struct wd_err *err)
{
	struct proof *p = arg;
	struct meta *meta = p->mount->agent->meta;

	if (status == 0) {
		save(meta, &p->key, p->mount->agent->settings->proof_ttl);
	} else if (p->is_lapsed && status == -EIO) {
		wd_warn("the origin does not answer: access to '%s' is extended", p->node.key);
		status = 0;
	} else if (status == -EACCES) {
		meta_del(meta, META_PROOFS, &p->key, sizeof(p->key));
	}
	if (status == -EIO || status == -EACCES)
		wd_error("%s", err->msg);
	p->cb(p->arg, status, err);
	mount_unref(p->mount);
	free(p);
}

void proof_check(struct mount *mnt, const struct node *node, const struct object *object, bool is_again,
	void (*cb)(void *arg, int status, const struct wd_err *err), void *arg)
{
	struct meta *meta = mnt->agent->meta;
	struct proof *p;
	struct proof_key key = {.object = *object_id(object)};
	struct identity who;
	struct wd_err err = {ENOMEM, "out of memory"};
	int64_t expiry = 0;
	size_t len = 0;
	bool is_known;

	mount_who(mnt, &who);
	key.identity = who.who;
	is_known = meta_get(meta, META_PROOFS, &key, sizeof(key), &expiry, sizeof(expiry), &len) == 0 &&
		len == sizeof(expiry);
	if ((is_known && (is_again || expiry > (int64_t)time(NULL))) || object_size(object) == 0) {
		cb(arg, 0, NULL);
		return;
	}
	p = calloc(1, sizeof(*p));
	if (!p) {
		cb(arg, -ENOMEM, &err);
		return;
	}
	metric_inc(METRIC_PROOFS);
	p->mount = mount_ref(mnt);
	p->node = *node;
	p->key = key;
	p->is_lapsed = is_known;
	p->cb = cb;
	p->arg = arg;
	p->get = (struct origin_get){.key = p->node.key,
		.version = &p->node.version,
		.length = 1,
		.priority = GET_DEMAND,
		.flow = mnt->flow,
		.sink = proof_sink,
		.done = proof_done,
		.arg = p};
	origin_get(mnt->origin, &p->get);
}
