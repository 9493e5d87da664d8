/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bound over the pools of all mounts: how many files stay registered with the kernel. A server bounds the
 * pool of its own mount; what the sum costs (in the kernel a struct file, its inode and dentry, here the open file
 * and its object) only the agent sees.
 *
 * A list of all files that are open by passthrough, with a second chance: servers open pooled files without a word,
 * but count it in the shared tables. Who adds a file beyond the bound takes the first back that is idle and was not
 * used since the list last came to it. Files that somebody has open are passed over, and so is all that was
 * used: at most LOOKS of them at once, so that no open pays for a long list of them.
 *
 * Called on any thread; its lock is a leaf, and waits for nothing.
 */
#include "agent/open_internal.h"

#include <stdlib.h>
#include <utlist.h>

#define LOOKS 16
#define FILE_BYTES 2048	 /* what one takes here: an open file, an object, their places in tables */
#define MEMORY_SHARE 8 /* pooled files take at most one part in so many of memory-limit */

struct open_pool {
	struct wd_mutex lock;
	struct open_file *files WD_GUARDED_BY(lock); /* by their pool_prev and pool_next */
	uint64_t n WD_GUARDED_BY(lock), nleaving WD_GUARDED_BY(lock);
	uint64_t max;
};

struct open_pool *open_pool_new(const struct settings *settings)
{
	uint64_t max = (uint64_t)settings->pooled_files;
	uint64_t room = (uint64_t)settings->memory_limit / MEMORY_SHARE / FILE_BYTES;
	struct open_pool *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	wd_mutex_init(&p->lock);
	p->max = max < room ? max : room;
	return p;
}

void open_pool_free(struct open_pool *p)
{
	if (!p)
		return;
	wd_mutex_done(&p->lock);
	free(p);
}

void open_pool_add(struct open_pool *p, struct open_file *of)
{
	of->pool_uses = open_uses(of);
	of->is_pooled = true;
	wd_lock(&p->lock);
	DL_APPEND2(p->files, of, pool_prev, pool_next);
	p->n++;
	wd_unlock(&p->lock);
}

static void stay_locked(struct open_pool *p, struct open_file *of) WD_REQUIRES(p->lock)
{
	p->nleaving -= of->is_leaving;
	of->is_leaving = false;
}

void open_pool_stay(struct open_pool *p, struct open_file *of)
{
	wd_lock(&p->lock);
	stay_locked(p, of);
	wd_unlock(&p->lock);
}

void open_pool_remove(struct open_pool *p, struct open_file *of)
{
	if (!of->is_pooled)
		return;
	of->is_pooled = false;
	wd_lock(&p->lock);
	stay_locked(p, of);
	DL_DELETE2(p->files, of, pool_prev, pool_next);
	p->n--;
	wd_unlock(&p->lock);
}

/* Whether it is idle and was not used since we last looked. */
static bool is_unused(struct open_file *of)
{
	const struct wd_mm_inode *e = wd_mm_find(&of->mount->mm, of->node);
	uint32_t uses = e ? atomic_load_explicit(&e->uses, memory_order_relaxed) : 0;
	bool is = e && !of->is_leaving && uses == of->pool_uses && atomic_load(&e->state) == WD_INO_IDLE;

	of->pool_uses = uses;
	return is;
}

/* A file that may go: its mount (a reference) and node. NULL: there are not too many, or none may. */
static struct mount *find_surplus(struct open_pool *p, uint64_t *ret_node)
{
	struct mount *mnt = NULL;

	wd_lock(&p->lock);
	for (int i = 0; i < LOOKS && p->n - p->nleaving > p->max && !mnt; i++) {
		struct open_file *of = p->files;

		if (is_unused(of)) {
			mnt = mount_ref(of->mount); /* an open file in the list has one */
			*ret_node = of->node;
			of->is_leaving = true;
			p->nleaving++;
		}
		DL_DELETE2(p->files, of, pool_prev, pool_next);
		DL_APPEND2(p->files, of, pool_prev, pool_next);
	}
	wd_unlock(&p->lock);
	return mnt;
}

void open_pool_shrink(struct open_pool *p)
{
	uint64_t node;

	/* two for one that was added, so that it comes back below the bound */
	for (int i = 0; i < 2; i++) {
		struct mount *mnt = find_surplus(p, &node);

		if (!mnt)
			break;
		open_give_back(mnt, node);
		mount_unref(mnt);
	}
}
