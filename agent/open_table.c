/* SPDX-License-Identifier: Apache-2.0 */
/* The open files of a mount, seen as a table: who asks for one, what is closed, and what a dead server left. */
#include <stdlib.h>
#include <string.h>

#include "agent/open_internal.h"

void open_on_release(struct mount *mnt, uint64_t node)
{
	struct open_file *of;

	wd_lock(&mnt->lock);
	HASH_FIND(hh, mnt->opens, &node, sizeof(node), of);
	if (of && of->state == OPEN) {
		open_take_out_locked(mnt, of);
	} else if (of) {
		of->is_released = true; /* its next steps see to it */
		of = NULL;
	}
	wd_unlock(&mnt->lock);
	if (of)
		open_close(of);
}

/* A reference. What is open by passthrough has none until somebody wants it. */
static struct fetch *fetch_of_locked(struct mount *mnt, struct open_file *of) WD_REQUIRES(mnt->lock)
{
	struct fetch *fetch, *made = NULL;

	if (of->fetch)
		return fetch_ref(of->fetch);
	if (fetch_open(mnt->agent->fetcher, mnt->dataset, &of->info, of->object, &made) < 0)
		return NULL;
	fetch_set_flow(made, mnt->flow);
	fetch = fetch_ref(made);
	fetch_close(made);
	return fetch;
}

struct fetch *open_fetch(struct mount *mnt, uint64_t node)
{
	struct fetch *fetch = NULL;
	struct open_file *of;

	wd_lock(&mnt->lock);
	HASH_FIND(hh, mnt->opens, &node, sizeof(node), of);
	if (of && of->state == OPEN)
		fetch = fetch_of_locked(mnt, of);
	wd_unlock(&mnt->lock);
	return fetch;
}

struct fetch *open_fetch_of(struct mount *mnt, const struct object_id *id)
{
	struct fetch *fetch = NULL;
	struct open_file *of;

	wd_lock(&mnt->lock);
	HASH_FIND(hh_object, mnt->by_object, id, sizeof(*id), of);
	if (of && of->state == OPEN)
		fetch = fetch_of_locked(mnt, of);
	wd_unlock(&mnt->lock);
	return fetch;
}

unsigned open_count(struct mount *mnt)
{
	struct open_file *of, *tmp;
	unsigned n = 0;

	wd_lock(&mnt->lock);
	HASH_ITER(hh, mnt->opens, of, tmp) {
		const struct wd_mm_inode *e = of->mode == WD_OPEN_PASSTHROUGH ? wd_mm_find(&mnt->mm, of->node)
									       : NULL;

		n += !e || atomic_load(&e->state) != WD_INO_IDLE;
	}
	wd_unlock(&mnt->lock);
	return n;
}

/* Takes files out of the table: all, or those that the shared tables do not know. */
static struct open_file *take_out(struct mount *mnt, bool is_all)
{
	struct open_file *of, *tmp, *gone = NULL;

	wd_lock(&mnt->lock);
	HASH_ITER(hh, mnt->opens, of, tmp) {
		if (of->state != OPEN || (!is_all && wd_mm_find(&mnt->mm, of->node)))
			continue; /* one that is not OPEN is in the hands of its next step */
		open_take_out_locked(mnt, of);
		HASH_ADD(hh, gone, node, sizeof(of->node), of);
	}
	wd_unlock(&mnt->lock);
	return gone;
}

void open_drop_all(struct mount *mnt)
{
	struct open_file *of, *tmp, *gone = take_out(mnt, true);

	HASH_ITER(hh, gone, of, tmp) {
		HASH_DEL(gone, of);
		open_file_free(of);
	}
}

void open_reconcile(struct mount *mnt)
{
	struct open_file *of, *tmp, *gone = take_out(mnt, false);

	HASH_ITER(hh, gone, of, tmp) {
		HASH_DEL(gone, of);
		open_close(of);
	}
}
