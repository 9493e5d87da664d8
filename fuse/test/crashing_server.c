/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server for tests: it runs, gets READY like any other, and dies as soon as it has taken over.
 */
#include <string.h>
#include <unistd.h>

#include "common/proto.h"
#include "fuse/keeper_spawn.h"

int main(int argc, char **argv)
{
	static struct wd_msg m;

	if (argc > 1 && strcmp(argv[1], "--version") == 0)
		return 0;
	wd_msg_start(&m, WD_MSG_READY, 0);
	if (wd_msg_send(SERVER_FD_CONTROL, &m, 0) < 0)
		return 2;
	while (wd_msg_recv(SERVER_FD_CONTROL, &m, 0) > 0 && m.type != WD_MSG_GO)
		wd_msg_close_fds(&m);
	return 3;
}
