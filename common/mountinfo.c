/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads /proc/self/mountinfo line by line. A node may have thousands of mounts, so nothing is kept
 * but the line at hand. Of several mounts on one target the last line is the one on top.
 */
#include "common/mountinfo.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

static bool is_octal(char c)
{
	return c >= '0' && c <= '7';
}

/* Copies one field, turning \ooo into its byte. False when it does not fit. */
static bool decode(const char *from, size_t len, char *to, size_t cap)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		char c = from[i];

		if (c == '\\' && len - i > 3 && is_octal(from[i + 1]) && is_octal(from[i + 2]) &&
			is_octal(from[i + 3])) {
			c = (char)((from[i + 1] - '0') * 64 + (from[i + 2] - '0') * 8 +
				   (from[i + 3] - '0'));
			i += 3;
		}
		if (n + 1 >= cap)
			return false;
		to[n++] = c;
	}
	to[n] = '\0';
	return true;
}

/* id parent major:minor root target options [tags] - type source options */
bool mountinfo_parse(const char *line, struct mountinfo *ret_info, char *ret_target)
{
	const char *p = line, *root, *type;
	struct mountinfo info;

	if (sscanf(p, "%u %*u %u:%u ", &info.id, &info.major, &info.minor) != 3)
		return false;
	for (int i = 0; i < 3; i++) {
		p = strchr(p, ' ');
		if (!p++)
			return false;
	}
	root = p;
	p = strchr(p, ' ');
	if (!p++)
		return false;
	type = strstr(p, " - ");
	if (!type)
		return false;
	type += 3;
	if (!decode(root, strcspn(root, " "), info.root, sizeof(info.root)) ||
		!decode(type, strcspn(type, " \n"), info.type, sizeof(info.type)) ||
		!decode(p, strcspn(p, " "), ret_target, PATH_MAX))
		return false;
	*ret_info = info;
	return true;
}

bool mountinfo_source(const char *line, char *ret_source)
{
	const char *p = strstr(line, " - ");

	p = p ? strchr(p + 3, ' ') : NULL;
	return p && decode(p + 1, strcspn(p + 1, " \n"), ret_source, PATH_MAX);
}

struct wanted {
	const char *target;    /* where it is mounted; or NULL, and then */
	bool is_whole;	       /* a mount of all of */
	unsigned major, minor; /* these, */
	unsigned id;	       /* or the one with this id */
};

static bool is_wanted(const struct wanted *w, const struct mountinfo *info, const char *target)
{
	if (w->target)
		return strcmp(target, w->target) == 0;
	if (w->is_whole)
		return info->major == w->major && info->minor == w->minor && strcmp(info->root, "/") == 0;
	return info->id == w->id;
}

/* The last line that is wanted. */
static int find(
	const struct wanted *wanted, struct mountinfo *ret_info, char *ret_target, struct wd_err *err)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	wd_autofree char *line = NULL;
	char here[PATH_MAX];
	struct mountinfo info;
	size_t cap = 0;
	int found = 0;

	if (!f)
		return wd_err_sys(err, errno, "read '/proc/self/mountinfo'");
	while (getline(&line, &cap, f) >= 0) {
		if (!mountinfo_parse(line, &info, here) || !is_wanted(wanted, &info, here))
			continue;
		*ret_info = info;
		strcpy(ret_target, here);
		found = 1;
	}
	fclose(f);
	return found;
}

int mountinfo_find(const char *target, struct mountinfo *ret_info, struct wd_err *err)
{
	char here[PATH_MAX];

	return find(&(struct wanted){.target = target}, ret_info, here, err);
}

int mountinfo_find_id(unsigned id, struct mountinfo *ret_info, char *ret_target, struct wd_err *err)
{
	return find(&(struct wanted){.id = id}, ret_info, ret_target, err);
}

int mountinfo_find_whole(unsigned major, unsigned minor, struct mountinfo *ret_info, char *ret_target,
	struct wd_err *err)
{
	struct wanted wanted = {.is_whole = true, .major = major, .minor = minor};

	return find(&wanted, ret_info, ret_target, err);
}

bool mountinfo_has(unsigned major, unsigned minor)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	wd_autofree char *line = NULL;
	char here[PATH_MAX];
	struct mountinfo info;
	bool is_there = !f;
	size_t cap = 0;

	while (f && !is_there && getline(&line, &cap, f) >= 0)
		is_there = mountinfo_parse(line, &info, here) && info.major == major &&
			   info.minor == minor;
	if (f)
		fclose(f);
	return is_there;
}
