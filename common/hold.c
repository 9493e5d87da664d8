/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See hold.h. Entries go through
 *
 *	NEW (since this connection began) --OFFER--> OFFERED --reply--> AGREED
 *	                                                     `--------> REFUSED, or dropped
 *	HOLD ------------------------------------------------------> AGREED
 *
 * A few offers are under way at a time: descriptors in flight are limited, and the keeper must not
 * be flooded. When all are answered, OFFERED follows, and its answer says that both sides know of
 * each other's mounts. What is AGREED the keeper has too.
 */
#include "common/hold.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

#define OFFERS_AT_ONCE 8
#define LOOK_AGAIN_NS 5000000000LL /* a server without a keeper: it may end later */

enum entry_state { ENTRY_NEW, ENTRY_OFFERED, ENTRY_AGREED, ENTRY_REFUSED };

struct wd_hold_entry {
	struct wd_hold_entry *next;
	struct wd_deposit deposit;
	enum entry_state state;
};

int wd_hold_init(struct wd_hold *h)
{
	h->out = calloc(1, sizeof(*h->out));
	return h->out ? 0 : -ENOMEM;
}

static void drop(struct wd_hold *h, struct wd_hold_entry *e)
{
	struct wd_hold_entry **at = &h->entries;

	while (*at != e)
		at = &(*at)->next;
	*at = e->next;
	h->count--;
	wd_deposit_release(&e->deposit);
	free(e);
}

void wd_hold_done(struct wd_hold *h)
{
	while (h->entries)
		drop(h, h->entries);
	free(h->out);
	h->out = NULL;
}

static struct wd_hold_entry *find(const struct wd_hold *h, uint64_t mount)
{
	struct wd_hold_entry *e = h->entries;

	while (e && e->deposit.mount != mount)
		e = e->next;
	return e;
}

bool wd_hold_has(const struct wd_hold *h, uint64_t mount)
{
	return find(h, mount) != NULL;
}

static void end(struct wd_hold *h, struct wd_hold_entry *e, enum wd_hold_end why)
{
	if (h->on_end)
		h->on_end(h->arg, &e->deposit, why);
	drop(h, e);
}

static void send_out(struct wd_hold *h)
{
	int rc = h->is_connected ? h->send(h->send_arg, h->out) : -EPIPE;

	if (rc < 0)
		h->is_connected = false; /* wd_hold_lost follows */
}

/* ---- leaving ---- */

static bool is_all_agreed(const struct wd_hold *h)
{
	for (const struct wd_hold_entry *e = h->entries; e; e = e->next)
		if (e->state != ENTRY_AGREED)
			return false;
	return true;
}

static void ask_leave(struct wd_hold *h)
{
	if (!h->wants_leave || h->is_leave_asked || !h->is_reconciled || !is_all_agreed(h))
		return;
	h->is_leave_asked = true;
	wd_msg_start(h->out, WD_MSG_LEAVE, 1);
	send_out(h);
}

void wd_hold_leave(struct wd_hold *h)
{
	h->wants_leave = true;
	ask_leave(h);
}

bool wd_hold_may_leave(const struct wd_hold *h)
{
	return h->is_released || !h->entries;
}

/* ---- offering ---- */

static void pump(struct wd_hold *h)
{
	struct wd_hold_entry *e = h->entries;

	for (; e && h->unanswered < OFFERS_AT_ONCE; e = e->next) {
		if (e->state != ENTRY_NEW)
			continue;
		e->state = ENTRY_OFFERED;
		h->unanswered++;
		wd_deposit_write(h->out, WD_MSG_OFFER, &e->deposit);
		send_out(h);
	}
	if (e || h->unanswered > 0 || h->is_offered)
		return;
	h->is_offered = true;
	wd_msg_start(h->out, WD_MSG_OFFERED, 1);
	wd_put_u32(h->out, h->count);
	send_out(h);
}

void wd_hold_begin(struct wd_hold *h)
{
	h->is_connected = true;
	h->is_offered = h->is_reconciled = h->is_leave_asked = false;
	h->unanswered = 0;
	h->gone_since_ns = 0;
	for (struct wd_hold_entry *e = h->entries; e; e = e->next)
		e->state = ENTRY_NEW;
	pump(h);
}

void wd_hold_lost(struct wd_hold *h, int64_t now_ns)
{
	h->is_connected = h->is_reconciled = h->is_leave_asked = false;
	if (!h->gone_since_ns)
		h->gone_since_ns = now_ns;
}

/* ---- messages ---- */

static void reply(struct wd_hold *h, const struct wd_msg *m, int status, const char *reason)
{
	wd_msg_start_reply(h->out, m->type, m->id, status);
	if (status < 0)
		wd_put_str(h->out, reason);
	send_out(h);
}

static bool on_hold(struct wd_hold *h, struct wd_msg *m)
{
	struct wd_deposit fresh;
	struct wd_hold_entry *e;
	int rc = wd_deposit_read(m, &fresh);

	if (rc == -EPROTO)
		return false;
	if (rc < 0) {
		reply(h, m, rc, "out of memory");
		return true;
	}
	e = find(h, fresh.mount);
	if (!e && h->count >= WD_DEPOSITS_MAX) {
		wd_deposit_release(&fresh);
		reply(h, m, -ENOSPC, "too many mounts are held already");
		return true;
	}
	if (e) {
		wd_deposit_release(&e->deposit);
		if (e->state == ENTRY_OFFERED)
			h->unanswered--;
	} else {
		e = calloc(1, sizeof(*e));
		if (!e) {
			wd_deposit_release(&fresh);
			reply(h, m, -ENOMEM, "out of memory");
			return true;
		}
		e->next = h->entries;
		h->entries = e;
		h->count++;
	}
	e->deposit = fresh;
	e->state = ENTRY_AGREED;
	reply(h, m, 0, NULL);
	pump(h); /* an offer may have become needless */
	return true;
}

static bool on_unhold(struct wd_hold *h, struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	uint64_t mount = wd_rd_u64(&r);
	struct wd_hold_entry *e = find(h, mount);

	if (!wd_rd_done(&r))
		return false;
	if (e) {
		if (e->state == ENTRY_OFFERED)
			h->unanswered--;
		end(h, e, WD_HOLD_UNHELD);
		pump(h);
	}
	return true;
}

/* The keeper wants to end. What it deposited is here; only a holder that is on its way out itself
 * must say no. One that has asked and was not answered was overtaken: the keeper had asked before
 * it saw that, and will refuse. */
static bool on_leave(struct wd_hold *h, struct wd_msg *m)
{
	if (m->len != 0)
		return false;
	if (h->is_released)
		reply(h, m, -EBUSY, "this holder is ending itself");
	else
		reply(h, m, 0, NULL);
	return true;
}

static void on_offer_reply(struct wd_hold *h, const struct wd_msg *m)
{
	struct wd_hold_entry *e = find(h, m->id);

	if (!e || e->state != ENTRY_OFFERED)
		return;
	h->unanswered--;
	if (m->status == 0) {
		e->state = ENTRY_AGREED;
	} else if (m->status == -ENOENT) {
		end(h, e, WD_HOLD_GONE);
	} else {
		wd_warn("the keeper does not take back the mount on '%s': %s", e->deposit.target,
			strerror(-m->status));
		e->state = ENTRY_REFUSED;
	}
	pump(h);
}

bool wd_hold_takes(uint16_t type)
{
	switch (type) {
	case WD_MSG_HOLD:
	case WD_MSG_UNHOLD:
	case WD_MSG_LEAVE:
	case WD_MSG_LEAVE | WD_MSG_REPLY:
	case WD_MSG_OFFER | WD_MSG_REPLY:
	case WD_MSG_OFFERED | WD_MSG_REPLY:
		return true;
	}
	return false;
}

bool wd_hold_message(struct wd_hold *h, struct wd_msg *m)
{
	switch (m->type) {
	case WD_MSG_HOLD:
		return on_hold(h, m);
	case WD_MSG_UNHOLD:
		return on_unhold(h, m);
	case WD_MSG_LEAVE:
		return on_leave(h, m);
	case WD_MSG_OFFER | WD_MSG_REPLY:
		on_offer_reply(h, m);
		return true;
	case WD_MSG_OFFERED | WD_MSG_REPLY:
		h->is_reconciled = m->status == 0;
		ask_leave(h);
		return true;
	case WD_MSG_LEAVE | WD_MSG_REPLY:
		if (m->status == 0 && h->is_leave_asked)
			h->is_released = true;
		return true; /* refused: the next keeper is asked again */
	}
	return false;
}

/* ---- giving up ---- */

int64_t wd_hold_tick(struct wd_hold *h, int64_t now_ns)
{
	int64_t at = h->gone_since_ns + h->give_up_ns;

	if (!h->gone_since_ns || !h->entries)
		return INT64_MAX;
	if (now_ns < at)
		return at;
	for (struct wd_hold_entry *e = h->entries, *next; e; e = next) {
		next = e->next;
		if (wd_deposit_server(e->deposit.fds[WD_DEPOSIT_TABLES]) != 0)
			continue;
		wd_error("no keeper came for the mount on '%s' in %lld s and no server answers; it "
			 "is given up",
			e->deposit.target, (long long)(h->give_up_ns / 1000000000));
		end(h, e, WD_HOLD_GIVEN_UP);
	}
	return h->entries ? now_ns + LOOK_AGAIN_NS : INT64_MAX;
}
