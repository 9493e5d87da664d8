/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds the control file by the id of the mount, not by comparing paths: a path says nothing of what is mounted
 * over what. Where a pod has but a directory of the volume (subPath), the kernel shows no more of it, and the root
 * cannot be reached, unless the pod has mounted that, too.
 */
#include "common/control_client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/mountinfo.h"

#define FS_TYPE "fuse.warpdrive"

/* ---- finding it ---- */

/* The part of path below dir, without a slash before it; NULL when it does not lie there. */
static const char *below(const char *path, const char *dir)
{
	size_t len = strcmp(dir, "/") == 0 ? 0 : strlen(dir);

	if (strncmp(path, dir, len) != 0 || (path[len] != '\0' && path[len] != '/'))
		return NULL;
	return path + len + strspn(path + len, "/");
}

/* The mount on which real (an absolute path without links) lies. */
static int find_mount(const char *real, struct mountinfo *ret_info, char *ret_target, struct wd_err *err)
{
	struct statx st;
	int rc;

	if (statx(AT_FDCWD, real, AT_SYMLINK_NOFOLLOW | AT_STATX_DONT_SYNC, STATX_MNT_ID, &st) < 0)
		return wd_err_sys(err, errno, "look at '%s'", real);
	if (!(st.stx_mask & STATX_MNT_ID))
		return wd_err_set(err, ENODEV, "the kernel does not say on which mount '%s' is (before Linux 5.8)", real);
	rc = mountinfo_find_id((unsigned)st.stx_mnt_id, ret_info, ret_target, err);
	if (rc < 0)
		return rc;
	if (rc == 0 || strcmp(ret_info->type, FS_TYPE) != 0)
		return wd_err_set(err, ENODEV, "'%s' is not on a volume of WarpDrive", real);
	return 0;
}

/* Where all of the volume is mounted of which info is a part. */
static int find_root(const char *real, const struct mountinfo *info, char *ret_target, struct wd_err *err)
{
	struct mountinfo whole;
	int rc = mountinfo_find_whole(info->major, info->minor, &whole, ret_target, err);

	if (rc < 0)
		return rc;
	if (rc == 0)
		return wd_err_set(err, EXDEV,
			"'%s' is on a mount of the directory '%s' of a volume (subPath): calls go through the "
			"volume's root, so mount that into the pod, too (without subPath)",
			real, info->root);
	return 0;
}

static int join(const char *a, const char *b, char *ret_path, struct wd_err *err)
{
	int n = snprintf(ret_path, PATH_MAX, "%s%s%s", a, a[0] && b[0] ? "/" : "", b);

	return n < PATH_MAX ? 0 : wd_err_set(err, ENAMETOOLONG, "'%s' below '%s': too long", b, a);
}

static int open_at(const char *root, struct wd_err *err)
{
	char path[PATH_MAX];
	int rc = join(strcmp(root, "/") == 0 ? "" : root, WD_CONTROL_NAME, path, err), fd;

	if (rc < 0)
		return rc;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY);
	if (fd < 0 && errno == ENOENT)
		return wd_err_set(err, EOPNOTSUPP,
			"the volume at '%s' is served by a release of WarpDrive that takes no calls through it", root);
	return fd < 0 ? wd_err_sys(err, errno, "open '%s'", path) : fd;
}

int wd_control_open(const char *path, char *ret_below, struct wd_err *err)
{
	char real[PATH_MAX], target[PATH_MAX], found[PATH_MAX];
	struct mountinfo info;
	const char *rest;
	int rc;

	if (!realpath(path, real))
		return wd_err_sys(err, errno, "look for '%s'", path);
	rc = find_mount(real, &info, target, err);
	if (rc < 0)
		return rc;
	rest = below(real, target);
	if (!rest)
		return wd_err_set(err, ENODEV, "'%s' is not below its mount '%s': it was moved", real, target);
	rc = join(below(info.root, "/"), rest, found, err);
	if (rc == 0 && strcmp(info.root, "/") != 0)
		rc = find_root(real, &info, target, err);
	if (rc == 0)
		rc = open_at(target, err);
	if (rc >= 0)
		strcpy(ret_below, found);
	return rc;
}

/* ---- calling ---- */

static int explain(const char *method, int code, struct wd_err *err)
{
	switch (code) {
	case ENOTTY:
		return wd_err_set(err, EOPNOTSUPP,
			"call %s: the volume is served by a release of WarpDrive that takes no calls through it", method);
	case EIO:
		return wd_err_set(err, EOPNOTSUPP,
			"call %s: the volume was mounted by a release of WarpDrive that takes no calls through it; "
			"start the pod anew", method);
	case EBUSY:
		return wd_err_set(err, EBUSY, "call %s: too many calls through this volume wait already", method);
	default:
		return wd_err_sys(err, code, "call %s through the volume", method);
	}
}

static int check_answer(const char *method, const struct wd_control_frame *f, struct wd_err *err)
{
	if (f->len > sizeof(f->data) || f->status > 0 || f->status < -4095)
		return wd_err_set(err, EPROTO, "call %s through the volume: the answer makes no sense", method);
	if (f->status == -ENOSYS)
		return wd_err_set(err, EOPNOTSUPP, "the node's agent is of a release too old for this: upgrade it");
	if (f->status < 0)
		return wd_err_set(err, -f->status, "%.*s", (int)f->len, (const char *)f->data);
	return 0;
}

int wd_control_call(int fd, const char *method, const void *request, size_t len, void *ret_response,
	size_t *ret_len, struct wd_err *err)
{
	wd_autofree struct wd_control_frame *f = calloc(1, sizeof(*f));
	int rc;

	if (!f)
		return wd_err_set(err, ENOMEM, "call %s: out of memory", method);
	if (len > sizeof(f->data) || strlen(method) >= sizeof(f->method))
		return wd_err_set(err, E2BIG, "call %s: %zu bytes are too long for a call through a volume (%d)",
			method, len, WD_CONTROL_DATA_MAX);
	strcpy(f->method, method);
	f->len = (uint32_t)len;
	if (len > 0)
		memcpy(f->data, request, len);
	if (ioctl(fd, WD_CONTROL_CALL, f) < 0)
		return explain(method, errno, err);
	rc = check_answer(method, f, err);
	if (rc < 0)
		return rc;
	memcpy(ret_response, f->data, f->len);
	*ret_len = f->len;
	return 0;
}
