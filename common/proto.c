/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets: building them, sending and receiving them with their file descriptors, and reading them.
 *
 * One message is one SEQPACKET packet, so the kernel keeps the boundaries and two threads may send
 * on one socket without a lock. Nothing here keeps state or starts threads; the calls that may
 * block say so in the header.
 *
 * Promise of the receiving side: whatever the peer sends, no byte outside of the packet is read and
 * no descriptor stays open that the caller was not given. A packet is taken whole or not at all:
 * magic, flags, status, body length and number of fds must all be right.
 *
 * Sockets that wait for connections and the blocking client are in endpoint.c.
 */
#include "common/proto.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"

#define BODY_MAX (WD_MSG_MAX - WD_MSG_HDR)
#define ERRNO_MAX 4095 /* the kernel's own bound of what -errno may be */

/* ---- building ---- */

void wd_msg_start(struct wd_msg *m, uint16_t type, uint64_t id)
{
	wd_msg_start_reply(m, type, id, 0);
	m->type = type;
}

void wd_msg_start_reply(struct wd_msg *m, uint16_t type, uint64_t id, int32_t status)
{
	m->type = type | WD_MSG_REPLY;
	m->id = id;
	m->status = status;
	m->len = 0;
	m->overflow = false;
	m->nfds = 0;
}

/* Room for len bytes at the end of the body, or NULL: then the message can no longer be sent. */
static unsigned char *grow(struct wd_msg *m, size_t len)
{
	unsigned char *at = wd_msg_body(m) + m->len;

	if (m->overflow || len > BODY_MAX - m->len) {
		m->overflow = true;
		return NULL;
	}
	m->len += len;
	return at;
}

static void put(struct wd_msg *m, const void *data, size_t len)
{
	unsigned char *at = grow(m, len);

	if (at && len > 0)
		memcpy(at, data, len);
}

void wd_put_u8(struct wd_msg *m, uint8_t v)
{
	put(m, &v, sizeof(v));
}

void wd_put_u32(struct wd_msg *m, uint32_t v)
{
	v = htole32(v);
	put(m, &v, sizeof(v));
}

void wd_put_u64(struct wd_msg *m, uint64_t v)
{
	v = htole64(v);
	put(m, &v, sizeof(v));
}

void wd_put_bytes(struct wd_msg *m, const void *data, size_t len)
{
	if (len > BODY_MAX) { /* before the length is cut to 32 bits */
		m->overflow = true;
		return;
	}
	wd_put_u32(m, (uint32_t)len);
	put(m, data, len);
}

void wd_put_str(struct wd_msg *m, const char *s)
{
	wd_put_bytes(m, s, strlen(s));
}

void wd_put_attr(struct wd_msg *m, const struct wd_attr *attr)
{
	wd_put_u64(m, attr->node);
	wd_put_u64(m, attr->ino);
	wd_put_u64(m, attr->size);
	wd_put_u64(m, (uint64_t)attr->mtime_s);
	wd_put_u32(m, attr->mtime_ns);
	wd_put_u32(m, attr->mode);
	wd_put_u32(m, attr->uid);
	wd_put_u32(m, attr->gid);
	wd_put_u32(m, attr->nlink);
	wd_put_u32(m, attr->entry_ttl_ms);
	wd_put_u32(m, attr->attr_ttl_ms);
}

void wd_put_fd(struct wd_msg *m, int fd)
{
	if (m->nfds == WD_MSG_FDS) {
		m->overflow = true;
		return;
	}
	m->fds[m->nfds++] = fd;
}

/* ---- sending and receiving ---- */

/* Ancillary data for as many fds as a message may carry, aligned as the kernel wants it. */
union control {
	struct cmsghdr align;
	unsigned char space[CMSG_SPACE(sizeof(int) * WD_MSG_FDS)];
};

static void encode_header(struct wd_msg *m)
{
	uint32_t magic = htole32(WD_MSG_MAGIC), len = htole32((uint32_t)m->len);
	uint32_t status = htole32((uint32_t)m->status);
	uint16_t type = htole16(m->type), flags = 0;
	uint64_t id = htole64(m->id);

	memcpy(m->buf, &magic, 4);
	memcpy(m->buf + 4, &type, 2);
	memcpy(m->buf + 6, &flags, 2);
	memcpy(m->buf + 8, &id, 8);
	memcpy(m->buf + 16, &status, 4);
	memcpy(m->buf + 20, &len, 4);
}

int wd_msg_send(int sock, struct wd_msg *m, int flags)
{
	struct iovec iov = {m->buf, WD_MSG_HDR + m->len};
	struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};
	union control control = {0};
	ssize_t n;

	if (m->overflow)
		return -EMSGSIZE;
	encode_header(m);
	if (m->nfds > 0) {
		struct cmsghdr *c;

		hdr.msg_control = control.space;
		hdr.msg_controllen = CMSG_SPACE(sizeof(int) * m->nfds);
		c = CMSG_FIRSTHDR(&hdr);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * m->nfds);
		memcpy(CMSG_DATA(c), m->fds, sizeof(int) * m->nfds);
	}
	do
		n = sendmsg(sock, &hdr, flags | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return 0;
	if (errno == ECONNRESET || errno == ENOTCONN)
		return -EPIPE;
	return -errno;
}

/* Moves all received fds into m. Those that find no room are closed; returns false then. */
static bool collect_fds(struct wd_msg *m, struct msghdr *hdr)
{
	bool fits = !(hdr->msg_flags & MSG_CTRUNC);

	for (struct cmsghdr *c = CMSG_FIRSTHDR(hdr); c; c = CMSG_NXTHDR(hdr, c)) {
		size_t count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (m->nfds < WD_MSG_FDS) {
				m->fds[m->nfds++] = fd;
			} else {
				close(fd);
				fits = false;
			}
		}
	}
	return fits;
}

static uint16_t load16(const unsigned char *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return le16toh(v);
}

static uint32_t load32(const unsigned char *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

static uint64_t load64(const unsigned char *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return le64toh(v);
}

/* Fills m's fields from the packet of n bytes in its buffer; false when the packet is malformed. */
static bool decode_header(struct wd_msg *m, size_t n)
{
	if (n < WD_MSG_HDR || load32(m->buf) != WD_MSG_MAGIC || load16(m->buf + 6) != 0)
		return false;
	if (load32(m->buf + 20) != n - WD_MSG_HDR)
		return false;
	m->type = load16(m->buf + 4);
	m->id = load64(m->buf + 8);
	m->status = (int32_t)load32(m->buf + 16);
	m->len = n - WD_MSG_HDR;
	if (m->type & WD_MSG_REPLY)
		return m->status <= 0 && m->status >= -ERRNO_MAX;
	return m->status == 0;
}

int wd_msg_recv(int sock, struct wd_msg *m, int flags)
{
	struct iovec iov = {m->buf, sizeof(m->buf)};
	struct msghdr hdr;
	union control control;
	bool was_reset = false;
	ssize_t n;

	wd_msg_start(m, 0, 0);
	for (;;) {
		hdr = (struct msghdr){.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control.space,
			.msg_controllen = sizeof(control.space)};
		n = recvmsg(sock, &hdr, flags | MSG_CMSG_CLOEXEC);
		if (n >= 0)
			break;
		if (errno == EINTR)
			continue;
		if (errno != ECONNRESET)
			return -errno;
		/* The peer closed with packets of ours unread. The kernel says so once, before it
		 * hands out the peer's own last packets. */
		if (was_reset)
			return 0;
		was_reset = true;
	}
	/* An empty packet looks like the end of file, but it may carry fds. */
	if (!collect_fds(m, &hdr) || n == 0 || (hdr.msg_flags & MSG_TRUNC) ||
		!decode_header(m, (size_t)n)) {
		wd_msg_close_fds(m);
		m->len = 0;
		return n == 0 ? 0 : -EPROTO;
	}
	return 1;
}

void wd_msg_close_fds(struct wd_msg *m)
{
	for (unsigned i = 0; i < m->nfds; i++)
		if (m->fds[i] >= 0)
			close(m->fds[i]);
	m->nfds = 0;
}

int wd_msg_take_fd(struct wd_msg *m, unsigned i)
{
	return i < m->nfds ? wd_steal_fd(&m->fds[i]) : -1;
}

/* ---- reading ---- */

struct wd_rd wd_rd_start(const struct wd_msg *m)
{
	return (struct wd_rd){m->buf + WD_MSG_HDR, m->len, false};
}

/* The next len bytes, or NULL: from then on everything is bad. */
static const unsigned char *take(struct wd_rd *r, size_t len)
{
	const unsigned char *at = r->p;

	if (r->bad || len > r->left) {
		r->bad = true;
		return NULL;
	}
	r->p += len;
	r->left -= len;
	return at;
}

uint8_t wd_rd_u8(struct wd_rd *r)
{
	const unsigned char *p = take(r, 1);

	return p ? *p : 0;
}

uint32_t wd_rd_u32(struct wd_rd *r)
{
	const unsigned char *p = take(r, 4);

	return p ? load32(p) : 0;
}

uint64_t wd_rd_u64(struct wd_rd *r)
{
	const unsigned char *p = take(r, 8);

	return p ? load64(p) : 0;
}

const void *wd_rd_bytes(struct wd_rd *r, size_t *ret_len)
{
	uint32_t len = wd_rd_u32(r);
	const unsigned char *p = take(r, len);

	*ret_len = p ? len : 0;
	return p;
}

bool wd_rd_str(struct wd_rd *r, char *out, size_t cap)
{
	size_t len;
	const char *p = wd_rd_bytes(r, &len);

	if (cap > 0)
		out[0] = '\0';
	if (p && (len >= cap || memchr(p, '\0', len)))
		r->bad = true;
	if (r->bad)
		return false;
	memcpy(out, p, len);
	out[len] = '\0';
	return true;
}

bool wd_rd_attr(struct wd_rd *r, struct wd_attr *ret_attr)
{
	struct wd_attr attr = {
		.node = wd_rd_u64(r),
	};

	attr.ino = wd_rd_u64(r);
	attr.size = wd_rd_u64(r);
	attr.mtime_s = (int64_t)wd_rd_u64(r);
	attr.mtime_ns = wd_rd_u32(r);
	attr.mode = wd_rd_u32(r);
	attr.uid = wd_rd_u32(r);
	attr.gid = wd_rd_u32(r);
	attr.nlink = wd_rd_u32(r);
	attr.entry_ttl_ms = wd_rd_u32(r);
	attr.attr_ttl_ms = wd_rd_u32(r);
	if (!r->bad)
		*ret_attr = attr;
	return !r->bad;
}

bool wd_rd_done(const struct wd_rd *r)
{
	return !r->bad && r->left == 0;
}
