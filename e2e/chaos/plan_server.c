/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The FUSE server is killed, at any moment of its life: also before it is ready. With --stop it is stopped and
 * the keeper must find out and replace it.
 */
#include <signal.h>

#include "e2e/chaos/chaos.h"

static int stop_server(struct chaos *c, struct wd_err *err)
{
	pid_t pids[CHAOS_MANY];
	size_t n = chaos_pids(c, ROLE_SERVER, pids);
	int rc = chaos_signal(c, ROLE_SERVER, SIGSTOP, err);

	for (size_t i = 0; i < n && rc == 0; i++)
		rc = chaos_wait_gone(c, pids[i], err);
	return rc;
}

static int inject(struct chaos *c, struct wd_err *err)
{
	if (chaos_options(c)->is_stop)
		return stop_server(c, err);
	return chaos_kill(c, ROLE_SERVER, chaos_random(c, 8) ? SIGKILL : SIGTERM, err);
}

const struct plan plan_server = {
	.name = "server",
	.help = "the FUSE server is killed; with --stop, stopped",
	.flags = PLAN_IS_MIXABLE,
	.min_ms = 3,
	.max_ms = 300,
	.faults = 150,
	.inject = inject,
};
