/* SPDX-License-Identifier: Apache-2.0 */
/* `warpdrive-ctl dataset ...`: finds the action that is wanted. */
#include "warm-job/ctl_dataset.h"

#include <string.h>

static const struct {
	const char *name;
	enum ctl_exit (*run)(const struct ctl_command *self, int argc, char **argv);
} actions[] = {
	{"ls", ctl_dataset_ls},
	{"pin", ctl_dataset_pin},
};

enum ctl_exit ctl_dataset(const struct ctl_command *self, int argc, char **argv)
{
	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")))
		return ctl_print_help(self);
	if (argc < 2)
		return ctl_usage(self, "needs an action: ls or pin");
	for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++)
		if (!strcmp(argv[1], actions[i].name))
			return actions[i].run(self, argc - 1, argv + 1);
	return ctl_usage(self, argv[1][0] == '-' ? "unknown option '%.20s'" : "unknown action '%.20s': there are ls and pin", argv[1]);
}
