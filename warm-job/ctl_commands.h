/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_COMMANDS_H
#define WD_WARM_JOB_CTL_COMMANDS_H
/* The subcommands that have their help beside them, for the table in ctl.c. */
#include "warm-job/ctl.h"

#define COMMAND(name)                 \
	extern const char ctl_##name##_help[]; \
	enum ctl_exit ctl_##name(const struct ctl_command *self, int argc, char **argv)

COMMAND(ls);
COMMAND(evict);
COMMAND(pin);
COMMAND(unpin);
COMMAND(stats);
COMMAND(top);
COMMAND(cache);
COMMAND(drain);
COMMAND(reload);
#undef COMMAND

#endif
