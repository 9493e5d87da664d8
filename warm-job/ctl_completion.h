/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_COMPLETION_H
#define WD_WARM_JOB_CTL_COMPLETION_H
/* `warpdrive-ctl completion bash`: the script that bash loads, made from the table of subcommands; the options of
 * each are those that its help tells of. */
#include "warm-job/ctl.h"

void ctl_completion_bash(const struct ctl_command *commands, size_t ncommands, FILE *out);

#endif
