/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_FETCH_INTERNAL_H
#define WD_AGENT_FETCH_INTERNAL_H
/* What fetch.c (waits), fetch_ahead.c (what nobody waits for), fetch_transfer.c (into the cache) and fetch_bytes.c
 * (past it) share.
 *
 * Locks: fetcher->lock (the table, the queues, the budgets) and fetch->lock (blocks and waits) are
 * never held together. */

#include "agent/fetch.h"
#include "agent/hash.h"
#include "agent/stream.h"
#include "common/lock.h"

struct fetch_key {
	struct object_id object;
	uint64_t dataset;
};

struct bytes_read;
struct transfer;

/* Fetches with blocks to fetch ahead in one class, in turn. */
struct want_line {
	struct fetch *head, *tail;
};

struct fetcher {
	struct store *store;
	struct meta *meta;
	const struct settings *settings;
	struct wd_mutex lock;
	struct fetch *table WD_GUARDED_BY(lock);
	struct want_line wants[GET_DEMAND] WD_GUARDED_BY(lock);
	uint64_t prefetch_bytes WD_GUARDED_BY(lock);
	unsigned prefetch_transfers WD_GUARDED_BY(lock);
	bool is_pumping WD_GUARDED_BY(lock), is_pump_wanted WD_GUARDED_BY(lock);
	/* reads past the cache: bytes under way, and those who wait for room */
	uint64_t bytes_under_way WD_GUARDED_BY(lock);
	struct bytes_read *bytes_head WD_GUARDED_BY(lock), *bytes_tail WD_GUARDED_BY(lock);
	_Atomic uint64_t waits;
	_Atomic unsigned wishes;
	pthread_rwlock_t gate; /* write: nothing more goes to an origin */
	bool is_stopping;      /* guarded by gate */
};

struct fetch {
	struct fetcher *fetcher;
	struct fetch_key key;
	struct dataset *dataset;
	struct object *object;
	struct version version;
	char *name; /* key at the origin */
	uint64_t size;
	uint32_t nblocks;
	struct flow *_Atomic flow; /* set once; NULL: none was */
	/* guarded by fetcher->lock */
	unsigned refs;
	unsigned readers;	    /* fetch_open() without fetch_close() */
	bool is_wanting[GET_DEMAND]; /* in the line of the class */
	struct fetch *want_next[GET_DEMAND];
	UT_hash_handle hh;

	struct wd_mutex lock;
	uint64_t *in_flight WD_GUARDED_BY(lock); /* bit per block */
	uint64_t *ahead WD_GUARDED_BY(lock); /* the same: fetched ahead, and no reader came by yet */
	struct fetch_wait *waits WD_GUARDED_BY(lock);
	struct transfer *transfers WD_GUARDED_BY(lock);
	struct streams streams WD_GUARDED_BY(lock);
	int lost WD_GUARDED_BY(lock); /* this version at the origin: -ESTALE another, -ENOENT none; 0: there */
	bool has_proof WD_GUARDED_BY(lock); /* of access: a block came from the origin */
	/* Blocks [failed_first, failed_end) were waited for in vain until then, and shortly after it is known
	 * without waiting: the kernel asks at once again, page by page, for what it read ahead. */
	int64_t failed_until_ns WD_GUARDED_BY(lock);
	uint32_t failed_first WD_GUARDED_BY(lock), failed_end WD_GUARDED_BY(lock);
	int64_t no_room_until_ns WD_GUARDED_BY(lock); /* the cache refused: no prefetch until then */
};

static inline bool has_bit(const uint64_t *bits, uint32_t block)
{
	return bits[block / 64] >> (block % 64) & 1;
}

static inline bool in_flight(const struct fetch *f, uint32_t block) WD_REQUIRES(f->lock)
{
	return has_bit(f->in_flight, block);
}

static inline uint64_t block_len(const struct fetch *f, uint32_t block)
{
	uint64_t start = (uint64_t)block * WD_BLOCK_SIZE;

	return f->size - start < WD_BLOCK_SIZE ? f->size - start : WD_BLOCK_SIZE;
}

/* Blocks in a row. */
struct run {
	uint32_t first, count;
};

/* How many bytes they have. */
static inline uint64_t run_bytes(const struct fetch *f, struct run run)
{
	uint64_t start = (uint64_t)run.first * WD_BLOCK_SIZE, len = (uint64_t)run.count * WD_BLOCK_SIZE;

	return len < f->size - start ? len : f->size - start;
}

#define WISH_UNPLANNED UINT32_MAX /* fetch_wait.missing of a wish whose blocks are not counted yet */

/* A block is over: present (status 0) or not. Detaches the waits that this decides onto *ret_over. */
void fetch_block_over_locked(struct fetch *f, uint32_t block, int status, struct fetch_wait **ret_over)
	WD_REQUIRES(f->lock);

/* fetch.c: starts the read, or returns -ECANCELED after fetcher_stop (done is not called then). */
int fetcher_get(struct fetcher *fr, struct origin *origin, struct origin_get *get);

/* fetch_transfer.c: starts a transfer of blocks that the caller has marked in flight. deadline_ns: of the reader
 * that it is for; 0: none. charge: of the prefetch budget, which the transfer gives back. */
void fetch_transfer_start(struct fetch *f, struct run run, enum get_priority priority, struct flow *flow,
	int64_t deadline_ns, uint64_t charge);
/* Blocks [first, last] are waited for (GET_DEMAND): the transfers that bring them go first from now on. Or nobody
 * reads on there (GET_UNWANTED): those ahead of a stream that no other stream and no wish asks for end, if they
 * have not begun. */
void fetch_transfers_prioritise(struct fetch *f, uint32_t first, uint32_t last, enum get_priority priority);
/* How a transfer ended, for those who waited for it. */
struct fetch_end {
	int status;
	bool is_refused;     /* the cache did not take it */
	bool is_out_of_time; /* faults lasted until the transfer's deadline */
	bool is_dropped;     /* it was given up before somebody came to wait for it */
	const struct wd_err *err;
};
/* fetch.c: answers waits. Where the transfer's time is over but not the wait's, it waits on. */
void fetch_answer(struct fetch *f, struct fetch_wait *over, const struct fetch_end *end);
/* fetch.c: how large GETs and a stream's window may be at this time. */
void fetch_advise(struct fetch *f, struct origin_advice *ret_advice);
/* fetch.c: what a transfer's end says about the object, counted and logged once. Returns the status for
 * those who wait. */
int fetch_note_end(struct fetch *f, const struct fetch_end *end);

/* fetch_ahead.c: some stream of f wants bytes ahead. */
void fetch_want(struct fetch *f);
/* fetch_ahead.c: `charge` of the budget is free again (0: nothing was taken), the next may go. */
void fetcher_uncharge(struct fetcher *fr, uint64_t charge);
/* fetch_ahead.c: takes a place besides those that the budget has, for a part of a transfer. */
void fetcher_charge_part(struct fetcher *fr, uint64_t charge);
/* fetch_ahead.c: a transfer of blocks of this wish ended. */
void fetch_wish_answer(struct fetch *f, struct fetch_wait *w, const struct fetch_end *end);

/* fetch_bytes.c: brings the range of w in a memfd. */
void bytes_read_start(struct fetch *f, struct fetch_wait *w);

#endif
