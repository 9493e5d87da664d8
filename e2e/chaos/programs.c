/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting, signalling and ending the programs under test. Two ways: the usual one, where this program starts
 * agent, keeper and perhaps csi and brings back what it killed, as a cluster does with containers; and
 * --holder supervisor, where `warpdrive-ctl mount` starts them and its supervisor brings them back.
 *
 * A pid from /proc is used only by way of a pidfd that was checked after it was opened: never is a stranger
 * killed that got the number of a process that has ended.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/proto.h"
#include "e2e/chaos/run.h"

#define READY_FD 3
#define WAIT_MS (CHAOS_WAIT_SECONDS * 1000)
#define TARGETS_MAX (CHAOS_MANY * ROLE_COUNT)

extern char **environ;

static const char *const names[ROLE_COUNT] = {
	[ROLE_KEEPER] = "keeper",
	[ROLE_AGENT] = "agent",
	[ROLE_SERVER] = "server",
	[ROLE_SUPERVISOR] = "supervisor",
	[ROLE_CSI] = "csi",
	[ROLE_ORIGIN] = "origin",
};

const char *role_name(enum role role)
{
	return role < ROLE_COUNT ? names[role] : "program";
}

static void short_pause(void)
{
	nanosleep(&(struct timespec){0, 2000000}, NULL); /* between two looks at what has no event */
}

/* ---- finding ---- */

size_t chaos_pids(struct chaos *c, enum role role, pid_t pids[CHAOS_MANY])
{
	struct process all[PROCESSES_MAX];
	size_t n = proc_descendants(all, PROCESSES_MAX), count = 0;

	for (size_t i = 0; i < n && count < CHAOS_MANY; i++)
		if (all[i].role == role && all[i].state != 'Z' && all[i].state != 'X')
			pids[count++] = all[i].pid;
	return count;
}

static bool is_there(struct chaos *c, enum role role, pid_t pid)
{
	pid_t pids[CHAOS_MANY];
	size_t n = chaos_pids(c, role, pids);

	for (size_t i = 0; i < n; i++)
		if (pids[i] == pid)
			return true;
	return false;
}

/* Waits until the role is filled. */
static size_t wait_for_pids(struct chaos *c, enum role role, pid_t pids[CHAOS_MANY])
{
	uint64_t end = stats_now_us() + WAIT_MS * 1000ULL;
	size_t n;

	while ((n = chaos_pids(c, role, pids)) == 0 && stats_now_us() < end)
		short_pause();
	return n;
}

struct target {
	pid_t pid;
	int pidfd;
	enum role role;
};

/* Appends pidfds of all that live in the role. */
static int find_targets(struct chaos *c, enum role role, struct target *out, size_t *n, struct wd_err *err)
{
	pid_t pids[CHAOS_MANY];
	size_t count = wait_for_pids(c, role, pids);

	if (count == 0)
		return wd_err_set(err, ESRCH, "no %s came in %d s", role_name(role), CHAOS_WAIT_SECONDS);
	for (size_t i = 0; i < count; i++) {
		int fd = (int)syscall(SYS_pidfd_open, pids[i], 0);

		if (fd >= 0 && is_there(c, role, pids[i]))
			out[(*n)++] = (struct target){pids[i], fd, role};
		else if (fd >= 0)
			close(fd);
	}
	return 0;
}

static void close_targets(struct target *t, size_t n)
{
	for (size_t i = 0; i < n; i++)
		close(t[i].pidfd);
}

/* ---- signals ---- */

int chaos_signal(struct chaos *c, enum role role, int sig, struct wd_err *err)
{
	struct target targets[TARGETS_MAX];
	size_t n = 0;
	int rc = find_targets(c, role, targets, &n, err);

	for (size_t i = 0; i < n; i++)
		syscall(SYS_pidfd_send_signal, targets[i].pidfd, sig, NULL, 0);
	close_targets(targets, n);
	return rc;
}

/* A child of ours is reaped, so that nobody finds its zombie. One that was told to end exits with 0. */
static void forget(struct chaos *c, pid_t pid)
{
	int status;

	for (int role = 0; role < ROLE_COUNT; role++) {
		if (atomic_load(&c->programs[role].pid) != pid)
			continue;
		atomic_store(&c->programs[role].pid, 0);
		if (waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) != 0)
			chaos_error(c, "the %s exited with status %d; see its log in '%s'",
				role_name((enum role)role), WEXITSTATUS(status), c->run);
	}
}

static int wait_dead(struct chaos *c, pid_t pid, int pidfd, struct wd_err *err)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	int rc;

	do
		rc = poll(&p, 1, WAIT_MS);
	while (rc < 0 && errno == EINTR);
	if (rc > 0) {
		forget(c, pid);
		return 0;
	}
	proc_print_stack(pid, pid);
	return wd_err_set(err, ETIMEDOUT, "process %d has not ended in %d s", (int)pid, CHAOS_WAIT_SECONDS);
}

int chaos_wait_gone(struct chaos *c, pid_t pid, struct wd_err *err)
{
	wd_autoclose int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 ? 0 : wait_dead(c, pid, fd, err);
}

int chaos_kill_all(struct chaos *c, const enum role *roles, int sig, struct wd_err *err)
{
	struct target targets[TARGETS_MAX];
	size_t n = 0;
	int rc = 0;

	for (; *roles != ROLE_COUNT && rc == 0; roles++) {
		rc = find_targets(c, *roles, targets, &n, err);
		c->programs[*roles].is_down = rc == 0;
	}
	for (size_t i = 0; i < n && rc == 0; i++)
		syscall(SYS_pidfd_send_signal, targets[i].pidfd, sig, NULL, 0);
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = wait_dead(c, targets[i].pid, targets[i].pidfd, err);
	close_targets(targets, n);
	if (rc < 0)
		wd_err_wrap(err, "signal %d", sig);
	return rc;
}

int chaos_kill(struct chaos *c, enum role role, int sig, struct wd_err *err)
{
	enum role roles[] = {role, ROLE_COUNT};

	return chaos_kill_all(c, roles, sig, err);
}

/* ---- starting ---- */

/* Returns 0 when the byte came. */
static int wait_ready(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char byte;
	int rc;

	do
		rc = poll(&p, 1, WAIT_MS);
	while (rc < 0 && errno == EINTR);
	return rc > 0 && read(fd, &byte, 1) == 1 ? 0 : -ECHILD;
}

static int spawn_with(const char *const *argv, int log_fd, int ready_fd, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none;
	int code;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, log_fd, 1);
	posix_spawn_file_actions_adddup2(&actions, log_fd, 2);
	if (ready_fd >= 0)
		posix_spawn_file_actions_adddup2(&actions, ready_fd, READY_FD);
	posix_spawnattr_init(&attr);
	sigemptyset(&none);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
	code = posix_spawnp(ret_pid, argv[0], &actions, &attr, (char *const *)argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return -code;
}

pid_t program_spawn(
	struct chaos *c, const char *const *argv, const char *log, bool has_ready, struct wd_err *err)
{
	const char *full[2 * ARGUMENTS_MAX + 16];
	char path[CHAOS_PATH + 32];
	wd_autoclose int log_fd = -1, ours = -1;
	int pipe_fds[2], n = 0, rc;
	pid_t pid = 0;

	for (; argv[n]; n++)
		full[n] = argv[n];
	if (has_ready) {
		full[n++] = "--ready-fd";
		full[n++] = "3";
	}
	full[n] = NULL;
	snprintf(path, sizeof(path), "%s/%s", c->run, log);
	log_fd = open(path, O_CREAT | O_APPEND | O_WRONLY | O_CLOEXEC, 0644);
	if (log_fd < 0 || pipe2(pipe_fds, O_CLOEXEC) < 0)
		return wd_err_sys(err, errno, "start '%s' with its log in '%s'", argv[0], path);
	ours = pipe_fds[0];
	rc = spawn_with(full, log_fd, has_ready ? pipe_fds[1] : -1, &pid);
	close(pipe_fds[1]);
	if (rc < 0)
		return wd_err_sys(err, -rc, "start '%s'", argv[0]);
	if (!has_ready || wait_ready(ours) == 0)
		return pid;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return wd_err_set(err, ECHILD, "'%s' did not start; see '%s'", argv[0], path);
}

enum role chaos_holder(const struct chaos *c)
{
	static const enum role roles[] = {
		[HOLDER_NONE] = ROLE_COUNT, [HOLDER_SUPERVISOR] = ROLE_SUPERVISOR, [HOLDER_CSI] = ROLE_CSI};

	return roles[c->options.holder];
}

static bool is_supervised(const struct chaos *c, enum role role)
{
	return c->options.holder == HOLDER_SUPERVISOR && (role == ROLE_AGENT || role == ROLE_KEEPER);
}

static const char *bin_of(const struct chaos *c, enum role role)
{
	return c->programs[role].is_other ? c->options.other_bin : c->options.bin;
}

static int start_daemon(struct chaos *c, enum role role, struct wd_err *err)
{
	const char *argv[2 * ARGUMENTS_MAX] = {NULL, "--run-dir", c->run};
	const char *const *more = role == ROLE_AGENT ? c->agent_arguments : c->keeper_arguments;
	char program[CHAOS_PATH + 32], endpoint[CHAOS_PATH + 32], log[64];
	pid_t pid;
	int n = 3;

	snprintf(program, sizeof(program), "%s/warpdrive-%s", bin_of(c, role), role_name(role));
	snprintf(endpoint, sizeof(endpoint), "%s/csi.sock", c->dir);
	snprintf(log, sizeof(log), "%s.log", role_name(role));
	argv[0] = program;
	if (role == ROLE_AGENT) {
		argv[n++] = "--cache-dir";
		argv[n++] = c->cache;
	}
	if (role == ROLE_CSI) {
		argv[n++] = "--endpoint";
		argv[n++] = endpoint;
		argv[n++] = "--kubelet-dir";
		argv[n++] = c->dir;
	}
	while (role != ROLE_CSI && *more)
		argv[n++] = *more++;
	argv[n] = NULL;
	pid = program_spawn(c, argv, log, true, err);
	if (pid < 0)
		return pid;
	atomic_store(&c->programs[role].pid, pid);
	return 0;
}

/* Waits until it is there and lets somebody in. */
static int wait_for_daemon(struct chaos *c, enum role role, struct wd_err *err)
{
	uint64_t end = stats_now_us() + WAIT_MS * 1000ULL;
	char path[CHAOS_PATH + 32];
	pid_t pids[CHAOS_MANY];
	int fd = -1;

	snprintf(path, sizeof(path), "%s/%s.sock", c->run, role_name(role));
	while (stats_now_us() < end) {
		if (chaos_pids(c, role, pids) > 0)
			fd = role == ROLE_SUPERVISOR ? 0 : wd_client_connect(path, WD_ROLE_CTL, err);
		if (fd > 0)
			close(fd);
		if (fd >= 0)
			return 0;
		short_pause();
	}
	return wd_err_set(err, ETIMEDOUT, "no %s came back in %d s", role_name(role), CHAOS_WAIT_SECONDS);
}

/* As an administrator does who has installed another release: the daemons go on meanwhile. */
static int start_supervisor(struct chaos *c, struct wd_err *err)
{
	char program[CHAOS_PATH + 32];
	const char *const argv[] = {program, "supervise", "--run-dir", c->run, NULL};
	pid_t pids[CHAOS_MANY], pid;

	if (chaos_pids(c, ROLE_SUPERVISOR, pids) > 0)
		return 0; /* `warpdrive-ctl mount` has started one */
	snprintf(program, sizeof(program), "%s/warpdrive-ctl", bin_of(c, ROLE_SUPERVISOR));
	pid = program_spawn(c, argv, "supervisor.log", false, err);
	return pid < 0 ? pid : 0;
}

static bool has_mount(struct chaos *c, enum role role)
{
	pid_t pids[CHAOS_MANY];

	return chaos_pids(c, role, pids) == 1 && proc_has_open(pids[0], "/dev/fuse");
}

int chaos_wait_held(struct chaos *c, struct wd_err *err)
{
	const enum role roles[] = {ROLE_KEEPER, ROLE_AGENT, chaos_holder(c)};
	uint64_t end = stats_now_us() + WAIT_MS * 1000ULL;

	for (size_t i = 0; i < 3; i++)
		while (roles[i] != ROLE_COUNT && !has_mount(c, roles[i])) {
			if (stats_now_us() >= end)
				return wd_err_set(err, ETIMEDOUT, "the %s does not hold the mount after %d s",
					role_name(roles[i]), CHAOS_WAIT_SECONDS);
			short_pause();
		}
	return 0;
}

int chaos_start(struct chaos *c, enum role role, struct wd_err *err)
{
	int rc = 0;

	if (role == ROLE_SUPERVISOR)
		rc = start_supervisor(c, err);
	if (rc < 0)
		return rc;
	if (role == ROLE_ORIGIN)
		rc = origin_start(c, err);
	else if (role == ROLE_SUPERVISOR || is_supervised(c, role))
		rc = wait_for_daemon(c, role, err);
	else if (atomic_load(&c->programs[role].pid))
		rc = 0;
	else
		rc = start_daemon(c, role, err);
	if (rc == 0)
		c->programs[role].is_down = false;
	return rc;
}

void chaos_use_other_bin(struct chaos *c, enum role role, bool is_other)
{
	c->programs[role].is_other = is_other;
}

int chaos_ctl(struct chaos *c, const char *const *arguments)
{
	const char *argv[2 * ARGUMENTS_MAX + 16];
	char program[CHAOS_PATH + 32];
	struct wd_err err = WD_ERR_INIT;
	int n = 0, status = 0;
	pid_t pid;

	snprintf(program, sizeof(program), "%s/warpdrive-ctl", c->options.bin);
	argv[n++] = program;
	while (*arguments && n < 2 * ARGUMENTS_MAX + 15)
		argv[n++] = *arguments++;
	argv[n] = NULL;
	pid = program_spawn(c, argv, "ctl.txt", false, &err);
	if (pid < 0)
		return 128;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* ---- the run's beginning and end ---- */

int programs_mount(struct chaos *c, struct wd_err *err)
{
	const char *arguments[2 * ARGUMENTS_MAX + 8], *const *more;
	int n = 0, rc = 0;

	setenv("WARPDRIVE_RUN_DIR", c->run, 1);
	setenv("WARPDRIVE_CACHE_DIR", c->cache, 1);
	arguments[n++] = "mount";
	arguments[n++] = c->url;
	arguments[n++] = c->mount;
	arguments[n++] = "-o";
	arguments[n++] = c->mount_options;
	if (c->options.holder == HOLDER_SUPERVISOR) {
		for (more = c->agent_arguments; *more; more++)
			arguments[n++] = *more;
		for (more = c->keeper_arguments; *more; more++)
			arguments[n++] = *more;
	} else {
		rc = chaos_start(c, ROLE_AGENT, err);
		if (rc == 0)
			rc = chaos_start(c, ROLE_KEEPER, err);
		if (rc == 0 && c->options.holder == HOLDER_CSI)
			rc = chaos_start(c, ROLE_CSI, err);
	}
	arguments[n] = NULL;
	if (rc == 0 && chaos_ctl(c, arguments) != 0)
		rc = wd_err_set(err, EIO, "warpdrive-ctl mount failed; see '%s/ctl.txt'", c->run);
	c->connection = proc_mount_minor(c->mount);
	return rc;
}

int programs_umount(struct chaos *c, struct wd_err *err)
{
	const char *const arguments[] = {"umount", c->mount, NULL};

	return chaos_ctl(c, arguments) == 0
		? 0
		: wd_err_set(err, EIO, "warpdrive-ctl umount failed; see '%s/ctl.txt'", c->run);
}

int programs_stop(struct chaos *c, struct wd_err *err)
{
	/* keeper before agent: that is how its servers end; supervised ones end by themselves, the supervisor last */
	static const enum role order[] = {ROLE_CSI, ROLE_KEEPER, ROLE_AGENT, ROLE_SUPERVISOR, ROLE_ORIGIN};
	int rc = 0;

	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
		pid_t pids[CHAOS_MANY];
		size_t n = chaos_pids(c, order[i], pids);

		c->programs[order[i]].is_down = true;
		for (size_t k = 0; k < n; k++) {
			if (c->options.holder != HOLDER_SUPERVISOR || order[i] == ROLE_ORIGIN)
				kill(pids[k], SIGTERM);
			if (chaos_wait_gone(c, pids[k], err) < 0)
				rc = wd_err_wrap(err, "end the %s", role_name(order[i]));
		}
	}
	programs_watch(c);
	return rc;
}

static void check_daemon(struct chaos *c, enum role role)
{
	struct program *p = &c->programs[role];
	pid_t pid = atomic_load(&p->pid);
	struct wd_err err = WD_ERR_INIT;
	int status = 0;

	if (pid <= 0 || p->is_down || waitpid(pid, &status, WNOHANG) != pid)
		return;
	atomic_store(&p->pid, 0);
	if (WIFSIGNALED(status))
		chaos_error(c, "the %s died of signal %d untold; see its log in '%s'", role_name(role),
			WTERMSIG(status), c->run);
	else
		chaos_error(c, "the %s exited with status %d untold; see its log in '%s'", role_name(role),
			WEXITSTATUS(status), c->run);
	if (chaos_start(c, role, &err) < 0)
		chaos_error(c, "%s", err.msg);
}

/* By the name of a dead process, of which there is no command line: a server that was executed from a memfd has its. */
static bool is_warpdrive(const char *name)
{
	return strncmp(name, "warpdrive-", 10) == 0 || strncmp(name, "memfd:warpdrive", 15) == 0;
}

/* What was left to us as the next of kin: servers of a dead keeper, daemons that ctl started. */
static void reap_orphans(struct chaos *c)
{
	struct process all[PROCESSES_MAX];
	size_t n = proc_descendants(all, PROCESSES_MAX);

	for (size_t i = 0; i < n; i++) {
		bool is_ours = false;

		for (int role = 0; role < ROLE_COUNT; role++)
			is_ours |= atomic_load(&c->programs[role].pid) == all[i].pid;
		/* the load reaps its own readers */
		if (all[i].parent == getpid() && all[i].state == 'Z' && !is_ours &&
			is_warpdrive(all[i].name))
			waitpid(all[i].pid, NULL, WNOHANG);
	}
}

void programs_watch(struct chaos *c)
{
	check_daemon(c, ROLE_AGENT);
	check_daemon(c, ROLE_KEEPER);
	check_daemon(c, ROLE_CSI);
	check_daemon(c, ROLE_ORIGIN);
	reap_orphans(c);
}
