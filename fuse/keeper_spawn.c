/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a root process to a server that can do nothing but serve.
 *
 * The empty network namespace is made once, for the keeper itself, which needs no network either:
 * AF_UNIX sockets with paths work across namespaces. Making one per server costs milliseconds of
 * every restart. Capabilities are dropped with the raw system calls, which saves a library.
 *
 * The program is opened before the privileges go, so that it may lie in a directory that the
 * server's uid cannot enter. There is no PDEATHSIG: a server outlives its keeper and serves on.
 */
#include "fuse/keeper_spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/proto.h"

#define STRING_OF(x) #x
#define STRING(x) STRING_OF(x)

#define SERVER_DATA_MAX (256u << 20) /* bytes of its own memory: an honest one takes a tenth */
#define SERVER_FILES_MAX 65536	     /* twice as many as its tables have inodes */
#define FD_SAFE 64 /* above the fixed numbers: where descriptors wait to be put in their places */

int spawn_isolate(struct wd_err *err)
{
	if (unshare(CLONE_NEWNET) < 0)
		return wd_err_sys(err, errno,
			"make an empty network namespace for the FUSE servers (needs "
			"CAP_SYS_ADMIN)");
	if (unshare(CLONE_NEWIPC) < 0)
		wd_warn("FUSE servers share the IPC namespace: %s", strerror(errno));
	return 0;
}

/* Ends the child with a reason. */
static void give_up(const char *what)
{
	wd_error("start a FUSE server: %s: %s", what, strerror(errno));
	_exit(errno == EACCES || errno == EPERM ? SPAWN_EXIT_FORBIDDEN : 127);
}

static void place_fds(const struct spawn *spawn, int program)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int moved[SERVER_FD_END];

	for (int i = SERVER_FD_FUSE; i < SERVER_FD_END; i++) {
		moved[i] = fcntl(spawn->is_trial ? null : spawn->fds[i - SERVER_FD_FUSE],
			F_DUPFD_CLOEXEC, FD_SAFE);
		if (moved[i] < 0)
			give_up("duplicate a descriptor");
	}
	for (int i = SERVER_FD_FUSE; i < SERVER_FD_END; i++)
		if (dup2(moved[i], i) < 0)
			give_up("place a descriptor");
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 ||
		dup2(spawn->is_trial ? null : STDERR_FILENO, STDOUT_FILENO) < 0)
		give_up("open /dev/null");
	/* marks, does not close: the program must stay open until it is executed */
	if (program < FD_SAFE ||
		syscall(SYS_close_range, SERVER_FD_END, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
		give_up("close the other descriptors");
}

static void set_limits(void)
{
	struct rlimit none = {0, 0}, files;

	setrlimit(RLIMIT_CORE, &none);
#if !defined(WD_SANITIZED) && !defined(WD_COVERAGE)
	setrlimit(RLIMIT_DATA, &(struct rlimit){SERVER_DATA_MAX, SERVER_DATA_MAX});
#endif
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		if (files.rlim_max > SERVER_FILES_MAX)
			files.rlim_max = SERVER_FILES_MAX;
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

static void drop_privileges(uid_t uid)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};

	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			give_up("drop a capability from the bounding set");
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
		give_up("change to the server's uid");
	if (syscall(SYS_capset, &header, none) < 0)
		give_up("drop the capabilities");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		give_up("set no_new_privs");
}

/* All that a server is told of the keeper's environment, which may hold anything. */
static char **server_environment(void)
{
	static const char *const kept[] = {"WARPDRIVE_LOG", "WARPDRIVE_LOG_FORMAT",
#ifdef WD_FAULTS
		"WARPDRIVE_FAULTS",
#endif
#ifdef WD_SANITIZED
		"ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS",
#endif
#ifdef WD_COVERAGE
		"GCOV_PREFIX", "GCOV_PREFIX_STRIP",
#endif
	};
	static char *env[sizeof(kept) / sizeof(kept[0]) + 1];
	unsigned n = 0;

	for (char **e = environ; *e; e++)
		for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
			size_t len = strlen(kept[i]);

			if (strncmp(*e, kept[i], len) == 0 && (*e)[len] == '=' &&
				n < sizeof(kept) / sizeof(kept[0]))
				env[n++] = *e;
		}
	env[n] = NULL;
	return env;
}

static void become_server(const struct spawn *spawn, int program)
{
	/* a server of protocol version 1 does not look at it */
	static char protocol[] = "--protocol=" STRING(WD_PROTO_VERSION);
	char *const argv[] = {"warpdrive-fuse", spawn->is_trial ? "--version" : protocol, NULL};
	sigset_t none;

	program = fcntl(program, F_DUPFD_CLOEXEC, FD_SAFE);
	place_fds(spawn, program);
	setsid();
	if (chdir("/") < 0)
		give_up("chdir to /");
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	set_limits();
	drop_privileges(spawn->uid);
	syscall(SYS_execveat, program, "", argv, server_environment(), AT_EMPTY_PATH);
	give_up(spawn->program < 0 ? spawn->path : "the server program of the agent");
}

int spawn_server(const struct spawn *spawn, pid_t *ret_pid, int *ret_pidfd, struct wd_err *err)
{
	wd_autoclose int program = spawn->program < 0
					   ? open(spawn->path, O_RDONLY | O_CLOEXEC)
					   : fcntl(spawn->program, F_DUPFD_CLOEXEC, 3);
	int pidfd;
	pid_t pid;

	if (program < 0)
		return wd_err_sys(err, errno, "start a FUSE server: open '%s'", spawn->path);
	pid = fork();
	if (pid < 0)
		return wd_err_sys(err, errno, "start a FUSE server: fork");
	if (pid == 0)
		become_server(spawn, program);
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0) {
		int code = errno;

		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		return wd_err_sys(err, code, "watch the FUSE server %d", (int)pid);
	}
	*ret_pid = pid;
	*ret_pidfd = pidfd;
	return 0;
}
