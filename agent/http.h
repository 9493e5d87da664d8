/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_HTTP_H
#define WD_AGENT_HTTP_H
/*
 * The agent's HTTP server (libmicrohttpd, one thread of its own): /metrics, /healthz, /readyz, and / with the page for
 * people (agent/page.h), for whom the setting status-page says. With "local" that is who connects from a loopback address
 * and asks for one by name or number: a page of somebody else's, whose name was made to lead here, is shown nothing.
 */
#include "agent/agent.h"

struct http;

/* listen: "address:port", with an IPv6 address in brackets. An address in use is an error that names it. */
int http_start(struct agent *a, const char *listen, struct http **ret_http, struct wd_err *err);
/* From now on there is an agent to show. Before, /healthz and /readyz say that this one stands by. h: may be NULL. */
void http_begin(struct http *h);
void http_stop(struct http *h);

#endif
