/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory as a set that is read in shuffled order, once in each epoch: see runs.h for the rules. A file is of the
 * epoch when it was opened after the clock at which that began; so no list of members is kept.
 */
#include "agent/runs_internal.h"

#define SET_MIN 64 /* files; fewer tell nothing */

static bool is_of_epoch(const struct runs *r, uint32_t place)
{
	return r->opened[place] > r->epoch_start;
}

static void begin_epoch(struct runs *r)
{
	r->set_start = r->epoch_start;
	r->epoch_start = r->clock - 1; /* the open that showed it is of the new one */
	r->epoch++;
	r->nset = r->nopened;
	r->nopened = r->cursor = 0;
	r->nrepeats = 0;
	if (r->is_set)
		r->sweep = 0; /* what the last one did not open */
	r->is_set = false;
}

/* Whoever draws at random, of all files or of some, has long drawn one twice by then. */
static bool was_whole_epoch(const struct runs *r)
{
	return r->nopened >= SET_MIN && (uint64_t)r->nopened * r->nopened >= 16 * (uint64_t)r->nfiles &&
	       r->nrepeats * 16 <= r->nopened;
}

void set_note(struct runs *r, uint32_t place)
{
	if (is_of_epoch(r, place)) {
		if (was_whole_epoch(r))
			begin_epoch(r);
		else
			r->nrepeats++;
	}
	if (!is_of_epoch(r, place))
		r->nopened++;
}

bool set_is_read(const struct runs *r)
{
	uint32_t min = r->epoch ? r->nset / 32 : r->nfiles / 8;

	if (min < SET_MIN)
		min = SET_MIN;
	return r->nopened >= min && r->nrepeats * 16 <= r->nopened && r->loose_share > 160;
}

static bool has_room(const struct runs *r)
{
	uint32_t n = r->epoch ? r->nset : r->nfiles, gone = r->nopened + r->nasked;

	return n <= gone || (n - gone) * r->mean_size <= r->limits.set_bytes;
}

bool set_next(struct runs *r, uint32_t *ret_place)
{
	if (!r->is_set || !is_trusted(r) || r->nasked >= r->nopened || !has_room(r))
		return false;
	for (; r->cursor < r->nfiles; r->cursor++) {
		bool is_member = r->epoch == 0 || r->opened[r->cursor] > r->set_start;

		if (is_of_epoch(r, r->cursor) || is_asked(r, r->cursor) || !is_member)
			continue;
		*ret_place = r->cursor++;
		set_asked(r, *ret_place);
		return true;
	}
	return false;
}

/* A quarter of what may be asked is free: not one by one. */
bool set_is_wanting(const struct runs *r)
{
	return r->is_set && r->cursor < r->nfiles && r->nasked < r->nopened - r->nopened / 4 && has_room(r);
}
