/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One file of a warm task:
 *
 *	begin ─► bind version ─► proof of access ─► wish ─► end
 *	          (a job)         (where bytes are here)
 *
 * Steps run on the walker, a worker, or where a wish ends; one at a time per file. A file is in the task's list from
 * begin to end, and the walker waits while the list is full.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "agent/pins.h"
#include "agent/proof.h"
#include "agent/warm_internal.h"

#define PART (8ULL * 1024 * 1024) /* of a file, where a bandwidth is kept to */

static void file_unref(struct warm_file *f)
{
	if (atomic_fetch_sub(&f->refs, 1) != 1)
		return;
	fetch_wish_unref(f->wish);
	fetch_close(f->fetch);
	if (f->object)
		object_unref(f->object);
	warm_unref(f->warm);
	free(f->path);
	free(f);
}

static const char *reason(int status)
{
	switch (status) {
	case -EACCES:
		return "the origin denies access";
	case -ENOENT:
		return "it is gone at the origin";
	case -ESTALE:
		return "it has changed at the origin";
	case -EIO:
		return "the origin did not answer as it should; the agent's log says more";
	default:
		return strerrordesc_np(-status) ? strerrordesc_np(-status) : "an unknown error";
	}
}

/* The file is over, well or not. */
static void file_end(struct warm_file *f, int status)
{
	struct warm *w = f->warm;
	uint64_t present = f->object ? object_present_bytes(f->object) : 0;

	if (status == -ENOSPC)
		atomic_store(&w->has_no_room, true);
	else if (status < 0 && status != -ECANCELED)
		warm_note_failure(w, f->path, -status, reason(status));
	wd_lock(&w->lock);
	w->p.files_done += status == 0;
	w->p.bytes_present += present;
	if (present > f->present_before)
		w->p.bytes_fetched += present - f->present_before;
	DL_DELETE(w->files, f);
	w->nfiles--;
	warm_changed_locked(w);
	wd_unlock(&w->lock);
	file_unref(f);
}

/* ---- wishes ---- */

static void wish_done(void *arg, int status);
static void another_version_job(void *arg);

/* The next part of it, or all of it. From here on f is the callback's. */
static void make_wish(struct warm_file *f)
{
	struct warm *w = f->warm;
	uint64_t size = object_size(f->object), len = w->options.bandwidth ? PART : size, at = f->offset;
	struct fetch_wish *wish = NULL, *other;
	bool is_cancelled;
	int rc;

	if (len > size - at)
		len = size - at;
	f->offset = at + len;
	atomic_fetch_add(&f->refs, 1);
	rc = fetch_wish(f->fetch, at, len, GET_WARM, wish_done, f, &wish);
	if (rc < 0) {
		file_end(f, rc);
		file_unref(f);
		return;
	}
	/* f may be over by now; who cancels it has his hands on the wish that is known */
	wd_lock(&w->lock);
	is_cancelled = f->is_cancelled;
	other = is_cancelled ? wish : f->wish;
	if (!is_cancelled)
		f->wish = wish;
	wd_unlock(&w->lock);
	if (is_cancelled || warm_must_end(w))
		fetch_wish_cancel(wish);
	fetch_wish_unref(other);
	file_unref(f);
}

static void pace(struct warm_file *f)
{
	struct warm *w = f->warm;

	wd_lock(&w->lock);
	f->next_paced = NULL;
	*w->paced_tail = f;
	w->paced_tail = &f->next_paced;
	wd_cond_broadcast(&w->changed);
	wd_unlock(&w->lock);
}

static void wish_done(void *arg, int status)
{
	struct warm_file *f = arg;

	if (status == 0 && f->offset < object_size(f->object))
		pace(f);
	else if (status == -ESTALE && !f->is_again)
		mount_run(f->warm->mount, &f->job, another_version_job, f);
	else
		file_end(f, status);
}

/* The file may be read by this mount, and is known. */
static void file_fetch(struct warm_file *f)
{
	struct warm *w = f->warm;
	struct agent *a = w->mount->agent;
	int rc;

	if (object_is_complete(f->object)) {
		file_end(f, 0);
		return;
	}
	if (warm_must_end(w)) {
		file_end(f, -ECANCELED);
		return;
	}
	/* as a reader, who closes it at once: the wish holds it */
	rc = fetch_open(a->fetcher, w->mount->dataset, &f->node, f->object, &f->fetch);
	if (rc < 0)
		file_end(f, rc);
	else if (w->options.bandwidth)
		pace(f);
	else
		make_wish(f);
}

/* ---- before it ---- */

static void proven(void *arg, int status, const struct wd_err *err)
{
	struct warm_file *f = arg;

	if (status < 0)
		file_end(f, status);
	else
		file_fetch(f);
}

/* What is present and bad is absent afterwards. */
static void verify(struct warm_file *f)
{
	uint32_t n = wd_nblocks(object_size(f->object));

	for (uint32_t b = 0; b < n && !warm_must_end(f->warm); b++)
		if (object_has_block(f->object, b))
			object_verify(f->object, b);
}

/* The version is bound. */
static void file_object(struct warm_file *f)
{
	struct agent *a = f->warm->mount->agent;
	struct wd_err err = WD_ERR_INIT;
	struct object *object;
	struct object_id id;
	enum store_pin pin = pins_match(a->pins, f->warm->mount->display, f->node.key);
	int rc;

	tree_object_id(f->warm->mount->dataset, &f->node, &id);
	rc = store_get(a->store, &id, f->node.version.size, &object, &err);
	if (rc < 0) {
		file_end(f, rc);
		return;
	}
	if (pin != STORE_UNPINNED)
		(void)object_pin(object, pin); /* else there are too many: counted */
	wd_lock(&f->warm->lock);
	f->object = object;
	f->present_before = object_present_bytes(object);
	wd_unlock(&f->warm->lock);
	if (f->warm->options.is_verifying && f->present_before > 0)
		verify(f);
	if (f->present_before > 0)
		proof_check(f->warm->mount, &f->node, f->object, false, proven, f);
	else
		file_fetch(f); /* what it fetches itself is proof */
}

/* The name, and what it leads to now. */
static int look_again(struct warm_file *f, struct wd_err *err)
{
	struct mount *mnt = f->warm->mount;
	const char *name = strrchr(f->path, '/');
	uint32_t ttl_ms;
	int rc = tree_lookup(mnt->dataset, f->parent, name ? name + 1 : f->path, mnt->options->metadata_ttl, true,
		&f->node, &ttl_ms, err);

	f->is_again = true;
	return rc == 0 && f->node.is_dir ? -ESTALE : rc;
}

static void bind_job(void *arg)
{
	struct warm_file *f = arg;
	struct dataset *ds = f->warm->mount->dataset;
	struct wd_err err = WD_ERR_INIT;
	int rc = tree_bind(ds, f->node.node, true, &f->node, &err);

	if (rc == -ESTALE && !f->is_again) {
		rc = look_again(f, &err);
		if (rc == 0)
			rc = tree_bind(ds, f->node.node, true, &f->node, &err);
	}
	if (rc < 0)
		file_end(f, rc);
	else
		file_object(f);
}

/* The origin has another version than the one that was wished. */
static void another_version_job(void *arg)
{
	struct warm_file *f = arg;
	struct warm *w = f->warm;
	struct fetch_wish *wish;
	struct object *object;
	struct wd_err err = WD_ERR_INIT;
	int rc;

	tree_expire(w->mount->dataset, f->node.node);
	wd_lock(&w->lock); /* who looks at the task looks at its objects */
	object = f->object;
	wish = f->wish;
	f->object = NULL;
	f->wish = f->is_cancelled ? wish : NULL;
	wd_unlock(&w->lock);
	if (!f->wish)
		fetch_wish_unref(wish);
	fetch_close(f->fetch);
	f->fetch = NULL;
	f->offset = 0;
	object_unref(object);
	rc = look_again(f, &err);
	if (rc < 0)
		file_end(f, rc);
	else
		bind_job(f);
}

/* ---- the walker's side ---- */

/* Asks for the next parts that the bandwidth allows, until fewer than `most` files are under way. */
static void wait_for_room(struct warm *w, unsigned most)
{
	bool has_cancelled = false;

	wd_lock(&w->lock);
	while (w->nfiles >= most || w->paced) {
		struct warm_file *f = w->paced;
		bool is_ending;
		int64_t now = wd_now_ns();

		wd_unlock(&w->lock);
		is_ending = warm_must_end(w);
		if (is_ending && !has_cancelled)
			warm_files_cancel(w);
		has_cancelled |= is_ending;
		wd_lock(&w->lock);
		if (f && (is_ending || now >= w->paced_until_ns)) {
			w->paced = f->next_paced;
			if (!w->paced)
				w->paced_tail = &w->paced;
			wd_unlock(&w->lock);
			if (is_ending) {
				file_end(f, -ECANCELED);
			} else {
				uint64_t left = object_size(f->object) - f->offset;

				w->paced_until_ns = (now > w->paced_until_ns ? now : w->paced_until_ns) +
					(int64_t)((double)(left < PART ? left : PART) * 1e9 / (double)w->options.bandwidth);
				make_wish(f);
			}
			wd_lock(&w->lock);
		} else if (f) {
			wd_cond_wait_until(&w->changed, &w->lock, w->paced_until_ns);
		} else if (w->nfiles >= most) {
			wd_cond_wait(&w->changed, &w->lock);
		}
	}
	wd_unlock(&w->lock);
}

void warm_file_begin(struct warm *w, uint64_t parent, const struct node *node, const char *path)
{
	struct warm_file *f = calloc(1, sizeof(*f));
	struct wd_err err = WD_ERR_INIT;
	int rc;

	wait_for_room(w, w->options.workers);
	if (f)
		f->path = strdup(path);
	if (!f || !f->path) {
		free(f);
		warm_note_failure(w, path, ENOMEM, "the agent is out of memory");
		return;
	}
	f->warm = w;
	atomic_fetch_add(&w->refs, 1);
	f->node = *node;
	f->parent = parent;
	f->refs = 1;
	wd_lock(&w->lock);
	DL_APPEND(w->files, f);
	w->nfiles++;
	wd_unlock(&w->lock);
	rc = tree_bind(w->mount->dataset, node->node, false, &f->node, &err);
	if (rc == -EAGAIN || rc == -ESTALE)
		mount_run(w->mount, &f->job, bind_job, f);
	else if (rc < 0)
		file_end(f, rc);
	else
		file_object(f);
}

void warm_files_wait(struct warm *w)
{
	wait_for_room(w, 1);
}

void warm_files_cancel(struct warm *w)
{
	for (;;) {
		struct warm_file *f;

		wd_lock(&w->lock);
		for (f = w->files; f && (f->is_cancelled || !f->wish); f = f->next)
			;
		if (f) {
			f->is_cancelled = true;
			atomic_fetch_add(&f->refs, 1);
		}
		wd_unlock(&w->lock);
		if (!f)
			return;
		fetch_wish_cancel(f->wish);
		file_unref(f);
	}
}
