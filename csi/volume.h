/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_CSI_VOLUME_H
#define WD_CSI_VOLUME_H
/*
 * What a request says of a volume, checked and translated: ids, capabilities, the volume context
 * and the secrets. Everything is the user's or a stranger's; errors name the field. Pure.
 */
#include "csi/csi.pb-c.h"
#include "common/rpc.h"

#define VOLUME_ID_MAX 128 /* bytes, as published for ids */

/* All maps of strings look alike in the generated code: this is any of their entries. */
struct map_entry {
	ProtobufCMessage base;
	char *key, *value;
};
struct map {
	size_t n;
	struct map_entry *const *entries;
};
#define MAP(message, field)                                                                        \
	((struct map){(message)->n_##field, (struct map_entry *const *)(void *)(message)->field})
/* The value of key, or NULL. */
const char *map_get(struct map m, const char *key);

/* RPC_OK, or what rpc_fail() returned. */
enum rpc_code volume_check_id(struct rpc_call *call, const char *field, const char *id);
enum rpc_code volume_check_capability(
	struct rpc_call *call, const Csi__V1__VolumeCapability *capability);
/* Checks keys and values without a mount. */
enum rpc_code volume_check_context(struct rpc_call *call, const char *field, struct map context);
/* The same of a class's parameters, which know more words. */
enum rpc_code volume_check_parameters(struct rpc_call *call, struct map parameters);
/* True for the words that a volume context may hold. */
bool volume_is_of_node(const char *key);
/* Of a context or parameters: mode scratch, and not dataset. */
bool volume_is_scratch(struct map words);
/* Whether a volume of that mode can be used as the capability (checked already) says. */
enum rpc_code volume_check_mode(
	struct rpc_call *call, bool is_scratch, const Csi__V1__VolumeCapability *capability);

struct volume_mount {
	const char *target;
	struct map context, secrets;
	const Csi__V1__VolumeCapability *capability;
};
/* Does the request bring any? A volume without has nothing to renew. */
bool volume_has_credentials(const struct volume_mount *v);
/* The description that travels to the agent (JSON; agent/mount_options.h). It holds secrets: it lives
 * in the call's arena, which is wiped. */
enum rpc_code volume_describe(struct rpc_call *call, const struct volume_mount *v,
	const char **ret_description);

#endif
