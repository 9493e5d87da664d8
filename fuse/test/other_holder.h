/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_FUSE_TEST_OTHER_HOLDER_H
#define WD_FUSE_TEST_OTHER_HOLDER_H
/* A holder beside the agent, as a supervisor is, driven by hand. */
#include "common/hold.h"
#include "fuse/test/mount_fixture.h"

/* A holder on a connection of its own to keeper.sock. */
struct other {
	struct wd_hold hold;
	int sock;
	int description_fd; /* of the last HOLD */
	unsigned ended;
};

static inline int other_send(void *arg, struct wd_msg *m)
{
	return wd_msg_send(((struct other *)arg)->sock, m, 0);
}

static inline void other_ended(void *arg, const struct wd_deposit *d, enum wd_hold_end why)
{
	((struct other *)arg)->ended++;
}

static inline void other_connect(struct other *o)
{
	struct wd_err err = WD_ERR_INIT;

	o->sock = wd_client_connect(keeper_sock, WD_ROLE_SUPERVISOR, &err);
	if (o->sock < 0)
		fail_msg("%s", err.msg);
	wd_hold_begin(&o->hold);
}

static inline void other_init(struct other *o)
{
	*o = (struct other){.hold = {.send = other_send,
				    .on_end = other_ended,
				    .send_arg = o,
				    .arg = o,
				    .give_up_ns = 300000000000LL},
		.sock = -1,
		.description_fd = -1};
	assert_int_equal(wd_hold_init(&o->hold), 0);
}

/* Handles one message; false when the keeper is gone. */
static inline bool other_step(struct other *o)
{
	if (wd_msg_recv(o->sock, &msg, 0) <= 0) {
		close(o->sock);
		o->sock = -1;
		wd_hold_lost(&o->hold, wd_now_ns());
		return false;
	}
	assert_true(wd_hold_takes(msg.type));
	if (msg.type == WD_MSG_HOLD && msg.nfds == WD_DEPOSIT_FDS) {
		if (o->description_fd >= 0)
			close(o->description_fd);
		o->description_fd = dup(msg.fds[WD_DEPOSIT_DESCRIPTION]);
	}
	assert_true(wd_hold_message(&o->hold, &msg));
	wd_msg_close_fds(&msg);
	return true;
}

static inline void other_wait_for_deposit(struct other *o)
{
	while (o->hold.count == 0 || !o->hold.is_reconciled)
		assert_true(other_step(o));
}

static inline void other_done(struct other *o)
{
	if (o->sock >= 0)
		close(o->sock);
	if (o->description_fd >= 0)
		close(o->description_fd);
	wd_hold_done(&o->hold);
}

#endif
