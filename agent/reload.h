/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_RELOAD_H
#define WD_AGENT_RELOAD_H
/* Settings that are read again while the agent runs: on SIGHUP, and by `warpdrive-ctl reload`. */
#include "agent/agent.h"

#define RELOAD_KEYS_MAX 128

/* What is in force at the start. */
void reload_begin(struct agent *a);

/* Reads the settings as at the start, and applies those that may change: cache-size, free-space-floor,
 * bandwidth-limit. Of each that differs from what is in force, note (may be NULL) is told. With an error nothing has
 * changed. Several threads may call it; one after the other does it. Blocks for a file. */
int reload(struct agent *a, void (*note)(void *arg, const char *name, bool is_applied), void *arg, struct wd_err *err);

#endif
