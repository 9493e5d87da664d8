/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_RUNS_H
#define WD_AGENT_RUNS_H
/*
 * The pattern of opens in one directory: which of its files are opened next. Pure: no clock, no locks, no names;
 * files are places in the order of their names, time is the number of opens.
 *
 * A run is a way through the directory by a fixed step: 1 or -1 in the order of bytes or in natural order (9 before
 * 10), or any other step. It is found where files one step apart were opened one after the other: steps of one by
 * looking at the neighbours, whoever else opens files in between (workers that share the order, or have a part of
 * the directory each); other steps by four opens in a row, or every second to fourth of them. Three opens make a run,
 * two where it begins with the first file. Then the next file is asked for, and the number of files asked ahead
 * doubles with every open that carries the run on, as long as it is no more than half of those that were opened and
 * the window holds them; one always is. What a run passed and nobody opened is withdrawn, as is what was asked for a
 * run that made place for another or that nobody carried on.
 *
 * A directory whose files are opened in no order, but none of them twice, is a set that is read in shuffled order:
 * once an eighth of it (and 64 files) was opened, the rest is asked for in whatever order, at most as many files as
 * were opened. An epoch ends when a file is opened again after so many without a repeat that it is no chance; the next
 * one asks for what this one has opened, from a thirty-second part on. Where files are opened again before, nothing is
 * asked for: that is random.
 *
 * While half of what was asked lately was never opened, only runs that have gone on for long ask for anything,
 * one file at a time.
 */
#include <stdbool.h>
#include <stdint.h>

struct runs;

#define RUNS_FILES_MAX (1u << 18) /* of a directory */

struct runs_limits {
	uint64_t window_bytes; /* asked ahead of one run and not opened yet; one file always may be */
	uint32_t window_files; /* the same */
	/* What the rest of a set may take: of a larger one nothing is asked for. It is read at any time of the epoch, and
	 * what would have to leave the cache for it is needed no later. */
	uint64_t set_bytes;
};

enum runs_pattern { RUNS_NONE, RUNS_SORTED, RUNS_STRIDED, RUNS_SHUFFLED };

/* What an open told. */
struct runs_touch {
	enum runs_pattern found; /* a run or a set has just been found; RUNS_NONE: none */
	bool was_asked;		 /* this file was asked for */
	bool is_wanting;	 /* runs_next() may have something */
};

/*
 * nfiles <= RUNS_FILES_MAX files in the order of bytes. natural[i]: the place of the file that is the i-th in natural
 * order; copied; NULL where both orders are the same. NULL: out of memory.
 */
struct runs *runs_new(uint32_t nfiles, const uint32_t *natural);
void runs_free(struct runs *r);
uint64_t runs_memory(const struct runs *r); /* bytes */

/* File `place`, of `size` bytes, is opened. */
struct runs_touch runs_open(struct runs *r, uint32_t place, uint64_t size, const struct runs_limits *limits);
/* So many more opens were of files that had been opened before, nobody knows which. */
void runs_repeated(struct runs *r, uint64_t n);

/* The next file to ask for; it counts as asked. False: none. */
bool runs_next(struct runs *r, uint32_t *ret_place);
/* The next file that was asked for and is not wanted any more; to be called until it says false, after every
 * runs_open(). */
bool runs_withdrawn(struct runs *r, uint32_t *ret_place);
/* A file that was asked for is here already, or cannot be had: that it was asked for tells nothing. False: it was
 * opened meanwhile. */
bool runs_forget(struct runs *r, uint32_t place);
/* Nobody has come for long: all that was asked for is withdrawn. */
void runs_abandon(struct runs *r);


#endif
