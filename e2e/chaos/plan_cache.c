/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache is damaged while it is used: maps with flipped bits, zeros, cut or gone, files and directories
 * removed, a full disk. It lies on a small file system of its own, so that it can be filled. The data of files
 * that are open is left alone: what the kernel reads from them nobody can check (ARCHITECTURE, "A bad block").
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "e2e/chaos/chaos.h"

#define DISK "size=176m" /* the cache's limit, and some more */
#define PATH 1024

static int configure(struct chaos *c, struct wd_err *err)
{
	/* the disk may be smaller than what is left free by default */
	chaos_agent_argument(c, "--set");
	chaos_agent_argument(c, "free-space-floor=0");
	if (mount("small", chaos_cache_dir(c), "tmpfs", MS_NOSUID | MS_NODEV, DISK) < 0)
		return wd_err_sys(err, errno, "mount a small file system on '%s'", chaos_cache_dir(c));
	return 0;
}

/* A random entry of a directory of which `is_fit` holds; false when there is none. */
static bool pick(struct chaos *c, const char *dir, bool (*is_fit)(const char *name), char out[PATH])
{
	DIR *d = opendir(dir);
	struct dirent *e;
	uint64_t seen = 0;

	while (d && (e = readdir(d)) != NULL)
		if (is_fit(e->d_name) && chaos_random(c, ++seen) == 0 &&
			snprintf(out, PATH, "%s/%s", dir, e->d_name) >= PATH)
			out[0] = '\0'; /* no such file: nothing is damaged this time */
	if (d)
		closedir(d);
	return seen > 0;
}

static bool is_objects_dir(const char *name)
{
	return strlen(name) == 2 && name[0] != '.';
}

static bool is_file(const char *name)
{
	return strlen(name) == 32;
}

static bool is_map(const char *name)
{
	return strlen(name) == 36;
}

static void objects_dir(struct chaos *c, char out[PATH])
{
	snprintf(out, PATH, "%s/objects", chaos_cache_dir(c));
}

/* A few tries: most directories have no map. */
static bool pick_in_objects(struct chaos *c, bool (*is_fit)(const char *name), char out[PATH])
{
	char objects[PATH], dir[PATH];

	objects_dir(c, objects);
	for (int i = 0; i < 64; i++)
		if (pick(c, objects, is_objects_dir, dir) && pick(c, dir, is_fit, out))
			return true;
	return false;
}

/* ---- the faults; what is gone meanwhile, by eviction, was not there to be damaged ---- */

static void overwrite_map(struct chaos *c, bool is_flip)
{
	char path[PATH];
	unsigned char bytes[64] = {0};
	wd_autoclose int fd = -1;
	struct stat st;
	off_t at;

	if (!pick_in_objects(c, is_map, path) || (fd = open(path, O_RDWR | O_CLOEXEC)) < 0 ||
		fstat(fd, &st) < 0 || st.st_size == 0)
		return;
	at = (off_t)chaos_random(c, (uint64_t)st.st_size);
	if (is_flip && pread(fd, bytes, 1, at) == 1)
		bytes[0] ^= (unsigned char)(1 << chaos_random(c, 8));
	if (pwrite(fd, bytes, is_flip ? 1 : sizeof(bytes), at) < 0)
		chaos_note(c, "%s: %s", path, strerror(errno));
}

static void flip_map(struct chaos *c)
{
	overwrite_map(c, true);
}

static void zero_map(struct chaos *c)
{
	overwrite_map(c, false);
}

static void cut_map(struct chaos *c)
{
	char path[PATH];
	struct stat st;

	if (pick_in_objects(c, is_map, path) && stat(path, &st) == 0)
		(void)!truncate(path, (off_t)chaos_random(c, (uint64_t)st.st_size + 1));
}

static void remove_map(struct chaos *c)
{
	char path[PATH];

	if (pick_in_objects(c, is_map, path))
		unlink(path);
}

static void remove_file(struct chaos *c)
{
	char path[PATH];

	for (int i = 0; i < 5; i++)
		if (pick_in_objects(c, is_file, path))
			unlink(path);
}

static void remove_tree(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	char path[PATH];

	while (d && (e = readdir(d)) != NULL) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (snprintf(path, sizeof(path), "%s/%s", dir, e->d_name) < (int)sizeof(path) && unlink(path) < 0)
			remove_tree(path);
	}
	if (d)
		closedir(d);
	rmdir(dir);
}

static void remove_directory(struct chaos *c)
{
	char objects[PATH], dir[PATH];

	objects_dir(c, objects);
	if (pick(c, objects, is_objects_dir, dir))
		remove_tree(dir);
}

static void remove_all(struct chaos *c)
{
	char objects[PATH];

	objects_dir(c, objects);
	if (chaos_random(c, 4) == 0)
		remove_tree(objects);
}

static void filler(struct chaos *c, char out[PATH])
{
	snprintf(out, PATH, "%s/filler", chaos_cache_dir(c));
}

static void fill_disk(struct chaos *c)
{
	char path[PATH];
	wd_autoclose int fd = -1;
	off_t at = 0;

	filler(c, path);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	for (off_t step = 16 << 20; fd >= 0 && step >= 4096; step /= 2)
		while (posix_fallocate(fd, at, step) == 0)
			at += step;
}

static int inject(struct chaos *c, struct wd_err *err)
{
	static void (*const faults[])(struct chaos *c) = {flip_map, zero_map, cut_map, remove_map, remove_file,
		remove_directory, remove_all, fill_disk};
	char path[PATH];

	filler(c, path);
	unlink(path); /* a full disk lasts until the next fault */
	faults[chaos_random(c, sizeof(faults) / sizeof(*faults))](c);
	return 0;
}

static int finish(struct chaos *c, struct wd_err *err)
{
	char path[PATH];

	filler(c, path);
	unlink(path);
	/* the agent goes on with it; the directory is the run's again */
	if (umount2(chaos_cache_dir(c), MNT_DETACH) < 0)
		return wd_err_sys(err, errno, "unmount the small file system on '%s'", chaos_cache_dir(c));
	return 0;
}

const struct plan plan_cache = {
	.name = "cache",
	.help = "maps damaged, files and directories of the cache removed, its disk filled up",
	.min_ms = 100,
	.max_ms = 500,
	.faults = 50,
	.configure = configure,
	.inject = inject,
	.finish = finish,
};
