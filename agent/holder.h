/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_HOLDER_H
#define WD_AGENT_HOLDER_H
/*
 * The agent as a holder of the keeper's mounts (common/hold.h): what it keeps for a keeper that
 * dies, what it does when a keeper says that a mount has ended, and its own leave on SIGTERM.
 */
#include <stdbool.h>

#include "agent/hub.h"

struct agent;
struct holder;

struct holder *holder_new(struct agent *a);
void holder_free(struct holder *h);

/* The keeper behind this connection asks for what is held (hub thread). */
void holder_begin(struct holder *h, struct conn *keeper);
/* A message of a type that wd_hold_takes() (hub thread). False when it is malformed. */
bool holder_message(struct holder *h, struct conn *keeper, struct wd_msg *m);
/* A keeper's connection closed (hub thread): mounts that it was about to make are forgotten. */
void holder_lost(struct holder *h, struct conn *keeper);
/* The hub's timer: gives up what no keeper came for. */
void holder_tick(struct holder *h);

/* SIGTERM: stops the hub as soon as the keeper has agreed. Any thread. */
void holder_leave(struct holder *h);
unsigned holder_count(struct holder *h);
/* Any thread. */
bool holder_has(struct holder *h, uint64_t mount);

#endif
