/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_STREAM_H
#define WD_AGENT_STREAM_H
/*
 * Sequential readers of one object, found by where reads land. Pure: no clock, no locks.
 *
 * A read that lands near the end of a known stream carries it on; any other begins a stream of its
 * own, in the place of the least recently used. A stream asks for nothing until its second read;
 * then its window starts at four blocks and doubles with every read that carries it on.
 */
#include <stdbool.h>
#include <stdint.h>

#define STREAMS 8
#define STREAM_SLACK (2 * 1024 * 1024) /* bytes a read may land before or behind the end */

struct stream {
	uint64_t next;	 /* the end of what was read */
	uint64_t asked;	 /* the end of what was asked ahead */
	uint64_t window; /* bytes wanted ahead of next; 0: not sequential (yet) */
	uint64_t used;	 /* order of use */
	bool is_live;
};

struct streams {
	struct stream s[STREAMS];
	uint64_t clock;
};

/* A read of [offset, offset+len) of an object of `size` bytes. True when some stream now wants bytes
 * that were not asked for. */
bool streams_touch(struct streams *ss, uint64_t offset, uint64_t len, uint64_t size,
	uint64_t max_window);
/* The next range to ask for, at most max_len long; it counts as asked. False when none is wanted. */
bool streams_next(struct streams *ss, uint64_t size, uint64_t max_len, uint64_t *ret_offset,
	uint64_t *ret_len);

#endif
