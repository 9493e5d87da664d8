/* SPDX-License-Identifier: Apache-2.0 */
/* See ctl_scrub.h. One pass for URLs, one for names; errs on the side of blanking. */
#include "warm-job/ctl_scrub.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

static const char *const names[] = {"secret", "token", "password", "passwd", "credential", "signature",
	"authorization", "access_key", "access-key", "accesskey", "api_key", "api-key", "apikey"};

static void blank(char *text, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		text[i] = '*';
}

/* What may stand in the host part of a URL, user info included; not a slash. */
static bool is_authority(char c)
{
	return (unsigned char)c > 0x20 && !strchr("/?#\"'<>\\", c);
}

static void scrub_urls(char *text, size_t len)
{
	for (size_t i = 0; i + 1 < len; i++) {
		size_t at, from = i + 2, last = 0;

		if (text[i] != '/' || text[i + 1] != '/')
			continue;
		/* the last "@": a password may hold one */
		for (at = from; at < len && is_authority(text[at]); at++) {
			if (text[at] == '@')
				last = at;
		}
		if (last)
			blank(text, from, last);
	}
}

/* The length of the name of a secret that starts at text, 0 when none does. */
static size_t name_at(const char *text, size_t len)
{
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		size_t n = strlen(names[i]);

		if (n <= len && strncasecmp(text, names[i], n) == 0)
			return n;
	}
	return 0;
}

static bool is_name(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '-';
}

/* Behind the name: closing quotes, blanks and one ":" or "="; the place of the value, or 0. Quotes
 * may be escaped, where JSON stands in a JSON string. */
static size_t value_at(const char *text, size_t len, size_t at)
{
	while (at < len && is_name(text[at]))
		at++;
	while (at < len && (text[at] == '"' || text[at] == '\'' || text[at] == '\\' || text[at] == ' '))
		at++;
	if (at >= len || (text[at] != ':' && text[at] != '='))
		return 0;
	for (at++; at < len && (text[at] == ' ' || text[at] == '\t'); at++)
		;
	return at;
}

static size_t value_end(const char *text, size_t len, size_t at)
{
	bool is_escaped = at + 1 < len && text[at] == '\\' && (text[at + 1] == '"');
	char quote = 0;

	if (is_escaped)
		at++;
	if (at < len && (text[at] == '"' || text[at] == '\''))
		quote = text[at++];
	for (; at < len && text[at] != '\n'; at++) {
		if (quote && text[at] == '\\' && !is_escaped && at + 1 < len)
			at++; /* whatever it is, it does not end the value */
		else if (quote && text[at] == quote)
			return is_escaped && text[at - 1] == '\\' ? at - 1 : at;
		else if (!quote && strchr("&,;}]", text[at]))
			return at;
	}
	return at;
}

static void scrub_names(char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		size_t n = name_at(text + i, len - i), from, to;

		if (n == 0)
			continue;
		from = value_at(text, len, i + n);
		if (from == 0)
			continue;
		to = value_end(text, len, from);
		while (from < to && strchr("\\\"'", text[from]))
			from++;
		/* structure is no value */
		if (from < to && !strchr("{[", text[from])) {
			blank(text, from, to);
			i = to - 1;
		}
	}
}

void ctl_scrub(char *text, size_t len)
{
	scrub_urls(text, len);
	scrub_names(text, len);
}
