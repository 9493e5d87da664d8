/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OPEN and RELEASE.
 *
 *	OPEN --- in force or pooled -----------------------------> answered at once
 *	     --- claimed --> file asks the agent --> settled ----> all that waited are answered
 *	     --- RECLAIM --> file asks the agent --> begins again
 *
 * A struct file stands for a node about which the agent is being asked, or which is open through
 * the server; for passthrough nothing is kept but the tables' entry. All opens of a node that come
 * while it is asked about wait in file->waiters.
 */
#include "fuse/server_open.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/fault.h"
#include "common/log.h"

/* ---- answering OPEN ---- */

void open_shrink_pool_locked(void)
{
	uint64_t node;

	while (server.is_agent_up && (node = inode_evict(&server.inodes)) != 0)
		agent_tell_locked(WD_MSG_RELEASE, node);
}

struct data *open_last_close_locked(struct wd_mm_inode *inode)
{
	uint64_t node = inode_node(inode);
	struct file *file = file_find_locked(node);
	struct data *data = NULL;

	if (file) {
		data = file_take_data_locked(file);
		file_put_locked(file);
	}
	if (inode_drop(&server.inodes, inode))
		agent_tell_locked(WD_MSG_RELEASE, node);
	open_shrink_pool_locked();
	return data;
}

static void count_open(const struct op *op)
{
	if (op->open.state == WD_INO_PASSTHROUGH) {
		wd_mm_add(&server.mm, WD_MM_PASSTHROUGH_OPENS, 1);
		wd_mm_add(&server.mm, WD_MM_PASSTHROUGH_BYTES, op->open.size);
	} else {
		wd_mm_add(&server.mm, WD_MM_CACHED_OPENS, 1);
	}
}

/* Answers OPEN with op->fh, in the mode that was in force when the handle was made. */
static void reply_open(struct op *op)
{
	struct fuse_file_info fi = {.fh = op->fh, .noflush = 1};
	struct data *data = NULL;
	int rc;

	if (op->open.state == WD_INO_PASSTHROUGH)
		fi.backing_id = (int32_t)op->open.backing_id;
	else if (op->open.state == WD_INO_DIRECT)
		fi.direct_io = 1;
	else
		fi.keep_cache = 1; /* always: without it openers hang behind parked reads */
	if (op->open.is_unasked) /* before somebody knows of it who may look */
		count_open(op);
	rc = fuse_reply_open(op->req, &fi);
	if (WD_FAULT("server.die-opened"))
		server_exit(1);
	wd_lock(&server.lock);
	if (rc == 0) {
		handle_opened(&server.inodes, op->fh);
	} else if (!op->open.is_adopted) {
		struct wd_mm_inode *inode = handle_not_opened(&server.inodes, op->fh, op->node);

		if (inode)
			data = open_last_close_locked(inode);
	}
	wd_unlock(&server.lock);
	op_done(op);
	data_unref(data);
	if (rc < 0)
		agent_flush();
}

static void answer_open(struct op *op)
{
	if (op->open.err)
		op_reply_err(op, op->open.err);
	else
		reply_open(op);
}

/* Gives op a handle of an inode in force: the one that a predecessor made for the same request, or
 * a new one. */
static void take_handle_locked(struct op *op, struct wd_mm_inode *inode)
{
	op->fh = op->is_repeat ? handle_adopt(&server.inodes, op->node, op->unique) : 0;
	op->open.is_adopted = op->fh != 0;
	op->open.err = 0;
	if (!op->fh && !handle_add(&server.inodes, inode, op->unique, &op->fh))
		op->open.err = ENFILE;
	op->open.state = inode_state(inode);
	op->open.backing_id = atomic_load(&inode->backing_id);
	op->open.size = atomic_load(&inode->size);
}

bool open_wait_locked(struct op *op, struct wd_mm_inode *claimed)
{
	struct file *file = file_get_locked(op->node);
	int rc = file ? agent_wait_file_locked(op, file) : -ENOMEM;

	if (rc == 0) {
		if (!file->is_asking)
			agent_ask_file_locked(file, 0);
		return true;
	}
	op->open.err = -rc;
	if (file)
		file_put_locked(file);
	if (claimed) /* nobody was asked */
		inode_forget(&server.inodes, claimed);
	return false;
}

/* True when op is parked; else it is to be answered. */
static bool open_locked(struct op *op)
{
	struct wd_mm_inode *inode = NULL;

	switch (inode_begin(&server.inodes, op->node, &inode)) {
	case INODE_OPEN:
		take_handle_locked(op, inode);
		op->open.is_unasked = !op->open.err && !op->open.is_adopted;
		if (op->open.is_unasked)
			atomic_fetch_add_explicit(&inode->uses, 1, memory_order_relaxed);
		if (op->open.err && atomic_load(&inode->opens) == 0)
			open_last_close_locked(inode); /* back to the pool: there is no data */
		return false;
	case INODE_ASK:
		open_shrink_pool_locked(); /* there must be entries left for what is opened */
		return open_wait_locked(op, inode);
	case INODE_OPENING:
	case INODE_RECLAIM:
		return open_wait_locked(op, NULL);
	case INODE_FULL:
		break;
	}
	op->open.err = ENFILE;
	return false;
}

static void open_begin(struct op *op)
{
	bool is_parked;

	wd_lock(&server.lock);
	is_parked = open_locked(op);
	wd_unlock(&server.lock);
	if (is_parked)
		agent_flush();
	else
		answer_open(op);
}

/* It waited behind a file whose answer was not for it (a REOPEN), or the kernel does not want it
 * any more. */
static void open_finish(struct op *op, struct wd_msg *m, int status)
{
	if (status == -EINTR)
		op_reply_err(op, EINTR);
	else
		open_begin(op);
}

void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct op *op = op_current();

	op->req = req;
	if (unopened_is()) {
		fuse_reply_err(req, ENOSYS); /* there will be no other */
		return;
	}
	if ((fi->flags & O_ACCMODE) != O_RDONLY || (fi->flags & O_TRUNC)) {
		fuse_reply_err(req, EROFS);
		return;
	}
	if (control_is_node(ino)) {
		control_open(req);
		return;
	}
	op->node = ino;
	op->finish = open_finish;
	open_begin(op);
}

void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct op *op = op_current();
	struct data *data = NULL;
	struct wd_mm_inode *inode;

	op->req = req;
	wd_lock(&server.lock);
	inode = handle_remove(&server.inodes, fi->fh, ino);
	if (inode)
		data = open_last_close_locked(inode);
	wd_unlock(&server.lock);
	op_reply_err(op, 0);
	data_unref(data);
	if (inode)
		agent_flush();
}

/* ---- the agent's answers ---- */

int grant_decode(struct wd_msg *m, struct grant *ret_grant)
{
	struct wd_err err = WD_ERR_INIT;
	struct wd_rd r = wd_rd_start(m);
	struct grant g = {.mode = wd_rd_u8(&r)};

	g.backing_id = wd_rd_u32(&r);
	g.size = wd_rd_u64(&r);
	if (!wd_rd_done(&r) || g.mode < WD_OPEN_PASSTHROUGH || g.mode > WD_OPEN_DIRECT ||
		g.size > INT64_MAX) {
		wd_error("the agent's answer to OPEN makes no sense");
		return -EIO;
	}
	if (g.mode == WD_OPEN_PASSTHROUGH &&
		(!server.is_passthrough || g.backing_id == 0 || g.backing_id > INT32_MAX)) {
		wd_error("the agent grants passthrough with backing id %u, which is not possible",
			g.backing_id);
		g.mode = WD_OPEN_CACHED;
	} else if (g.mode == WD_OPEN_CACHED) {
		int fd = wd_msg_take_fd(m, 0);

		g.data = data_new(fd, wd_msg_take_fd(m, 1), &err);
		if (g.data && g.data->map->size != g.size) {
			wd_err_set(&err, EPROTO, "the live map is of another size");
			data_unref(g.data);
			g.data = NULL;
		}
		if (!g.data)
			wd_error("open a cache file: %s", err.msg);
	}
	*ret_grant = g;
	return 0;
}

/* An open that the agent refused. */
static void refuse(struct file *file, int status)
{
	struct wd_mm_inode *inode;
	struct link list;

	wd_lock(&server.lock);
	inode = wd_mm_find(&server.mm, file->node);
	if (inode && inode_state(inode) == WD_INO_OPENING)
		inode_forget(&server.inodes, inode);
	agent_take_waiters_locked(file, &list);
	file->is_asking = false;
	file_put_locked(file);
	wd_unlock(&server.lock);
	while (!link_is_empty(&list)) {
		struct op *op = (struct op *)((char *)list.next - offsetof(struct op, wait));

		link_remove(&op->wait);
		op_reply_err(op, agent_errno(status));
	}
	agent_flush();
}

/* Puts the grant in force and gives every op in list a handle. False when the entry is not ours to
 * settle. */
static bool settle_locked(
	struct file *file, const struct grant *g, struct link *list, struct data **ret_garbage)
{
	struct wd_mm_inode *inode;
	enum inode_verdict verdict = inode_begin(&server.inodes, file->node, &inode);

	if (verdict == INODE_FULL || verdict == INODE_RECLAIM)
		return false;
	if (verdict == INODE_OPEN) {
		*ret_garbage = g->data; /* another answer was faster; its mode holds */
	} else {
		inode_settle(inode, g->mode, g->backing_id, g->size);
		if (g->mode != WD_OPEN_PASSTHROUGH)
			*ret_garbage = file_give_data_locked(file, g->data);
	}
	if (unopened_is())
		unopened_opened_locked(file, inode);
	else
		for (struct link *l = list->next; l != list; l = l->next)
			take_handle_locked((struct op *)((char *)l - offsetof(struct op, wait)), inode);
	if (atomic_load(&inode->opens) == 0) { /* all were interrupted */
		struct data *data = open_last_close_locked(inode);

		if (data)
			*ret_garbage = data;
	}
	return true;
}

static void on_opened(struct file *file, struct wd_msg *m)
{
	struct data *garbage = NULL;
	struct grant g = {0};
	int status = m->status < 0 ? m->status : grant_decode(m, &g);
	uint64_t node = file->node;
	struct link list;
	bool is_settled;

	if (status < 0) {
		refuse(file, status);
		return;
	}
	wd_lock(&server.lock);
	agent_take_waiters_locked(file, &list);
	file->is_asking = false;
	is_settled = settle_locked(file, &g, &list, &garbage);
	if (!is_settled)
		garbage = g.data;
	file = file_find_locked(node); /* settling may have been the end of it */
	if (file)
		file_put_locked(file);
	wd_unlock(&server.lock);
	data_unref(garbage);
	while (!link_is_empty(&list)) {
		struct op *op = (struct op *)((char *)list.next - offsetof(struct op, wait));

		link_remove(&op->wait);
		if (!is_settled)
			op->open.err = EIO;
		if (unopened_is())
			op->finish(op, NULL, is_settled ? 0 : -EIO);
		else
			answer_open(op);
	}
	unopened_sweep(false);
	agent_flush();
}

void open_answered(uint64_t id, struct wd_msg *m)
{
	struct file *f;
	bool is_reopen;

	if (m->type != (WD_MSG_OPEN | WD_MSG_REPLY))
		return;
	wd_lock(&server.lock);
	f = server.buckets[id >> 48 & (FILE_BUCKETS - 1)];
	while (f && !(f->is_asking && f->out.id == id))
		f = f->next;
	if (f) {
		is_reopen = f->is_reopen;
		f->out.id =
			0; /* taken: a second answer finds nothing, and is_asking keeps the file */
		link_remove(&f->out.link);
	}
	wd_unlock(&server.lock);
	if (!f)
		return;
	if (is_reopen)
		reopen_answered(f, m);
	else
		on_opened(f, m);
}
