/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_PAGE_STRIP_H
#define WD_AGENT_PAGE_STRIP_H
/*
 * What of a row of bytes is cached, by position: cells of one width, which doubles when they do not reach, so that the
 * length need not be known before. Of more than 4 KiB at least half of the cells are used. A plain value; zeros are an
 * empty one.
 */
#include <stdint.h>

#define STRIP_CELLS 128

struct page_strip {
	uint64_t width; /* bytes of a cell; 0: nothing was added */
	uint64_t at;	/* bytes so far */
	uint64_t cached[STRIP_CELLS];
};

/* The next `bytes` of the row, of which `cached` (<= bytes) are there, evenly spread as far as is known. */
void page_strip_add(struct page_strip *s, uint64_t bytes, uint64_t cached);
unsigned page_strip_cells(const struct page_strip *s);
/* 0: nothing of the cell is cached; 10: all of it; between these 1 to 9. */
unsigned page_strip_level(const struct page_strip *s, unsigned cell);

#endif
