/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_RENEW_H
#define WD_AGENT_RENEW_H
/*
 * Other credentials for a mount that stands (the keeper's MOUNT_RENEW). The origin is asked whether it takes
 * them; if it does, or is away, every request that starts from then on carries them, retries of old ones too. If it
 * refuses, the old ones stay, and the mount's condition says so until better ones come.
 *
 * The mount's dataset stays what it is, whoever it is asked for as; proofs of access begin anew.
 */
#include "agent/agent.h"

/* Hub thread; goes on as a job. */
bool renew_on_request(struct agent *a, struct conn *keeper, struct wd_msg *m);

#endif
