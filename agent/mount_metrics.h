/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_MOUNT_METRICS_H
#define WD_AGENT_MOUNT_METRICS_H
/* What there is to say of mounts, of all and of each, as Prometheus text. */
#include <stdio.h>

#include "agent/agent.h"

#define MOUNT_SERIES_MAX 256 /* mounts with series of their own */

/* Files that are open are counted, and conditions looked at: a few microseconds for each. */
void mounts_print_metrics(struct agent *a, FILE *out);

/* The pod's uid in a target of the kubelet's, .../pods/UID/volumes/...; "" where there is none. */
#define MOUNT_POD_MAX 64
void mount_pod_of(const char *target, char ret_pod[MOUNT_POD_MAX]);

#endif
