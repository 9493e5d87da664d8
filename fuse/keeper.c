/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warpdrive-keeper: the one privileged program. It mounts, registers files for passthrough on
 * behalf of the agent, starts the servers and replaces them when they die. It parses nothing that
 * comes from a network and links neither libfuse nor anything else but libc.
 */
#include "fuse/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/options.h"
#include "fuse/keeper_spawn.h"

#define LISTEN_AGAIN_NS 20000000
#define LISTEN_TRIES 50

static void on_signal(struct keeper *k, struct source *source)
{
	struct signalfd_siginfo info;

	if (read(source->fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGCHLD) {
		watch_children(k);
		return;
	}
	wd_info("stopping (signal %u)", info.ssi_signo);
	k->is_stopping = true;
	mounts_stop(k, false);
}

static void on_timer(struct keeper *k, struct source *source)
{
	uint64_t count;

	if (read(source->fd, &count, sizeof(count)) < 0)
		return; /* the work is done before every wait */
}

static int watch_signals(struct keeper *k, struct wd_err *err)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? wd_err_sys(err, errno, "signalfd")
		      : source_watch(k, &k->signals, fd, on_signal, err);
}

/* A keeper that was killed while it forked a server has a listener still, in its child's copies, until that
 * executes: a moment is given before a live one is believed in. */
static int listen_patiently(const char *path, struct wd_err *err)
{
	const struct timespec pause = {.tv_nsec = LISTEN_AGAIN_NS};
	int fd = wd_listen(path, err);

	for (int i = 0; fd == -EADDRINUSE && i < LISTEN_TRIES; i++) {
		nanosleep(&pause, NULL);
		fd = wd_listen(path, err);
	}
	return fd;
}

static int set_up(struct keeper *k, struct wd_err *err)
{
	struct rlimit files;
	char path[PATH_MAX];
	int fd, rc;

	prctl(PR_SET_DUMPABLE, 0);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	k->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (k->epoll_fd < 0)
		return wd_err_sys(err, errno, "epoll_create");
	rc = spawn_isolate(err);
	if (rc == 0)
		rc = watch_signals(k, err);
	if (rc < 0)
		return rc;
	fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (fd < 0 || source_watch(k, &k->timer, fd, on_timer, err) < 0)
		return wd_err_sys(err, errno, "timerfd_create");
	fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (fd < 0 || inotify_add_watch(fd, k->run_dir, IN_CREATE | IN_MOVED_TO) < 0)
		return wd_err_sys(err, errno, "watch the run directory '%s'", k->run_dir);
	rc = source_watch(k, &k->inotify, fd, agent_on_inotify, err);
	if (rc < 0)
		return rc;
	snprintf(path, sizeof(path), "%s/keeper.sock", k->run_dir);
	fd = listen_patiently(path, err);
	return fd < 0 ? fd : source_watch(k, &k->listener, fd, clients_accept, err);
}

/* ---- the command line ---- */

static const char *default_server(void)
{
	static char path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 32);
	char *slash;

	if (n <= 0)
		return "warpdrive-fuse";
	path[n] = '\0';
	slash = strrchr(path, '/');
	strcpy(slash ? slash + 1 : path, "warpdrive-fuse");
	return path;
}

#define AT(field) offsetof(struct keeper, field)
static const struct wd_option options[] = {
	{"run-dir", WD_OPTION_TEXT, AT(run_dir), "DIR", NULL,
		"where keeper.sock is made and agent.sock is expected", NULL},
	{"server", WD_OPTION_TEXT, AT(server_path), "PATH", NULL, "warpdrive-fuse (default: beside this program)", NULL},
	{"server-uid", WD_OPTION_NUMBER, AT(server_uid), "N", "65534", "uid and gid of the servers", NULL},
	{"read-ahead", WD_OPTION_SIZE, AT(read_ahead), "SIZE", "4MiB", "of every mount; 0: the kernel's", NULL},
	{"server-timeout", WD_OPTION_SPAN, AT(server_timeout_ns), "T", "30s",
		"a server that answers nothing for so long is replaced; the time\n"
		"doubles, up to 2m, for each in a row; 0: never", NULL},
	{"stopped-timeout", WD_OPTION_SPAN, AT(stopped_timeout_ns), "T", "100ms",
		"a server that is stopped (SIGSTOP) for so long is replaced;\n"
		"0: --server-timeout alone counts", NULL},
	{"give-up", WD_OPTION_SPAN, AT(give_up_ns), "T", "5m",
		"abort the connection of a mount, so that its readers get\n"
		"errors, when no server can be brought up for so long", NULL},
	{"no-resend", WD_OPTION_FLAG, AT(is_resend_off), NULL, NULL,
		"do as on a kernel before 6.9, which cannot send requests\nagain", NULL},
	{"exit-when-idle", WD_OPTION_FLAG, AT(is_exit_when_idle), NULL, NULL, "exit when the last mount is gone", NULL},
	{"ready-fd", WD_OPTION_NUMBER, AT(ready_fd), "N", NULL, "write a byte to descriptor N when listening", NULL},
	{0},
};
_Static_assert(sizeof(uid_t) == sizeof(int), "--server-uid is a number");

static const struct wd_command command = {
	.name = "warpdrive-keeper",
	.usage = "--run-dir DIR [options]",
	.about = "Mounts datasets for warpdrive-ctl and the CSI driver and keeps their FUSE servers\n"
		 "running. Needs root (CAP_SYS_ADMIN).\n",
	.more = "On SIGTERM it leaves when an agent, a CSI plugin or a supervisor has confirmed\n"
		"that it holds all mounts; their servers go on, and the next keeper takes them\n"
		"back. Without a holder it stays until SIGKILL; with --exit-when-idle it\n"
		"unmounts what is idle and stays for the rest.\n",
	.options = options,
};

static int bad_usage(const char *text)
{
	fprintf(stderr, "warpdrive-keeper: %s; see --help\n", text);
	return 2;
}

/* Returns -1 to go on, or an exit code. */
static int parse(int argc, char **argv, struct keeper *k)
{
	int rc = wd_options_parse(&command, argc, argv, k);

	if (rc >= 0)
		return rc;
	if (!k->run_dir)
		return bad_usage("--run-dir is missing");
	if (k->give_up_ns == 0)
		return bad_usage("--give-up takes a time like 5m, not '0'");
	if (k->ready_fd >= 0) /* servers are spawned before it is closed */
		fcntl(k->ready_fd, F_SETFD, FD_CLOEXEC);
	return -1;
}

int main(int argc, char **argv)
{
	static struct keeper keeper = {.epoll_fd = -1, .ready_fd = -1};
	struct keeper *k = &keeper;
	struct wd_err err = WD_ERR_INIT;
	char path[PATH_MAX];
	int rc;

	k->leave_asked = -1;
	k->listener.fd = k->signals.fd = k->timer.fd = k->inotify.fd = k->agent.fd = -1;
	k->server_path = default_server();
	wd_log_init("keeper");
	rc = parse(argc, argv, k);
	if (rc >= 0)
		return rc;
	mallopt(M_ARENA_MAX, 1);
	if (program_init(k, &err) < 0 || set_up(k, &err) < 0) {
		wd_error("%s", err.msg);
		return 1;
	}
	wd_info("keeper %s listens in '%s'", WD_VERSION, k->run_dir);
	wd_tell_ready(k->ready_fd);
	k->sweep_at_ns = 1;
	agent_connect(k, NULL); /* it may hold mounts of an earlier keeper */
	keeper_round(k, 0);
	while (!keeper_is_done(k))
		keeper_round(k, -1);
	snprintf(path, sizeof(path), "%s/keeper.sock", k->run_dir);
	unlink(path);
	clients_close(k);
	return 0;
}
