/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_PROBE_H
#define WD_WARM_JOB_CTL_PROBE_H
/*
 * Does a daemon stand behind a socket? A private daemon ends with its last mount, and a `mount`
 * that follows an `umount` closely may meet one that is on its way out: it is connected to, but
 * says nothing more.
 */
#include "common/err.h"

/*
 * 1: it answers; *ret_pidfd (the caller's to close) is readable when it ends, or -1 where its
 * process cannot be seen. 0: nobody is there; one that was ending is gone by now. -errno: something
 * is there that cannot be talked to, or does not come to its end.
 */
int ctl_probe(const char *socket_path, int *ret_pidfd, struct wd_err *err);

#endif
