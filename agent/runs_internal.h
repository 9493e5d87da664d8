/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_RUNS_INTERNAL_H
#define WD_AGENT_RUNS_INTERNAL_H
/* What runs.c (ways through a directory) and runs_set.c (the set that is read in epochs) share. */
#include "agent/runs.h"

#define RUNS 16
#define LOOSE 16    /* opens of no run that are remembered */
#define WRONG_MIN 8 /* misses that are no habit yet */

struct run {
	bool is_live, is_natural;
	int32_t step;
	int64_t tail, last, asked; /* ranks: see above; `asked` is the last that was asked for, or `last` */
	uint32_t streak, depth;
	uint64_t used; /* clock */
};

struct runs {
	uint32_t nfiles;
	uint32_t *natural, *rank; /* rank -> place and back; NULL: the order of bytes is natural */
	uint32_t *opened;	  /* per place: clock of the last open; 0: never */
	uint64_t *asked;	  /* bit per place: asked for, and not opened since */
	uint32_t clock;
	struct run runs[RUNS];
	uint32_t loose[LOOSE], nloose; /* places, a ring */
	uint32_t loose_share;	       /* of the last opens, in 256ths */
	uint64_t mean_size;
	struct runs_limits limits;
	/* the set */
	uint32_t epoch, epoch_start, set_start; /* opens after epoch_start are of this epoch, after set_start of the set */
	uint32_t nopened, nset, cursor; /* of this epoch, of the one before */
	uint64_t nrepeats;
	bool is_set;
	uint32_t nasked;   /* bits of asked */
	uint32_t hits, misses;
	uint32_t sweep; /* runs_withdrawn() goes on here, after everything was abandoned; nfiles: nothing was */
};

static inline bool is_asked(const struct runs *r, uint32_t place)
{
	return r->asked[place / 64] >> (place % 64) & 1;
}

static inline void set_asked(struct runs *r, uint32_t place)
{
	r->asked[place / 64] |= 1ULL << (place % 64);
	r->nasked++;
}

static inline void clear_asked(struct runs *r, uint32_t place)
{
	r->asked[place / 64] &= ~(1ULL << (place % 64));
	r->nasked--;
}

/* What is asked for is opened, mostly. */
static inline bool is_trusted(const struct runs *r)
{
	return r->misses < WRONG_MIN || r->hits >= r->misses;
}

/* runs_set.c: a file is opened; before its clock is set. */
void set_note(struct runs *r, uint32_t place);
/* Opened without repeats, in no order, and enough of it. */
bool set_is_read(const struct runs *r);
/* The rest of it is to be asked for: it fits, and more of it may be asked for now. */
bool set_is_wanting(const struct runs *r);
bool set_next(struct runs *r, uint32_t *ret_place);

#endif
