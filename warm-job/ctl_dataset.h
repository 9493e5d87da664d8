/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_DATASET_H
#define WD_WARM_JOB_CTL_DATASET_H
/* The actions of `warpdrive-ctl dataset`; argv[0] is the action's name. */
#include "warm-job/ctl.h"

/* Lists the datasets of which something is in the cache. */
enum ctl_exit ctl_dataset_ls(const struct ctl_command *self, int argc, char **argv);
/* Writes the manifest of a pinned version: what a mounted directory holds, with size, mtime and ETag of each file,
 * as JSON lines (agent/origin_manifest.h). */
enum ctl_exit ctl_dataset_pin(const struct ctl_command *self, int argc, char **argv);

#endif
