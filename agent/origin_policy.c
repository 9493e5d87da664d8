/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See origin_policy.h. URLs come from whoever may write a pod: what is compared with the globs is what the
 * request will be made of, so a URL that a server could read in another way ("..", "%2e", a strange byte in
 * the host's name) matches none.
 */
#include "agent/origin_policy.h"

#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent/address_set.h"
#include "agent/settings.h"
#include "common/cleanup.h"

#define URL_CAP 2304 /* more than origins take */

struct origin_policy {
	char *patterns; /* one per line; NULL: any */
	struct address_set allowed, blocked, always, local;
	bool is_on_kubernetes;
};

struct url {
	char scheme[16], authority[300], path[URL_CAP];
};

/* ---- making one ---- */

static int set_kubernetes(struct origin_policy *p, const char *word, struct wd_err *err)
{
	if (!word || !*word || strcmp(word, "auto") == 0)
		/* every container has it; nothing else does */
		p->is_on_kubernetes = getenv("KUBERNETES_SERVICE_HOST") != NULL;
	else if (strcmp(word, "true") == 0 || strcmp(word, "false") == 0)
		p->is_on_kubernetes = word[0] == 't';
	else
		return wd_err_set(err, EINVAL, "kubernetes: '%.64s' is not auto, true or false", word);
	return 0;
}

static bool is_http(const char *scheme)
{
	return strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0;
}

/* In the form that is compared: no user info, and for http the host in lower case, without a dot at its end
 * and without the scheme's own port. */
static bool split(const char *text, struct url *u)
{
	const char *sep = strstr(text, "://"), *host, *end, *at;
	size_t len;
	char *port;

	if (!sep || sep == text || (size_t)(sep - text) >= sizeof(u->scheme))
		return false;
	snprintf(u->scheme, sizeof(u->scheme), "%.*s", (int)(sep - text), text);
	host = sep + 3;
	end = host + strcspn(host, is_http(u->scheme) ? "/?#" : "/");
	at = is_http(u->scheme) ? memrchr(host, '@', (size_t)(end - host)) : NULL;
	if (at)
		host = at + 1;
	if ((size_t)(end - host) >= sizeof(u->authority) || strlen(end) >= sizeof(u->path))
		return false;
	snprintf(u->authority, sizeof(u->authority), "%.*s", (int)(end - host), host);
	strcpy(u->path, end);
	if (!is_http(u->scheme))
		return true;
	for (char *c = u->authority; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	port = strrchr(u->authority, ':');
	if (port && strcmp(port, strcmp(u->scheme, "https") == 0 ? ":443" : ":80") == 0)
		*port = '\0';
	port = strrchr(u->authority, ':');
	len = port && !strchr(port, ']') ? (size_t)(port - u->authority) : strlen(u->authority);
	if (len > 0 && u->authority[len - 1] == '.')
		memmove(u->authority + len - 1, u->authority + len, strlen(u->authority + len) + 1);
	return true;
}

static int check_patterns(const char *list, struct wd_err *err)
{
	char line[URL_CAP];
	struct url u;

	for (const char *p = list; *p; p += strcspn(p, "\n"), p += *p == '\n') {
		int len = (int)strcspn(p, "\n");

		if ((size_t)snprintf(line, sizeof(line), "%.*s", len, p) >= sizeof(line) || !split(line, &u) ||
			strpbrk(u.scheme, "*?[") || (is_http(u.scheme) && !u.authority[0]))
			return wd_err_set(err, EINVAL,
				"allowed-origins: '%.*s': write scheme://host-or-bucket[/path], e.g. s3://data-*, "
				"https://*.example.com/public or file:///srv",
				len < 100 ? len : 100, p);
	}
	return 0;
}

int origin_policy_new(const struct settings *settings, struct origin_policy **ret_policy, struct wd_err *err)
{
	const char *patterns = settings->allowed_origins;
	struct origin_policy *p = calloc(1, sizeof(*p));
	int rc = p ? 0 : wd_err_set(err, ENOMEM, "out of memory");

	if (rc == 0)
		rc = set_kubernetes(p, settings->kubernetes, err);
	if (rc == 0 && patterns && *patterns) {
		rc = check_patterns(patterns, err);
		p->patterns = strdup(patterns);
		if (rc == 0 && !p->patterns)
			rc = wd_err_set(err, ENOMEM, "out of memory");
	}
	if (rc == 0)
		rc = address_set_parse("allowed-addresses", settings->allowed_addresses, &p->allowed, err);
	if (rc == 0)
		rc = address_set_parse("blocked-addresses", settings->blocked_addresses, &p->blocked, err);
	if (rc == 0)
		rc = address_set_parse("blocked", ORIGIN_BLOCKED_ADDRESSES, &p->always, err);
	if (rc == 0 && !p->is_on_kubernetes)
		rc = address_set_parse("loopback", "127.0.0.0/8\n::1", &p->local, err);
	if (rc < 0) {
		origin_policy_free(p);
		return rc;
	}
	*ret_policy = p;
	return 0;
}

void origin_policy_free(struct origin_policy *p)
{
	if (!p)
		return;
	address_set_done(&p->allowed);
	address_set_done(&p->blocked);
	address_set_done(&p->always);
	address_set_done(&p->local);
	free(p->patterns);
	free(p);
}

bool origin_policy_is_on_kubernetes(const struct origin_policy *p)
{
	return p->is_on_kubernetes;
}

/* ---- names ---- */

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* Has the path, as a server may read it, a part "." or ".."? */
static bool has_dots(const char *path, bool is_encoded)
{
	char plain[URL_CAP];
	size_t n = 0;

	for (const char *p = path; *p; p++) {
		bool is_escape = is_encoded && *p == '%' && hex_digit(p[1]) >= 0 && hex_digit(p[2]) >= 0;

		plain[n] = is_escape ? (char)(hex_digit(p[1]) << 4 | hex_digit(p[2])) : *p;
		if (plain[n] == '\\')
			plain[n] = '/';
		if (plain[n] == '\0')
			return true;
		n++;
		p += is_escape ? 2 : 0;
	}
	plain[n] = '\0';
	for (const char *p = plain; *p; p += strcspn(p, "/"), p += *p == '/') {
		size_t len = strcspn(p, "/;"); /* some servers take parameters off a part first */

		if ((len == 1 && p[0] == '.') || (len == 2 && memcmp(p, "..", 2) == 0))
			return true;
	}
	return false;
}

/* Only what every parser of URLs takes for the same host. */
static bool is_plain_authority(const char *a)
{
	for (; *a; a++)
		if (!isalnum((unsigned char)*a) && !strchr("-._:[]", *a))
			return false;
	return true;
}

static void cut_slash(char *path)
{
	size_t len = strlen(path);

	if (len > 0 && path[len - 1] == '/')
		path[len - 1] = '\0';
}

static bool is_matched(const struct url *u, const char *line)
{
	struct url pattern;
	char below[URL_CAP + 2], path[URL_CAP];

	if (!split(line, &pattern) || strcmp(pattern.scheme, u->scheme) != 0)
		return false;
	/* "[::1]" is an address, no set of characters */
	if (pattern.authority[0] == '[' ? strcmp(pattern.authority, u->authority) != 0
					: fnmatch(pattern.authority, u->authority, FNM_NOESCAPE) != 0)
		return false;
	strcpy(path, u->path);
	cut_slash(path);
	cut_slash(pattern.path);
	snprintf(below, sizeof(below), "%s/*", pattern.path);
	return fnmatch(pattern.path, path, FNM_NOESCAPE) == 0 || fnmatch(below, path, FNM_NOESCAPE) == 0;
}

static bool is_listed(const struct origin_policy *p, const struct url *u)
{
	char line[URL_CAP];

	/* an S3 prefix is bytes, and ".." in it leads nowhere */
	if (strcmp(u->scheme, "s3") != 0 && has_dots(u->path, is_http(u->scheme)))
		return false;
	for (const char *at = p->patterns; *at; at += strcspn(at, "\n"), at += *at == '\n') {
		snprintf(line, sizeof(line), "%.*s", (int)strcspn(at, "\n"), at);
		if (is_matched(u, line))
			return true;
	}
	return false;
}

/* A host that is written as an address is judged at once. */
static int check_literal(const struct origin_policy *p, const struct url *u, const char *what, struct wd_err *err)
{
	char host[sizeof(u->authority)], why[96];
	const char *bracket = strchr(u->authority, ']');
	size_t len = bracket ? (size_t)(bracket + 1 - u->authority) : strcspn(u->authority, ":");
	struct in6_addr address;

	snprintf(host, sizeof(host), "%.*s", (int)len, u->authority);
	if (!address_of_text(host, &address) || origin_policy_allows(p, &address, false, why, sizeof(why)))
		return 0;
	return wd_err_set(err, EACCES, "the %s '%s://%s' is refused by blocked-addresses (%s)", what, u->scheme,
		u->authority, why);
}

static int check_one(const struct origin_policy *p, const char *url, const char *what, struct wd_err *err)
{
	wd_autofree struct url *u = calloc(1, sizeof(*u));

	if (!u)
		return wd_err_set(err, ENOMEM, "out of memory");
	if (!split(url, u))
		return wd_err_set(err, EINVAL, "the %s is no URL such as s3://bucket/prefix or https://host/path",
			what);
	if (is_http(u->scheme) && !is_plain_authority(u->authority))
		return wd_err_set(err, EINVAL,
			"the %s's host may hold letters, digits, '-', '.', '_', a port and [an IPv6 address]", what);
	if (!p->patterns && p->is_on_kubernetes && strcmp(u->scheme, "file") == 0)
		return wd_err_set(err, EACCES,
			"the %s '%.200s' is refused by allowed-origins: on a Kubernetes node a file: URL must be "
			"listed there by the operator",
			what, url);
	if (p->patterns && !is_listed(p, u))
		return wd_err_set(err, EACCES, "the %s '%s://%s%.200s' is refused by allowed-origins (%.100s%s): the "
			"operator can add it in the agent's configuration",
			what, u->scheme, u->authority, u->path, p->patterns, strlen(p->patterns) > 100 ? "..." : "");
	return is_http(u->scheme) ? check_literal(p, u, what, err) : 0;
}

int origin_policy_check(const struct origin_policy *p, const char *url, const char *endpoint, struct wd_err *err)
{
	int rc = check_one(p, url, "URL", err);

	return rc == 0 && endpoint ? check_one(p, endpoint, "endpoint", err) : rc;
}

/* ---- addresses ---- */

bool origin_policy_allows(const struct origin_policy *p, const struct in6_addr *address, bool is_redirected,
	char *why_blocked, size_t cap)
{
	struct in6_addr forms[ADDRESS_FORMS];
	size_t n = address_forms(address, forms);

	if (!p) {
		snprintf(why_blocked, cap, "out of memory");
		return false;
	}
	for (size_t i = 0; i < n; i++) {
		const char *range = address_set_find(&p->always, &forms[i]);

		if (!range)
			range = address_set_find(&p->blocked, &forms[i]);
		if (!range || address_set_find(&p->allowed, &forms[i]) ||
			(!is_redirected && address_set_find(&p->local, &forms[i])))
			continue;
		snprintf(why_blocked, cap, "%s", range);
		return false;
	}
	return true;
}
