/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metadata set aside: renamed beside its place, never removed.
 *
 * What is damaged gets a name that tells the time, and nothing reads it again. What has another format gets a
 * name that tells the format, for the program that knows it; such a program takes its own back, also over
 * what an older one has written meanwhile.
 */
#include "agent/meta_internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/metrics.h"
#include "common/log.h"

static int move_aside(const char *path, const char *aside, const char *why, struct wd_err *err)
{
	if (rename(path, aside) < 0)
		return wd_err_sys(err, errno, "set aside metadata '%s'", path);
	metric_inc(METRIC_META_SET_ASIDE);
	wd_warn("metadata '%s' cannot be used (%s): set aside as '%s'", path, why, aside);
	return 0;
}

int meta_set_aside(const char *dir, const char *path, const char *why, struct wd_err *err)
{
	char aside[4096];
	int rc;

	for (time_t now = time(NULL);; now++) {
		snprintf(aside, sizeof(aside), "%s/meta.%lld.aside", dir, (long long)now);
		rc = access(aside, F_OK) == 0 ? -EEXIST : move_aside(path, aside, why, err);
		if (rc != -ENOTEMPTY && rc != -EEXIST)
			return rc;
	}
}

static void format_name(const char *dir, uint32_t format, char out[4096])
{
	snprintf(out, 4096, "%s/meta.format-%u", dir, format);
}

/* Under a name that tells the format, for the program that knows it. */
static int set_format_aside(const char *dir, const char *path, uint32_t format, struct wd_err *err)
{
	char aside[4096], why[64];
	int rc = 0;

	format_name(dir, format, aside);
	if (access(aside, F_OK) == 0) /* from an earlier time: this one is newer */
		rc = meta_set_aside(dir, aside, "there is a newer one of its format", err);
	snprintf(why, sizeof(why), "format %u", format);
	return rc < 0 ? rc : move_aside(path, aside, why, err);
}

bool meta_has_own_aside(const struct meta_env *e, const char *dir)
{
	char aside[4096];

	format_name(dir, e->format, aside);
	return access(aside, F_OK) == 0;
}

static int take_back(struct meta_env *e, const char *dir, const char *path, struct wd_err *err)
{
	char aside[4096];

	format_name(dir, e->format, aside);
	if (rename(aside, path) < 0)
		return wd_err_sys(err, errno, "take back metadata '%s'", aside);
	e->is_taken_back = true;
	wd_info("metadata '%s' is used again", aside);
	return 0;
}

bool meta_env_has_other(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *entry;
	bool has = false;

	while (d && !has && (entry = readdir(d)) != NULL)
		has = strncmp(entry->d_name, "meta.format-", 12) == 0;
	if (d)
		closedir(d);
	return has;
}

int meta_make_way(struct meta_env *e, const char *dir, const char *path, int why, struct wd_err *err)
{
	int rc = why == MDB_VERSION_MISMATCH || why == 0 ? set_format_aside(dir, path, e->found_format, err)
							 : meta_set_aside(dir, path, mdb_strerror(why), err);

	return rc == 0 && meta_has_own_aside(e, dir) ? take_back(e, dir, path, err) : rc;
}
