/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_DIRECTORIES_H
#define WD_AGENT_DIRECTORIES_H
/*
 * The agent's directories where it has no right to make them: in a cluster they are on the node, root's, and an
 * init container hands them over before the agent starts under a uid of its own.
 */
#include "agent/settings.h"
#include "common/err.h"

/* Makes cache and run directory for "UID:GID", and gives over what another owner left in them. The cache is the
 * agent's alone; in the run directory it may make files and remove its own, and keeper.sock stays root's. Needs
 * CAP_CHOWN, CAP_FOWNER and CAP_DAC_OVERRIDE; does nothing where all is right already. */
int directories_make(const struct settings *s, const char *owner, struct wd_err *err);

#endif
