/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watchdog. A server that is dead is news from its pidfd; one that is stopped, hangs or thrashes
 * is not. So each server is sent a PING four times per server_timeout_ns and answers when its
 * threads move (server_beat.c). One that has answered nothing for the whole time, three PINGs among
 * it, is killed and replaced like any other that died; so is one that does not get READY in that
 * time.
 *
 * All mounts are pinged in one wake-up. When the keeper itself was stopped, or the machine slept, too
 * few PINGs were sent, and nobody is killed for it.
 *
 * A server of protocol version 1 knows no PING: it is watched only until it is READY.
 */
#include "fuse/keeper.h"

#include <signal.h>
#include <sys/socket.h>

#include "common/lock.h"
#include "common/log.h"

#define PINGS 4
#define PINGS_UNANSWERED 3

static bool is_watched(const struct keeper *k, const struct mount *m)
{
	return k->server_timeout_ns > 0 && m->pid > 0 && m->control.fd >= 0 && !m->is_hung &&
	       m->state != MOUNT_ENDING && m->state != MOUNT_LOST &&
	       (!m->is_ready || m->server_version >= 2);
}

/* At a multiple of the interval, so that the mounts share their wake-ups. */
static int64_t next_ping(const struct keeper *k, int64_t now_ns)
{
	int64_t every = k->server_timeout_ns / PINGS;

	return every > 0 ? (now_ns / every + 1) * every : now_ns;
}

void watch_start(struct keeper *k, struct mount *m)
{
	m->is_hung = false;
	m->alive_at_ns = wd_now_ns();
	m->ping_at_ns = next_ping(k, m->alive_at_ns);
	m->pings_unanswered = 0;
}

void watch_pong(struct mount *m)
{
	m->alive_at_ns = wd_now_ns();
	m->pings_unanswered = 0;
}

static void ping(struct keeper *k, struct mount *m, int64_t now_ns)
{
	m->ping_at_ns = next_ping(k, now_ns);
	m->pings_unanswered++;
	if (!m->is_ready)
		return; /* it listens to GO alone */
	wd_msg_start(&k->out, WD_MSG_PING, ++k->next_id);
	wd_msg_send(m->control.fd, &k->out, MSG_DONTWAIT);
}

static void watch_one(struct keeper *k, struct mount *m, int64_t now_ns, int64_t *ret_next)
{
	int64_t deadline;

	if (!is_watched(k, m))
		return;
	if (now_ns >= m->ping_at_ns)
		ping(k, m, now_ns);
	deadline = m->alive_at_ns + k->server_timeout_ns;
	if (now_ns >= deadline && m->pings_unanswered >= PINGS_UNANSWERED) {
		wd_error("the FUSE server %d of '%s' %s for %lld ms and is killed", (int)m->pid,
			m->target, m->is_ready ? "answered nothing" : "did not get ready",
			(long long)((now_ns - m->alive_at_ns) / 1000000));
		m->is_hung = true;
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
	for (struct mount *m = k->mounts; m; m = m->next)
		watch_one(k, m, now_ns, ret_next);
}
