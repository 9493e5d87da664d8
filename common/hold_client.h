/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_HOLD_CLIENT_H
#define WD_COMMON_HOLD_CLIENT_H
/*
 * A holder that connects to keeper.sock by itself, now and whenever a keeper appears there (csi and
 * the supervisor; the agent is connected to by the keeper). One thread. Nothing here blocks: one
 * descriptor tells that there is work, also when it is time that has passed.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/hold.h"

struct wd_hold_client {
	struct wd_hold hold; /* on_end, arg and give_up_ns are the owner's to set before the start */

	/* the module's */
	enum { WD_HOLD_AWAY, WD_HOLD_GREETING, WD_HOLD_UP } state;
	uint32_t role;
	char path[108];
	int epoll, sock, inotify, timer;
	int64_t greeting_until_ns, retry_at_ns;
	struct wd_msg *in;
};

/* The run directory must exist. Fine to stop after a failure. */
int wd_hold_client_start(struct wd_hold_client *c, const char *run_dir, enum wd_role role,
	struct wd_err *err);
void wd_hold_client_stop(struct wd_hold_client *c);
/* Readable when wd_hold_client_run has something to do. */
int wd_hold_client_fd(const struct wd_hold_client *c);
/* Does all that can be done now. Call it after the hold's wd_hold_leave, too. */
void wd_hold_client_run(struct wd_hold_client *c);

#endif
