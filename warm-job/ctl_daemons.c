/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sees to it that an agent and a keeper run, by way of the supervisor (ctl_supervise.c). Whether
 * one is there is asked at its socket, and what it is asked is answered when both daemons run: so
 * nothing here waits by time, and nothing is looked for in the list of processes.
 *
 * Where agent and keeper run and there never was a supervisor (its socket's file stays when it is
 * killed), somebody else looks after them.
 */
#include "warm-job/ctl_daemons.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/proto.h"
#include "warm-job/ctl.h"
#include "warm-job/ctl_probe.h"
#include "warm-job/ctl_spawn.h"

#define TRIES 10

static int make_dirs(const char *path, struct wd_err *err)
{
	char part[PATH_MAX];

	if (snprintf(part, sizeof(part), "%s", path) >= (int)sizeof(part))
		return wd_err_sys(err, ENAMETOOLONG, "run directory '%s'", path);
	for (char *p = part + 1;; p++) {
		if (*p && *p != '/')
			continue;

		char kept = *p;

		*p = '\0';
		if (mkdir(part, 0755) < 0 && errno != EEXIST)
			return wd_err_sys(err, errno,
				"make run directory '%s' (--run-dir chooses another)", path);
		*p = kept;
		if (!kept)
			return 0;
	}
}

int ctl_daemons_lock(struct ctl_daemons *d, struct wd_err *err)
{
	char path[108];

	d->lock_fd = -1;
	d->supervisor_pid = 0;
	d->is_asked = d->has_predecessor = false;

	int r = make_dirs(d->run_dir, err);

	if (r == 0)
		r = ctl_run_path(d->run_dir, "start.lock", path, err);
	if (r < 0)
		return r;
	d->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (d->lock_fd < 0)
		return wd_err_sys(err, errno, "lock '%s'", path);
	while (flock(d->lock_fd, LOCK_EX) < 0) {
		if (errno != EINTR)
			return wd_err_sys(err, errno, "lock '%s'", path);
	}
	return 0;
}

/* 1 when both daemons answer. */
static int both_answer(const struct ctl_daemons *d, struct wd_err *err)
{
	static const char *const names[] = {"agent.sock", "keeper.sock"};
	char path[108];
	int r = 1;

	for (int i = 0; i < 2 && r > 0; i++) {
		int pidfd = -1;

		r = ctl_run_path(d->run_dir, names[i], path, err);
		if (r == 0)
			r = ctl_probe(path, &pidfd, err);
		if (pidfd >= 0)
			close(pidfd);
	}
	return r;
}

static void warn_of_unused(const struct ctl_daemons *d)
{
	const char *unused = d->agent_args[0] ? d->agent_args[0] : d->keeper_args[0];

	if (unused)
		ctl_warn("agent and keeper run already in '%s': '%s' and other options for new "
			 "ones are not applied",
			d->run_dir, unused);
}

/* Puts "--agent-arg X" before each X. */
static int add_args(const char **argv, int n, const char *option, const char *const *args)
{
	for (; *args; args++) {
		argv[n++] = option;
		argv[n++] = *args;
	}
	return n;
}

static int start_supervisor(struct ctl_daemons *d, struct wd_err *err)
{
	const char *argv[4 * CTL_DAEMON_ARGS_MAX + 8] = {
		"warpdrive-ctl", "supervise", "--run-dir", d->run_dir};
	int n = add_args(argv, 4, "--agent-arg", d->agent_args), status = 0, r;
	struct ctl_spawned spawned;
	char byte;

	add_args(argv, n, "--keeper-arg", d->keeper_args);
	if (d->supervisor_pid > 0) /* it has ended */
		waitpid(d->supervisor_pid, NULL, 0);
	d->supervisor_pid = 0;
	r = ctl_spawn(argv, d->run_dir, "supervisor.log", &spawned, err);
	if (r < 0)
		return r;
	do
		r = (int)read(spawned.ready_fd, &byte, 1);
	while (r < 0 && errno == EINTR);
	close(spawned.ready_fd);
	if (r == 1) {
		d->supervisor_pid = spawned.pid;
		return 0;
	}
	while (waitpid(spawned.pid, &status, 0) < 0 && errno == EINTR)
		;
	return ctl_spawn_describe_death("warpdrive-ctl supervise", &spawned, status, err);
}

/* Asks the supervisor for both daemons; *ret_is_nobody: none is there, or it went away. */
static int ask(const struct ctl_daemons *d, const char *path, bool *ret_is_nobody, struct wd_err *err)
{
	wd_autoclose int sock = wd_client_connect(path, WD_ROLE_CTL, err);
	struct wd_msg *m;
	int r = sock;

	*ret_is_nobody = sock < 0;
	if (sock < 0)
		return sock;
	m = calloc(1, sizeof(*m));
	if (!m)
		return wd_err_set(err, ENOMEM, "ask the supervisor: out of memory");
	wd_msg_start(m, WD_MSG_START, 1);
	r = wd_client_call(sock, m, -1, err);
	free(m);
	*ret_is_nobody = r == -ECONNRESET || r == -EPIPE;
	return r;
}

int ctl_daemons_start(struct ctl_daemons *d, struct wd_err *err)
{
	char path[108];
	bool is_nobody = true;
	int r = ctl_run_path(d->run_dir, "supervisor.sock", path, err);

	if (r < 0)
		return r;
	for (int i = 0; i < TRIES && is_nobody; i++) {
		bool was_there = access(path, F_OK) == 0;

		*err = WD_ERR_INIT;
		r = ask(d, path, &is_nobody, err);
		if (!is_nobody)
			break;
		if (r != -ENOENT && r != -ECONNREFUSED && r != -ECONNRESET && r != -EPIPE)
			return r;
		*err = WD_ERR_INIT;
		d->has_predecessor |= was_there;
		r = was_there || d->supervisor_pid > 0 ? 0 : both_answer(d, err);
		if (r == 0)
			r = start_supervisor(d, err);
		if (r != 0)
			is_nobody = false;
	}
	if (r >= 0 && is_nobody)
		return wd_err_set(err, ECHILD,
			"agent and keeper come up and end again: their logs are in '%s'", d->run_dir);
	if (r >= 0 && d->supervisor_pid == 0 && !d->is_asked)
		warn_of_unused(d);
	d->is_asked = true;
	return r < 0 ? r : 0;
}

void ctl_daemons_done(struct ctl_daemons *d, bool stop)
{
	/* It ends with its daemons, and they end when nothing is mounted; of a set that lived
	 * before, something may be. */
	if (stop && d->supervisor_pid > 0 && !d->has_predecessor)
		while (waitpid(d->supervisor_pid, NULL, 0) < 0 && errno == EINTR)
			;
	d->supervisor_pid = 0;
	if (d->lock_fd >= 0)
		close(d->lock_fd);
	d->lock_fd = -1;
}
