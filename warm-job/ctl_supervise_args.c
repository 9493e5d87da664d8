/* SPDX-License-Identifier: Apache-2.0 */
#include "warm-job/ctl_supervise_args.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "warm-job/ctl.h"

#define ARGS_MAX (sizeof(((struct supervise_args *)0)->argv) / sizeof(const char *))

static FILE *open_file(const char *run_dir, const char *mode, char path[108])
{
	return ctl_run_path(run_dir, "supervisor.args", path, NULL) < 0 ? NULL : fopen(path, mode);
}

bool supervise_args_add(struct supervise_args *args, const char *arg)
{
	size_t n = 0;

	while (args->argv[n])
		n++;
	if (n + 1 >= ARGS_MAX)
		return false;
	args->argv[n] = arg;
	return true;
}

void supervise_args_save(const char *run_dir, const struct supervise_args *agent, const struct supervise_args *keeper)
{
	char path[108] = "";
	FILE *f = open_file(run_dir, "we", path);

	for (size_t n = SUPERVISE_FIXED_ARGS; f && agent->argv[n]; n++)
		fprintf(f, "a%s%c", agent->argv[n], 0);
	for (size_t n = SUPERVISE_FIXED_ARGS; f && keeper->argv[n]; n++)
		fprintf(f, "k%s%c", keeper->argv[n], 0);
	if (!f || fclose(f) != 0)
		wd_warn("write '%s': %s", path, strerror(errno));
}

static void forget(struct supervise_args *args)
{
	memset(args->argv + SUPERVISE_FIXED_ARGS, 0, (ARGS_MAX - SUPERVISE_FIXED_ARGS) * sizeof(args->argv[0]));
}

void supervise_args_load(const char *run_dir, struct supervise_args *agent, struct supervise_args *keeper)
{
	char path[108], *arg = NULL;
	FILE *f = open_file(run_dir, "re", path);
	size_t cap = 0;

	if (!f)
		return;
	forget(agent);
	forget(keeper);
	while (getdelim(&arg, &cap, 0, f) > 1) {
		char *kept = strdup(arg + 1);

		if (!kept || !supervise_args_add(arg[0] == 'a' ? agent : keeper, kept))
			break;
	}
	free(arg);
	fclose(f);
}
