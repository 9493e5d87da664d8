/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_PAGE_SERVER_H
#define WD_AGENT_PAGE_SERVER_H
/*
 * Who makes the page (agent/page.h): a thread that samples counters every few seconds, and that looks at datasets and
 * mounts when somebody asks, for a bounded time. One who asks waits for it; the server of metrics and health never does.
 */
#include <stdbool.h>
#include <stddef.h>

#include "agent/agent.h"

struct page_server;

/* Where one who asks waits: more are told that it is busy. */
#define PAGE_WAITING 8

int page_server_start(struct agent *a, struct page_server **ret_server, struct wd_err *err);
/* Lets all who wait go. NULL is fine. */
void page_server_stop(struct page_server *s);
void page_server_free(struct page_server *s);

/* A copy of the page (the caller frees it), if it is no older than a second, or any_age; else NULL. */
char *page_server_text(struct page_server *s, bool any_age, size_t *ret_len);
/* Asks for a page: ready(arg) comes once, on another thread, when there is one. -EBUSY: too many wait; -ESHUTDOWN. */
int page_server_ask(struct page_server *s, void (*ready)(void *arg), void *arg);

#endif
