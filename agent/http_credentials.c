/* SPDX-License-Identifier: Apache-2.0 */
/* See http_credentials.h. */
#include "agent/http_credentials.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "agent/origin_impl.h"

struct http_credentials *http_credentials_new(void)
{
	struct http_credentials *c = calloc(1, sizeof(*c));

	if (c)
		c->refs = 1;
	return c;
}

struct http_credentials *http_credentials_ref(struct http_credentials *c)
{
	atomic_fetch_add(&c->refs, 1);
	return c;
}

void http_credentials_unref(struct http_credentials *c)
{
	if (!c || atomic_fetch_sub(&c->refs, 1) != 1)
		return;
	origin_forget(c->access_key);
	origin_forget(c->secret_key);
	origin_forget(c->session_token);
	origin_forget(c->authorization);
	free(c);
}
