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
	struct mountinfo info = {0};
	const char *p = line, *type;
	size_t len;

	for (int i = 0; i < 2; i++) {
		p = strchr(p, ' ');
		if (!p++)
			return false;
	}
	if (sscanf(p, "%u:%u ", &info.major, &info.minor) != 2)
		return false;
	for (int i = 0; i < 2; i++) {
		p = strchr(p, ' ');
		if (!p++)
			return false;
	}
	type = strstr(p, " - ");
	if (!type)
		return false;
	type += 3;
	len = strcspn(type, " \n");
	if (!decode(type, len, info.type, sizeof(info.type)) ||
		!decode(p, strcspn(p, " "), ret_target, PATH_MAX))
		return false;
	*ret_info = info;
	return true;
}

int mountinfo_find(const char *target, struct mountinfo *ret_info, struct wd_err *err)
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
		if (mountinfo_parse(line, &info, here) && strcmp(here, target) == 0) {
			*ret_info = info;
			found = 1;
		}
	}
	fclose(f);
	return found;
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
