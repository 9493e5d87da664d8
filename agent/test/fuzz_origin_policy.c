/* SPDX-License-Identifier: Apache-2.0 */
/*
 * URLs against allowed-origins: what is allowed must lead where the operator meant it to, as curl's own parser of URLs
 * reads it and as a server may fold the path.
 */
#include <curl/curl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent/origin_policy.h"
#include "agent/settings.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool is_so)
{
	if (!is_so)
		abort();
}

static void check_host(CURLU *h)
{
	char *host = NULL;
	size_t len;

	require(curl_url_get(h, CURLUPART_HOST, &host, 0) == CURLUE_OK);
	len = strlen(host);
	len -= len > 0 && host[len - 1] == '.';
	require(len == strlen("ok.example") && strncasecmp(host, "ok.example", len) == 0);
	curl_free(host);
}

/* Folded, decoded and cut at a query the path is below /public. */
static void check_path(CURLU *h)
{
	char *path = NULL, *plain;
	int len = 0;

	if (curl_url_get(h, CURLUPART_PATH, &path, 0) != CURLUE_OK)
		return;
	plain = curl_easy_unescape(NULL, path, 0, &len);
	require(plain && strncmp(plain, "/public", 7) == 0 && (plain[7] == '\0' || plain[7] == '/'));
	require(!strstr(plain, "/../") && !(len >= 3 && strcmp(plain + len - 3, "/..") == 0));
	curl_free(plain);
	curl_free(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct settings s = {.kubernetes = (char *)"true", .allowed_origins = (char *)"https://ok.example/public"};
	static struct origin_policy *p;
	char *url = strndup((const char *)data, size);
	struct wd_err err = WD_ERR_INIT;
	CURLU *h = curl_url();
	int rc;

	require(url && h && (p || origin_policy_new(&s, &p, &err) == 0));
	rc = origin_policy_check(p, url, NULL, &err);
	require(rc == 0 || (rc == -err.code && err.msg[0]));
	/* what curl does not take is not asked for; a query or fragment is refused by the origin */
	if (rc == 0 && strlen(url) < 2048 && !strpbrk(url + 8, "?#") &&
		curl_url_set(h, CURLUPART_URL, url, CURLU_PATH_AS_IS) == CURLUE_OK) {
		check_host(h);
		check_path(h);
	}
	curl_url_cleanup(h);
	free(url);
	return 0;
}
