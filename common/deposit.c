/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A deposit on its way, and the lock that says who serves. No state, no threads.
 *
 * The lock on the tables is a record lock of fcntl(2), because that is the kind that the kernel
 * tells the owner of (F_GETLK), and that ends with a process whatever descriptors it has handed
 * out. So "is there a server, and which" needs no word from the server.
 */
#include "common/deposit.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

void wd_deposit_init(struct wd_deposit *d)
{
	*d = (struct wd_deposit){0};
	for (int i = 0; i < WD_DEPOSIT_FDS; i++)
		d->fds[i] = -1;
}

void wd_deposit_release(struct wd_deposit *d)
{
	for (int i = 0; i < WD_DEPOSIT_FDS; i++)
		if (d->fds[i] >= 0)
			close(d->fds[i]);
	free(d->target);
	free(d->dataset);
	wd_deposit_init(d);
}

void wd_deposit_write(struct wd_msg *m, uint16_t type, const struct wd_deposit *d)
{
	wd_msg_start(m, type, d->mount);
	wd_put_u64(m, d->mount);
	wd_put_str(m, d->target);
	wd_put_str(m, d->dataset);
	wd_put_u32(m, d->flags);
	wd_put_u32(m, d->major);
	wd_put_u32(m, d->minor);
	for (int i = 0; i < WD_DEPOSIT_FDS; i++)
		wd_put_fd(m, d->fds[i]);
}

int wd_deposit_read(struct wd_msg *m, struct wd_deposit *ret_d)
{
	char target[PATH_MAX], dataset[WD_DATASET_MAX];
	struct wd_rd r = wd_rd_start(m);
	struct wd_deposit d;

	wd_deposit_init(&d);
	d.mount = wd_rd_u64(&r);
	wd_rd_str(&r, target, sizeof(target));
	wd_rd_str(&r, dataset, sizeof(dataset));
	d.flags = wd_rd_u32(&r);
	d.major = wd_rd_u32(&r);
	d.minor = wd_rd_u32(&r);
	if (!wd_rd_done(&r) || m->nfds != WD_DEPOSIT_FDS || d.mount == 0 || target[0] != '/')
		return -EPROTO;
	d.target = strdup(target);
	d.dataset = strdup(dataset);
	if (!d.target || !d.dataset) {
		wd_deposit_release(&d);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < WD_DEPOSIT_FDS; i++)
		d.fds[i] = wd_msg_take_fd(m, i);
	*ret_d = d;
	return 0;
}

/* ---- who serves ---- */

int wd_deposit_server(int tables_fd)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};

	if (fcntl(tables_fd, F_GETLK, &lock) < 0 || lock.l_type == F_UNLCK)
		return 0;
	return lock.l_pid > 0 ? lock.l_pid : -1;
}

int wd_deposit_serve(int tables_fd)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};

	if (fcntl(tables_fd, F_SETLK, &lock) == 0)
		return 0;
	return errno == EACCES ? -EAGAIN : -errno;
}

/* ---- the description ---- */

int wd_description_make(const void *data, size_t len, struct wd_err *err)
{
	wd_autoclose int fd = memfd_create(
		"warpdrive-description", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
	ssize_t n;

	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create("warpdrive-description", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return wd_err_sys(err, errno, "make a memfd for the description");
	n = pwrite(fd, data, len, 0);
	if (n != (ssize_t)len || fcntl(fd, F_ADD_SEALS, SEALS) < 0)
		return wd_err_sys(err, n < 0 ? errno : ENOMEM, "write the description");
	return wd_steal_fd(&fd);
}

int wd_description_read(int fd, unsigned char **ret_data, size_t *ret_len, struct wd_err *err)
{
	int seals = fcntl(fd, F_GET_SEALS);
	unsigned char *data;
	struct stat st;
	size_t len;

	if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st) < 0 ||
		st.st_size > WD_DESCRIPTION_MAX)
		return wd_err_set(err, EPROTO, "the description is no sealed memfd of at most %d bytes",
			WD_DESCRIPTION_MAX);
	len = (size_t)st.st_size;
	data = calloc(1, len + 1);
	if (!data)
		return wd_err_set(err, ENOMEM, "out of memory for a description");
	if (pread(fd, data, len, 0) != (ssize_t)len) {
		free(data);
		return wd_err_set(err, EIO, "the description cannot be read");
	}
	*ret_data = data;
	*ret_len = len;
	return 0;
}
