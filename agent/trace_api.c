/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the tracers and the control API. A caller that reads too slowly loses events and is told how many; a stream's
 * worker may wait for its caller, the tracer's ring in between goes on.
 */
#include "agent/trace_api.h"

#include <errno.h>
#include <string.h>

#include "agent/control_internal.h"
#include "agent/trace.h"
#include "common/control.pb-c.h"
#include "common/utf8.h"

#define TAKE_BYTES ((size_t)32 << 10)
#define WAIT_MAX_MS 10000
#define BEAT_MS 1000
#define MS 1000000LL

static enum rpc_code out_of_memory(struct rpc_call *call)
{
	return rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "trace: the agent is out of memory");
}

static enum rpc_code no_trace(struct rpc_call *call, uint64_t id)
{
	return rpc_fail(call, RPC_NOT_FOUND, "there is no trace %llu; one that is not read for %d s ends",
		(unsigned long long)id, TRACER_PATIENCE_MS / 1000);
}

static enum rpc_code begin(struct rpc_call *call, const Warpdrive__V1__TraceRequest *in, uint64_t *ret_id)
{
	struct trace_filter filter = {.target = in->target, .path = in->path, .pod = in->pod};
	struct wd_err err = WD_ERR_INIT;
	int rc;

	if (control_mount(call))
		return rpc_fail(call, RPC_PERMISSION_DENIED, "trace: not through a mount's file");
	rc = tracer_begin(control_agent(call)->traces, &filter, ret_id, &err);
	if (rc == 0)
		return RPC_OK;
	return rpc_fail(call, rc == -EAGAIN || rc == -ENOMEM ? RPC_RESOURCE_EXHAUSTED : rpc_code_of(-rc), "%s", err.msg);
}

/* Names are the origin's: whatever is no text is not sent as such. */
static char *clean(const char *text)
{
	char *own = (char *)(uintptr_t)text; /* in what was taken */

	wd_utf8_clean(own);
	return own;
}

static bool fill_event(struct rpc_call *call, const struct trace_event *e, Warpdrive__V1__TraceEvent *out)
{
	const char *pod = "";
	int pod_len = (int)trace_pod(e->target, &pod);

	warpdrive__v1__trace_event__init(out);
	out->time_us = e->at_us;
	out->kind = (Warpdrive__V1__TraceKind)e->kind;
	out->tier = (Warpdrive__V1__TraceTier)e->tier;
	out->mode = (Warpdrive__V1__TraceMode)e->mode;
	out->pod = pod_len ? arena_printf(call->arena, "%.*s", pod_len, pod) : "";
	out->target = clean(e->target);
	out->dataset = clean(e->dataset);
	out->path = clean(e->path);
	out->offset = e->offset;
	out->length = e->length;
	out->wait_us = e->wait_us;
	out->code = e->code;
	return out->pod != NULL;
}

static bool fill_events(struct rpc_call *call, void *taken, size_t len, Warpdrive__V1__TraceEvents *out)
{
	size_t n = 0, at = 0;
	struct trace_event e;

	while (trace_next(taken, len, &at, &e))
		n++;
	out->events = arena_alloc(call->arena, (n + 1) * sizeof(*out->events));
	at = 0;
	while (out->events && trace_next(taken, len, &at, &e)) {
		Warpdrive__V1__TraceEvent *event = arena_alloc(call->arena, sizeof(*event));

		if (!event || !fill_event(call, &e, event))
			return false;
		out->events[out->n_events++] = event;
	}
	return out->events != NULL;
}

/* 0; -ENOMEM, and as tracer_take(). */
static int take(struct rpc_call *call, struct tracer *tr, int64_t wait_ms, Warpdrive__V1__TraceEvents *out)
{
	void *taken = arena_alloc(call->arena, TAKE_BYTES);
	struct trace_counts counts;
	size_t len;
	int rc = taken ? tracer_take(tr, taken, TAKE_BYTES, wd_now_ns() + wait_ms * MS, &len, &counts) : -ENOMEM;

	if (rc < 0)
		return rc;
	out->lost = counts.lost;
	out->server_bytes = counts.server_bytes;
	out->unseen_opens = counts.unseen_opens;
	return fill_events(call, taken, len, out) ? 0 : -ENOMEM;
}

static enum rpc_code failure(struct rpc_call *call, int rc)
{
	if (rc == -ENOTCONN)
		return rpc_fail(call, RPC_NOT_FOUND, "the mount has ended");
	if (rc == -ESHUTDOWN)
		return rpc_fail(call, RPC_UNAVAILABLE, "the trace has ended");
	return rc == -ENOMEM ? out_of_memory(call) : rpc_fail(call, RPC_CANCELLED, "the caller has gone");
}

enum rpc_code trace_api_start(struct rpc_call *call, const void *request, void *response)
{
	return begin(call, request, &((Warpdrive__V1__StartTraceResponse *)response)->id);
}

enum rpc_code trace_api_read(struct rpc_call *call, const void *request, void *response)
{
	const Warpdrive__V1__ReadTraceRequest *in = request;
	struct tracer *tr = control_mount(call) ? NULL : tracer_find(control_agent(call)->traces, in->id);
	int rc;

	if (!tr)
		return no_trace(call, in->id);
	rc = take(call, tr, in->wait_ms < WAIT_MAX_MS ? in->wait_ms : WAIT_MAX_MS, response);
	tracer_unref(tr);
	/* that it was stopped is no fault of the call that waits meanwhile */
	return rc < 0 && rc != -ESHUTDOWN ? failure(call, rc) : RPC_OK;
}

enum rpc_code trace_api_stop(struct rpc_call *call, const void *request, void *response)
{
	const Warpdrive__V1__StopTraceRequest *in = request;

	if (control_mount(call))
		return no_trace(call, in->id);
	tracer_end(control_agent(call)->traces, in->id);
	return RPC_OK;
}

/* A message, with memory of its own: a stream may be long. An empty one each second says that the trace goes on. */
static int send_events(struct rpc_call *call, struct tracer *tr)
{
	struct arena arena, *own = call->arena;
	Warpdrive__V1__TraceEvents out;
	int rc;

	arena_init(&arena);
	call->arena = &arena;
	warpdrive__v1__trace_events__init(&out);
	rc = take(call, tr, BEAT_MS, &out);
	if (rc == 0)
		rc = rpc_send(call, &out.base);
	call->arena = own;
	arena_done(&arena);
	return rc;
}

enum rpc_code trace_api_stream(struct rpc_call *call, const void *request, void *response)
{
	struct traces *t = control_agent(call)->traces;
	struct tracer *tr;
	uint64_t id;
	enum rpc_code code = begin(call, request, &id);
	int rc = 0;

	if (code != RPC_OK)
		return code;
	tr = tracer_find(t, id);
	while (tr && rc == 0)
		rc = send_events(call, tr);
	tracer_unref(tr);
	tracer_end(t, id);
	return failure(call, rc);
}
