/* SPDX-License-Identifier: Apache-2.0 */
/* See ctl_tar.h. */
#include "warm-job/ctl_tar.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 512

/* As POSIX lays it out; all numbers are octal text. */
struct ustar {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type;
	char linkname[100], magic[6], version[2], owner[32], group[32], major[8], minor[8];
	char prefix[155], pad[12];
};
_Static_assert(sizeof(struct ustar) == BLOCK, "a tar header is one block");

static int write_all(int fd, const void *data, size_t len, struct wd_err *err)
{
	const char *p = data;

	while (len > 0) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return wd_err_sys(err, errno, "write the archive");
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int ctl_tar_create(const char *path, struct wd_err *err)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0 && errno == EEXIST)
		return wd_err_set(err, EEXIST, "'%s' exists: choose a new name", path);
	return fd < 0 ? wd_err_sys(err, errno, "make '%s'", path) : fd;
}

int ctl_tar_add(int fd, const char *name, const void *data, size_t len, struct wd_err *err)
{
	static const char zeros[BLOCK];
	struct ustar h = {.type = '0', .magic = "ustar", .version = {'0', '0'}};
	unsigned sum = 0;
	int r;

	if (strlen(name) >= sizeof(h.name))
		return wd_err_set(err, ENAMETOOLONG, "archive member '%s': name too long", name);
	snprintf(h.name, sizeof(h.name), "%s", name);
	snprintf(h.mode, sizeof(h.mode), "%07o", 0600);
	snprintf(h.uid, sizeof(h.uid), "%07o", 0);
	snprintf(h.gid, sizeof(h.gid), "%07o", 0);
	snprintf(h.size, sizeof(h.size), "%011llo", (unsigned long long)len & 077777777777ULL);
	snprintf(h.mtime, sizeof(h.mtime), "%011llo",
		(unsigned long long)time(NULL) & 077777777777ULL);
	/* the checksum counts its own field as blanks */
	memset(h.checksum, ' ', sizeof(h.checksum));
	for (size_t i = 0; i < sizeof(h); i++)
		sum += ((const unsigned char *)&h)[i];
	snprintf(h.checksum, sizeof(h.checksum), "%06o", sum & 0777777);
	r = write_all(fd, &h, sizeof(h), err);
	if (r == 0)
		r = write_all(fd, data, len, err);
	if (r == 0 && len % BLOCK)
		r = write_all(fd, zeros, BLOCK - len % BLOCK, err);
	return r;
}

int ctl_tar_finish(int fd, struct wd_err *err)
{
	static const char end[2 * BLOCK];
	int r = write_all(fd, end, sizeof(end), err);

	if (r == 0 && fsync(fd) < 0 && errno != EINVAL)
		r = wd_err_sys(err, errno, "write the archive");
	if (close(fd) < 0 && r == 0)
		r = wd_err_sys(err, errno, "write the archive");
	return r;
}
