/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See receive_window.h. SO_RCVBUF may be changed at any time, and ends the kernel's own tuning until SO_BUF_LOCK gives it
 * back (Linux 5.14). TCP_WINDOW_CLAMP bounds nothing: the tuning moves it along.
 */
#include "agent/receive_window.h"

#include <limits.h>
#include <netinet/in.h>
#include <linux/tcp.h>
#include <string.h>
#include <sys/socket.h>

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#ifndef SOCK_RCVBUF_LOCK
#define SOCK_RCVBUF_LOCK 2
#endif

/* Shorter than a few segments, a window has the server wait for a timer before it sends the next. */
#define SEGMENTS_MIN 4

static int get(int fd, int level, int name)
{
	int value = 0;
	socklen_t len = sizeof(value);

	return getsockopt(fd, level, name, &value, &len) < 0 ? -1 : value;
}

static int set(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value));
}

void receive_window_set(int fd, uint64_t bytes)
{
	int segment = get(fd, IPPROTO_TCP, TCP_MAXSEG), lock = get(fd, SOL_SOCKET, SO_BUF_LOCK), now;

	/* who could not give it back does not take it */
	if (segment < 0 || lock < 0)
		return;
	if (bytes < (uint64_t)segment * SEGMENTS_MIN)
		bytes = (uint64_t)segment * SEGMENTS_MIN;
	if (bytes > INT_MAX) {
		if (lock & SOCK_RCVBUF_LOCK)
			set(fd, SOL_SOCKET, SO_BUF_LOCK, 0);
		return;
	}
	now = get(fd, SOL_SOCKET, SO_RCVBUF);
	if ((lock & SOCK_RCVBUF_LOCK) && (uint64_t)now <= bytes && (uint64_t)now > bytes / 2)
		return;
	/* the kernel doubles what it is told */
	set(fd, SOL_SOCKET, SO_RCVBUF, (int)(bytes / 2));
	/* net.core.rmem_max is in the way: better as the kernel does it than too little */
	if ((uint64_t)get(fd, SOL_SOCKET, SO_RCVBUF) < bytes / 2)
		set(fd, SOL_SOCKET, SO_BUF_LOCK, 0);
	set(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, INT_MAX); /* it would stay where the buffer was */
}

int64_t receive_window_rtt_ns(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	memset(&info, 0, sizeof(info));
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return 0;
	/* all ones before it is known */
	return info.tcpi_min_rtt == UINT32_MAX ? 0 : (int64_t)info.tcpi_min_rtt * 1000;
}
