/* SPDX-License-Identifier: Apache-2.0 */
/* See url.h. */
#include "csi/url.h"

#include <fnmatch.h>
#include <stdint.h>
#include <string.h>

#define SEPARATORS ", \t\r\n"

/* As the agent's origins are. */
static const char *const schemes[] = {"s3", "http", "https", "file"};
#define NSCHEMES (sizeof(schemes) / sizeof(schemes[0]))

/* What follows "scheme://"; NULL where there is no known scheme. */
static const char *after_scheme(const char *url)
{
	for (size_t i = 0; i < NSCHEMES; i++) {
		size_t len = strlen(schemes[i]);

		if (strncmp(url, schemes[i], len) == 0 && strncmp(url + len, "://", 3) == 0)
			return url + len + 3;
	}
	return NULL;
}

static bool has_control(const char *text)
{
	for (const unsigned char *p = (const unsigned char *)text; *p; p++)
		if (*p < 0x20 || *p == 0x7f)
			return true;
	return false;
}

static bool is_dots(const char *part, size_t len)
{
	return (len == 1 && part[0] == '.') || (len == 2 && part[0] == '.' && part[1] == '.');
}

static bool has_part(const char *path, bool wants_empty)
{
	for (const char *p = path;; p++) {
		size_t len = strcspn(p, "/");

		if (wants_empty ? len == 0 : is_dots(p, len))
			return true;
		p += len;
		if (!*p)
			return false;
	}
}

bool url_is_clean_path(const char *path)
{
	size_t len = strlen(path);

	/* one slash at the end says no more than none */
	for (const char *p = path; *p; p += strcspn(p, "/"), p += *p == '/') {
		size_t n = strcspn(p, "/");

		if (n == 0 || is_dots(p, n))
			return false;
	}
	return len == 0 || path[0] != '/';
}

/* For eyes: what may be a password, all before the last '@' of the part with the host, is cut out. */
static const char *shown(struct rpc_call *call, const char *url)
{
	const char *sep = strstr(url, "://"), *host = sep ? sep + 3 : url;
	const char *at = memrchr(host, '@', strcspn(host, "/"));
	const char *text = at ? arena_printf(call->arena, "%.*s%s", (int)(host - url), url, at + 1) : url;

	return text ? text : "";
}

enum rpc_code url_check(struct rpc_call *call, const char *where, const char *url)
{
	const char *place = after_scheme(url);
	const char *cause = NULL;

	if (!place)
		return rpc_fail(call, RPC_INVALID_ARGUMENT,
			"%s '%.200s' is no URL that is known: write s3://bucket/prefix, https://... or file:///...",
			where, shown(call, url));
	if (strlen(url) > URL_LEN_MAX)
		cause = "is longer than 1024 bytes";
	else if (has_control(url))
		cause = "holds a control character";
	else if (strpbrk(place, "?#"))
		cause = "holds '?' or '#': a dataset is a prefix, without a query";
	else if (has_part(place, false))
		cause = "holds '.' or '..' as a part";
	else if (url[0] == 'f' ? *place != '/' : *place == '/' || !*place)
		cause = url[0] == 'f' ? "is not absolute: write file:///..." : "names no bucket or host";
	return cause ? rpc_fail(call, RPC_INVALID_ARGUMENT, "%s '%.200s' %s", where, shown(call, url), cause) : RPC_OK;
}

enum rpc_code url_check_foreign(struct rpc_call *call, const char *where, const char *text)
{
	const char *place = after_scheme(text), *path = place ? place + strcspn(place, "/") : text;
	const char *cause = NULL;
	size_t len = strlen(text);

	if (len == 0)
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "%s: empty", where);
	path += place && *path == '/';
	if (len > URL_LEN_MAX)
		cause = "is longer than 1024 bytes";
	else if (has_control(text))
		cause = "holds a control character";
	else if (strpbrk(text, "%\\?#"))
		cause = "holds one of % \\ ? #, which are not taken from a claim";
	else if (place && memchr(place, '@', strcspn(place, "/")))
		cause = "holds '@' before the path: credentials belong into a Secret";
	else if (!url_is_clean_path(path))
		cause = "holds '.', '..' or nothing as a part";
	return cause ? rpc_fail(call, RPC_INVALID_ARGUMENT, "%s: '%.200s' %s", where, shown(call, text), cause) : RPC_OK;
}

const char *url_join(struct rpc_call *call, const char *url, const char *path)
{
	size_t len = strlen(url);

	if (!path || !*path)
		return url;
	return arena_printf(call->arena, "%s%s%s", url, len && url[len - 1] == '/' ? "" : "/", path);
}

/* ---- globs ---- */

/* Copies the next glob of the list to out, which holds URL_LEN_MAX + 1 bytes. False at the end;
 * one that is too long comes out empty. */
static bool next_glob(const char **list, char *out)
{
	size_t len;

	*list += strspn(*list, SEPARATORS);
	len = strcspn(*list, SEPARATORS);
	out[0] = '\0';
	if (len == 0)
		return false;
	if (len <= URL_LEN_MAX) {
		memcpy(out, *list, len);
		out[len] = '\0';
	}
	*list += len;
	return true;
}

enum rpc_code url_check_globs(struct rpc_call *call, const char *where, const char *globs)
{
	char glob[URL_LEN_MAX + 1];
	size_t n = 0;

	for (; next_glob(&globs, glob); n++) {
		const char *place = after_scheme(glob);

		if (!place)
			return rpc_fail(call, RPC_INVALID_ARGUMENT,
				"%s: '%.200s' is no glob of URLs: write e.g. s3://bucket/team-*", where, glob);
		if (glob[0] == 'f' ? *place != '/' : *place == '/' || !*place)
			return rpc_fail(call, RPC_INVALID_ARGUMENT,
				"%s: '%.200s' names no bucket, host or directory", where, glob);
	}
	return n ? RPC_OK : rpc_fail(call, RPC_INVALID_ARGUMENT, "%s: empty", where);
}

/* Takes the first part off a path that is written without its leading slash; one of the parts of a
 * list that ends with a slash is no part. NULL at the end. */
static const char *take_part(const char **path, char *out)
{
	size_t len = strcspn(*path, "/");

	if (!**path)
		return NULL;
	memcpy(out, *path, len);
	out[len] = '\0';
	*path += len;
	*path += **path == '/';
	return out;
}

static bool is_match(const char *glob, const char *url)
{
	const char *g = after_scheme(glob), *u = after_scheme(url);
	char want[URL_LEN_MAX + 1], have[URL_LEN_MAX + 1];

	if (!g || !u || g - glob != u - url || strncmp(glob, url, (size_t)(g - glob)) != 0)
		return false;
	while (take_part(&g, want))
		if (!take_part(&u, have) || fnmatch(want, have, FNM_NOESCAPE) != 0)
			return false;
	return true;
}

bool url_is_allowed(const char *globs, const char *url)
{
	char glob[URL_LEN_MAX + 1];

	if (strlen(url) > URL_LEN_MAX)
		return false;
	while (next_glob(&globs, glob))
		if (is_match(glob, url))
			return true;
	return false;
}
