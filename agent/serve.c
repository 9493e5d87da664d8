/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a FUSE server asks on its socket. The socket is the identity: every node id is looked up in
 * that mount's dataset, so a server can name nothing that is not its own. Messages are decoded on
 * the hub thread; what is known is answered there, what needs the origin goes on as a job.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/control.h"
#include "agent/metrics.h"
#include "agent/mount.h"
#include "agent/trace.h"
#include "common/log.h"

#define FILE_ATTR_TTL_MS (3600 * 1000) /* a file's node id never changes what it means */
#define MAX_BODY (WD_MSG_MAX - WD_MSG_HDR)

struct request {
	struct mount *mount;
	struct conn *conn;
	uint16_t type;
	uint64_t id, node, offset;
	uint32_t max_body;
	char name[TREE_NAME_MAX + 1];
	struct fetch_wait wait; /* ENSURE */
	int64_t began_ns;	/* the same */
	struct fetch *fetch;
	int64_t asked_ns; /* for traces; 0: nobody listens */
	bool was_present;
	struct mount_job job;
};

static struct request *request_new(struct mount *mnt, struct conn *c, const struct wd_msg *m)
{
	struct request *q = calloc(1, sizeof(*q));

	if (!q) {
		conn_reply_error(c, m->type, m->id, -ENOMEM, "the agent is out of memory");
		return NULL;
	}
	q->mount = mount_ref(mnt);
	q->conn = conn_ref(c);
	conn_begin(c);
	q->type = m->type;
	q->id = m->id;
	return q;
}

static void request_free(struct request *q)
{
	fetch_unref(q->fetch);
	mount_unref(q->mount);
	conn_end(q->conn);
	conn_unref(q->conn);
	free(q);
}

void serve_fill_attr(const struct mount *mnt, const struct node *node, uint32_t ttl_ms,
	struct wd_attr *ret_attr)
{
	const struct mount_options *o = mnt->options;
	uint32_t mode = node->is_dir ? S_IFDIR | (uint32_t)o->dir_mode : S_IFREG | (uint32_t)o->file_mode;

	*ret_attr = (struct wd_attr){
		.node = node->node,
		.ino = node->ino,
		.size = node->is_dir ? 0 : node->version.size,
		.mtime_s = node->is_dir ? mnt->mounted_s : node->version.mtime_s,
		.mtime_ns = node->is_dir ? 0 : node->version.mtime_ns,
		.mode = mode,
		.uid = (uint32_t)o->uid,
		.gid = (uint32_t)o->gid,
		.nlink = node->is_dir ? 2 : 1,
		.entry_ttl_ms = ttl_ms,
		.attr_ttl_ms = node->is_dir ? ttl_ms : FILE_ATTR_TTL_MS,
	};
}

/* Where a failure to ask for names is told to the operator. */
static void reply_failure(struct conn *c, uint16_t type, uint64_t id, int status, const struct wd_err *err)
{
	if (status == -EIO || status == -EACCES)
		wd_error("%s", err->msg[0] ? err->msg : strerror(-status));
	conn_reply_error(c, type, id, status, err->msg);
}

/* ---- names and attributes ---- */

static void reply_node(struct mount *mnt, struct conn *c, uint16_t type, uint64_t id,
	const struct node *node, uint32_t ttl_ms)
{
	struct wd_msg *m = hub_scratch();
	struct wd_attr attr;

	serve_fill_attr(mnt, node, ttl_ms, &attr);
	wd_msg_start_reply(m, type, id, 0);
	wd_put_attr(m, &attr);
	conn_send(c, m);
}

/* A time as it travels, in ms; the longest is 49 days. */
static uint32_t wire_ttl(int64_t ttl_ms)
{
	return ttl_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ttl_ms;
}

static void reply_lookup(struct mount *mnt, struct conn *c, uint64_t id, int rc, const struct node *node,
	uint32_t ttl_ms, const struct wd_err *err)
{
	struct wd_msg *m;

	if (rc == 0) {
		reply_node(mnt, c, WD_MSG_LOOKUP, id, node, ttl_ms);
	} else if (rc == -ENOENT) {
		m = hub_scratch();
		wd_msg_start_reply(m, WD_MSG_LOOKUP, id, -ENOENT);
		wd_put_u32(m, wire_ttl(mnt->options->negative_ttl));
		conn_send(c, m);
	} else {
		reply_failure(c, WD_MSG_LOOKUP, id, rc, err);
	}
}

static void lookup_job(void *arg)
{
	struct request *q = arg;
	struct node node;
	struct wd_err err = WD_ERR_INIT;
	uint32_t ttl_ms = 0;
	int rc = tree_lookup(q->mount->dataset, q->node, q->name, q->mount->options->metadata_ttl, true,
		&node, &ttl_ms, &err);

	reply_lookup(q->mount, q->conn, q->id, rc, &node, ttl_ms, &err);
	request_free(q);
}

static bool on_lookup(struct mount *mnt, struct conn *c, struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	uint64_t parent = wd_rd_u64(&r);
	char name[TREE_NAME_MAX + 1];
	struct node node;
	struct wd_err err = WD_ERR_INIT;
	struct request *q;
	uint32_t ttl_ms = 0;
	int rc;

	if (!wd_rd_str(&r, name, sizeof(name)) || !wd_rd_done(&r) || strchr(name, '/'))
		return false;
	metric_inc(METRIC_LOOKUPS);
	rc = name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0
		? -ENOENT
		: tree_lookup(mnt->dataset, parent, name, mnt->options->metadata_ttl, false, &node, &ttl_ms,
			  &err);
	if (rc != -EAGAIN) {
		reply_lookup(mnt, c, m->id, rc, &node, ttl_ms, &err);
		return true;
	}
	q = request_new(mnt, c, m);
	if (q) {
		q->node = parent;
		memcpy(q->name, name, sizeof(name));
		mount_run(mnt, &q->job, lookup_job, q);
	}
	return true;
}

static bool on_getattr(struct mount *mnt, struct conn *c, struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	uint64_t id = wd_rd_u64(&r);
	struct node node;

	if (!wd_rd_done(&r))
		return false;
	if (tree_node(mnt->dataset, id, &node) < 0)
		conn_reply_error(c, m->type, m->id, -ESTALE, "not known any longer");
	else
		reply_node(mnt, c, WD_MSG_GETATTR, m->id, &node, wire_ttl(mnt->options->metadata_ttl));
	return true;
}

/* ---- directories ---- */

struct fill {
	struct request *request;
	struct wd_msg *m;
	uint32_t ttl_ms;
	size_t limit;
};

static bool fill_child(void *arg, uint64_t cookie, const char *name, const struct node *node)
{
	struct fill *f = arg;
	struct wd_attr attr;

	if (f->m->len + 8 + WD_ATTR_WIRE + 4 + strlen(name) > f->limit)
		return false;
	serve_fill_attr(f->request->mount, node, f->ttl_ms, &attr);
	wd_put_u64(f->m, cookie);
	wd_put_attr(f->m, &attr);
	wd_put_str(f->m, name);
	return true;
}

static void readdir_job(void *arg)
{
	struct request *q = arg;
	struct wd_msg *m = hub_scratch();
	int64_t ttl = q->mount->options->metadata_ttl;
	struct fill f = {q, m, wire_ttl(ttl), q->max_body};
	struct wd_err err = WD_ERR_INIT;
	bool is_end = true;
	uint32_t ttl_ms;
	int rc;

	wd_msg_start_reply(m, WD_MSG_READDIR, q->id, 0);
	wd_put_u8(m, 0);
	rc = tree_readdir(q->mount->dataset, q->node, q->offset, ttl, fill_child, &f, &is_end, &ttl_ms, &err);
	if (rc < 0) {
		reply_failure(q->conn, WD_MSG_READDIR, q->id, rc, &err);
	} else {
		wd_msg_body(m)[0] = is_end;
		conn_send(q->conn, m);
	}
	request_free(q);
}

static bool on_readdir(struct mount *mnt, struct conn *c, struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	uint64_t node = wd_rd_u64(&r), offset = wd_rd_u64(&r);
	uint32_t max_body = wd_rd_u32(&r);
	struct request *q;

	if (!wd_rd_done(&r))
		return false;
	q = request_new(mnt, c, m);
	if (!q)
		return true;
	q->node = node;
	q->offset = offset;
	q->max_body = max_body > MAX_BODY ? MAX_BODY : max_body < 1024 ? 1024 : max_body;
	mount_run(mnt, &q->job, readdir_job, q);
	return true;
}

/* ---- reading ---- */

/* Before the answer, so that what one reader does is told in its order. */
static void tell_read(const struct request *q, int status, bool is_uncached)
{
	trace_tell(q->mount, q->asked_ns,
		&(struct trace_event){.kind = TRACE_READ,
			.tier = status < 0 ? TRACE_NO_BYTES : q->was_present && !is_uncached ? TRACE_LOCAL : TRACE_ORIGIN,
			.mode = is_uncached ? TRACE_UNCACHED : TRACE_CACHED,
			.code = -status,
			.offset = q->wait.offset,
			.length = q->wait.len,
			.path = fetch_name(q->fetch)});
}

static void ensure_done(struct fetch_wait *w, int status, int fd, const struct wd_err *err)
{
	struct request *q = (struct request *)((char *)w - offsetof(struct request, wait));
	int64_t took_ns = wd_now_ns() - q->began_ns;
	struct wd_msg *m;

	wd_histogram_add(&metric_read_wait, took_ns);
	atomic_fetch_add_explicit(&q->mount->flow->waits, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&q->mount->flow->wait_us, (uint64_t)took_ns / 1000, memory_order_relaxed);
	tell_read(q, status, fd >= 0);
	if (status < 0) {
		/* the fetch has logged it, once for all who waited */
		conn_reply_error(q->conn, WD_MSG_ENSURE, q->id, status, err ? err->msg : "");
	} else if (fd >= 0 && !mount_lend(q->mount, q->id, fd, q->wait.len)) {
		conn_reply_error(q->conn, WD_MSG_ENSURE, q->id, -ENOMEM, "the agent is out of memory");
	} else {
		m = hub_scratch();
		wd_msg_start_reply(m, WD_MSG_ENSURE, q->id, 0);
		wd_put_u8(m, fd >= 0 ? WD_ENSURE_FD : WD_ENSURE_PRESENT);
		wd_put_u64(m, 0);
		if (fd >= 0)
			wd_put_fd(m, fd);
		conn_send(q->conn, m);
	}
	if (fd >= 0)
		close(fd);
	request_free(q);
}

static bool ensure_is_gone(const struct fetch_wait *w)
{
	const struct request *q = (const struct request *)((const char *)w - offsetof(struct request, wait));

	return conn_is_gone(q->conn);
}

static bool on_ensure(struct mount *mnt, struct conn *c, struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	uint64_t node = wd_rd_u64(&r), offset = wd_rd_u64(&r), size;
	uint32_t len = wd_rd_u32(&r), flags = wd_rd_u32(&r);
	struct request *q;

	if (!wd_rd_done(&r))
		return false;
	q = request_new(mnt, c, m);
	if (!q)
		return true;
	q->fetch = open_fetch(mnt, node);
	size = q->fetch ? object_size(fetch_object(q->fetch)) : 0;
	if (!q->fetch || len == 0 || len > FETCH_MAX_LEN || offset >= size || len > size - offset) {
		conn_reply_error(c, m->type, m->id, q->fetch ? -EINVAL : -ESTALE,
			q->fetch ? "range outside the object" : "not open");
		request_free(q);
		return true;
	}
	q->wait = (struct fetch_wait){.offset = offset,
		.len = len,
		.flags = (flags & WD_ENSURE_BYTES ? FETCH_BYTES : 0) |
			(mnt->options->prefetch == PREFETCH_OFF ? FETCH_NO_AHEAD : 0),
		.flow = mnt->flow,
		.cb = ensure_done,
		.is_gone = ensure_is_gone};
	q->began_ns = wd_now_ns();
	q->asked_ns = traces_now(mnt->agent->traces);
	q->was_present = q->asked_ns && object_has(fetch_object(q->fetch), offset, len);
	fetch_ensure(q->fetch, &q->wait);
	return true;
}

/* An answer that is still to come finds nobody; one that went out is done with. */
static bool on_cancel(struct mount *mnt, struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	uint64_t id = wd_rd_u64(&r);

	if (!wd_rd_done(&r))
		return false;
	mount_lent_is_read(mnt, id);
	return true;
}

static bool on_hint(struct mount *mnt, struct conn *c, struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	uint64_t node = wd_rd_u64(&r), offset = wd_rd_u64(&r), size;
	uint32_t len = wd_rd_u32(&r);
	struct fetch *f;

	if (!wd_rd_done(&r))
		return false;
	f = mnt->options->prefetch == PREFETCH_OFF ? NULL : open_fetch(mnt, node);
	if (!f)
		return true;
	size = object_size(fetch_object(f));
	if (offset < size && len <= size - offset)
		fetch_hint(f, offset, len);
	fetch_unref(f);
	return true;
}

/* ---- the rest ---- */

static bool on_open(struct mount *mnt, struct conn *c, struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	uint64_t node = wd_rd_u64(&r);
	uint32_t flags = wd_rd_u32(&r);

	if (!wd_rd_done(&r))
		return false;
	open_on_open(mnt, c, m->id, node, flags);
	return true;
}

static bool on_release(struct mount *mnt, struct conn *c, struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	uint64_t node = wd_rd_u64(&r);

	if (!wd_rd_done(&r))
		return false;
	open_on_release(mnt, node);
	return true;
}

static bool on_statfs(struct mount *mnt, struct conn *c, struct wd_msg *m)
{
	struct wd_msg *reply = hub_scratch();

	/* an object store has no size: what df shows is a number that no program finds too small */
	wd_msg_start_reply(reply, WD_MSG_STATFS, m->id, 0);
	wd_put_u64(reply, 1ULL << 50);
	wd_put_u64(reply, 1ULL << 50);
	wd_put_u64(reply, meta_count(mnt->agent->meta, META_NODES));
	conn_send(c, reply);
	return true;
}

static int xattr_value(struct mount *mnt, const struct node *node, const char *name, char *out, size_t cap)
{
	struct object_id id;
	uint64_t present;

	if (strcmp(name, "user.warpdrive.origin") == 0)
		return snprintf(out, cap, "%s%s%s", mnt->display,
			mnt->display[strlen(mnt->display) - 1] == '/' ? "" : "/", node->key);
	if (node->is_dir)
		return -ENODATA;
	if (strcmp(name, "user.warpdrive.version") == 0) {
		if (node->version.etag[0])
			return snprintf(out, cap, "%s", node->version.etag);
		return snprintf(out, cap, "%lld.%09u", (long long)node->version.mtime_s,
			node->version.mtime_ns);
	}
	if (strcmp(name, "user.warpdrive.cached") == 0) {
		tree_object_id(mnt->dataset, node, &id);
		store_peek(mnt->agent->store, &id, node->version.size, &present);
		return snprintf(out, cap, "%u",
			node->version.size ? (unsigned)(present * 100 / node->version.size) : 100);
	}
	return -ENODATA;
}

static bool on_getxattr(struct mount *mnt, struct conn *c, struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	uint64_t id = wd_rd_u64(&r);
	char name[256], value[8192];
	struct node node;
	struct wd_msg *reply;
	int n;

	if (!wd_rd_str(&r, name, sizeof(name)) || !wd_rd_done(&r))
		return false;
	n = tree_node(mnt->dataset, id, &node);
	if (n == 0)
		n = xattr_value(mnt, &node, name, value, sizeof(value));
	if (n < 0) {
		conn_reply_error(c, m->type, m->id, n, "");
		return true;
	}
	reply = hub_scratch();
	wd_msg_start_reply(reply, WD_MSG_GETXATTR, m->id, 0);
	wd_put_bytes(reply, value, (size_t)n < sizeof(value) ? (size_t)n : sizeof(value) - 1);
	conn_send(c, reply);
	return true;
}

bool serve_message(struct mount *mnt, struct conn *c, struct wd_msg *m)
{
	switch (m->type) {
	case WD_MSG_LOOKUP:
		return on_lookup(mnt, c, m);
	case WD_MSG_GETATTR:
		return on_getattr(mnt, c, m);
	case WD_MSG_READDIR:
		return on_readdir(mnt, c, m);
	case WD_MSG_OPEN:
		return on_open(mnt, c, m);
	case WD_MSG_RELEASE:
		return on_release(mnt, c, m);
	case WD_MSG_ENSURE:
		return on_ensure(mnt, c, m);
	case WD_MSG_HINT:
		return on_hint(mnt, c, m);
	case WD_MSG_STATFS:
		return on_statfs(mnt, c, m);
	case WD_MSG_GETXATTR:
		return on_getxattr(mnt, c, m);
	case WD_MSG_CONTROL:
		return control_on_message(mnt->agent, mnt, c, m);
	case WD_MSG_CANCEL:
		return on_cancel(mnt, m);
	default:
		conn_reply_error(c, m->type, m->id, -ENOSYS, "unknown message");
		return true;
	}
}
