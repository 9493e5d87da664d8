/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See volume.h. The words of the volume context are one table: the name in Kubernetes, the mount
 * option it stands for, and what it is good for. Adding one is one row, here and in the agent.
 */
#include "csi/volume.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "csi/token.h"
#include "csi/url.h"

/* CLASS: the controller's alone; it never gets to a node. LATER: a word of the interface that nothing follows from
 * yet; whoever writes it means something, so it is refused */
enum word_kind { WORD_OPTION, WORD_FLAG, WORD_OWN, WORD_CLASS, WORD_LATER };

static const struct word {
	const char *name, *option;
	enum word_kind kind;
} words[] = {
	{"url", NULL, WORD_OWN},
	{"subPath", NULL, WORD_OWN},
	{"mode", NULL, WORD_OWN},
	{"pathPattern", NULL, WORD_CLASS},
	{"allowedUrls", NULL, WORD_CLASS},
	{"reclaim", NULL, WORD_CLASS},
	{"endpoint", "endpoint", WORD_OPTION},
	{"region", "region", WORD_OPTION},
	{"pathStyle", "path-style", WORD_FLAG},
	{"anonymous", "anonymous", WORD_FLAG},
	{"caCert", "ca-cert", WORD_OPTION},
	{"index", "index", WORD_OPTION},
	{"passthrough", NULL, WORD_OWN},
	{"metadataTtl", "metadata-ttl", WORD_OPTION},
	{"negativeTtl", "negative-ttl", WORD_OPTION},
	{"bandwidthLimit", "bandwidth-limit", WORD_OPTION},
	{"uid", "uid", WORD_OPTION},
	{"gid", "gid", WORD_OPTION},
	{"fileMode", "file-mode", WORD_OPTION},
	{"dirMode", "dir-mode", WORD_OPTION},
	{"authenticationSource", "authentication-source", WORD_OPTION},
	{"roleArn", "role-arn", WORD_OPTION},
	{"audience", "audience", WORD_OPTION},
	{"version", "version", WORD_OPTION},
	{"noOpen", "no-open", WORD_FLAG},
	{"writeMode", NULL, WORD_LATER},
	{"prefetch", "prefetch", WORD_OPTION},
	{"evictionPolicy", NULL, WORD_LATER},
	{"profile", "profile", WORD_OPTION},
	{"clientId", NULL, WORD_LATER},
	{"tenantId", NULL, WORD_LATER},
};
#define NWORDS (sizeof(words) / sizeof(words[0]))

/* Names that secrets have in the field. */
static const struct {
	const char *name, *member;
} secret_words[] = {
	{"accessKeyId", "access_key"},
	{"secretAccessKey", "secret_key"},
	{"sessionToken", "session_token"},
	{"AWS_ACCESS_KEY_ID", "access_key"},
	{"AWS_SECRET_ACCESS_KEY", "secret_key"},
	{"AWS_SESSION_TOKEN", "session_token"},
};
#define NSECRET_WORDS (sizeof(secret_words) / sizeof(secret_words[0]))

const char *map_get(struct map m, const char *key)
{
	for (size_t i = 0; i < m.n; i++)
		if (strcmp(m.entries[i]->key, key) == 0)
			return m.entries[i]->value;
	return NULL;
}

/* ---- ids and capabilities ---- */

enum rpc_code volume_check_id(struct rpc_call *call, const char *field, const char *id)
{
	if (!*id)
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "%s: missing", field);
	if (strlen(id) > VOLUME_ID_MAX)
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "%s: longer than %d bytes", field, VOLUME_ID_MAX);
	if (strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") != strlen(id) ||
		strstr(id, ".."))
		return rpc_fail(call, RPC_INVALID_ARGUMENT,
			"%s: may hold letters, digits, '-', '_' and '.', and not '..'", field);
	return RPC_OK;
}

enum rpc_code volume_check_capability(
	struct rpc_call *call, const Csi__V1__VolumeCapability *capability)
{
	int mode;

	if (!capability)
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "volume_capability: missing");
	if (capability->access_type_case == CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE_BLOCK)
		return rpc_fail(call, RPC_INVALID_ARGUMENT,
			"volume_capability: block volumes are not supported; use volumeMode: Filesystem");
	if (capability->access_type_case != CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE_MOUNT || !capability->mount)
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "volume_capability: no access type");
	mode = capability->access_mode ? (int)capability->access_mode->mode : 0;
	if (mode < CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__MODE__SINGLE_NODE_WRITER ||
		mode > CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__MODE__SINGLE_NODE_MULTI_WRITER)
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "volume_capability: access mode %d is unknown", mode);
	return RPC_OK;
}

/* ---- the context ---- */

static bool has_suffix(const char *s, size_t len, const char *suffix)
{
	size_t n = strlen(suffix);

	return len >= n && memcmp(s + len - n, suffix, n) == 0;
}

/* Kubernetes adds keys of its own: those whose prefix is below k8s.io or kubernetes.io. */
static bool is_of_kubernetes(const char *key)
{
	const char *slash = strchr(key, '/');
	size_t len = slash ? (size_t)(slash - key) : 0;

	return has_suffix(key, len, ".k8s.io") || has_suffix(key, len, ".kubernetes.io") ||
	       (slash && (strncmp(key, "k8s.io/", 7) == 0 || strncmp(key, "kubernetes.io/", 14) == 0));
}

static const struct word *find_word(const char *name)
{
	for (size_t i = 0; i < NWORDS; i++)
		if (strcmp(words[i].name, name) == 0)
			return &words[i];
	return NULL;
}

bool volume_is_of_node(const char *key)
{
	const struct word *w = find_word(key);

	return w && w->kind != WORD_CLASS && w->kind != WORD_LATER;
}

static enum rpc_code refuse_key(struct rpc_call *call, const char *field, const char *key, bool is_class)
{
	char names[600] = "";
	size_t used = 0;

	for (size_t i = 0; i < NWORDS && used < sizeof(names); i++)
		if (words[i].kind != WORD_LATER && (is_class || words[i].kind != WORD_CLASS))
			used += (size_t)snprintf(
				names + used, sizeof(names) - used, "%s%s", used ? ", " : "", words[i].name);
	return rpc_fail(call, RPC_INVALID_ARGUMENT, "%s: '%.64s' is unknown: the known ones are %s", field,
		key, names);
}

static bool is_flag(const char *value)
{
	return strcmp(value, "true") == 0 || strcmp(value, "false") == 0;
}

static enum rpc_code check_value(struct rpc_call *call, const char *field, const struct word *w,
	const char *value)
{
	if (w->kind == WORD_FLAG || strcmp(w->name, "passthrough") == 0) {
		if (!is_flag(value))
			return rpc_fail(call, RPC_INVALID_ARGUMENT, "%s: '%s' is '%.64s': write true or false",
				field, w->name, value);
	} else if (strcmp(w->name, "mode") == 0) {
		if (strcmp(value, "dataset") != 0 && strcmp(value, "scratch") != 0)
			return rpc_fail(call, RPC_INVALID_ARGUMENT,
				"%s: mode '%.64s': write dataset (read-only) or scratch", field, value);
	} else if (strcmp(w->name, "subPath") == 0) {
		if (!url_is_clean_path(value))
			return rpc_fail(call, RPC_INVALID_ARGUMENT,
				"%s: subPath '%.200s': a relative path without '.', '..' and empty parts",
				field, value);
	} else if (strcmp(w->name, "url") == 0) {
		return url_check(call, arena_printf(call->arena, "%s: url", field), value);
	}
	return RPC_OK;
}

static enum rpc_code check_words(struct rpc_call *call, const char *field, struct map words_of, bool is_class)
{
	for (size_t i = 0; i < words_of.n; i++) {
		const char *key = words_of.entries[i]->key;
		const struct word *w = find_word(key);
		enum rpc_code code;

		if (!w && is_of_kubernetes(key))
			continue;
		if (!w || (w->kind == WORD_CLASS && !is_class))
			return refuse_key(call, field, key, is_class);
		if (w->kind == WORD_LATER)
			return rpc_fail(call, RPC_INVALID_ARGUMENT,
				"%s: '%s' has no effect in this release: leave it out", field, key);
		code = check_value(call, field, w, words_of.entries[i]->value);
		if (code != RPC_OK)
			return code;
	}
	return RPC_OK;
}

enum rpc_code volume_check_context(struct rpc_call *call, const char *field, struct map context)
{
	return check_words(call, field, context, false);
}

enum rpc_code volume_check_parameters(struct rpc_call *call, struct map parameters)
{
	return check_words(call, "parameters", parameters, true);
}

bool volume_is_scratch(struct map words_of)
{
	const char *mode = map_get(words_of, "mode");

	return mode && strcmp(mode, "scratch") == 0;
}

enum rpc_code volume_check_mode(
	struct rpc_call *call, bool is_scratch, const Csi__V1__VolumeCapability *capability)
{
	int access = (int)capability->access_mode->mode;

	if (!is_scratch ||
		access == CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__MODE__SINGLE_NODE_READER_ONLY ||
		access == CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__MODE__MULTI_NODE_READER_ONLY)
		return RPC_OK;
	return rpc_fail(call, RPC_INVALID_ARGUMENT,
		"mode 'scratch': this release cannot write to object storage yet: claim it with accessModes: "
		"[ReadOnlyMany] to read what others put there, or keep scratch data on another class");
}

/* ---- the description ---- */

static const char *url_of(struct rpc_call *call, struct map context)
{
	const char *url = map_get(context, "url");

	return url ? url_join(call, url, map_get(context, "subPath")) : NULL;
}

static json_t *options_of(const struct volume_mount *v)
{
	const char *group = v->capability->mount->volume_mount_group;
	json_t *options = json_object();

	for (size_t i = 0; i < v->context.n; i++) {
		const struct word *w = find_word(v->context.entries[i]->key);

		if (w && w->option)
			json_object_set_new(options, w->option, json_string(v->context.entries[i]->value));
	}
	if (map_get(v->context, "passthrough") && strcmp(map_get(v->context, "passthrough"), "false") == 0)
		json_object_set_new(options, "no-passthrough", json_string("true"));
	if (group && *group && !json_object_get(options, "gid"))
		json_object_set_new(options, "gid", json_string(group));
	return options;
}

/* Mount options say the same as the context, in kebab case; whoever wrote both meant the latter. */
static enum rpc_code add_mount_flags(struct rpc_call *call, const struct volume_mount *v, json_t *options)
{
	const Csi__V1__VolumeCapability__MountVolume *m = v->capability->mount;

	for (size_t i = 0; i < m->n_mount_flags; i++) {
		const char *flag = m->mount_flags[i], *eq = strchr(flag, '=');
		char *name = arena_printf(call->arena, "%.*s", eq ? (int)(eq - flag) : (int)strlen(flag), flag);

		if (!name)
			return rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "out of memory");
		if (!json_object_get(options, name))
			json_object_set_new(options, name, json_string(eq ? eq + 1 : "true"));
	}
	return RPC_OK;
}

static enum rpc_code credentials_of(struct rpc_call *call, struct map secrets, json_t **ret_credentials)
{
	json_t *credentials = json_object();

	for (size_t i = 0; i < secrets.n; i++)
		for (size_t k = 0; k < NSECRET_WORDS; k++)
			if (strcmp(secrets.entries[i]->key, secret_words[k].name) == 0)
				json_object_set_new(credentials, secret_words[k].member,
					json_string(secrets.entries[i]->value));
	if (secrets.n > (map_get(secrets, TOKENS_KEY) != NULL) && json_object_size(credentials) == 0) {
		json_decref(credentials);
		return rpc_fail(call, RPC_INVALID_ARGUMENT,
			"secrets: none of the keys is known: write accessKeyId and secretAccessKey "
			"(and sessionToken), or their AWS_... names");
	}
	*ret_credentials = credentials;
	return RPC_OK;
}

bool volume_has_credentials(const struct volume_mount *v)
{
	return v->secrets.n > 0 || token_find(v);
}

static bool is_ephemeral(const struct volume_mount *v)
{
	const char *word = map_get(v->context, "csi.storage.k8s.io/ephemeral");

	return word && strcmp(word, "true") == 0;
}

enum rpc_code volume_describe(struct rpc_call *call, const struct volume_mount *v,
	const char **ret_description)
{
	json_t *options, *credentials = NULL, *root;
	const char *url;
	char *text;
	enum rpc_code code = volume_check_context(call, "volume_context", v->context);

	if (code == RPC_OK)
		code = volume_check_mode(call, volume_is_scratch(v->context), v->capability);
	if (code != RPC_OK)
		return code;
	url = url_of(call, v->context);
	if (!url)
		return rpc_fail(call, RPC_INVALID_ARGUMENT,
			"volume_context: url is missing: name the dataset, e.g. s3://bucket/prefix");
	options = options_of(v);
	code = add_mount_flags(call, v, options);
	if (code == RPC_OK)
		code = credentials_of(call, v->secrets, &credentials);
	if (code == RPC_OK)
		code = token_add(call, v, url, options, credentials);
	if (code != RPC_OK) {
		json_decref(options);
		json_decref(credentials);
		return code;
	}
	root = json_pack("{s:s, s:s, s:b, s:b, s:o, s:o}", "url", url, "target", v->target, "may_be_down", 1,
		"ephemeral", is_ephemeral(v), "options", options, "credentials", credentials);
	text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	*ret_description = text ? arena_printf(call->arena, "%s", text) : NULL;
	if (text)
		explicit_bzero(text, strlen(text));
	free(text);
	return *ret_description ? RPC_OK : rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "out of memory");
}
