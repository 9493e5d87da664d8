/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The methods of the control API, and the way of a message to them. A method gets what it may see in its call's
 * argument: the agent, and the one mount that it is limited to, if any.
 *
 * Calls that wait for news have threads apart (a->waiters): neither status nor lookups ever queue behind them.
 */
#include "agent/control_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent/status.h"
#include "agent/trace_api.h"
#include "common/cleanup.h"
#include "common/control.h"
#include "common/utf8.h"

#define WORKERS 8
#define STREAMS 8
#define STOP_MS 500
#define INLINE_MAX 32768 /* bytes of an answer in a message */

struct control {
	struct agent *agent;
	struct mount *mount; /* NULL: all of them */
	struct rpc_server *server;
};

struct agent *control_agent(const struct rpc_call *call)
{
	return ((const struct control *)call->arg)->agent;
}

struct mount *control_mount(const struct rpc_call *call)
{
	return ((const struct control *)call->arg)->mount;
}

/* ---- what the methods share ---- */

static struct mount *find_target(struct agent *a, const char *target)
{
	struct mount *mnt;

	wd_lock(&a->lock);
	for (mnt = a->mounts; mnt && strcmp(mnt->target, target) != 0; mnt = mnt->next)
		;
	if (mnt)
		mount_ref(mnt);
	wd_unlock(&a->lock);
	return mnt;
}

enum rpc_code control_target(struct rpc_call *call, const char *target, struct mount **ret_mount)
{
	struct mount *only = control_mount(call);

	if (only && target[0])
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "target: leave it out; the file's own mount is meant");
	*ret_mount = only ? mount_ref(only) : find_target(control_agent(call), target);
	return *ret_mount ? RPC_OK : rpc_fail(call, RPC_NOT_FOUND, "nothing of WarpDrive is mounted on '%s'", target);
}

char *control_text(struct rpc_call *call, const char *text)
{
	char *copy = arena_printf(call->arena, "%s", text);

	if (copy)
		wd_utf8_clean(copy);
	return copy;
}

enum rpc_code control_no_memory(struct rpc_call *call)
{
	return rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "the agent is out of memory");
}

/* ---- status ---- */

static enum rpc_code get_status(struct rpc_call *call, const void *request, void *response)
{
	Warpdrive__V1__GetStatusResponse *out = response;
	wd_autofree char *text = status_text(control_agent(call), control_mount(call));

	out->json = text ? arena_printf(call->arena, "%s", text) : NULL;
	return out->json ? RPC_OK : rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "status: out of memory");
}

#define P "/warpdrive.v1.Agent/"
#define T(name) &warpdrive__v1__##name##__descriptor
static const struct rpc_method methods[] = {
	{P "GetStatus", T(get_status_request), T(get_status_response), get_status, RPC_POLL},
	{P "StartWarm", T(warm_request), T(start_warm_response), control_start_warm, RPC_UNARY},
	{P "GetWarm", T(get_warm_request), T(warm_progress), control_get_warm, RPC_POLL},
	{P "CancelWarm", T(cancel_warm_request), T(cancel_warm_response), control_cancel_warm, RPC_UNARY},
	{P "ListWarm", T(list_warm_request), T(list_warm_response), control_list_warm, RPC_POLL},
	{P "Warm", T(warm_request), T(warm_progress), control_warm, RPC_STREAM},
	{P "ListFiles", T(list_files_request), T(list_files_response), control_list_files, RPC_POLL},
	{P "Evict", T(evict_request), T(evict_response), control_evict, RPC_UNARY},
	{P "Pin", T(pin_request), T(pin_response), control_pin, RPC_UNARY},
	{P "Unpin", T(pin_request), T(pin_response), control_unpin, RPC_UNARY},
	{P "ListPins", T(list_pins_request), T(list_pins_response), control_list_pins, RPC_POLL},
	{P "GetStats", T(get_stats_request), T(node_stats), control_get_stats, RPC_POLL},
	{P "Stats", T(stats_request), T(node_stats), control_stats, RPC_STREAM},
	{P "ListMounts", T(list_mounts_request), T(list_mounts_response), control_list_mounts, RPC_POLL},
	{P "ListDatasets", T(list_datasets_request), T(list_datasets_response), control_list_datasets, RPC_POLL},
	{P "SetCache", T(set_cache_request), T(cache_state), control_set_cache, RPC_POLL},
	{P "Reload", T(reload_request), T(reload_response), control_reload, RPC_UNARY},
	{P "StartTrace", T(trace_request), T(start_trace_response), trace_api_start, RPC_UNARY},
	{P "ReadTrace", T(read_trace_request), T(trace_events), trace_api_read, RPC_POLL},
	{P "StopTrace", T(stop_trace_request), T(stop_trace_response), trace_api_stop, RPC_UNARY},
	{P "Trace", T(trace_request), T(trace_events), trace_api_stream, RPC_STREAM},
};
#define NMETHODS (sizeof(methods) / sizeof(methods[0]))

/* ---- gRPC ---- */

int control_start(struct agent *a, struct control **ret_control, struct wd_err *err)
{
	struct control *c = calloc(1, sizeof(*c));
	char path[4096];
	struct rpc_config config = {.path = path,
		.methods = methods,
		.nmethods = NMETHODS,
		.arg = c,
		.workers = WORKERS,
		.stream_workers = STREAMS,
		.is_for_group = a->settings->socket_for_group};
	int rc;

	if (!c)
		return wd_err_set(err, ENOMEM, "out of memory");
	c->agent = a;
	snprintf(path, sizeof(path), "%s/control.sock", a->settings->run_dir);
	rc = rpc_start(&config, &c->server, err);
	if (rc < 0) {
		free(c);
		return rc;
	}
	*ret_control = c;
	return 0;
}

void control_stop(struct control *c)
{
	if (!c)
		return;
	rpc_stop(c->server, STOP_MS);
	free(c);
}

/* ---- messages ---- */

struct ask {
	struct control control;
	struct conn *conn;
	const struct rpc_method *method;
	uint64_t id;
	size_t len;
	unsigned char bytes[];
};

static int errno_of(enum rpc_code code)
{
	switch (code) {
	case RPC_INVALID_ARGUMENT:
		return EINVAL;
	case RPC_NOT_FOUND:
		return ENOENT;
	case RPC_PERMISSION_DENIED:
		return EACCES;
	case RPC_RESOURCE_EXHAUSTED:
		return EAGAIN;
	case RPC_CANCELLED:
		return ECANCELED;
	case RPC_UNAVAILABLE:
		return ESHUTDOWN;
	default:
		return EIO;
	}
}

static void ask_free(struct ask *ask)
{
	mount_unref(ask->control.mount);
	conn_end(ask->conn);
	conn_unref(ask->conn);
	free(ask);
}

static void reply(struct ask *ask, const void *bytes, size_t len)
{
	bool is_long = len > (ask->control.mount ? WD_CONTROL_DATA_MAX : INLINE_MAX);
	wd_autoclose int fd = is_long ? memfd_create("warpdrive-control", MFD_CLOEXEC) : -1;
	struct wd_msg *m = hub_scratch();

	if (is_long && ask->control.mount) {
		conn_reply_error(ask->conn, WD_MSG_CONTROL, ask->id, -E2BIG, "the answer is too long for a control file");
		return;
	}
	if (is_long && (fd < 0 || write(fd, bytes, len) != (ssize_t)len)) {
		conn_reply_error(ask->conn, WD_MSG_CONTROL, ask->id, -ENOMEM, "the agent is out of memory");
		return;
	}
	wd_msg_start_reply(m, WD_MSG_CONTROL, ask->id, 0);
	wd_put_bytes(m, bytes, is_long ? 0 : len);
	if (is_long)
		wd_put_fd(m, fd);
	conn_send(ask->conn, m);
}

static void run(void *arg)
{
	struct ask *ask = arg;
	struct arena arena;
	struct rpc_call call = {
		.arena = &arena, .arg = &ask->control, .deadline_ns = INT64_MAX, .cancel_fd = -1};
	enum rpc_code code;
	void *bytes;
	size_t len;

	arena_init(&arena);
	code = rpc_run(ask->method, &call, ask->bytes, ask->len, &bytes, &len);
	if (code == RPC_OK)
		reply(ask, bytes, len);
	else
		conn_reply_error(ask->conn, WD_MSG_CONTROL, ask->id, -errno_of(code),
			call.text ? call.text : rpc_code_name(code));
	arena_done(&arena);
	ask_free(ask);
}

#define NOT_HERE "not through a volume: ask on the node, as root"
/* What is special about some methods. */
static const struct special {
	const char *name;
	bool is_long;	      /* it waits for news, or has much to go through: not beside status */
	const char *of_node; /* why it is not for who calls through a mount; NULL: it is */
} specials[] = {
	{"GetWarm", true, NULL},
	{"ReadTrace", true, NULL},
	{"ListFiles", true, NULL},
	{"Evict", true, NOT_HERE},
	{"Pin", true, NOT_HERE},
	{"Unpin", true, NOT_HERE},
	{"ListPins", false, NOT_HERE},
	{"GetStats", false, NOT_HERE},
	{"ListMounts", false, NOT_HERE},
	{"ListDatasets", true, NOT_HERE},
	{"SetCache", false, NOT_HERE},
	{"Reload", false, NOT_HERE},
};

static const struct special *special_of(const char *name)
{
	static const struct special none = {0};

	for (size_t i = 0; i < sizeof(specials) / sizeof(specials[0]); i++)
		if (strcmp(specials[i].name, name) == 0)
			return &specials[i];
	return &none;
}

static const struct rpc_method *find_method(const char *name)
{
	for (size_t i = 0; i < NMETHODS; i++)
		if (strcmp(methods[i].path + strlen(P), name) == 0 && methods[i].kind != RPC_STREAM)
			return &methods[i];
	return NULL;
}

bool control_on_message(struct agent *a, struct mount *mnt, struct conn *c, struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	char name[WD_CONTROL_METHOD_MAX];
	const struct rpc_method *method;
	const struct special *special;
	const void *bytes;
	struct ask *ask;
	size_t len;

	if (!wd_rd_str(&r, name, sizeof(name)))
		return false;
	bytes = wd_rd_bytes(&r, &len);
	if (!wd_rd_done(&r))
		return false;
	method = find_method(name);
	if (!method) {
		conn_reply_error(c, WD_MSG_CONTROL, m->id, -ENOSYS, "this agent has no such method");
		return true;
	}
	special = special_of(name);
	if (mnt && special->of_node) {
		conn_reply_error(c, WD_MSG_CONTROL, m->id, -EPERM, special->of_node);
		return true;
	}
	ask = calloc(1, sizeof(*ask) + len);
	if (!ask) {
		conn_reply_error(c, WD_MSG_CONTROL, m->id, -ENOMEM, "the agent is out of memory");
		return true;
	}
	ask->control.agent = a;
	ask->control.mount = mnt ? mount_ref(mnt) : NULL;
	ask->conn = conn_ref(c);
	conn_begin(c);
	ask->method = method;
	ask->id = m->id;
	ask->len = len;
	memcpy(ask->bytes, len ? bytes : "", len);
	jobs_run(special->is_long ? a->waiters : a->control, run, ask);
	return true;
}
