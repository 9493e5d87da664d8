/* SPDX-License-Identifier: Apache-2.0 */
/* See token.h. The kubelet writes {"AUDIENCE": {"token": "...", "expirationTimestamp": "..."}, ...}. */
#include "csi/token.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define AUDIENCE_OF_S3 "sts.amazonaws.com"

const char *token_find(const struct volume_mount *v)
{
	const char *tokens = map_get(v->secrets, TOKENS_KEY);

	return tokens ? tokens : map_get(v->context, TOKENS_KEY);
}

static enum rpc_code no_such_audience(struct rpc_call *call, const char *wanted, json_t *all)
{
	char names[300] = "";
	const char *name;
	json_t *value;
	size_t used = 0;

	json_object_foreach(all, name, value)
	{
		if (used < sizeof(names))
			used += (size_t)snprintf(names + used, sizeof(names) - used, "%s'%.64s'", used ? ", " : "", name);
	}
	if (!wanted)
		return rpc_fail(call, RPC_INVALID_ARGUMENT,
			"audience: missing: the pod's tokens are for %s; name the one that the origin wants", names);
	return rpc_fail(call, RPC_INVALID_ARGUMENT,
		"audience: there is no token for '%.64s', but for %s: the CSIDriver's tokenRequests must list it", wanted,
		used ? names : "nobody");
}

/* The token for that audience: for s3 Amazon's token service unless told otherwise, else the only one there is. */
static enum rpc_code choose(struct rpc_call *call, const char *url, const char *audience, json_t *all,
	json_t **ret_token)
{
	json_t *only = json_object_iter_value(json_object_iter(all));

	if (!audience && strncmp(url, "s3://", 5) == 0)
		audience = AUDIENCE_OF_S3;
	*ret_token = audience ? json_object_get(all, audience) : json_object_size(all) == 1 ? only : NULL;
	if (!json_is_string(json_object_get(*ret_token, "token")))
		return no_such_audience(call, audience, all);
	return RPC_OK;
}

static int64_t parse_time(const char *text)
{
	struct tm tm = {0};

	return text && strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) ? (int64_t)timegm(&tm) : 0;
}

static void add(struct rpc_call *call, const struct volume_mount *v, json_t *token, json_t *credentials)
{
	/* who they are comes with podInfoOnMount; the kubelet's word overrides what a volume says */
	const char *namespace = map_get(v->context, "csi.storage.k8s.io/pod.namespace");
	const char *account = map_get(v->context, "csi.storage.k8s.io/serviceAccount.name");
	const char *subject = NULL;

	if (namespace && account)
		subject = arena_printf(call->arena, "%s:%s", namespace, account);
	json_object_set(credentials, "token", json_object_get(token, "token"));
	json_object_set_new(credentials, "token_expires",
		json_integer(parse_time(json_string_value(json_object_get(token, "expirationTimestamp")))));
	if (subject)
		json_object_set_new(credentials, "subject", json_string(subject));
}

enum rpc_code token_add(struct rpc_call *call, const struct volume_mount *v, const char *url, json_t *options,
	json_t *credentials)
{
	const char *source = json_string_value(json_object_get(options, "authentication-source"));
	const char *text = token_find(v);
	json_t *all, *token = NULL;
	enum rpc_code code;

	if (!source || strcmp(source, "pod") != 0)
		return RPC_OK;
	all = text ? json_loads(text, 0, NULL) : NULL;
	if (!json_is_object(all)) {
		json_decref(all);
		return rpc_fail(call, RPC_INVALID_ARGUMENT,
			"authenticationSource: 'pod', but the kubelet brings no service-account token: the CSIDriver's "
			"tokenRequests must ask for one");
	}
	code = choose(call, url, json_string_value(json_object_get(options, "audience")), all, &token);
	if (code == RPC_OK)
		add(call, v, token, credentials);
	json_decref(all);
	return code;
}
