/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks a keeper for a mount with a description as csi sends it, credentials and all: what the command line cannot say.
 *
 *	e2e-mount-described RUN_DIR TARGET <DESCRIPTION
 */
#include <stdio.h>
#include <string.h>

#include "common/proto.h"

int main(int argc, char **argv)
{
	static struct wd_msg m;
	char path[108], description[4096];
	struct wd_err err = WD_ERR_INIT;
	size_t len = fread(description, 1, sizeof(description), stdin);
	int sock, rc;

	if (argc != 3 || len == 0 || len == sizeof(description)) {
		fputs("usage: e2e-mount-described RUN_DIR TARGET <DESCRIPTION\n", stderr);
		return 2;
	}
	snprintf(path, sizeof(path), "%s/keeper.sock", argv[1]);
	sock = wd_client_connect(path, WD_ROLE_CSI, &err);
	if (sock < 0) {
		fprintf(stderr, "%s\n", err.msg);
		return 1;
	}
	wd_msg_start(&m, WD_MSG_MOUNT, 1);
	wd_put_str(&m, argv[2]);
	wd_put_bytes(&m, description, len);
	wd_put_u32(&m, 0);
	rc = wd_client_call(sock, &m, -1, &err);
	if (rc < 0)
		fprintf(stderr, "%s\n", err.msg);
	return rc < 0;
}
