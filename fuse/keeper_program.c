/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which program serves a mount. The keeper has one of its own (--server), and the agent brings the
 * one that belongs to it, so that a roll-out of the agent upgrades the servers, too, while the
 * keeper stays. It comes as a sealed memfd, or as a file where memfds cannot be executed.
 *
 *	offered -- "--version" runs, stripped like a server --> kept: every mount is upgraded
 *	   |  (a program that is the keeper's own, byte by byte, is simply not needed)
 *	   +-- it does not --> refused; the agent is told why
 *
 * Mounts are upgraded one after the other: the new server is started beside the old one, up to
 * READY; then the old one is ended and reaped, and the new one takes over as after any death. One that
 * does not get READY leaves the old one serving, and is not tried on that mount again. Neither is
 * one that took over and then crashed again and again: the mount goes back to what served it well.
 */
#include "fuse/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/lock.h"
#include "common/log.h"
#include "fuse/keeper_spawn.h"

#define PROGRAM_MAX (64 << 20) /* bytes */
#define PATIENCE_NS 30000000000 /* when there is no --server-timeout */
#define END_PATIENCE_NS 2000000000
#define SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW)

static struct program *program_ref(struct program *p)
{
	if (p)
		p->refs++;
	return p;
}

static void program_unref(struct program *p)
{
	if (!p || --p->refs > 0)
		return;
	if (p->fd >= 0)
		close(p->fd);
	free(p);
}

static void set_program(struct program **at, struct program *p)
{
	program_ref(p);
	program_unref(*at);
	*at = p;
}

static struct program *program_new(int fd, const char *id)
{
	struct program *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->refs = 1;
	p->fd = fd;
	snprintf(p->id, sizeof(p->id), "%s", id);
	return p;
}

int program_init(struct keeper *k, struct wd_err *err)
{
	k->trial.process.fd = -1;
	k->own = program_new(-1, "own");
	return k->own ? 0 : wd_err_set(err, ENOMEM, "out of memory");
}

/* ---- what runs where ---- */

static struct program *wanted(const struct keeper *k, const struct mount *m)
{
	if (k->offered && k->offered != m->refused)
		return k->offered;
	if (k->offered && m->former_program)
		return m->former_program;
	return k->own;
}

const struct program *program_choose(struct keeper *k, struct mount *m)
{
	set_program(&m->program, wanted(k, m));
	return m->program;
}

static void refuse(struct keeper *k, struct mount *m, struct program *p)
{
	set_program(&m->refused, p);
	keeper_count(k, WD_KEEPER_upgrades_refused);
}

bool program_crashes(struct keeper *k, struct mount *m)
{
	struct program *bad = m->program;

	if (!bad || bad == k->own || bad != wanted(k, m))
		return false;
	refuse(k, m, bad);
	wd_error("the server program %.12s crashes on '%s'; it is served by %.12s again", bad->id,
		m->target, wanted(k, m)->id);
	return true;
}

void program_forget(struct mount *m)
{
	set_program(&m->program, NULL);
	set_program(&m->refused, NULL);
	set_program(&m->former_program, NULL);
	set_program(&m->standby.program, NULL);
}

/* ---- a program is offered ---- */

static void answer(struct keeper *k, uint64_t request, int status, const char *text)
{
	wd_msg_start_reply(&k->out, WD_MSG_SERVER_PROGRAM, request, status);
	if (status < 0)
		wd_put_str(&k->out, text);
	agent_send(k);
}

static bool is_same(int a, int b)
{
	static char buf[2][65536];
	off_t at = 0;

	for (;;) {
		ssize_t n = pread(a, buf[0], sizeof(buf[0]), at);

		if (n < 0 || pread(b, buf[1], sizeof(buf[1]), at) != n ||
			memcmp(buf[0], buf[1], (size_t)n) != 0)
			return false;
		if (n == 0)
			return true;
		at += n;
	}
}

/* What is there cannot be changed any more, as far as that can be seen. */
static const char *find_flaw(int fd)
{
	int mode = fd < 0 ? -1 : fcntl(fd, F_GETFL);
	int seals = mode < 0 ? 0 : fcntl(fd, F_GET_SEALS);
	struct stat st;

	if (mode < 0 || fstat(fd, &st) < 0)
		return "it comes without a descriptor";
	if (!S_ISREG(st.st_mode))
		return "it is no regular file";
	if (st.st_size == 0 || st.st_size > PROGRAM_MAX)
		return "it is empty or larger than 64 MiB";
	if ((mode & O_ACCMODE) != O_RDONLY && (seals < 0 || (seals & SEALS) != SEALS))
		return "it is neither a sealed memfd nor opened for reading only";
	return NULL;
}

static void take(struct keeper *k, struct program *p)
{
	wd_info("server program %.12s is here; the mounts are upgraded", p->id);
	set_program(&k->offered, p);
}

static void on_trial(struct keeper *k, struct source *source)
{
	struct trial *t = &k->trial;
	char text[160];
	int status, code;

	if (waitpid(t->pid, &status, WNOHANG) != t->pid)
		return;
	source_close(k, source);
	t->pid = 0;
	code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	if (code == 0) {
		take(k, t->program);
	} else {
		snprintf(text, sizeof(text), "server program %.12s does not run here: %s %d",
			t->program->id, code < 0 ? "signal" : "exit status",
			code < 0 ? WTERMSIG(status) : code);
		wd_error("%s; the servers stay as they are", text);
		keeper_count(k, WD_KEEPER_upgrades_refused);
	}
	if (t->request)
		answer(k, t->request,
			code == 0			 ? 0
			: code == SPAWN_EXIT_FORBIDDEN ? -EACCES
						       : -ENOEXEC,
			text);
	set_program(&t->program, NULL);
}

static int64_t patience(const struct keeper *k)
{
	return wd_now_ns() + (k->server_timeout_ns ? k->server_timeout_ns : PATIENCE_NS);
}

static int try_it(struct keeper *k, struct program *p, uint64_t request, struct wd_err *err)
{
	struct spawn spawn = {
		.path = k->server_path, .program = p->fd, .uid = k->server_uid, .is_trial = true};
	struct trial *t = &k->trial;
	int pidfd, rc = spawn_server(&spawn, &t->pid, &pidfd, err);

	if (rc < 0)
		return rc;
	rc = source_watch(k, &t->process, pidfd, on_trial, err);
	if (rc < 0) {
		kill(t->pid, SIGKILL);
		waitpid(t->pid, NULL, 0);
		close(pidfd);
		t->pid = 0;
		return rc;
	}
	set_program(&t->program, p);
	t->request = request;
	t->until_ns = patience(k);
	return 0;
}

void program_offered(struct keeper *k)
{
	wd_autoclose int fd = wd_msg_take_fd(&k->in, 0), own = -1;
	struct wd_rd r = wd_rd_start(&k->in);
	struct wd_err err = WD_ERR_INIT;
	uint64_t request = k->in.id;
	char id[PROGRAM_ID_MAX], build[64];
	struct program *p;
	const char *flaw;

	if (!wd_rd_str(&r, id, sizeof(id)) || !wd_rd_str(&r, build, sizeof(build)) ||
		!wd_rd_done(&r) || strlen(id) < 8) {
		answer(k, request, -EPROTO, "malformed offer of a server program");
		return;
	}
	flaw = find_flaw(fd);
	own = open(k->server_path, O_RDONLY | O_CLOEXEC);
	if (flaw) {
		wd_error("the server program %.12s of the agent is refused: %s", id, flaw);
		answer(k, request, -EINVAL, flaw);
	} else if (k->offered && strcmp(k->offered->id, id) == 0) {
		answer(k, request, 0, NULL);
	} else if (own >= 0 && is_same(own, fd)) {
		if (k->offered) /* the agent was rolled back to what the keeper has */
			take(k, k->own);
		answer(k, request, 0, NULL);
	} else if (k->trial.pid > 0) {
		answer(k, request, -EBUSY, "another server program is being tried");
	} else {
		p = program_new(fd, id);
		if (p)
			wd_steal_fd(&fd);
		if (!p || try_it(k, p, request, &err) < 0)
			answer(k, request, -EIO, p ? err.msg : "out of memory");
		program_unref(p);
	}
}

/* ---- upgrading a mount ---- */

static void standby_close(struct keeper *k, struct mount *m)
{
	struct standby *s = &m->standby;

	source_close(k, &s->process);
	source_close(k, &s->control);
	if (s->agent_end >= 0)
		close(s->agent_end);
	s->agent_end = -1;
	s->pid = 0;
	s->is_ready = false;
	set_program(&s->program, NULL);
}

void standby_init(struct mount *m)
{
	m->standby.process.fd = m->standby.control.fd = m->standby.agent_end = -1;
}

void standby_cancel(struct keeper *k, struct mount *m)
{
	if (m->standby.pid <= 0)
		return;
	kill(m->standby.pid, SIGKILL);
	waitpid(m->standby.pid, NULL, 0);
	standby_close(k, m);
}

static void on_standby_control(struct keeper *k, struct source *source)
{
	struct standby *s = (struct standby *)((char *)source - offsetof(struct standby, control));
	struct mount *m = (struct mount *)((char *)s - offsetof(struct mount, standby));
	int rc = wd_msg_recv(source->fd, &k->in, MSG_DONTWAIT);

	if (rc == -EAGAIN)
		return;
	if (rc > 0)
		wd_msg_close_fds(&k->in);
	s->version = rc > 0 && k->in.type == WD_MSG_READY ? server_ready_version(&k->in) : 0;
	if (s->version == 0 || s->is_ready) {
		kill(s->pid, SIGKILL); /* its end is news from the pidfd */
		source_close(k, source);
		return;
	}
	s->is_ready = true;
	if (m->pid == 0) { /* the old one has died meanwhile */
		standby_take_over(k, m);
		return;
	}
	m->is_handing_over = true;
	kill(m->pid, SIGTERM);
	m->kill_at_ns = wd_now_ns() + END_PATIENCE_NS;
}

static void on_standby_process(struct keeper *k, struct source *source)
{
	struct standby *s = (struct standby *)((char *)source - offsetof(struct standby, process));
	struct mount *m = (struct mount *)((char *)s - offsetof(struct mount, standby));
	bool was_ready = s->is_ready;
	int status;

	if (waitpid(s->pid, &status, WNOHANG) != s->pid)
		return;
	wd_error("the server program %.12s does not take '%s' over (it %s %d)%s", s->program->id,
		m->target, WIFSIGNALED(status) ? "was ended by signal" : "exited with status",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
		m->pid > 0 ? "; the server that is there goes on" : "");
	if (!was_ready)
		refuse(k, m, s->program);
	standby_close(k, m);
	if (m->pid == 0)
		mount_server_dead(k, m, true, true);
}

bool standby_take_over(struct keeper *k, struct mount *m)
{
	struct standby *s = &m->standby;

	if (s->pid <= 0)
		return false;
	if (!s->is_ready)
		return true; /* it will */
	source_move(k, &s->control, &m->control);
	source_move(k, &s->process, &m->process);
	server_moved(m);
	m->pid = s->pid;
	m->server_version = s->version;
	m->started_at_ns = s->started_at_ns;
	m->is_handing_over = false;
	m->kill_at_ns = m->restart_at_ns = 0;
	m->restarts++;
	set_program(&m->program, s->program);
	if (s->agent_end >= 0)
		agent_replace_server(k, m, wd_steal_fd(&s->agent_end));
	s->pid = 0;
	standby_close(k, m);
	m->is_ready = true;
	keeper_count(k, WD_KEEPER_upgrades);
	wd_info("'%s' is served by program %.12s now", m->target, m->program->id);
	mount_server_ready(k, m);
	return true;
}

static int start_standby(struct keeper *k, struct mount *m, struct program *p, struct wd_err *err)
{
	wd_autoclose int end = -1, theirs = -1, ours = -1, pidfd = -1;
	struct standby *s = &m->standby;
	int agent[2], control[2], rc;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, agent) < 0)
		return wd_err_sys(err, errno, "make a socket pair");
	s->agent_end = agent[0];
	end = agent[1];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0)
		return wd_err_sys(err, errno, "make a socket pair");
	ours = control[0];
	theirs = control[1];
	rc = server_spawn(k, m, p, end, theirs, &s->pid, &pidfd, err);
	if (rc == 0)
		rc = source_watch(k, &s->process, pidfd, on_standby_process, err);
	if (rc == 0) {
		wd_steal_fd(&pidfd);
		rc = source_watch(k, &s->control, ours, on_standby_control, err);
	}
	if (rc < 0)
		return rc;
	wd_steal_fd(&ours);
	set_program(&s->program, p);
	s->started_at_ns = wd_now_ns();
	s->until_ns = patience(k);
	return 0;
}

static void upgrade(struct keeper *k, struct mount *m)
{
	struct program *p = wanted(k, m);
	struct wd_err err = WD_ERR_INIT;

	set_program(&m->former_program, m->program);
	if (start_standby(k, m, p, &err) == 0)
		return;
	wd_error("upgrade the server of '%s': %s", m->target, err.msg);
	if (m->standby.pid > 0)
		standby_cancel(k, m);
	else
		standby_close(k, m);
	refuse(k, m, p);
}

static void check_time(struct keeper *k, struct standby *s, int64_t now_ns, int64_t *ret_next)
{
	if (now_ns >= s->until_ns) {
		s->until_ns = INT64_MAX; /* its end is news from the pidfd */
		kill(s->pid, SIGKILL);
	} else if (s->until_ns < *ret_next) {
		*ret_next = s->until_ns;
	}
}

void program_timers(struct keeper *k, int64_t now_ns, int64_t *ret_next)
{
	struct mount *next = NULL;

	if (k->trial.pid > 0 && now_ns >= k->trial.until_ns) {
		k->trial.until_ns = INT64_MAX;
		kill(k->trial.pid, SIGKILL);
	} else if (k->trial.pid > 0 && k->trial.until_ns < *ret_next) {
		*ret_next = k->trial.until_ns;
	}
	for (struct mount *m = k->mounts; m; m = m->next) {
		if (m->standby.pid > 0) {
			if (!m->standby.is_ready)
				check_time(k, &m->standby, now_ns, ret_next);
			return; /* one after the other */
		}
		if (m->state == MOUNT_SERVING && m->is_ready && m->pid > 0 && !m->is_hung &&
			m->program != wanted(k, m))
			next = m;
	}
	if (next && !k->is_stopping) {
		upgrade(k, next);
		*ret_next = now_ns; /* once more around, for its deadline */
	}
}
