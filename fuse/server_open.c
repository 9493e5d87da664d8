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
#include "fuse/server.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/fault.h"
#include "common/log.h"

/* ---- files ---- */

static struct file **bucket_of(uint64_t node)
{
	return &server.buckets[node & (FILE_BUCKETS - 1)];
}

struct file *file_find_locked(uint64_t node)
{
	struct file *f = *bucket_of(node);

	while (f && f->node != node)
		f = f->next;
	return f;
}

struct file *file_get_locked(uint64_t node)
{
	struct file *f = file_find_locked(node);

	if (f)
		return f;
	f = calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	f->node = node;
	f->hinted = UINT64_MAX;
	link_init(&f->out.link);
	link_init(&f->waiters);
	link_init(&f->unopened);
	f->next = *bucket_of(node);
	*bucket_of(node) = f;
	return f;
}

/* The data that is not needed any more is the caller's to unref, without the lock. */
static struct data *take_data_locked(struct file *file)
{
	struct data *data = file->data;

	if (data)
		server.nfiles--;
	file->data = NULL;
	file->is_ready = false;
	unopened_forget_locked(file);
	return data;
}

void file_put_locked(struct file *file)
{
	struct file **at = bucket_of(file->node);

	if (file->is_asking || file->is_ready || !link_is_empty(&file->waiters))
		return;
	while (*at != file)
		at = &(*at)->next;
	*at = file->next;
	link_remove(&file->out.link);
	unopened_forget_locked(file);
	free(file);
}

/* ---- answering OPEN ---- */

/* Gives back what the pool has too much of. Not while the agent is away: it would never hear of it, and the
 * ids would stay registered. */
static void shrink_pool_locked(void)
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
		data = take_data_locked(file);
		file_put_locked(file);
	}
	if (inode_drop(&server.inodes, inode))
		agent_tell_locked(WD_MSG_RELEASE, node);
	shrink_pool_locked();
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
		shrink_pool_locked(); /* there must be entries left for what is opened */
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

struct grant {
	enum wd_open_mode mode;
	uint32_t backing_id;
	uint64_t size;
	struct data *data;
};

/* Reads the answer. A mode that cannot be had becomes cached mode without data: its reads ask the
 * agent for the bytes. */
static int decode_grant(struct wd_msg *m, struct grant *ret_grant)
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

static struct data *give_data_locked(struct file *file, struct data *data)
{
	struct data *old = take_data_locked(file);

	if (data && server.nfiles >= server.files_max) {
		data_unref(old);
		old = data; /* descriptors are short: its reads ask the agent for the bytes */
		data = NULL;
	}
	file->data = data;
	file->is_ready = true;
	if (data)
		server.nfiles++;
	return old;
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
			*ret_garbage = give_data_locked(file, g->data);
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
	int status = m->status < 0 ? m->status : decode_grant(m, &g);
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
	shrink_pool_locked();
}

static bool is_served(const struct wd_mm_inode *inode)
{
	uint32_t state = inode ? inode_state(inode) : WD_INO_FREE;

	return (state == WD_INO_CACHED || state == WD_INO_DIRECT) && atomic_load(&inode->opens) > 0;
}

static void on_reopened(struct file *file, struct wd_msg *m)
{
	struct data *garbage = NULL;
	struct wd_mm_inode *inode;
	struct grant g = {0};
	int status = m->status < 0 ? m->status : decode_grant(m, &g);
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
		garbage = give_data_locked(file, g.data);
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
		on_reopened(f, m);
	else
		on_opened(f, m);
}

/* ---- taking over, and new agents ---- */

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
