/* SPDX-License-Identifier: Apache-2.0 */
/* See stream.h. A window is refilled when half of it is used up, so that GETs stay large. */
#include "agent/stream.h"

#include "common/mountmem.h"

#define FIRST_WINDOW (4ULL * WD_BLOCK_SIZE)

static struct stream *find(struct streams *ss, uint64_t offset, uint64_t len)
{
	struct stream *best = NULL;

	for (int i = 0; i < STREAMS; i++) {
		struct stream *s = &ss->s[i];

		if (!s->is_live || offset > s->next + STREAM_SLACK || offset + len + STREAM_SLACK < s->next)
			continue;
		if (!best || s->used > best->used)
			best = s;
	}
	return best;
}

static uint64_t target_of(const struct stream *s, uint64_t size)
{
	uint64_t target = s->next + s->window;

	return target < size ? target : size;
}

/* What is missing up to the target, worth a GET: half a window, or the rest of the object. */
static bool wants(const struct stream *s, uint64_t size)
{
	uint64_t target = target_of(s, size);
	uint64_t from = s->asked > s->next ? s->asked : s->next;

	if (!s->is_live || s->window == 0 || from >= target)
		return false;
	return target == size || target - from >= s->window / 2;
}

bool streams_touch(struct streams *ss, uint64_t offset, uint64_t len, uint64_t size, uint64_t max_window)
{
	struct stream *s = find(ss, offset, len);

	if (!s) {
		s = &ss->s[0];
		for (int i = 1; i < STREAMS; i++)
			if (ss->s[i].used < s->used)
				s = &ss->s[i];
		*s = (struct stream){.is_live = true, .next = offset + len, .used = ++ss->clock};
		return false;
	}
	s->used = ++ss->clock;
	if (offset + len <= s->next)
		return wants(s, size);
	s->next = offset + len;
	s->window = s->window ? s->window * 2 : FIRST_WINDOW;
	if (s->window > max_window)
		s->window = max_window;
	return wants(s, size);
}

bool streams_next(struct streams *ss, uint64_t size, uint64_t max_len, uint64_t *ret_offset,
	uint64_t *ret_len)
{
	for (int i = 0; i < STREAMS; i++) {
		struct stream *s = &ss->s[i];
		uint64_t from, target, end;

		/* once begun, the window is filled to its target */
		if (!s->is_live || s->window == 0)
			continue;
		from = s->asked >= s->next ? s->asked : s->next - s->next % WD_BLOCK_SIZE;
		target = target_of(s, size);
		if (from >= target)
			continue;
		/* GETs end at multiples of max_len, so that neighbours meet */
		end = (from / max_len + 1) * max_len;
		if (end > target) {
			end = target;
			if (end < size)
				end -= end % WD_BLOCK_SIZE;
		}
		if (end <= from)
			continue;
		s->asked = end;
		*ret_offset = from;
		*ret_len = end - from;
		return true;
	}
	return false;
}
