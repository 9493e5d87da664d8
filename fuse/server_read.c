/* SPDX-License-Identifier: Apache-2.0 */
/*
 * READ, for what the kernel does not read by passthrough.
 *
 * When the live map says that the whole range is in the cache file, it is read from there, without
 * a message to anyone. Else the agent is asked to ensure the range and the request is parked; when
 * the answer comes the map is looked at again. What the cache does not admit, or what cannot be
 * read from it, comes as bytes in a memfd.
 *
 * A short answer would mean the end of the file to the kernel: it gets all that was asked for, up
 * to the size that the open was granted with, or an error.
 */
#include "fuse/server.h"

#include <errno.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/log.h"

#define TRIES_MAX 4 /* "present" without the bits being set: first again, then bytes, then EIO */
#define HINT_SHIFT 20

static bool pread_all(int fd, unsigned char *buf, size_t size, uint64_t offset)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = pread(fd, buf + done, size - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		done += (size_t)n;
	}
	return true;
}

/* Ends the op, whose data is given back. */
static void fail(struct op *op, int err)
{
	struct data *data = op->data;

	op->data = NULL;
	op_reply_err(op, err);
	data_unref(data);
}

/* Answers with the bytes at offset of fd; false when they cannot be read. */
static bool reply_from(struct op *op, int fd, uint64_t offset)
{
	struct data *data = op->data;
	void *buf = buffer_get(op->size);
	bool is_read = pread_all(fd, buf, op->size, offset);

	if (is_read) {
		op->data = NULL;
		wd_mm_add(&server.mm, WD_MM_READ_BYTES, op->size);
		fuse_reply_buf(op->req, buf, op->size);
		op_done(op);
		data_unref(data);
	}
	buffer_put(buf);
	return is_read;
}

static bool is_present(const struct op *op)
{
	return op->data && wd_livemap_has(op->data->map, op->offset, op->size);
}

static void ensure(struct op *op, uint32_t flags)
{
	op->out.type = WD_MSG_ENSURE;
	op->out.node = op->node;
	op->out.offset = op->offset;
	op->out.len = op->size;
	op->out.flags = flags;
	agent_ask(op);
}

static void serve(struct op *op)
{
	bool is_bytes = !op->data || op->tries > 1;

	if (!is_bytes && is_present(op)) {
		if (!WD_FAULT("server.pread") && reply_from(op, op->data->fd, op->offset))
			return;
		wd_error("a cache file of node %llu cannot be read at %llu; the agent is asked for "
			 "the "
			 "bytes",
			(unsigned long long)op->node, (unsigned long long)op->offset);
		is_bytes = true;
	}
	ensure(op, is_bytes ? WD_ENSURE_BYTES : 0);
}

/* Finds the data of the file that is read, or waits for it. True when the op can go on. */
static bool prepare_locked(struct op *op, const struct wd_mm_inode *inode,
	struct data **ret_garbage, bool *ret_is_hint, int *ret_err)
{
	uint32_t state = inode_state(inode);
	struct file *file;

	*ret_garbage = op->data;
	op->data = NULL;
	if (state == WD_INO_PASSTHROUGH)
		return true; /* the kernel does not ask; if it did: bytes from the agent */
	file = file_get_locked(op->node);
	if (!file) {
		*ret_err = ENOMEM;
		return false;
	}
	if (!file->is_ready) {
		*ret_err = -agent_wait_file_locked(op, file);
		if (*ret_err == 0 && !file->is_asking)
			agent_ask_file_locked(file, WD_OPEN_REOPEN);
		if (*ret_err != 0)
			file_put_locked(file);
		return false;
	}
	op->data = data_ref(file->data);
	if (op->data && !(atomic_load(&op->data->map->flags) & WD_LIVEMAP_COMPLETE)) {
		uint64_t at = (op->offset + op->size) >> HINT_SHIFT;

		*ret_is_hint = at != file->hinted;
		file->hinted = at;
	}
	return true;
}

static void read_begin(struct op *op)
{
	struct data *garbage = NULL;
	struct wd_mm_inode *inode;
	bool is_hint = false, is_going_on = false, is_behind_end = false;
	int err = 0;

	wd_lock(&server.lock);
	inode = unopened_is() ? unopened_find_locked(op->node) : handle_inode(&server.inodes, op->fh, op->node);
	if (inode) {
		uint64_t size = atomic_load(&inode->size);
		uint64_t left = op->offset < size ? size - op->offset : 0;

		if (op->size > left)
			op->size = (uint32_t)left;
		is_behind_end = op->size == 0;
		if (!is_behind_end)
			is_going_on = prepare_locked(op, inode, &garbage, &is_hint, &err);
	} else if (unopened_is()) {
		garbage = op->data;
		op->data = NULL;
		err = unopened_ask_locked(op);
	} else {
		err = ESTALE;
		garbage = op->data;
		op->data = NULL;
	}
	wd_unlock(&server.lock);
	data_unref(garbage);
	if (err) {
		fail(op, err);
	} else if (is_going_on) {
		/* the op is gone after serve() */
		uint64_t node = op->node, offset = op->offset;
		uint32_t size = op->size;

		is_hint = is_hint && is_present(op);
		serve(op);
		if (is_hint)
			agent_hint(node, offset, size);
	} else if (is_behind_end) {
		fuse_reply_buf(op->req, NULL, 0);
		op_done(op);
	} else {
		agent_flush();
	}
}

/* Tells the agent that the bytes it sent were read: until then they count against this mount. */
static void give_back(uint64_t id)
{
	wd_lock(&server.lock);
	agent_tell_locked(WD_MSG_CANCEL, id);
	wd_unlock(&server.lock);
	agent_flush();
}

/* The agent ensured the range, or sends its bytes. */
static void on_ensured(struct op *op, struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	uint8_t how = wd_rd_u8(&r);
	uint64_t position = wd_rd_u64(&r);
	wd_autoclose int fd = wd_msg_take_fd(m, 0);
	uint64_t id = m->id;

	if (!wd_rd_done(&r) || position > INT64_MAX - READ_MAX) {
		wd_error("the agent's answer to ENSURE makes no sense");
		fail(op, EIO);
	} else if (how == WD_ENSURE_PRESENT && ++op->tries < TRIES_MAX &&
		   !(op->out.flags & WD_ENSURE_BYTES)) {
		serve(op);
	} else if (how == WD_ENSURE_FD && fd >= 0 && reply_from(op, fd, position)) {
		give_back(id); /* op is gone */
	} else if (how == WD_ENSURE_FD && fd >= 0 && ++op->tries < TRIES_MAX) {
		ensure(op, WD_ENSURE_BYTES); /* the agent took them back: we were too slow */
	} else {
		wd_error("the agent does not deliver %u bytes of node %llu at %llu", op->size,
			(unsigned long long)op->node, (unsigned long long)op->offset);
		fail(op, EIO);
	}
}

static void read_finish(struct op *op, struct wd_msg *m, int status)
{
	if (status == -ESTALE && unopened_is() && m && ++op->tries < TRIES_MAX)
		read_begin(op); /* it was closed meanwhile */
	else if (status < 0)
		fail(op, agent_errno(status));
	else if (m)
		on_ensured(op, m);
	else
		read_begin(op);
}

void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct op *op = op_current();

	if (off < 0 || size > READ_MAX) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	if (control_is_node(ino)) {
		fuse_reply_buf(req, NULL, 0);
		return;
	}
	op->req = req;
	op->finish = read_finish;
	op->node = ino;
	op->fh = fi->fh;
	op->offset = (uint64_t)off;
	op->size = (uint32_t)size;
	read_begin(op);
}

bool read_is_waiting(const struct op *op)
{
	return op->finish == read_finish;
}

bool read_is_waiting_of_locked(uint64_t node)
{
	for (uint32_t i = 0; i < server.mm.nslots; i++) {
		const struct op *op = &server.ops[i];

		if (op->state == OP_PARKED && op->node == node && read_is_waiting(op))
			return true;
	}
	return false;
}

void read_requeue_locked(struct op *op)
{
	struct file *file = file_find_locked(op->node);

	if (file && file->is_asking) {
		link_remove(&op->out.link);
		op->out.id = 0;
		op->tries = 0;
		link_add(&file->waiters, &op->wait);
	} else { /* its file is closed, so nobody waits for it */
		link_remove(&op->out.link);
		link_add(&server.queue, &op->out.link);
	}
}
