/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starts a private agent and keeper: binaries from beside this one (else from PATH), their own
 * session, output appended to <run dir>/agent.log and keeper.log. `--exit-when-idle` lets them end
 * with their last mount. Readiness is a byte on a pipe, death is its end of file.
 */
#include "warm-job/ctl_daemons.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "warm-job/ctl.h"
#include "warm-job/ctl_probe.h"

#define READY_FD 3
#define LOG_KEEP_BYTES (8 << 20)
#define STOP_TIMEOUT_MS 20000

extern char **environ;

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

/* "<directory of this program>/<name>" when it is there, else the bare name for PATH. */
static void find_program(const char *name, char out[PATH_MAX])
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n > 0) {
		self[n] = '\0';
		*strrchr(self, '/') = '\0';
		if (snprintf(out, PATH_MAX, "%s/%s", self, name) < PATH_MAX && !access(out, X_OK))
			return;
	}
	snprintf(out, PATH_MAX, "%s", name);
}

static int open_log(const char *path, off_t *ret_offset, struct wd_err *err)
{
	struct stat st;

	if (!stat(path, &st) && st.st_size > LOG_KEEP_BYTES) {
		char old[PATH_MAX];

		snprintf(old, sizeof(old), "%s.old", path);
		rename(path, old);
	}
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	if (fd < 0 || fstat(fd, &st) < 0) {
		int code = errno;

		if (fd >= 0)
			close(fd);
		return wd_err_sys(err, code, "open log '%s'", path);
	}
	*ret_offset = st.st_size;
	return fd;
}

static int spawn(const char *program, char *const argv[], int log_fd, int ready_fd, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none, all;

	posix_spawn_file_actions_init(&actions);
	/* a daemon must not hold on to the directory that it was started from */
	posix_spawn_file_actions_addchdir_np(&actions, "/");
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, log_fd, 1);
	posix_spawn_file_actions_adddup2(&actions, log_fd, 2);
	posix_spawn_file_actions_adddup2(&actions, ready_fd, READY_FD);

	posix_spawnattr_init(&attr);
	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	posix_spawnattr_setflags(
		&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

	int code = posix_spawnp(ret_pid, program, &actions, &attr, argv, environ);

	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return -code;
}

void ctl_daemons_last_words(const char *log_path, off_t offset, char *out, size_t cap)
{
	char tail[8192];
	wd_autoclose int fd = open(log_path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	*out = '\0';
	if (fd < 0 || fstat(fd, &st) < 0)
		return;
	if (st.st_size - offset > (off_t)sizeof(tail) - 1)
		offset = st.st_size - ((off_t)sizeof(tail) - 1);

	ssize_t n = pread(fd, tail, sizeof(tail) - 1, offset);

	if (n <= 0)
		return;
	tail[n] = '\0';

	bool is_error = false;
	char *rest = tail;

	for (char *line = strsep(&rest, "\n"); line; line = strsep(&rest, "\n")) {
		if (!*line)
			continue;

		json_t *object = json_loads(line, 0, NULL);
		const char *level = json_string_value(json_object_get(object, "level"));
		const char *msg = json_string_value(json_object_get(object, "msg"));
		bool is_worse = level && !strcmp(level, "error");

		if (is_worse || !is_error)
			snprintf(out, cap, "%s", msg ? msg : line);
		is_error = is_error || is_worse;
		json_decref(object);
	}
}

/* Blocks until the daemon writes its byte (0) or closes the pipe (-ECHILD). */
static int wait_ready(int fd)
{
	char byte;

	for (;;) {
		ssize_t n = read(fd, &byte, 1);

		if (n == 1)
			return 0;
		if (n < 0 && errno == EINTR)
			continue;
		return -ECHILD;
	}
}

static void describe_death(
	const char *name, pid_t pid, const char *log_path, off_t offset, struct wd_err *err)
{
	char words[400];
	int status = 0;

	/* it closed its pipe without a word: it is dying, or useless alive */
	kill(pid, SIGTERM);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	ctl_daemons_last_words(log_path, offset, words, sizeof(words));
	/* "warpdrive-agent: ..." need not be said twice */
	size_t len = strlen(name);
	bool is_named = !strncmp(words, name, len) && !strncmp(words + len, ": ", 2);

	if (*words)
		wd_err_set(err, ECHILD, "%s did not start: %s", name,
			is_named ? words + len + 2 : words);
	else if (WIFSIGNALED(status))
		wd_err_set(err, ECHILD, "%s did not start: ended by signal %d: its log is '%s'",
			name, WTERMSIG(status), log_path);
	else
		wd_err_set(err, ECHILD,
			"%s did not start: it left with exit code %d: its log is '%s'", name,
			WEXITSTATUS(status), log_path);
}

static int start_one(const char *name, const char *log_name, const char *run_dir,
	const char *const *extra, pid_t *ret_pid, struct wd_err *err)
{
	char program[PATH_MAX], log_path[108], number[16];
	const char *argv[CTL_DAEMON_ARGS_MAX + 8];
	off_t offset = 0;
	int n = 0, pipe_fds[2];

	int r = ctl_run_path(run_dir, log_name, log_path, err);

	if (r < 0)
		return r;
	find_program(name, program);
	snprintf(number, sizeof(number), "%d", READY_FD);
	argv[n++] = name;
	argv[n++] = "--run-dir";
	argv[n++] = run_dir;
	argv[n++] = "--exit-when-idle";
	argv[n++] = "--ready-fd";
	argv[n++] = number;
	for (int i = 0; extra[i]; i++)
		argv[n++] = extra[i];
	argv[n] = NULL;

	wd_autoclose int log_fd = open_log(log_path, &offset, err);

	if (log_fd < 0)
		return log_fd;
	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return wd_err_sys(err, errno, "start %s", name);

	wd_autoclose int ready_read = pipe_fds[0];
	pid_t pid = 0;

	r = spawn(program, (char *const *)argv, log_fd, pipe_fds[1], &pid);
	close(pipe_fds[1]);
	if (r < 0)
		return wd_err_sys(
			err, -r, "start '%s' (looked beside this program and in PATH)", name);
	r = wait_ready(ready_read);
	if (r < 0) {
		describe_death(name, pid, log_path, offset, err);
		return r;
	}
	*ret_pid = pid;
	return 0;
}

static int start_if_missing(const char *name, const char *socket_name, const char *log_name,
	const char *run_dir, const char *const *extra, pid_t *pid, int *ret_pidfd,
	struct wd_err *err)
{
	char socket_path[108];
	int r = ctl_run_path(run_dir, socket_name, socket_path, err);

	if (r == 0)
		r = ctl_probe(socket_path, ret_pidfd, err);
	if (r < 0)
		return r;
	if (r > 0) {
		if (*extra && *pid == 0)
			ctl_warn("%s runs already in '%s': '%s' and other options for a new one "
				 "are not applied",
				name, run_dir, *extra);
		return 0;
	}
	/* one that was started here and has ended already */
	if (*pid > 0)
		waitpid(*pid, NULL, 0);
	*pid = 0;
	r = start_one(name, log_name, run_dir, extra, pid, err);
	*ret_pidfd = r == 0 ? (int)syscall(SYS_pidfd_open, *pid, 0) : -1;
	return r;
}

int ctl_daemons_lock(struct ctl_daemons *d, struct wd_err *err)
{
	char path[108];

	d->lock_fd = d->agent_pidfd = -1;
	d->agent_pid = d->keeper_pid = 0;

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

static void close_pidfd(struct ctl_daemons *d)
{
	if (d->agent_pidfd >= 0)
		close(d->agent_pidfd);
	d->agent_pidfd = -1;
}

int ctl_daemons_start(struct ctl_daemons *d, struct wd_err *err)
{
	int keeper_pidfd = -1;

	close_pidfd(d);

	int r = start_if_missing("warpdrive-agent", "agent.sock", "agent.log", d->run_dir,
		d->agent_args, &d->agent_pid, &d->agent_pidfd, err);

	if (r == 0)
		r = start_if_missing("warpdrive-keeper", "keeper.sock", "keeper.log", d->run_dir,
			d->keeper_args, &d->keeper_pid, &keeper_pidfd, err);
	if (keeper_pidfd >= 0)
		close(keeper_pidfd);
	return r;
}

/* Ends a child: asks, waits, and insists when it has not obeyed in time. */
static void end_child(pid_t pid)
{
	if (pid <= 0)
		return;

	wd_autoclose int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};

	kill(pid, SIGTERM);
	if (fd >= 0 && poll(&p, 1, STOP_TIMEOUT_MS) == 0)
		kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

void ctl_daemons_done(struct ctl_daemons *d, bool stop)
{
	if (stop) {
		end_child(d->keeper_pid);
		end_child(d->agent_pid);
		d->keeper_pid = d->agent_pid = 0;
	}
	close_pidfd(d);
	if (d->lock_fd >= 0)
		close(d->lock_fd);
	d->lock_fd = -1;
}
