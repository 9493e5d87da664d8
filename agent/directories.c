/* SPDX-License-Identifier: Apache-2.0 */
/* See directories.h. Symbolic links are never followed: who owned the directories before may have left some. */
#include "agent/directories.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"

#define FDS 16 /* of the walk */
#define CACHE_MODE 0700
#define RUN_MODE 01775 /* the group makes files; only their owner and root remove them */

static const char *const run_files[] = {"agent.sock", "agent.sock.new", "agent.lock", "meta-journal.0", "meta-journal.1"};

/* nftw(3) takes no argument for its callback; main thread. */
static struct owner {
	uid_t uid;
	gid_t gid;
} walk_owner;

static int parse_owner(const char *text, struct owner *ret_owner, struct wd_err *err)
{
	char *end;
	unsigned long uid = strtoul(text, &end, 10), gid;

	if (end == text || *end != ':')
		return wd_err_set(err, EINVAL, "--make-directories '%s': not UID:GID", text);
	text = end + 1;
	gid = strtoul(text, &end, 10);
	if (end == text || *end || uid > INT_MAX || gid > INT_MAX)
		return wd_err_set(err, EINVAL, "--make-directories: not UID:GID: '%s'", text);
	*ret_owner = (struct owner){(uid_t)uid, (gid_t)gid};
	return 0;
}

static int give_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	if (st->st_uid == walk_owner.uid && st->st_gid == walk_owner.gid)
		return 0;
	return lchown(path, walk_owner.uid, walk_owner.gid);
}

static int open_dir(const char *dir, struct stat *ret_st, struct wd_err *err)
{
	int fd;

	if (mkdir(dir, 0755) < 0 && errno != EEXIST)
		return wd_err_sys(err, errno, "create '%s'", dir);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return wd_err_sys(err, errno, "open '%s'", dir);
	if (fstat(fd, ret_st) == 0)
		return fd;
	close(fd);
	return wd_err_sys(err, errno, "look at '%s'", dir);
}

/* The directory itself last: a walk that was ended is begun again. */
static int give_cache(const char *dir, const struct owner *owner, struct wd_err *err)
{
	struct stat st;
	wd_autoclose int fd = open_dir(dir, &st, err);

	if (fd < 0)
		return fd;
	if (st.st_uid == owner->uid && st.st_gid == owner->gid && (st.st_mode & 07777) == CACHE_MODE)
		return 0;
	wd_info("'%s' is given to uid %u, gid %u", dir, owner->uid, owner->gid);
	walk_owner = *owner;
	if (nftw(dir, give_one, FDS, FTW_PHYS | FTW_MOUNT | FTW_DEPTH) != 0)
		return wd_err_sys(err, errno, "give '%s' to uid %u", dir, owner->uid);
	return fchmod(fd, CACHE_MODE) < 0 ? wd_err_sys(err, errno, "change the mode of '%s'", dir) : 0;
}

static int give_run(const char *dir, const struct owner *owner, struct wd_err *err)
{
	struct stat st;
	wd_autoclose int fd = open_dir(dir, &st, err);

	if (fd < 0)
		return fd;
	if (st.st_uid == geteuid() && st.st_gid == owner->gid && (st.st_mode & 07777) == RUN_MODE)
		return 0;
	for (size_t i = 0; i < sizeof(run_files) / sizeof(*run_files); i++)
		if (fchownat(fd, run_files[i], owner->uid, owner->gid, AT_SYMLINK_NOFOLLOW) < 0 && errno != ENOENT)
			return wd_err_sys(err, errno, "give '%s/%s' to uid %u", dir, run_files[i], owner->uid);
	if (fchown(fd, geteuid(), owner->gid) < 0 || fchmod(fd, RUN_MODE) < 0)
		return wd_err_sys(err, errno, "let gid %u into '%s'", owner->gid, dir);
	return 0;
}

int directories_make(const struct settings *s, const char *text, struct wd_err *err)
{
	struct owner owner;
	int rc = parse_owner(text, &owner, err);

	if (rc == 0)
		rc = give_cache(s->cache_dir, &owner, err);
	if (rc == 0)
		rc = give_run(s->run_dir, &owner, err);
	return rc;
}
