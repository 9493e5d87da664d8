/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After a restart of the server or the agent: which files the agent is told of again, and when. What is open is
 * asked for at once, since readers may wait for it; what is pooled a few at a time (server_inode.h).
 */
#include "fuse/server_open.h"

#include <errno.h>
#include <stddef.h>

#include "common/log.h"

static struct file *ask_again(struct wd_mm_inode *inode)
{
	uint64_t node = inode_node(inode);
	uint32_t state = inode_state(inode);
	bool was_passthrough = state == WD_INO_PASSTHROUGH || state == WD_INO_IDLE;
	struct file *file = file_get_locked(node);

	if (!file)
		return NULL;
	file->is_ready = file->is_ready && was_passthrough;
	file->reopened = inode;
	agent_ask_file_locked(
		file, WD_OPEN_REOPEN | (was_passthrough ? WD_OPEN_WAS_PASSTHROUGH : 0));
	return file;
}

/* Tells the agent of some more of the pool. */
static void ask_next_locked(void)
{
	while (server.nreopens < REOPENS_MAX) {
		struct wd_mm_inode *inode = inode_next_unknown(&server.inodes);
		struct file *file = inode ? file_find_locked(inode_node(inode)) : NULL;

		if (!inode)
			break;
		if (file && file->is_asking && file->is_reopen) {
			file->reopened = inode; /* it is being told already */
			continue;
		}
		file = ask_again(inode);
		if (!file) {
			inode_known(&server.inodes, inode); /* no memory: the agent never learns of it */
			continue;
		}
		server.nreopens += !file->is_lined;
		file->is_lined = true;
	}
}

/* The REOPEN of file was answered. */
static void reopened_locked(struct file *file)
{
	if (file->reopened)
		inode_known(&server.inodes, file->reopened);
	file->reopened = NULL;
	server.nreopens -= file->is_lined;
	file->is_lined = false;
	ask_next_locked();
	open_shrink_pool_locked();
}

/* Lets all ops in list go on as if their file had changed. */
static void finish_all(struct link *list, int status)
{
	while (!link_is_empty(list)) {
		struct op *op = (struct op *)((char *)list->next - offsetof(struct op, wait));

		link_remove(&op->wait);
		op->finish(op, NULL, status);
	}
}

static bool is_served(const struct wd_mm_inode *inode)
{
	uint32_t state = inode ? inode_state(inode) : WD_INO_FREE;

	return (state == WD_INO_CACHED || state == WD_INO_DIRECT) && atomic_load(&inode->opens) > 0;
}

void reopen_answered(struct file *file, struct wd_msg *m)
{
	struct data *garbage = NULL;
	struct wd_mm_inode *inode;
	struct grant g = {0};
	int status = m->status < 0 ? m->status : grant_decode(m, &g);
	uint64_t node = file->node;
	struct link list;

	wd_lock(&server.lock);
	if (file->out.id != 0) { /* another agent was asked meanwhile: its word counts */
		wd_unlock(&server.lock);
		data_unref(g.data);
		return;
	}
	agent_take_waiters_locked(file, &list);
	file->is_asking = false;
	inode = wd_mm_find(&server.mm, node);
	if (status == 0 && is_served(inode)) {
		garbage = file_give_data_locked(file, g.data);
		if (unopened_is())
			unopened_opened_locked(file, inode);
	} else {
		garbage = g.data;
	}
	if (status == 0 && !inode)
		agent_tell_locked(WD_MSG_RELEASE, node); /* it was closed before the agent knew of it */
	reopened_locked(file);
	file_put_locked(file);
	wd_unlock(&server.lock);
	data_unref(garbage);
	if (status < 0)
		wd_error("the agent cannot open node %llu again: %s", (unsigned long long)node,
			m->status < 0 ? "see its log" : "a malformed answer");
	finish_all(&list, status);
	agent_flush();
}

static void tell_released(uint64_t node)
{
	agent_tell_locked(WD_MSG_RELEASE, node);
}

/* Without memory a read asks. */
static void ask_at_once(struct wd_mm_inode *inode)
{
	ask_again(inode);
}

void open_recover(void)
{
	wd_lock(&server.lock);
	inodes_recover(&server.inodes, tell_released, ask_at_once);
	ask_next_locked();
	wd_unlock(&server.lock);
	agent_flush();
}

/* What the agent before was asked and did not answer. */
static void ask_unanswered_locked(struct file *f)
{
	const struct wd_mm_inode *inode = f->is_reopen ? wd_mm_find(&server.mm, f->node) : NULL;
	bool was_passthrough = inode && (inode_state(inode) == WD_INO_PASSTHROUGH ||
						inode_state(inode) == WD_INO_IDLE);

	agent_ask_file_locked(f, (f->is_reopen ? WD_OPEN_REOPEN : 0) |
					 (was_passthrough ? WD_OPEN_WAS_PASSTHROUGH : 0));
}

void open_ask_all_locked(void)
{
	inodes_ask_all(&server.inodes, ask_at_once);
	/* those that no open inode stands for: first opens, and a REOPEN of one that is idle or was closed
	 * meanwhile, behind which a new open may wait */
	for (uint32_t i = 0; i < FILE_BUCKETS; i++)
		for (struct file *f = server.buckets[i]; f; f = f->next)
			if (f->is_asking && link_is_empty(&f->out.link))
				ask_unanswered_locked(f);
	ask_next_locked();
}
