/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pinned objects: those that never make room. The mark is in the object's record, with the tag of what was pinned
 * then: of the setting, or of what was asked for while the agent ran (agent/pins.h). Where the tag is another by now,
 * the mark means nothing.
 */
#include "agent/store_internal.h"

#include <errno.h>

static uint16_t tag_of(const struct store *s, enum store_pin pin)
{
	return pin == STORE_PIN_ASKED ? atomic_load(&s->asked_tag) : s->config.pin_tags[pin];
}

enum store_pin record_pin(const struct store *s, const struct record *rec)
{
	uint16_t tag = (uint16_t)(rec->flags >> RECORD_PIN_SHIFT);

	for (enum store_pin pin = STORE_PIN_SETTING; tag != 0 && pin < STORE_PINS; pin++)
		if (tag_of(s, pin) == tag)
			return pin;
	return STORE_UNPINNED;
}

uint32_t pin_flags(const struct store *s, enum store_pin pin)
{
	return pin == STORE_UNPINNED ? 0 : (uint32_t)tag_of(s, pin) << RECORD_PIN_SHIFT;
}

static void uncount_locked(struct store *s, enum store_pin pin, uint64_t size) WD_REQUIRES(s->lock)
{
	/* one that was being loaded while the tag changed is not among them any more */
	s->pinned[pin] -= size < s->pinned[pin] ? size : s->pinned[pin];
}

void pin_set_locked(struct store *s, struct object *o, enum store_pin pin)
{
	if (o->pin == pin)
		return;
	uncount_locked(s, o->pin, o->size);
	s->pinned[pin] += o->size;
	o->pin = pin;
}

void pin_gone_locked(struct store *s, const struct record *rec)
{
	uncount_locked(s, record_pin(s, rec), rec->size);
}

static bool pin_fits_locked(const struct store *s, const struct object *o) WD_REQUIRES(s->lock)
{
	uint64_t others = s->pinned[STORE_PIN_SETTING] + s->pinned[STORE_PIN_ASKED] - (o->pin ? o->size : 0);

	return others + o->size <= s->limit / PIN_SHARE;
}

int object_pin(struct object *o, enum store_pin pin)
{
	struct store *s = o->store;
	int rc = 0;

	wd_lock(&s->lock);
	if (o->pin == pin) {
		wd_unlock(&s->lock);
		return 0;
	}
	if (pin != STORE_UNPINNED && (tag_of(s, pin) == 0 || !pin_fits_locked(s, o))) {
		s->refused_pins++;
		rc = -ENOSPC;
	} else {
		pin_set_locked(s, o, pin);
		s->idle_gen += pin == STORE_UNPINNED; /* there is something to evict, perhaps */
		if (o->is_recorded)
			record_write_locked(s, o);
	}
	wd_unlock(&s->lock);
	meta_throttle(s->meta);
	return rc;
}

int store_pin(struct store *s, const struct object_id *id, uint64_t size, enum store_pin pin)
{
	struct object *o;
	int rc = store_get(s, id, size, &o, NULL);

	if (rc < 0)
		return rc;
	rc = object_pin(o, pin);
	object_unref_quietly(o);
	return rc;
}

enum store_pin store_pin_of(struct store *s, const struct object_id *id)
{
	enum store_pin pin = STORE_UNPINNED;
	struct record rec;
	struct object *o;

	wd_lock(&s->lock);
	o = store_find_locked(s, id);
	if (o && o->is_busy)
		o = NULL;
	if (o)
		pin = o->pin;
	wd_unlock(&s->lock);
	return o || record_read(s->meta, id, &rec) < 0 ? pin : record_pin(s, &rec);
}

void store_set_pin_tag(struct store *s, uint16_t tag)
{
	struct object *o, *next;

	wd_lock(&s->lock);
	if (atomic_exchange(&s->asked_tag, tag) != tag) {
		HASH_ITER (hh, s->table, o, next)
			if (o->pin == STORE_PIN_ASKED)
				o->pin = STORE_UNPINNED;
		s->pinned[STORE_PIN_ASKED] = 0;
		s->idle_gen++;
	}
	wd_unlock(&s->lock);
}
