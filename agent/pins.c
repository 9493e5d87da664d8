/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/pins.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct pins {
	char *text;
	uint16_t tag;
	unsigned n;
	struct pin {
		const char *url; /* within text */
		size_t len;
	} items[];
};

#define SEPARATORS ", \t\r\n"

static unsigned count(const char *list)
{
	unsigned n = 0;

	for (;; n++) {
		list += strspn(list, SEPARATORS);
		if (!*list)
			return n;
		list += strcspn(list, SEPARATORS);
	}
}

int pins_new(const char *list, struct pins **ret_pins, struct wd_err *err)
{
	unsigned n = count(list ? list : "");
	struct pins *p = calloc(1, sizeof(*p) + n * sizeof(p->items[0]));
	const char *at;

	if (!p || !(p->text = strdup(list ? list : ""))) {
		free(p);
		return wd_err_sys(err, ENOMEM, "setting 'pinned'");
	}
	for (at = p->text; p->n < n; p->n++) {
		struct pin *item = &p->items[p->n];

		at += strspn(at, SEPARATORS);
		*item = (struct pin){at, strcspn(at, SEPARATORS)};
		at += item->len;
		if (!memmem(item->url, item->len, "://", 3)) {
			int rc = wd_err_set(err, EINVAL, "setting 'pinned': '%.*s' is no URL",
				(int)(item->len < 200 ? item->len : 200), item->url);

			pins_free(p);
			return rc;
		}
		while (item->len > 0 && item->url[item->len - 1] == '/')
			item->len--;
	}
	if (n > 0)
		p->tag = (uint16_t)(XXH3_64bits(p->text, strlen(p->text)) | 1);
	*ret_pins = p;
	return 0;
}

void pins_free(struct pins *p)
{
	if (!p)
		return;
	free(p->text);
	free(p);
}

uint16_t pins_tag(const struct pins *p)
{
	return p ? p->tag : 0;
}

/* What is left of *ret_len bytes at *at behind `text`, without slashes in between; false: they begin otherwise. */
static bool skip(const char **at, size_t *len, const char *text, size_t text_len)
{
	size_t n = *len < text_len ? *len : text_len;

	if (memcmp(*at, text, n) != 0)
		return false;
	*at += n;
	*len -= n;
	return true;
}

static bool matches(const struct pin *pin, const char *url, size_t url_len, const char *key)
{
	const char *at = pin->url;
	size_t len = pin->len, key_len = strlen(key);

	if (!skip(&at, &len, url, url_len))
		return false;
	if (len == 0) /* the mount is below it, or is it */
		return pin->len == url_len || url[pin->len] == '/';
	if (*at != '/')
		return false;
	at++;
	len--;
	return skip(&at, &len, key, key_len) && len == 0 &&
	       (pin->len - url_len - 1 == key_len || key[pin->len - url_len - 1] == '/');
}

bool pins_match(const struct pins *p, const char *url, const char *key)
{
	size_t url_len;

	if (!p || p->n == 0)
		return false;
	url_len = strlen(url);
	while (url_len > 0 && url[url_len - 1] == '/')
		url_len--;
	for (unsigned i = 0; i < p->n; i++)
		if (matches(&p->items[i], url, url_len, key))
			return true;
	return false;
}
