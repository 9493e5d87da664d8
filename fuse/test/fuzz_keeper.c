/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer target: the whole keeper but its main(), among clients, holders, an agent and servers that may do
 * anything. An input is a program for them: messages in any order, well formed or spoiled, with any
 * descriptors; connections that end or are not read; servers that get ready, die, are stopped; time that
 * passes; SIGTERM. Mounts and processes are made up here (the stubs below), so the target needs no rights.
 *
 * What must hold whatever is sent: only processes of the keeper's own that are not reaped get signals, lists
 * and counters agree, no event repeats for ever, and in the end no descriptor and no memory is left.
 */
#include "fuse/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/mountinfo.h"
#include "fuse/keeper_kernel.h"
#include "fuse/keeper_spawn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define CLIENTS 4
#define PROCESSES 48 /* the next one cannot be started */
#define TARGETS 4
#define DEPOSITS 3
#define OPS_MAX 400
#define EVENTS_MAX 5000 /* after one op; more would be one that repeats */

#define require(is_so) ((is_so) ? (void)0 : broken(#is_so, __LINE__))

static _Noreturn void broken(const char *what, int line)
{
	fprintf(stderr, "line %d: not so: %s\n", line, what);
	abort();
}

struct input {
	const uint8_t *p;
	size_t left;
};

static unsigned take(struct input *in)
{
	if (in->left == 0)
		return 0;
	in->left--;
	return *in->p++;
}

/* ---- the world, as the keeper sees it ---- */

struct process {
	pid_t pid; /* 0: free, or reaped */
	bool is_alive, is_stopped, is_deaf;
	int status;
	int death, control; /* an eventfd that is the pidfd; what the server would have */
};

static struct {
	struct process processes[PROCESSES];
	pid_t last_pid;
	int64_t offset_ns; /* of the clock */
	unsigned minors[TARGETS]; /* of what is mounted there; 0: nothing */
	unsigned last_minor;
	bool is_disconnected, is_busy, is_spawn_broken, is_mount_broken, has_no_abort;
	uint32_t last_backing;
} world;

static const char *const targets[TARGETS] = {"/a", "/b", "/b/c", "/d"};
static struct keeper k;
static char run_dir[64];
static struct wd_msg msg, got;
static int listener, agent_listener, fuse_fd, memfd;
static int clients[CLIENTS], agent;
static struct wd_deposit deposits[DEPOSITS]; /* that a holder may have */

struct timespec;
int __real_clock_gettime(clockid_t clock, struct timespec *ret);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret);
int __wrap_kill(pid_t pid, int sig);
pid_t __wrap_waitpid(pid_t pid, int *ret_status, int options);
int __wrap_waitid(idtype_t type, id_t id, siginfo_t *ret_info, int options);

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret)
{
	int rc = __real_clock_gettime(clock, ret);
	int64_t ns = ret->tv_nsec + world.offset_ns % 1000000000;

	if (clock != CLOCK_MONOTONIC)
		return rc;
	ret->tv_sec += world.offset_ns / 1000000000 + ns / 1000000000;
	ret->tv_nsec = ns % 1000000000;
	return rc;
}

static struct process *process_of(pid_t pid)
{
	require(pid > 1);
	for (int i = 0; i < PROCESSES; i++)
		if (world.processes[i].pid == pid)
			return &world.processes[i];
	abort(); /* a stranger's, or one that is reaped and may be a stranger's by now */
}

static void die(struct process *p, int status)
{
	if (!p->is_alive)
		return;
	p->is_alive = p->is_stopped = false;
	p->status = status;
	eventfd_write(p->death, 1);
	if (p->control >= 0)
		close(p->control);
	p->control = -1;
}

int __wrap_kill(pid_t pid, int sig)
{
	struct process *p = process_of(pid);

	if (sig == SIGKILL || !p->is_deaf)
		die(p, sig);
	return 0;
}

pid_t __wrap_waitpid(pid_t pid, int *ret_status, int options)
{
	struct process *p = process_of(pid);

	if (p->is_alive) {
		require(options & WNOHANG); /* it would hang */
		return 0;
	}
	if (ret_status)
		*ret_status = p->status;
	close(p->death);
	p->pid = 0;
	return pid;
}

int __wrap_waitid(idtype_t type, id_t id, siginfo_t *ret_info, int options)
{
	const struct process *p = process_of((pid_t)id);

	require(type == P_PID && (options & WNOHANG) && (options & WNOWAIT));
	ret_info->si_pid = p->is_stopped ? p->pid : 0;
	return 0;
}

int spawn_server(const struct spawn *spawn, pid_t *ret_pid, int *ret_pidfd, struct wd_err *err)
{
	int i = 0;

	while (i < PROCESSES && world.processes[i].pid)
		i++;
	if (i == PROCESSES || world.is_spawn_broken)
		return wd_err_set(err, EAGAIN, "no more processes");
	world.processes[i] = (struct process){.pid = ++world.last_pid,
		.is_alive = true,
		.death = eventfd(0, EFD_CLOEXEC),
		.control = spawn->is_trial ? -1 : dup(spawn->fds[SERVER_FD_CONTROL - SERVER_FD_FUSE])};
	*ret_pid = world.last_pid;
	*ret_pidfd = dup(world.processes[i].death);
	return 0;
}

static unsigned *minor_at(const char *target)
{
	static unsigned none;

	for (int i = 0; i < TARGETS; i++)
		if (strcmp(targets[i], target) == 0)
			return &world.minors[i];
	none = 0;
	return &none;
}

int kernel_open_target(const char *target, struct wd_err *err)
{
	if (target[0] != '/')
		return wd_err_set(err, EINVAL, "'%s' is no absolute path", target);
	return *minor_at(target) ? wd_err_set(err, EBUSY, "'%s' is mounted", target) : dup(memfd);
}

int kernel_open_fuse(struct wd_err *err)
{
	return dup(fuse_fd);
}

int kernel_mount(int fd, int target_fd, const char *target, const char *dataset, uint32_t flags, struct wd_err *err)
{
	if (world.is_mount_broken)
		return wd_err_set(err, EPERM, "no mount");
	*minor_at(target) = ++world.last_minor;
	return 0;
}

int kernel_init(int fd, uint32_t flags, struct wd_mm_info *ret_info, struct wd_err *err)
{
	ret_info->init_len = ret_info->reply_len = 80;
	return 0;
}

int kernel_device(const char *target, unsigned *ret_major, unsigned *ret_minor, struct wd_err *err)
{
	unsigned minor = *minor_at(target);

	if (minor == 0)
		return wd_err_set(err, ENOENT, "nothing is mounted on '%s'", target);
	*ret_major = 0;
	*ret_minor = minor;
	return 0;
}

int kernel_set_read_ahead(unsigned major, unsigned minor, int64_t bytes, struct wd_err *err)
{
	return 0;
}

int kernel_umount(const char *target, unsigned major, unsigned minor, struct wd_err *err)
{
	unsigned *at = minor_at(target);

	if (*at == 0 || *at != minor)
		return wd_err_set(err, EINVAL, "'%s' is not mounted", target);
	if (world.is_busy)
		return wd_err_set(err, EBUSY, "'%s' is in use", target);
	*at = 0;
	return 0;
}

bool kernel_is_disconnected(int fd)
{
	return world.is_disconnected;
}

int kernel_abort(unsigned major, unsigned minor, struct wd_err *err)
{
	return world.has_no_abort ? wd_err_set(err, ENOENT, "no such connection") : 0;
}

int kernel_backing_open(int fd, int file, struct wd_err *err)
{
	return file < 0 ? wd_err_set(err, EBADF, "no file") : (int)++world.last_backing;
}

int kernel_backing_close(int fd, uint32_t id, struct wd_err *err)
{
	return id == 0 || id > world.last_backing ? wd_err_set(err, ENOENT, "no backing id %u", id) : 0;
}

int mountinfo_find(const char *target, struct mountinfo *ret_info, struct wd_err *err)
{
	*ret_info = (struct mountinfo){.minor = *minor_at(target), .type = "fuse.warpdrive"};
	return ret_info->minor != 0;
}

bool mountinfo_has(unsigned major, unsigned minor)
{
	for (int i = 0; i < TARGETS; i++)
		if (minor && world.minors[i] == minor)
			return true;
	return false;
}

/* ---- what is sent ---- */

static const uint16_t types[] = {WD_MSG_HELLO, WD_MSG_MOUNT, WD_MSG_UMOUNT, WD_MSG_KEEPER_STATUS, WD_MSG_OFFER,
	WD_MSG_OFFERED, WD_MSG_LEAVE, WD_MSG_LEAVE | WD_MSG_REPLY, WD_MSG_HOLD | WD_MSG_REPLY, WD_MSG_HELLO | WD_MSG_REPLY,
	WD_MSG_MOUNT_ADD | WD_MSG_REPLY, WD_MSG_MOUNT_SERVER | WD_MSG_REPLY, WD_MSG_BACKING_OPEN, WD_MSG_BACKING_CLOSE,
	WD_MSG_SERVER_PROGRAM, WD_MSG_HOLDINGS | WD_MSG_REPLY, WD_MSG_READY, WD_MSG_PING | WD_MSG_REPLY, WD_MSG_MOUNT_ADD,
	WD_MSG_HOLD, WD_MSG_START, 0};
static const int statuses[] = {0, 0, -EEXIST, -EPROTO, -EACCES, -EBUSY, 7, INT32_MIN};

static struct mount *mount_at(unsigned n)
{
	struct mount *m = k.mounts;

	for (n %= 4; m && n > 0; n--)
		m = m->next;
	return m;
}

static uint64_t mount_id(struct input *in)
{
	unsigned n = take(in);
	const struct mount *m = mount_at(n);

	return n < 128 && m ? m->id : n < 192 ? deposits[n % DEPOSITS].mount : n;
}

static void put_deposit(struct input *in)
{
	struct wd_deposit d = deposits[take(in) % DEPOSITS];
	unsigned what = take(in);

	if (what & 1)
		d.target = (char *)targets[what >> 6];
	if (what & 2)
		d.minor = *minor_at(d.target);
	if (what & 4)
		d.mount = mount_id(in);
	if (what & 8)
		d.fds[(what >> 4) % WD_DEPOSIT_FDS] = memfd;
	wd_deposit_write(&msg, msg.type, &d);
}

static void put_body(struct input *in)
{
	switch (msg.type) {
	case WD_MSG_HELLO:
		wd_put_u32(&msg, take(in) % 4);
		wd_put_u32(&msg, take(in) % 6);
		wd_put_str(&msg, "x");
		break;
	case WD_MSG_HELLO | WD_MSG_REPLY:
		wd_put_u32(&msg, take(in) % 4);
		wd_put_str(&msg, "x");
		break;
	case WD_MSG_MOUNT:
		wd_put_str(&msg, targets[take(in) % TARGETS]);
		wd_put_bytes(&msg, "{}", 2);
		wd_put_u32(&msg, 0);
		break;
	case WD_MSG_UMOUNT:
		wd_put_str(&msg, targets[take(in) % TARGETS]);
		wd_put_u32(&msg, take(in) & 1);
		break;
	case WD_MSG_OFFER:
	case WD_MSG_HOLD:
		put_deposit(in);
		break;
	case WD_MSG_OFFERED:
	case WD_MSG_READY:
		wd_put_u32(&msg, take(in) % 4);
		break;
	case WD_MSG_MOUNT_ADD | WD_MSG_REPLY:
		wd_put_u32(&msg, take(in));
		wd_put_str(&msg, "data");
		break;
	case WD_MSG_BACKING_OPEN:
		wd_put_u64(&msg, mount_id(in));
		wd_put_fd(&msg, memfd);
		break;
	case WD_MSG_BACKING_CLOSE:
		wd_put_u64(&msg, mount_id(in));
		wd_put_u32(&msg, take(in));
		break;
	case WD_MSG_SERVER_PROGRAM:
		wd_put_str(&msg, take(in) & 1 ? "program-one" : "program-two");
		wd_put_str(&msg, "x");
		wd_put_fd(&msg, take(in) & 1 ? memfd : fuse_fd);
		break;
	}
}

/* Cuts, lengthens or overwrites. */
static void spoil(struct input *in)
{
	unsigned how = take(in);

	switch (how % 4) {
	case 0:
		msg.len -= how < msg.len ? how : msg.len;
		break;
	case 1:
		wd_put_u8(&msg, (uint8_t)how);
		break;
	case 2:
		wd_put_fd(&msg, how & 4 ? fuse_fd : memfd);
		break;
	default:
		for (unsigned n = how / 4 % 16; n > 0 && msg.len > 0; n--) {
			unsigned at = take(in) % (unsigned)msg.len;

			wd_msg_body(&msg)[at] = (unsigned char)take(in);
		}
	}
}

static void send_message(struct input *in, int sock)
{
	unsigned what = take(in), how = take(in);
	uint16_t type = types[what % (sizeof(types) / sizeof(types[0]))];
	const struct mount *m = mount_at(how >> 3);
	uint64_t id = how & 4 ? take(in) : !m ? 1 : type == (WD_MSG_HOLD | WD_MSG_REPLY) ? m->id : m->link_id;

	if (sock < 0)
		return;
	wd_msg_start(&msg, type, id);
	put_body(in); /* a deposit begins its message itself */
	msg.status = type & WD_MSG_REPLY ? statuses[how >> 5] : 0;
	if (how & 3)
		msg.id = id;
	if ((how & 3) == 3)
		spoil(in);
	wd_msg_send(sock, &msg, MSG_DONTWAIT);
	msg.nfds = 0; /* lent */
}

static void say_hello(int sock, uint32_t role)
{
	wd_msg_start(&msg, WD_MSG_HELLO, 1);
	wd_put_u32(&msg, WD_PROTO_VERSION);
	wd_put_u32(&msg, role);
	wd_put_str(&msg, "x");
	wd_msg_send(sock, &msg, MSG_DONTWAIT);
}

static void connect_client(unsigned i)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	if (clients[i % CLIENTS] >= 0)
		return;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/keeper.sock", run_dir);
	clients[i % CLIENTS] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	require(connect(clients[i % CLIENTS], (struct sockaddr *)&addr, sizeof(addr)) == 0);
	if (i & 0x80)
		say_hello(clients[i % CLIENTS], i / CLIENTS % 5);
}

static void close_socket(int *sock)
{
	if (*sock >= 0)
		close(*sock);
	*sock = -1;
}

/* What an agent would say that does its duty. */
static void agent_does_right(void)
{
	for (const struct mount *m = k.mounts; m && agent >= 0; m = m->next) {
		if (m->link != LINK_ADDING)
			continue;
		wd_msg_start_reply(&msg, WD_MSG_MOUNT_ADD, m->link_id, 0);
		wd_put_u32(&msg, WD_MOUNT_READ_ONLY);
		wd_put_str(&msg, "data");
		wd_msg_send(agent, &msg, MSG_DONTWAIT);
	}
}

static void agent_greets(unsigned how)
{
	struct wd_err err = WD_ERR_INIT;
	int fd;

	agent_connect(&k, &err);
	fd = accept4(agent_listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	close_socket(&agent);
	agent = fd;
	if (how & 1)
		return;
	wd_msg_start_reply(&msg, WD_MSG_HELLO, 1, 0);
	wd_put_u32(&msg, how & 2 ? 1 : WD_PROTO_VERSION);
	wd_put_str(&msg, "x");
	wd_msg_send(agent, &msg, MSG_DONTWAIT);
	if (how & 4) {
		wd_msg_start(&msg, WD_MSG_OFFERED, 1);
		wd_put_u32(&msg, 0);
		wd_msg_send(agent, &msg, MSG_DONTWAIT);
	}
}

static void every_server_does_right(void)
{
	for (int i = 0; i < PROCESSES; i++) {
		const struct process *p = &world.processes[i];

		if (!p->pid || !p->is_alive || p->control < 0)
			continue;
		wd_msg_start(&msg, WD_MSG_READY, 0);
		wd_put_u32(&msg, WD_PROTO_VERSION);
		wd_msg_send(p->control, &msg, MSG_DONTWAIT);
	}
}

static void happen_to(struct process *p, struct input *in)
{
	unsigned what = take(in);

	if (!p->pid || !p->is_alive)
		return;
	switch (what % 8) {
	case 0:
		die(p, (int)(what / 8) << 8); /* exit status */
		break;
	case 1:
		die(p, what & 8 ? SIGSEGV : SIGKILL);
		break;
	case 2:
		p->is_stopped = !p->is_stopped;
		watch_children(&k);
		break;
	case 3:
		p->is_deaf = true;
		break;
	case 4:
		if (p->control >= 0)
			close(p->control);
		p->control = -1;
		break;
	default:
		send_message(in, p->control);
	}
}

/* ---- a run ---- */

static void drain(int sock)
{
	while (sock >= 0 && wd_msg_recv(sock, &got, MSG_DONTWAIT) > 0)
		wd_msg_close_fds(&got);
}

static void drain_all(void)
{
	drain(agent);
	for (int i = 0; i < CLIENTS; i++)
		drain(clients[i]);
	for (int i = 0; i < PROCESSES; i++)
		if (world.processes[i].pid)
			drain(world.processes[i].control);
}

static void check_mount(const struct mount *m)
{
	require(m->pid == 0 || process_of(m->pid));
	require(m->standby.pid == 0 || process_of(m->standby.pid));
	require((m->process.fd >= 0) == (m->pid != 0));
	require((m->held_by & ~m->held_sent) == 0);
	for (int i = 0; i < KEEPER_HOLDERS_MAX; i++)
		require(k.holders[i].is_used || !(m->held_sent >> i & 1));
}

static void check(void)
{
	unsigned mounts = 0, number = 0, adding = 0, waiting[KEEPER_HOLDERS_MAX] = {0};

	for (const struct mount *m = k.mounts; m; m = m->next) {
		mounts++;
		adding += m->link == LINK_ADDING;
		check_mount(m);
		for (int i = 0; i < KEEPER_HOLDERS_MAX; i++)
			waiting[i] += (m->held_sent & ~m->held_by) >> i & 1;
	}
	for (const struct client *c = k.clients; c; c = c->next)
		number++;
	require(mounts == k.nmounts && number == k.nclients && adding == k.adds_unanswered);
	for (int i = 0; i < KEEPER_HOLDERS_MAX; i++)
		require(k.holders[i].unanswered == waiting[i]);
}

static void run_events(void)
{
	struct pollfd p = {.fd = k.epoll_fd, .events = POLLIN};

	for (int n = 0; poll(&p, 1, 0) > 0; n++) {
		require(n < EVENTS_MAX);
		keeper_round(&k, 0);
	}
	keeper_round(&k, 0);
	check();
}

static void pass_time(unsigned how)
{
	static const int64_t ms[] = {1, 30, 120, 1000, 6000, 31000, 130000, 310000};

	world.offset_ns += ms[how % 8] * 1000000;
}

static void change_world(unsigned how)
{
	world.is_disconnected ^= how & 1;
	world.is_busy ^= how >> 1 & 1;
	world.is_spawn_broken ^= how >> 2 & 1;
	world.is_mount_broken ^= how >> 3 & 1;
	world.has_no_abort ^= how >> 4 & 1;
}

static void step(struct input *in)
{
	unsigned op = take(in);

	switch (op % 16) {
	case 0:
	case 1:
		connect_client(take(in));
		break;
	case 2:
	case 3:
	case 4:
		send_message(in, clients[op / 16 % CLIENTS]);
		break;
	case 5:
		close_socket(&clients[op / 16 % CLIENTS]);
		break;
	case 6:
		agent_greets(op / 16);
		break;
	case 7:
		agent_does_right();
		break;
	case 8:
	case 9:
		send_message(in, agent);
		break;
	case 10:
		close_socket(&agent);
		break;
	case 11:
		every_server_does_right();
		break;
	case 12:
		happen_to(&world.processes[take(in) % PROCESSES], in);
		break;
	case 13:
		pass_time(op / 16);
		break;
	case 14:
		change_world(take(in));
		break;
	default:
		if (op == 255) {
			k.is_stopping = true; /* SIGTERM */
			mounts_stop(&k, false);
		}
		return; /* the peers do not read what they were sent */
	}
	run_events();
	drain_all();
}

static void begin(void)
{
	struct wd_err err = WD_ERR_INIT;

	memset(&world, 0, sizeof(world));
	world.last_pid = 1000000000; /* nobody's, should it ever reach the real kill() */
	memset(&k, 0, sizeof(k));
	k.run_dir = run_dir;
	k.server_path = "/nonexistent";
	k.server_timeout_ns = 30000000000;
	k.stopped_timeout_ns = 100000000;
	k.give_up_ns = 300000000000;
	k.leave_asked = -1;
	k.signals.fd = k.inotify.fd = k.agent.fd = -1;
	k.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	require(source_watch(&k, &k.timer, timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK), NULL, &err) == 0);
	epoll_ctl(k.epoll_fd, EPOLL_CTL_DEL, k.timer.fd, NULL); /* time passes by word here */
	require(program_init(&k, &err) == 0);
	require(source_watch(&k, &k.listener, dup(listener), clients_accept, &err) == 0);
	agent = -1;
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = -1;
}

static void drop_program(struct program **p)
{
	if (*p && --(*p)->refs == 0) {
		if ((*p)->fd >= 0)
			close((*p)->fd);
		free(*p);
	}
	*p = NULL;
}

/* Everybody goes away, servers first; nothing may be left. */
static void end(void)
{
	world.is_busy = world.is_spawn_broken = false;
	for (int i = 0; i < PROCESSES; i++)
		if (world.processes[i].pid)
			die(&world.processes[i], SIGKILL);
	while (k.mounts) {
		struct mount *m = k.mounts;

		if (m->former.fd >= 0)
			source_close(&k, &m->former);
		if (m->pid) {
			world.processes[process_of(m->pid) - world.processes].is_deaf = false;
			die(process_of(m->pid), SIGKILL);
			waitpid(m->pid, NULL, 0);
			m->pid = 0;
		}
		m->client = 0; /* who asks is not answered any more */
		mount_over(&k, m);
	}
	close_socket(&agent);
	for (int i = 0; i < CLIENTS; i++)
		close_socket(&clients[i]);
	run_events();
	if (k.trial.pid) {
		source_close(&k, &k.trial.process);
		waitpid(k.trial.pid, NULL, 0);
	}
	clients_close(&k);
	source_close(&k, &k.agent);
	source_close(&k, &k.listener);
	source_close(&k, &k.timer);
	close(k.epoll_fd);
	drop_program(&k.trial.program);
	drop_program(&k.offered);
	drop_program(&k.own);
	for (int i = 0, fd; i < 2 && (fd = accept4(i ? listener : agent_listener, NULL, NULL, 0)) >= 0; i++)
		close(fd);
	for (int i = 0; i < PROCESSES; i++)
		require(world.processes[i].pid == 0);
}

static int next_free_fd(void)
{
	int fd = dup(STDIN_FILENO);

	require(fd >= 0);
	close(fd);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	int before = next_free_fd();

	begin();
	for (int i = 0; i < OPS_MAX && in.left > 0 && !keeper_is_done(&k); i++)
		step(&in);
	end();
	require(next_free_fd() == before);
	return 0;
}

/* ---- once ---- */

static int listen_at(const char *name)
{
	struct wd_err err = WD_ERR_INIT;
	char path[96];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", run_dir, name);
	fd = wd_listen(path, &err);
	require(fd >= 0 && fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
	return fd;
}

static void make_deposit(struct wd_deposit *d, unsigned n)
{
	struct wd_mm_info info = {.mount = 100 + n, .init_len = 80, .reply_len = 80};

	wd_deposit_init(d);
	d->mount = info.mount;
	d->target = (char *)targets[n];
	d->dataset = "data";
	d->fds[WD_DEPOSIT_FUSE] = fuse_fd;
	d->fds[WD_DEPOSIT_INFO] = wd_mm_info_create(&info, NULL);
	d->fds[WD_DEPOSIT_TABLES] = wd_mm_create(NULL);
	d->fds[WD_DEPOSIT_DESCRIPTION] = wd_description_make("{}", 2, NULL);
	d->fds[WD_DEPOSIT_RECORD] = memfd;
}

static void remove_all(void)
{
	char path[128];

	for (int i = 0; i < 3; i++) {
		static const char *const names[] = {"keeper.sock", "agent.sock", "mounts"};

		snprintf(path, sizeof(path), "%s/%s", run_dir, names[i]);
		remove(path);
	}
	rmdir(run_dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	wd_log_set_level(WD_LOG_ERROR + 1);
	signal(SIGPIPE, SIG_IGN);
	strcpy(run_dir, "/tmp/wd-fuzz-keeper-XXXXXX");
	require(mkdtemp(run_dir) != NULL);
	atexit(remove_all);
	listener = listen_at("keeper.sock");
	agent_listener = listen_at("agent.sock");
	fuse_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fuse_fd < 0)
		fuse_fd = open("/dev/null", O_RDWR | O_CLOEXEC); /* then nothing is ever taken back */
	memfd = memfd_create("file", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	require(memfd >= 0 && write(memfd, "x", 1) == 1 &&
		fcntl(memfd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW) == 0);
	for (unsigned i = 0; i < DEPOSITS; i++)
		make_deposit(&deposits[i], i);
	return 0;
}
