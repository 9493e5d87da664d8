/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_STATUS_H
#define WD_WARM_JOB_CTL_STATUS_H
/* What `status` makes of the daemons' answers; pure functions of JSON, so that they can be tested.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

/*
 * One object from both answers (either may be NULL: that daemon does not run): everything of the
 * agent's, with "agent": {version, pid}, "keeper": {version, pid} and "mounts": one entry per
 * mount, the keeper's words about it (server_pid, restarts, state) joined to the agent's by id.
 * Returns a new reference.
 */
json_t *ctl_status_merge(const json_t *agent, const json_t *keeper);
/* The tables a person reads; wide: with more columns, and names in full. */
void ctl_status_print(const json_t *merged, bool is_wide, FILE *out);
/* As YAML, with texts in double quotes. */
void ctl_print_yaml(const json_t *root, FILE *out);

#endif
