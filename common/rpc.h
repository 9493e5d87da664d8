/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_RPC_H
#define WD_COMMON_RPC_H
/*
 * The gRPC server: a table of methods, handlers that get a decoded request and fill in a response.
 * Everything that is the same for all calls happens here once: decoding, encoding, unknown methods,
 * deadlines, cancellation, the log line. rpc.c is the only file that knows gRPC.
 *
 * Threads: one poller; workers, and other workers for streams; RPC_QUEUE_MAX calls wait for a worker, further
 * ones get RESOURCE_EXHAUSTED, and so does a stream for which no worker is free. An inline method runs on
 * the poller: it must neither block nor be slow, and in return it is answered however busy the workers are.
 */
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/arena.h"

#define RPC_WORKERS_MAX 32
#define RPC_QUEUE_MAX 128
#define RPC_MESSAGE_MAX (4u << 20) /* bytes of a request */

/* Numbers as published by gRPC. */
enum rpc_code {
	RPC_OK = 0,
	RPC_CANCELLED = 1,
	RPC_INVALID_ARGUMENT = 3,
	RPC_DEADLINE_EXCEEDED = 4,
	RPC_NOT_FOUND = 5,
	RPC_ALREADY_EXISTS = 6,
	RPC_PERMISSION_DENIED = 7,
	RPC_RESOURCE_EXHAUSTED = 8,
	RPC_FAILED_PRECONDITION = 9,
	RPC_ABORTED = 10,
	RPC_OUT_OF_RANGE = 11,
	RPC_UNIMPLEMENTED = 12,
	RPC_INTERNAL = 13,
	RPC_UNAVAILABLE = 14,
	RPC_UNAUTHENTICATED = 16,
};

struct rpc_call {
	struct arena *arena; /* freed after the response is sent */
	void *arg;	     /* of rpc_start */
	int64_t deadline_ns; /* CLOCK_MONOTONIC; INT64_MAX: none */
	int cancel_fd;	     /* readable once the caller has gone; for poll(2) */
	const char *subject; /* for the log line: a volume's id; NULL: none */
	const char *text;    /* of the error */
	/* the transport's: one message of a stream; tests bring their own */
	int (*send)(struct rpc_call *call, const void *bytes, size_t len);
};

/* request and response are of the method's types; response is initialised, and whatever it points
 * to lives in the arena or in static memory. */
typedef enum rpc_code (*rpc_handler)(struct rpc_call *call, const void *request, void *response);

enum rpc_kind {
	RPC_UNARY,
	RPC_POLL,   /* the same, but asked so often that it is logged only when it fails */
	RPC_INLINE, /* unary, on the poller */
	RPC_STREAM  /* the handler sends any number of messages with rpc_send(); its response is not used */
};

struct rpc_method {
	const char *path; /* "/csi.v1.Node/NodeGetInfo" */
	const ProtobufCMessageDescriptor *in, *out;
	rpc_handler handler;
	enum rpc_kind kind;
};

/* Sends one message of a stream, of the method's type; waits until the caller has room for it. -ECANCELED: the
 * caller has gone, or the server ends; -ENOMEM. The message is the handler's. */
int rpc_send(struct rpc_call *call, const ProtobufCMessage *message);

/* Ends a handler: sets the text (UTF-8) and returns the code. Never a secret. */
enum rpc_code rpc_fail(struct rpc_call *call, enum rpc_code code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The code that stands for an errno value. */
enum rpc_code rpc_code_of(int code);
const char *rpc_code_name(enum rpc_code code);
bool rpc_is_cancelled(const struct rpc_call *call);

/* Runs one call without any transport: decodes, handles, encodes. *ret_bytes lives in call's arena.
 * What tests and the fuzzer use, and every real call. */
enum rpc_code rpc_run(const struct rpc_method *m, struct rpc_call *call, const void *bytes,
	size_t len, void **ret_bytes, size_t *ret_len);

struct rpc_config {
	const char *path;		  /* of the unix socket */
	const struct rpc_method *methods; /* borrowed */
	size_t nmethods;
	void *arg;		  /* what handlers get */
	unsigned workers;	  /* at most RPC_WORKERS_MAX */
	unsigned stream_workers; /* the same; 0: no method is a stream */
	bool is_for_group;	  /* the process's group may connect, too */
};

struct rpc_server;
/* Serves the methods on a unix socket at path, mode 0600 (for the group: 0660). A socket that nobody listens
 * behind is replaced, a live one is refused. 0 or -errno. */
int rpc_start(const struct rpc_config *config, struct rpc_server **ret_server, struct wd_err *err);
/* Stops accepting, lets calls end for grace_ms, cancels the rest, joins every thread. */
void rpc_stop(struct rpc_server *s, int grace_ms);

#endif
