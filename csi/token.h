/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_CSI_TOKEN_H
#define WD_CSI_TOKEN_H
/*
 * The pod's service-account tokens, as the kubelet brings them with a publish (tokenRequests of the CSIDriver): in
 * the volume context, or in the secrets where the cluster can. Pure.
 */
#include <jansson.h>

#include "csi/volume.h"

#define TOKENS_KEY "csi.storage.k8s.io/serviceAccount.tokens"

/* The request's tokens; NULL when it has none. */
const char *token_find(const struct volume_mount *v);
/* Adds to credentials what the mount's options (authentication-source, audience) ask for: the token of that audience,
 * when it ends and whose it is; nothing where the source is not the pod. Errors name what is missing, and never hold
 * a token. */
enum rpc_code token_add(struct rpc_call *call, const struct volume_mount *v, const char *url, json_t *options,
	json_t *credentials);

#endif
