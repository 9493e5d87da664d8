/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop, and when it ends. One thread, one epoll, one event at a time (an event handler may
 * free any other source). All deadlines share one timerfd that is set to the earliest before each wait.
 */
#include "fuse/keeper.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/lock.h"

#define STOP_AGAIN_NS 1000000000LL
#define SWEEP_AGAIN_NS 2000000000LL
#define IDLE_NS 60000000000LL /* --exit-when-idle: without ever a mount */

int source_watch(struct keeper *k, struct source *source, int fd,
	void (*on_event)(struct keeper *k, struct source *source), struct wd_err *err)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = source};

	if (epoll_ctl(k->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return wd_err_sys(err, errno, "watch a descriptor");
	source->fd = fd;
	source->on_event = on_event;
	return 0;
}

void source_close(struct keeper *k, struct source *source)
{
	if (source->fd < 0)
		return;
	epoll_ctl(k->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	close(source->fd);
	source->fd = -1;
}

void source_move(struct keeper *k, struct source *from, struct source *to)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = to};

	if (from->fd >= 0)
		epoll_ctl(k->epoll_fd, EPOLL_CTL_MOD, from->fd, &event);
	to->fd = from->fd;
	from->fd = -1;
}

/* ---- time ---- */

/* Stopping: a holder that stays with the mounts is best. Without one a private keeper unmounts what
 * is idle and waits for the rest; in a cluster it stays to the bitter end: the mounts are pods'. */
static void try_to_stop(struct keeper *k, int64_t now_ns)
{
	k->stop_again_at_ns = 0;
	if (holders_ask_leave(k) || !k->is_exit_when_idle)
		return;
	mounts_stop(k, true);
	k->stop_again_at_ns = now_ns + STOP_AGAIN_NS;
}

/* Clients that are no holders: these stay connected. */
static bool has_askers(const struct keeper *k)
{
	for (const struct client *c = k->clients; c; c = c->next)
		if (holder_of(k, c->id) < 0)
			return true;
	return false;
}

static void lifetime_timers(struct keeper *k, int64_t now_ns, int64_t *ret_next)
{
	if (k->is_stopping && !k->is_released && now_ns >= k->stop_again_at_ns)
		try_to_stop(k, now_ns);
	if (k->sweep_at_ns && now_ns >= k->sweep_at_ns)
		k->sweep_at_ns = records_sweep(k) ? now_ns + SWEEP_AGAIN_NS : 0;
	if (k->nmounts > 0 || has_askers(k))
		k->idle_since_ns = 0;
	else if (!k->idle_since_ns)
		k->idle_since_ns = now_ns;
	if (k->stop_again_at_ns && k->stop_again_at_ns < *ret_next)
		*ret_next = k->stop_again_at_ns;
	if (k->sweep_at_ns && k->sweep_at_ns < *ret_next)
		*ret_next = k->sweep_at_ns;
	if (k->is_exit_when_idle && k->idle_since_ns && k->idle_since_ns + IDLE_NS < *ret_next)
		*ret_next = k->idle_since_ns + IDLE_NS;
}

static void run_timers(struct keeper *k)
{
	struct itimerspec spec = {0};
	int64_t next = INT64_MAX;

	mount_timers(k, wd_now_ns(), &next);
	agent_timers(k, wd_now_ns(), &next);
	lifetime_timers(k, wd_now_ns(), &next);
	watch_timers(k, wd_now_ns(), &next);
	program_timers(k, wd_now_ns(), &next);
	agent_send_stats(k);
	if (next != INT64_MAX) {
		spec.it_value.tv_sec = next / 1000000000;
		spec.it_value.tv_nsec = next % 1000000000;
	}
	timerfd_settime(k->timer.fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

bool keeper_is_done(const struct keeper *k)
{
	bool is_needed = false, is_ending = false;

	for (const struct mount *m = k->mounts; m; m = m->next) {
		is_needed |= mount_stands(m);
		is_ending |= m->state == MOUNT_ENDING;
	}
	if (k->is_stopping)
		return !is_ending && (k->is_released || !is_needed);
	/* one that was started after a crash may never be asked for anything */
	return k->is_exit_when_idle && k->nmounts == 0 &&
	       (k->had_mounts ||
		       (k->idle_since_ns && wd_now_ns() - k->idle_since_ns >= IDLE_NS));
}

void keeper_round(struct keeper *k, int timeout_ms)
{
	struct epoll_event event;

	if (epoll_wait(k->epoll_fd, &event, 1, timeout_ms) == 1) {
		struct source *source = event.data.ptr;

		source->on_event(k, source);
	}
	agent_pump(k);
	holders_pump(k);
	run_timers(k);
}
