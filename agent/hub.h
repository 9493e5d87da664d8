/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_HUB_H
#define WD_AGENT_HUB_H
/*
 * The sockets of the agent: one thread that accepts, receives and dispatches; any thread sends.
 *
 * A connection is counted: the hub holds one reference until it is closed, a request that will be
 * answered later holds another. Sending to a closed connection is quietly nothing. What a peer does
 * not read is queued up to a bound; beyond it the peer is dropped (a server is then replaced).
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/proto.h"

struct hub;
struct conn;

struct hub_handlers {
	/* One message, on the hub thread; fds not taken are closed afterwards. False drops the peer. */
	bool (*on_message)(void *arg, struct conn *c, struct wd_msg *m);
	/* The peer is gone (or dropped); on the hub thread, once. */
	void (*on_close)(void *arg, struct conn *c);
	/* hub_wake_at has come; on the hub thread. May be NULL. */
	void (*on_timer)(void *arg);
	void *arg;
};

/* Listens on path, for this process's user or for its group as well. Handlers are called from hub_run on. */
int hub_new(const char *path, bool is_for_group, const struct hub_handlers *handlers, struct hub **ret_hub,
	struct wd_err *err);
void hub_free(struct hub *h);
/* Runs until hub_stop. */
void hub_run(struct hub *h);
/* Calls on_timer at this time on CLOCK_MONOTONIC, in place of one that was set before; INT64_MAX:
 * never. Any thread. */
void hub_wake_at(struct hub *h, int64_t at_ns);
/* From any thread or a signal handler. */
void hub_stop(struct hub *h);

/* Adds a connected socket (owned from now on). `user` is the handlers'. Any thread. The caller gets a
 * reference of its own, since the peer may be gone before this returns. NULL: out of memory. */
struct conn *hub_add(struct hub *h, int fd, int role, void *user);
struct conn *conn_ref(struct conn *c);
void conn_unref(struct conn *c);
int conn_role(const struct conn *c);
void conn_set_role(struct conn *c, int role);
/* The protocol version spoken; 0 before HELLO. */
uint32_t conn_version(const struct conn *c);
void conn_set_version(struct conn *c, uint32_t version);
void *conn_user(const struct conn *c);
/* A request of this peer is under way, and over. While CONN_REQUESTS_MAX are, nothing more is read from
 * it: it is slowed down, and nobody else. Any thread. */
#define CONN_REQUESTS_MAX 8192
void conn_begin(struct conn *c);
void conn_end(struct conn *c);
/* Ends it from this side; on_close follows on the hub thread. Any thread. */
void conn_drop(struct conn *c);
/* It was dropped, or the other side has ended it: nothing that is sent will arrive. Any thread. */
bool conn_is_gone(struct conn *c);

/* Any thread; never blocks. -EPIPE when closed, -ENOBUFS when dropped for not reading. */
int conn_send(struct conn *c, struct wd_msg *m);
/* A message buffer of the calling thread; its contents live until the next call. */
struct wd_msg *hub_scratch(void);

/* Short replies. */
void conn_reply_empty(struct conn *c, uint16_t type, uint64_t id);
void conn_reply_error(struct conn *c, uint16_t type, uint64_t id, int status, const char *text);

#endif
