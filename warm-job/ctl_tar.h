/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_TAR_H
#define WD_WARM_JOB_CTL_TAR_H
/*
 * Writes a POSIX ustar archive, uncompressed: sixty lines instead of a library or of a tar(1) that
 * the agent's image does not have. What goes in is small; gzip it where size matters.
 */
#include <stddef.h>

#include "common/err.h"

/* Makes the file, which must not exist, with mode 0600. Returns its descriptor, or -errno. */
int ctl_tar_create(const char *path, struct wd_err *err);
/* Adds a member of mode 0600; name has at most 99 bytes. */
int ctl_tar_add(int fd, const char *name, const void *data, size_t len, struct wd_err *err);
/* Writes the end, syncs and closes; fd is closed on failure, too. */
int ctl_tar_finish(int fd, struct wd_err *err);

#endif
