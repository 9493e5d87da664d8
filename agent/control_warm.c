/* SPDX-License-Identifier: Apache-2.0 */
/* The control API's calls about warm tasks (agent/warm.h). */
#include <errno.h>
#include <string.h>

#include "agent/control_internal.h"
#include "agent/warm.h"
#include "common/lock.h"

#define WAIT_MAX_MS 10000
#define PACE_MS 100 /* news of one task come no faster to one caller */
#define BEAT_MS 1000 /* and no slower, in a stream */
#define FAILURES_BYTES 8192 /* about, in one answer */
#define TASKS_MAX WARM_KEPT_MAX
#define MS 1000000LL

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
	struct mount *mnt;
	struct wd_err err = WD_ERR_INIT;
	enum rpc_code code;
	int rc;

	if (in->token.len > 0 && !o.has_token)
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "token: has %zu bytes, not %d", in->token.len, WARM_TOKEN);
	if (o.has_token)
		memcpy(o.token, in->token.data, WARM_TOKEN);
	code = control_target(call, in->target, &mnt);
	if (code != RPC_OK)
		return code;
	rc = warm_start(control_agent(call)->warms, mnt, &o, ret_id, &err);
	mount_unref(mnt);
	return rc < 0 ? rpc_fail(call, rc == -EAGAIN ? RPC_RESOURCE_EXHAUSTED : rpc_code_of(-rc), "%s", err.msg) : RPC_OK;
}

enum rpc_code control_start_warm(struct rpc_call *call, const void *request, void *response)
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
		f->path = control_text(call, path);
		if (!f->path)
			return false;
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

enum rpc_code control_get_warm(struct rpc_call *call, const void *request, void *response)
{
	const Warpdrive__V1__GetWarmRequest *in = request;
	struct warm *w = warm_find(control_agent(call)->warms, control_mount(call), in->id);
	bool is_good;

	if (!w)
		return no_task(call, in->id);
	if (in->wait_ms)
		wait_for_news(w, in->version, in->wait_ms);
	is_good = fill_progress(call, w, in->failures_seen, response);
	warm_unref(w);
	return is_good ? RPC_OK : control_no_memory(call);
}

enum rpc_code control_cancel_warm(struct rpc_call *call, const void *request, void *response)
{
	const Warpdrive__V1__CancelWarmRequest *in = request;
	struct warm *w = warm_find(control_agent(call)->warms, control_mount(call), in->id);

	if (!w)
		return no_task(call, in->id);
	warm_cancel(w);
	warm_unref(w);
	return RPC_OK;
}

enum rpc_code control_list_warm(struct rpc_call *call, const void *request, void *response)
{
	Warpdrive__V1__ListWarmResponse *out = response;
	struct agent *a = control_agent(call);
	uint64_t ids[TASKS_MAX];
	size_t n = warm_list(a->warms, control_mount(call), ids, TASKS_MAX);

	out->tasks = arena_alloc(call->arena, (n + 1) * sizeof(*out->tasks));
	for (size_t i = 0; out->tasks && i < n; i++) {
		struct warm *w = warm_find(a->warms, control_mount(call), ids[i]);
		Warpdrive__V1__WarmProgress *p = w ? arena_alloc(call->arena, sizeof(*p)) : NULL;

		if (p && fill_progress(call, w, UINT64_MAX, p))
			out->tasks[out->n_tasks++] = p;
		warm_unref(w);
	}
	return out->tasks ? RPC_OK : control_no_memory(call);
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

enum rpc_code control_warm(struct rpc_call *call, const void *request, void *response)
{
	struct warm_progress p = {0};
	uint64_t id, failures_seen = 0;
	enum rpc_code code = start(call, request, &id);
	struct warm *w = code == RPC_OK ? warm_find(control_agent(call)->warms, NULL, id) : NULL;
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
	return rc == 0 ? RPC_OK : rc == -ENOMEM ? control_no_memory(call) : rpc_fail(call, RPC_CANCELLED, "the caller has gone");
}
