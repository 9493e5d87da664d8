/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading past the cache: a wait's range goes into a memfd that is handed to the server. The bytes
 * under way are bounded by a quarter of the memory limit; reads beyond it wait in line.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent/fetch_internal.h"
#include "agent/metrics.h"
#include "common/cleanup.h"

struct bytes_read {
	struct origin_get get;
	struct fetch *fetch;
	struct fetch_wait *wait;
	int fd;
	struct bytes_read *next;
};

/* A server that was killed asks again through its successor: what was still to be read for it would only be in
 * the successor's way, the more the more often servers die. */
static bool is_gone(const struct bytes_read *r)
{
	return r->wait->is_gone && r->wait->is_gone(r->wait);
}

/* Ends r: answers, and returns the next in line, which got its room. */
static struct bytes_read *finish(struct bytes_read *r, int status, const struct wd_err *err)
{
	struct fetcher *fr = r->fetch->fetcher;
	struct bytes_read *next;
	int fd = status == 0 ? r->fd : -1;

	if (status < 0 && r->fd >= 0)
		close(r->fd);
	wd_lock(&fr->lock);
	fr->bytes_under_way -= r->wait->len;
	next = fr->bytes_head;
	if (next) {
		fr->bytes_head = next->next;
		if (!fr->bytes_head)
			fr->bytes_tail = NULL;
		fr->bytes_under_way += next->wait->len;
	}
	wd_unlock(&fr->lock);
	atomic_fetch_sub(&fr->waits, 1);
	r->wait->cb(r->wait, status, fd, err);
	flow_unref(r->get.flow);
	fetch_unref(r->fetch);
	free(r);
	return next;
}

static int bytes_sink(void *arg, uint64_t offset, const void *data, size_t len)
{
	struct bytes_read *r = arg;
	uint64_t at = offset - r->get.offset;

	if (is_gone(r))
		return -ECANCELED;
	metric_add(METRIC_READ_ORIGIN, len);
	metric_add(METRIC_UNCACHED_BYTES, len);
	while (len > 0) {
		ssize_t n = pwrite(r->fd, data, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		data = (const char *)data + n;
		at += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static void begin(struct bytes_read *r);

static void bytes_done(void *arg, int status, const struct wd_err *err)
{
	struct bytes_read *r = arg;

	fetch_note_end(r->fetch, &(struct fetch_end){.status = status, .err = err});
	begin(finish(r, status, err));
}

static int try_begin(struct bytes_read *r, struct wd_err *err)
{
	if (is_gone(r))
		return -ECANCELED;
	r->fd = memfd_create("warpdrive-bytes", MFD_CLOEXEC);
	if (r->fd < 0)
		return wd_err_sys(err, errno, "read '%s' past the cache: memfd_create", r->fetch->name);
	return fetcher_get(r->fetch->fetcher, dataset_origin(r->fetch->dataset), &r->get) < 0 ? -ECANCELED : 0;
}

/* Begins r, which has room; where that fails at once, the next. NULL: nothing to do. */
static void begin(struct bytes_read *r)
{
	while (r) {
		struct wd_err err = WD_ERR_INIT;
		int rc = try_begin(r, &err);

		if (rc == 0)
			return;
		r = finish(r, rc, &err);
	}
}

void bytes_read_start(struct fetch *f, struct fetch_wait *w)
{
	struct fetcher *fr = f->fetcher;
	struct bytes_read *r = calloc(1, sizeof(*r));
	struct wd_err err = {ENOMEM, "read past the cache: out of memory"};
	bool has_room;

	if (!r) {
		atomic_fetch_sub(&fr->waits, 1);
		w->cb(w, -ENOMEM, -1, &err);
		return;
	}
	r->fetch = fetch_ref(f);
	r->wait = w;
	r->fd = -1;
	r->get = (struct origin_get){
		.key = f->name,
		.version = &f->version,
		.offset = w->offset,
		.length = w->len,
		.priority = GET_DEMAND,
		.flow = flow_ref(w->flow ? w->flow : f->flow),
		.deadline_ns = w->deadline_ns,
		.sink = bytes_sink,
		.done = bytes_done,
		.arg = r,
	};
	wd_lock(&fr->lock);
	has_room = fr->bytes_under_way == 0 ||
		fr->bytes_under_way + w->len <= (uint64_t)fr->settings->memory_limit / 4;
	if (has_room) {
		fr->bytes_under_way += w->len;
	} else {
		if (fr->bytes_tail)
			fr->bytes_tail->next = r;
		else
			fr->bytes_head = r;
		fr->bytes_tail = r;
	}
	wd_unlock(&fr->lock);
	if (has_room)
		begin(r);
}
