/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_FETCH_H
#define WD_AGENT_FETCH_H
/*
 * Bringing an object's bytes into the cache, once, however many want them.
 *
 * A `struct fetch` stands for one object wanted by one dataset (identity): all its open files share
 * it. A wait is satisfied when every block of its range is present; each block is fetched by one
 * transfer at a time, and whoever wants it joins. Readers' blocks are asked at once; blocks ahead of
 * sequential readers, and wishes, are asked within the prefetch budget, in the order of their classes
 * (agent/priority.h): warming begins nothing while more than half of the budget or of the transfers are taken,
 * directories nothing beyond three quarters. A reader that comes to wait for what was asked ahead raises it to
 * demand at once. What was asked ahead in a file that nobody has open any more, or of a stream that ended, is
 * given up as far as it has not begun.
 *
 * A reader waits for an origin that fails until `request-deadline`, counted from its own fetch_ensure(),
 * also when it joined a transfer that had been failing for a while: then another is begun for the rest
 * of its time. What failed for good is logged here, once per transfer.
 *
 * Where the cache does not admit a block (full of what is in use, or its disk is ill), a reader gets
 * the bytes themselves in a memfd, within the budget for such bytes; more of them wait in line.
 *
 * Thread-safe. Callbacks come on the caller's, a transfer or the evictor thread, with no lock held.
 */
#include <stdbool.h>
#include <stdint.h>

#include "agent/flow.h"
#include "agent/settings.h"
#include "agent/store.h"
#include "agent/tree.h"
#include "common/err.h"

struct fetcher;
struct fetch;

enum fetch_flag {
	FETCH_BYTES = 1,     /* the cache file cannot be read: bring the bytes themselves */
	FETCH_CACHE_ONLY = 2, /* -ENOSPC rather than the bytes */
	FETCH_WISH = 4,	      /* fetch_ahead.c's own */
	FETCH_NO_AHEAD = 8    /* nothing is asked ahead of this reader */
};

#define FETCH_MAX_LEN (16 * 1024 * 1024)

/* Somebody who waits; the memory is the caller's until the callback. */
struct fetch_wait {
	uint64_t offset, len; /* inside the object, 0 < len <= FETCH_MAX_LEN */
	unsigned flags;	      /* enum fetch_flag */
	struct flow *flow;    /* whose bandwidth it takes (agent/flow.h); NULL: that of fetch_set_flow() */
	/* Exactly once. status 0: present, or fd >= 0 holds the range's bytes from position 0 (the
	 * callee closes it). -errno as in agent/origin.h: -ESTALE when the object has changed, -ENOENT when
	 * it is gone. */
	void (*cb)(struct fetch_wait *w, int status, int fd, const struct wd_err *err);
	/* May be NULL. True once nobody takes the answer any more: then no bytes are read for it past the cache,
	 * and cb comes with -ECANCELED. Any thread. */
	bool (*is_gone)(const struct fetch_wait *w);
	/* fetch.c's own */
	uint32_t missing;
	bool is_listed;
	int64_t deadline_ns;
	struct fetch_wait *prev, *next;
};

struct fetcher *fetcher_new(struct store *store, struct meta *meta, const struct settings *settings);
/* From now on nothing is asked of an origin; waits end with -ECANCELED. For the agent's end. */
void fetcher_stop(struct fetcher *fr);
/* All fetches must be gone. */
void fetcher_free(struct fetcher *fr);

/* Opens (or joins) the fetch of a bound node for a reader; takes its own references. Ends with fetch_close(). */
int fetch_open(struct fetcher *fr, struct dataset *ds, const struct node *node, struct object *object,
	struct fetch **ret_fetch);
/* Whose bandwidth is taken for what nobody waits for. The first one stays; it takes a reference. */
void fetch_set_flow(struct fetch *f, struct flow *flow);
/* A reader closes it: at the last one, what was asked ahead of them is given up. NULL is fine. */
void fetch_close(struct fetch *f);
struct fetch *fetch_ref(struct fetch *f);
void fetch_unref(struct fetch *f);
struct object *fetch_object(const struct fetch *f);
/* The object's key: borrowed for as long as the fetch. */
const char *fetch_name(const struct fetch *f);
/* The origin has another version by now, or none. */
bool fetch_is_stale(struct fetch *f);

void fetch_ensure(struct fetch *f, struct fetch_wait *w);
/* A reader is at present bytes: keeps its stream going. */
void fetch_hint(struct fetch *f, uint64_t offset, uint64_t len);

/*
 * Wishes: bytes that somebody would like to have in the cache, and that nobody waits for (or that whoever waits has
 * time for). What is absent of [offset, offset + len) (0, 0: of the whole object) is fetched when there is nothing
 * more urgent than `priority`, which is below GET_DEMAND; wishes of one class go in the order in which they came.
 * A wish holds the fetch by itself: who opened it only for that may close it at once.
 *
 * cb comes exactly once after a success, on any thread, no lock held, maybe before this returns. 0: all of it is in
 * the cache; -ENOSPC: the cache has no room, and the rest is not fetched (never past the cache); -ECANCELED: by
 * fetch_wish_cancel(), or the agent ends; else as in struct fetch_wait. ret_wish may be NULL: nobody will cancel it.
 *
 * -EAGAIN: FETCH_MAX_WISHES are open; -ENOMEM.
 */
#define FETCH_MAX_WISHES 16384
struct fetch_wish;
int fetch_wish(struct fetch *f, uint64_t offset, uint64_t len, enum get_priority priority,
	void (*cb)(void *arg, int status), void *arg, struct fetch_wish **ret_wish);
/* Ends a wish that is not over: cb comes with -ECANCELED, as a rule before this returns. What was asked for it and
 * has begun is fetched to its end; what waits is given up. */
void fetch_wish_cancel(struct fetch_wish *w);
void fetch_wish_unref(struct fetch_wish *w);

struct fetcher_stats {
	uint64_t prefetch_bytes, uncached_bytes; /* under way */
	uint64_t waits;			       /* of readers */
	uint64_t wishes;
};
void fetcher_get_stats(struct fetcher *fr, struct fetcher_stats *ret_stats);

#endif
