/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `warpdrive-ctl supervise`: looks after a private agent and keeper, and is a holder of their mounts
 * (common/hold.h). One thread, one poll.
 *
 *	DOWN -- start --> STARTING -- its byte on the ready pipe --> UP
 *	  ^                   |                                       |
 *	  +------ reaped -----+---------------- reaped ---------------+
 *	UP -- asked for, and its socket refuses --> ENDING -- reaped --> DOWN
 *
 * What it found running when it started (the supervisor before it was killed) is watched by pidfd.
 * It wants both daemons to run until the keeper ends of itself with nothing mounted, and ends when
 * both have. `mount` asks it (START) and is answered when both run. It may be killed: the daemons
 * go on, and the next `mount` starts another, since the file of its socket is still there.
 *
 * It is a subreaper: servers whose keeper was killed are reaped here.
 */
#include "warm-job/ctl_supervise.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/hold_client.h"
#include "common/lock.h"
#include "common/log.h"
#include "common/options.h"
#include "common/proto.h"
#include "warm-job/ctl.h"
#include "warm-job/ctl_daemons.h"
#include "warm-job/ctl_spawn.h"
#include "warm-job/ctl_supervise_args.h"

#define MS 1000000LL
#define GIVE_UP_NS (300000 * MS)
#define YOUNG_NS (10000 * MS) /* a daemon that died before this age died young */
#define BACKOFF_MIN_NS (50 * MS)
#define BACKOFF_MAX_NS (10000 * MS)
#define BACKOFF_KILLED_NS (200 * MS) /* at most, when somebody killed it */
#define CLEAN_NS (100 * MS)	     /* an agent that ends idle is followed by its keeper */
#define END_NS (120000 * MS)	     /* patience with one whose socket is closed already */
#define EXPECT_NS (30000 * MS)	     /* from our start by `mount` to its asking */
#define ASKERS_MAX 16

enum state { DOWN, STARTING, UP, ENDING };

struct daemon {
	const char *name, *socket, *log;
	struct supervise_args args;
	enum state state;
	struct ctl_spawned spawned; /* pid 0: not our child */
	int pidfd;		    /* of one that is not our child */
	pid_t pid;
	bool is_heard; /* the keeper: it has said what is mounted */
	unsigned crashes; /* young, in a row */
	int64_t started_at_ns, start_at_ns, kill_at_ns; /* 0: not set */
};

enum { AGENT, KEEPER, DAEMONS };

static struct {
	const char *run_dir;
	char path[108];
	struct daemon daemons[DAEMONS];
	struct wd_hold_client client;
	int listener, signals;
	int askers[ASKERS_MAX]; /* -1: free */
	bool is_waiting[ASKERS_MAX];
	uint64_t asked_id[ASKERS_MAX];
	bool is_wanted, is_leaving;
	int64_t expect_until_ns; /* who started us is about to ask; 0: has, or never will */
	struct wd_msg msg;
} s = {.listener = -1, .signals = -1};

/* ---- who asks ---- */

static void answer(int i, const struct wd_err *err)
{
	s.is_waiting[i] = false;
	wd_msg_start_reply(&s.msg, WD_MSG_START, s.asked_id[i], err ? -err->code : 0);
	if (err)
		wd_put_str(&s.msg, err->msg);
	wd_msg_send(s.askers[i], &s.msg, MSG_DONTWAIT);
}

static void answer_all(const struct wd_err *err)
{
	for (int i = 0; i < ASKERS_MAX; i++)
		if (s.askers[i] >= 0 && s.is_waiting[i])
			answer(i, err);
}

static bool is_asked(void)
{
	for (int i = 0; i < ASKERS_MAX; i++)
		if (s.askers[i] >= 0 && s.is_waiting[i])
			return true;
	return false;
}

static unsigned held(void)
{
	return s.client.hold.count;
}

/* Who leaves still brings up the keeper that it leaves the mounts to. When nothing is mounted yet the
 * agent comes first: most of what is set up wrongly shows there. */
static bool is_to_run(const struct daemon *d)
{
	if (held() > 0)
		return true;
	/* an agent that was told to end while it holds mounts waits for a keeper to leave them to */
	return s.is_wanted && !s.is_leaving &&
	       (d == &s.daemons[AGENT] || s.daemons[AGENT].state == UP || s.daemons[AGENT].state == ENDING);
}

/* What the keeper says. */
static void hear(void)
{
	wd_hold_client_run(&s.client);
	if (s.client.hold.is_reconciled)
		s.daemons[KEEPER].is_heard = true;
}

/* ---- daemons ---- */

static int connect_to(const char *name, pid_t *ret_pid)
{
	wd_autoclose int sock =
		socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct ucred peer = {.pid = 0};
	socklen_t len = sizeof(peer);

	if (sock < 0 || ctl_run_path(s.run_dir, name, addr.sun_path, NULL) < 0)
		return -EINVAL;
	if (connect(sock, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
		return -errno;
	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return -errno;
	*ret_pid = peer.pid;
	return 0;
}

/* One that runs already. */
static bool find_running(struct daemon *d)
{
	pid_t pid = 0;

	if (connect_to(d->socket, &pid) < 0 || pid <= 0)
		return false;
	d->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (d->pidfd < 0)
		return false;
	d->pid = pid;
	d->is_heard = false;
	d->state = UP;
	d->started_at_ns = wd_now_ns();
	wd_info("%s (%d) runs already", d->name, (int)pid);
	return true;
}

static void start(struct daemon *d)
{
	struct wd_err err = WD_ERR_INIT;

	d->start_at_ns = 0;
	if (ctl_spawn(d->args.argv, s.run_dir, d->log, &d->spawned, &err) < 0) {
		wd_error("%s", err.msg);
		answer_all(&err);
		d->crashes++;
		d->start_at_ns = wd_now_ns() + BACKOFF_MAX_NS;
		return;
	}
	d->pid = d->spawned.pid;
	d->is_heard = false;
	d->state = STARTING;
	d->started_at_ns = wd_now_ns();
	wd_info("started %s (%d)", d->name, (int)d->pid);
}

static void close_ready(struct daemon *d)
{
	if (d->spawned.ready_fd >= 0)
		close(d->spawned.ready_fd);
	d->spawned.ready_fd = -1;
}

static void on_ready(struct daemon *d)
{
	char byte;
	ssize_t n = read(d->spawned.ready_fd, &byte, 1);

	if (n < 0)
		return;
	close_ready(d);
	if (n == 1)
		d->state = d->state == STARTING ? UP : d->state;
	else /* it is dying, or useless alive */
		kill(d->pid, SIGTERM);
}

static int64_t backoff(struct daemon *d, int status)
{
	bool is_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
	int64_t delay = BACKOFF_MIN_NS;

	if (wd_now_ns() - d->started_at_ns >= YOUNG_NS)
		d->crashes = 0;
	if (++d->crashes <= 2)
		return 0;
	for (unsigned i = 3; i < d->crashes && delay < BACKOFF_MAX_NS; i++)
		delay *= 2;
	if (is_killed && delay > BACKOFF_KILLED_NS)
		return BACKOFF_KILLED_NS;
	return delay < BACKOFF_MAX_NS ? delay : BACKOFF_MAX_NS;
}

/* It is dead; status is unknown (-1) for one that was not our child. */
static void on_death(struct daemon *d, int status)
{
	bool was_starting = d->state == STARTING, is_clean;
	struct wd_err err = WD_ERR_INIT;

	/* what the keeper still said comes first: it may be that nothing is held any more. One that died before it
	 * said anything may have mounts: then the agent has them, and waits for the next keeper */
	hear();
	is_clean = status == 0 || (status == -1 && held() == 0 && s.daemons[KEEPER].is_heard);
	close_ready(d);
	if (d->pidfd >= 0)
		close(d->pidfd);
	d->pidfd = -1;
	d->pid = 0;
	d->kill_at_ns = 0;
	d->state = DOWN;
	if (was_starting) {
		ctl_spawn_describe_death(d->name, &d->spawned, status, &err);
		wd_error("%s", err.msg);
		answer_all(&err);
	} else if (!is_clean) {
		wd_warn("%s ended unexpectedly (status %#x)", d->name, (unsigned)status);
	}
	if (held() > 0 || is_asked()) {
		d->start_at_ns = wd_now_ns() + (is_clean ? 0 : backoff(d, status));
		return;
	}
	if (was_starting || (is_clean && d == &s.daemons[KEEPER]))
		s.is_wanted = false;
	d->start_at_ns = wd_now_ns() + (is_clean ? CLEAN_NS : backoff(d, status));
}

static void reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (int i = 0; i < DAEMONS; i++)
			if (s.daemons[i].pid == pid && s.daemons[i].pidfd < 0)
				on_death(&s.daemons[i], status);
}

/* Asked for, it must listen: one that does not is on its way out. */
static void look(struct daemon *d)
{
	pid_t pid;
	int r = d->state == UP ? connect_to(d->socket, &pid) : 0;

	if (r == -ENOENT || r == -ECONNREFUSED) {
		d->state = ENDING;
		d->kill_at_ns = wd_now_ns() + END_NS;
	}
}

/* Brings about what is wanted; true when all is over. */
static bool settle(void)
{
	int64_t now = wd_now_ns();
	bool is_down = true, is_up = true;

	if (held() > 0 || is_asked())
		s.is_wanted = true;
	for (int i = 0; i < DAEMONS; i++) {
		struct daemon *d = &s.daemons[i];

		if (d->state == DOWN && is_to_run(d) && now >= d->start_at_ns)
			start(d);
		if (d->kill_at_ns && now >= d->kill_at_ns) {
			wd_error("%s (%d) does not come to its end and is killed", d->name,
				(int)d->pid);
			kill(d->pid, SIGKILL);
			d->kill_at_ns = 0;
		}
		if (!s.is_wanted && (d->state == UP || d->state == STARTING)) {
			kill(d->pid, SIGTERM); /* with nothing mounted it ends at once */
			d->state = ENDING;
		}
		is_down &= d->state == DOWN;
		is_up &= d->state == UP;
	}
	if (is_up)
		answer_all(NULL);
	if (s.is_leaving)
		return wd_hold_may_leave(&s.client.hold);
	return is_down && !s.is_wanted && now >= s.expect_until_ns;
}

/* ---- events ---- */

static void on_signal(void)
{
	struct signalfd_siginfo info;

	while (read(s.signals, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGCHLD)
			continue;
		wd_info("ending (signal %u); agent and keeper go on", info.ssi_signo);
		s.is_leaving = true;
		wd_hold_leave(&s.client.hold);
	}
}

static void on_asker(int i)
{
	int rc = wd_msg_recv(s.askers[i], &s.msg, MSG_DONTWAIT);
	struct wd_rd r;
	uint32_t version;

	if (rc == -EAGAIN)
		return;
	if (rc > 0)
		wd_msg_close_fds(&s.msg);
	if (rc > 0 && s.msg.type == WD_MSG_HELLO) {
		r = wd_rd_start(&s.msg);
		version = wd_rd_u32(&r);
		wd_msg_start_reply(&s.msg, WD_MSG_HELLO, s.msg.id, 0);
		wd_put_u32(&s.msg, version < WD_PROTO_VERSION ? version : WD_PROTO_VERSION);
		wd_put_str(&s.msg, WD_VERSION);
		rc = wd_msg_send(s.askers[i], &s.msg, MSG_DONTWAIT) == 0 ? 1 : -EPIPE;
	} else if (rc > 0 && s.msg.type == WD_MSG_START) {
		s.expect_until_ns = 0;
		s.is_waiting[i] = true;
		s.asked_id[i] = s.msg.id;
		for (int n = 0; n < DAEMONS; n++) {
			s.daemons[n].start_at_ns = 0;
			look(&s.daemons[n]);
		}
	} else {
		rc = -EPROTO;
	}
	if (rc > 0)
		return;
	close(s.askers[i]);
	s.askers[i] = -1;
	s.is_waiting[i] = false;
}

static void on_listener(void)
{
	int sock = accept4(s.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), i = 0;

	while (i < ASKERS_MAX && s.askers[i] >= 0)
		i++;
	if (sock >= 0 && i < ASKERS_MAX)
		s.askers[i] = sock;
	else if (sock >= 0)
		close(sock);
}

static int timeout_ms(void)
{
	int64_t next = INT64_MAX, now = wd_now_ns();

	for (int i = 0; i < DAEMONS; i++) {
		const struct daemon *d = &s.daemons[i];

		if (d->state == DOWN && is_to_run(d) && d->start_at_ns < next)
			next = d->start_at_ns;
		if (d->kill_at_ns && d->kill_at_ns < next)
			next = d->kill_at_ns;
	}
	if (s.expect_until_ns && s.expect_until_ns < next)
		next = s.expect_until_ns;
	if (next == INT64_MAX)
		return -1;
	return next <= now ? 0 : (int)((next - now) / MS) + 1;
}

static void wait_for_events(void)
{
	struct pollfd fds[3 + 2 * DAEMONS + ASKERS_MAX];
	int n = 0;

	fds[n++] = (struct pollfd){.fd = s.signals, .events = POLLIN};
	fds[n++] = (struct pollfd){.fd = s.listener, .events = POLLIN};
	fds[n++] = (struct pollfd){.fd = wd_hold_client_fd(&s.client), .events = POLLIN};
	for (int i = 0; i < DAEMONS; i++) {
		fds[n++] = (struct pollfd){.fd = s.daemons[i].pidfd, .events = POLLIN};
		fds[n++] = (struct pollfd){.fd = s.daemons[i].spawned.ready_fd, .events = POLLIN};
	}
	for (int i = 0; i < ASKERS_MAX; i++)
		fds[n++] = (struct pollfd){.fd = s.askers[i], .events = POLLIN};
	if (poll(fds, (nfds_t)n, timeout_ms()) < 0)
		return;
	if (fds[2].revents)
		hear();
	for (int i = 0; i < DAEMONS; i++) {
		if (fds[4 + 2 * i].revents)
			on_ready(&s.daemons[i]);
		if (fds[3 + 2 * i].revents)
			on_death(&s.daemons[i], -1);
	}
	if (fds[0].revents)
		on_signal();
	reap();
	for (int i = 0; i < ASKERS_MAX; i++)
		if (fds[3 + 2 * DAEMONS + i].revents)
			on_asker(i);
	if (fds[1].revents)
		on_listener();
}

/* ---- start and end ---- */

static int set_up(struct wd_err *err)
{
	sigset_t set;
	bool is_successor;
	int r = ctl_run_path(s.run_dir, "supervisor.sock", s.path, err);

	if (r < 0)
		return r;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_DUMPABLE, 0); /* it holds descriptions, with credentials in them */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	for (int i = 0; i < ASKERS_MAX; i++)
		s.askers[i] = -1;
	s.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s.signals < 0)
		return wd_err_sys(err, errno, "signalfd");
	/* the file of its socket: there was one, and it was killed */
	is_successor = access(s.path, F_OK) == 0;
	s.listener = wd_listen(s.path, err);
	if (s.listener < 0)
		return s.listener;
	if (is_successor)
		supervise_args_load(s.run_dir, &s.daemons[AGENT].args, &s.daemons[KEEPER].args);
	else
		supervise_args_save(s.run_dir, &s.daemons[AGENT].args, &s.daemons[KEEPER].args);
	s.client.hold.give_up_ns = GIVE_UP_NS;
	return wd_hold_client_start(&s.client, s.run_dir, WD_ROLE_SUPERVISOR, err);
}

static enum ctl_exit run(int ready_fd)
{
	struct wd_err err = WD_ERR_INIT;

	wd_log_init("supervisor");
	if (set_up(&err) < 0) {
		wd_error("%s", err.msg);
		wd_hold_client_stop(&s.client);
		return CTL_FAILED;
	}
	s.is_wanted = ready_fd < 0; /* else somebody is about to ask, and wants to be told of failures */
	for (int i = 0; i < DAEMONS; i++)
		s.is_wanted |= find_running(&s.daemons[i]);
	if (ready_fd >= 0)
		s.expect_until_ns = wd_now_ns() + EXPECT_NS;
	wd_tell_ready(ready_fd);
	while (!settle())
		wait_for_events();
	/* the file stays when daemons go on without us: it tells the next `mount` whose they are */
	if (!s.is_leaving)
		unlink(s.path);
	close(s.listener);
	wd_hold_client_stop(&s.client);
	return CTL_DONE;
}

/* ---- the command line ---- */

static const struct option long_options[] = {
	{"help", no_argument, NULL, 'h'},
	{"run-dir", required_argument, NULL, 'r'},
	{"agent-arg", required_argument, NULL, 'a'},
	{"keeper-arg", required_argument, NULL, 'k'},
	{"ready-fd", required_argument, NULL, 'f'},
	{NULL, 0, NULL, 0},
};

enum ctl_exit ctl_supervise(const struct ctl_command *self, int argc, char **argv)
{
	struct daemon *agent = &s.daemons[AGENT], *keeper = &s.daemons[KEEPER];
	const char *run_dir = NULL;
	int c, ready_fd = -1;
	bool fits = true;

	*agent = (struct daemon){.name = "warpdrive-agent",
		.socket = "agent.sock",
		.log = "agent.log",
		.args = {{"warpdrive-agent", "--run-dir", ".", "--exit-when-idle"}}};
	*keeper = (struct daemon){.name = "warpdrive-keeper",
		.socket = "keeper.sock",
		.log = "keeper.log",
		.args = {{"warpdrive-keeper", "--run-dir", ".", "--exit-when-idle"}}};
	agent->pidfd = keeper->pidfd = agent->spawned.ready_fd = keeper->spawned.ready_fd = -1;
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":h", long_options, NULL)) != -1) {
		switch (c) {
		case 'h':
			return ctl_print_help(self);
		case 'r':
			run_dir = optarg;
			break;
		case 'a':
			fits = fits && supervise_args_add(&agent->args, optarg);
			break;
		case 'k':
			fits = fits && supervise_args_add(&keeper->args, optarg);
			break;
		case 'f':
			ready_fd = atoi(optarg);
			break;
		case ':':
			return ctl_usage(self, "'%.20s' needs a value", argv[optind - 1]);
		default:
			return ctl_usage(self, "unknown option '%.20s'", argv[optind - 1]);
		}
	}
	if (optind != argc)
		return ctl_usage(self, "unexpected argument '%s'", argv[optind]);
	if (!fits)
		return ctl_usage(self, "too many arguments for a daemon");
	s.run_dir = agent->args.argv[2] = keeper->args.argv[2] = ctl_run_dir(run_dir);
	return run(ready_fd);
}
