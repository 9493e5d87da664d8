/* SPDX-License-Identifier: Apache-2.0 */
/*
 * <run dir>/mounts/<id>: one file per mount with the line "MAJOR:MINOR TARGET". The open file
 * description that made it has it locked (flock), and copies of that description travel with the
 * deposit. So a record that can be locked is of a mount that nobody holds any more: its connection
 * is dead, or in the hands of a server that nobody looks after. That is known without a look at
 * the mount itself, which might hang, and it tells one's own mounts from those of others.
 *
 * Such a mount is unmounted unless it is busy. A busy one is never detached: whoever has files open
 * there would go on in a mount that nobody sees. It is tried again.
 */
#include "fuse/keeper.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/mountinfo.h"
#include "fuse/keeper_kernel.h"

#define DIRECTORY "mounts"

static int open_directory(const struct keeper *k)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/" DIRECTORY, k->run_dir);
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return -errno;
	return open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static void name_of(uint64_t id, char out[32])
{
	snprintf(out, 32, "%016llx", (unsigned long long)id);
}

int record_make(const struct keeper *k, const struct mount *m, struct wd_err *err)
{
	wd_autoclose int dir = open_directory(k);
	wd_autoclose int fd = -1;
	char name[32], line[PATH_MAX + 64];
	int len = snprintf(line, sizeof(line), "%u:%u %s", m->major, m->minor, m->target);

	name_of(m->id, name);
	if (dir >= 0)
		fd = openat(dir, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 || ftruncate(fd, 0) < 0 ||
		pwrite(fd, line, (size_t)len, 0) != len)
		return wd_err_sys(err, errno ? errno : EIO, "write '%s/" DIRECTORY "/%s'",
			k->run_dir, name);
	return wd_steal_fd(&fd);
}

bool record_is(const struct keeper *k, const struct mount *m, int fd)
{
	wd_autoclose int dir = open_directory(k);
	struct stat st, own;
	char name[32];

	name_of(m->id, name);
	return dir >= 0 && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       fstat(fd, &own) == 0 && st.st_dev == own.st_dev && st.st_ino == own.st_ino;
}

void record_remove(const struct keeper *k, const struct mount *m)
{
	wd_autoclose int dir = m->record_fd >= 0 ? open_directory(k) : -1;
	char name[32];

	name_of(m->id, name);
	if (dir >= 0)
		unlinkat(dir, name, 0);
}

/* ---- the dead ---- */

struct record {
	unsigned major, minor;
	char target[PATH_MAX];
};

/* Reads a record. -EBUSY when somebody holds it; otherwise it is locked as long as *ret_fd is open.
 * -EPROTO when it says nothing. */
static int read_record(int dir, const char *name, struct record *ret_record, int *ret_fd)
{
	wd_autoclose int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	bool is_held = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0;
	char line[PATH_MAX + 64];
	ssize_t n = fd >= 0 ? pread(fd, line, sizeof(line) - 1, 0) : -1;
	int at = 0;

	if (fd < 0)
		return -errno;
	line[n > 0 ? n : 0] = '\0';
	if (sscanf(line, "%u:%u %n", &ret_record->major, &ret_record->minor, &at) < 2 || at == 0 ||
		line[at] != '/')
		return is_held ? -EBUSY : -EPROTO;
	snprintf(ret_record->target, sizeof(ret_record->target), "%s", line + at);
	if (is_held)
		return -EBUSY;
	*ret_fd = wd_steal_fd(&fd);
	return 0;
}

/* Device numbers are used again: a record that was left may name the device of a later mount. */
static bool is_device_held(
	const struct keeper *k, int dir, const char *own_name, const struct record *dead)
{
	/* opened anew: a duplicate would share the position of who is reading the directory */
	int again = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = again >= 0 ? fdopendir(again) : NULL;
	bool is_held = false;
	struct dirent *e;

	for (const struct mount *m = k->mounts; m; m = m->next)
		is_held |= m->major == dead->major && m->minor == dead->minor;
	if (!d) {
		if (again >= 0)
			close(again);
		return true;
	}
	while (!is_held && (e = readdir(d))) {
		struct record r = {.major = 0};
		int fd = -1;

		if (e->d_name[0] == '.' || strcmp(e->d_name, own_name) == 0)
			continue;
		if (read_record(dir, e->d_name, &r, &fd) == -EBUSY)
			is_held = r.major == dead->major && r.minor == dead->minor;
		if (fd >= 0)
			close(fd);
	}
	closedir(d);
	return is_held;
}

/* True when the record is no longer needed. */
static bool clean_up(struct keeper *k, int dir, const char *name, const struct record *r)
{
	struct wd_err err = WD_ERR_INIT;
	struct mountinfo info;
	int rc = mountinfo_find(r->target, &info, &err);

	if (rc < 0)
		return false;
	if (rc == 0 || info.major != r->major || info.minor != r->minor ||
		strcmp(info.type, "fuse.warpdrive") != 0)
		return !mountinfo_has(r->major, r->minor);
	if (is_device_held(k, dir, name, r))
		return true;
	rc = kernel_umount(r->target, r->major, r->minor, &err);
	if (rc == 0)
		wd_warn("the mount on '%s' was lost with its last holder; it is unmounted", r->target);
	else
		wd_debug("clean up a lost mount: %s", err.msg);
	return rc == 0 || rc == -EINVAL;
}

bool records_sweep(struct keeper *k)
{
	int dir = open_directory(k);
	DIR *d = dir >= 0 ? fdopendir(dir) : NULL;
	bool is_left = false;
	struct dirent *e;

	if (!d) {
		if (dir >= 0)
			close(dir);
		return false;
	}
	while ((e = readdir(d))) {
		wd_autoclose int fd = -1;
		struct record r;
		char *end;
		uint64_t id = strtoull(e->d_name, &end, 16);
		int rc;

		if (e->d_name[0] == '.' || *end || mount_by_id(k, id))
			continue;
		rc = read_record(dir, e->d_name, &r, &fd);
		if (rc == -EPROTO || (rc == 0 && clean_up(k, dir, e->d_name, &r)))
			unlinkat(dir, e->d_name, 0);
		else
			is_left = true;
	}
	closedir(d);
	return is_left;
}
