/* SPDX-License-Identifier: Apache-2.0 */
/* See keeper_link.h. Calls are kept by id until answered; the keeper answers in order, fast.
 *
 * The keeper waits for nobody: who does not read its answers is dropped. Closes may come by the thousand (a server
 * that gives a pool back), from the thread that is to read the answers; so a few are asked at a time, and the others
 * wait in line. */
#include "agent/keeper_link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "agent/hash.h"
#include "agent/metrics.h"
#include "common/cleanup.h"
#include "common/keeper_stats.h"
#include "common/lock.h"

#define CLOSES_MAX 64 /* unanswered */

struct call {
	uint64_t id;
	keeper_cb cb;		   /* either, or neither */
	keeper_status_cb status_cb;
	void *arg;
	bool is_close;
	uint64_t mount; /* of a close */
	uint32_t backing_id;
	struct call *prev, *next; /* in the line of closes */
	UT_hash_handle hh;
};

struct keeper_link {
	struct wd_mutex lock;
	struct conn *conn;  /* guarded by lock, as all below */
	struct call *calls;
	struct call *closes; /* that were not asked yet */
	unsigned nclosing;   /* of calls */
	uint64_t next_id;
	unsigned nstatus; /* calls with status_cb */
	uint64_t stats[WD_KEEPER_STATS_COUNT];
	bool has_stats;
};

struct keeper_link *keeper_link_new(void)
{
	struct keeper_link *k = calloc(1, sizeof(*k));

	if (k)
		wd_mutex_init(&k->lock);
	return k;
}

void keeper_link_stop(struct keeper_link *k)
{
	struct conn *conn;

	wd_lock(&k->lock);
	conn = k->conn;
	wd_unlock(&k->lock);
	if (conn)
		keeper_link_detach(k, conn);
}

void keeper_link_free(struct keeper_link *k)
{
	if (!k)
		return;
	keeper_link_stop(k);
	wd_mutex_done(&k->lock);
	free(k);
}

static void finish(struct call *c, int status, uint32_t backing_id, int fd, const char *reason)
{
	if (c->status_cb)
		c->status_cb(c->arg, status, fd, reason);
	else if (c->cb)
		c->cb(c->arg, status, backing_id, reason);
	free(c);
}

/* Ends all pending calls of a keeper that is gone. */
static void end_all(struct call *calls, struct call *closes)
{
	struct call *c, *tmp;

	DL_FOREACH_SAFE(closes, c, tmp)
		finish(c, -ECANCELED, 0, -1, "the keeper is gone");

	HASH_ITER(hh, calls, c, tmp) {
		HASH_DEL(calls, c);
		finish(c, c->status_cb ? -EAGAIN : -EPIPE, 0, -1, "the keeper is gone");
	}
}

static void take_all_locked(struct keeper_link *k, struct call **ret_calls, struct call **ret_closes)
{
	*ret_calls = k->calls;
	*ret_closes = k->closes;
	k->calls = k->closes = NULL;
	k->nstatus = k->nclosing = 0;
}

void keeper_link_attach(struct keeper_link *k, struct conn *conn)
{
	struct conn *old;
	struct call *calls, *closes;

	wd_lock(&k->lock);
	old = k->conn;
	take_all_locked(k, &calls, &closes);
	k->conn = conn_ref(conn);
	wd_unlock(&k->lock);
	end_all(calls, closes);
	if (old) {
		conn_drop(old);
		conn_unref(old);
	}
}

void keeper_link_detach(struct keeper_link *k, struct conn *conn)
{
	struct call *calls = NULL, *closes = NULL;
	bool is_ours;

	wd_lock(&k->lock);
	is_ours = k->conn == conn;
	if (is_ours) {
		k->conn = NULL;
		take_all_locked(k, &calls, &closes);
	}
	wd_unlock(&k->lock);
	end_all(calls, closes);
	if (is_ours)
		conn_unref(conn);
}

bool keeper_link_is_up(struct keeper_link *k)
{
	bool is_up;

	wd_lock(&k->lock);
	is_up = k->conn != NULL;
	wd_unlock(&k->lock);
	return is_up;
}

bool keeper_link_is(struct keeper_link *k, const struct conn *conn)
{
	bool is_it;

	wd_lock(&k->lock);
	is_it = k->conn == conn;
	wd_unlock(&k->lock);
	return is_it;
}

/* The first of the line, entered among the calls, if it may be asked now; *ret_conn is a reference. */
static struct call *next_close(struct keeper_link *k, struct wd_msg *m, struct conn **ret_conn)
{
	struct call *c;

	wd_lock(&k->lock);
	c = k->conn && k->nclosing < CLOSES_MAX ? k->closes : NULL;
	if (c) {
		DL_DELETE(k->closes, c);
		k->nclosing++;
		c->id = ++k->next_id;
		HASH_ADD(hh, k->calls, id, sizeof(c->id), c);
		wd_msg_start(m, WD_MSG_BACKING_CLOSE, c->id);
		wd_put_u64(m, c->mount);
		wd_put_u32(m, c->backing_id);
		*ret_conn = conn_ref(k->conn);
	}
	wd_unlock(&k->lock);
	return c;
}

static void send_closes(struct keeper_link *k)
{
	struct wd_msg *m = hub_scratch();
	struct conn *conn;

	while (next_close(k, m, &conn)) {
		conn_send(conn, m);
		conn_unref(conn);
	}
}

bool keeper_link_reply(struct keeper_link *k, struct wd_msg *m)
{
	bool is_status = m->type == (WD_MSG_KEEPER_STATUS | WD_MSG_REPLY);
	wd_autoclose int fd = is_status ? wd_msg_take_fd(m, 0) : -1;
	struct wd_rd r = wd_rd_start(m);
	struct call *c;
	uint32_t backing_id = 0;
	char reason[256] = "";
	bool is_close;

	if (m->status == 0 && m->type == (WD_MSG_BACKING_OPEN | WD_MSG_REPLY))
		backing_id = wd_rd_u32(&r);
	else if (m->status < 0 && !wd_rd_str(&r, reason, sizeof(reason)))
		reason[0] = '\0';
	if (m->status == 0 && (!wd_rd_done(&r) || (is_status && fd < 0)))
		return false;
	wd_lock(&k->lock);
	HASH_FIND(hh, k->calls, &m->id, sizeof(m->id), c);
	if (c && (c->status_cb != NULL) != is_status)
		c = NULL; /* no answer to what was asked */
	if (c)
		HASH_DEL(k->calls, c);
	if (c && is_status)
		k->nstatus--;
	is_close = c && c->is_close;
	k->nclosing -= is_close;
	wd_unlock(&k->lock);
	if (c)
		finish(c, m->status, backing_id, fd, reason);
	if (is_close)
		send_closes(k);
	return true;
}

bool keeper_link_stats(struct keeper_link *k, const struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	uint32_t count = wd_rd_u32(&r);
	uint64_t stats[WD_KEEPER_STATS_COUNT] = {0};

	for (uint32_t i = 0; i < count && !r.bad; i++) {
		uint64_t value = wd_rd_u64(&r);

		if (i < WD_KEEPER_STATS_COUNT)
			stats[i] = value;
	}
	if (!wd_rd_done(&r))
		return false;
	wd_lock(&k->lock);
	memcpy(k->stats, stats, sizeof(stats));
	k->has_stats = true;
	wd_unlock(&k->lock);
	return true;
}

void keeper_link_print_metrics(struct keeper_link *k, FILE *out)
{
	uint64_t stats[WD_KEEPER_STATS_COUNT];
	bool has_stats;

	wd_lock(&k->lock);
	memcpy(stats, k->stats, sizeof(stats));
	has_stats = k->has_stats;
	wd_unlock(&k->lock);
	for (int i = 0; has_stats && i < WD_KEEPER_STATS_COUNT; i++) {
		const struct wd_family *f = &wd_keeper_families[i];

		wd_family_begin(out, f);
		if (strcmp(f->unit, "seconds") == 0)
			wd_sample_real(out, f, NULL, (double)stats[i] / 1e6);
		else
			wd_sample(out, f, NULL, stats[i]);
	}
}

/* Enters c (NULL: no memory) among the calls, and its id into m. */
static int enter(struct keeper_link *k, struct call *c, struct wd_msg *m, struct conn **ret_conn)
{
	int rc = 0;

	wd_lock(&k->lock);
	if (!c)
		rc = -ENOMEM;
	else if (!k->conn)
		rc = c->status_cb ? -EAGAIN : -EPIPE;
	else if (c->status_cb && k->nstatus >= KEEPER_STATUS_MAX)
		rc = -EBUSY;
	if (rc == 0) {
		*ret_conn = conn_ref(k->conn);
		m->id = c->id = ++k->next_id;
		k->nstatus += c->status_cb != NULL;
		HASH_ADD(hh, k->calls, id, sizeof(c->id), c);
	}
	wd_unlock(&k->lock);
	return rc;
}

static void call(struct keeper_link *k, struct wd_msg *m, keeper_cb cb, void *arg)
{
	struct call *c = calloc(1, sizeof(*c));
	struct conn *conn = NULL;
	int rc;

	if (c)
		*c = (struct call){.cb = cb, .arg = arg};
	rc = enter(k, c, m, &conn);
	if (rc < 0) {
		free(c);
		if (cb)
			cb(arg, rc, 0, "the keeper is gone");
		return;
	}
	/* when the send fails, the connection's end answers the call */
	conn_send(conn, m);
	conn_unref(conn);
}

void keeper_status(struct keeper_link *k, keeper_status_cb cb, void *arg)
{
	struct call *c = calloc(1, sizeof(*c));
	struct wd_msg *m = hub_scratch();
	struct conn *conn = NULL;
	int rc;

	if (c)
		*c = (struct call){.status_cb = cb, .arg = arg};
	wd_msg_start(m, WD_MSG_KEEPER_STATUS, 0);
	rc = enter(k, c, m, &conn);
	if (rc == 0) {
		conn_send(conn, m);
		conn_unref(conn);
		return;
	}
	free(c);
	cb(arg, rc, -1,
		rc == -EAGAIN  ? "no keeper is connected to the agent"
		: rc == -EBUSY ? "the keeper does not answer the agent"
			       : "the agent is out of memory");
}

void keeper_backing_open(struct keeper_link *k, uint64_t mount, int fd, keeper_cb cb, void *arg)
{
	struct wd_msg *m = hub_scratch();

	wd_msg_start(m, WD_MSG_BACKING_OPEN, 0);
	wd_put_u64(m, mount);
	wd_put_fd(m, fd);
	call(k, m, cb, arg);
}

void keeper_backing_close(struct keeper_link *k, uint64_t mount, uint32_t backing_id, keeper_cb cb, void *arg)
{
	struct call *c = calloc(1, sizeof(*c));
	bool is_up = false;
	int status = c ? -ECANCELED : -ENOMEM;

	if (c) {
		*c = (struct call){
			.cb = cb, .arg = arg, .is_close = true, .mount = mount, .backing_id = backing_id};
		wd_lock(&k->lock);
		is_up = k->conn != NULL;
		if (is_up)
			DL_APPEND(k->closes, c);
		wd_unlock(&k->lock);
	}
	if (is_up) {
		send_closes(k);
		return;
	}
	free(c);
	if (cb)
		cb(arg, status, 0, "the keeper is gone");
}

void keeper_offer_program(struct keeper_link *k, const char *id, int fd, keeper_cb cb, void *arg)
{
	struct wd_msg *m = hub_scratch();

	wd_msg_start(m, WD_MSG_SERVER_PROGRAM, 0);
	wd_put_str(m, id);
	wd_put_str(m, WD_VERSION);
	wd_put_fd(m, fd);
	call(k, m, cb, arg);
}
