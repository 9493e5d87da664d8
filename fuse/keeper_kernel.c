/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls of the keeper, each with a text for the person who asked.
 *
 * A path that leads into one of our own mounts must never be resolved here: the lookup would wait
 * for a server that only this thread can start. kernel_open_target() is called after the caller has
 * compared the target with its mounts, and everything later goes by fd or by mountinfo.
 */
#include "fuse/keeper_kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/mountinfo.h"
#include "common/proto.h"
#include "fuse/fuse_abi.h"
#include "fuse/keeper_init.h"

#define FUSE_CTL_MAGIC 0x65735543
#define INIT_TIMEOUT_MS 10000 /* INIT is queued by mount(2); this bounds a broken kernel */

/* Absolute, no "//", "/./", "/../" or final slash: then it can be compared with mountinfo. */
static bool is_canonical(const char *path)
{
	if (path[0] != '/' || path[1] == '\0' || strlen(path) >= PATH_MAX)
		return false;
	for (const char *p = path; *p;) {
		size_t len = strcspn(p + 1, "/");

		if (len == 0 || (len == 1 && p[1] == '.') ||
			(len == 2 && p[1] == '.' && p[2] == '.'))
			return false;
		p += 1 + len;
	}
	return true;
}

/* open(2) that follows no symbolic link anywhere on the way. */
static int open_no_symlinks(const char *path)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS};
	long fd = syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));

	if (fd < 0 && errno == ENOSYS) /* before Linux 5.6 */
		fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	return (int)fd;
}

int kernel_open_target(const char *target, struct wd_err *err)
{
	wd_autoclose int fd = -1;
	struct mountinfo info;
	struct stat st;
	int rc;

	if (!is_canonical(target))
		return wd_err_set(err, EINVAL,
			"mount on '%s': the path must be absolute, below '/' and without '//', "
			"'.', "
			"'..' or a final slash",
			target);
	rc = mountinfo_find(target, &info, err);
	if (rc < 0)
		return rc;
	if (rc > 0)
		return wd_err_set(err, EBUSY,
			"mount on '%s': a file system (%s) is mounted there already", target,
			info.type);
	fd = open_no_symlinks(target);
	if (fd < 0 && errno == ENOENT)
		return wd_err_set(
			err, ENOENT, "mount on '%s': no such directory; create it first", target);
	if (fd < 0 && errno == ELOOP)
		return wd_err_set(err, ELOOP,
			"mount on '%s': a symbolic link is on the way; give the "
			"path that 'readlink -f' prints",
			target);
	if (fd < 0)
		return wd_err_sys(err, errno, "mount on '%s'", target);
	if (fstat(fd, &st) < 0 || !S_ISDIR(st.st_mode))
		return wd_err_set(err, ENOTDIR, "mount on '%s': it is not a directory", target);
	return wd_steal_fd(&fd);
}

int kernel_open_fuse(struct wd_err *err)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
		return wd_err_set(err, errno,
			"fuse is not available: /dev/fuse: %s: load the module with 'modprobe "
			"fuse'",
			strerror(errno));
	return wd_err_sys(err, errno, "fuse is not available: open /dev/fuse");
}

int kernel_mount(int fuse_fd, int target_fd, const char *target, const char *dataset,
	uint32_t mount_flags, struct wd_err *err)
{
	unsigned long flags = MS_NOSUID | MS_NODEV;
	char options[128], path[64];

	if (mount_flags & WD_MOUNT_READ_ONLY)
		flags |= MS_RDONLY;
	snprintf(options, sizeof(options),
		"fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
		fuse_fd);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", target_fd);
	if (mount(dataset, path, "fuse.warpdrive", flags, options) == 0)
		return 0;
	if (errno == ENODEV)
		return wd_err_set(err, errno,
			"mount on '%s': the kernel has no fuse: load the module with 'modprobe "
			"fuse'",
			target);
	if (errno == EPERM)
		return wd_err_set(err, errno,
			"mount on '%s': not permitted; run the keeper as root "
			"with CAP_SYS_ADMIN",
			target);
	return wd_err_sys(err, errno, "mount '%s' on '%s'", dataset, target);
}

int kernel_init(int fuse_fd, uint32_t mount_flags, struct wd_mm_info *ret_info, struct wd_err *err)
{
	struct pollfd pfd = {.fd = fuse_fd, .events = POLLIN};
	unsigned char request[WD_MM_SLOT_MIN];
	struct wd_mm_info info = *ret_info;
	ssize_t n;
	int rc;

	do
		rc = poll(&pfd, 1, INIT_TIMEOUT_MS);
	while (rc < 0 && errno == EINTR);
	if (rc <= 0 || !(pfd.revents & POLLIN))
		return wd_err_set(err, ETIMEDOUT, "the kernel sent no INIT on /dev/fuse");
	n = read(fuse_fd, request, sizeof(request));
	if (n < 0)
		return wd_err_sys(err, errno, "read INIT from /dev/fuse");
	rc = init_answer(request, (size_t)n, mount_flags, &info, err);
	if (rc < 0)
		return rc;
	if (write(fuse_fd, info.reply, info.reply_len) < 0)
		return wd_err_sys(err, errno, "answer INIT on /dev/fuse");
	*ret_info = info;
	return 0;
}

int kernel_device(const char *target, unsigned *ret_major, unsigned *ret_minor, struct wd_err *err)
{
	struct mountinfo info;
	int rc = mountinfo_find(target, &info, err);

	if (rc < 0)
		return rc;
	if (rc == 0 || strncmp(info.type, "fuse", 4) != 0)
		return wd_err_set(
			err, ENOENT, "mount on '%s': it is not in /proc/self/mountinfo", target);
	*ret_major = info.major;
	*ret_minor = info.minor;
	return 0;
}

static int write_text(const char *path, const char *text, struct wd_err *err)
{
	wd_autoclose int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return wd_err_sys(err, errno, "open '%s'", path);
	if (write(fd, text, strlen(text)) < 0)
		return wd_err_sys(err, errno, "write '%s' to '%s'", text, path);
	return 0;
}

int kernel_set_read_ahead(unsigned major, unsigned minor, int64_t bytes, struct wd_err *err)
{
	char path[96], text[32];

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major, minor);
	snprintf(text, sizeof(text), "%lld", (long long)(bytes / 1024));
	return write_text(path, text, err);
}

int kernel_umount(const char *target, unsigned major, unsigned minor, struct wd_err *err)
{
	struct mountinfo info;
	int rc = mountinfo_find(target, &info, err);

	if (rc < 0)
		return rc;
	if (rc == 0)
		return wd_err_set(err, EINVAL, "umount '%s': it is not mounted", target);
	if (info.major != major || info.minor != minor)
		return wd_err_set(err, EBUSY,
			"umount '%s': a file system (%s) is mounted over it; unmount that one "
			"first",
			target, info.type);
	if (umount2(target, UMOUNT_NOFOLLOW) == 0)
		return 0;
	if (errno == EBUSY)
		return wd_err_set(err, EBUSY,
			"umount '%s': it is busy: a process uses it (try 'fuser -vm %s')", target,
			target);
	return wd_err_sys(err, errno, "umount '%s'", target);
}

bool kernel_is_disconnected(int fuse_fd)
{
	struct pollfd pfd = {.fd = fuse_fd, .events = POLLIN};

	return poll(&pfd, 1, 0) > 0 && (pfd.revents & (POLLERR | POLLHUP | POLLNVAL));
}

/* The directory of all connections, also where nobody mounted it: as a mount that is in no place.
 * Linux 5.2. */
static int open_connections(void)
{
	int fs = open("/sys/fs/fuse/connections", O_PATH | O_DIRECTORY | O_CLOEXEC), dir = -1;
	struct statfs st;

	if (fs >= 0 && fstatfs(fs, &st) == 0 && st.f_type == FUSE_CTL_MAGIC)
		return fs;
	if (fs >= 0)
		close(fs);
	fs = (int)syscall(SYS_fsopen, "fusectl", FSOPEN_CLOEXEC);
	if (fs < 0)
		return -errno;
	if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
		dir = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, 0);
	if (dir < 0)
		dir = -errno;
	close(fs);
	return dir;
}

int kernel_abort(unsigned major, unsigned minor, struct wd_err *err)
{
	wd_autoclose int dir = open_connections();
	wd_autoclose int fd = -1;
	char name[32];

	if (dir < 0)
		return wd_err_sys(err, -dir, "open fusectl");
	/* the kernel names a connection by its device number as one word */
	snprintf(name, sizeof(name), "%u/abort", (major << 20) | minor);
	fd = openat(dir, name, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "1", 1) < 0)
		return wd_err_sys(err, errno, "abort connection %u:%u", major, minor);
	return 0;
}

int kernel_backing_open(int fuse_fd, int fd, struct wd_err *err)
{
	struct abi_backing_map map = {.fd = fd};
	struct stat st;
	int id;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return wd_err_set(err, EINVAL, "register for passthrough: not a regular file");
	if ((fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY)
		return wd_err_set(err, EINVAL, "register for passthrough: not open for reading");
	id = ioctl(fuse_fd, ABI_IOC_BACKING_OPEN, &map);
	if (id <= 0)
		return wd_err_sys(err, id < 0 ? errno : EPROTO, "register for passthrough");
	return id;
}

int kernel_backing_close(int fuse_fd, uint32_t backing_id, struct wd_err *err)
{
	if (ioctl(fuse_fd, ABI_IOC_BACKING_CLOSE, &backing_id) < 0)
		return wd_err_sys(err, errno, "close backing id %u", backing_id);
	return 0;
}
