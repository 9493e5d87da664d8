/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See renew.h. The kubelet asks about once a minute for each mount, nearly always with what is known: then nothing
 * is asked of anybody.
 */
#include "agent/renew.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/http_client.h"
#include "agent/metrics.h"
#include "agent/mount.h"
#include "common/cleanup.h"
#include "common/log.h"

#define REFRESH_AGAIN_S 30 /* after a try that failed */

struct renewal {
	struct agent *agent;
	struct conn *keeper;
	uint64_t request;
	struct mount *mount;
	size_t len;
	char description[];
};

static void renewal_free(struct renewal *r)
{
	conn_unref(r->keeper);
	mount_unref(r->mount);
	explicit_bzero(r->description, r->len);
	free(r);
}

/* The description with the name under which the dataset was opened: the next agent must find the same. */
static char *description_to_keep(const struct renewal *r)
{
	json_t *root = json_loadb(r->description, r->len, 0, NULL);
	char identity[256], *text = NULL;

	if (root && mount_options_identity(r->mount->options, identity, sizeof(identity)) == 0 &&
		json_object_set_new(root, "identity", json_string(identity)) == 0)
		text = json_dumps(root, JSON_COMPACT);
	json_decref(root);
	return text;
}

static int check_place(const struct mount *mnt, const struct mount_options *o, struct wd_err *err)
{
	char mine[1400], theirs[1400];

	if (mount_options_place(mnt->options, mine, sizeof(mine)) < 0 ||
		mount_options_place(o, theirs, sizeof(theirs)) < 0 || strcmp(mine, theirs) != 0)
		return wd_err_set(err, EINVAL, "the mount on '%s' is of '%s', and stays so until it is unmounted",
			mnt->target, mnt->display);
	return 0;
}

/* Does the origin take them? It is asked by an origin of its own, so that nothing else is touched. */
static int try_out(const struct mount_options *o, const struct origin_options *options, struct wd_err *err)
{
	struct origin *trial;
	int rc = origin_open(o->url, options, &trial, err);

	if (rc < 0)
		return rc;
	rc = origin_check(trial, err);
	origin_close(trial);
	return rc < 0 && err->code == EHOSTDOWN ? 0 : rc;
}

static bool is_refused(struct dataset *ds)
{
	char text[300];
	enum origin_trouble trouble = origin_trouble(dataset_origin(ds), text, sizeof(text));

	return trouble == ORIGIN_UNAUTHENTICATED || trouble == ORIGIN_DENIED;
}

static void note_trouble(struct mount *mnt, const struct wd_err *err)
{
	wd_lock(&mnt->lock);
	if (err)
		mnt->renewal_trouble = *err;
	else
		mnt->renewal_trouble = WD_ERR_INIT;
	wd_unlock(&mnt->lock);
}

void renew_note_expiry(struct mount *mnt, const struct credentials *c)
{
	/* a token is renewed by who brings it; keys are made here */
	bool is_ours = c->keys.access_key && c->expires_s;

	atomic_store(&mnt->expires_s, c->expires_s);
	atomic_store(&mnt->refresh_at_s,
		is_ours ? credentials_refresh_at((int64_t)time(NULL), c->expires_s, http_random()) : 0);
	if (is_ours && mnt->agent->refresher)
		refresher_wake(mnt->agent->refresher);
}

/* The pod's token is the one of before: it need not be exchanged again. */
static bool is_same_token(const struct mount *mnt, const struct mount_options *o)
{
	const struct mount_options *had = mnt->latest ? mnt->latest : mnt->options;

	return o->token && had->token && strcmp(o->token, had->token) == 0;
}

/* Origin and dataset ask with these from now on, if the origin takes them. */
static int take_over(struct mount *mnt, const struct mount_options *o, const struct credentials *c,
	const struct identity *was, const struct identity *who, struct wd_err *err)
{
	int rc = try_out(o, &c->origin, err);

	if (rc == 0)
		rc = origin_set_credentials(mnt->origin, &c->origin, err);
	if (rc == 0)
		rc = dataset_renew(mnt->dataset, &c->origin, who, err);
	if (rc < 0)
		return rc;
	wd_lock(&mnt->lock);
	mnt->who = *who;
	wd_unlock(&mnt->lock);
	renew_note_expiry(mnt, c);
	if (memcmp(&was->who, &who->who, sizeof(who->who)) != 0)
		open_drop_idle(mnt); /* else they would be opened without a proof */
	return 0;
}

/* 1: the mount has other credentials now; 0: it had these already. One at a time for each mount. */
static int renew(struct mount *mnt, const struct mount_options *o, bool is_refresh, struct wd_err *err)
{
	struct credentials c;
	struct identity was, who, datasets;
	int rc = check_place(mnt, o, err);

	if (rc < 0 || (!is_refresh && is_same_token(mnt, o) && !is_refused(mnt->dataset)))
		return rc;
	rc = credentials_resolve(mnt->agent, o, &c, err);
	if (rc < 0)
		return rc;
	mount_who(mnt, &was);
	identity_make(&c.origin, &was, &who);
	if (!identity_equal(&who, &was)) {
		rc = take_over(mnt, o, &c, &was, &who, err);
		rc = rc < 0 ? rc : 1;
	} else {
		/* another mount may have given the dataset credentials that its origin takes no longer */
		dataset_who(mnt->dataset, &datasets);
		if (!identity_equal(&who, &datasets) && is_refused(mnt->dataset) && try_out(o, &c.origin, err) == 0)
			rc = dataset_renew(mnt->dataset, &c.origin, &who, err);
	}
	credentials_done(&c);
	return rc;
}

/* What follows from renew()'s result, whoever asked. */
static void note_result(struct mount *mnt, int rc, const struct wd_err *err)
{
	note_trouble(mnt, rc < 0 ? err : NULL);
	if (rc < 0) {
		metric_inc(METRIC_RENEWALS_FAILED);
		wd_warn("the mount on '%s' keeps its old credentials: %s", mnt->target, err->msg);
	} else if (rc == 1) {
		metric_inc(METRIC_RENEWALS);
		wd_info("the mount on '%s' has new credentials", mnt->target);
	}
}

static void refresh_job(void *arg)
{
	struct mount *mnt = arg;
	struct wd_err err = WD_ERR_INIT;
	bool is_busy = atomic_exchange(&mnt->is_being_renewed, true);
	int rc = is_busy ? 0 : renew(mnt, mnt->latest ? mnt->latest : mnt->options, true, &err);

	if (!is_busy) {
		note_result(mnt, rc, &err);
		if (rc < 0) {
			atomic_store(&mnt->refresh_at_s, (int64_t)time(NULL) + REFRESH_AGAIN_S);
			refresher_wake(mnt->agent->refresher);
		}
		atomic_store(&mnt->is_being_renewed, false);
	}
	mount_unref(mnt);
}

void renew_again(struct mount *mnt)
{
	jobs_run(mnt->agent->jobs, refresh_job, mnt);
}

static void reply(struct renewal *r, const char *description)
{
	struct wd_msg *m = hub_scratch();

	wd_msg_start_reply(m, WD_MSG_MOUNT_RENEW, r->request, 0);
	wd_put_bytes(m, description, strlen(description));
	conn_send(r->keeper, m);
	explicit_bzero(wd_msg_body(m), m->len);
}

static void renew_job(void *arg)
{
	struct renewal *r = arg;
	struct mount *mnt = r->mount;
	struct mount_options *o = NULL;
	struct wd_err err = WD_ERR_INIT;
	char *kept = NULL;
	int rc;

	if (atomic_exchange(&mnt->is_being_renewed, true)) {
		conn_reply_error(r->keeper, WD_MSG_MOUNT_RENEW, r->request, -EBUSY, "that is under way");
		renewal_free(r);
		return;
	}
	rc = mount_options_parse(r->description, r->len, r->agent->settings, &o, &err);
	if (rc == 0)
		rc = renew(mnt, o, false, &err);
	if (rc == 1 && !(kept = description_to_keep(r)))
		wd_warn("the mount on '%s' has new credentials that a restarted agent will not have: out of memory",
			mnt->target);
	if (rc == 1) {
		mount_options_free(mnt->latest);
		mnt->latest = wd_steal_ptr(o);
	}
	note_result(mnt, rc, &err);
	atomic_store(&mnt->is_being_renewed, false);
	if (rc < 0)
		conn_reply_error(r->keeper, WD_MSG_MOUNT_RENEW, r->request,
			err.code == EKEYREJECTED ? -EKEYREJECTED : rc, err.msg);
	else
		reply(r, kept ? kept : "");
	if (kept)
		explicit_bzero(kept, strlen(kept));
	free(kept);
	mount_options_free(o);
	renewal_free(r);
}

bool renew_on_request(struct agent *a, struct conn *keeper, struct wd_msg *m)
{
	struct wd_rd rd = wd_rd_start(m);
	uint64_t id = wd_rd_u64(&rd);
	size_t len;
	const void *description = wd_rd_bytes(&rd, &len);
	struct mount *mnt;
	struct renewal *r;

	if (!description || !wd_rd_done(&rd))
		return false;
	mnt = mount_find(a, id);
	if (!mnt) {
		conn_reply_error(keeper, WD_MSG_MOUNT_RENEW, m->id, -ENOENT, "no such mount");
		return true;
	}
	r = calloc(1, sizeof(*r) + len + 1);
	if (!r) {
		mount_unref(mnt);
		conn_reply_error(keeper, WD_MSG_MOUNT_RENEW, m->id, -ENOMEM, "the agent is out of memory");
		return true;
	}
	*r = (struct renewal){.agent = a, .keeper = conn_ref(keeper), .request = m->id, .mount = mnt, .len = len};
	memcpy(r->description, description, len);
	jobs_run(a->jobs, renew_job, r);
	return true;
}
