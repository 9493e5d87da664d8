/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See stream.h. A window is refilled when half of it is used up, so that GETs stay large.
 *
 * How a stride is guessed: a read that belongs to no stream is a stride away from the one before it.
 * That guess costs nothing until two more reads have confirmed it.
 */
#include "agent/stream.h"

#include "common/mountmem.h"

#define FIRST_WINDOW (4ULL * WD_BLOCK_SIZE)
#define CONFIRMING 2		/* reads that carry a stream on before it is believed */
#define HINT_GAP (1024 * 1024)	/* between reads that are told where bytes are present */
#define STRIDES_SKIPPED 8	/* strides that one read may go on by, once the stride is known */
#define SHORT_RUNS 4		/* that many in a row are a habit */
#define OTHERS 16		/* reads of others, then another stream begins: a run that was not carried on has ended */
#define LONG_RUN (16ULL * 1024 * 1024)

/* ---- the tail ---- */

/* Nothing was read yet but the end of an object that is more than its end. */
static bool is_of_tail(const struct streams *ss, const struct stream_read *r, uint64_t size)
{
	bool is_near = r->offset + r->len + STREAM_TAIL_GAP >= size;

	if (size <= 4 * STREAM_TAIL || r->offset < size - STREAM_TAIL || (ss->clock == 0 && !is_near))
		return false;
	for (int i = 0; i < STREAMS; i++)
		if (ss->s[i].is_live)
			return false;
	return true;
}

/* The first one wants a block from the end on, in whole blocks: one, or two where the last is short. */
static struct stream_touch read_tail(struct streams *ss, const struct stream_read *r, uint64_t size)
{
	struct stream_touch touch = {.from = r->offset, .to = r->offset + r->len};
	uint64_t from = (size - WD_BLOCK_SIZE) / WD_BLOCK_SIZE * WD_BLOCK_SIZE;

	if (ss->clock++ > 0)
		return touch;
	touch.found = STREAM_TAIL_READ;
	touch.is_wanting = r->offset >= from + WD_BLOCK_SIZE || r->offset + r->len <= size - (size - 1) % WD_BLOCK_SIZE;
	ss->tail = touch.is_wanting ? from : 0;
	return touch;
}

static bool next_of_tail(struct streams *ss, uint64_t size, uint64_t *ret_offset, uint64_t *ret_len)
{
	if (!ss->tail)
		return false;
	*ret_offset = ss->tail;
	*ret_len = size - ss->tail;
	ss->tail = 0;
	return true;
}

/* ---- which stream ---- */

/* How far from the end of a stream a read may land. A stream that was confirmed may be read by several
 * threads, out of order, with holes; one that was not is believed only where reads touch. */
static uint64_t slack_of(const struct stream *s, const struct stream_read *r)
{
	if (s->streak >= CONFIRMING)
		return STREAM_SLACK;
	return r->is_sparse ? HINT_GAP + r->len : WD_BLOCK_SIZE;
}

static bool is_next_in_sequence(const struct stream *s, const struct stream_read *r)
{
	uint64_t slack = slack_of(s, r);

	if (s->pattern == STREAM_STRIDED || (s->pattern == STREAM_NEW && s->stride != 0 && s->streak > 0))
		return false;
	return r->offset <= s->next + slack && r->offset + r->len + slack >= s->next;
}

/* The number of strides that lead from the last read of s to r; 0 when none do. */
static int64_t strides_to(const struct stream *s, const struct stream_read *r)
{
	int64_t distance = (int64_t)(r->offset - s->last), n;

	if (s->stride == 0 || s->pattern == STREAM_SEQUENTIAL || distance % s->stride != 0)
		return 0;
	n = distance / s->stride;
	return n >= 1 && n <= (s->pattern == STREAM_STRIDED ? STRIDES_SKIPPED : 1) ? n : 0;
}

static struct stream *find(struct streams *ss, const struct stream_read *r)
{
	struct stream *best = NULL;

	for (int i = 0; i < STREAMS; i++) {
		struct stream *s = &ss->s[i];

		if (!s->is_live || (!is_next_in_sequence(s, r) && strides_to(s, r) == 0))
			continue;
		if (!best || s->used > best->used)
			best = s;
	}
	return best;
}

/* ---- how it goes on ---- */

static void note_run(struct streams *ss, struct stream *s)
{
	uint64_t len = s->next - s->first;

	if (s->pattern != STREAM_SEQUENTIAL || s->is_noted)
		return;
	s->is_noted = true;
	if (len >= LONG_RUN) {
		ss->nshort = 0;
		ss->short_run = 0;
		return;
	}
	ss->nshort++;
	ss->short_run -= ss->short_run / 4;
	if (len > ss->short_run)
		ss->short_run = len;
}

/* What was asked ahead of a stream, and not yet read; false: nothing. */
static bool asked_ahead(const struct stream *s, uint64_t *ret_from, uint64_t *ret_to)
{
	int64_t at = (int64_t)s->last + s->stride * (int64_t)s->ahead;

	if (!s->is_live || s->window == 0)
		return false;
	*ret_from = s->next;
	*ret_to = s->asked;
	if (s->pattern == STREAM_STRIDED) {
		*ret_from = s->stride > 0 ? s->next : at > 0 ? (uint64_t)at : 0;
		*ret_to = s->stride > 0 ? (uint64_t)at + s->len : s->last;
		return s->ahead > 0;
	}
	return *ret_to > *ret_from;
}

/* The least recently used makes place. */
static struct stream_touch begin(struct streams *ss, const struct stream_read *r, uint64_t size)
{
	struct stream *s = &ss->s[0], *latest = &ss->s[0];
	struct stream_touch touch = {.from = r->offset, .to = r->offset + r->len};
	int64_t stride = 0;

	for (int i = 1; i < STREAMS; i++) {
		if (ss->s[i].used < s->used)
			s = &ss->s[i];
		if (ss->s[i].used > latest->used)
			latest = &ss->s[i];
	}
	if (latest->is_live && latest->pattern == STREAM_NEW && r->offset != 0)
		stride = (int64_t)(r->offset - latest->last);
	touch.is_random = s->is_live && s->streak == 0;
	if (s->is_live)
		note_run(ss, s);
	for (int i = 0; i < STREAMS; i++)
		if (ss->s[i].is_live && ss->clock - ss->s[i].used > OTHERS)
			note_run(ss, &ss->s[i]);
	if (!asked_ahead(s, &touch.left_from, &touch.left_to))
		touch.left_from = touch.left_to = 0;
	if (touch.left_to > size)
		touch.left_to = size;
	*s = (struct stream){.is_live = true,
		.first = r->offset,
		.last = r->offset,
		.next = r->offset + r->len,
		.len = r->len,
		.stride = stride,
		.streak = r->offset == 0 && r->len < size ? CONFIRMING - 1 : 0,
		.used = ++ss->clock};
	return touch;
}

static uint64_t grown(uint64_t window, uint64_t max)
{
	window = window ? window * 2 : FIRST_WINDOW;
	return window < max ? window : max;
}

static void go_on_in_sequence(struct streams *ss, struct stream *s, const struct stream_read *r,
	uint64_t max_window, struct stream_touch *touch)
{
	uint64_t bound;

	if (r->offset + r->len <= s->next)
		return;
	if (r->is_sparse && s->next < touch->from)
		touch->from = s->next;
	s->stride = 0;
	s->last = r->offset;
	s->next = r->offset + r->len;
	s->streak++;
	s->is_noted = false;
	if (s->streak < CONFIRMING || s->next - s->first < WD_BLOCK_SIZE) /* a header is no stream */
		return;
	if (s->pattern == STREAM_NEW)
		s->pattern = touch->found = STREAM_SEQUENTIAL;
	if (ss->nshort >= SHORT_RUNS && s->next - s->first <= ss->short_run + ss->short_run / 2)
		return;
	bound = 2 * (s->next - s->first);
	if (bound < FIRST_WINDOW)
		bound = FIRST_WINDOW;
	s->window = grown(s->window, bound < max_window ? bound : max_window);
}

static void go_on_by_strides(struct stream *s, const struct stream_read *r, int64_t n,
	uint64_t max_window, struct stream_touch *touch)
{
	s->ahead = s->ahead > (unsigned)n ? s->ahead - (unsigned)n : 0;
	s->last = r->offset;
	s->next = r->offset + r->len;
	if (r->len > s->len)
		s->len = r->len;
	s->streak++;
	if (s->streak < CONFIRMING)
		return;
	if (s->pattern == STREAM_NEW)
		s->pattern = touch->found = STREAM_STRIDED;
	s->window = grown(s->window, max_window);
}

/* ---- what is wanted ---- */

static uint64_t target_of(const struct stream *s, uint64_t size)
{
	uint64_t target = s->next + s->window;

	return target < size ? target : size;
}

/* What one strided read costs: the blocks it touches. */
static uint64_t cost_of(const struct stream *s)
{
	return (s->len + 2 * WD_BLOCK_SIZE - 2) / WD_BLOCK_SIZE * WD_BLOCK_SIZE;
}

static unsigned reads_ahead(const struct stream *s)
{
	uint64_t n = s->window / cost_of(s);

	return n ? (unsigned)n : s->window > 0;
}

/* The blocks of the n-th read from the last one on; false outside the object. */
static bool strided_range(
	const struct stream *s, unsigned n, uint64_t size, uint64_t *ret_from, uint64_t *ret_end)
{
	int64_t at = (int64_t)s->last + s->stride * (int64_t)n;
	uint64_t end;

	if (at < 0 || (uint64_t)at >= size)
		return false;
	end = ((uint64_t)at + s->len + WD_BLOCK_SIZE - 1) / WD_BLOCK_SIZE * WD_BLOCK_SIZE;
	*ret_from = (uint64_t)at - (uint64_t)at % WD_BLOCK_SIZE;
	*ret_end = end < size ? end : size;
	return true;
}

/* What is missing up to the target, worth a GET: half a window, or the rest of the object. */
static bool wants(const struct stream *s, uint64_t size)
{
	uint64_t target = target_of(s, size), from = s->asked > s->next ? s->asked : s->next, end;

	if (!s->is_live || s->window == 0)
		return false;
	if (s->pattern == STREAM_STRIDED)
		return s->ahead <= reads_ahead(s) / 2 && strided_range(s, s->ahead + 1, size, &from, &end);
	if (from >= target)
		return false;
	return target == size || target - from >= s->window / 2;
}

struct stream_touch streams_touch(
	struct streams *ss, const struct stream_read *r, uint64_t size, uint64_t max_window)
{
	struct stream *s = find(ss, r);
	struct stream_touch touch = {.from = r->offset, .to = r->offset + r->len};
	int64_t n;

	if (!s && is_of_tail(ss, r, size))
		return read_tail(ss, r, size);
	if (!s)
		return begin(ss, r, size);
	s->used = ++ss->clock;
	n = strides_to(s, r);
	if (n > 0 && !(s->pattern == STREAM_NEW && is_next_in_sequence(s, r)))
		go_on_by_strides(s, r, n, max_window, &touch);
	else
		go_on_in_sequence(ss, s, r, max_window, &touch);
	touch.is_wanting = wants(s, size);
	return touch;
}

static bool next_in_sequence(struct stream *s, uint64_t size, uint64_t max_len, uint64_t *ret_offset,
	uint64_t *ret_len)
{
	uint64_t from = s->asked >= s->next ? s->asked : s->next - s->next % WD_BLOCK_SIZE;
	uint64_t target = target_of(s, size), end;

	if (from >= target)
		return false;
	/* GETs end at multiples of max_len, so that neighbours meet */
	end = (from / max_len + 1) * max_len;
	if (end > target) {
		end = target;
		if (end < size)
			end -= end % WD_BLOCK_SIZE;
	}
	if (end <= from)
		return false;
	s->asked = end;
	*ret_offset = from;
	*ret_len = end - from;
	return true;
}

static bool next_by_strides(struct stream *s, uint64_t size, uint64_t max_len, uint64_t *ret_offset,
	uint64_t *ret_len)
{
	uint64_t from, end;

	if (s->ahead >= reads_ahead(s) || !strided_range(s, s->ahead + 1, size, &from, &end))
		return false;
	s->ahead++;
	*ret_offset = from;
	*ret_len = end - from < max_len ? end - from : max_len;
	return true;
}

bool streams_next(struct streams *ss, uint64_t size, uint64_t max_len, uint64_t *ret_offset,
	uint64_t *ret_len)
{
	if (next_of_tail(ss, size, ret_offset, ret_len))
		return true;
	for (int i = 0; i < STREAMS; i++) {
		struct stream *s = &ss->s[i];

		/* once begun, the window is filled to its target */
		if (!s->is_live || s->window == 0)
			continue;
		if (s->pattern == STREAM_STRIDED ? next_by_strides(s, size, max_len, ret_offset, ret_len)
						 : next_in_sequence(s, size, max_len, ret_offset, ret_len))
			return true;
	}
	return false;
}

bool streams_await(const struct streams *ss, uint64_t from, uint64_t to)
{
	uint64_t start, end;

	for (int i = 0; i < STREAMS; i++)
		if (asked_ahead(&ss->s[i], &start, &end) && start < to && from < end)
			return true;
	return false;
}
