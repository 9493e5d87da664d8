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
#include "agent/credentials.h"

/* Hub thread; goes on as a job. */
bool renew_on_request(struct agent *a, struct conn *keeper, struct wd_msg *m);

/* For a refresher: the same with the mount's own token, as a job. Takes over a reference. */
void renew_again(struct mount *mnt);
/* The mount has these credentials now: when they end, and when there will be others. */
void renew_note_expiry(struct mount *mnt, const struct credentials *c);

#endif
