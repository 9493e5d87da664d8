/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_TRANSFER_H
#define WD_AGENT_TRANSFER_H
/*
 * Ranged GETs in the background: a few threads, each the only owner of one curl multi handle with
 * its connections. HTTP and S3 origins hand their reads over here.
 */
#include "agent/get_queue.h"
#include "agent/http_client.h"

/* max_transfers over all threads; each costs up to 512 KiB of buffer while it runs. */
int transfer_start(unsigned threads, unsigned max_transfers, struct wd_err *err);
/* Every origin must be closed. */
void transfer_stop(void);

/* As origin_get, origin_cancel and origin_prioritise; s->base.in_flight is the queue's. */
void transfer_get(struct http_site *s, struct origin_get *get);
void transfer_cancel(struct origin_get *get);
void transfer_prioritise(struct origin_get *get, enum get_priority priority);
void transfer_drain(struct http_site *s);

#endif
