/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_CONTROL_CLIENT_H
#define WD_COMMON_CONTROL_CLIENT_H
/*
 * The caller's side of a mount's control file (common/control.h): what a program in a pod needs that sees
 * nothing of WarpDrive but a volume.
 *
 *	char below[PATH_MAX];
 *	int fd = wd_control_open("/data/train", below, &err);	(below is "train")
 *	rc = wd_control_call(fd, "StartWarm", request, len, response, &response_len, &err);
 *
 * No threads and no state: a descriptor may be used by several threads at once, and closed with close(2).
 */
#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#include "common/control.h"
#include "common/err.h"

/*
 * Opens the control file of the mount that path lies in; path may be its root, or any file or directory below, and
 * is followed if it is a symbolic link. ret_below (PATH_MAX bytes) is what the API calls path: relative to the
 * mount's root, "" for the root itself. Returns the descriptor, or
 *   -ENODEV      path is on no mount of WarpDrive
 *   -EXDEV       only a directory of the volume is mounted here (subPath), and its root is nowhere to be seen
 *   -EOPNOTSUPP  the volume is served by a release that has no control file
 *   -errno       as of the file system: there is no such path, it may not be looked into
 * Touches the mount that path lies in, and no other.
 */
int wd_control_open(const char *path, char *ret_below, struct wd_err *err);

/*
 * Calls a method of common/control.proto with len bytes (<= WD_CONTROL_DATA_MAX) of request. ret_response has room
 * for WD_CONTROL_DATA_MAX bytes; it may be the request's own memory. Waits as long as the agent takes, also while
 * it is restarted; a signal with a handler ends that with -EINTR, whether or not the agent did what was asked.
 * Returns 0; the status of the agent's error, with its text; or
 *   -EINTR       see above
 *   -EBUSY       more calls through this mount than it takes at once are waiting: try again later
 *   -EOPNOTSUPP  server or agent are of a release that does not know calls, or not of this size
 *   -E2BIG       the request is longer than a frame
 *   -errno       the mount is gone (ENOTCONN), or an answer makes no sense (EPROTO)
 */
int wd_control_call(int fd, const char *method, const void *request, size_t len, void *ret_response,
	size_t *ret_len, struct wd_err *err);

#endif
