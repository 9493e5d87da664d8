/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The settings of the start stay where they are, since every part reads them without a lock. What may change is handed
 * to the part that keeps it; the others need a restart, which readers do not notice.
 */
#include "agent/reload.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

static void apply_cache_size(struct agent *a, int64_t bytes)
{
	store_set_configured(a->store, (uint64_t)bytes);
}

static void apply_floor(struct agent *a, int64_t bytes)
{
	store_set_floor(a->store, (uint64_t)bytes);
}

static void apply_bandwidth(struct agent *a, int64_t bytes_per_s)
{
	flows_set_limit((uint64_t)bytes_per_s);
}

static const struct {
	const char *name;
	void (*apply)(struct agent *a, int64_t value);
} changeable[] = {
	{"cache-size", apply_cache_size},
	{"free-space-floor", apply_floor},
	{"bandwidth-limit", apply_bandwidth},
};
#define NCHANGEABLE (sizeof(changeable) / sizeof(changeable[0]))

/* -1: it is none of them. */
static int find_changeable(const char *name)
{
	for (size_t i = 0; i < NCHANGEABLE; i++)
		if (strcmp(changeable[i].name, name) == 0)
			return (int)i;
	return -1;
}

static int64_t number_at(const struct settings *s, const struct wd_config_key *key)
{
	return *(const int64_t *)((const char *)s + key->offset);
}

static bool is_equal(const struct settings *a, const struct settings *b, const struct wd_config_key *key)
{
	const char *x = (const char *)a + key->offset, *y = (const char *)b + key->offset;

	if (key->type == WD_CONFIG_BOOL)
		return *(const bool *)x == *(const bool *)y;
	if (key->type == WD_CONFIG_STRING || key->type == WD_CONFIG_LIST) {
		x = *(char *const *)x;
		y = *(char *const *)y;
		return strcmp(x ? x : "", y ? y : "") == 0;
	}
	return number_at(a, key) == number_at(b, key);
}

static void compare(struct agent *a, const struct settings *fresh,
	void (*note)(void *arg, const char *name, bool is_applied), void *arg)
{
	for (const struct wd_config_key *key = settings_keys; key->name; key++) {
		int i = find_changeable(key->name);
		bool is_applied = i >= 0;

		if (is_applied ? number_at(fresh, key) == a->reloaded[i] : is_equal(a->settings, fresh, key))
			continue;
		if (is_applied) {
			changeable[i].apply(a, number_at(fresh, key));
			a->reloaded[i] = number_at(fresh, key);
		}
		wd_info("settings: '%s' has changed%s", key->name, is_applied ? "" : ", which a restart of the agent applies");
		if (note)
			note(arg, key->name, is_applied);
	}
}

void reload_begin(struct agent *a)
{
	_Static_assert(NCHANGEABLE == AGENT_RELOADED, "a place for each of them");
	for (const struct wd_config_key *key = settings_keys; key->name; key++)
		if (find_changeable(key->name) >= 0)
			a->reloaded[find_changeable(key->name)] = number_at(a->settings, key);
}

int reload(struct agent *a, void (*note)(void *arg, const char *name, bool is_applied), void *arg, struct wd_err *err)
{
	struct settings fresh = {0};
	int rc;

	if (!a->reread)
		return wd_err_set(err, ENOTSUP, "this agent has no settings to read again");
	wd_lock(&a->lock);
	while (a->is_reloading)
		wd_cond_wait(&a->reload_done, &a->lock);
	a->is_reloading = true;
	wd_unlock(&a->lock);
	rc = a->reread(a->reread_arg, &fresh, err);
	if (rc == 0)
		compare(a, &fresh, note, arg);
	wd_config_free(settings_keys, &fresh);
	wd_lock(&a->lock);
	a->is_reloading = false;
	wd_cond_broadcast(&a->reload_done);
	wd_unlock(&a->lock);
	return rc;
}
