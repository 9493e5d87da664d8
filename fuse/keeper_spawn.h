/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_FUSE_KEEPER_SPAWN_H
#define WD_FUSE_KEEPER_SPAWN_H
/*
 * Starting a server: fork, strip of every privilege, exec.
 */
#include <stdbool.h>
#include <sys/types.h>

#include "common/err.h"

/* The descriptors of a server, by number; beside them it has 0 (/dev/null) and 1 and 2 (stderr). */
enum server_fd {
	SERVER_FD_FUSE = 3,
	SERVER_FD_INFO = 4,
	SERVER_FD_TABLES = 5,
	SERVER_FD_AGENT = 6,
	SERVER_FD_CONTROL = 7,
	SERVER_FD_END = 8,
};

#define SPAWN_EXIT_FORBIDDEN 126 /* exit status of a child whose program may not be executed */

struct spawn {
	const char *path;			 /* of warpdrive-fuse; used when program is -1 */
	int program;				 /* an open one, borrowed; -1: none */
	uid_t uid;				 /* and gid of the server */
	bool is_trial; /* it is to say --version and to end; it gets no descriptors */
	int fds[SERVER_FD_END - SERVER_FD_FUSE]; /* in the order of enum server_fd */
};

/* Moves this process, and with it all its children, into an empty network and IPC namespace. */
int spawn_isolate(struct wd_err *err);
/* Starts a server; fds are borrowed. An error that happens in the child (no such program) is a
 * line on stderr and an early death. */
int spawn_server(const struct spawn *spawn, pid_t *ret_pid, int *ret_pidfd, struct wd_err *err);

#endif
