/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounts whose kernel sends no OPEN (WD_MOUNT_NO_OPEN): of a pinned version of a dataset, in which no file ever
 * changes.
 *
 * The first OPEN is answered with ENOSYS. From then on the kernel opens and closes files without a word, keeps their
 * pages, and sends READs with fh 0 for what it has no pages of. Such a READ opens the file at the agent where it is
 * not; the file stays open there until it was not read for UNOPENED_IDLE_NS, or until there are UNOPENED_MAX of them.
 *
 * It is an entry in force with one open and no handle: a server that takes over counts the opens from the handles,
 * finds none, and so closes it at the agent. The READs that are repeated open it anew.
 */
#include "fuse/server.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#define UNOPENED_IDLE_NS (5 * 1000000000LL)
#define UNOPENED_MAX 1024

static void touch_locked(struct file *file)
{
	file->used_ns = wd_now_ns();
	link_remove(&file->unopened);
	link_add(&server.unopened, &file->unopened);
}

struct wd_mm_inode *unopened_find_locked(uint64_t node)
{
	struct wd_mm_inode *inode = wd_mm_find(&server.mm, node);
	uint32_t state = inode ? inode_state(inode) : WD_INO_FREE;
	struct file *file;

	if ((state != WD_INO_CACHED && state != WD_INO_DIRECT) || atomic_load(&inode->opens) == 0)
		return NULL;
	file = file_find_locked(node);
	if (file && !link_is_empty(&file->unopened))
		touch_locked(file);
	return inode;
}

int unopened_ask_locked(struct op *op)
{
	struct wd_mm_inode *inode = NULL;

	switch (inode_begin(&server.inodes, op->node, &inode)) {
	case INODE_ASK:
		return open_wait_locked(op, inode) ? 0 : op->open.err;
	case INODE_OPENING:
	case INODE_RECLAIM:
		return open_wait_locked(op, NULL) ? 0 : op->open.err;
	case INODE_OPEN: /* it would have been found */
	case INODE_FULL:
		break;
	}
	return ENFILE;
}

/* Closes file at the agent. Returns its data to unref. */
static struct data *close_locked(struct file *file)
{
	struct wd_mm_inode *inode = wd_mm_find(&server.mm, file->node);

	unopened_forget_locked(file);
	if (!inode)
		return NULL;
	atomic_store(&inode->opens, 0);
	return open_last_close_locked(inode);
}

void unopened_opened_locked(struct file *file, struct wd_mm_inode *inode)
{
	atomic_store(&inode->opens, 1);
	file->used_ns = wd_now_ns();
	if (!link_is_empty(&file->unopened))
		return;
	link_add(&server.unopened, &file->unopened);
	server.nunopened++;
}

void unopened_forget_locked(struct file *file)
{
	if (link_is_empty(&file->unopened))
		return;
	link_remove(&file->unopened);
	server.nunopened--;
}

/* Looks at the one that was not read for longest. False when it, and so all others, may stay. */
static bool sweep_one(bool is_idle, int64_t now_ns)
{
	struct data *data = NULL;
	struct file *file;
	bool is_due;

	wd_lock(&server.lock);
	file = (struct file *)((char *)server.unopened.next - offsetof(struct file, unopened));
	is_due = server.nunopened > 0 &&
		 (is_idle || server.nunopened > UNOPENED_MAX || now_ns - file->used_ns > UNOPENED_IDLE_NS);
	if (is_due && (file->is_asking || read_is_waiting_of_locked(file->node)))
		touch_locked(file);
	else if (is_due)
		data = close_locked(file);
	wd_unlock(&server.lock);
	data_unref(data);
	return is_due;
}

void unopened_sweep(bool is_idle)
{
	uint32_t most;

	if (!unopened_is())
		return;
	wd_lock(&server.lock);
	most = server.nunopened; /* those that are waited for are looked at once */
	wd_unlock(&server.lock);
	while (most > 0 && sweep_one(is_idle, wd_now_ns()))
		most--;
	agent_flush();
}
