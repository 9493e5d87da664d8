/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules are compared as text. Those that are asked for change in a copy, which is written down (pins_file.c) and then
 * takes the place of the one before: no lock is held meanwhile, and who comes second waits for is_changing.
 */
#include "agent/pins_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

#include "common/cleanup.h"

#define SEPARATORS ", \t\r\n"

/* ---- lists ---- */

static struct pin_list *list_new(unsigned cap)
{
	struct pin_list *l = calloc(1, sizeof(*l) + cap * sizeof(l->items[0]));

	if (l)
		l->cap = cap;
	return l;
}

void pin_list_free(struct pin_list *l)
{
	for (unsigned i = 0; l && i < l->n; i++)
		free(l->items[i].url);
	free(l);
}

static bool list_append(struct pin_list *l, const char *url, size_t len)
{
	while (len > 0 && url[len - 1] == '/')
		len--;
	l->items[l->n] = (struct pin){strndup(url, len), len};
	return l->items[l->n].url && ++l->n;
}

/* A copy without item `but`, with room for one more. */
static struct pin_list *list_copy(const struct pin_list *l, unsigned but)
{
	struct pin_list *copy = list_new((l ? l->n : 0) + 1);

	if (!copy)
		return NULL;
	copy->tag = l ? l->tag : 0;
	for (unsigned i = 0; l && i < l->n; i++) {
		if (i != but && !list_append(copy, l->items[i].url, l->items[i].len)) {
			pin_list_free(copy);
			return NULL;
		}
	}
	return copy;
}

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
	struct pins *p = calloc(1, sizeof(*p));
	const char *at = list ? list : "";
	unsigned n = count(at);

	if (!p || !(p->setting = list_new(n + 1))) {
		free(p);
		return wd_err_sys(err, ENOMEM, "setting 'pinned'");
	}
	wd_mutex_init(&p->lock);
	wd_cond_init(&p->changed);
	for (unsigned i = 0; i < n; i++) {
		size_t len;
		int rc = 0;

		at += strspn(at, SEPARATORS);
		len = strcspn(at, SEPARATORS);
		if (!memmem(at, len, "://", 3))
			rc = wd_err_set(err, EINVAL, "setting 'pinned': '%.*s' is no URL", (int)(len < 200 ? len : 200), at);
		else if (!list_append(p->setting, at, len))
			rc = wd_err_sys(err, ENOMEM, "setting 'pinned'");
		if (rc < 0) {
			pins_free(p);
			return rc;
		}
		at += len;
	}
	if (n > 0)
		p->setting->tag = (uint16_t)(XXH3_64bits(list, strlen(list)) | 1);
	*ret_pins = p;
	return 0;
}

void pins_free(struct pins *p)
{
	if (!p)
		return;
	pin_list_free(p->setting);
	wd_lock(&p->lock);
	pin_list_free(p->asked);
	wd_unlock(&p->lock);
	wd_cond_done(&p->changed);
	wd_mutex_done(&p->lock);
	free(p->dir);
	free(p);
}

/* An even one, which no setting has. */
uint16_t pins_new_tag(uint16_t not_this)
{
	uint16_t tag = 0;

	while (tag == 0 || tag == not_this) {
		if (getrandom(&tag, sizeof(tag), 0) != sizeof(tag))
			tag = not_this + 2;
		tag &= 0xfffe;
	}
	return tag;
}

uint16_t pins_tag(struct pins *p, enum store_pin kind)
{
	uint16_t tag;

	if (!p)
		return 0;
	if (kind == STORE_PIN_SETTING)
		return p->setting->tag;
	wd_lock(&p->lock);
	tag = p->asked ? p->asked->tag : 0;
	wd_unlock(&p->lock);
	return tag;
}

/* ---- matching ---- */

/* What is left of *len bytes at *at behind `text`, without slashes in between; false: they begin otherwise. */
static bool skip(const char **at, size_t *len, const char *text, size_t text_len)
{
	size_t n = *len < text_len ? *len : text_len;

	if (memcmp(*at, text, n) != 0)
		return false;
	*at += n;
	*len -= n;
	return true;
}

static bool matches(const struct pin *pin, const char *url, size_t url_len, const char *key, size_t key_len)
{
	const char *at = pin->url;
	size_t len = pin->len;

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

static const struct pin *find(const struct pin_list *l, const char *url, const char *key)
{
	size_t url_len = strlen(url), key_len = strlen(key);

	while (url_len > 0 && url[url_len - 1] == '/')
		url_len--;
	while (key_len > 0 && key[key_len - 1] == '/')
		key_len--;
	for (unsigned i = 0; l && i < l->n; i++)
		if (matches(&l->items[i], url, url_len, key, key_len))
			return &l->items[i];
	return NULL;
}

enum store_pin pins_match(struct pins *p, const char *url, const char *key)
{
	bool is_asked;

	if (!p)
		return STORE_UNPINNED;
	if (find(p->setting, url, key))
		return STORE_PIN_SETTING;
	if (!atomic_load_explicit(&p->nasked, memory_order_relaxed))
		return STORE_UNPINNED;
	wd_lock(&p->lock);
	is_asked = find(p->asked, url, key) != NULL;
	wd_unlock(&p->lock);
	return is_asked ? STORE_PIN_ASKED : STORE_UNPINNED;
}

char *pins_rule(struct pins *p, unsigned number, enum store_pin *ret_kind)
{
	unsigned nsetting = p->setting->n;
	char *url = NULL;

	*ret_kind = number < nsetting ? STORE_PIN_SETTING : STORE_PIN_ASKED;
	if (number < nsetting)
		return strdup(p->setting->items[number].url);
	wd_lock(&p->lock);
	if (p->asked && number - nsetting < p->asked->n)
		url = strdup(p->asked->items[number - nsetting].url);
	wd_unlock(&p->lock);
	return url;
}

/* ---- changing ---- */

static int find_exactly(const struct pin_list *l, const char *url)
{
	for (unsigned i = 0; l && i < l->n; i++)
		if (strcmp(l->items[i].url, url) == 0)
			return (int)i;
	return -1;
}

/* The rule's text; NULL: out of memory. */
static char *rule_of(const char *url, const char *path)
{
	size_t url_len = strlen(url), path_len = strlen(path);
	char *text;

	while (url_len > 0 && url[url_len - 1] == '/')
		url_len--;
	while (path_len > 0 && path[path_len - 1] == '/')
		path_len--;
	if (asprintf(&text, "%.*s%s%.*s", (int)url_len, url, path_len ? "/" : "", (int)path_len, path) < 0)
		return NULL;
	return text;
}

/* The one list that nobody else changes until end_change(). */
static struct pin_list *begin_change(struct pins *p)
{
	struct pin_list *l;

	wd_lock(&p->lock);
	while (p->is_changing)
		wd_cond_wait(&p->changed, &p->lock);
	p->is_changing = true;
	l = p->asked;
	wd_unlock(&p->lock);
	return l;
}

/* next NULL: nothing has changed. */
static void end_change(struct pins *p, struct pin_list *next)
{
	struct pin_list *gone = NULL;

	wd_lock(&p->lock);
	if (next) {
		gone = p->asked;
		p->asked = next;
		atomic_store(&p->nasked, next->n);
	}
	p->is_changing = false;
	wd_cond_broadcast(&p->changed);
	wd_unlock(&p->lock);
	pin_list_free(gone);
}

static int write_change(struct pins *p, struct pin_list **next, struct wd_err *err)
{
	int rc = *next ? pins_write(p, *next, err) : wd_err_sys(err, ENOMEM, "keep what is pinned");

	if (rc < 0) {
		pin_list_free(*next);
		*next = NULL;
	}
	return rc;
}

int pins_add(struct pins *p, const char *url, const char *path, struct wd_err *err)
{
	wd_autofree char *rule = rule_of(url, path);
	struct pin_list *old, *next = NULL;
	int rc = 0;

	if (!rule)
		return wd_err_sys(err, ENOMEM, "pin");
	old = begin_change(p);
	if (find_exactly(old, rule) < 0) {
		if (old && old->n >= PINS_ASKED_MAX) {
			rc = wd_err_set(err, ENOSPC, "there are %d rules already, and no room for more: pin whole "
				"directories", PINS_ASKED_MAX);
		} else {
			next = list_copy(old, UINT32_MAX);
			if (next && !list_append(next, rule, strlen(rule))) {
				pin_list_free(next);
				next = NULL;
			}
			rc = write_change(p, &next, err);
		}
	}
	end_change(p, next);
	return rc;
}

/* Why there is nothing to end. */
static int refuse_removal(struct pins *p, const char *url, const char *path, struct wd_err *err)
{
	const struct pin *pin = find(p->setting, url, path);

	if (pin)
		return wd_err_set(err, ENOENT, "it is pinned by the setting 'pinned' (%.200s)", pin->url);
	wd_lock(&p->lock);
	pin = find(p->asked, url, path);
	if (pin)
		wd_err_set(err, ENOENT, "it is pinned as a part of '%.200s': unpin that", pin->url);
	else
		wd_err_set(err, ENOENT, "it is not pinned");
	wd_unlock(&p->lock);
	return -ENOENT;
}

int pins_remove(struct pins *p, const char *url, const char *path, struct wd_err *err)
{
	wd_autofree char *rule = rule_of(url, path);
	struct pin_list *old, *next = NULL;
	int rc, at;

	if (!rule)
		return wd_err_sys(err, ENOMEM, "unpin");
	old = begin_change(p);
	at = find_exactly(old, rule);
	if (at >= 0) {
		next = list_copy(old, (unsigned)at);
		if (next && next->n == 0)
			next->tag = pins_new_tag(next->tag);
		rc = write_change(p, &next, err);
	} else {
		rc = refuse_removal(p, url, path, err);
	}
	end_change(p, next);
	return rc;
}
