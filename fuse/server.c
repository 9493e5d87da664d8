/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warpdrive-fuse: serves one mount whose fuse fd, memfds and sockets the keeper has put in place
 * (keeper_spawn.h). It holds no state that is not in the tables memfd: it may be killed at any
 * instant, and the next one goes on. So it never unmounts anything, and it ends by _exit.
 *
 * libfuse is attached to a connection that has long said INIT: for a moment a socket pair lies
 * under the number of the fuse fd, the INIT request that the keeper kept is replayed into the
 * session with its flags cut down to what the kernel was granted, the answer is read from the pair
 * and checked to want no more than that, and the fuse fd takes its number back.
 */
#include "fuse/server.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/deposit.h"
#include "common/fault.h"
#include "common/log.h"
#include "fuse/fuse_abi.h"
#include "fuse/keeper_spawn.h"

#ifdef WD_SANITIZED
#define STACK_BYTES (1024 * 1024)
#else
#define STACK_BYTES (128 * 1024)
#endif
#define FD_ASIDE 16    /* where the real fuse fd waits during the replay */
#define IDLE_SECONDS 1 /* without a request, until memory is given back */
#define FDS_KEPT 64    /* descriptors that are not for cache files */
#define SLOW_MS 1500   /* fault point server.slow */

struct server server;

/* guarded by server.lock: how far the take-over is */
static enum { STAGE_WAITING, STAGE_ASKING, STAGE_SERVING } stage;
static bool has_predecessor;
static bool is_ping_known; /* by the keeper */
static int nthreads; /* that have begun: their system calls for that are behind them */

#ifdef WD_COVERAGE
void __gcov_dump(void);
#endif

void server_exit(int status)
{
#ifdef WD_COVERAGE
	__gcov_dump();
#endif
	_exit(status);
}

/* ---- memory ---- */

static void arm_timer(void)
{
	struct itimerspec spec = {.it_value = {.tv_sec = IDLE_SECONDS}};

	timerfd_settime(server.timer_fd, 0, &spec, NULL);
}

void server_note_activity(void)
{
	atomic_fetch_add_explicit(&server.activity, 1, memory_order_relaxed);
	if (!atomic_load_explicit(&server.is_timer_armed, memory_order_relaxed) &&
		!atomic_exchange(&server.is_timer_armed, true))
		arm_timer();
}

static bool is_serving(void)
{
	bool is;

	wd_lock(&server.lock);
	is = stage == STAGE_SERVING;
	wd_unlock(&server.lock);
	return is;
}

static void on_timer(void)
{
	static uint64_t seen;
	uint64_t count, now;

	if (read(server.timer_fd, &count, sizeof(count)) < 0)
		return;
	atomic_store(&server.is_timer_armed, false);
	now = atomic_load(&server.activity);
	unopened_sweep(now == seen && is_serving());
	if (now != seen || !is_serving()) {
		seen = now;
		if (!atomic_exchange(&server.is_timer_armed, true))
			arm_timer();
		return;
	}
	buffers_trim();
	loop_trim();
	malloc_trim(0);
	/* the tables stay in the memfd; this process lets go of its pages of them */
	madvise(server.mm.inodes, (size_t)((char *)server.mm.requests - (char *)server.mm.inodes),
		MADV_DONTNEED);
}

/* ---- attaching libfuse ---- */

static uint64_t flags_of(uint32_t low, uint32_t high)
{
	return low & ABI_INIT_EXT ? low | (uint64_t)high << 32 : low;
}

/* The kernel's INIT with its flags cut to what was granted. */
static size_t make_replay(unsigned char *ret_init, uint64_t *ret_granted)
{
	const struct wd_mm_info *info = &server.info;
	struct abi_init_out reply = {0};
	struct abi_init_in in = {0};
	size_t header = sizeof(struct abi_in_header), len = info->init_len - header;

	if (len > sizeof(in))
		len = sizeof(in);
	memcpy(ret_init, info->init, info->init_len);
	memcpy(&in, info->init + header, len);
	memcpy(&reply, info->reply + sizeof(struct abi_out_header), sizeof(reply));
	*ret_granted = flags_of(reply.flags, reply.flags2);
	in.flags &= reply.flags;
	in.flags2 &= reply.flags2;
	memcpy(ret_init + header, &in, len);
	return info->init_len;
}

static int check_reply(int sock, uint64_t granted, struct wd_err *err)
{
	struct {
		struct abi_out_header header;
		struct abi_init_out init;
	} reply = {0};
	ssize_t n = recv(sock, &reply, sizeof(reply), MSG_DONTWAIT);
	uint64_t more;

	if (n < (ssize_t)(sizeof(reply.header) + offsetof(struct abi_init_out, max_background)) ||
		reply.header.error != 0)
		return wd_err_set(err, EPROTO, "libfuse does not take the kernel's INIT");
	more = flags_of(reply.init.flags, reply.init.flags2) & ~granted & ~ABI_BIG_WRITES;
	if (more)
		return wd_err_set(err, EPROTO,
			"libfuse wants flags %#llx that the kernel was not granted",
			(unsigned long long)more);
	server.is_passthrough = (granted & ABI_PASSTHROUGH) != 0;
	return 0;
}

static int replay_init(int sock, struct wd_err *err)
{
	_Alignas(8) unsigned char init[sizeof(server.info.init)];
	static char *argv[] = {"warpdrive-fuse", NULL};
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	char path[32];
	uint64_t granted;
	struct fuse_buf buf = {.mem = init, .size = make_replay(init, &granted)};

	server.se = fuse_session_new(&args, &server_ops, sizeof(server_ops), NULL);
	if (!server.se)
		return wd_err_set(err, ENOMEM, "make a libfuse session");
	snprintf(path, sizeof(path), "/dev/fd/%d", SERVER_FD_FUSE);
	if (fuse_session_mount(server.se, path) != 0)
		return wd_err_set(err, EIO, "libfuse does not take '%s'", path);
	fuse_session_process_buf(server.se, &buf);
	return check_reply(sock, granted, err);
}

static int attach(struct wd_err *err)
{
	wd_autoclose int real = fcntl(SERVER_FD_FUSE, F_DUPFD_CLOEXEC, FD_ASIDE);
	int pair[2], rc;

	if (server.info.init_len < sizeof(struct abi_in_header) + ABI_INIT_IN_OLD ||
		server.info.reply_len !=
			sizeof(struct abi_out_header) + sizeof(struct abi_init_out))
		return wd_err_set(err, EPROTO, "the mount's INIT is not what a keeper leaves");
	if (real < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return wd_err_sys(err, errno, "make a socket pair");
	if (dup3(pair[0], SERVER_FD_FUSE, O_CLOEXEC) < 0)
		rc = wd_err_sys(err, errno, "replace the fuse fd");
	else
		rc = replay_init(pair[1], err);
	if (rc == 0 && dup3(real, SERVER_FD_FUSE, O_CLOEXEC) < 0)
		rc = wd_err_sys(err, errno, "put the fuse fd back");
	close(pair[0]);
	close(pair[1]);
	return rc;
}

__attribute__((format(printf, 2, 0))) static void log_libfuse(
	enum fuse_log_level level, const char *fmt, va_list ap)
{
	char text[256];

	if (vsnprintf(text, sizeof(text), fmt, ap) < 0)
		return;
	text[strcspn(text, "\n")] = '\0';
	wd_warn("libfuse: %s", text);
}

/* ---- threads ---- */

static void enter(int next)
{
	wd_lock(&server.lock);
	stage = next;
	wd_cond_broadcast(&server.changed);
	wd_unlock(&server.lock);
}

/* What the predecessor left is settled before anything new is received. It may have to wait for the
 * agent, so it is not the main thread's, which answers the keeper. */
static void *take_over(void *unused)
{
	if (has_predecessor) {
		open_recover();
		loop_replay();
	}
	enter(STAGE_SERVING);
	return loop_run(unused);
}

/* The first threads are those that are watched. */
static const struct {
	void *(*run)(void *);
	int stage; /* from which on */
	int count;
} threads[] = {
	{agent_run, STAGE_ASKING, REPLY_THREADS},
	{take_over, STAGE_ASKING, 1},
	{loop_run, STAGE_SERVING, LOOP_THREADS - 1},
	{agent_run_invals, STAGE_ASKING, 1},
};

static void *run_when_started(void *arg)
{
	unsigned number, i = 0;
	(void)arg;

	wd_lock(&server.lock);
	number = (unsigned)nthreads++;
	for (unsigned n = number; n >= (unsigned)threads[i].count; i++)
		n -= (unsigned)threads[i].count;
	wd_cond_broadcast(&server.changed);
	while ((int)stage < threads[i].stage)
		wd_cond_wait(&server.changed, &server.lock);
	wd_unlock(&server.lock);
	beat_enter(number);
	return threads[i].run(NULL);
}

static int start_threads(struct wd_err *err)
{
	const int n = LOOP_THREADS + REPLY_THREADS + 1;
	pthread_attr_t attr;
	int rc = 0;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	for (int i = 0; rc == 0 && i < n; i++) {
		pthread_t thread;

		rc = pthread_create(&thread, &attr, run_when_started, NULL);
		if (rc == 0)
			pthread_detach(thread);
	}
	pthread_attr_destroy(&attr);
	if (rc)
		return wd_err_sys(err, rc, "start a thread");
	wd_lock(&server.lock);
	while (nthreads < n)
		wd_cond_wait(&server.changed, &server.lock);
	wd_unlock(&server.lock);
	return 0;
}

/* ---- start ---- */

static int check_privileges(struct wd_err *err)
{
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
		return wd_err_set(err, EPERM,
			"it is started by warpdrive-keeper, never by hand (no_new_privs is not "
			"set)");
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	return 0;
}

static void count_descriptors(void)
{
	struct rlimit files = {.rlim_cur = 1024};

	getrlimit(RLIMIT_NOFILE, &files);
	server.files_max =
		files.rlim_cur > 2 * FDS_KEPT ? (uint32_t)(files.rlim_cur - FDS_KEPT) : FDS_KEPT;
}

static int set_up(struct wd_err *err)
{
	struct tm tm;
	time_t now = time(NULL);
	char text[8];
	int rc = check_privileges(err);

	if (rc == 0)
		rc = wd_mm_info_read(SERVER_FD_INFO, &server.info, err);
	if (rc == 0)
		rc = wd_mm_map(SERVER_FD_TABLES, &server.mm, err);
	if (rc < 0)
		return rc;
	wd_mutex_init(&server.lock);
	wd_cond_init(&server.changed);
	wd_mutex_init(&server.inval_lock);
	wd_cond_init(&server.inval_added);
	link_init(&server.queue);
	link_init(&server.unopened);
	server.is_agent_up = true;
	server.next_id = 1;
	count_descriptors();
	rc = inodes_init(&server.inodes, &server.mm);
	if (rc < 0)
		return wd_err_sys(err, -rc, "use the mount's tables");
	rc = loop_init(err);
	if (rc == 0)
		rc = buffers_init(err);
	if (rc < 0)
		return rc;
	server.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (server.timer_fd < 0)
		return wd_err_sys(err, errno, "timerfd_create");
	fuse_set_log_func(log_libfuse);
	rc = attach(err);
	if (rc == 0)
		rc = start_threads(err);
	if (rc < 0)
		return rc;
	/* the C library reads its time zone once, now: later it may open nothing */
	gmtime_r(&now, &tm);
	strftime(text, sizeof(text), "%Y", &tm);
	return seccomp_install(err);
}

/* ---- the control socket ---- */

/* Waits for GO. A socket to the agent that comes before it simply takes its place. */
static void wait_for_go(struct wd_msg *m)
{
	if (WD_FAULT("server.mute"))
		for (;;)
			poll(NULL, 0, -1);
	if (WD_FAULT("server.slow"))
		poll(NULL, 0, SLOW_MS); /* a machine under load */
	wd_msg_start(m, WD_MSG_READY, 0);
	if (is_ping_known)
		wd_put_u32(m, WD_PROTO_VERSION);
	if (wd_msg_send(SERVER_FD_CONTROL, m, 0) < 0)
		server_exit(1);
	while (wd_msg_recv(SERVER_FD_CONTROL, m, 0) > 0) {
		int sock = wd_msg_take_fd(m, 0);

		wd_msg_close_fds(m);
		if (m->type == WD_MSG_AGENT_SOCK && sock >= 0)
			dup3(sock, SERVER_FD_AGENT, O_CLOEXEC);
		if (sock >= 0)
			close(sock);
		if (m->type == WD_MSG_GO)
			return;
	}
	server_exit(1); /* the keeper died before anything was begun */
}

/* Of two servers one must not serve. There can be two only after the death of a keeper; the next one
 * finds out which lives, ends it and starts another. */
static void become_the_server(void)
{
	int rc = wd_deposit_serve(SERVER_FD_TABLES);

	if (rc == 0)
		return;
	wd_error("another FUSE server has the tables of this mount: %s", strerror(-rc));
	server_exit(1);
}

static void answer_ping(struct wd_msg *m)
{
	if (!beat_is_alive())
		return;
	wd_msg_start_reply(m, WD_MSG_PING, m->id, 0);
	if (wd_msg_send(SERVER_FD_CONTROL, m, MSG_DONTWAIT) < 0)
		wd_debug("the keeper does not take an answer");
}

static void on_control(struct wd_msg *m, struct pollfd *control)
{
	int rc = wd_msg_recv(SERVER_FD_CONTROL, m, MSG_DONTWAIT), sock;

	if (rc == -EAGAIN)
		return;
	if (rc <= 0) {
		wd_warn("the keeper is gone; serving on");
		control->fd = -1;
		return;
	}
	sock = wd_msg_take_fd(m, 0);
	wd_msg_close_fds(m);
	if (m->type == WD_MSG_PING)
		answer_ping(m);
	if (m->type == WD_MSG_AGENT_SOCK && sock >= 0)
		agent_replace(sock);
	else if (sock >= 0)
		close(sock);
}

static void serve(struct wd_msg *m)
{
	struct pollfd fds[] = {
		{.fd = SERVER_FD_CONTROL, .events = POLLIN},
		{.fd = server.timer_fd, .events = POLLIN},
	};

	for (;;) {
		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[0].revents)
			on_control(m, &fds[0]);
		if (fds[1].revents)
			on_timer();
	}
}

#ifdef WD_COVERAGE
static void on_term(int sig)
{
	server_exit(0);
}
#endif

int main(int argc, char **argv)
{
	static struct wd_msg m;
	struct wd_err err = WD_ERR_INIT;

	wd_log_init("fuse");
	if (argc > 1 && strcmp(argv[1], "--version") == 0) {
		puts("warpdrive-fuse " WD_VERSION);
		return 0;
	}
	/* version 1 would take a READY with a body for nonsense, and it sends no PING */
	is_ping_known = WD_PROTO_VERSION >= 2 && argc > 1 &&
			strncmp(argv[1], "--protocol=", 11) == 0 && atoi(argv[1] + 11) >= 2;
#ifdef WD_COVERAGE
	signal(SIGTERM, on_term);
#endif
	mallopt(M_ARENA_MAX, 1);
	if (set_up(&err) < 0) {
		wd_error("%s", err.msg);
		server_exit(1);
	}
	wait_for_go(&m);
	become_the_server();
	has_predecessor = atomic_fetch_add(&server.mm.header->generation, 1) > 0;
	enter(STAGE_ASKING);
	serve(&m);
}
