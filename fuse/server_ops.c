/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names, attributes and directories: each operation is one question to the agent, parked, and one
 * answer translated. What needs no agent (the control file, opening a directory) is answered at once. What
 * writes never gets here (server_loop.c).
 *
 * Directories are not cached by the kernel as such, since a listing may change at the origin; their
 * entries are, for their TTL. An offset is the cookie of the child before it; 1 and 2 are "." and
 * "..", which the agent does not send, and its cookies begin above them.
 */
#include "fuse/server.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "common/fault.h"
#include "common/log.h"

#define OFFSET_DOT 1
#define OFFSET_DOTDOT 2
#define NAME_BYTES_MAX 255
#define READDIR_MIN 4096
#define READDIR_MAX (WD_MSG_MAX - WD_MSG_HDR - 64)
#define BLOCK_SIZE_HINT (256 * 1024)
#define XATTR_PREFIX "user.warpdrive."

/* ---- from the agent's words to the kernel's ---- */

static bool is_sane(const struct wd_attr *attr)
{
	return attr->node != 0 && attr->size <= INT64_MAX && attr->mtime_ns < 1000000000 &&
	       (S_ISREG(attr->mode) || S_ISDIR(attr->mode));
}

static void fill_stat(const struct wd_attr *attr, struct stat *ret_st)
{
	*ret_st = (struct stat){
		.st_ino = attr->ino,
		.st_mode = attr->mode,
		.st_nlink = attr->nlink,
		.st_uid = attr->uid,
		.st_gid = attr->gid,
		.st_size = (off_t)attr->size,
		.st_blksize = BLOCK_SIZE_HINT,
		.st_blocks = (blkcnt_t)((attr->size + 511) / 512),
		.st_mtim = {attr->mtime_s, attr->mtime_ns},
		.st_ctim = {attr->mtime_s, attr->mtime_ns},
		.st_atim = {attr->mtime_s, attr->mtime_ns},
	};
}

static void fill_entry(const struct wd_attr *attr, struct fuse_entry_param *ret_entry)
{
	*ret_entry = (struct fuse_entry_param){
		.ino = attr->node,
		.attr_timeout = attr->attr_ttl_ms / 1000.0,
		.entry_timeout = attr->entry_ttl_ms / 1000.0,
	};
	fill_stat(attr, &ret_entry->attr);
}

static void nonsense(struct op *op)
{
	wd_error("the agent's answer to a message of type %u makes no sense", op->out.type);
	op_reply_err(op, EIO);
}

static bool read_attr(const struct wd_msg *m, struct wd_attr *ret_attr)
{
	struct wd_rd r = wd_rd_start(m);

	return wd_rd_attr(&r, ret_attr) && wd_rd_done(&r) && is_sane(ret_attr);
}

static struct op *begin(fuse_req_t req, uint16_t type, fuse_ino_t node,
	void (*finish)(struct op *op, struct wd_msg *m, int status))
{
	struct op *op = op_current();

	op->req = req;
	op->node = node;
	op->finish = finish;
	op->out.type = type;
	op->out.node = node;
	return op;
}

/* ---- lookup, getattr, statfs ---- */

static void lookup_finish(struct op *op, struct wd_msg *m, int status)
{
	struct fuse_entry_param entry = {0};
	struct wd_attr attr;

	if (status == -ENOENT && m) {
		struct wd_rd r = wd_rd_start(m);
		uint32_t ttl_ms = wd_rd_u32(&r);

		if (wd_rd_done(&r) && ttl_ms > 0) {
			entry.entry_timeout = ttl_ms / 1000.0;
			fuse_reply_entry(op->req, &entry);
			op_done(op);
			return;
		}
	}
	if (status < 0) {
		op_reply_err(op, agent_errno(status));
	} else if (!read_attr(m, &attr)) {
		nonsense(op);
	} else {
		fill_entry(&attr, &entry);
		fuse_reply_entry(op->req, &entry);
		op_done(op);
	}
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct op *op;

	if (strlen(name) > NAME_BYTES_MAX) {
		fuse_reply_err(req, ENAMETOOLONG);
		return;
	}
	if (control_is_name(parent, name)) {
		control_lookup(req);
		return;
	}
	op = begin(req, WD_MSG_LOOKUP, parent, lookup_finish);
	op->out.name = name;
	agent_ask(op);
}

static void getattr_finish(struct op *op, struct wd_msg *m, int status)
{
	struct wd_attr attr;
	struct stat st;

	if (status < 0) {
		op_reply_err(op, agent_errno(status));
	} else if (!read_attr(m, &attr)) {
		nonsense(op);
	} else {
		fill_stat(&attr, &st);
		fuse_reply_attr(op->req, &st, attr.attr_ttl_ms / 1000.0);
		op_done(op);
	}
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (control_is_node(ino))
		control_getattr(req);
	else
		agent_ask(begin(req, WD_MSG_GETATTR, ino, getattr_finish));
}

static void statfs_finish(struct op *op, struct wd_msg *m, int status)
{
	struct statvfs st = {.f_bsize = 4096, .f_frsize = 4096, .f_namemax = NAME_BYTES_MAX};
	struct wd_rd r;

	if (status < 0) {
		op_reply_err(op, agent_errno(status));
		return;
	}
	r = wd_rd_start(m);
	st.f_blocks = wd_rd_u64(&r) / st.f_frsize;
	st.f_bfree = st.f_bavail = wd_rd_u64(&r) / st.f_frsize;
	st.f_files = wd_rd_u64(&r);
	if (!wd_rd_done(&r)) {
		nonsense(op);
		return;
	}
	fuse_reply_statfs(op->req, &st);
	op_done(op);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	agent_ask(begin(req, WD_MSG_STATFS, ino, statfs_finish));
}

/* ---- directories ---- */

struct listing {
	struct op *op;
	char *buf;
	size_t used;
	bool is_full, is_end;
	uint64_t hidden; /* the cookie of an entry that is not shown */
};

static void add_entry(
	struct listing *l, const char *name, const struct fuse_entry_param *entry, uint64_t offset)
{
	size_t room = l->op->size - l->used;
	size_t len = l->op->is_plus ? fuse_add_direntry_plus(l->op->req, l->buf + l->used, room,
					      name, entry, (off_t)offset)
				    : fuse_add_direntry(l->op->req, l->buf + l->used, room, name,
					      &entry->attr, (off_t)offset);

	if (len > room)
		l->is_full = true;
	else
		l->used += len;
}

/* "." and ".." come without a node id, so that the kernel looks nothing up for them. */
static void add_dots(struct listing *l)
{
	struct fuse_entry_param entry = {.attr = {.st_mode = S_IFDIR, .st_ino = l->op->node}};

	if (l->op->offset < OFFSET_DOT)
		add_entry(l, ".", &entry, OFFSET_DOT);
	entry.attr.st_ino = FUSE_ROOT_ID;
	if (l->op->offset < OFFSET_DOTDOT && !l->is_full)
		add_entry(l, "..", &entry, OFFSET_DOTDOT);
}

/* 0, or -EIO for an answer that makes no sense. */
static int add_children(struct listing *l, struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	char name[NAME_BYTES_MAX + 1];

	l->is_end = wd_rd_u8(&r) != 0;
	if (!r.bad && r.left == 0 && !l->is_end)
		return -EIO; /* neither entries nor an end: the kernel would take it for the end */
	while (!l->is_full && !r.bad && r.left > 0) {
		struct fuse_entry_param entry;
		uint64_t cookie = wd_rd_u64(&r);
		struct wd_attr attr;

		if (!wd_rd_attr(&r, &attr) || !wd_rd_str(&r, name, sizeof(name)) ||
			!is_sane(&attr) || cookie <= OFFSET_DOTDOT || cookie > INT64_MAX ||
			name[0] == '\0')
			return -EIO;
		if (control_hides(l->op->node, name)) {
			l->hidden = cookie;
			continue;
		}
		fill_entry(&attr, &entry);
		add_entry(l, name, &entry, cookie);
	}
	return r.bad ? -EIO : 0;
}

static void readdir_finish(struct op *op, struct wd_msg *m, int status)
{
	struct listing l = {.op = op};
	bool is_bad = false;

	if (status < 0) {
		op_reply_err(op, agent_errno(status));
		return;
	}
	l.buf = buffer_get(op->size);
	add_dots(&l);
	if (!l.is_full)
		is_bad = add_children(&l, m) < 0;
	if (is_bad) {
		nonsense(op);
	} else if (l.is_full && l.used == 0) {
		op_reply_err(op, EINVAL);
	} else if (l.used == 0 && l.hidden && !l.is_end) { /* nothing would be the end */
		op->out.offset = l.hidden;
		agent_ask(op);
	} else {
		fuse_reply_buf(op->req, l.buf, l.used);
		op_done(op);
	}
	buffer_put(l.buf);
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool is_plus)
{
	struct op *op = begin(req, WD_MSG_READDIR, ino, readdir_finish);
	size_t max =
		is_plus ? size : size * 2; /* an entry on our wire beside one in the kernel's */

	op->offset = (uint64_t)off;
	op->size = (uint32_t)(size < READ_MAX ? size : READ_MAX);
	op->is_plus = is_plus;
	op->out.offset = op->offset > OFFSET_DOTDOT ? op->offset : 0;
	op->out.len = (uint32_t)(max < READDIR_MIN   ? READDIR_MIN
				 : max > READDIR_MAX ? READDIR_MAX
						     : max);
	agent_ask(op);
}

static void op_readdir(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	list(req, ino, size, off, false);
}

static void op_readdirplus(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	list(req, ino, size, off, true);
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fuse_file_info reply = {0};

	fuse_reply_open(req, &reply);
}

/* ---- extended attributes ---- */

static void reply_xattr(struct op *op, const void *value, size_t len)
{
	if (op->size == 0)
		fuse_reply_xattr(op->req, len);
	else if (len > op->size)
		fuse_reply_err(op->req, ERANGE);
	else
		fuse_reply_buf(op->req, value, len);
	op_done(op);
}

static void getxattr_finish(struct op *op, struct wd_msg *m, int status)
{
	struct wd_rd r;
	const void *value;
	size_t len;

	if (status < 0) {
		op_reply_err(op, agent_errno(status));
		return;
	}
	r = wd_rd_start(m);
	value = wd_rd_bytes(&r, &len);
	if (wd_rd_done(&r))
		reply_xattr(op, value, len);
	else
		nonsense(op);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct op *op;

#ifdef WD_FAULTS
	/* a repeated request killed the server before this one */
	if (WD_FAULT("server.misbehave") && !op_current()->is_repeat)
		misbehave(name);
#endif
	/* security.capability and the like are asked for all the time */
	if (strncmp(name, XATTR_PREFIX, strlen(XATTR_PREFIX)) != 0 ||
		strlen(name) > NAME_BYTES_MAX || control_is_node(ino)) {
		fuse_reply_err(req, ENODATA);
		return;
	}
	op = begin(req, WD_MSG_GETXATTR, ino, getxattr_finish);
	op->size = (uint32_t)(size < UINT32_MAX ? size : UINT32_MAX);
	op->out.name = name;
	agent_ask(op);
}

static void listxattr_finish(struct op *op, struct wd_msg *m, int status)
{
	static const char names[] =
		XATTR_PREFIX "origin\0" XATTR_PREFIX "version\0" XATTR_PREFIX "cached";
	struct wd_attr attr;

	if (status < 0)
		op_reply_err(op, agent_errno(status));
	else if (!read_attr(m, &attr))
		nonsense(op);
	else
		reply_xattr(op, names, S_ISREG(attr.mode) ? sizeof(names) : 0);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct op *op = begin(req, WD_MSG_GETATTR, ino, listxattr_finish);

	op->size = (uint32_t)(size < UINT32_MAX ? size : UINT32_MAX);
	if (control_is_node(ino))
		reply_xattr(op, NULL, 0);
	else
		agent_ask(op);
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	conn->no_interrupt = 1; /* server_loop.c has INTERRUPT */
}

const struct fuse_lowlevel_ops server_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.getattr = op_getattr,
	.open = op_open,
	.read = op_read,
	.release = op_release,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.statfs = op_statfs,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.ioctl = control_ioctl,
};
