/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_MAN_H
#define WD_WARM_JOB_CTL_MAN_H
/* Manual pages, made of the table of subcommands and their help. */
#include "warm-job/ctl.h"

/* Writes warpdrive-ctl.1, and warpdrive-ctl-NAME.1 for each command, into a directory. */
int ctl_man_write(const struct ctl_command *commands, size_t n, const char *dir, struct wd_err *err);

#endif
