/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See unused.h. First the claims that are bound to volumes of ours, then all pods, by pages: a cluster may have tens
 * of thousands, and an answer's size is bounded.
 */
#include "csi/unused.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/lock.h"
#include "csi/driver.h"

#define PAGE 100
#define PAGE_NS 60000000000LL /* for one page */
#define TOKEN_MAX 4096 /* of a page's continuation */

struct users {
	json_t *claims; /* object: "namespace/name" of those that are bound to volumes of ours */
	int count;
};

static const char *text_at(json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

/* A claim that is not bound yet, or not any more, is nobody's mount. */
static void on_volume(struct users *u, json_t *volume)
{
	json_t *spec = json_object_get(volume, "spec"), *claim = json_object_get(spec, "claimRef");
	char name[600];

	if (strcmp(text_at(json_object_get(spec, "csi"), "driver"), DRIVER_NAME) != 0 || !claim)
		return;
	snprintf(name, sizeof(name), "%s/%s", text_at(claim, "namespace"), text_at(claim, "name"));
	json_object_set_new(u->claims, name, json_true());
}

static void tell(struct users *u, json_t *pod, json_t *volume, const char *what, const char *name)
{
	json_t *metadata = json_object_get(pod, "metadata");

	printf("pod %s/%s on node %s: volume %s (%s%s)\n", text_at(metadata, "namespace"), text_at(metadata, "name"),
		text_at(json_object_get(pod, "spec"), "nodeName"), text_at(volume, "name"), what, name);
	u->count++;
}

static void on_pod(struct users *u, json_t *pod)
{
	json_t *metadata = json_object_get(pod, "metadata"), *spec = json_object_get(pod, "spec"), *volume;
	size_t i;

	if (!*text_at(spec, "nodeName"))
		return;
	json_array_foreach(json_object_get(spec, "volumes"), i, volume)
	{
		json_t *claim = json_object_get(volume, "persistentVolumeClaim");
		char name[1200], own[600];

		if (strcmp(text_at(json_object_get(volume, "csi"), "driver"), DRIVER_NAME) == 0) {
			tell(u, pod, volume, "inline", "");
			continue;
		}
		/* a generic ephemeral volume's claim is named after pod and volume */
		snprintf(own, sizeof(own), "%s-%s", text_at(metadata, "name"), text_at(volume, "name"));
		if (!claim && !json_object_get(volume, "ephemeral"))
			continue;
		snprintf(name, sizeof(name), "%s/%s", text_at(metadata, "namespace"),
			claim ? text_at(claim, "claimName") : own);
		if (json_object_get(u->claims, name))
			tell(u, pod, volume, "claim ", claim ? text_at(claim, "claimName") : own);
	}
}

/* One page; *token is that of the next one, "" when there is none. */
static int ask_page(const struct kube *k, struct kube_question *q, const char *resource, char *token,
	json_t **ret_answer, struct wd_err *err)
{
	struct arena arena;
	struct rpc_call call = {.arena = &arena, .cancel_fd = -1, .deadline_ns = wd_now_ns() + PAGE_NS};
	enum rpc_code code;
	int rc = 0;

	arena_init(&arena);
	q->path = arena_printf(&arena, "%s%climit=%d%s%s", resource, strchr(resource, '?') ? '&' : '?', PAGE,
		*token ? "&continue=" : "", token);
	code = q->path ? kube_get(&call, k, q, ret_answer) : RPC_RESOURCE_EXHAUSTED;
	if (code != RPC_OK)
		rc = wd_err_set(err, EIO, "%s", call.text ? call.text : "out of memory");
	arena_done(&arena);
	return rc;
}

/* The server's tokens are of characters that need no encoding; another one would be cut there. */
static bool take_token(json_t *answer, char *token)
{
	const char *next = text_at(json_object_get(answer, "metadata"), "continue");

	if (strlen(next) >= TOKEN_MAX ||
		strspn(next, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~=") != strlen(next))
		return false;
	strcpy(token, next);
	return true;
}

static int list(const struct kube *k, struct kube_question *q, const char *resource,
	void (*on_item)(struct users *u, json_t *item), struct users *u, struct wd_err *err)
{
	char token[TOKEN_MAX] = "";
	int rc;

	do {
		json_t *answer = NULL, *items, *item;
		size_t i;

		rc = ask_page(k, q, resource, token, &answer, err);
		items = json_object_get(answer, "items");
		if (rc == 0 && (!json_is_array(items) || !take_token(answer, token)))
			rc = wd_err_set(err, EPROTO, "read %s: the API server's answer makes no sense", q->what);
		json_array_foreach(items, i, item)
			on_item(u, item);
		json_decref(answer);
	} while (rc == 0 && *token);
	return rc;
}

int unused_check(const struct kube *k, struct wd_err *err)
{
	struct kube_question volumes = {.what = "persistent volumes", .right = "'list' on persistentvolumes"};
	struct kube_question pods = {.what = "pods", .right = "'list' on pods"};
	struct users u = {.claims = json_object()};
	int rc;

	if (!u.claims)
		return wd_err_set(err, ENOMEM, "out of memory");
	rc = list(k, &volumes, "/api/v1/persistentvolumes", on_volume, &u, err);
	if (rc == 0)
		rc = list(k, &pods, "/api/v1/pods?fieldSelector=status.phase!%3DSucceeded%2Cstatus.phase!%3DFailed", on_pod,
			&u, err);
	json_decref(u.claims);
	return rc < 0 ? rc : u.count;
}
