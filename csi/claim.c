/* SPDX-License-Identifier: Apache-2.0 */
/* See claim.h. */
#include "csi/claim.h"

#include <stdio.h>
#include <string.h>

#define NAME_LEN_MAX 253

static bool copy_annotations(struct rpc_call *call, json_t *annotations, struct map *ret)
{
	size_t n = json_object_size(annotations), used = 0;
	struct map_entry **list = arena_alloc(call->arena, (n + 1) * sizeof(*list));
	const char *key;
	json_t *value;

	if (!list)
		return false;
	json_object_foreach(annotations, key, value)
	{
		struct map_entry *e = arena_alloc(call->arena, sizeof(*e));

		if (!e || !json_is_string(value))
			return false;
		e->key = arena_printf(call->arena, "%s", key);
		e->value = arena_printf(call->arena, "%s", json_string_value(value));
		if (!e->key || !e->value)
			return false;
		list[used++] = e;
	}
	*ret = (struct map){used, list};
	return true;
}

static enum rpc_code read_claim(struct rpc_call *call, json_t *root, struct claim *c)
{
	json_t *metadata = json_object_get(root, "metadata");
	const char *name = json_string_value(json_object_get(metadata, "name"));
	const char *uid = json_string_value(json_object_get(metadata, "uid"));
	bool is_good = name && uid && strcmp(name, c->name) == 0 && strlen(uid) <= NAME_LEN_MAX;

	c->uid = is_good ? arena_printf(call->arena, "%s", uid) : NULL;
	is_good = c->uid && copy_annotations(call, json_object_get(metadata, "annotations"), &c->annotations);
	return is_good ? RPC_OK
		       : rpc_fail(call, RPC_UNAVAILABLE, "read claim '%s/%s': the API server's answer makes no sense",
				 c->namespace, c->name);
}

/* They become a part of a URL. */
static bool is_name(const char *s)
{
	size_t len = strlen(s);

	return len > 0 && len <= NAME_LEN_MAX && s[0] != '.' && !strstr(s, "..") &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-.") == len;
}

enum rpc_code claim_get(struct rpc_call *call, const struct kube *k, const char *namespace,
	const char *name, struct claim *ret_claim)
{
	struct claim c = {.namespace = namespace, .name = name};
	struct kube_question q = {.right = "'get' on persistentvolumeclaims"};
	json_t *answer = NULL;
	enum rpc_code code;

	if (!is_name(namespace) || !is_name(name))
		return rpc_fail(call, RPC_INVALID_ARGUMENT,
			"parameters: csi.storage.k8s.io/pvc/name and .../namespace: '%.100s' in '%.100s' is no claim's name",
			name, namespace);
	q.what = arena_printf(call->arena, "claim '%s/%s'", namespace, name);
	q.path = arena_printf(call->arena, "/api/v1/namespaces/%s/persistentvolumeclaims/%s", namespace, name);
	if (!q.what || !q.path)
		return rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "out of memory");
	code = kube_get(call, k, &q, &answer);
	if (code == RPC_OK)
		code = read_claim(call, answer, &c);
	json_decref(answer);
	if (code == RPC_OK)
		*ret_claim = c;
	return code;
}
