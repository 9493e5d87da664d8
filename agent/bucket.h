/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_BUCKET_H
#define WD_AGENT_BUCKET_H
/*
 * A limit of bytes per second that is kept on average. What is taken may run into debt: whoever is allowed takes
 * all that it needs, and the next waits until the debt is paid. A quarter of a second's worth may be saved up.
 * Pure: the caller brings clock and lock.
 */
#include <stdbool.h>
#include <stdint.h>

struct bucket {
	uint64_t rate; /* bytes per second; 0: no limit */
	int64_t tokens;
	int64_t at_ns; /* filled up to then */
};

void bucket_init(struct bucket *b, uint64_t rate, int64_t now_ns);
/* May something be taken now? False: *ret_at_ns is when. */
bool bucket_allows(struct bucket *b, int64_t now_ns, int64_t *ret_at_ns);
void bucket_take(struct bucket *b, uint64_t bytes);
/* What was taken and not used. */
void bucket_return(struct bucket *b, uint64_t bytes);

#endif
