/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A block of the cache was found bad while its object is open somewhere: it is fetched anew at once. A
 * file that is open by passthrough is read by the kernel alone, so that nobody would ask for the block;
 * the fetch writes the right bytes over the wrong ones in the same file, and whoever reads it sees them.
 *
 * Called on the store's checker thread, with no lock held.
 */
#include <stdlib.h>
#include <unistd.h>

#include "agent/mount.h"
#include "common/log.h"

#define MOUNTS_MAX 256

struct repair {
	struct fetch *fetch;
	struct fetch_wait wait;
};

static void repair_done(struct fetch_wait *w, int status, int fd, const struct wd_err *err)
{
	struct repair *r = (struct repair *)((char *)w - offsetof(struct repair, wait));

	if (fd >= 0)
		close(fd);
	if (status < 0)
		wd_warn("a damaged block of the cache cannot be fetched anew: %s",
			err && err->msg[0] ? err->msg : "there is no room");
	fetch_unref(r->fetch);
	free(r);
}

static struct fetch *find(struct agent *a, const struct object_id *id)
{
	struct mount *mounts[MOUNTS_MAX];
	struct fetch *fetch = NULL;
	unsigned n = 0;

	wd_lock(&a->lock);
	for (struct mount *mnt = a->mounts; mnt && n < MOUNTS_MAX; mnt = mnt->next)
		mounts[n++] = mount_ref(mnt);
	wd_unlock(&a->lock);
	for (unsigned i = 0; i < n; i++) {
		if (!fetch)
			fetch = open_fetch_of(mounts[i], id);
		mount_unref(mounts[i]);
	}
	return fetch;
}

void repair_damaged(void *arg, const struct object_id *id, uint64_t offset, uint64_t len)
{
	struct fetch *fetch = find(arg, id);
	struct repair *r = fetch ? calloc(1, sizeof(*r)) : NULL;

	if (!r) {
		fetch_unref(fetch);
		return; /* the next reader asks for it */
	}
	r->fetch = fetch;
	r->wait = (struct fetch_wait){
		.offset = offset, .len = len, .flags = FETCH_CACHE_ONLY, .cb = repair_done};
	fetch_ensure(fetch, &r->wait);
}
