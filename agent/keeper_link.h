/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_KEEPER_LINK_H
#define WD_AGENT_KEEPER_LINK_H
/*
 * The agent's side of the keeper's connection: calls to the passthrough broker and their answers.
 * Callbacks come on the hub thread; when the keeper goes away every pending call ends with -EPIPE.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "agent/hub.h"

struct keeper_link;

/* status 0 and the backing id (OPEN), or -errno with the keeper's reason. */
typedef void (*keeper_cb)(void *arg, int status, uint32_t backing_id, const char *reason);
/* status 0 and a memfd with the keeper's status as JSON (borrowed), or -errno with a reason. */
typedef void (*keeper_status_cb)(void *arg, int status, int fd, const char *reason);

struct keeper_link *keeper_link_new(void);
/* Ends every pending call with -EPIPE or what is said below, and every later one. When the hub has ended: no keeper comes. */
void keeper_link_stop(struct keeper_link *k);
void keeper_link_free(struct keeper_link *k);
/* The keeper said hello on c: it replaces an earlier one. */
void keeper_link_attach(struct keeper_link *k, struct conn *c);
void keeper_link_detach(struct keeper_link *k, struct conn *c);
bool keeper_link_is_up(struct keeper_link *k);
/* True when conn is the keeper's connection of the moment. */
bool keeper_link_is(struct keeper_link *k, const struct conn *conn);
/* A reply arrived. False when it is malformed. */
bool keeper_link_reply(struct keeper_link *k, struct wd_msg *m);

/* The keeper's counters (WD_MSG_KEEPER_STATS). False when the message is malformed. */
bool keeper_link_stats(struct keeper_link *k, const struct wd_msg *m);
/* Their Prometheus text; nothing before a keeper has sent them. */
void keeper_link_print_metrics(struct keeper_link *k, FILE *out);

/* Asks for its status. cb exactly once, maybe at once: -EAGAIN without a keeper, -EBUSY when as many questions as
 * KEEPER_STATUS_MAX wait for its answer. A keeper that is stopped answers when it goes on. */
#define KEEPER_STATUS_MAX 16
void keeper_status(struct keeper_link *k, keeper_status_cb cb, void *arg);

/* Hands the keeper a server program; fd is borrowed. */
void keeper_offer_program(
	struct keeper_link *k, const char *id, int fd, keeper_cb cb, void *arg);
/* Registers fd (borrowed) for passthrough on the mount. cb exactly once, maybe at once. */
void keeper_backing_open(struct keeper_link *k, uint64_t mount, int fd, keeper_cb cb, void *arg);
/* cb may be NULL. -EPIPE: the keeper went while it was asked, the id may be closed; -ECANCELED: it was not asked. */
void keeper_backing_close(struct keeper_link *k, uint64_t mount, uint32_t backing_id, keeper_cb cb,
	void *arg);

#endif
