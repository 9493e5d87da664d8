/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_TRANSFER_INTERNAL_H
#define WD_AGENT_TRANSFER_INTERNAL_H
/* What transfer.c (the threads) and transfer_try.c (the tries of a read) share. */
#include <pthread.h>

#include "agent/transfer.h"

enum slot_state { SLOT_FREE, SLOT_TRYING, SLOT_WAITING };

struct slot {
	enum slot_state state;
	struct get_job *job;
	struct get_queue *queue; /* of its thread */
	struct http_try try;
	struct retry retry;
	uint64_t given;	       /* bytes the sink has */
	uint64_t progress_at;  /* given, at the last progress */
	int64_t due_ns;	       /* WAITING: the next try */
	int64_t taken_ns;      /* when the read got its place */
	int64_t begun_ns, body_ns; /* when the try began, and when its body was last heard of */
	uint64_t paced;	       /* given, as far as the pace of the origin knows */
	int sink_rc;	       /* what the sink ended the transfer with */
	enum http_verdict bad; /* why the write callback ended the try; HTTP_OK: it did not */
	bool is_checked;       /* this try's headers are right */
	char text[300];
	char last[300]; /* how the try before this one failed */
};

struct transfer_thread {
	pthread_t thread;
	unsigned lane;
	struct get_queue *queue;
	CURLM *multi;
	struct slot *slots;
	unsigned nslots, nused;
	CURL **spare; /* handles not in use */
	unsigned nspare;
	struct http_sockets sockets;
};

static inline struct http_site *transfer_site(const struct slot *s)
{
	return (struct http_site *)s->job->origin;
}

/* Starts the next try; the slot may be free again when this returns. */
void transfer_begin_try(struct transfer_thread *t, struct slot *s);
/* curl ended the slot's try with rc. */
void transfer_try_ended(struct transfer_thread *t, struct slot *s, CURLcode rc);
/* Ends the read and frees the slot; text says why, unless status is 0. */
void transfer_finish(struct transfer_thread *t, struct slot *s, int status, const char *text);
void transfer_finish_out_of_time(struct transfer_thread *t, struct slot *s, const char *text);

#endif
