/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_CSI_VOLUME_ID_H
#define WD_CSI_VOLUME_ID_H
/*
 * Ids of provisioned volumes. They say all that the controller needs to know, so that it keeps
 * no state and any replica may answer:
 *
 *	wd-<d|s>-<16 hexadecimal digits>-<name>
 *
 * d: dataset, s: scratch; the digits are a digest of the volume context; a name that is too long ends in a
 * hash of all of it. Equal names and contexts have equal ids. Pure; any thread.
 */
#include "csi/volume.h"

struct volume_id {
	bool is_scratch;
	uint64_t digest;
};

/* In the call's arena; NULL without memory. name has passed volume_check_id(). */
const char *volume_id_make(struct rpc_call *call, const char *name, struct map context);
/* False when it is no id of ours. */
bool volume_id_parse(const char *text, struct volume_id *ret_id);
/* Of a context as it was made or as it comes back from Kubernetes, which adds keys of its own. The order of the
 * entries does not matter. */
uint64_t volume_id_digest(struct map context);

#endif
