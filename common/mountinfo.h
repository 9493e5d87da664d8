/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_MOUNTINFO_H
#define WD_COMMON_MOUNTINFO_H
/*
 * What the kernel says is mounted, read from /proc/self/mountinfo: nothing of ours touches a mount
 * point that may be its own, since the server behind it may be dead.
 */
#include <limits.h>
#include <stdbool.h>

#include "common/err.h"

struct mountinfo {
	unsigned major, minor; /* st_dev of the file system */
	char type[64];
	unsigned id;	     /* what statx calls stx_mnt_id */
	char root[PATH_MAX]; /* which directory of the file system is mounted; "/": all of it */
};

/* Parses one line. ret_target has room for PATH_MAX bytes and gets the mount point with \040 and
 * the like decoded. False for a line that makes no sense. */
bool mountinfo_parse(const char *line, struct mountinfo *ret_info, char *ret_target);
/* What is mounted by that line (a mount of ours: its URL), decoded into PATH_MAX bytes; false when it says nothing. */
bool mountinfo_source(const char *line, char *ret_source);
/* Finds what is on top at target: 1 and *ret_info when something is mounted there, else 0. */
int mountinfo_find(const char *target, struct mountinfo *ret_info, struct wd_err *err);
/* Finds the mount with that id: 1, *ret_info and ret_target (PATH_MAX bytes), else 0. */
int mountinfo_find_id(unsigned id, struct mountinfo *ret_info, char *ret_target, struct wd_err *err);
/* The same for a mount of all of the file system major:minor, wherever. */
int mountinfo_find_whole(unsigned major, unsigned minor, struct mountinfo *ret_info, char *ret_target,
	struct wd_err *err);
/* True when the file system major:minor is mounted anywhere in this mount namespace; also when
 * nothing can be read. */
bool mountinfo_has(unsigned major, unsigned minor);

#endif
