/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_FUSE_SERVER_OPEN_H
#define WD_FUSE_SERVER_OPEN_H
/* What server_open.c (opening and closing) and server_reopen.c (after restarts) share. */
#include "fuse/server.h"

struct grant {
	enum wd_open_mode mode;
	uint32_t backing_id;
	uint64_t size;
	struct data *data;
};

/* Reads the answer. A mode that cannot be had becomes cached mode without data: its reads ask the
 * agent for the bytes. */
int grant_decode(struct wd_msg *m, struct grant *ret_grant);
/* Gives back what the pool has too much of. Not while the agent is away: it would never hear of it, and the
 * ids would stay registered. */
void open_shrink_pool_locked(void);
/* The agent's answer to a REOPEN. file is asking: nobody else frees it. */
void reopen_answered(struct file *file, struct wd_msg *m);

#endif
