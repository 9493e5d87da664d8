/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The methods of the control API, and the way of a message to them. A method gets what it may see in its call's
 * argument: the agent, and the one mount that it is limited to, if any.
 *
 * Calls that wait for news have threads apart (a->waiters): neither status nor lookups ever queue behind them.
 */
#include "agent/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent/control_internal.h"
#include "agent/status.h"
#include "agent/trace_api.h"
#include "agent/warm.h"
#include "common/cleanup.h"
#include "common/control.h"
#include "common/control.pb-c.h"
#include "common/log.h"
#include "common/rpc.h"
#include "common/utf8.h"

#define WORKERS 8
#define STREAMS 8
#define STOP_MS 500
#define WAIT_MAX_MS 10000
#define PACE_MS 100 /* news of one task come no faster to one caller */
#define BEAT_MS 1000 /* and no slower, in a stream */
#define FAILURES_BYTES 8192 /* about, in one answer */
#define INLINE_MAX 32768 /* bytes of an answer in a message */
#define TASKS_MAX WARM_KEPT_MAX
#define MS 1000000LL

struct control {
	struct agent *agent;
	struct mount *mount; /* NULL: all of them */
	struct rpc_server *server;
};

static struct agent *agent_of(const struct rpc_call *call)
{
	return ((const struct control *)call->arg)->agent;
}

static struct mount *only_mount(const struct rpc_call *call)
{
	return ((const struct control *)call->arg)->mount;
}

struct agent *control_agent(const struct rpc_call *call)
{
	return agent_of(call);
}

struct mount *control_mount(const struct rpc_call *call)
{
	return only_mount(call);
}

/* ---- status ---- */

static enum rpc_code get_status(struct rpc_call *call, const void *request, void *response)
{
	Warpdrive__V1__GetStatusResponse *out = response;
	wd_autofree char *text = status_text(agent_of(call), only_mount(call));

	out->json = text ? arena_printf(call->arena, "%s", text) : NULL;
	return out->json ? RPC_OK : rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "status: out of memory");
}

/* ---- warm ---- */

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

static enum rpc_code start(struct rpc_call *call, const Warpdrive__V1__WarmRequest *in, uint64_t *ret_id)
{
	struct warm_options o = {.paths = in->paths,
		.npaths = in->n_paths,
		.includes = in->includes,
		.nincludes = in->n_includes,
		.excludes = in->excludes,
		.nexcludes = in->n_excludes,
		.max_file_size = in->max_file_size,
		.bandwidth = in->bandwidth,
		.workers = in->workers,
		.is_verifying = in->verify,
		.has_token = in->token.len == WARM_TOKEN};
	struct mount *only = only_mount(call), *mnt;
	struct wd_err err = WD_ERR_INIT;
	int rc;

	if (in->token.len > 0 && !o.has_token)
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "token: has %zu bytes, not %d", in->token.len, WARM_TOKEN);
	if (o.has_token)
		memcpy(o.token, in->token.data, WARM_TOKEN);
	if (only && in->target[0])
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "target: leave it out; the file's own mount is meant");
	mnt = only ? mount_ref(only) : find_target(agent_of(call), in->target);
	if (!mnt)
		return rpc_fail(call, RPC_NOT_FOUND, "nothing of WarpDrive is mounted on '%s'", in->target);
	rc = warm_start(agent_of(call)->warms, mnt, &o, ret_id, &err);
	mount_unref(mnt);
	return rc < 0 ? rpc_fail(call, rc == -EAGAIN ? RPC_RESOURCE_EXHAUSTED : rpc_code_of(-rc), "%s", err.msg) : RPC_OK;
}

static enum rpc_code start_warm(struct rpc_call *call, const void *request, void *response)
{
	Warpdrive__V1__StartWarmResponse *out = response;

	return start(call, request, &out->id);
}

/* Those from this number on, as many as fit. */
static bool fill_failures(struct rpc_call *call, struct warm *w, uint64_t from, Warpdrive__V1__WarmProgress *out)
{
	size_t bytes = 0, n = 0, max = 64;
	const char *path, *text;
	int code;

	out->failures = arena_alloc(call->arena, max * sizeof(*out->failures));
	while (out->failures && n < max && bytes < FAILURES_BYTES && warm_failure(w, from + n, &path, &code, &text)) {
		Warpdrive__V1__WarmFailure *f = arena_alloc(call->arena, sizeof(*f));

		if (!f)
			return false;
		warpdrive__v1__warm_failure__init(f);
		/* names are the origin's: whatever is no text is not sent as such */
		f->path = arena_printf(call->arena, "%s", path);
		if (!f->path)
			return false;
		wd_utf8_clean(f->path);
		f->code = code;
		f->text = (char *)(uintptr_t)text;
		bytes += strlen(path) + strlen(text) + 16;
		out->failures[n++] = f;
	}
	out->n_failures = n;
	return out->failures != NULL;
}

static bool fill_progress(struct rpc_call *call, struct warm *w, uint64_t failures_from,
	Warpdrive__V1__WarmProgress *out)
{
	struct warm_progress p;

	warm_look(w, &p);
	warpdrive__v1__warm_progress__init(out);
	out->id = p.id;
	out->version = p.version;
	out->state = (Warpdrive__V1__WarmState)p.state;
	out->is_listed = p.is_listed;
	out->files = p.files;
	out->files_done = p.files_done;
	out->files_failed = p.files_failed;
	out->files_skipped = p.files_skipped;
	out->bytes = p.bytes;
	out->bytes_present = p.bytes_present;
	out->bytes_fetched = p.bytes_fetched;
	out->elapsed_ms = p.elapsed_ms;
	out->target = arena_printf(call->arena, "%s", warm_target(w));
	return out->target && fill_failures(call, w, failures_from, out);
}

static enum rpc_code out_of_memory(struct rpc_call *call)
{
	return rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "warm: the agent is out of memory");
}

static enum rpc_code no_task(struct rpc_call *call, uint64_t id)
{
	return rpc_fail(call, RPC_NOT_FOUND, "there is no warm task %llu", (unsigned long long)id);
}

/* Waits for news, and then for a moment longer, for more to have come; not once the task is over. */
static void wait_for_news(struct warm *w, uint64_t version, int64_t wait_ms)
{
	int64_t begun = wd_now_ns();
	struct warm_progress p;

	warm_wait(w, version, begun + (wait_ms < WAIT_MAX_MS ? wait_ms : WAIT_MAX_MS) * MS);
	while (wait_ms >= PACE_MS && wd_now_ns() < begun + PACE_MS * MS) {
		warm_peek(w, &p);
		if (p.state != WARM_RUNNING)
			break;
		warm_wait(w, p.version, begun + PACE_MS * MS);
	}
}

static enum rpc_code get_warm(struct rpc_call *call, const void *request, void *response)
{
	const Warpdrive__V1__GetWarmRequest *in = request;
	struct warm *w = warm_find(agent_of(call)->warms, only_mount(call), in->id);
	bool is_good;

	if (!w)
		return no_task(call, in->id);
	if (in->wait_ms)
		wait_for_news(w, in->version, in->wait_ms);
	is_good = fill_progress(call, w, in->failures_seen, response);
	warm_unref(w);
	return is_good ? RPC_OK : out_of_memory(call);
}

static enum rpc_code cancel_warm(struct rpc_call *call, const void *request, void *response)
{
	const Warpdrive__V1__CancelWarmRequest *in = request;
	struct warm *w = warm_find(agent_of(call)->warms, only_mount(call), in->id);

	if (!w)
		return no_task(call, in->id);
	warm_cancel(w);
	warm_unref(w);
	return RPC_OK;
}

static enum rpc_code list_warm(struct rpc_call *call, const void *request, void *response)
{
	Warpdrive__V1__ListWarmResponse *out = response;
	struct agent *a = agent_of(call);
	uint64_t ids[TASKS_MAX];
	size_t n = warm_list(a->warms, only_mount(call), ids, TASKS_MAX);

	out->tasks = arena_alloc(call->arena, (n + 1) * sizeof(*out->tasks));
	for (size_t i = 0; out->tasks && i < n; i++) {
		struct warm *w = warm_find(a->warms, only_mount(call), ids[i]);
		Warpdrive__V1__WarmProgress *p = w ? arena_alloc(call->arena, sizeof(*p)) : NULL;

		if (p && fill_progress(call, w, UINT64_MAX, p))
			out->tasks[out->n_tasks++] = p;
		warm_unref(w);
	}
	return out->tasks ? RPC_OK : out_of_memory(call);
}

/* A message, with memory of its own: a stream may be long. */
static int send_progress(struct rpc_call *call, struct warm *w, uint64_t *failures_seen, struct warm_progress *ret_p)
{
	struct arena arena, *own = call->arena;
	Warpdrive__V1__WarmProgress out;
	int rc = -ENOMEM;

	arena_init(&arena);
	call->arena = &arena;
	if (fill_progress(call, w, *failures_seen, &out)) {
		*failures_seen += out.n_failures;
		ret_p->version = out.version;
		ret_p->state = (enum warm_state)out.state;
		ret_p->failures = out.n_failures;
		rc = rpc_send(call, &out.base);
	}
	call->arena = own;
	arena_done(&arena);
	return rc;
}

static enum rpc_code warm(struct rpc_call *call, const void *request, void *response)
{
	struct warm_progress p = {0};
	uint64_t id, failures_seen = 0;
	enum rpc_code code = start(call, request, &id);
	struct warm *w = code == RPC_OK ? warm_find(agent_of(call)->warms, NULL, id) : NULL;
	int rc = 0;

	if (!w)
		return code == RPC_OK ? no_task(call, id) : code;
	do {
		if (p.version)
			wait_for_news(w, p.version, BEAT_MS);
		rc = send_progress(call, w, &failures_seen, &p);
	} while (rc == 0 && (p.state == WARM_RUNNING || p.failures > 0));
	if (rc < 0)
		warm_cancel(w);
	warm_unref(w);
	return rc == 0 ? RPC_OK : rc == -ENOMEM ? out_of_memory(call) : rpc_fail(call, RPC_CANCELLED, "the caller has gone");
}

#define P "/warpdrive.v1.Agent/"
static const struct rpc_method methods[] = {
	{P "GetStatus", &warpdrive__v1__get_status_request__descriptor,
		&warpdrive__v1__get_status_response__descriptor, get_status, RPC_POLL},
	{P "StartWarm", &warpdrive__v1__warm_request__descriptor, &warpdrive__v1__start_warm_response__descriptor,
		start_warm, RPC_UNARY},
	{P "GetWarm", &warpdrive__v1__get_warm_request__descriptor, &warpdrive__v1__warm_progress__descriptor, get_warm,
		RPC_POLL},
	{P "CancelWarm", &warpdrive__v1__cancel_warm_request__descriptor,
		&warpdrive__v1__cancel_warm_response__descriptor, cancel_warm, RPC_UNARY},
	{P "ListWarm", &warpdrive__v1__list_warm_request__descriptor, &warpdrive__v1__list_warm_response__descriptor,
		list_warm, RPC_POLL},
	{P "Warm", &warpdrive__v1__warm_request__descriptor, &warpdrive__v1__warm_progress__descriptor, warm,
		RPC_STREAM},
	{P "StartTrace", &warpdrive__v1__trace_request__descriptor, &warpdrive__v1__start_trace_response__descriptor,
		trace_api_start, RPC_UNARY},
	{P "ReadTrace", &warpdrive__v1__read_trace_request__descriptor, &warpdrive__v1__trace_events__descriptor,
		trace_api_read, RPC_POLL},
	{P "StopTrace", &warpdrive__v1__stop_trace_request__descriptor, &warpdrive__v1__stop_trace_response__descriptor,
		trace_api_stop, RPC_UNARY},
	{P "Trace", &warpdrive__v1__trace_request__descriptor, &warpdrive__v1__trace_events__descriptor,
		trace_api_stream, RPC_STREAM},
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
	jobs_run(method->handler == get_warm || method->handler == trace_api_read ? a->waiters : a->control, run, ask);
	return true;
}
