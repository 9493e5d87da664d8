/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounts come and go at the keeper's word. Adding one asks the origin whether the URL can be read at
 * all, so it goes on as a job; the keeper mounts only after the answer.
 */
#include "agent/mount.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/ahead.h"
#include "agent/credentials.h"
#include "agent/holder.h"
#include "agent/metrics.h"
#include "agent/renew.h"
#include "agent/warm.h"
#include "common/cleanup.h"
#include "common/log.h"

struct mount *mount_ref(struct mount *mnt)
{
	atomic_fetch_add(&mnt->refs, 1);
	return mnt;
}

void mount_unref(struct mount *mnt)
{
	if (!mnt || atomic_fetch_sub(&mnt->refs, 1) != 1)
		return;
	mount_lent_drop(mnt);
	if (mnt->mm.header) {
		mount_counts_take(mnt);
		wd_mm_unmap(&mnt->mm);
	}
	dataset_unref(mnt->dataset);
	origin_retire(mnt->origin);
	flow_unref(mnt->flow);
	mount_options_free(mnt->options);
	mount_options_free(mnt->latest);
	wd_mutex_done(&mnt->lock);
	free(mnt->target);
	free(mnt->display);
	free(mnt);
}

struct mount *mount_find(struct agent *a, uint64_t id)
{
	struct mount *mnt;

	wd_lock(&a->lock);
	for (mnt = a->mounts; mnt && mnt->id != id; mnt = mnt->next)
		;
	if (mnt)
		mount_ref(mnt);
	wd_unlock(&a->lock);
	return mnt;
}

/* ---- adding ---- */

struct add {
	struct agent *agent;
	struct conn *keeper;
	uint64_t request;
	struct mount *mount;
	int server, tables;
	uint32_t flags;
	size_t len;
	char description[];
};

static void add_free(struct add *add)
{
	if (add->server >= 0)
		close(add->server);
	if (add->tables >= 0)
		close(add->tables);
	conn_unref(add->keeper);
	mount_unref(add->mount);
	explicit_bzero(add->description, add->len);
	free(add);
}

void mount_who(struct mount *mnt, struct identity *ret_who)
{
	wd_lock(&mnt->lock);
	*ret_who = mnt->who;
	wd_unlock(&mnt->lock);
}

/* Asks the origin whether it lets this mount in. *ret_is_down: it could not be asked, and need not be. */
static int check_origin(struct mount *mnt, bool *ret_is_down, struct wd_err *err)
{
	int rc = origin_check(mnt->origin, err);

	*ret_is_down = rc < 0 && err->code == EHOSTDOWN && mnt->options->may_be_down;
	if (*ret_is_down)
		wd_warn("the origin is away, and mounted on '%s' all the same: %s", mnt->target, err->msg);
	return *ret_is_down ? 0 : rc;
}

/* The dataset has an origin of its own, or had one already. */
static int join_dataset(struct agent *a, struct mount *mnt, const struct origin_options *options,
	const struct identity *who, struct wd_err *err)
{
	const struct mount_options *o = mnt->options;
	char place[1400], identity[256];
	struct origin *origin;
	int rc;

	if (mount_options_place(o, place, sizeof(place)) < 0 ||
		mount_options_identity(o, identity, sizeof(identity)) < 0)
		return wd_err_set(err, ENAMETOOLONG, "mount '%.200s': URL or key too long", origin_url(mnt->origin));
	rc = origin_open(o->url, options, &origin, err);
	if (rc < 0)
		return rc;
	return tree_dataset(a->tree, origin, place, identity, who, o->index || o->version, &mnt->dataset, err);
}

/* Opens origin and dataset with these credentials; a new mount's origin is asked, a known one's is trusted. */
static int open_with(struct agent *a, struct mount *mnt, const struct origin_options *options, bool is_again,
	struct wd_err *err)
{
	struct identity who, others;
	bool is_down = false;
	int rc = origin_open(mnt->options->url, options, &mnt->origin, err);

	if (rc == 0 && !is_again)
		rc = check_origin(mnt, &is_down, err);
	if (rc < 0)
		return rc;
	identity_make(options, NULL, &who);
	wd_lock(&mnt->lock);
	mnt->who = who;
	wd_unlock(&mnt->lock);
	mnt->display = strdup(origin_url(mnt->origin));
	if (!mnt->display)
		return wd_err_set(err, ENOMEM, "out of memory");
	rc = join_dataset(a, mnt, options, &who, err);
	if (rc < 0)
		return rc;
	dataset_who(mnt->dataset, &others);
	/* names are the dataset's: with credentials that nobody has looked at they are not shown */
	if (is_down && !identity_equal(&who, &others))
		return wd_err_set(err, EAGAIN,
			"mount '%.200s': the origin is away, and these credentials are not those that its mounts have",
			mnt->display);
	return 0;
}

static int open_dataset(struct agent *a, struct mount *mnt, bool is_again, struct wd_err *err)
{
	struct credentials c;
	int rc;

	/* a mount that stands is not ended by a change of the settings */
	rc = origin_policy_check(a->policy, mnt->options->url, mnt->options->endpoint, err);
	if (rc < 0 && (rc != -EACCES || !is_again))
		return rc;
	atomic_store(&mnt->is_disallowed, rc < 0);
	if (rc < 0)
		wd_warn("the mount on '%s' stays until it is unmounted: %s", mnt->target, err->msg);
	rc = credentials_resolve(a, mnt->options, &c, err);
	if (rc < 0)
		return rc;
	rc = open_with(a, mnt, &c.origin, is_again, err);
	if (rc == 0)
		renew_note_expiry(mnt, &c);
	credentials_done(&c);
	return rc;
}

/* The socket of the server of the moment, in place of an earlier one. The connection holds a
 * reference to the mount until it is closed. */
static void set_server(struct mount *mnt, int fd)
{
	struct conn *c, *old;

	mount_ref(mnt);
	wd_lock(&mnt->lock); /* its first message must find it in place */
	c = hub_add(mnt->agent->hub, fd, 0, mnt);
	old = mnt->conn;
	mnt->conn = c;
	wd_unlock(&mnt->lock);
	if (!c)
		mount_unref(mnt);
	if (old) {
		mount_lent_drop(mnt);
		conn_drop(old);
		conn_unref(old);
	}
}

/* Takes the mount into the list, unless its id is there. */
static int enlist(struct agent *a, struct mount *mnt, int server, struct wd_err *err)
{
	struct mount *known;

	wd_lock(&a->lock);
	for (known = a->mounts; known && known->id != mnt->id; known = known->next)
		;
	if (!known) {
		mnt->next = a->mounts;
		a->mounts = mount_ref(mnt);
		a->had_mount = true;
	}
	wd_unlock(&a->lock);
	if (known) {
		close(server);
		return wd_err_set(err, EEXIST, "mount %llx is already here", (unsigned long long)mnt->id);
	}
	set_server(mnt, server);
	if (atomic_load(&mnt->refresh_at_s))
		refresher_wake(a->refresher); /* it looks at mounts of the list alone */
	return 0;
}

static void add_job(void *arg)
{
	struct add *add = arg;
	struct agent *a = add->agent;
	struct mount *mnt = add->mount;
	struct wd_err err = WD_ERR_INIT;
	int rc = mount_options_parse(add->description, add->len, a->settings, &mnt->options, &err);

	if (rc == 0 && !(mnt->flow = flow_new((uint64_t)mnt->options->bandwidth_limit)))
		rc = wd_err_set(&err, ENOMEM, "out of memory");
	if (rc == 0)
		rc = wd_mm_map(add->tables, &mnt->mm, &err);
	if (rc == 0)
		mount_counts_begin(mnt);
	if (rc == 0)
		rc = open_dataset(a, mnt, add->flags & WD_MOUNT_ADD_AGAIN, &err);
	if (rc == 0) {
		atomic_store(&mnt->has_no_passthrough, mnt->options->has_no_passthrough);
		open_inherit(mnt); /* before its server can ask */
		rc = enlist(a, mnt, wd_steal_fd(&add->server), &err);
	}
	if (rc < 0) {
		/* a keeper that was just started offers what we have, and is told so */
		wd_log(rc == -EEXIST ? WD_LOG_INFO : WD_LOG_WARN, "mount refused: %s", err.msg);
		/* that it is the credentials tells csi apart from what they do not allow */
		conn_reply_error(add->keeper, WD_MSG_MOUNT_ADD, add->request,
			err.code == EKEYREJECTED ? -EKEYREJECTED : rc, err.msg);
	} else {
		struct wd_msg *m = hub_scratch();

		wd_msg_start_reply(m, WD_MSG_MOUNT_ADD, add->request, 0);
		wd_put_u32(m, WD_MOUNT_READ_ONLY |
				(mnt->options->has_no_passthrough ? WD_MOUNT_NO_PASSTHROUGH : 0) |
				(mnt->options->has_no_open ? WD_MOUNT_NO_OPEN : 0));
		wd_put_str(m, mnt->display);
		conn_send(add->keeper, m);
		wd_info("mount '%s' on '%s'", mnt->display, mnt->target);
		/* one that went meanwhile will not tell of this mount's end */
		if (!keeper_link_is(a->keeper, add->keeper) && !holder_has(a->holder, mnt->id)) {
			mount_end(a, mnt->id);
			agent_stop_if_idle(a);
		}
	}
	add_free(add);
}

bool mount_on_add(struct agent *a, struct conn *keeper, struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	uint64_t id = wd_rd_u64(&r);
	char target[4096];
	size_t len;
	const void *description = wd_rd_bytes(&r, &len);
	struct add *add;
	uint32_t flags;

	if (!description || !wd_rd_str(&r, target, sizeof(target)))
		return false;
	flags = wd_rd_u32(&r);
	if (!wd_rd_done(&r) || m->nfds != 2)
		return false;
	add = calloc(1, sizeof(*add) + len + 1);
	if (add) {
		add->agent = a;
		add->keeper = conn_ref(keeper);
		add->request = m->id;
		add->flags = flags;
		add->server = wd_msg_take_fd(m, 0);
		add->tables = wd_msg_take_fd(m, 1);
		add->len = len;
		memcpy(add->description, description, len);
		add->mount = calloc(1, sizeof(*add->mount));
		if (add->mount)
			add->mount->target = strdup(target);
	}
	if (!add || !add->mount || !add->mount->target) {
		if (add && add->mount) {
			free(add->mount);
			add->mount = NULL;
		}

		if (add)
			add_free(add);
		conn_reply_error(keeper, WD_MSG_MOUNT_ADD, m->id, -ENOMEM, "the agent is out of memory");
		return true;
	}
	add->mount->agent = a;
	add->mount->id = id;
	add->mount->refs = 1;
	add->mount->mounted_s = (int64_t)time(NULL);
	wd_mutex_init(&add->mount->lock);
	jobs_run(a->jobs, add_job, add);
	return true;
}

/* ---- a new server, the end ---- */

bool mount_on_server(struct agent *a, struct conn *keeper, struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	uint64_t id = wd_rd_u64(&r);
	struct mount *mnt;

	if (!wd_rd_done(&r) || m->nfds != 1)
		return false;
	mnt = mount_find(a, id);
	if (!mnt) {
		conn_reply_error(keeper, WD_MSG_MOUNT_SERVER, m->id, -ENOENT, "no such mount");
		return true;
	}
	set_server(mnt, wd_msg_take_fd(m, 0));
	open_reconcile(mnt);
	mount_unref(mnt);
	conn_reply_empty(keeper, WD_MSG_MOUNT_SERVER, m->id);
	return true;
}

bool mount_is_served_by(struct mount *mnt, const struct conn *c)
{
	bool is_current;

	wd_lock(&mnt->lock);
	is_current = mnt->conn == c;
	wd_unlock(&mnt->lock);
	return is_current;
}

void mount_on_server_gone(struct mount *mnt, struct conn *c)
{
	bool is_current;

	wd_lock(&mnt->lock);
	is_current = mnt->conn == c;
	if (is_current)
		mnt->conn = NULL;
	wd_unlock(&mnt->lock);
	if (is_current)
		conn_unref(c);
	mount_unref(mnt);
}

/* Takes it out of the list; the list's reference becomes the caller's. */
static struct mount *delist(struct agent *a, uint64_t id)
{
	struct mount **p, *mnt;

	wd_lock(&a->lock);
	for (p = &a->mounts; *p && (*p)->id != id; p = &(*p)->next)
		;
	mnt = *p;
	if (mnt)
		*p = mnt->next;
	wd_unlock(&a->lock);
	return mnt;
}

/* Nobody opens files of a dataset whose last mount is gone. */
static void drop_ahead(struct mount *mnt)
{
	struct agent *a = mnt->agent;
	const struct mount *other;

	wd_lock(&a->lock);
	for (other = a->mounts; other && other->dataset != mnt->dataset; other = other->next)
		;
	wd_unlock(&a->lock);
	if (!other)
		ahead_drop(a->ahead, mnt->dataset);
}

static void end_mount(struct mount *mnt)
{
	struct conn *c;

	wd_lock(&mnt->lock);
	mnt->is_gone = true;
	c = mnt->conn;
	mnt->conn = NULL;
	wd_unlock(&mnt->lock);
	if (c) {
		conn_drop(c);
		conn_unref(c);
	}
	warms_forget(mnt->agent->warms, mnt);
	open_drop_all(mnt);
	mount_lent_drop(mnt);
	drop_ahead(mnt);
	mount_unref(mnt);
}

static void reap_job(void *arg)
{
	tree_reap(arg);
}

void mount_end(struct agent *a, uint64_t id)
{
	struct mount *mnt = delist(a, id);

	if (!mnt)
		return;
	wd_info("unmount '%s'", mnt->target);
	end_mount(mnt);
	jobs_run(a->jobs, reap_job, a->tree);
}

bool mount_on_del(struct agent *a, struct conn *keeper, struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	uint64_t id = wd_rd_u64(&r);

	if (!wd_rd_done(&r))
		return false;
	mount_end(a, id);
	conn_reply_empty(keeper, WD_MSG_MOUNT_DEL, m->id);
	agent_stop_if_idle(a);
	return true;
}

void mounts_end_unheld(struct agent *a)
{
	struct mount *mnt;

	do {
		wd_lock(&a->lock);
		for (mnt = a->mounts; mnt && holder_has(a->holder, mnt->id); mnt = mnt->next)
			;
		if (mnt)
			mount_ref(mnt);
		wd_unlock(&a->lock);
		if (mnt) {
			mount_end(a, mnt->id);
			mount_unref(mnt);
		}
	} while (mnt);
}

void mounts_drop_all(struct agent *a)
{
	for (;;) {
		uint64_t id;
		struct mount *mnt;

		wd_lock(&a->lock);
		id = a->mounts ? a->mounts->id : 0;
		mnt = a->mounts;
		wd_unlock(&a->lock);
		if (!mnt)
			return;
		mnt = delist(a, id);
		if (mnt)
			end_mount(mnt);
	}
}
