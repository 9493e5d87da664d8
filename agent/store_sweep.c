/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sweep for orphans: files that no record knows of. A kill leaves those whose record was still
 * in the batch (the last tenth of a second), a lost metadata environment leaves all of them; they
 * take space that nobody counts.
 *
 * Not while the metadata of another format lies aside: the files may be what it knows of, and the program
 * of that format finds them again after a roll-back.
 *
 * It runs only after such a start, on the evictor thread when that has nothing else to do, well
 * after the start and a few hundred names at a time, so that it neither delays anybody nor scans
 * the tree when it matters. A partial object with a good map is taken back; anything else is
 * removed.
 */
#include "agent/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"

#define START_DELAY_NS (30 * 1000000000LL)
#define STEP_INTERVAL_NS (20 * 1000000LL)
#define STEP_NAMES 256
#define NDIRS 256

void sweep_prepare(struct store *s)
{
	wd_lock(&s->lock);
	s->sweep.is_on = !meta_was_closed(s->meta) && !meta_has_other_format(s->meta);
	s->sweep.due_ns = wd_now_ns() + START_DELAY_NS;
	s->sweep.interval_ns = STEP_INTERVAL_NS;
	wd_unlock(&s->lock);
}

void sweep_done(struct store *s)
{
	if (s->sweep.open_dir)
		closedir(s->sweep.open_dir);
	s->sweep.open_dir = NULL;
	wd_lock(&s->lock);
	s->sweep.is_on = false;
	wd_cond_broadcast(&s->changed);
	wd_unlock(&s->lock);
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_name(const char *name, struct object_id *ret_id)
{
	for (size_t i = 0; i < sizeof(ret_id->b); i++) {
		int high = hex_digit(name[2 * i]);
		int low = high < 0 ? -1 : hex_digit(name[2 * i + 1]);

		if (low < 0)
			return false;
		ret_id->b[i] = (unsigned char)(high << 4 | low);
	}
	return name[32] == '\0' || strcmp(name + 32, ".map") == 0;
}

static bool is_known(struct store *s, const struct object_id *id)
{
	struct record rec;
	bool is_in_memory;

	wd_lock(&s->lock);
	is_in_memory = store_find_locked(s, id) != NULL;
	wd_unlock(&s->lock);
	/* an error is no proof that there is no record */
	return is_in_memory || record_read(s->meta, id, &rec) != -ENOENT;
}

static void look_at(struct store *s, const char *name)
{
	char path[FILE_NAME_MAX];
	struct object_id id;
	struct object *o;
	struct stat st;

	if (!parse_name(name, &id) || is_known(s, &id))
		return;
	s->sweep.found++;
	file_name(&id, ".map", path);
	if (faccessat(s->dir_fd, path, F_OK, 0) == 0) {
		file_name(&id, "", path);
		/* loading it finds out whether it is any good */
		if (fstatat(s->dir_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
			store_get(s, &id, (uint64_t)st.st_size, &o, NULL) == 0) {
			object_unref(o);
			return;
		}
	}
	(void)evict_object(s, &id, NULL, EVICT_ASKED);
}

/* The next directory that exists; false at the end. */
static bool open_next(struct store *s)
{
	while (!s->sweep.open_dir && s->sweep.dir < NDIRS) {
		char name[8];
		int fd;

		snprintf(name, sizeof(name), "%02x", s->sweep.dir++);
		fd = openat(s->dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (fd < 0)
			continue;
		s->sweep.open_dir = fdopendir(fd);
		if (!s->sweep.open_dir)
			close(fd);
	}
	return s->sweep.open_dir != NULL;
}

void sweep_step(struct store *s)
{
	if (!open_next(s)) {
		if (s->sweep.found > 0)
			wd_info("cache '%s': %llu files without a record were taken back or "
				"removed",
				s->dir, (unsigned long long)s->sweep.found);
		sweep_done(s);
		return;
	}
	for (int i = 0; i < STEP_NAMES; i++) {
		struct dirent *e = readdir(s->sweep.open_dir);

		if (!e) {
			closedir(s->sweep.open_dir);
			s->sweep.open_dir = NULL;
			break;
		}
		if (strlen(e->d_name) >= 32)
			look_at(s, e->d_name);
	}
	wd_lock(&s->lock);
	s->sweep.due_ns = wd_now_ns() + s->sweep.interval_ns;
	wd_unlock(&s->lock);
}

void sweep_run(struct store *s)
{
	wd_lock(&s->lock);
	s->sweep.is_on = true;
	s->sweep.due_ns = s->sweep.interval_ns = 0;
	s->sweep.dir = 0;
	evict_wake_locked(s);
	while (s->sweep.is_on)
		wd_cond_wait(&s->changed, &s->lock);
	wd_unlock(&s->lock);
}
