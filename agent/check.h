/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_CHECK_H
#define WD_AGENT_CHECK_H
/*
 * What `warpdrive-ctl doctor` asks the agent: to look at itself and its cache directory, and to
 * knock at an origin with a mount's own credentials. Answers never hold a secret.
 */
#include "agent/agent.h"

/* WD_MSG_CHECK, on the hub thread; goes on as a control job. False when it is malformed. */
bool check_on_request(struct agent *a, struct conn *c, struct wd_msg *m);

#endif
