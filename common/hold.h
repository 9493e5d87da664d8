/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_HOLD_H
#define WD_COMMON_HOLD_H
/*
 * The holder's side of the deposits: an agent, a CSI plugin or a supervisor keeps copies of what
 * makes each mount go on, so that a keeper may die with all of its servers.
 *
 * Whenever a connection to a keeper begins, the holder offers all it has (OFFER), then says so
 * (OFFERED). The keeper takes back what it does not know, and deposits what the holder lacks. On
 * SIGTERM a holder asks (LEAVE) and goes when the keeper, which then has every one of these mounts,
 * agrees. A keeper asks the same way. When both ask at once the keeper's wish comes first: it
 * refuses the holder's, and the holder grants the keeper's, so one of them stays.
 *
 * The table knows nothing of sockets: the owner feeds it messages and events and is given messages
 * to send. Calls must not overlap; callbacks come from within them and must not call back.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/deposit.h"
#include "common/err.h"
#include "common/proto.h"

enum wd_hold_end {
	WD_HOLD_UNHELD, /* the mount ended */
	WD_HOLD_GONE,	/* a keeper says so, which may never have known the mount */
	WD_HOLD_GIVEN_UP, /* no keeper came; unless another holder is left the connection is aborted */
};

struct wd_hold_entry;

struct wd_hold {
	/* the owner's; set before wd_hold_init */
	/* Sends to the keeper without blocking; -errno when the connection is done for. */
	int (*send)(void *send_arg, struct wd_msg *m);
	/* An entry is about to be dropped. May be NULL. */
	void (*on_end)(void *arg, const struct wd_deposit *d, enum wd_hold_end why);
	void *send_arg, *arg;
	int64_t give_up_ns; /* how long a mount is held with neither keeper nor server */

	/* the module's */
	struct wd_hold_entry *entries;
	unsigned count, unanswered;
	bool is_connected, is_offered, is_reconciled;
	bool wants_leave, is_leave_asked, is_released;
	int64_t gone_since_ns;
	struct wd_msg *out;
};

/* -ENOMEM. */
int wd_hold_init(struct wd_hold *h);
/* Closes everything. Fine after a failed init. */
void wd_hold_done(struct wd_hold *h);

/* A connection to a keeper stands (hello is said): the offers begin. */
void wd_hold_begin(struct wd_hold *h);
/* The connection is gone; gives up after give_up_ns from now on. */
void wd_hold_lost(struct wd_hold *h, int64_t now_ns);
/* True for the types that wd_hold_message wants: HOLD, UNHOLD, LEAVE and replies. */
bool wd_hold_takes(uint16_t type);
/* One message from the keeper; takes its fds. False when it is malformed: drop the connection. */
bool wd_hold_message(struct wd_hold *h, struct wd_msg *m);

/* The holder wants to end: it may as soon as wd_hold_may_leave says so. */
void wd_hold_leave(struct wd_hold *h);
/* True when nothing is held, or the keeper has agreed. */
bool wd_hold_may_leave(const struct wd_hold *h);
bool wd_hold_has(const struct wd_hold *h, uint64_t mount);

/* Gives up what is due; returns when to call again, INT64_MAX for never. */
int64_t wd_hold_tick(struct wd_hold *h, int64_t now_ns);

#endif
