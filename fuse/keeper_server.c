/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The servers of a mount, one after the other. Each is started on the same fuse fd and memfds with
 * a fresh control socket and a fresh socket to the agent, is told to GO once it says READY, and is
 * reaped when its pidfd says that it died. Whether another one follows, and when, keeper_mount.c
 * decides.
 *
 * A server is not trusted: all it may say is READY, once, and that it is alive when it is asked;
 * for anything else it is killed.
 */
#include "fuse/keeper.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/lock.h"
#include "common/log.h"
#include "fuse/keeper_kernel.h"
#include "fuse/keeper_spawn.h"

uint32_t server_ready_version(const struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	uint32_t version = m->len == 0 ? 1 : wd_rd_u32(&r);

	return wd_rd_done(&r) ? wd_proto_common(version) : 0;
}

static void on_control(struct keeper *k, struct source *source)
{
	struct mount *m = (struct mount *)((char *)source - offsetof(struct mount, control));
	int rc = wd_msg_recv(source->fd, &k->in, MSG_DONTWAIT);

	if (rc == -EAGAIN)
		return;
	if (rc > 0) {
		wd_msg_close_fds(&k->in);
		if (k->in.type == (WD_MSG_PING | WD_MSG_REPLY) && k->in.len == 0 && m->is_ready) {
			watch_pong(k, m);
			return;
		}
		if (k->in.type == WD_MSG_READY && !m->is_ready && server_ready_version(&k->in)) {
			m->is_ready = true;
			m->server_version = server_ready_version(&k->in);
			mount_server_ready(k, m);
			return;
		}
	}
	if (rc > 0 || rc == -EPROTO)
		wd_error("the FUSE server %d of '%s' sent nonsense and is killed", (int)m->pid,
			m->target);
	/* one that merely closed its end could not be told of a new agent; one that is dying does
	 * not mind. Its death is news from the pidfd, which is read before the pid is anybody's */
	if (m->pid > 0)
		kill(m->pid, SIGKILL);
	source_close(k, source);
}

/* Somebody ended it; it did not fail by itself. */
static bool is_from_outside(int sig)
{
	return sig == SIGKILL || sig == SIGTERM || sig == SIGINT || sig == SIGHUP;
}

static void on_process(struct keeper *k, struct source *source)
{
	struct mount *m = (struct mount *)((char *)source - offsetof(struct mount, process));
	bool was_killed = false, was_ready;
	pid_t pid = m->pid;
	int status;

	if (waitpid(pid, &status, WNOHANG) != pid)
		return;
	if (WIFSIGNALED(status)) {
		was_killed = is_from_outside(WTERMSIG(status)) && !m->is_hung;
		if (m->state != MOUNT_ENDING && !m->is_handing_over)
			wd_warn("the FUSE server %d of '%s' was ended by signal %d (%s)", (int)pid,
				m->target, WTERMSIG(status), strsignal(WTERMSIG(status)));
	} else if (WEXITSTATUS(status) != 0) {
		wd_warn("the FUSE server %d of '%s' exited with status %d", (int)pid, m->target,
			WEXITSTATUS(status));
	}
	source_close(k, &m->process);
	source_close(k, &m->control);
	was_ready = m->is_ready;
	m->pid = 0;
	m->is_ready = false;
	mount_server_dead(k, m, was_ready, was_killed);
}

/* The server's end of a new connection to the agent; the other end goes there. */
static int make_agent_end(struct keeper *k, struct mount *m, struct wd_err *err)
{
	int pair[2];

	if (m->first_end >= 0)
		return wd_steal_fd(&m->first_end);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return wd_err_sys(
			err, errno, "make a socket pair for the server of '%s'", m->target);
	agent_replace_server(k, m, pair[0]);
	return pair[1];
}

void server_moved(struct mount *m)
{
	m->control.on_event = on_control;
	m->process.on_event = on_process;
}

int server_spawn(struct keeper *k, const struct mount *m, const struct program *p, int agent_end,
	int control, pid_t *ret_pid, int *ret_pidfd, struct wd_err *err)
{
	struct spawn spawn = {.path = k->server_path, .program = p->fd, .uid = k->server_uid};

	spawn.fds[SERVER_FD_FUSE - SERVER_FD_FUSE] = m->fuse_fd;
	spawn.fds[SERVER_FD_INFO - SERVER_FD_FUSE] = m->info_fd;
	spawn.fds[SERVER_FD_TABLES - SERVER_FD_FUSE] = m->tables_fd;
	spawn.fds[SERVER_FD_AGENT - SERVER_FD_FUSE] = agent_end;
	spawn.fds[SERVER_FD_CONTROL - SERVER_FD_FUSE] = control;
	return spawn_server(&spawn, ret_pid, ret_pidfd, err);
}

int server_start(struct keeper *k, struct mount *m, struct wd_err *err)
{
	wd_autoclose int end = make_agent_end(k, m, err);
	wd_autoclose int theirs = -1, ours = -1, pidfd = -1;
	int pair[2], rc;

	if (end < 0)
		return end;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return wd_err_sys(
			err, errno, "make a socket pair for the server of '%s'", m->target);
	ours = pair[0];
	theirs = pair[1];
	rc = server_spawn(k, m, program_choose(k, m), end, theirs, &m->pid, &pidfd, err);
	if (rc < 0)
		return rc;
	m->started_at_ns = wd_now_ns();
	m->is_ready = false;
	watch_start(k, m);
	rc = source_watch(k, &m->process, pidfd, on_process, err);
	if (rc == 0) {
		wd_steal_fd(&pidfd);
		rc = source_watch(k, &m->control, ours, on_control, err);
	}
	if (rc < 0) {
		kill(m->pid, SIGKILL);
		waitpid(m->pid, NULL, 0);
		source_close(k, &m->process);
		m->pid = 0;
		return rc;
	}
	wd_steal_fd(&ours);
	return 0;
}

/* Only one server of a mount lives at a time, so its predecessor is reaped already, and this one may ask the
 * kernel to resend what is unanswered. */
void server_go(struct keeper *k, struct mount *m)
{
	wd_msg_start(&k->out, WD_MSG_GO, 0);
	if (wd_msg_send(m->control.fd, &k->out, MSG_DONTWAIT) < 0)
		return; /* it is dying */
	watch_start(k, m);
	if (m->restarts > 0) {
		keeper_count(k, WD_KEEPER_takeovers);
		if (m->stalled_since_ns)
			keeper_add_time(k, WD_KEEPER_takeover_stall_us, wd_now_ns() - m->stalled_since_ns);
	}
	m->stalled_since_ns = 0;
}

void server_send_agent_sock(struct keeper *k, struct mount *m, int end)
{
	int rc;

	if (m->pid > 0 && m->control.fd >= 0) {
		wd_msg_start(&k->out, WD_MSG_AGENT_SOCK, 0);
		wd_put_fd(&k->out, end);
		rc = wd_msg_send(m->control.fd, &k->out, MSG_DONTWAIT);
		if (rc < 0 && rc != -EPIPE) {
			wd_error("the FUSE server %d of '%s' does not listen and is killed",
				(int)m->pid, m->target);
			kill(m->pid, SIGKILL);
		}
	}
	close(end);
}
