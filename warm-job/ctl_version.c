/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `warpdrive-ctl version`: its own version, and those of the daemons that run. A daemon that does
 * not run is no fault.
 */
#include "warm-job/ctl.h"

#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/proto.h"

static const struct option long_options[] = {
	{"help", no_argument, NULL, 'h'},
	{"run-dir", required_argument, NULL, 'r'},
	{NULL, 0, NULL, 0},
};

static void show(const char *name, const char *run_dir, const char *socket_name, unsigned type)
{
	struct wd_err err = WD_ERR_INIT;
	wd_autofree char *text = NULL;
	char path[108];

	if (ctl_run_path(run_dir, socket_name, path, &err) < 0 ||
		ctl_fetch_status(path, type, &text, &err) < 0) {
		printf("%s is not running in %s\n", name, run_dir);
		return;
	}
	json_t *object = json_loads(text, 0, NULL);
	const char *version = json_string_value(json_object_get(object, "version"));

	printf("%s %s\n", name, version ? version : "(unknown version)");
	json_decref(object);
}

enum ctl_exit ctl_version(const struct ctl_command *self, int argc, char **argv)
{
	const char *run_dir = NULL;
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":hr:", long_options, NULL)) != -1) {
		if (c == 'h')
			return ctl_print_help(self);
		if (c != 'r')
			return ctl_usage(self, "bad option '%s'", argv[optind - 1]);
		run_dir = optarg;
	}
	run_dir = ctl_run_dir(run_dir);
	printf("warpdrive-ctl %s\n", WD_VERSION);
	show("warpdrive-agent", run_dir, "agent.sock", WD_MSG_STATUS);
	show("warpdrive-keeper", run_dir, "keeper.sock", WD_MSG_KEEPER_STATUS);
	return CTL_DONE;
}
