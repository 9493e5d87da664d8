/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_TRACE_H
#define WD_WARM_JOB_CTL_TRACE_H
/* How `warpdrive-ctl trace` shows an event. */
#include <stdbool.h>
#include <stdio.h>

#include "common/control.pb-c.h"

/* One line; control bytes in names are shown as "?". shows_mount: the path is below where the mount is. */
void ctl_trace_print(const Warpdrive__V1__TraceEvent *e, bool shows_mount, FILE *out);
/* One JSON object in a line, as in the agent's access log. */
void ctl_trace_print_json(const Warpdrive__V1__TraceEvent *e, FILE *out);

#endif
