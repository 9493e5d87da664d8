/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control file (common/control.h): a name below the root that the server answers for by itself, and one ioctl
 * that goes on to the agent.
 *
 * The file is in no table: its node id is fixed and its handle is 0, so whoever takes over knows all there is to
 * know. To a server of a release without it, after a roll-back, an open control file is a node and a handle that it
 * does not know: its ioctl is ENOTTY, its close is nothing.
 *
 * A call waits as everything does that waits for the agent: in its slot, without a thread, until the answer, an
 * INTERRUPT, or the next agent. Some are meant to take long (GetWarm), so only a few may wait at once: the slots are
 * the readers'.
 */
#include "fuse/server.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

#include "common/control.h"
#include "common/fault.h"
#include "common/log.h"
#include "fuse/fuse_abi.h"

#define TTL_S 3600.0
#define FRAME_HEAD offsetof(struct wd_control_frame, data)
#define STATUS_MIN (-4095)
#define REQUEST_MAX (sizeof(struct abi_in_header) + ABI_IOCTL_IN + sizeof(struct wd_control_frame))

#ifndef WD_PREVIOUS_FORMATS
_Static_assert(REQUEST_MAX <= WD_MM_SLOT_SIZE, "a call fits into a slot");
#endif

/* False in a server that plays one of the release before. */
static bool is_known(void)
{
#ifdef WD_PREVIOUS_FORMATS
	return false;
#else
	return !WD_FAULT("server.no-control");
#endif
}

bool control_is_name(uint64_t parent, const char *name)
{
	return parent == FUSE_ROOT_ID && strcmp(name, WD_CONTROL_NAME) == 0 && is_known();
}

bool control_is_node(uint64_t node)
{
	return node == WD_CONTROL_NODE && is_known();
}

bool control_hides(uint64_t parent, const char *name)
{
	static atomic_flag is_told = ATOMIC_FLAG_INIT;

	if (!control_is_name(parent, name))
		return false;
	if (!atomic_flag_test_and_set(&is_told))
		wd_info("the dataset's '%s' (pinned versions are there) is not shown: the name is the control file's",
			WD_CONTROL_NAME);
	return true;
}

/* ---- a file with nothing in it ---- */

static struct stat attributes(void)
{
	return (struct stat){.st_ino = WD_CONTROL_NODE, .st_mode = S_IFREG | 0444, .st_nlink = 1, .st_blksize = 4096};
}

void control_lookup(fuse_req_t req)
{
	struct fuse_entry_param entry = {
		.ino = WD_CONTROL_NODE,
		.attr = attributes(),
		.attr_timeout = TTL_S,
		.entry_timeout = TTL_S,
	};

	fuse_reply_entry(req, &entry);
}

void control_getattr(fuse_req_t req)
{
	struct stat st = attributes();

	fuse_reply_attr(req, &st, TTL_S);
}

void control_open(fuse_req_t req)
{
	struct fuse_file_info reply = {.direct_io = 1, .noflush = 1};

	fuse_reply_open(req, &reply);
}

/* ---- calls ---- */

/* Makes the agent's answer a frame and returns its size; 0 for one that makes no sense. */
static size_t make_frame(const struct wd_msg *m, int status, struct wd_control_frame *ret_frame)
{
	struct wd_rd r = wd_rd_start(m);
	size_t len;
	const void *data = wd_rd_bytes(&r, &len);

	if (!wd_rd_done(&r) || status > 0 || status < STATUS_MIN)
		return 0;
	if (len > sizeof(ret_frame->data)) {
		if (status == 0)
			return 0;
		len = sizeof(ret_frame->data); /* what is lost is the end of a text */
	}
	memset(ret_frame->method, 0, sizeof(ret_frame->method));
	ret_frame->status = status;
	ret_frame->len = (uint32_t)len;
	if (len > 0)
		memcpy(ret_frame->data, data, len);
	return FRAME_HEAD + len;
}

static void call_finish(struct op *op, struct wd_msg *m, int status)
{
	struct wd_control_frame frame;
	size_t len;

	wd_lock(&server.lock);
	server.ncalls--;
	wd_unlock(&server.lock);
	if (!m) {
		op_reply_err(op, agent_errno(status));
		return;
	}
	len = make_frame(m, status, &frame);
	if (len == 0) {
		wd_error("the agent's answer to a call through the control file makes no sense");
		op_reply_err(op, EPROTO);
		return;
	}
	fuse_reply_ioctl(op->req, 0, &frame, len);
	op_done(op);
}

static bool is_sane(const struct wd_control_frame *f)
{
	return f->method[0] != '\0' && memchr(f->method, '\0', sizeof(f->method)) && f->len <= sizeof(f->data);
}

/* 0 once the call is parked. */
static int call_begin(struct op *op)
{
	int rc;

	wd_lock(&server.lock);
	rc = server.ncalls < CONTROL_CALLS_MAX ? agent_ask_locked(op) : -EBUSY;
	if (rc == 0)
		server.ncalls++;
	wd_unlock(&server.lock);
	return rc;
}

void control_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi,
	unsigned flags, const void *in, size_t in_len, size_t out_len)
{
	const struct wd_control_frame *frame = in;
	struct op *op = op_current();
	int rc;

	if (!control_is_node(ino) || cmd != WD_CONTROL_CALL) {
		fuse_reply_err(req, ENOTTY);
		return;
	}
	/* the kernel goes by the size in cmd, and gives out nothing that a slot has no room for */
	if (in_len != sizeof(*frame) || out_len < sizeof(*frame) || server.mm.slot_size < REQUEST_MAX ||
		!is_sane(frame)) {
		fuse_reply_err(req, EPROTO);
		return;
	}
	op->req = req;
	op->node = ino;
	op->finish = call_finish;
	op->out.type = WD_MSG_CONTROL;
	op->out.frame = frame;
	op->out.len = frame->len;
	rc = call_begin(op);
	if (rc < 0)
		fuse_reply_err(req, -rc);
	else
		agent_flush();
}
