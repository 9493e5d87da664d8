/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_TEST_SOCKETS_H
#define WD_COMMON_TEST_SOCKETS_H
/* Socket pairs, and whether fds leaked. For cmocka tests: a failure ends the test. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sys/socket.h>
#include <unistd.h>

static inline void make_pair(int ret_sv[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret_sv), 0);
}

static inline void close_pair(const int sv[2])
{
	close(sv[0]);
	close(sv[1]);
}

static inline int open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

#endif
