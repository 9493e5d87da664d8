/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of the store: names, making, opening, removing. Everything is relative to the
 * descriptor of objects/; names are hex digits of ids, never text from outside.
 *
 * Files that no record knows of may lie around after a kill (their record was still in the batch)
 * or a lost metadata environment: making a file replaces them. No locks here; every call may block.
 */
#include "agent/store_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/log.h"

#define TMP_SWEEP_MAX 65536

int pwrite_all(int fd, const void *data, size_t len, uint64_t offset)
{
	const char *p = data;

	while (len > 0) {
		ssize_t n = pwrite(fd, p, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

int pread_all(int fd, void *data, size_t len, uint64_t offset)
{
	char *p = data;

	while (len > 0) {
		ssize_t n = pread(fd, p, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENODATA;
		p += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

void file_name(const struct object_id *id, const char *suffix, char out[FILE_NAME_MAX])
{
	char hex[33];

	object_id_format(id, hex);
	snprintf(out, FILE_NAME_MAX, "%.2s/%s%s", hex, hex, suffix);
}

static int make_dir(struct store *s, const char *name)
{
	char dir[3] = {name[0], name[1], '\0'};

	if (mkdirat(s->dir_fd, dir, 0700) == 0)
		atomic_fetch_add(&s->ndirs, 1);
	else if (errno != EEXIST)
		return -errno;
	return 0;
}

/* For tests: as if the file system were read-only. */
static bool is_read_only(void)
{
	return WD_FAULT("store.create");
}

static int open_name(struct store *s, const char *name, int flags)
{
	if ((flags & O_CREAT) && is_read_only())
		return -EROFS;

	int fd = openat(s->dir_fd, name, flags | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0 && errno == ENOENT && (flags & O_CREAT)) {
		int rc = make_dir(s, name);

		if (rc < 0)
			return rc;
		fd = openat(s->dir_fd, name, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
	}
	if (fd < 0 && errno == EEXIST && (flags & O_EXCL) && unlinkat(s->dir_fd, name, 0) == 0)
		fd = openat(s->dir_fd, name, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd < 0 ? -errno : fd;
}

int file_open(struct store *s, const struct object_id *id, const char *suffix, int flags)
{
	char name[FILE_NAME_MAX];

	file_name(id, suffix, name);
	return open_name(s, name, flags);
}

int file_create(struct store *s, const struct object *o, int *ret_data, int *ret_map)
{
	wd_autoclose int data = -1, map = -1;
	int rc;

	/* the map first: a map without its data is dropped when seen, data without a map is not */
	if (o->nblocks > 0) {
		map = file_open(s, &o->id, ".map", O_RDWR | O_CREAT | O_EXCL);
		if (map < 0)
			return map;
		rc = map_write_header(map, &o->id, o->size);
		if (rc == 0 && ftruncate(map, (off_t)map_bytes(o->nblocks)) < 0)
			rc = -errno;
		if (rc < 0)
			goto fail;
	}
	data = file_open(s, &o->id, "", O_RDWR | O_CREAT | O_EXCL);
	rc = data < 0 ? data : ftruncate(data, (off_t)o->size) < 0 ? -errno : 0;
	if (rc < 0)
		goto fail;
	*ret_data = wd_steal_fd(&data);
	*ret_map = wd_steal_fd(&map);
	return 0;
fail:
	(void)file_unlink(s, &o->id);
	return rc;
}

/* ---- whole small files: written aside, then given their name ---- */

static int link_unnamed(struct store *s, int fd, const char *name)
{
	char path[32];

	if (WD_FAULT("store.rename"))
		return -EIO;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, path, s->dir_fd, name, AT_SYMLINK_FOLLOW) == 0)
		return 0;
	if (errno != EEXIST)
		return -errno;
	if (unlinkat(s->dir_fd, name, 0) < 0 && errno != ENOENT)
		return -errno;
	return linkat(AT_FDCWD, path, s->dir_fd, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

/* -EOPNOTSUPP when the file system or a missing /proc does not let us: then by a name in tmp/. */
static int put_unnamed(struct store *s, const char *name, const void *data, size_t len)
{
	if (is_read_only())
		return -EROFS;

	char dir[3] = {name[0], name[1], '\0'};
	wd_autoclose int fd = openat(s->dir_fd, dir, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	int rc;

	if (fd < 0 && errno == ENOENT) {
		rc = make_dir(s, name);
		if (rc < 0)
			return rc;
		fd = openat(s->dir_fd, dir, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	}
	if (fd < 0)
		return errno == EISDIR || errno == EINVAL ? -EOPNOTSUPP : -errno;
	rc = WD_FAULT("store.pwrite") ? -EIO : pwrite_all(fd, data, len, 0);
	if (rc == 0)
		rc = link_unnamed(s, fd, name);
	return rc == -ENOENT || rc == -EXDEV || rc == -EPERM ? -EOPNOTSUPP : rc;
}

static int put_renamed(struct store *s, const char *name, const void *data, size_t len)
{
	wd_autoclose int fd = -1;
	char tmp[FILE_NAME_MAX];
	int rc = make_dir(s, name);

	if (rc < 0)
		return rc;
	snprintf(
		tmp, sizeof(tmp), "tmp/%llu", (unsigned long long)atomic_fetch_add(&s->tmp_seq, 1));
	fd = openat(s->dir_fd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	rc = WD_FAULT("store.pwrite") ? -EIO : pwrite_all(fd, data, len, 0);
	if (rc == 0)
		rc = WD_FAULT("store.rename")			     ? -EIO
		     : renameat(s->dir_fd, tmp, s->dir_fd, name) < 0 ? -errno
								     : 0;
	if (rc < 0)
		unlinkat(s->dir_fd, tmp, 0);
	return rc;
}

int file_put(struct store *s, const struct object *o, const void *data, size_t len)
{
	char name[FILE_NAME_MAX];

	file_name(&o->id, "", name);
	if (!atomic_load_explicit(&s->has_no_tmpfile, memory_order_relaxed)) {
		int rc = put_unnamed(s, name, data, len);

		if (rc != -EOPNOTSUPP)
			return rc;
		atomic_store(&s->has_no_tmpfile, true);
	}
	return put_renamed(s, name, data, len);
}

bool file_has_size(struct store *s, const struct object_id *id, uint64_t size)
{
	char name[FILE_NAME_MAX];
	struct stat st;

	file_name(id, "", name);
	return fstatat(s->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
	       (uint64_t)st.st_size == size;
}

int file_unlink(struct store *s, const struct object_id *id)
{
	char name[FILE_NAME_MAX];

	if (WD_FAULT("store.unlink"))
		return -EIO;
	file_name(id, "", name);
	if (unlinkat(s->dir_fd, name, 0) < 0 && errno != ENOENT)
		return -errno;
	/* a map that stays behind is dropped when it is seen, or replaced before there is data
	 * again */
	file_name(id, ".map", name);
	(void)unlinkat(s->dir_fd, name, 0);
	return 0;
}

int file_probe(struct store *s)
{
	static const char block[4096];

	if (is_read_only())
		return -EROFS;

	wd_autoclose int fd =
		openat(s->dir_fd, "tmp/probe", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int rc;

	if (fd < 0)
		return -errno;
	rc = WD_FAULT("store.pwrite") ? -EIO : pwrite_all(fd, block, sizeof(block), 0);
	if (rc == 0 && fdatasync(fd) < 0)
		rc = -errno;
	unlinkat(s->dir_fd, "tmp/probe", 0);
	return rc;
}

/* Files that a kill left in tmp/: only file systems without O_TMPFILE have any. */
static void sweep_tmp(int objects_fd)
{
	int fd = openat(objects_fd, "tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return;
	}
	for (int n = 0; n < TMP_SWEEP_MAX && (e = readdir(dir)) != NULL; n++)
		if (e->d_name[0] != '.')
			unlinkat(dirfd(dir), e->d_name, 0);
	closedir(dir);
}

int file_open_dir(struct store *s, struct wd_err *err)
{
	wd_autoclose int top = -1;
	struct stat st;

	if (mkdir(s->dir, 0700) < 0 && errno != EEXIST)
		return wd_err_sys(err, errno, "create cache directory '%s'", s->dir);
	top = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (top < 0)
		return wd_err_sys(err, errno, "open cache directory '%s'", s->dir);
	if (mkdirat(top, "objects", 0700) < 0 && errno != EEXIST)
		return wd_err_sys(err, errno, "create '%s/objects'", s->dir);
	s->dir_fd = openat(top, "objects", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (s->dir_fd < 0)
		return wd_err_sys(err, errno, "open '%s/objects'", s->dir);
	if (mkdirat(s->dir_fd, "tmp", 0700) < 0 && errno != EEXIST)
		return wd_err_sys(err, errno, "create '%s/objects/tmp'", s->dir);
	sweep_tmp(s->dir_fd);
	if (fstat(s->dir_fd, &st) == 0)
		s->dev = st.st_dev;
	if (s->dev && st.st_nlink > 2)
		atomic_store(&s->ndirs, st.st_nlink - 2);
	return 0;
}

int file_reattach(struct store *s)
{
	wd_autoclose int top = -1, fd = -1;
	struct stat st;

	if (mkdir(s->dir, 0700) < 0 && errno != EEXIST)
		return -errno;
	top = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (top < 0 || fstat(top, &st) < 0)
		return -errno;
	if (st.st_dev != s->dev)
		return -ENODEV; /* the disk is not mounted: what it is mounted on must not be filled */
	if (mkdirat(top, "objects", 0700) < 0 && errno != EEXIST)
		return -errno;
	fd = openat(top, "objects", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	if (mkdirat(fd, "tmp", 0700) < 0 && errno != EEXIST)
		return -errno;
	/* under the same number, which others are using */
	if (dup3(fd, s->dir_fd, O_CLOEXEC) < 0)
		return -errno;
	return file_probe(s);
}
