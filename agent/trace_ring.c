/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events lie one behind the other, each as a header with three texts, and run over the ring's end. The lock is held
 * for the copying of one event, or of what a reader takes at once.
 */
#include "agent/trace_ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct header {
	uint32_t len; /* with this header */
	uint16_t texts[3]; /* lengths, with the zero */
	struct trace_event event;
};

_Static_assert(sizeof(struct header) + 3 * (TRACE_TEXT_MAX + 1) <= TRACE_RECORD_MAX, "TRACE_RECORD_MAX");

int trace_ring_init(struct trace_ring *r, size_t size)
{
	*r = (struct trace_ring){.bytes = malloc(size), .size = size};
	wd_mutex_init(&r->lock);
	wd_cond_init(&r->wake);
	return r->bytes ? 0 : -ENOMEM;
}

void trace_ring_done(struct trace_ring *r)
{
	wd_cond_done(&r->wake);
	wd_mutex_done(&r->lock);
	free(r->bytes);
}

static void write_locked(struct trace_ring *r, const void *data, size_t len) WD_REQUIRES(r->lock)
{
	size_t to = (r->at + r->used) % r->size, first = len < r->size - to ? len : r->size - to;

	memcpy(r->bytes + to, data, first);
	memcpy(r->bytes, (const char *)data + first, len - first);
	r->used += len;
}

/* Without taking it. */
static void read_locked(const struct trace_ring *r, void *out, size_t len) WD_REQUIRES(r->lock)
{
	size_t first = len < r->size - r->at ? len : r->size - r->at;

	memcpy(out, r->bytes + r->at, first);
	memcpy((char *)out + first, r->bytes, len - first);
}

bool trace_ring_put(struct trace_ring *r, const struct trace_event *e)
{
	const char *texts[3] = {e->target, e->dataset, e->path};
	struct header h = {.len = sizeof(h), .event = *e};
	bool has_room;

	for (int i = 0; i < 3; i++) {
		h.texts[i] = (uint16_t)(strnlen(texts[i], TRACE_TEXT_MAX) + 1);
		h.len += h.texts[i];
	}
	h.event.target = h.event.dataset = h.event.path = NULL;
	wd_lock(&r->lock);
	has_room = !r->is_ended && h.len <= r->size - r->used;
	if (has_room) {
		if (r->used == 0)
			wd_cond_signal(&r->wake);
		write_locked(r, &h, sizeof(h));
		for (int i = 0; i < 3; i++) {
			write_locked(r, texts[i], h.texts[i] - 1U);
			write_locked(r, "", 1);
		}
	} else {
		r->lost++;
	}
	wd_unlock(&r->lock);
	return has_room;
}

size_t trace_ring_take(struct trace_ring *r, void *out, size_t cap, int64_t deadline_ns, uint64_t *ret_lost)
{
	size_t taken = 0;

	wd_lock(&r->lock);
	while (r->used == 0 && !r->is_ended && wd_cond_wait_until(&r->wake, &r->lock, deadline_ns) == 0)
		;
	while (r->used > 0) {
		uint32_t len;

		read_locked(r, &len, sizeof(len));
		if (len > cap - taken)
			break;
		read_locked(r, (char *)out + taken, len);
		r->at = (r->at + len) % r->size;
		r->used -= len;
		taken += len;
	}
	*ret_lost = r->lost;
	wd_unlock(&r->lock);
	return taken;
}

void trace_ring_end(struct trace_ring *r)
{
	wd_lock(&r->lock);
	r->is_ended = true;
	wd_cond_broadcast(&r->wake);
	wd_unlock(&r->lock);
}

bool trace_ring_has_ended(struct trace_ring *r)
{
	bool has_ended;

	wd_lock(&r->lock);
	has_ended = r->is_ended;
	wd_unlock(&r->lock);
	return has_ended;
}

bool trace_next(void *bytes, size_t len, size_t *at, struct trace_event *ret_event)
{
	char *text = (char *)bytes + *at + sizeof(struct header);
	struct header h;

	if (*at >= len)
		return false;
	memcpy(&h, (char *)bytes + *at, sizeof(h));
	*at += h.len;
	*ret_event = h.event;
	ret_event->target = text;
	ret_event->dataset = text + h.texts[0];
	ret_event->path = text + h.texts[0] + h.texts[1];
	return true;
}

const char *trace_tier_name(enum trace_tier tier)
{
	static const char *const names[] = {"", "local", "peer", "origin"};

	return names[tier];
}

const char *trace_mode_name(enum trace_mode mode)
{
	static const char *const names[] = {"passthrough", "cached", "cold", "uncached"};

	return names[mode];
}

size_t trace_pod(const char *target, const char **ret_uid)
{
	const char *uid = strstr(target, "/pods/");
	size_t len;

	if (!uid)
		return 0;
	uid += strlen("/pods/");
	len = strcspn(uid, "/");
	if (strncmp(uid + len, "/volumes/", strlen("/volumes/")) != 0)
		return 0;
	*ret_uid = uid;
	return len;
}
