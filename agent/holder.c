/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See holder.h. One lock around the table; sending never blocks, so it may be held meanwhile. What
 * follows from the end of a deposit touches mounts and is done after the lock is given back.
 */
#include "agent/holder.h"

#include <stdlib.h>

#include "agent/agent.h"
#include "agent/metrics.h"
#include "agent/mount.h"
#include "common/hold.h"
#include "common/lock.h"
#include "common/log.h"

struct ended {
	struct ended *next;
	uint64_t mount;
};

struct holder {
	struct agent *agent;
	struct wd_mutex lock;
	struct wd_hold hold;  /* guarded by lock, as all below */
	struct conn *conn;    /* the keeper that was told */
	struct ended *ended;  /* mounts to forget */
	bool is_leaving;
};

static int send_to_keeper(void *arg, struct wd_msg *m)
{
	struct holder *h = arg;

	return conn_send(h->conn, m);
}

static void on_end(void *arg, const struct wd_deposit *d, enum wd_hold_end why)
{
	struct holder *h = arg;
	struct ended *e;

	if (why == WD_HOLD_GIVEN_UP)
		metric_inc(METRIC_GIVEN_UP);
	if (why == WD_HOLD_UNHELD)
		return; /* MOUNT_DEL follows */
	e = calloc(1, sizeof(*e));
	if (!e)
		return;
	e->mount = d->mount;
	e->next = h->ended;
	h->ended = e;
}

struct holder *holder_new(struct agent *a)
{
	struct holder *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->agent = a;
	h->hold = (struct wd_hold){.send = send_to_keeper,
		.on_end = on_end,
		.send_arg = h,
		.arg = h,
		.give_up_ns = a->settings->give_up * 1000000};
	if (wd_hold_init(&h->hold) < 0) {
		free(h);
		return NULL;
	}
	wd_mutex_init(&h->lock);
	return h;
}

static void free_ended(struct ended *e)
{
	while (e) {
		struct ended *next = e->next;

		free(e);
		e = next;
	}
}

void holder_free(struct holder *h)
{
	if (!h)
		return;
	wd_hold_done(&h->hold);
	free_ended(h->ended);
	if (h->conn)
		conn_unref(h->conn);
	wd_mutex_done(&h->lock);
	free(h);
}

/* Gives the lock back, then does what must not be done under it. */
static void leave_lock(struct holder *h) WD_RELEASE(h->lock)
{
	struct ended *ended = h->ended;
	bool is_over = h->is_leaving && wd_hold_may_leave(&h->hold);

	h->ended = NULL;
	wd_unlock(&h->lock);
	for (struct ended *e = ended; e; e = e->next)
		mount_end(h->agent, e->mount);
	if (ended)
		agent_stop_if_idle(h->agent);
	free_ended(ended);
	if (is_over)
		hub_stop(h->agent->hub);
}

void holder_begin(struct holder *h, struct conn *keeper)
{
	struct conn *old;

	wd_lock(&h->lock);
	old = h->conn;
	h->conn = conn_ref(keeper);
	wd_hold_begin(&h->hold);
	leave_lock(h);
	if (old)
		conn_unref(old);
}

bool holder_message(struct holder *h, struct conn *keeper, struct wd_msg *m)
{
	bool is_good = true;

	wd_lock(&h->lock);
	if (h->conn == keeper)
		is_good = wd_hold_message(&h->hold, m);
	leave_lock(h);
	return is_good;
}

void holder_lost(struct holder *h, struct conn *keeper)
{
	struct conn *old = NULL;

	wd_lock(&h->lock);
	if (h->conn == keeper) {
		old = h->conn;
		h->conn = NULL;
		wd_hold_lost(&h->hold, wd_now_ns());
		hub_wake_at(h->agent->hub, wd_hold_tick(&h->hold, wd_now_ns()));
	}
	leave_lock(h);
	if (!old)
		return;
	mounts_end_unheld(h->agent);
	conn_unref(old);
}

void holder_tick(struct holder *h)
{
	wd_lock(&h->lock);
	hub_wake_at(h->agent->hub, wd_hold_tick(&h->hold, wd_now_ns()));
	leave_lock(h);
}

void holder_leave(struct holder *h)
{
	wd_lock(&h->lock);
	h->is_leaving = true;
	wd_hold_leave(&h->hold);
	if (!wd_hold_may_leave(&h->hold))
		wd_info("%u mounts are held here: ending when a keeper has confirmed that it has them",
			h->hold.count);
	leave_lock(h);
}

unsigned holder_count(struct holder *h)
{
	unsigned count;

	wd_lock(&h->lock);
	count = h->hold.count;
	wd_unlock(&h->lock);
	return count;
}

bool holder_has(struct holder *h, uint64_t mount)
{
	bool has;

	wd_lock(&h->lock);
	has = wd_hold_has(&h->hold, mount);
	wd_unlock(&h->lock);
	return has;
}
