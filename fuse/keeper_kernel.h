/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_FUSE_KEEPER_KERNEL_H
#define WD_FUSE_KEEPER_KERNEL_H
/*
 * The keeper's privileged dealings with the kernel: mount(2), umount2(2), /dev/fuse and its ioctls,
 * sysfs. Plain functions without state; none waits for a server.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/mountmem.h"

/* Opens target to mount on: absolute, in canonical form, an existing directory that is no mount
 * point. Returns an O_PATH fd. */
int kernel_open_target(const char *target, struct wd_err *err);
/* Opens /dev/fuse; the error says what to do when the kernel has no FUSE. */
int kernel_open_fuse(struct wd_err *err);
/* Mounts fuse_fd on target_fd (from kernel_open_target), named dataset in /proc/mounts. */
int kernel_mount(int fuse_fd, int target_fd, const char *target, const char *dataset,
	uint32_t mount_flags, struct wd_err *err);
/* Reads INIT, answers it and fills ret_info. */
int kernel_init(int fuse_fd, uint32_t mount_flags, struct wd_mm_info *ret_info, struct wd_err *err);
/* Finds the device number of the mount on target. */
int kernel_device(const char *target, unsigned *ret_major, unsigned *ret_minor, struct wd_err *err);
/* Writes the read-ahead of the mounted file system; a failure is the caller's to log. */
int kernel_set_read_ahead(unsigned major, unsigned minor, int64_t bytes, struct wd_err *err);
/* Unmounts target if the device on top of it is major:minor. -EBUSY while a process uses it,
 * -EINVAL when it is not mounted there (any more). */
int kernel_umount(const char *target, unsigned major, unsigned minor, struct wd_err *err);
/* True when the file system behind fuse_fd is gone or its connection was aborted. */
bool kernel_is_disconnected(int fuse_fd);
/* Ends the connection of device major:minor: all who wait in it get an error. */
int kernel_abort(unsigned major, unsigned minor, struct wd_err *err);
/* Registers fd, which must be a regular file; returns the backing id or -errno. */
int kernel_backing_open(int fuse_fd, int fd, struct wd_err *err);
int kernel_backing_close(int fuse_fd, uint32_t backing_id, struct wd_err *err);

#endif
