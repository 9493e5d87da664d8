/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_CSI_TARGET_H
#define WD_CSI_TARGET_H
/*
 * Target paths: what the kubelet wants a volume to appear at. They come from outside, so they are
 * taken only below the kubelet's directory and never through a symbolic link; and what is mounted
 * at one may be our own mount with nobody behind it, so the last part is never opened or stat'ed.
 */
#include "csi/driver.h"

/* Checks the form and the place. *ret_path gets the path that keeper and kernel know it by, in the
 * call's arena. RPC_OK or what rpc_fail() returned. */
enum rpc_code target_check(struct rpc_call *call, const struct driver *d, const char *field,
	const char *target, const char **ret_path);
/* Makes the directory unless it is there; its parent must be. */
enum rpc_code target_make(struct rpc_call *call, const struct driver *d, const char *path);
/* Removes the empty directory; fine when nothing is there. Only when nothing is mounted on it. */
enum rpc_code target_remove(struct rpc_call *call, const struct driver *d, const char *path);

enum target_state { TARGET_FREE, TARGET_OURS, TARGET_FOREIGN };
/* What is mounted at path, from the kernel's list. */
enum rpc_code target_look(struct rpc_call *call, const char *path, enum target_state *ret_state);

#endif
