/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transport: gRPC C core, and nothing of it leaves this file.
 *
 *	acceptor ── accept ──► core ── NEW ──► poller ── inline ──► answered at once
 *	                                         │ queue
 *	                                         └──────► worker ── DONE ──► poller: the last reference goes
 *
 * A call has two references: one until core says that the caller is done or gone (CLOSE), one until
 * the answer is sent (DONE). The worker of a stream waits for each message to be taken (SENT). For each method one request to core is outstanding, and one for all
 * unknown methods: without it a call of an unknown method would hang until its deadline.
 *
 * The listening socket is our own: core would unlink a live server's socket, and give it any mode.
 */
#include "common/rpc.h"

#include <errno.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <grpc/support/log.h>
#include <grpc/support/time.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "common/lock.h"
#include "common/log.h"
#include "common/proto.h"
#include "common/rpc_lane.h"

#ifdef __SANITIZE_THREAD__
/* core is not instrumented: what passes through its queue is ordered, but the sanitizer cannot see it */
void __tsan_acquire(void *addr);
void __tsan_release(void *addr);
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "race:libgrpc_unsecure.so\n"
	       "race:libgpr.so\n"
	       "race:libabsl_\n";
}
#define HAND_OVER(p) __tsan_release(p)
#define TAKE_OVER(p) __tsan_acquire(p)
#else
#define HAND_OVER(p) ((void)(p))
#define TAKE_OVER(p) ((void)(p))
#endif

#define STREAMS_MAX 32 /* calls at once on one connection; more have been seen to wedge clients */
#define MIN_PING_MS 5000

enum tag_kind { TAG_NEW, TAG_CLOSE, TAG_SENT, TAG_DONE, TAG_SHUTDOWN };

struct tag {
	enum tag_kind kind;
	struct call *call;
};

struct call {
	struct rpc_job job; /* first: what a lane knows of it */
	struct rpc_call pub;
	struct arena arena;
	struct rpc_server *server;
	const struct rpc_method *method; /* NULL: unknown to us */
	void *registered;
	atomic_int refs;
	struct tag tag_new, tag_close, tag_sent, tag_done;
	grpc_call *core;
	gpr_timespec deadline;
	grpc_metadata_array metadata;
	grpc_call_details details;
	grpc_byte_buffer *request;
	int close_cancelled;
	bool has_begun; /* a stream's first message was sent; the worker's */
	/* the message under way: 0, then 1 taken or -1 not; guarded by server->lock */
	int sent;
};

struct rpc_server {
	const struct rpc_method *methods;
	size_t nmethods;
	void **registered;
	void *arg;
	char *path;
	dev_t dev; /* of the socket file, to remove none but our own */
	ino_t ino;
	grpc_server *core;
	grpc_completion_queue *cq;
	grpc_server_credentials *credentials;
	struct tag tag_shutdown;
	int listener;
	pthread_t acceptor, poller;
	bool has_acceptor, has_poller;
	atomic_bool is_closing; /* no connection is accepted any more */

	struct rpc_lane calls, streams;

	struct wd_mutex lock;
	struct wd_cond taken; /* a message of some stream */
	struct wd_cond shut;
	bool is_shut WD_GUARDED_BY(lock);
};

/* ---- a call's life ---- */

static void call_unref(struct call *c)
{
	if (atomic_fetch_sub(&c->refs, 1) != 1)
		return;
	grpc_byte_buffer_destroy(c->request);
	grpc_metadata_array_destroy(&c->metadata);
	grpc_call_details_destroy(&c->details);
	if (c->core)
		grpc_call_unref(c->core);
	if (c->pub.cancel_fd >= 0)
		close(c->pub.cancel_fd);
	arena_done(&c->arena);
	free(c);
}

/* Posts one request to core: for a method, or (method NULL) for any that is not in the table. */
static void post(struct rpc_server *s, const struct rpc_method *method)
{
	struct call *c = calloc(1, sizeof(*c));
	grpc_call_error rc;

	if (!c) {
		wd_error("out of memory: %s is not served any more", method ? method->path : "the rest");
		return;
	}
	c->server = s;
	c->method = method;
	atomic_init(&c->refs, 1);
	c->tag_new = (struct tag){TAG_NEW, c};
	c->tag_close = (struct tag){TAG_CLOSE, c};
	c->tag_sent = (struct tag){TAG_SENT, c};
	c->tag_done = (struct tag){TAG_DONE, c};
	c->pub.cancel_fd = -1;
	arena_init(&c->arena);
	grpc_metadata_array_init(&c->metadata);
	grpc_call_details_init(&c->details);
	HAND_OVER(c);
	if (method)
		rc = grpc_server_request_registered_call(s->core, s->registered[method - s->methods],
			&c->core, &c->deadline, &c->metadata, &c->request, s->cq, s->cq, &c->tag_new);
	else
		rc = grpc_server_request_call(
			s->core, &c->core, &c->details, &c->metadata, s->cq, s->cq, &c->tag_new);
	if (rc != GRPC_CALL_OK)
		call_unref(c);
}

/* Sends the answer; c belongs to the poller afterwards. */
static void answer(struct call *c, enum rpc_code code, const void *bytes, size_t len)
{
	grpc_slice text = grpc_slice_from_copied_string(c->pub.text ? c->pub.text : rpc_code_name(code));
	grpc_slice data = grpc_slice_from_copied_buffer(len ? bytes : "", len);
	grpc_byte_buffer *message = grpc_raw_byte_buffer_create(&data, 1);
	grpc_op ops[3];
	size_t n = 0;

	memset(ops, 0, sizeof(ops));
	if (!c->has_begun)
		ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
	if (code == RPC_OK && c->method && c->method->kind != RPC_STREAM) {
		ops[n].op = GRPC_OP_SEND_MESSAGE;
		ops[n++].data.send_message.send_message = message;
	}
	ops[n].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
	ops[n].data.send_status_from_server.status = (grpc_status_code)code;
	ops[n].data.send_status_from_server.status_details = code == RPC_OK ? NULL : &text;
	n++;
	HAND_OVER(c);
	if (grpc_call_start_batch(c->core, ops, n, &c->tag_done, NULL) != GRPC_CALL_OK)
		call_unref(c);
	grpc_byte_buffer_destroy(message);
	grpc_slice_unref(data);
	grpc_slice_unref(text);
}

static void refuse(struct call *c, enum rpc_code code, const char *text)
{
	c->pub.text = text;
	answer(c, code, NULL, 0);
}

static int64_t monotonic_ns(gpr_timespec t)
{
	gpr_timespec m = gpr_convert_clock_type(t, GPR_CLOCK_MONOTONIC);

	if (gpr_time_cmp(t, gpr_inf_future(t.clock_type)) == 0)
		return INT64_MAX;
	return m.tv_sec * 1000000000 + m.tv_nsec;
}

static void handle(struct rpc_job *job)
{
	struct call *c = (struct call *)job;
	grpc_byte_buffer_reader reader;
	grpc_slice request;
	void *bytes;
	size_t len;
	enum rpc_code code;

	if (!c->request || !grpc_byte_buffer_reader_init(&reader, c->request)) {
		refuse(c, RPC_INTERNAL, "the call came without a request");
		return;
	}
	request = grpc_byte_buffer_reader_readall(&reader);
	grpc_byte_buffer_reader_destroy(&reader);
	code = rpc_run(c->method, &c->pub, GRPC_SLICE_START_PTR(request), GRPC_SLICE_LENGTH(request),
		&bytes, &len);
	grpc_slice_unref(request);
	answer(c, code, bytes, len);
}

/* ---- messages of a stream ---- */

static int send_message(struct rpc_call *call, const void *bytes, size_t len)
{
	struct call *c = (struct call *)((char *)call - offsetof(struct call, pub));
	struct rpc_server *s = c->server;
	grpc_slice data = grpc_slice_from_copied_buffer(len ? bytes : "", len);
	grpc_byte_buffer *message = grpc_raw_byte_buffer_create(&data, 1);
	grpc_op ops[2];
	size_t n = 0;
	int sent = -1;

	memset(ops, 0, sizeof(ops));
	if (!c->has_begun)
		ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
	ops[n].op = GRPC_OP_SEND_MESSAGE;
	ops[n++].data.send_message.send_message = message;
	c->sent = 0;
	HAND_OVER(c);
	if (grpc_call_start_batch(c->core, ops, n, &c->tag_sent, NULL) == GRPC_CALL_OK) {
		c->has_begun = true;
		wd_lock(&s->lock);
		while ((sent = c->sent) == 0)
			wd_cond_wait(&s->taken, &s->lock);
		wd_unlock(&s->lock);
	}
	grpc_byte_buffer_destroy(message);
	grpc_slice_unref(data);
	return sent > 0 ? 0 : -ECANCELED;
}

static void on_sent(struct rpc_server *s, struct call *c, bool is_good)
{
	wd_lock(&s->lock);
	c->sent = is_good ? 1 : -1;
	wd_cond_broadcast(&s->taken);
	wd_unlock(&s->lock);
}

/* ---- the poller ---- */

static void on_new(struct rpc_server *s, struct call *c, bool is_good)
{
	grpc_op op;

	if (!is_good) { /* the server is shutting down */
		call_unref(c);
		return;
	}
	post(s, c->method);
	c->pub.arena = &c->arena;
	c->pub.arg = s->arg;
	c->pub.deadline_ns = monotonic_ns(c->method ? c->deadline : c->details.deadline);
	c->pub.send = send_message;
	c->pub.cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	atomic_store(&c->refs, 2);
	memset(&op, 0, sizeof(op));
	op.op = GRPC_OP_RECV_CLOSE_ON_SERVER;
	op.data.recv_close_on_server.cancelled = &c->close_cancelled;
	HAND_OVER(c);
	if (grpc_call_start_batch(c->core, &op, 1, &c->tag_close, NULL) != GRPC_CALL_OK)
		call_unref(c);
	if (!c->method)
		refuse(c, RPC_UNIMPLEMENTED, "that method is not served here");
	else if (c->pub.cancel_fd < 0)
		refuse(c, RPC_RESOURCE_EXHAUSTED, "out of descriptors");
	else if (c->method->kind == RPC_INLINE)
		handle(&c->job);
	else if (!rpc_lane_push(c->method->kind == RPC_STREAM ? &s->streams : &s->calls, &c->job))
		refuse(c, RPC_RESOURCE_EXHAUSTED, "too many calls are under way already; try again later");
}

static void on_close(struct call *c)
{
	uint64_t one = 1;

	if (c->close_cancelled && c->pub.cancel_fd >= 0 &&
		write(c->pub.cancel_fd, &one, sizeof(one)) < 0)
		wd_warn("wake a cancelled call: %s", strerror(errno));
	call_unref(c);
}

static void *poll_core(void *arg)
{
	struct rpc_server *s = arg;

	for (;;) {
		grpc_event e = grpc_completion_queue_next(s->cq, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
		struct tag *tag = e.tag;

		if (e.type == GRPC_QUEUE_SHUTDOWN)
			return NULL;
		if (tag->call)
			TAKE_OVER(tag->call);
		switch (tag->kind) {
		case TAG_NEW:
			on_new(s, tag->call, e.success);
			break;
		case TAG_CLOSE:
			on_close(tag->call);
			break;
		case TAG_SENT:
			on_sent(s, tag->call, e.success);
			break;
		case TAG_DONE:
			call_unref(tag->call);
			break;
		case TAG_SHUTDOWN:
			wd_lock(&s->lock);
			s->is_shut = true;
			wd_cond_broadcast(&s->shut);
			wd_unlock(&s->lock);
			break;
		}
	}
}

/* ---- the listener ---- */

static void *accept_all(void *arg)
{
	struct rpc_server *s = arg;

	for (;;) {
		int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (atomic_load(&s->is_closing)) {
			if (fd >= 0)
				close(fd);
			return NULL;
		}
		if (fd >= 0) {
			grpc_server_add_channel_from_fd(s->core, fd, s->credentials);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE) {
			struct timespec pause = {.tv_nsec = 100000000};

			/* nothing tells when a descriptor is free again */
			wd_warn("accept a connection: %s", strerror(errno));
			nanosleep(&pause, NULL);
		}
	}
}

static void remove_socket(const struct rpc_server *s)
{
	struct stat st;

	if (lstat(s->path, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino)
		unlink(s->path);
}

static void log_core(gpr_log_func_args *args)
{
	if (args->severity == GPR_LOG_SEVERITY_ERROR)
		wd_warn("grpc: %s", args->message);
}

/* ---- start and stop ---- */

static void start_core(struct rpc_server *s)
{
	grpc_arg args[] = {
		{.type = GRPC_ARG_INTEGER, .key = GRPC_ARG_MAX_CONCURRENT_STREAMS, .value.integer = STREAMS_MAX},
		{.type = GRPC_ARG_INTEGER, .key = GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, .value.integer = RPC_MESSAGE_MAX},
		{.type = GRPC_ARG_INTEGER, .key = GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, .value.integer = 1},
		{.type = GRPC_ARG_INTEGER, .key = GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
			.value.integer = MIN_PING_MS},
	};
	grpc_channel_args list = {sizeof(args) / sizeof(args[0]), args};

	s->core = grpc_server_create(&list, NULL);
	s->cq = grpc_completion_queue_create_for_next(NULL);
	grpc_server_register_completion_queue(s->core, s->cq, NULL);
	for (size_t i = 0; i < s->nmethods; i++)
		s->registered[i] = grpc_server_register_method(
			s->core, s->methods[i].path, NULL, GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
	s->credentials = grpc_insecure_server_credentials_create();
	grpc_server_start(s->core);
	for (size_t i = 0; i < s->nmethods; i++)
		post(s, &s->methods[i]);
	post(s, NULL);
}

static int start_threads(struct rpc_server *s, const struct rpc_config *config)
{
	int rc = -pthread_create(&s->poller, NULL, poll_core, s);

	s->has_poller = rc == 0;
	if (rc == 0)
		rc = rpc_lane_start(&s->calls, config->workers);
	if (rc == 0)
		rc = rpc_lane_start(&s->streams, config->stream_workers);
	if (rc == 0) {
		rc = -pthread_create(&s->acceptor, NULL, accept_all, s);
		s->has_acceptor = rc == 0;
	}
	return rc;
}

int rpc_start(const struct rpc_config *config, struct rpc_server **ret_server, struct wd_err *err)
{
	struct rpc_server *s = calloc(1, sizeof(*s));
	const char *path = config->path;
	struct stat st;
	int rc;

	if (!s)
		return wd_err_set(err, ENOMEM, "serve '%s': out of memory", path);
	wd_mutex_init(&s->lock);
	wd_cond_init(&s->taken);
	wd_cond_init(&s->shut);
	rpc_lane_init(&s->calls, config->workers + RPC_QUEUE_MAX, handle);
	rpc_lane_init(&s->streams, config->stream_workers, handle);
	s->methods = config->methods;
	s->nmethods = config->nmethods;
	s->arg = config->arg;
	s->tag_shutdown.kind = TAG_SHUTDOWN;
	s->path = strdup(path);
	s->registered = calloc(s->nmethods, sizeof(*s->registered));
	gpr_set_log_function(log_core);
	grpc_init();
	s->listener = s->path && s->registered ? wd_listen_stream(path, config->is_for_group, err)
					       : wd_err_set(err, ENOMEM, "serve '%s': out of memory", path);
	rc = s->listener;
	if (rc >= 0) {
		if (lstat(path, &st) == 0) {
			s->dev = st.st_dev;
			s->ino = st.st_ino;
		}
		start_core(s);
		rc = start_threads(s, config);
		if (rc < 0)
			wd_err_sys(err, -rc, "serve '%s': start a thread", path);
	}
	if (rc < 0) {
		rpc_stop(s, 0);
		return rc;
	}
	*ret_server = s;
	return 0;
}

static void wait_shut(struct rpc_server *s, int64_t until_ns)
{
	wd_lock(&s->lock);
	while (!s->is_shut && (until_ns == 0 || wd_now_ns() < until_ns)) {
		if (until_ns)
			wd_cond_wait_until(&s->shut, &s->lock, until_ns);
		else
			wd_cond_wait(&s->shut, &s->lock);
	}
	wd_unlock(&s->lock);
}

static void stop_core(struct rpc_server *s, int grace_ms)
{
	grpc_server_shutdown_and_notify(s->core, s->cq, &s->tag_shutdown);
	if (s->has_poller)
		wait_shut(s, wd_now_ns() + (int64_t)grace_ms * 1000000);
	grpc_server_cancel_all_calls(s->core);
	/* no call begins any more */
	rpc_lane_stop(&s->calls);
	rpc_lane_stop(&s->streams);
	if (s->has_poller)
		wait_shut(s, 0);
	grpc_completion_queue_shutdown(s->cq);
	if (s->has_poller)
		pthread_join(s->poller, NULL);
	else
		poll_core(s); /* it could not be started: the queue is drained here */
	grpc_server_destroy(s->core);
	grpc_completion_queue_destroy(s->cq);
	grpc_server_credentials_release(s->credentials);
}

void rpc_stop(struct rpc_server *s, int grace_ms)
{
	if (!s)
		return;
	if (s->listener >= 0)
		remove_socket(s);
	if (s->has_acceptor) {
		atomic_store(&s->is_closing, true);
		shutdown(s->listener, SHUT_RDWR); /* wakes accept */
		pthread_join(s->acceptor, NULL);
	}
	if (s->core)
		stop_core(s, grace_ms);
	grpc_shutdown();
	if (s->listener >= 0)
		close(s->listener);
	rpc_lane_done(&s->calls);
	rpc_lane_done(&s->streams);
	wd_cond_done(&s->taken);
	wd_cond_done(&s->shut);
	wd_mutex_done(&s->lock);
	free(s->registered);
	free(s->path);
	free(s);
}
