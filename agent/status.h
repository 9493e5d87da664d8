/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_STATUS_H
#define WD_AGENT_STATUS_H
/* What the agent says of itself: the JSON of WD_MSG_STATUS and the Prometheus text of /metrics. */
#include <stdio.h>

#include "agent/agent.h"

/* Answers a STATUS request; runs as a job. Takes its own reference to c. */
void status_on_request(struct agent *a, struct conn *c, uint64_t id);
/* Answers a KEEPER_STATUS request with what the keeper says, when it does. */
void status_on_keeper_request(struct agent *a, struct conn *c, uint64_t id);
/* The same JSON, of all or (only not NULL) of what belongs to that mount; the caller frees it. NULL: out of memory. */
char *status_text(struct agent *a, struct mount *only);
void status_print_metrics(struct agent *a, FILE *out);

#endif
