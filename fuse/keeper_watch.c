/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watchdog. A server that is dead is news from its pidfd; one that is stopped or hangs is not.
 *
 * Stopped (SIGSTOP): every server is a child of ours, so the kernel says so at once (SIGCHLD). One that
 * is still stopped after stopped_timeout_ns is killed and replaced like any other that died; one that is
 * continued before goes on. That needs no answer from it, so a machine under load changes nothing.
 *
 * Hanging: each server is sent a PING four times per time-out and answers when its threads move
 * (server_beat.c). One that has answered nothing for the whole time, three PINGs among it, is killed;
 * so is one that does not get READY in that time. A server that is merely slow looks the same. So
 * that a machine too slow for --server-timeout cannot lose one server after the other for ever, the
 * time doubles with each, up to HANG_TIMEOUT_MAX_NS, until one has served and answered for all of it.
 *
 * All mounts are pinged in one wake-up. When the keeper itself was stopped, or the machine slept, too
 * few PINGs were sent, and nobody is killed for it.
 *
 * A server of protocol version 1 knows no PING: whether it hangs is watched only until it is READY.
 */
#include "fuse/keeper.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "common/lock.h"
#include "common/log.h"

#define PINGS 4
#define PINGS_UNANSWERED 3
#define HANG_TIMEOUT_MAX_NS 120000000000LL

int64_t watch_hang_timeout(const struct keeper *k, const struct mount *m)
{
	int64_t timeout = k->server_timeout_ns;

	for (unsigned i = 0; i < m->hangs && timeout < HANG_TIMEOUT_MAX_NS; i++)
		timeout *= 2;
	return timeout;
}

/* ---- stopped ---- */

/* Looks and leaves the news where it is: it is true until the process is continued or killed. */
static bool is_stopped(pid_t pid)
{
	siginfo_t info = {.si_pid = 0};

	return pid > 0 && waitid(P_PID, (id_t)pid, &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 &&
	       info.si_pid == pid;
}

static void look_at(struct mount *m)
{
	if (!is_stopped(m->pid))
		m->stopped_at_ns = 0;
	else if (!m->stopped_at_ns)
		m->stopped_at_ns = wd_now_ns();
}

/* One signal may stand for the news of many. */
void watch_children(struct keeper *k)
{
	for (struct mount *m = k->mounts; m; m = m->next)
		look_at(m);
}

static void watch_stopped(struct keeper *k, struct mount *m, int64_t now_ns, int64_t *ret_next)
{
	int64_t deadline = m->stopped_at_ns + k->stopped_timeout_ns;

	if (!m->stopped_at_ns || k->stopped_timeout_ns == 0)
		return;
	if (now_ns < deadline) {
		if (deadline < *ret_next)
			*ret_next = deadline;
		return;
	}
	look_at(m); /* it may have been continued just now */
	if (!m->stopped_at_ns)
		return;
	wd_warn("the FUSE server %d of '%s' has been stopped (SIGSTOP) for %lld ms and is replaced",
		(int)m->pid, m->target, (long long)((now_ns - m->stopped_at_ns) / 1000000));
	m->stopped_at_ns = 0;
	keeper_count(k, WD_KEEPER_stopped_kills);
	kill(m->pid, SIGKILL);
}

/* ---- hanging ---- */

static bool may_hang(const struct keeper *k, const struct mount *m)
{
	return k->server_timeout_ns > 0 && m->control.fd >= 0 && !m->is_hung &&
	       (!m->is_ready || m->server_version >= 2);
}

/* At a multiple of the interval, so that the mounts share their wake-ups. */
static int64_t next_ping(const struct keeper *k, const struct mount *m, int64_t now_ns)
{
	int64_t every = watch_hang_timeout(k, m) / PINGS;

	return every > 0 ? (now_ns / every + 1) * every : now_ns;
}

void watch_start(struct keeper *k, struct mount *m)
{
	m->is_hung = false;
	m->watched_at_ns = m->alive_at_ns = wd_now_ns();
	m->ping_at_ns = next_ping(k, m, m->alive_at_ns);
	m->pings_unanswered = 0;
	m->stopped_at_ns = 0;
	look_at(m); /* a standby was none of ours to look at */
}

void watch_pong(struct keeper *k, struct mount *m)
{
	m->alive_at_ns = wd_now_ns();
	m->pings_unanswered = 0;
	if (m->alive_at_ns - m->watched_at_ns >= watch_hang_timeout(k, m))
		m->hangs = 0;
}

static void ping(struct keeper *k, struct mount *m, int64_t now_ns)
{
	m->ping_at_ns = next_ping(k, m, now_ns);
	m->pings_unanswered++;
	if (!m->is_ready)
		return; /* it listens to GO alone */
	wd_msg_start(&k->out, WD_MSG_PING, ++k->next_id);
	wd_msg_send(m->control.fd, &k->out, MSG_DONTWAIT);
}

static void watch_hanging(struct keeper *k, struct mount *m, int64_t now_ns, int64_t *ret_next)
{
	int64_t deadline;

	if (!may_hang(k, m))
		return;
	if (now_ns >= m->ping_at_ns)
		ping(k, m, now_ns);
	deadline = m->alive_at_ns + watch_hang_timeout(k, m);
	if (now_ns >= deadline && m->pings_unanswered >= PINGS_UNANSWERED) {
		wd_error("the FUSE server %d of '%s' %s for %lld ms and is killed", (int)m->pid,
			m->target, m->is_ready ? "answered nothing" : "did not get ready",
			(long long)((now_ns - m->alive_at_ns) / 1000000));
		m->is_hung = true;
		m->hangs++;
		keeper_count(k, WD_KEEPER_watchdog_kills);
		kill(m->pid, SIGKILL);
		return;
	}
	if (m->ping_at_ns < *ret_next)
		*ret_next = m->ping_at_ns;
	if (deadline > now_ns && deadline < *ret_next)
		*ret_next = deadline;
}

void watch_timers(struct keeper *k, int64_t now_ns, int64_t *ret_next)
{
	for (struct mount *m = k->mounts; m; m = m->next) {
		if (m->pid <= 0 || m->state == MOUNT_ENDING || m->state == MOUNT_LOST)
			continue;
		watch_stopped(k, m, now_ns, ret_next);
		watch_hanging(k, m, now_ns, ret_next);
	}
}
