/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_CSI_KEEPER_H
#define WD_CSI_KEEPER_H
/*
 * Questions to keeper and agent. Both may be away, being restarted or upgraded: a question waits
 * for them (their sockets appear in the run directory) until shortly before the call's deadline, and
 * ends at once when the caller goes. Blocks the worker it runs on; one connection per question.
 */
#include "csi/driver.h"

/* Mounts; description is what volume_describe() made. */
enum rpc_code keeper_mount(
	struct rpc_call *call, const struct driver *d, const char *target, const char *description);
/* Takes the description's credentials over for the mount that stands on target. Waits some seconds at most, and for
 * nobody who is away: the kubelet asks again soon. -errno with a reason; the mount goes on as before then. */
int keeper_renew(struct rpc_call *call, const struct driver *d, const char *target, const char *description,
	struct wd_err *err);
/* Unmounts. RPC_OK too when the keeper knows no such mount. */
enum rpc_code keeper_umount(struct rpc_call *call, const struct driver *d, const char *target);

struct keeper_stats {
	bool is_served;	      /* the keeper knows the mount and its server runs */
	const char *trouble;  /* "part: why; ..." for a person; NULL: none. In the call's arena */
	uint64_t bytes, objects; /* of the dataset, as far as it is known */
};
/* Never waits for anybody who is away: that is the answer. */
void keeper_look(struct rpc_call *call, const struct driver *d, const char *target,
	struct keeper_stats *ret_stats);

#endif
