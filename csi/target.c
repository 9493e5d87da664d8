/* SPDX-License-Identifier: Apache-2.0 */
/* See target.h. Everything is opened relative to the kubelet's directory with openat2(2). */
#include "csi/target.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/mountinfo.h"

#define FS_TYPE "fuse.warpdrive"

static bool is_clean(const char *path)
{
	for (const char *p = path; *p == '/';) {
		size_t len = strcspn(++p, "/");

		if (len == 0 || len > NAME_MAX || (len == 1 && p[0] == '.') ||
			(len == 2 && p[0] == '.' && p[1] == '.'))
			return false;
		p += len;
		if (!*p)
			return true;
	}
	return false;
}

enum rpc_code target_check(struct rpc_call *call, const struct driver *d, const char *field,
	const char *target, const char **ret_path)
{
	size_t len = strlen(d->kubelet_dir), n = strlen(target);

	if (n == 0)
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "%s: missing", field);
	if (n >= PATH_MAX)
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "%s: longer than %d bytes", field, PATH_MAX - 1);
	if (n > 1 && target[n - 1] == '/')
		n--;
	*ret_path = arena_printf(call->arena, "%.*s", (int)n, target);
	if (!*ret_path)
		return rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "out of memory");
	if (!is_clean(*ret_path))
		return rpc_fail(call, RPC_INVALID_ARGUMENT,
			"%s: '%.200s': must be absolute, without '.', '..' and '//'", field, target);
	if (strncmp(*ret_path, d->kubelet_dir, len) != 0 || (*ret_path)[len] != '/')
		return rpc_fail(call, RPC_INVALID_ARGUMENT,
			"%s: '%.200s' is not below the kubelet's directory '%s' (--kubelet-dir)", field,
			target, d->kubelet_dir);
	return RPC_OK;
}

/* Opens the parent of path; *ret_name is its last part. -errno. */
static int open_parent(const struct driver *d, const char *path, const char **ret_name)
{
	const char *below = path + strlen(d->kubelet_dir) + 1, *slash = strrchr(below, '/');
	struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
	char parent[PATH_MAX];
	int fd;

	*ret_name = slash ? slash + 1 : below;
	if (!slash) {
		fd = fcntl(d->kubelet_fd, F_DUPFD_CLOEXEC, 0);
		return fd < 0 ? -errno : fd;
	}
	memcpy(parent, below, (size_t)(slash - below));
	parent[slash - below] = '\0';
	fd = (int)syscall(SYS_openat2, d->kubelet_fd, parent, &how, sizeof(how));
	return fd < 0 ? -errno : fd;
}

static enum rpc_code fail_parent(struct rpc_call *call, const char *path, int rc)
{
	if (rc == -ELOOP)
		return rpc_fail(call, RPC_INVALID_ARGUMENT,
			"target_path: '%.200s': a symbolic link is on the way", path);
	if (rc == -ENOENT || rc == -ENOTDIR || rc == -EXDEV)
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "target_path: '%.200s': its parent: %s", path,
			strerror(-rc));
	return rpc_fail(call, RPC_INTERNAL, "target_path: '%.200s': %s", path, strerror(-rc));
}

enum rpc_code target_make(struct rpc_call *call, const struct driver *d, const char *path)
{
	const char *name;
	wd_autoclose int parent = open_parent(d, path, &name);
	struct stat st;

	if (parent < 0)
		return fail_parent(call, path, parent);
	if (mkdirat(parent, name, 0750) == 0)
		return RPC_OK;
	if (errno != EEXIST)
		return rpc_fail(call, RPC_INTERNAL, "make '%.200s': %s", path, strerror(errno));
	/* nothing of ours is mounted here: the caller has looked */
	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
		return rpc_fail(call, RPC_INTERNAL, "target_path: '%.200s': %s", path, strerror(errno));
	if (S_ISLNK(st.st_mode))
		return fail_parent(call, path, -ELOOP);
	if (!S_ISDIR(st.st_mode))
		return rpc_fail(call, RPC_INVALID_ARGUMENT,
			"target_path: '%.200s' exists and is not a directory", path);
	return RPC_OK;
}

enum rpc_code target_remove(struct rpc_call *call, const struct driver *d, const char *path)
{
	const char *name;
	wd_autoclose int parent = open_parent(d, path, &name);

	if (parent == -ENOENT || parent == -ENOTDIR)
		return RPC_OK;
	if (parent < 0)
		return fail_parent(call, path, parent);
	if (unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
		return RPC_OK;
	return rpc_fail(call, RPC_INTERNAL, "remove '%.200s': %s", path, strerror(errno));
}

enum rpc_code target_look(struct rpc_call *call, const char *path, enum target_state *ret_state)
{
	struct mountinfo info;
	struct wd_err err = WD_ERR_INIT;
	int rc = mountinfo_find(path, &info, &err);

	if (rc < 0)
		return rpc_fail(call, RPC_INTERNAL, "%s", err.msg);
	*ret_state = rc == 0				? TARGET_FREE
		     : strcmp(info.type, FS_TYPE) == 0 ? TARGET_OURS
						       : TARGET_FOREIGN;
	return RPC_OK;
}
