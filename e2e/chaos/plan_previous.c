/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A roll-back to the release before and the way forward again, over and over, under a keeper that stays:
 *
 *	the agent of --bin, which brings the server of --other-bin   -> it takes every mount over
 *	the agent of --other-bin, which brings none                  -> the server stays
 *	the agent of --bin with its own server                       -> that one takes over
 *	the agent of --other-bin again                               -> the server stays
 *
 * --other-bin is a build of the preset `previous`. A keeper of the release before cannot be replaced
 * under a mount: nobody held its descriptors.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>

#include "e2e/chaos/chaos.h"

static char config[CHAOS_PATH + 32]; /* of the agents */
static unsigned step;

static int say_server_program(const char *program, struct wd_err *err)
{
	FILE *f = fopen(config, "we");
	bool is_good = f && fprintf(f, "server-program: \"%s\"\n", program) > 0;

	if (f && fclose(f) != 0)
		is_good = false;
	return is_good ? 0 : wd_err_sys(err, errno, "write '%s'", config);
}

static int configure(struct chaos *c, struct wd_err *err)
{
	snprintf(config, sizeof(config), "%s/agent.yaml", chaos_dir(c));
	chaos_agent_argument(c, "--config");
	chaos_agent_argument(c, config);
	return say_server_program("", err);
}

static int inject(struct chaos *c, struct wd_err *err)
{
	char path[CHAOS_PATH + 32];
	pid_t servers[CHAOS_MANY];
	size_t n = chaos_pids(c, ROLE_SERVER, servers);
	bool is_other = step % 2, brings_other = step % 4 == 0;
	int rc;

	chaos_use_other_bin(c, ROLE_AGENT, is_other);
	snprintf(path, sizeof(path), "%s/warpdrive-fuse", chaos_options(c)->other_bin);
	rc = say_server_program(brings_other ? path : "", err);
	if (rc == 0)
		rc = chaos_kill(c, ROLE_AGENT, SIGTERM, err);
	if (rc == 0)
		rc = chaos_start(c, ROLE_AGENT, err);
	for (size_t i = 0; rc == 0 && !is_other && i < n; i++)
		rc = chaos_wait_gone(c, servers[i], err);
	if (rc == 0)
		rc = chaos_wait_progress(c, 1, err);
	step++;
	return rc;
}

const struct plan plan_previous = {
	.name = "previous",
	.help = "agent and server are replaced by those of the release before (--other-bin), and back",
	.flags = PLAN_NEEDS_OTHER_BIN,
	.min_ms = 50,
	.max_ms = 500,
	.faults = 20,
	.configure = configure,
	.inject = inject,
};
