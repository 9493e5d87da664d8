/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_CONTROL_H
#define WD_AGENT_CONTROL_H
/*
 * The control API (common/control.proto), served by gRPC on <run dir>/control.sock, and as WD_MSG_CONTROL on agent.sock
 * and on the sockets of mounts' servers, for calls through a mount's control file. Those can name nothing of another
 * mount.
 */
#include "agent/mount.h"

struct control;

/* Serves gRPC; a->warms must be there. */
int control_start(struct agent *a, struct control **ret_control, struct wd_err *err);
/* Ends streams and calls. NULL is fine. */
void control_stop(struct control *c);

/* A CONTROL message: from a tool (mnt NULL), or through a mount's file. False: malformed, drop the peer. Answered on
 * a thread of its own kind, so hub and workers go on. */
bool control_on_message(struct agent *a, struct mount *mnt, struct conn *c, struct wd_msg *m);

#endif
