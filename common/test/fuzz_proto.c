/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer target: one packet from a hostile peer, through a real socket, then read field by
 * field.
 *
 * The first byte says how many fds ride along and whether the header is put in order (so that
 * bodies are reached at all); the rest is the packet, whose body also chooses which fields are
 * read. An fd that stays open makes the next free number grow, which ends the run.
 */
#include "common/proto.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned char packet[WD_MSG_MAX + 16];
static struct wd_msg msg;

static void require(bool is_so)
{
	if (!is_so)
		abort();
}

static int next_free_fd(void)
{
	int fd = dup(STDIN_FILENO);

	require(fd >= 0);
	close(fd);
	return fd;
}

static void put_in_order(size_t len)
{
	uint32_t magic = WD_MSG_MAGIC, body = (uint32_t)(len - WD_MSG_HDR);

	memcpy(packet, &magic, 4);
	memset(packet + 6, 0, 2);
	packet[5] |= 0x80; /* a reply may carry a status */
	memset(packet + 16, 0, 4);
	memcpy(packet + 20, &body, 4);
}

static void send_packet(int sock, size_t len, unsigned fds)
{
	union {
		struct cmsghdr align;
		unsigned char space[CMSG_SPACE(sizeof(int) * 8)];
	} control = {0};
	struct iovec iov = {packet, len};
	struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fds > 0) {
		struct cmsghdr *c;

		hdr.msg_control = control.space;
		hdr.msg_controllen = CMSG_SPACE(sizeof(int) * fds);
		c = CMSG_FIRSTHDR(&hdr);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * fds);
		for (unsigned i = 0; i < fds; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &(int){STDIN_FILENO}, sizeof(int));
	}
	require(sendmsg(sock, &hdr, 0) == (ssize_t)len);
}

static void read_fields(void)
{
	struct wd_rd r = wd_rd_start(&msg);
	const unsigned char *end = r.p + r.left;
	struct wd_attr attr;
	char text[256];
	size_t len;

	while (!r.bad && r.left > 0) {
		const unsigned char *bytes;

		switch (wd_rd_u8(&r) % 5) {
		case 0:
			wd_rd_u32(&r);
			break;
		case 1:
			wd_rd_u64(&r);
			break;
		case 2:
			bytes = wd_rd_bytes(&r, &len);
			require(bytes ? bytes + len <= end : len == 0);
			break;
		case 3:
			if (wd_rd_str(&r, text, sizeof(text)))
				require(strlen(text) < sizeof(text));
			break;
		default:
			wd_rd_attr(&r, &attr);
		}
		require(r.bad || r.p + r.left == end);
	}
	require(wd_rd_done(&r) == !r.bad);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int before = next_free_fd(), sv[2];
	unsigned fds;

	if (size < 2 || size > sizeof(packet))
		return -1;
	require(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) == 0);
	fds = data[0] & 7;
	memcpy(packet, data + 1, size - 1);
	if ((data[0] & 0x80) && size - 1 >= WD_MSG_HDR)
		put_in_order(size - 1);
	send_packet(sv[0], size - 1, fds);
	close(sv[0]);
	if (wd_msg_recv(sv[1], &msg, 0) == 1) {
		require(msg.len == size - 1 - WD_MSG_HDR && msg.nfds == fds);
		read_fields();
		if (fds > 0) {
			int fd = wd_msg_take_fd(&msg, fds - 1);

			require(fcntl(fd, F_GETFD) == FD_CLOEXEC);
			close(fd);
		}
		wd_msg_close_fds(&msg);
	}
	require(msg.nfds == 0);
	close(sv[1]);
	require(next_free_fd() == before);
	return 0;
}
