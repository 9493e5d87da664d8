/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_TRACE_API_H
#define WD_AGENT_TRACE_API_H
/* The methods of the control API that follow reads (agent/trace.h), for who may see all mounts. trace_api_read and
 * trace_api_stream wait. */
#include "common/rpc.h"

enum rpc_code trace_api_start(struct rpc_call *call, const void *request, void *response);
enum rpc_code trace_api_read(struct rpc_call *call, const void *request, void *response);
enum rpc_code trace_api_stop(struct rpc_call *call, const void *request, void *response);
enum rpc_code trace_api_stream(struct rpc_call *call, const void *request, void *response);

#endif
