/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_BENCH_CLIENT_H
#define WD_BENCH_CLIENT_H
/*
 * The tuned client that a mount is put beside: one libcurl multi on one thread, which keeps a number of connections
 * busy, with buffers of 512 KiB.
 */
#include <curl/curl.h>
#include <stdbool.h>

#include "bench/measure.h"

#define CLIENT_BUFFER (512 * 1024)

/* One of the connections; embedded first in what a benchmark knows of it. */
struct client_slot {
	CURL *easy;
};

struct client {
	unsigned connections;
	struct client_slot *(*slot)(unsigned i);
	curl_write_callback take; /* its last argument is the slot */
	/* Gives a slot its next request; false: there is none. */
	bool (*assign)(struct client_slot *s);
	/* The answer is there; why it is not as it should be, or NULL. */
	const char *(*finish)(struct client_slot *s, long status);
};

static inline void client_finish(const struct client *c, CURLM *multi, const CURLMsg *message)
{
	struct client_slot *s = NULL;
	const char *wrong;
	long status = 0;

	curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &s);
	curl_easy_getinfo(message->easy_handle, CURLINFO_RESPONSE_CODE, &status);
	wrong = message->data.result != CURLE_OK ? curl_easy_strerror(message->data.result) : c->finish(s, status);
	if (wrong)
		DIE("GET: HTTP %ld, %s", status, wrong);
	curl_multi_remove_handle(multi, s->easy);
	if (c->assign(s))
		curl_multi_add_handle(multi, s->easy);
}

/* Runs until there is nothing more to assign, and all of it is here. */
static inline void client_run(const struct client *c)
{
	CURLM *multi = curl_multi_init();
	int running = 0;

	for (unsigned i = 0; i < c->connections; i++) {
		struct client_slot *s = c->slot(i);

		s->easy = curl_easy_init();
		curl_easy_setopt(s->easy, CURLOPT_BUFFERSIZE, (long)CLIENT_BUFFER);
		curl_easy_setopt(s->easy, CURLOPT_WRITEFUNCTION, c->take);
		curl_easy_setopt(s->easy, CURLOPT_WRITEDATA, s);
		curl_easy_setopt(s->easy, CURLOPT_PRIVATE, s);
		curl_easy_setopt(s->easy, CURLOPT_NOSIGNAL, 1L);
		if (c->assign(s))
			curl_multi_add_handle(multi, s->easy);
	}
	do {
		CURLMsg *message;
		int left;

		curl_multi_perform(multi, &running);
		while ((message = curl_multi_info_read(multi, &left))) {
			if (message->msg == CURLMSG_DONE) {
				client_finish(c, multi, message);
				running = 1;
			}
		}
		if (running)
			curl_multi_poll(multi, NULL, 0, 1000, NULL);
	} while (running);
	for (unsigned i = 0; i < c->connections; i++)
		curl_easy_cleanup(c->slot(i)->easy);
	curl_multi_cleanup(multi);
}

#endif
