/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `warpdrive-ctl umount`: asks the keeper to take mounts down, one by one, and explains refusals.
 * The path is made absolute without looking at the mount itself, which may be dead.
 */
#include "warm-job/ctl.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/proto.h"

static const struct option long_options[] = {
	{"help", no_argument, NULL, 'h'},
	{"force", no_argument, NULL, 'f'},
	{"run-dir", required_argument, NULL, 'r'},
	{NULL, 0, NULL, 0},
};

static int umount_one(
	int sock, struct wd_msg *m, const char *target, uint32_t flags, struct wd_err *err)
{
	wd_msg_start(m, WD_MSG_UMOUNT, 1);
	wd_put_str(m, target);
	wd_put_u32(m, flags);

	int r = wd_client_call(sock, m, -1, err);

	wd_msg_close_fds(m);
	if (r == -EBUSY)
		return wd_err_set(err, EBUSY,
			"busy: end what uses it (`fuser -vm %s` lists it), or detach it with "
			"--force",
			target);
	if (r == -ENOENT || r == -EINVAL)
		return wd_err_set(
			err, ENOENT, "not a WarpDrive mount: `warpdrive-ctl status` lists them");
	return r;
}

static bool was_symlink_resolved(const char *dir, const char *tried, char out[PATH_MAX])
{
	return realpath(dir, out) && strcmp(out, tried) != 0;
}

static int umount_dir(
	int sock, struct wd_msg *m, const char *dir, uint32_t flags, struct wd_err *err)
{
	char target[PATH_MAX], resolved[PATH_MAX];
	int r = ctl_absolute(dir, target, err);

	if (r < 0)
		return r;
	r = umount_one(sock, m, target, flags, err);
	/* a symbolic link to the mountpoint */
	if (r == -ENOENT && was_symlink_resolved(dir, target, resolved))
		r = umount_one(sock, m, resolved, flags, err);
	return r;
}

static enum ctl_exit umount_all(const char *run_dir, int n, char **dirs, uint32_t flags)
{
	struct wd_err err = WD_ERR_INIT;
	char path[108];
	int sock = ctl_run_path(run_dir, "keeper.sock", path, &err), failed = 0;

	if (sock == 0)
		sock = wd_client_connect(path, WD_ROLE_CTL, &err);
	if (sock < 0) {
		ctl_explain("keeper", run_dir, &err);
		ctl_error("umount: %s", err.msg);
		return CTL_FAILED;
	}
	struct wd_msg *m = calloc(1, sizeof(*m));

	for (int i = 0; i < n; i++) {
		err = WD_ERR_INIT;
		if (!m)
			wd_err_sys(&err, ENOMEM, "ask the keeper");
		if (!m || umount_dir(sock, m, dirs[i], flags, &err) < 0) {
			ctl_error("umount '%s': %s", dirs[i], err.msg);
			failed++;
		}
	}
	free(m);
	close(sock);
	return failed == 0 ? CTL_DONE : failed < n ? CTL_PARTLY : CTL_FAILED;
}

enum ctl_exit ctl_umount(const struct ctl_command *self, int argc, char **argv)
{
	const char *run_dir = NULL;
	uint32_t flags = 0;
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":hfr:", long_options, NULL)) != -1) {
		switch (c) {
		case 'h':
			return ctl_print_help(self);
		case 'f':
			flags |= WD_UMOUNT_FORCE;
			break;
		case 'r':
			run_dir = optarg;
			break;
		case ':':
			return ctl_usage(self, "'%.20s' needs a value", argv[optind - 1]);
		default:
			return ctl_usage(self, "unknown option '%.20s'", argv[optind - 1]);
		}
	}
	if (optind == argc)
		return ctl_usage(self, "needs a directory");
	return umount_all(ctl_run_dir(run_dir), argc - optind, argv + optind, flags);
}
