/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper's side of the deposits (common/hold.h has the holder's). Holders are the agent, which
 * the keeper connects to, and clients that said hello as CSI or SUPERVISOR and began to offer.
 *
 * Each mount has two bits per holder: deposited, and confirmed. Nothing is deposited with a holder
 * before it has offered all it has, so that what both know crosses once. A few deposits are under
 * way at a time: descriptors in flight are limited.
 *
 * The end. A stopping keeper asks one holder after the other that has confirmed every mount. From
 * the moment that it began to stop it gives leave to nobody, and a holder that has leave is never
 * asked: of two that want to end at once, one stays.
 */
#include "fuse/keeper.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "common/log.h"

#define HOLDS_AT_ONCE 8

static uint32_t bit_of(int holder)
{
	return 1u << holder;
}

static void send_to(struct keeper *k, int holder)
{
	if (holder == HOLDER_AGENT)
		agent_send(k);
	else
		client_send(k, k->holders[holder].client);
}

static void reply(struct keeper *k, int holder, uint16_t type, uint64_t id, const struct wd_err *err)
{
	wd_msg_start_reply(&k->out, type, id, err->code > 0 ? -err->code : 0);
	if (err->code > 0)
		wd_put_str(&k->out, err->msg);
	send_to(k, holder);
}

int holder_of(const struct keeper *k, uint64_t client)
{
	for (int i = HOLDER_AGENT + 1; i < KEEPER_HOLDERS_MAX; i++)
		if (k->holders[i].is_used && k->holders[i].client == client)
			return i;
	return -1;
}

int holder_begin(struct keeper *k, uint64_t client)
{
	int i = HOLDER_AGENT;

	for (i += client != 0; client && i < KEEPER_HOLDERS_MAX && k->holders[i].is_used; i++)
		;
	if (i == KEEPER_HOLDERS_MAX)
		return -ENOSPC;
	k->holders[i] = (struct holder){.is_used = true, .client = client};
	return i;
}

void holder_gone(struct keeper *k, int holder)
{
	for (struct mount *m = k->mounts; m; m = m->next) {
		m->held_sent &= ~bit_of(holder);
		m->held_by &= ~bit_of(holder);
		m->held_stale &= ~bit_of(holder);
	}
	k->holders[holder] = (struct holder){.is_used = false};
	if (k->leave_asked == holder)
		k->leave_asked = -1;
}

/* ---- depositing ---- */

static void send_hold(struct keeper *k, int holder, struct mount *m)
{
	struct wd_deposit d = {.mount = m->id,
		.target = m->target,
		.dataset = m->dataset,
		.flags = m->flags,
		.major = m->major,
		.minor = m->minor,
		.fds = {m->fuse_fd, m->info_fd, m->tables_fd, m->description_fd, m->record_fd}};

	m->held_sent |= bit_of(holder);
	k->holders[holder].unanswered++;
	wd_deposit_write(&k->out, WD_MSG_HOLD, &d);
	send_to(k, holder);
}

void holders_pump(struct keeper *k)
{
	for (int i = 0; i < KEEPER_HOLDERS_MAX; i++) {
		struct holder *h = &k->holders[i];

		if (!h->is_ready || h->is_released)
			continue;
		for (struct mount *m = k->mounts; m && h->unanswered < HOLDS_AT_ONCE; m = m->next)
			if (mount_stands(m) && !(m->held_sent & bit_of(i)))
				send_hold(k, i, m);
	}
}

void holders_unhold(struct keeper *k, struct mount *m)
{
	for (int i = 0; i < KEEPER_HOLDERS_MAX; i++) {
		struct holder *h = &k->holders[i];

		if (!h->is_used || !(m->held_sent & bit_of(i)))
			continue;
		if (!(m->held_by & bit_of(i)))
			h->unanswered--;
		wd_msg_start(&k->out, WD_MSG_UNHOLD, 0);
		wd_put_u64(&k->out, m->id);
		send_to(k, i);
	}
	m->held_sent = m->held_by = m->held_stale = 0;
}

void holders_deposit_again(struct keeper *k, struct mount *m)
{
	/* what is under way is let come back first, so that each answer is to one deposit */
	m->held_stale |= m->held_sent & ~m->held_by;
	m->held_sent &= ~m->held_by;
	m->held_by = 0;
}

static void on_held(struct keeper *k, int holder)
{
	struct mount *m = mount_by_id(k, k->in.id);

	if (!m || !(m->held_sent & bit_of(holder)) || (m->held_by & bit_of(holder)))
		return; /* it has ended meanwhile */
	k->holders[holder].unanswered--;
	if (m->held_stale & bit_of(holder)) {
		m->held_stale &= ~bit_of(holder);
		m->held_sent &= ~bit_of(holder); /* the loop deposits again */
		return;
	}
	/* one that was not taken stays marked, so that it is not tried again and again */
	m->held_by |= bit_of(holder);
	if (k->in.status == 0)
		return;
	k->holders[holder].has_refused = true;
	wd_error("a holder does not take the mount on '%s': %s", m->target,
		strerror(-k->in.status));
}

/* ---- offers ---- */

/* fd -1: taken over a moment ago. */
static bool is_same_file(int fd, int other)
{
	struct stat a, b;

	return fd < 0 || (fstat(fd, &a) == 0 && fstat(other, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino);
}

static int on_offer(struct keeper *k, int holder)
{
	struct wd_err err = WD_ERR_INIT;
	uint64_t id = k->in.id;
	struct wd_deposit d;
	struct mount *m;
	int rc = wd_deposit_read(&k->in, &d);

	if (rc == -EPROTO)
		return rc;
	if (rc < 0) {
		wd_err_set(&err, ENOMEM, "out of memory");
		reply(k, holder, WD_MSG_OFFER, id, &err);
		return 0;
	}
	m = mount_by_id(k, d.mount);
	if (m && !mount_stands(m))
		wd_err_set(&err, ENOENT, "the mount has ended");
	else if (!m && k->leave_asked >= 0)
		wd_err_set(&err, EBUSY, "the keeper is ending");
	else if (!m)
		adopt(k, &d, &err);
	m = err.code ? NULL : mount_by_id(k, d.mount);
	/* it may have missed a renewal: then the loop deposits what there is now */
	if (m && is_same_file(d.fds[WD_DEPOSIT_DESCRIPTION], m->description_fd) && !(m->held_sent & bit_of(holder))) {
		m->held_sent |= bit_of(holder);
		m->held_by |= bit_of(holder);
	}
	wd_deposit_release(&d);
	reply(k, holder, WD_MSG_OFFER, id, &err);
	return 0;
}

static int on_offered(struct keeper *k, int holder)
{
	struct wd_err err = WD_ERR_INIT;
	struct wd_rd r = wd_rd_start(&k->in);
	uint64_t id = k->in.id;

	wd_rd_u32(&r);
	if (!wd_rd_done(&r))
		return -EPROTO;
	k->holders[holder].is_ready = true;
	holders_pump(k);
	reply(k, holder, WD_MSG_OFFERED, id, &err);
	if (holder == HOLDER_AGENT)
		agent_reconciled(k);
	return 0;
}

/* ---- ending ---- */

static int on_leave(struct keeper *k, int holder)
{
	struct wd_err err = WD_ERR_INIT;

	if (k->in.len != 0)
		return -EPROTO;
	if (k->is_stopping)
		wd_err_set(&err, EBUSY, "the keeper is ending itself");
	else
		k->holders[holder].is_released = true;
	reply(k, holder, WD_MSG_LEAVE, k->in.id, &err);
	return 0;
}

static bool has_all(const struct keeper *k, int holder)
{
	for (const struct mount *m = k->mounts; m; m = m->next)
		if (mount_stands(m) && !(m->held_by & bit_of(holder)))
			return false;
	return true;
}

bool holders_ask_leave(struct keeper *k)
{
	bool is_hope = false;

	if (k->leave_asked >= 0)
		return true;
	for (int i = 0; i < KEEPER_HOLDERS_MAX; i++) {
		struct holder *h = &k->holders[i];

		if (!h->is_used || h->is_released || h->has_refused)
			continue;
		is_hope = true;
		if (!h->is_ready || !has_all(k, i))
			continue;
		k->leave_asked = i;
		wd_msg_start(&k->out, WD_MSG_LEAVE, 1);
		send_to(k, i);
		return true;
	}
	return is_hope;
}

static void on_leave_reply(struct keeper *k, int holder)
{
	if (k->leave_asked != holder)
		return;
	k->leave_asked = -1;
	if (k->in.status < 0)
		k->holders[holder].has_refused = true;
	else
		k->is_released = true; /* nothing was adopted since it was asked */
}

bool holder_message(struct keeper *k, int holder, int *ret_rc)
{
	*ret_rc = 0;
	if (!k->holders[holder].is_used)
		return false; /* an agent of the release before is none, whatever it sends */
	switch (k->in.type) {
	case WD_MSG_OFFER:
		*ret_rc = on_offer(k, holder);
		return true;
	case WD_MSG_OFFERED:
		*ret_rc = on_offered(k, holder);
		return true;
	case WD_MSG_LEAVE:
		*ret_rc = on_leave(k, holder);
		return true;
	case WD_MSG_HOLD | WD_MSG_REPLY:
		on_held(k, holder);
		return true;
	case WD_MSG_LEAVE | WD_MSG_REPLY:
		on_leave_reply(k, holder);
		return true;
	}
	return false;
}
