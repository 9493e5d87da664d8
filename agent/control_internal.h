/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_CONTROL_INTERNAL_H
#define WD_AGENT_CONTROL_INTERNAL_H
/* What control.c (the way of a call to its method) and control_*.c (families of methods) share. */
#include "agent/control.h"
#include "common/control.pb-c.h"
#include "common/rpc.h"

struct agent *control_agent(const struct rpc_call *call);
/* The one mount that the call is limited to; NULL: none. */
struct mount *control_mount(const struct rpc_call *call);
/* A reference to the mount that a request's `target` names; else the call has failed. */
enum rpc_code control_target(struct rpc_call *call, const char *target, struct mount **ret_mount);
/* A name of the origin's as text: what is none is not sent as such. NULL: out of memory. */
char *control_text(struct rpc_call *call, const char *text);
enum rpc_code control_no_memory(struct rpc_call *call);

#define METHOD(name) enum rpc_code control_##name(struct rpc_call *call, const void *request, void *response)
/* ---- control_warm.c ---- */
METHOD(start_warm);
METHOD(get_warm);
METHOD(cancel_warm);
METHOD(list_warm);
METHOD(warm);
/* ---- control_files.c ---- */
METHOD(list_files);
/* ---- control_cache.c ---- */
METHOD(evict);
METHOD(pin);
METHOD(unpin);
METHOD(list_pins);
/* ---- control_stats.c ---- */
METHOD(get_stats);
METHOD(stats);
METHOD(list_mounts);
/* ---- control_node.c ---- */
METHOD(list_datasets);
METHOD(set_cache);
METHOD(reload);
#undef METHOD

#endif
