/* SPDX-License-Identifier: Apache-2.0 */
/* Messages over real sockets: round trips, descriptors, and hostile packets. */
#include "common/proto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/test/sockets.h"

static struct wd_msg msg, got;
static const struct wd_attr attr_of_zeros;

/* Sends raw bytes as one packet with copies of an fd. */
static void send_raw(int sock, const void *data, size_t len, int fd, unsigned copies)
{
	union {
		struct cmsghdr align;
		unsigned char space[CMSG_SPACE(sizeof(int) * 16)];
	} control = {0};
	struct iovec iov = {(void *)data, len};
	struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};

	if (copies > 0) {
		struct cmsghdr *c;

		hdr.msg_control = control.space;
		hdr.msg_controllen = CMSG_SPACE(sizeof(int) * copies);
		c = CMSG_FIRSTHDR(&hdr);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * copies);
		for (unsigned i = 0; i < copies; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof(fd));
	}
	assert_int_equal(sendmsg(sock, &hdr, 0), (ssize_t)len);
}

/* The bytes of a valid request with body_len bytes of body, for the tests to spoil. */
static size_t make_packet(unsigned char *out, size_t cap, size_t body_len)
{
	int sv[2];
	ssize_t n;

	make_pair(sv);
	wd_msg_start(&msg, WD_MSG_OPEN, 7);
	for (size_t i = 0; i < body_len; i++)
		wd_put_u8(&msg, (uint8_t)i);
	assert_int_equal(wd_msg_send(sv[0], &msg, 0), 0);
	n = recv(sv[1], out, cap, 0);
	assert_int_equal(n, WD_MSG_HDR + body_len);
	close_pair(sv);
	return (size_t)n;
}

/* ---- round trips ---- */

static void every_field_arrives_as_it_was_put(void **state)
{
	struct wd_attr attr = {1, 2, UINT64_MAX, -5, 999999999, S_IFREG | 0444, 6, 7, 1, 60000, 5};
	struct wd_attr attr_got;
	const void *bytes;
	char text[16];
	size_t len;
	struct wd_rd r;
	int sv[2];

	make_pair(sv);
	wd_msg_start_reply(&msg, WD_MSG_LOOKUP, UINT64_MAX - 1, -ENOENT);
	wd_put_u8(&msg, 0xfe);
	wd_put_u32(&msg, 0xdeadbeef);
	wd_put_u64(&msg, 0x0123456789abcdef);
	wd_put_bytes(&msg, "a\0b", 3);
	wd_put_bytes(&msg, NULL, 0);
	wd_put_str(&msg, "name\n");
	wd_put_attr(&msg, &attr);
	assert_int_equal(wd_msg_send(sv[0], &msg, 0), 0);
	assert_int_equal(wd_msg_recv(sv[1], &got, 0), 1);
	assert_int_equal(got.type, WD_MSG_LOOKUP | WD_MSG_REPLY);
	assert_int_equal(got.id, UINT64_MAX - 1);
	assert_int_equal(got.status, -ENOENT);
	assert_int_equal(got.nfds, 0);

	r = wd_rd_start(&got);
	assert_int_equal(wd_rd_u8(&r), 0xfe);
	assert_int_equal(wd_rd_u32(&r), 0xdeadbeef);
	assert_int_equal(wd_rd_u64(&r), 0x0123456789abcdef);
	bytes = wd_rd_bytes(&r, &len);
	assert_int_equal(len, 3);
	assert_memory_equal(bytes, "a\0b", 3);
	assert_non_null(wd_rd_bytes(&r, &len));
	assert_int_equal(len, 0);
	assert_true(wd_rd_str(&r, text, sizeof(text)));
	assert_string_equal(text, "name\n");
	assert_false(wd_rd_done(&r));
	assert_int_equal(r.left, WD_ATTR_WIRE);
	assert_true(wd_rd_attr(&r, &attr_got));
	assert_memory_equal(&attr_got, &attr, WD_ATTR_WIRE); /* behind it is padding */
	assert_true(wd_rd_done(&r));
	close_pair(sv);
}

static void the_header_is_little_endian_on_the_wire(void **state)
{
	static const unsigned char want[] = {'W', 'D', 'P', '1', 33, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0,
		0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1};
	unsigned char packet[64];

	assert_int_equal(make_packet(packet, sizeof(packet), 2), sizeof(want));
	assert_memory_equal(packet, want, sizeof(want));
}

static void descriptors_arrive_close_on_exec_in_their_order(void **state)
{
	int before = open_fds(), sv[2], pipes[2], a, b;
	char c = 0;

	make_pair(sv);
	assert_int_equal(pipe(pipes), 0);
	wd_msg_start(&msg, WD_MSG_MOUNT_ADD, 1);
	wd_put_fd(&msg, pipes[0]);
	wd_put_fd(&msg, pipes[1]);
	assert_int_equal(wd_msg_send(sv[0], &msg, 0), 0);
	assert_int_equal(wd_msg_recv(sv[1], &got, 0), 1);
	assert_int_equal(got.nfds, 2);
	a = wd_msg_take_fd(&got, 0);
	b = wd_msg_take_fd(&got, 1);
	assert_true(a >= 0 && b >= 0);
	assert_int_equal(wd_msg_take_fd(&got, 1), -1);
	assert_int_equal(wd_msg_take_fd(&got, 2), -1);
	wd_msg_close_fds(&got); /* leaves alone what was taken */
	assert_int_equal(fcntl(a, F_GETFD), FD_CLOEXEC);
	assert_int_equal(fcntl(b, F_GETFD), FD_CLOEXEC);
	assert_int_equal(write(b, "x", 1), 1);
	assert_int_equal(read(pipes[0], &c, 1), 1);
	assert_int_equal(c, 'x');
	close(a);
	close(b);
	close_pair(pipes);
	close_pair(sv);
	assert_int_equal(open_fds(), before);
}

static void descriptors_that_nobody_took_are_closed(void **state)
{
	int before = open_fds(), sv[2];

	make_pair(sv);
	wd_msg_start(&msg, WD_MSG_OPEN, 1);
	for (int i = 0; i < WD_MSG_FDS; i++)
		wd_put_fd(&msg, 0);
	assert_int_equal(wd_msg_send(sv[0], &msg, 0), 0);
	assert_int_equal(wd_msg_recv(sv[1], &got, 0), 1);
	assert_int_equal(got.nfds, WD_MSG_FDS);
	assert_int_equal(open_fds(), before + 2 + WD_MSG_FDS);
	wd_msg_close_fds(&got);
	close_pair(sv);
	assert_int_equal(open_fds(), before);
}

static void the_largest_message_passes_and_one_byte_more_does_not(void **state)
{
	static unsigned char big[WD_MSG_MAX];
	struct wd_rd r;
	size_t len;
	int sv[2];

	make_pair(sv);
	wd_msg_start(&msg, WD_MSG_MOUNT, 1);
	wd_put_bytes(&msg, big, WD_MSG_MAX - WD_MSG_HDR - 4);
	assert_int_equal(wd_msg_send(sv[0], &msg, 0), 0);
	assert_int_equal(wd_msg_recv(sv[1], &got, 0), 1);
	r = wd_rd_start(&got);
	assert_non_null(wd_rd_bytes(&r, &len));
	assert_int_equal(len, WD_MSG_MAX - WD_MSG_HDR - 4);
	assert_true(wd_rd_done(&r));

	wd_put_u8(&msg, 1);
	assert_true(msg.overflow);
	assert_int_equal(wd_msg_send(sv[0], &msg, 0), -EMSGSIZE);
	wd_msg_start(&msg, WD_MSG_MOUNT, 1);
	wd_put_bytes(&msg, big, SIZE_MAX);
	assert_int_equal(wd_msg_send(sv[0], &msg, 0), -EMSGSIZE);
	wd_msg_start(&msg, WD_MSG_MOUNT, 1);
	for (int i = 0; i <= WD_MSG_FDS; i++)
		wd_put_fd(&msg, 0);
	assert_int_equal(wd_msg_send(sv[0], &msg, 0), -EMSGSIZE);
	close_pair(sv);
}

static void nothing_fits_after_an_overflow_not_even_a_byte(void **state)
{
	static unsigned char big[WD_MSG_MAX];

	wd_msg_start(&msg, WD_MSG_MOUNT, 1);
	wd_put_bytes(&msg, big, sizeof(big));
	wd_put_u8(&msg, 1);
	assert_true(msg.overflow);
	assert_int_equal(msg.len, 0);
}

/* ---- hostile packets ---- */

static void expect_refused(const void *data, size_t len, unsigned fds)
{
	int before = open_fds(), sv[2];

	make_pair(sv);
	send_raw(sv[0], data, len, 0, fds);
	assert_int_equal(wd_msg_recv(sv[1], &got, 0), -EPROTO);
	assert_int_equal(got.nfds, 0);
	assert_int_equal(wd_msg_take_fd(&got, 0), -1);
	close_pair(sv);
	assert_int_equal(open_fds(), before);
}

static void a_short_packet_is_refused_at_every_length(void **state)
{
	unsigned char packet[64];
	size_t len = make_packet(packet, sizeof(packet), 8);

	for (size_t cut = 1; cut < len; cut++)
		expect_refused(packet, cut, 1);
}

static void a_packet_longer_than_it_says_is_refused(void **state)
{
	unsigned char packet[64];
	size_t len = make_packet(packet, sizeof(packet), 8);

	expect_refused(packet, len + 1, 1);
	packet[20] = 0xff;
	packet[23] = 0xff;
	expect_refused(packet, len, 2);
}

static void wrong_magic_flags_and_status_are_refused(void **state)
{
	static const int spoil_at[] = {0, 1, 2, 3, 6, 7, 16, 19};
	unsigned char packet[64];

	for (size_t i = 0; i < sizeof(spoil_at) / sizeof(*spoil_at); i++) {
		size_t len = make_packet(packet, sizeof(packet), 3);

		packet[spoil_at[i]] ^= 0x80;
		expect_refused(packet, len, WD_MSG_FDS);
	}
}

static void a_reply_status_that_is_no_errno_is_refused(void **state)
{
	static const int32_t bad[] = {1, INT32_MAX, INT32_MIN, -4096};
	unsigned char packet[64];
	size_t len = make_packet(packet, sizeof(packet), 0);

	packet[5] |= 0x80;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		memcpy(packet + 16, &bad[i], 4);
		expect_refused(packet, len, 1);
	}
}

static void a_packet_with_too_many_descriptors_is_refused_and_all_are_closed(void **state)
{
	unsigned char packet[64];
	size_t len = make_packet(packet, sizeof(packet), 4);

	expect_refused(packet, len, WD_MSG_FDS + 1);
	expect_refused(packet, len, 16);
}

static void a_packet_above_the_largest_size_is_refused(void **state)
{
	static unsigned char big[WD_MSG_MAX + 1];
	unsigned char packet[64];

	make_packet(packet, sizeof(packet), 0);
	memcpy(big, packet, WD_MSG_HDR);
	big[21] = 0xff; /* a length that would suit what is left of the packet */
	big[20] = 0xe8;
	expect_refused(big, sizeof(big), 3);
}

static void an_empty_packet_with_descriptors_is_the_end_and_closes_them(void **state)
{
	int before = open_fds(), sv[2];

	make_pair(sv);
	send_raw(sv[0], "", 0, 0, 3);
	assert_int_equal(wd_msg_recv(sv[1], &got, 0), 0);
	assert_int_equal(got.nfds, 0);
	close_pair(sv);
	assert_int_equal(open_fds(), before);
}

static void the_connection_stays_in_step_after_a_refused_packet(void **state)
{
	int sv[2];

	make_pair(sv);
	send_raw(sv[0], "junk", 4, 0, 0);
	wd_msg_start(&msg, WD_MSG_STATFS, 9);
	assert_int_equal(wd_msg_send(sv[0], &msg, 0), 0);
	assert_int_equal(wd_msg_recv(sv[1], &got, 0), -EPROTO);
	assert_int_equal(wd_msg_recv(sv[1], &got, 0), 1);
	assert_int_equal(got.id, 9);
	close_pair(sv);
}

static void random_bytes_never_break_the_reader(void **state)
{
	uint32_t seed = 12345;

	for (int round = 0; round < 20000; round++) {
		char text[8];
		struct wd_attr attr;
		struct wd_rd r;
		size_t len;

		got.len = (size_t)round % 80;
		for (size_t i = 0; i < got.len; i++) {
			seed = seed * 1664525 + 1013904223;
			/* small values make lengths that fit, too */
			wd_msg_body(&got)[i] = (unsigned char)(seed >> 24) % (round % 2 ? 256 : 4);
		}
		r = wd_rd_start(&got);
		while (!r.bad && r.left > 0) {
			seed = seed * 1664525 + 1013904223;
			switch (seed >> 30) {
			case 0:
				wd_rd_u8(&r);
				break;
			case 1:
				wd_rd_str(&r, text, sizeof(text));
				break;
			case 2:
				if (!wd_rd_bytes(&r, &len))
					assert_int_equal(len, 0);
				break;
			default:
				wd_rd_attr(&r, &attr);
			}
			assert_true(r.p + r.left == wd_msg_body(&got) + got.len || r.bad);
		}
	}
}

static void a_reader_stays_bad_after_the_first_short_field(void **state)
{
	struct wd_attr attr = {.node = 77};
	char text[4] = "old";
	struct wd_rd r;
	size_t len;

	wd_msg_start(&msg, WD_MSG_OPEN, 1);
	wd_put_u8(&msg, 1);
	wd_put_u8(&msg, 2);
	r = wd_rd_start(&msg);
	assert_int_equal(wd_rd_u32(&r), 0);
	assert_int_equal(wd_rd_u8(&r), 0); /* there would be a byte */
	assert_int_equal(wd_rd_u64(&r), 0);
	assert_null(wd_rd_bytes(&r, &len));
	assert_int_equal(len, 0);
	assert_false(wd_rd_str(&r, text, sizeof(text)));
	assert_string_equal(text, "");
	assert_false(wd_rd_attr(&r, &attr));
	assert_int_equal(attr.node, 77);
	assert_false(wd_rd_done(&r));
}

static void every_field_is_bad_when_its_last_byte_is_missing(void **state)
{
	static const size_t needs[] = {1, 4, 8, 4 + 3, 4 + 3, WD_ATTR_WIRE};

	for (unsigned field = 0; field < sizeof(needs) / sizeof(*needs); field++)
		for (unsigned missing = 0; missing < 2; missing++) {
			struct wd_attr attr;
			char text[8];
			struct wd_rd r;
			size_t len;

			wd_msg_start(&msg, WD_MSG_OPEN, 1);
			wd_put_bytes(&msg, "abc", 3);
			wd_put_attr(&msg, &attr_of_zeros);
			msg.len = needs[field] - missing;
			r = wd_rd_start(&msg);
			if (field == 0)
				wd_rd_u8(&r);
			else if (field == 1)
				wd_rd_u32(&r);
			else if (field == 2)
				wd_rd_u64(&r);
			else if (field == 3)
				wd_rd_bytes(&r, &len);
			else if (field == 4)
				wd_rd_str(&r, text, sizeof(text));
			else
				wd_rd_attr(&r, &attr);
			assert_int_equal(r.bad, missing != 0);
			assert_int_equal(wd_rd_done(&r), missing == 0);
		}
}

static void a_string_is_bad_when_it_holds_a_nul_or_does_not_fit(void **state)
{
	char text[4];
	struct wd_rd r;

	wd_msg_start(&msg, WD_MSG_OPEN, 1);
	wd_put_bytes(&msg, "a\0b", 3);
	r = wd_rd_start(&msg);
	assert_false(wd_rd_str(&r, text, sizeof(text)));
	assert_false(wd_rd_done(&r));

	wd_msg_start(&msg, WD_MSG_OPEN, 1);
	wd_put_str(&msg, "abc");
	wd_put_str(&msg, "abcd");
	r = wd_rd_start(&msg);
	assert_true(wd_rd_str(&r, text, sizeof(text)));
	assert_string_equal(text, "abc");
	assert_false(wd_rd_str(&r, text, sizeof(text)));
	assert_false(wd_rd_done(&r));

	r = wd_rd_start(&msg);
	assert_false(wd_rd_str(&r, text, 0));
}

static void the_end_of_the_connection_is_told_apart_from_waiting(void **state)
{
	int sv[2];

	make_pair(sv);
	assert_int_equal(wd_msg_recv(sv[1], &got, MSG_DONTWAIT), -EAGAIN);
	wd_msg_start(&msg, WD_MSG_STATFS, 3);
	assert_int_equal(wd_msg_send(sv[0], &msg, 0), 0);
	/* the peer closes with a packet unread: its own last packet is still delivered */
	assert_int_equal(wd_msg_send(sv[1], &msg, 0), 0);
	close(sv[0]);
	assert_int_equal(wd_msg_recv(sv[1], &got, 0), 1);
	assert_int_equal(got.id, 3);
	assert_int_equal(wd_msg_recv(sv[1], &got, 0), 0);
	assert_int_equal(wd_msg_send(sv[1], &msg, 0), -EPIPE);
	close(sv[1]);
}

static void sending_without_waiting_says_when_the_queue_is_full(void **state)
{
	int sv[2], rc, sent = 0;

	make_pair(sv);
	wd_msg_start(&msg, WD_MSG_STATFS, 3);
	while ((rc = wd_msg_send(sv[0], &msg, MSG_DONTWAIT)) == 0)
		sent++;
	assert_int_equal(rc, -EAGAIN);
	assert_true(sent > 0);
	close_pair(sv);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_field_arrives_as_it_was_put),
		cmocka_unit_test(the_header_is_little_endian_on_the_wire),
		cmocka_unit_test(descriptors_arrive_close_on_exec_in_their_order),
		cmocka_unit_test(descriptors_that_nobody_took_are_closed),
		cmocka_unit_test(the_largest_message_passes_and_one_byte_more_does_not),
		cmocka_unit_test(nothing_fits_after_an_overflow_not_even_a_byte),
		cmocka_unit_test(a_short_packet_is_refused_at_every_length),
		cmocka_unit_test(a_packet_longer_than_it_says_is_refused),
		cmocka_unit_test(wrong_magic_flags_and_status_are_refused),
		cmocka_unit_test(a_reply_status_that_is_no_errno_is_refused),
		cmocka_unit_test(a_packet_with_too_many_descriptors_is_refused_and_all_are_closed),
		cmocka_unit_test(a_packet_above_the_largest_size_is_refused),
		cmocka_unit_test(an_empty_packet_with_descriptors_is_the_end_and_closes_them),
		cmocka_unit_test(the_connection_stays_in_step_after_a_refused_packet),
		cmocka_unit_test(random_bytes_never_break_the_reader),
		cmocka_unit_test(a_reader_stays_bad_after_the_first_short_field),
		cmocka_unit_test(every_field_is_bad_when_its_last_byte_is_missing),
		cmocka_unit_test(a_string_is_bad_when_it_holds_a_nul_or_does_not_fit),
		cmocka_unit_test(the_end_of_the_connection_is_told_apart_from_waiting),
		cmocka_unit_test(sending_without_waiting_says_when_the_queue_is_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
