/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent is killed and started again: alone, twice in a row before anybody could have noticed the first new
 * one, or together with the server.
 */
#include <signal.h>

#include "e2e/chaos/chaos.h"

static int kill_and_start(struct chaos *c, const enum role *roles, struct wd_err *err)
{
	int rc = chaos_kill_all(c, roles, SIGKILL, err);

	return rc < 0 ? rc : chaos_start(c, ROLE_AGENT, err);
}

static int inject(struct chaos *c, struct wd_err *err)
{
	static const enum role alone[] = {ROLE_AGENT, ROLE_COUNT};
	static const enum role both[] = {ROLE_AGENT, ROLE_SERVER, ROLE_COUNT};
	uint64_t choice = chaos_random(c, 8);
	int rc = kill_and_start(c, choice == 0 ? both : alone, err);

	if (rc == 0 && choice == 1)
		rc = kill_and_start(c, alone, err);
	return rc;
}

const struct plan plan_agent = {
	.name = "agent",
	.help = "the agent is killed and started again; sometimes twice, sometimes with the server",
	.flags = PLAN_IS_MIXABLE,
	.min_ms = 50,
	.max_ms = 550,
	.faults = 30,
	.inject = inject,
};
