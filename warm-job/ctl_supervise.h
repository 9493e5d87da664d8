/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_SUPERVISE_H
#define WD_WARM_JOB_CTL_SUPERVISE_H
#include "warm-job/ctl.h"

enum ctl_exit ctl_supervise(const struct ctl_command *self, int argc, char **argv);

#endif
