/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_CONTROL_INTERNAL_H
#define WD_AGENT_CONTROL_INTERNAL_H
/* What methods of the control API that have files of their own get from agent/control.c. */
#include "agent/mount.h"
#include "common/rpc.h"

struct agent *control_agent(const struct rpc_call *call);
/* The one mount that the caller is limited to, as one through a mount's file is; NULL: he is not. */
struct mount *control_mount(const struct rpc_call *call);

#endif
