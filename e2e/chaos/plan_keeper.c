/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper is killed, in turn: with all of its servers, as the end of its container does; with the agent;
 * with the supervisor; alone, while its servers go on. The next one takes the mount back from whoever holds
 * it. After the supervisor's end nobody would start a keeper: another mount does, which is unmounted again.
 * With --holder csi it is always killed together with csi, every other time with its servers, too.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

#include "e2e/chaos/chaos.h"

static int mount_another(struct chaos *c, struct wd_err *err)
{
	char dir[CHAOS_PATH + 32], data[CHAOS_PATH + 32], url[CHAOS_PATH + 64];
	const char *const mount[] = {"mount", url, dir, NULL};
	const char *const umount[] = {"umount", dir, NULL};

	snprintf(dir, sizeof(dir), "%s/another", chaos_dir(c));
	snprintf(data, sizeof(data), "%s/another-data", chaos_dir(c));
	snprintf(url, sizeof(url), "file://%s", data);
	mkdir(dir, 0755);
	mkdir(data, 0755);
	if (chaos_ctl(c, mount) != 0)
		return wd_err_set(err, EIO, "mount another dataset, for a supervisor: see ctl.txt");
	if (chaos_ctl(c, umount) != 0)
		return wd_err_set(err, EIO, "unmount the other dataset: see ctl.txt");
	return 0;
}

/* Two holders of three may be lost at once, but no more: the third must have the mount by then. */
static int kill_turn(struct chaos *c, const enum role *roles, struct wd_err *err)
{
	int rc = roles[1] == ROLE_SERVER || roles[1] == ROLE_COUNT ? 0 : chaos_wait_held(c, err);

	return rc < 0 ? rc : chaos_kill_all(c, roles, SIGKILL, err);
}

static int inject(struct chaos *c, struct wd_err *err)
{
	static const enum role with_supervisor[][4] = {
		{ROLE_KEEPER, ROLE_SERVER, ROLE_COUNT},
		{ROLE_KEEPER, ROLE_AGENT, ROLE_COUNT},
		{ROLE_KEEPER, ROLE_SUPERVISOR, ROLE_COUNT},
		{ROLE_KEEPER, ROLE_COUNT},
	}, with_csi[][4] = {
		{ROLE_KEEPER, ROLE_CSI, ROLE_SERVER, ROLE_COUNT},
		{ROLE_KEEPER, ROLE_CSI, ROLE_COUNT},
	};
	static unsigned turn;
	const enum role *roles = chaos_holder(c) == ROLE_CSI ? with_csi[turn % 2] : with_supervisor[turn % 4];
	int rc = kill_turn(c, roles, err);

	turn++;
	if (rc == 0 && roles[1] == ROLE_SUPERVISOR)
		rc = mount_another(c, err);
	if (rc == 0 && roles[1] != ROLE_SERVER && roles[1] != ROLE_COUNT)
		rc = chaos_start(c, roles[1], err);
	return rc < 0 ? rc : chaos_start(c, ROLE_KEEPER, err);
}

const struct plan plan_keeper = {
	.name = "keeper",
	.help = "the keeper is killed: with its servers, with the agent, with the supervisor or csi, alone",
	.flags = PLAN_NEEDS_HOLDER | PLAN_IS_MIXABLE,
	.min_ms = 50,
	.max_ms = 550,
	.faults = 30,
	.inject = inject,
};
