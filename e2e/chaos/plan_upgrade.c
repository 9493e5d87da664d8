/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A roll-out and its roll-back, over and over: the agent is told to end and comes back from the other
 * build, its server program with it; then the keeper. So every mixture of both builds serves for a
 * while: which is what --other-bin is for, be it a build with other flags or of the release before.
 *
 * A new agent brings another server program, and a new keeper starts servers of its own: each time the
 * server of before must go, or the upgrade did not happen.
 */
#include <signal.h>

#include "e2e/chaos/chaos.h"

static enum role next = ROLE_AGENT;
static bool is_other;

static int wait_for_servers_end(struct chaos *c, const pid_t *pids, size_t n, struct wd_err *err)
{
	int rc = 0;

	for (size_t i = 0; i < n && rc == 0; i++) {
		rc = chaos_wait_gone(c, pids[i], err);
		if (rc < 0)
			wd_err_wrap(err, "the server of before");
	}
	return rc;
}

static int inject(struct chaos *c, struct wd_err *err)
{
	pid_t servers[CHAOS_MANY];
	size_t n;
	int rc;

	if (next == ROLE_AGENT)
		is_other = !is_other;
	chaos_use_other_bin(c, next, is_other);
	n = chaos_pids(c, ROLE_SERVER, servers);
	rc = chaos_kill(c, next, SIGTERM, err);
	if (rc == 0)
		rc = chaos_start(c, next, err);
	if (rc == 0)
		rc = wait_for_servers_end(c, servers, n, err);
	if (rc == 0)
		rc = chaos_wait_progress(c, 1, err);
	next = next == ROLE_AGENT ? ROLE_KEEPER : ROLE_AGENT;
	return rc;
}

const struct plan plan_upgrade = {
	.name = "upgrade",
	.help = "agent, server and keeper are replaced gracefully, from --bin to --other-bin and back",
	.flags = PLAN_NEEDS_OTHER_BIN,
	.min_ms = 50,
	.max_ms = 500,
	.faults = 20,
	.inject = inject,
};
