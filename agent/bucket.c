/* SPDX-License-Identifier: Apache-2.0 */
/* See bucket.h. */
#include "agent/bucket.h"

#define SECOND_NS 1000000000LL
#define LEAST_BURST (256 * 1024)

static int64_t burst_of(const struct bucket *b)
{
	return b->rate / 4 > LEAST_BURST ? (int64_t)(b->rate / 4) : LEAST_BURST;
}

void bucket_init(struct bucket *b, uint64_t rate, int64_t now_ns)
{
	*b = (struct bucket){.rate = rate, .at_ns = now_ns};
	b->tokens = burst_of(b);
}

static void fill(struct bucket *b, int64_t now_ns)
{
	__int128 more = (__int128)b->rate * (now_ns - b->at_ns) / SECOND_NS;

	if (more <= 0)
		return; /* the part of a byte is not forgotten */
	if (b->tokens + more >= burst_of(b)) {
		b->tokens = burst_of(b);
		b->at_ns = now_ns;
		return;
	}
	b->tokens += (int64_t)more;
	b->at_ns += (int64_t)(more * SECOND_NS / (__int128)b->rate);
}

bool bucket_allows(struct bucket *b, int64_t now_ns, int64_t *ret_at_ns)
{
	if (b->rate == 0)
		return true;
	fill(b, now_ns);
	if (b->tokens > 0)
		return true;
	*ret_at_ns = now_ns + (int64_t)((__int128)(1 - b->tokens) * SECOND_NS / (__int128)b->rate) + 1;
	return false;
}

void bucket_take(struct bucket *b, uint64_t bytes)
{
	if (b->rate)
		b->tokens -= (int64_t)bytes;
}

void bucket_return(struct bucket *b, uint64_t bytes)
{
	if (b->rate)
		b->tokens += (int64_t)bytes;
}
