/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See kube_api.h. One GET by libcurl on the caller's thread. A multi handle, because it can wait for
 * the caller's end as well; nothing is kept between calls. Never through a proxy: the API server is
 * the cluster's own.
 */
#include "csi/kube_api.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/lock.h"

#define ACCOUNT "/var/run/secrets/kubernetes.io/serviceaccount/"
#define ANSWER_MAX (3u << 20) /* bytes; etcd takes objects of 1.5 MiB */
#define ANSWER_FIRST 16384 /* most objects are smaller */
#define TOKEN_MAX 16384
#define CONNECT_MS 10000
#define ANSWER_MS 30000 /* for all of it, however far the deadline is */

void kube_defaults(struct kube *k)
{
	static char url[300];
	const char *host = getenv("KUBERNETES_SERVICE_HOST"), *port = getenv("KUBERNETES_SERVICE_PORT");
	bool is_v6 = host && strchr(host, ':');

	if (!k->url && host && *host) {
		snprintf(url, sizeof(url), "https://%s%s%s:%s", is_v6 ? "[" : "", host, is_v6 ? "]" : "",
			port && *port ? port : "443");
		k->url = url;
	}
	if (!k->token_path)
		k->token_path = ACCOUNT "token";
	if (!k->ca_path && access(ACCOUNT "ca.crt", R_OK) == 0)
		k->ca_path = ACCOUNT "ca.crt";
}

/* ---- asking ---- */

struct answer {
	struct arena *arena;
	char *data;
	size_t len, cap;
};

static bool make_room(struct answer *a, size_t n)
{
	size_t cap = a->cap ? a->cap : ANSWER_FIRST;
	char *data;

	if (n > ANSWER_MAX - a->len)
		return false;
	while (cap - a->len < n)
		cap *= 2;
	if (cap == a->cap)
		return true;
	data = arena_alloc(a->arena, cap);
	if (!data)
		return false;
	if (a->len)
		memcpy(data, a->data, a->len);
	a->data = data;
	a->cap = cap;
	return true;
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
	struct answer *a = arg;

	if (!make_room(a, n))
		return 0;
	memcpy(a->data + a->len, data, n);
	a->len += n;
	return n;
}

/* The header's line, in the arena; NULL with the reason in *err. */
static char *read_token(struct rpc_call *call, const char *path, struct wd_err *err)
{
	wd_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *line = arena_alloc(call->arena, TOKEN_MAX + 64);
	size_t len;
	ssize_t n;

	if (!line) {
		wd_err_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	len = (size_t)sprintf(line, "Authorization: Bearer ");
	n = fd < 0 ? -1 : read(fd, line + len, TOKEN_MAX);
	if (n < 0) {
		wd_err_sys(err, errno, "read the service account's token '%s'", path);
		return NULL;
	}
	line[len + (size_t)n] = '\0';
	line[len + strcspn(line + len, "\r\n")] = '\0';
	if (!line[len]) {
		wd_err_set(err, EINVAL, "the service account's token '%s' is empty", path);
		return NULL;
	}
	return line;
}

static long limit_ms(const struct rpc_call *call)
{
	int64_t left = ANSWER_MS;

	if (call->deadline_ns != INT64_MAX && (call->deadline_ns - wd_now_ns()) / 1000000 < left)
		left = (call->deadline_ns - wd_now_ns()) / 1000000;
	left -= left / 10; /* the answer has to travel, too */
	return left > 1 ? (long)left : 1;
}

/* Performs on a multi handle, whose wait ends with the caller as well. */
static int perform(const struct rpc_call *call, CURL *easy, CURLcode *ret_code)
{
	struct curl_waitfd gone = {.fd = call->cancel_fd, .events = CURL_WAIT_POLLIN};
	CURLM *multi = curl_multi_init();
	int running = 1, left, rc = 0;
	CURLMsg *msg;

	*ret_code = CURLE_OUT_OF_MEMORY;
	if (!multi)
		return 0;
	curl_multi_add_handle(multi, easy);
	while (running && rc == 0) {
		if (curl_multi_perform(multi, &running) != CURLM_OK)
			break;
		if (running)
			curl_multi_poll(multi, &gone, call->cancel_fd >= 0, ANSWER_MS, NULL);
		if (rpc_is_cancelled(call))
			rc = -ECANCELED;
	}
	msg = curl_multi_info_read(multi, &left);
	if (rc == 0 && msg)
		*ret_code = msg->data.result;
	curl_multi_remove_handle(multi, easy);
	curl_multi_cleanup(multi);
	return rc;
}

static void set_up(CURL *easy, const struct kube *k, const char *url, long ms, struct answer *a)
{
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https,http");
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, ms);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "warpdrive-csi/" WD_VERSION);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, a);
	if (k->ca_path)
		curl_easy_setopt(easy, CURLOPT_CAINFO, k->ca_path);
}

static enum rpc_code fail_status(struct rpc_call *call, const struct kube_question *q, long status)
{
	switch (status) {
	case 401:
		return rpc_fail(call, RPC_UNAUTHENTICATED,
			"read %s: the API server does not know this service account (401)", q->what);
	case 403:
		return rpc_fail(call, RPC_PERMISSION_DENIED,
			"read %s: the API server refuses (403): the service account needs %s", q->what, q->right);
	case 404:
		return rpc_fail(call, RPC_NOT_FOUND, "there is no %s", q->what);
	default:
		return rpc_fail(call, RPC_UNAVAILABLE, "read %s: the API server answers %ld", q->what, status);
	}
}

static enum rpc_code fetch(struct rpc_call *call, const struct kube *k, const struct kube_question *q,
	struct answer *a)
{
	const char *url = arena_printf(call->arena, "%s%s", k->url, q->path);
	struct wd_err err = WD_ERR_INIT;
	char *token = read_token(call, k->token_path, &err), reason[CURL_ERROR_SIZE] = "";
	struct curl_slist *headers = token ? curl_slist_append(NULL, token) : NULL;
	CURL *easy = headers && url ? curl_easy_init() : NULL;
	CURLcode code = CURLE_OUT_OF_MEMORY;
	long status = 0;
	int rc = 0;

	if (easy) {
		set_up(easy, k, url, limit_ms(call), a);
		curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
		curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, reason);
		rc = perform(call, easy, &code);
		curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
		curl_easy_cleanup(easy);
	}
	if (headers)
		explicit_bzero(headers->data, strlen(headers->data));
	curl_slist_free_all(headers);
	if (!token)
		return rpc_fail(call, RPC_UNAVAILABLE, "read %s: %s", q->what, err.msg);
	if (rc < 0)
		return rpc_fail(call, RPC_CANCELLED, "read %s: the caller has gone", q->what);
	if (code != CURLE_OK)
		return rpc_fail(call, RPC_UNAVAILABLE, "read %s from '%s': %s", q->what, k->url,
			*reason ? reason : curl_easy_strerror(code));
	return status == 200 ? RPC_OK : fail_status(call, q, status);
}

enum rpc_code kube_get(
	struct rpc_call *call, const struct kube *k, const struct kube_question *q, json_t **ret_answer)
{
	struct answer a = {.arena = call->arena};
	enum rpc_code code;

	if (!k->url)
		return rpc_fail(call, RPC_FAILED_PRECONDITION,
			"read %s: no API server is known: run in a cluster, or say --kube-api", q->what);
	code = fetch(call, k, q, &a);
	if (code != RPC_OK)
		return code;
	/* jansson refuses strings that hold a NUL or are not UTF-8 */
	*ret_answer = a.len ? json_loadb(a.data, a.len, 0, NULL) : NULL;
	return *ret_answer ? RPC_OK
			   : rpc_fail(call, RPC_UNAVAILABLE, "read %s: the API server's answer makes no sense",
				     q->what);
}
