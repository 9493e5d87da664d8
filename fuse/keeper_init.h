/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_FUSE_KEEPER_INIT_H
#define WD_FUSE_KEEPER_INIT_H
/*
 * The answer to the kernel's INIT request. Pure: bytes in, bytes out.
 */
#include "common/err.h"
#include "common/mountmem.h"

/* Fills ret_info's init, init_len, reply, reply_len and has_resend from the request of len bytes.
 * mount_flags (enum wd_mount_flag) says whether passthrough may be granted. Everything that the
 * kernel does not offer is left out: an older one serves with less. */
int init_answer(const void *request, size_t len, uint32_t mount_flags, struct wd_mm_info *ret_info,
	struct wd_err *err);

#endif
