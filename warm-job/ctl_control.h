/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_CONTROL_H
#define WD_WARM_JOB_CTL_CONTROL_H
/*
 * Calls of the agent's control API (common/control.proto), by one of two ways: the agent's socket, for who may
 * connect to it, or the control file of a mount (common/control.h), for who sees only that. One thread; calls block.
 */
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

struct ctl_control;

/* Connects to the agent of run_dir. -ENOENT, -ECONNREFUSED: there is none; -EACCES: it is not for this user. */
int ctl_control_open_agent(const char *run_dir, struct ctl_control **ret_control, struct wd_err *err);
/* Opens the control file of the mount at mountpoint. */
int ctl_control_open_mount(const char *mountpoint, struct ctl_control **ret_control, struct wd_err *err);
void ctl_control_free(struct ctl_control *c);

/* Calls through a mount are limited to what is that mount's; the target in requests is empty then. */
bool ctl_control_is_mount(const struct ctl_control *c);
/* The largest request in bytes. */
size_t ctl_control_max(const struct ctl_control *c);
/* The same connection once more, after it was lost. Does not wait for an agent. */
int ctl_control_reopen(struct ctl_control *c, struct wd_err *err);

/*
 * Sends the request and returns the reply, which the caller frees with protobuf_c_message_free_unpacked(). An error
 * reply is -errno with the agent's reason; that the other side is too old to know the call is said as such.
 * -EINTR: a signal came, whether or not the agent did what was asked.
 */
int ctl_control_call(struct ctl_control *c, const char *method, const ProtobufCMessage *request,
	const ProtobufCMessageDescriptor *reply, ProtobufCMessage **ret_reply, struct wd_err *err);
/* Whether such an error of a call or reopen says that the agent was away, rather than that it refused. */
bool ctl_control_is_lost(int status);

#endif
