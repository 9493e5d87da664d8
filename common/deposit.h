/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_DEPOSIT_H
#define WD_COMMON_DEPOSIT_H
/*
 * All that makes a mount go on, in a form that can be handed from one process to another: what the
 * keeper deposits with the holders (WD_MSG_HOLD), and what they offer to the next keeper
 * (WD_MSG_OFFER).
 *
 * As long as any process has the fuse fd, the kernel keeps the connection. The record is a file
 * in the run directory whose open description carries an flock: all copies of it, wherever they
 * are, share the lock, and it is free when the last holder of the mount is gone.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/proto.h"

#define WD_DESCRIPTION_MAX 49152 /* bytes of a mount's description */
#define WD_DATASET_MAX 2048	 /* bytes of a dataset's name; the kernel's limit is 4096 */
#define WD_DEPOSITS_MAX 1024	 /* mounts that a holder takes; then ENOSPC */

enum wd_deposit_fd {
	WD_DEPOSIT_FUSE,
	WD_DEPOSIT_INFO,   /* sealed memfd: INIT and its answer (common/mountmem.h) */
	WD_DEPOSIT_TABLES, /* memfd: requests and open files */
	WD_DEPOSIT_DESCRIPTION, /* sealed memfd: URL, options, credentials */
	WD_DEPOSIT_RECORD,
	WD_DEPOSIT_FDS,
};

struct wd_deposit {
	uint64_t mount;
	char *target, *dataset;
	uint32_t flags;	       /* enum wd_mount_flag */
	uint32_t major, minor; /* of the mounted file system */
	int fds[WD_DEPOSIT_FDS];
};

void wd_deposit_init(struct wd_deposit *d);
/* Frees the names and closes the descriptors. */
void wd_deposit_release(struct wd_deposit *d);

/* Starts message m of this type, with the deposit in it; the fds are borrowed until it is sent. The
 * id is the mount's, which is how the reply is found. */
void wd_deposit_write(struct wd_msg *m, uint16_t type, const struct wd_deposit *d);
/* Takes the deposit out of a received message, fds included. -EPROTO when it is malformed, -ENOMEM;
 * then *ret_d is untouched and the fds remain in m. */
int wd_deposit_read(struct wd_msg *m, struct wd_deposit *ret_d);

/* Which process serves the mount: the one that has the tables locked, > 0; 0 when there is none;
 * -1 when there is one that cannot be seen from here. A process that asks must not have the lock. */
int wd_deposit_server(int tables_fd);
/* What a server does before it serves: -EAGAIN when another one does. The lock ends with the
 * process, or when it closes any descriptor of the tables. */
int wd_deposit_serve(int tables_fd);

/* The description as it lies in a sealed memfd: makes one, and reads it back (the caller wipes and
 * frees; there is a NUL behind the last byte). -EPROTO for what is not sealed or too long. */
int wd_description_make(const void *data, size_t len, struct wd_err *err);
int wd_description_read(int fd, unsigned char **ret_data, size_t *ret_len, struct wd_err *err);

#endif
