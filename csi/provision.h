/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_CSI_PROVISION_H
#define WD_CSI_PROVISION_H
/*
 * What a new volume is: from a class's parameters and the claim's annotations to the volume context
 * that the node gets. docs/provisioning.md is its manual for users. Pure; any thread.
 *
 *	mode dataset	url [+ subPath] [+ pathPattern]; the claim may name another place within allowedUrls
 *	mode scratch	url [+ subPath] + pathPattern, by default a prefix of the claim's own
 */
#include "csi/claim.h"
#include "csi/volume.h"

#define PROVISION_SCRATCH_PATTERN "${pvc.namespace}-${pvc.name}-${pvc.uid}"

/* claim: NULL when the request names none. *ret_context lives in the call's arena; its entries may be used
 * as those of a Volume. */
enum rpc_code provision(struct rpc_call *call, struct map parameters, const struct claim *claim,
	struct map *ret_context);

/* Replaces ${pvc.namespace}, ${pvc.name}, ${pvc.uid} and ${pvc.annotations['key']} by what stands in the claim,
 * none of which may reach beyond its place in the path. */
enum rpc_code provision_expand(struct rpc_call *call, const char *pattern, const struct claim *claim,
	const char **ret_path);

#endif
