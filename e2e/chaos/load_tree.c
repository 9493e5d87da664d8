/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names: listings must have each name once and none besides, and stat must say the right size.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "e2e/chaos/load.h"

static unsigned expected_in(int dir)
{
	return dir == -2 ? CONTENT_HOT : dir == -1 ? CONTENT_COLD : CONTENT_SMALL / CONTENT_DIRS;
}

static void list_one(struct worker *w, int number)
{
	char below[CONTENT_PATH], path[2 * CONTENT_PATH + 256];
	bool is_seen[CONTENT_FILES] = {false};
	unsigned found = 0;
	struct dirent *e;
	int error;
	DIR *dir;

	if (number < 0)
		snprintf(below, sizeof(below), "%s", number == -1 ? "cold" : "hot");
	else
		snprintf(below, sizeof(below), "d%d", number);
	op_begin(w, "list", below, 0);
	errno = 0;
	dir = opendir(w->path);
	while (dir && (errno = 0, e = readdir(dir))) {
		int file;

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", below, e->d_name);
		file = content_find(path);
		if (file < 0 || is_seen[file]) {
			load_wrong(w, "the listing of '%s' has '%s'%s", w->path, e->d_name,
				file < 0 ? "" : " twice");
			continue;
		}
		is_seen[file] = true;
		found++;
	}
	error = errno;
	if (dir)
		closedir(dir);
	op_end(w, error);
	if (!error && found != expected_in(number))
		load_wrong(w, "the listing of '%s' has %u of %u files", w->path, found, expected_in(number));
}

void work_walk(struct worker *w)
{
	while (load_goes_on(w))
		for (int i = -2; i < CONTENT_DIRS && load_goes_on(w); i++)
			list_one(w, i);
}

void work_stat(struct worker *w)
{
	while (load_goes_on(w)) {
		uint32_t file = (uint32_t)load_random(w, CONTENT_FILES);
		char below[CONTENT_PATH];
		struct stat st;
		int rc;

		content_path(file, below);
		op_begin(w, "stat", below, 0);
		rc = stat(w->path, &st);
		op_end(w, rc < 0 ? errno : 0);
		if (rc == 0 && (uint64_t)st.st_size != content_size(file))
			load_wrong(w, "stat of '%s' says %lld bytes", w->path, (long long)st.st_size);
	}
}
