/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One call from bytes to bytes, without a transport: strings checked, decoded, handled, encoded,
 * logged. Any thread.
 */
#include "common/rpc.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/lock.h"
#include "common/log.h"
#include "common/utf8.h"
#include "common/rpc_stats.h"
#include "common/rpc_text.h"

enum rpc_code rpc_fail(struct rpc_call *call, enum rpc_code code, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	/* what could be quoted from a request was checked; what a peer said was not, and snprintf may have cut a
	 * character in two */
	wd_utf8_clean(text);
	call->text = arena_printf(call->arena, "%s", text);
	return code;
}

enum rpc_code rpc_code_of(int code)
{
	switch (code) {
	case 0:
		return RPC_OK;
	case EINVAL:
	case E2BIG:
	case ENAMETOOLONG:
	case ENOTDIR:
	case ELOOP:
		return RPC_INVALID_ARGUMENT;
	case ENOENT:
		return RPC_NOT_FOUND;
	case EEXIST:
		return RPC_ALREADY_EXISTS;
	case EACCES:
	case EPERM:
		return RPC_PERMISSION_DENIED;
	case EKEYREJECTED:
		return RPC_UNAUTHENTICATED;
	case ENOSPC:
	case ENFILE:
	case EMFILE:
	case ENOMEM:
		return RPC_RESOURCE_EXHAUSTED;
	case EBUSY:
	case EALREADY:
		return RPC_ABORTED;
	case ECANCELED:
		return RPC_CANCELLED;
	case EAGAIN:
	case EHOSTDOWN:
	case ECONNREFUSED:
	case ECONNRESET:
	case EPIPE:
	case ESHUTDOWN:
	case ETIMEDOUT:
		return RPC_UNAVAILABLE;
	default:
		return RPC_INTERNAL;
	}
}

const char *rpc_code_name(enum rpc_code code)
{
	static const char *const names[] = {"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT",
		"DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
		"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
		"UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"};

	return (size_t)code < sizeof(names) / sizeof(names[0]) ? names[code] : "UNKNOWN";
}

bool rpc_is_cancelled(const struct rpc_call *call)
{
	struct pollfd p = {.fd = call->cancel_fd, .events = POLLIN};

	return call->cancel_fd >= 0 && poll(&p, 1, 0) > 0;
}

/* ---- a call ---- */

int rpc_send(struct rpc_call *call, const ProtobufCMessage *message)
{
	size_t len = protobuf_c_message_get_packed_size(message);
	uint8_t *bytes = malloc(len ? len : 1);
	int rc;

	if (!bytes)
		return -ENOMEM;
	protobuf_c_message_pack(message, bytes);
	rc = call->send(call, bytes, len);
	free(bytes);
	return rc;
}

static const char *find_subject(const ProtobufCMessage *m)
{
	const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field_by_name(m->descriptor, "volume_id");

	if (!f)
		f = protobuf_c_message_descriptor_get_field_by_name(m->descriptor, "name");
	return f && f->type == PROTOBUF_C_TYPE_STRING ? *(char *const *)((const char *)m + f->offset) : NULL;
}

static enum rpc_code run(const struct rpc_method *m, struct rpc_call *call, const void *bytes,
	size_t len, void **ret_bytes, size_t *ret_len)
{
	const char *bad = rpc_find_bad_text(m->in, bytes, len);
	ProtobufCMessage *request, *response;
	enum rpc_code code;

	if (bad)
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "%s: holds a NUL or bytes that are not UTF-8", bad);
	request = protobuf_c_message_unpack(m->in, &call->arena->allocator, len, bytes);
	if (!request)
		return rpc_fail(call, RPC_INTERNAL, "the request cannot be decoded as %s", m->in->name);
	response = arena_alloc(call->arena, m->out->sizeof_message);
	if (!response)
		return rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "out of memory");
	call->subject = find_subject(request);
	protobuf_c_message_init(m->out, response);
	code = m->handler(call, request, response);
	if (code != RPC_OK || m->kind == RPC_STREAM)
		return code;
	*ret_len = protobuf_c_message_get_packed_size(response);
	*ret_bytes = arena_alloc(call->arena, *ret_len ? *ret_len : 1);
	if (!*ret_bytes)
		return rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "out of memory");
	protobuf_c_message_pack(response, *ret_bytes);
	return RPC_OK;
}

static void log_call(const struct rpc_method *m, const struct rpc_call *call, enum rpc_code code,
	int64_t took_ns)
{
	bool is_quiet = code == RPC_OK && (m->kind == RPC_INLINE || m->kind == RPC_POLL); /* probes, every few seconds */
	enum wd_log_level level = is_quiet ? WD_LOG_DEBUG : code == RPC_OK ? WD_LOG_INFO : WD_LOG_WARN;

	if (!wd_log_enabled(level))
		return;
	wd_log(level, "%s%s%.128s%s: %s%s%s in %lld ms%s", strrchr(m->path, '/') + 1,
		call->subject && *call->subject ? " '" : "", call->subject ? call->subject : "",
		call->subject && *call->subject ? "'" : "", rpc_code_name(code),
		call->text ? ": " : "", call->text ? call->text : "", (long long)(took_ns / 1000000),
		rpc_is_cancelled(call) ? ", the caller has gone" : "");
}

enum rpc_code rpc_run(const struct rpc_method *m, struct rpc_call *call, const void *bytes,
	size_t len, void **ret_bytes, size_t *ret_len)
{
	int64_t start_ns = wd_now_ns();
	enum rpc_code code;

	*ret_bytes = NULL;
	*ret_len = 0;
	code = run(m, call, bytes, len, ret_bytes, ret_len);
	rpc_stats_add(m->path, code, wd_now_ns() - start_ns);
	log_call(m, call, code, wd_now_ns() - start_ns);
	return code;
}
