/* SPDX-License-Identifier: Apache-2.0 */
/* See standby.h. Locks are flock(2)'s: they work between containers, and end with the process. */
#include "agent/standby.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#include "agent/meta.h"
#include "common/cleanup.h"
#include "common/log.h"

static int open_run_lock(const struct settings *s, struct wd_err *err)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/agent.lock", s->run_dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd < 0 ? wd_err_sys(err, errno, "open '%s'", path) : fd;
}

int standby_lock(const struct settings *s, struct standby_locks *ret_locks, struct wd_err *err)
{
	wd_autoclose int fd = open_run_lock(s, err);

	if (fd < 0)
		return fd;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		ret_locks->run_fd = wd_steal_fd(&fd);
	return 0;
}

static int wait_for_run(const struct settings *s, struct wd_err *err)
{
	wd_autoclose int fd = open_run_lock(s, err);

	if (fd < 0)
		return fd;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		wd_info("another agent serves in '%s': standing by", s->run_dir);
		while (flock(fd, LOCK_EX) < 0)
			if (errno != EINTR)
				return wd_err_sys(err, errno, "lock '%s/agent.lock'", s->run_dir);
	}
	return wd_steal_fd(&fd);
}

static void end_at_once(int sig)
{
	_exit(0);
}

/* Nothing has begun yet, so a signal may simply end the process. A container's first process needs a handler even
 * for that. */
int standby_wait(const struct settings *s, struct standby_locks *ret_locks, struct wd_err *err)
{
	const struct sigaction end = {.sa_handler = end_at_once};
	struct sigaction term, interrupt;
	wd_autoclose int run = -1;
	sigset_t set, blocked;
	int cache;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaction(SIGTERM, &end, &term);
	sigaction(SIGINT, &end, &interrupt);
	pthread_sigmask(SIG_UNBLOCK, &set, &blocked);
	run = wait_for_run(s, err);
	cache = run < 0 ? run : meta_wait_for_lock(s->cache_dir, err);
	pthread_sigmask(SIG_SETMASK, &blocked, NULL);
	sigaction(SIGTERM, &term, NULL);
	sigaction(SIGINT, &interrupt, NULL);
	if (cache < 0)
		return cache;
	*ret_locks = (struct standby_locks){wd_steal_fd(&run), cache};
	return 0;
}
