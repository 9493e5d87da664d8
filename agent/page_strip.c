/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/page_strip.h"

#include <string.h>

#define WIDTH_MIN 64

static void widen(struct page_strip *s)
{
	for (unsigned i = 0; i < STRIP_CELLS / 2; i++)
		s->cached[i] = s->cached[2 * i] + s->cached[2 * i + 1];
	memset(s->cached + STRIP_CELLS / 2, 0, sizeof(s->cached) / 2);
	s->width *= 2;
}

static uint64_t share(uint64_t of, uint64_t part, uint64_t whole)
{
	return (uint64_t)((unsigned __int128)of * part / whole);
}

void page_strip_add(struct page_strip *s, uint64_t bytes, uint64_t cached)
{
	uint64_t done = 0, given = 0;

	if (bytes == 0 || bytes > UINT64_MAX / 4 - s->at)
		return;
	if (s->width == 0)
		s->width = WIDTH_MIN;
	while ((s->at + bytes - 1) / s->width >= STRIP_CELLS)
		widen(s);
	while (done < bytes) {
		uint64_t cell = s->at / s->width, left = (cell + 1) * s->width - s->at, part, sum;

		part = left < bytes - done ? left : bytes - done;
		done += part;
		sum = share(cached, done, bytes); /* so that the parts add up to cached */
		s->cached[cell] += sum - given;
		given = sum;
		s->at += part;
	}
}

unsigned page_strip_cells(const struct page_strip *s)
{
	return s->width ? (unsigned)((s->at + s->width - 1) / s->width) : 0;
}

unsigned page_strip_level(const struct page_strip *s, unsigned cell)
{
	uint64_t begin = cell * s->width, bytes = s->at - begin < s->width ? s->at - begin : s->width;
	unsigned level;

	if (s->cached[cell] == 0)
		return 0;
	if (s->cached[cell] >= bytes)
		return 10;
	level = (unsigned)share(10, s->cached[cell], bytes);
	return level < 1 ? 1 : level;
}
