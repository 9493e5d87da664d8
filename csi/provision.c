/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See provision.h. The class is the operator's, the claim is anybody's: what the claim brings is taken
 * only where the class says so, and never reaches out of the place that it is meant for.
 */
#include "csi/provision.h"

#include <stdio.h>
#include <string.h>

#include "csi/url.h"

#define ANNOTATION "warpdrive.io/"
#define DATASET ANNOTATION "dataset"
#define PATH ANNOTATION "path"
#define VERSION ANNOTATION "version"
#define VALUE_MAX 255 /* bytes of one value in a pattern */

/* ---- patterns ---- */

static enum rpc_code check_value(struct rpc_call *call, const char *name, const char *value)
{
	char where[160];

	snprintf(where, sizeof(where), "pathPattern: %.100s", name);
	if (strlen(value) > VALUE_MAX)
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "%s is longer than %d bytes", where, VALUE_MAX);
	if (strchr(value, '/') || strstr(value, ".."))
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "%s is '%.200s': a value may not hold '/' or '..'",
			where, value);
	return url_check_foreign(call, where, value);
}

/* The value that a name in braces stands for. */
static enum rpc_code find_value(struct rpc_call *call, const char *name, const struct claim *claim,
	const char **ret_value)
{
	static const char open[] = "pvc.annotations['";
	size_t len = strlen(name);

	*ret_value = strcmp(name, "pvc.namespace") == 0 ? claim->namespace
		     : strcmp(name, "pvc.name") == 0    ? claim->name
		     : strcmp(name, "pvc.uid") == 0     ? claim->uid
							: NULL;
	if (!*ret_value && strncmp(name, open, sizeof(open) - 1) == 0 && len > sizeof(open) + 1 &&
		strcmp(name + len - 2, "']") == 0) {
		const char *key = arena_printf(
			call->arena, "%.*s", (int)(len - sizeof(open) - 1), name + sizeof(open) - 1);

		*ret_value = key ? map_get(claim->annotations, key) : NULL;
		if (!*ret_value)
			return rpc_fail(call, RPC_INVALID_ARGUMENT,
				"pathPattern: claim '%s/%s' has no annotation '%.200s'", claim->namespace,
				claim->name, key ? key : "");
	}
	if (!*ret_value)
		return rpc_fail(call, RPC_INVALID_ARGUMENT,
			"pathPattern: '${%.100s}' is unknown: the known ones are ${pvc.namespace}, ${pvc.name}, "
			"${pvc.uid} and ${pvc.annotations['key']}", name);
	return check_value(call, name, *ret_value);
}

enum rpc_code provision_expand(struct rpc_call *call, const char *pattern, const struct claim *claim,
	const char **ret_path)
{
	const char *path = "";

	while (*pattern && path) {
		const char *at = strstr(pattern, "${"), *end = at ? strchr(at, '}') : NULL, *value, *name;
		enum rpc_code code;

		if (!at) {
			path = arena_printf(call->arena, "%s%s", path, pattern);
			break;
		}
		if (!end)
			return rpc_fail(call, RPC_INVALID_ARGUMENT, "pathPattern: '%.100s' has no '}'", at);
		if (!claim)
			return rpc_fail(call, RPC_INVALID_ARGUMENT,
				"pathPattern: the request does not say which claim it is for: run the provisioner "
				"with --extra-create-metadata");
		name = arena_printf(call->arena, "%.*s", (int)(end - at - 2), at + 2);
		if (!name)
			break;
		code = find_value(call, name, claim, &value);
		if (code != RPC_OK)
			return code;
		path = arena_printf(call->arena, "%s%.*s%s", path, (int)(at - pattern), pattern, value);
		pattern = end + 1;
		if (path && strlen(path) > URL_LEN_MAX)
			return rpc_fail(call, RPC_INVALID_ARGUMENT, "pathPattern: gives more than %d bytes",
				URL_LEN_MAX);
	}
	if (!path)
		return rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "out of memory");
	if (!url_is_clean_path(path))
		return rpc_fail(call, RPC_INVALID_ARGUMENT,
			"pathPattern: gives '%.200s', which is no relative path without '.', '..' and empty parts",
			path);
	*ret_path = path;
	return RPC_OK;
}

/* ---- where the volume lies ---- */

static const char *annotation(const struct claim *claim, const char *key)
{
	return claim ? map_get(claim->annotations, key) : NULL;
}

/* An annotation that is there and may not be: whoever wrote it must hear of it. */
static enum rpc_code check_annotations(struct rpc_call *call, const struct claim *claim, bool is_scratch,
	const char *globs)
{
	static const char *const keys[] = {DATASET, PATH, VERSION};

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const char *value = annotation(claim, keys[i]);
		enum rpc_code code;

		if (!value)
			continue;
		if (is_scratch)
			return rpc_fail(call, RPC_INVALID_ARGUMENT,
				"annotation %s: the class is for scratch volumes, whose place it chooses itself: "
				"remove the annotation or take another class", keys[i]);
		if (!globs)
			return rpc_fail(call, RPC_INVALID_ARGUMENT,
				"annotation %s: the class lets no claim choose: its allowedUrls must name the "
				"URLs that may be chosen, e.g. s3://bucket/*", keys[i]);
		code = strcmp(keys[i], DATASET) == 0 ? url_check(call, "annotation " DATASET ":", value) : RPC_OK;
		if (code == RPC_OK)
			code = url_check_foreign(
				call, arena_printf(call->arena, "annotation %s", keys[i]), value);
		if (code != RPC_OK)
			return code;
	}
	return RPC_OK;
}

/* The class's place, and below it what its pattern makes of the claim. */
static enum rpc_code place_by_class(struct rpc_call *call, struct map parameters, const struct claim *claim,
	const char **ret_url)
{
	const char *url = map_get(parameters, "url"), *pattern = map_get(parameters, "pathPattern");
	const char *path = annotation(claim, PATH);
	enum rpc_code code = RPC_OK;

	if (!url)
		return rpc_fail(call, RPC_INVALID_ARGUMENT,
			"parameters: url is missing: the class names a place, e.g. s3://bucket/prefix%s",
			map_get(parameters, "allowedUrls") ? ", or the claim does, by the annotation " DATASET : "");
	if (!path && !pattern && volume_is_scratch(parameters))
		pattern = PROVISION_SCRATCH_PATTERN;
	if (!path && pattern)
		code = provision_expand(call, pattern, claim, &path);
	url = url_join(call, url, map_get(parameters, "subPath"));
	if (code == RPC_OK && url)
		*ret_url = url_join(call, url, path);
	return code;
}

static enum rpc_code place(struct rpc_call *call, struct map parameters, const struct claim *claim,
	const char **ret_url)
{
	const char *dataset = annotation(claim, DATASET), *path = annotation(claim, PATH);
	const char *globs = map_get(parameters, "allowedUrls");
	enum rpc_code code = check_annotations(call, claim, volume_is_scratch(parameters), globs);

	*ret_url = NULL;
	if (code == RPC_OK && path && strstr(path, "://"))
		code = rpc_fail(call, RPC_INVALID_ARGUMENT,
			"annotation " PATH ": '%.200s': a path below the class's url; a URL goes into " DATASET, path);
	if (code == RPC_OK && dataset)
		*ret_url = url_join(call, dataset, path);
	else if (code == RPC_OK)
		code = place_by_class(call, parameters, claim, ret_url);
	if (code != RPC_OK)
		return code;
	if (!*ret_url)
		return rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "out of memory");
	code = url_check(call, dataset ? "annotation " DATASET ":" : "parameters: url", *ret_url);
	if (code == RPC_OK && (dataset || path) && !url_is_allowed(globs, *ret_url))
		code = rpc_fail(call, RPC_PERMISSION_DENIED,
			"annotation %s: '%.200s' is not within the class's allowedUrls '%.200s'",
			dataset ? DATASET : PATH, *ret_url, globs);
	return code;
}

/* ---- the context ---- */

static bool add(struct rpc_call *call, struct map_entry **list, size_t *n, const char *key, const char *value)
{
	struct map_entry *e = arena_alloc(call->arena, sizeof(Csi__V1__Volume__VolumeContextEntry));

	if (!e)
		return false;
	csi__v1__volume__volume_context_entry__init((Csi__V1__Volume__VolumeContextEntry *)(void *)e);
	e->key = (char *)key;
	e->value = (char *)value;
	list[(*n)++] = e;
	return true;
}

enum rpc_code provision(struct rpc_call *call, struct map parameters, const struct claim *claim,
	struct map *ret_context)
{
	struct map_entry **list = arena_alloc(call->arena, (parameters.n + 2) * sizeof(*list));
	const char *globs = map_get(parameters, "allowedUrls"), *version = annotation(claim, VERSION);
	const char *reclaim = map_get(parameters, "reclaim"), *url;
	bool is_good = list != NULL;
	enum rpc_code code = RPC_OK;
	size_t n = 0;

	if (globs)
		code = url_check_globs(call, "parameters: allowedUrls", globs);
	if (code == RPC_OK && reclaim && strcmp(reclaim, "retain") != 0)
		code = rpc_fail(call, RPC_INVALID_ARGUMENT,
			"parameters: reclaim '%.64s': this release deletes nothing from object storage: write 'retain'",
			reclaim);
	if (code == RPC_OK)
		code = place(call, parameters, claim, &url);
	if (code != RPC_OK)
		return code;
	is_good = is_good && add(call, list, &n, "url", url);
	for (size_t i = 0; is_good && i < parameters.n; i++) {
		const char *key = parameters.entries[i]->key;

		if (volume_is_of_node(key) && strcmp(key, "url") != 0 && strcmp(key, "subPath") != 0 &&
			!(version && strcmp(key, "version") == 0))
			is_good = add(call, list, &n, key, parameters.entries[i]->value);
	}
	if (is_good && version)
		is_good = add(call, list, &n, "version", version);
	if (!is_good)
		return rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "out of memory");
	*ret_context = (struct map){n, list};
	return volume_check_context(call, "volume_context", *ret_context);
}
