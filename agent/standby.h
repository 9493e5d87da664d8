/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_STANDBY_H
#define WD_AGENT_STANDBY_H
/*
 * Which agent is the one. There is one per run directory (its sockets) and one per cache directory. A second one is
 * refused, or stands by: it has read its settings and waits, by event, for the first one to end, so that a roll-out
 * costs no more than the time between the two. Called before there are sockets or a cache; main thread.
 */
#include "agent/settings.h"
#include "common/err.h"

/* Locked files: the directories are this process's until they are closed. -1: not locked. */
struct standby_locks {
	int run_fd, cache_fd;
};

/* Takes the run directory's lock if it is free; that of the cache is left to meta_open_with, and what somebody else
 * has to whoever opens it. */
int standby_lock(const struct settings *s, struct standby_locks *ret_locks, struct wd_err *err);
/* Waits for both. SIGTERM and SIGINT, blocked by the caller, end the process meanwhile. */
int standby_wait(const struct settings *s, struct standby_locks *ret_locks, struct wd_err *err);

#endif
