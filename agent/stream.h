/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_STREAM_H
#define WD_AGENT_STREAM_H
/*
 * The pattern of reads of one object, found by where they land. Pure: no clock, no locks.
 *
 * A read carries a stream on when it lands where that stream goes: near the end of what was read
 * (sequential), or a whole number of strides after the last read (strided, in either direction). Any
 * other read begins a stream of its own, in the place of the least recently used. Nothing is asked
 * ahead before two reads have carried a stream on (one, where it began with the object), so random
 * reads cost only what they touch. Then its window starts at four blocks and doubles with every read
 * that carries it on, as long as it is no larger than twice what the stream has read so far: where
 * a reader takes short pieces here and there, little is fetched behind each. An object whose streams
 * keep ending after short runs gets nothing ahead until one outlives them.
 *
 * Formats are told by what is read first, not by their names. Where the first read of an object is of its end (the
 * footer of parquet, the directory of zip), the last block is asked for, with the one before it where the last is
 * short; such a read begins no stream and is no end of a stride, so that the jumps that follow (column chunks, members)
 * fetch what they touch. A header at the beginning (safetensors, npy) is in the first block: nothing is asked ahead of
 * it before that block was read through. The headers of tar are jumps forward, or, where its members are smaller than a
 * block, a sequence.
 */
#include <stdbool.h>
#include <stdint.h>

#define STREAMS 8
#define STREAM_TAIL (1024 * 1024)      /* a first read that begins within so much of the end ... */
#define STREAM_TAIL_GAP (64 * 1024)    /* ... and ends within so much of it is of the tail */
#define STREAM_SLACK (2 * 1024 * 1024) /* bytes a read may land before or behind the end */

enum stream_pattern {
	STREAM_NEW,	   /* too few reads to say */
	STREAM_SEQUENTIAL,
	STREAM_STRIDED,
	STREAM_TAIL_READ /* only in stream_touch */
};

struct stream {
	enum stream_pattern pattern;
	uint64_t first;	 /* where it began */
	uint64_t last;	 /* where the last read began */
	uint64_t next;	 /* the end of what was read */
	uint64_t len;	 /* strided: of one read */
	int64_t stride;	 /* from one read to the next, as far as it is known; 0: sequential */
	unsigned streak; /* reads in a row that carried it on */
	uint64_t window; /* bytes wanted ahead; 0: none (yet) */
	uint64_t asked;	 /* sequential: the end of what was asked ahead */
	unsigned ahead;	 /* strided: reads that were asked ahead */
	uint64_t used;	 /* order of use */
	bool is_live;
	bool is_noted; /* among the runs that have ended */
};

struct streams {
	struct stream s[STREAMS];
	uint64_t clock;
	uint64_t short_run; /* about the longest of the runs that ended lately, bytes */
	unsigned nshort;    /* how many of them in a row were short */
	uint64_t tail;	    /* the tail is wanted from there on; 0: it is not */
};

struct stream_read {
	uint64_t offset, len;
	/* The reads in between are not told, up to a MiB of them: bytes that are there. */
	bool is_sparse;
};

/* What a read told. */
struct stream_touch {
	enum stream_pattern found; /* a stream has just shown this pattern; STREAM_NEW: none has */
	bool is_random;		   /* the read belongs to no stream, and a stream of one read made place for it */
	bool is_wanting;	   /* some stream now wants bytes that were not asked for */
	uint64_t from, to;	   /* read by now: the read itself, and what its stream passed on the way */
	uint64_t left_from, left_to; /* asked ahead of a stream that made place; equal: nothing */
};

/* A read inside an object of `size` bytes. */
struct stream_touch streams_touch(struct streams *ss, const struct stream_read *r, uint64_t size,
	uint64_t max_window);
/* The next range to ask for, at most max_len long; it counts as asked. False when none is wanted. */
bool streams_next(struct streams *ss, uint64_t size, uint64_t max_len, uint64_t *ret_offset,
	uint64_t *ret_len);
/* Some stream is on its way to bytes of [from, to), which were asked ahead. */
bool streams_await(const struct streams *ss, uint64_t from, uint64_t to);

#endif
