/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_CSI_CLAIM_H
#define WD_CSI_CLAIM_H
/*
 * One question to the Kubernetes API: a PersistentVolumeClaim by name. CreateVolume's request says
 * which claim it is for (the provisioner's --extra-create-metadata), not what stands in it.
 */
#include "csi/kube_api.h"
#include "common/rpc.h"
#include "csi/volume.h"

struct claim {
	const char *namespace, *name, *uid;
	struct map annotations;
};

/* Asks; everything in *ret_claim lives in the call's arena. Ends with the call's deadline or its
 * caller. NOT_FOUND: there is no such claim. */
enum rpc_code claim_get(struct rpc_call *call, const struct kube *k, const char *namespace,
	const char *name, struct claim *ret_claim);

#endif
