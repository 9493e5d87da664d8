/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What follows a server's death.
 *
 * Each server is replaced at once, and only one that dies young again and again is replaced ever
 * more slowly. When none can be brought up for give_up_ns, the connection is aborted: an error beats
 * hanging for ever.
 */
#include "fuse/keeper.h"

#include <errno.h>
#include <signal.h>

#include "common/lock.h"
#include "common/log.h"
#include "fuse/keeper_kernel.h"

#define MS 1000000LL
#define YOUNG_NS (1000 * MS) /* a server that died before this age died young */
#define RESTART_MIN_NS (10 * MS)
#define RESTART_MAX_NS (5000 * MS)
#define RESTART_KILLED_NS (20 * MS) /* at most, after SIGKILL: the fault is not the server's */
#define FALL_BACK_AFTER 3	     /* young deaths, to the program that served before */
#define FIRST_TRIES 5		     /* a new mount whose server dies so often before READY fails */

static int64_t restart_delay(struct mount *m, bool served_well, bool was_killed)
{
	int64_t delay = RESTART_MIN_NS;

	if (served_well) {
		m->young_deaths = 0;
		return 0;
	}
	if (++m->young_deaths <= 3)
		return 0;
	for (unsigned i = 4; i < m->young_deaths && delay < RESTART_MAX_NS; i++)
		delay *= 2;
	if (was_killed && delay > RESTART_KILLED_NS)
		return RESTART_KILLED_NS;
	return delay < RESTART_MAX_NS ? delay : RESTART_MAX_NS;
}

/* A server that is ready has not served well yet, but may. */
int64_t mount_give_up_at(const struct keeper *k, const struct mount *m)
{
	bool is_waiting = m->state == MOUNT_STARTING || m->state == MOUNT_SERVING;

	return is_waiting && m->down_since_ns && !m->is_ready ? m->down_since_ns + k->give_up_ns
							      : 0;
}

void mount_give_up(struct keeper *k, struct mount *m)
{
	struct wd_err err = WD_ERR_INIT;

	if (m->state == MOUNT_STARTING) {
		wd_err_set(&err, ETIMEDOUT,
			"mount on '%s': the FUSE server '%s' does not start; see the keeper's log",
			m->target, k->server_path);
		mount_fail(k, m, &err);
		return;
	}
	m->restart_at_ns = 0;
	if (kernel_abort(m->major, m->minor, &err) < 0) {
		wd_error("no FUSE server for '%s' can be brought up, and %s", m->target, err.msg);
		if (m->pid == 0) /* one that does not get ready is the watchdog's to end */
			m->restart_at_ns = wd_now_ns() + RESTART_MAX_NS;
		m->down_since_ns = wd_now_ns();
		return;
	}
	wd_error("no FUSE server for '%s' could be brought up for %lld s (--give-up); its "
		 "connection is aborted, and whoever uses it gets errors; unmount it",
		m->target, (long long)(k->give_up_ns / (1000 * MS)));
	m->state = MOUNT_LOST;
	standby_cancel(k, m);
	keeper_count(k, WD_KEEPER_give_ups);
	if (m->pid > 0)
		kill(m->pid, SIGKILL);
}

void mount_restart(struct keeper *k, struct mount *m)
{
	struct wd_err err = WD_ERR_INIT;
	int64_t now = wd_now_ns();

	m->restart_at_ns = 0;
	if (adopt_former_lives(k, m))
		return; /* its end brings us back */
	m->restarts++;
	keeper_count(k, WD_KEEPER_server_restarts);
	if (server_start(k, m, &err) == 0)
		return;
	wd_error("%s", err.msg);
	m->young_deaths++;
	m->restart_at_ns = now + RESTART_MAX_NS;
}

/* The connection is dead though we did not unmount it: was that done by someone else? */
static void on_disconnected(struct keeper *k, struct mount *m)
{
	unsigned major, minor;

	if (m->state != MOUNT_LINGERING && kernel_device(m->target, &major, &minor, NULL) == 0 &&
		major == m->major && minor == m->minor) {
		wd_error("the connection of '%s' was aborted; unmount it", m->target);
		m->state = MOUNT_LOST;
		return;
	}
	if (m->state != MOUNT_LINGERING)
		wd_info("'%s' was unmounted by someone else", m->target);
	mount_over(k, m);
}

void mount_server_dead(struct keeper *k, struct mount *m, bool was_ready, bool was_killed)
{
	struct wd_err err = WD_ERR_INIT;
	bool is_young = wd_now_ns() - m->started_at_ns < YOUNG_NS;
	int64_t delay;

	if (m->state == MOUNT_ENDING) {
		mount_over(k, m);
		return;
	}
	if (m->state == MOUNT_LOST)
		return;
	if (kernel_is_disconnected(m->fuse_fd)) {
		on_disconnected(k, m);
		return;
	}
	if (!m->stalled_since_ns)
		m->stalled_since_ns = wd_now_ns();
	/* one that was ready and then ended from outside, or lived for a while, served well */
	if (!m->down_since_ns || (was_ready && (was_killed || !is_young)))
		m->down_since_ns = wd_now_ns();
	if (standby_take_over(k, m))
		return;
	delay = restart_delay(m, was_ready && !is_young, was_killed);
	if (!was_killed && m->young_deaths >= FALL_BACK_AFTER && program_crashes(k, m))
		m->young_deaths = 0;
	if (m->state == MOUNT_STARTING && m->young_deaths >= FIRST_TRIES) {
		wd_err_set(&err, EIO,
			"mount on '%s': the FUSE server '%s' does not start; see the "
			"keeper's log",
			m->target, k->server_path);
		mount_fail(k, m, &err);
		return;
	}
	if (delay == 0)
		mount_restart(k, m);
	else
		m->restart_at_ns = wd_now_ns() + delay;
}
