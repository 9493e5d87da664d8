/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A roll-out and its roll-back, over and over: each program in turn is told to end and comes back from the
 * other build: the holder (--holder csi or supervisor), the agent, its server program with it, and the keeper.
 * So every mixture of both builds serves for a while: which is what --other-bin is for, be it a build with
 * other flags or of the release before. The supervisor brings agent and keeper back from its own build.
 *
 * A new agent brings another server program, and a new keeper starts servers of its own: each time the
 * server of before must go, or the upgrade did not happen.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "e2e/chaos/chaos.h"

#define TURNS 3

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

/* A supervisor that is of the wrong build would bring back the wrong daemons, and nobody would notice. */
static int check_build(struct chaos *c, enum role role, bool is_other, struct wd_err *err)
{
	const char *bin = is_other ? chaos_options(c)->other_bin : chaos_options(c)->bin;
	char link[64], exe[CHAOS_PATH] = "";
	pid_t pids[CHAOS_MANY];

	if (chaos_pids(c, role, pids) != 1)
		return wd_err_set(err, ESRCH, "there is not one %s", role_name(role));
	snprintf(link, sizeof(link), "/proc/%d/exe", (int)pids[0]);
	if (readlink(link, exe, sizeof(exe) - 1) > 0 && strncmp(exe, bin, strlen(bin)) == 0)
		return 0;
	return wd_err_set(err, EPROTO, "the %s runs '%s', which is not in '%s'", role_name(role), exe, bin);
}

static int inject(struct chaos *c, struct wd_err *err)
{
	static unsigned turn;
	const enum role turns[TURNS] = {chaos_holder(c), ROLE_AGENT, ROLE_KEEPER};
	bool is_other;
	pid_t servers[CHAOS_MANY];
	enum role next;
	size_t n;
	int rc;

	if (turns[turn % TURNS] == ROLE_COUNT)
		turn++;
	next = turns[turn % TURNS];
	is_other = turn / TURNS % 2 == 0;
	chaos_use_other_bin(c, next, is_other);
	turn++;
	n = chaos_pids(c, ROLE_SERVER, servers);
	rc = chaos_kill(c, next, SIGTERM, err);
	if (rc == 0)
		rc = chaos_start(c, next, err);
	if (rc == 0 && next != chaos_holder(c))
		rc = wait_for_servers_end(c, servers, n, err);
	if (rc == 0)
		rc = chaos_wait_held(c, err);
	if (rc == 0)
		rc = check_build(c, next, is_other, err);
	return rc < 0 ? rc : chaos_wait_progress(c, 1, err);
}

const struct plan plan_upgrade = {
	.name = "upgrade",
	.help = "holder, agent, server and keeper are replaced gracefully, by those of --other-bin and back",
	.flags = PLAN_NEEDS_OTHER_BIN,
	.min_ms = 50,
	.max_ms = 500,
	.faults = 20,
	.inject = inject,
};
