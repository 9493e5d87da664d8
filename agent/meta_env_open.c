/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The LMDB environment opened: at the start, and anew when it died.
 *
 * What cannot be used is set aside (meta_aside.c) and a fresh one begun. A file that is shorter than its own
 * header says is refused before anything is read from the map. The map's size is halved until the address
 * space allows it, and the lock file is allocated before LMDB writes it through a mapping.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/meta_env_internal.h"
#include "agent/meta_guard.h"
#include "common/cleanup.h"

#define MAP_SIZE_MIN ((size_t)1 << 20)
#define READERS_MAX 1024 /* transactions open at once; more than there are threads */
#define LOCK_FILE_BYTES ((READERS_MAX + 64) * 64) /* LMDB's reader table, a cache line each, rounded up */

/* Is this LMDB saying that the file is not what it should be? Then a fresh one is begun. */
static bool is_unreadable(int rc)
{
	return rc < 0 && rc != MDB_MAP_FULL && rc != MDB_READERS_FULL && rc != MDB_DBS_FULL;
}

/* A file cut short would be a SIGBUS at the first page that is missing. */
static bool is_cut_short(MDB_env *env)
{
	MDB_envinfo info;
	MDB_stat stat;
	struct stat st;
	mdb_filehandle_t fd;

	if (mdb_env_info(env, &info) != 0 || mdb_env_stat(env, &stat) != 0 ||
		mdb_env_get_fd(env, &fd) != 0 || fstat(fd, &st) < 0)
		return true;
	return (uint64_t)st.st_size < ((uint64_t)info.me_last_pgno + 1) * stat.ms_psize;
}

/* Opens the tables and checks the format. 0, an LMDB or errno code, or MDB_VERSION_MISMATCH. */
static int open_tables(struct meta_env *e)
{
	MDB_txn *txn;
	size_t entries = 0;
	int rc = mdb_txn_begin(e->env, NULL, 0, &txn);

	for (int i = 0; rc == 0 && i < META_TABLES; i++) {
		MDB_stat stat;

		rc = mdb_dbi_open(txn, meta_table_names[i], MDB_CREATE, &e->dbi[i]);
		if (rc == 0)
			rc = mdb_stat(txn, e->dbi[i], &stat);
		if (rc == 0)
			entries += stat.ms_entries;
	}
	if (rc != 0) {
		mdb_txn_abort(txn);
		return rc;
	}
	rc = mdb_txn_commit(txn);
	if (rc != 0)
		return rc;

	size_t len;

	e->found_format = e->format;
	if (entries == 0)
		return -meta_env_put_info(e, "format", &e->format, sizeof(e->format));
	rc = meta_env_get(e, META_INFO, "format", 6, &e->found_format, sizeof(e->found_format), &len);
	if (rc < 0 || len != sizeof(e->found_format) || e->found_format == 0)
		return MDB_CORRUPTED;
	return e->found_format <= e->format ? 0 : MDB_VERSION_MISMATCH;
}

static void on_assertion(MDB_env *env, const char *msg)
{
	guard_throw(GUARD_GARBAGE);
}

static int make_env(MDB_env **ret_env)
{
	MDB_env *env;
	int rc = mdb_env_create(&env);

	if (rc != 0)
		return rc;
	rc = mdb_env_set_assert(env, on_assertion);
	if (rc == 0)
		rc = mdb_env_set_maxdbs(env, META_TABLES);
	if (rc == 0)
		rc = mdb_env_set_maxreaders(env, READERS_MAX);
	if (rc == 0)
		*ret_env = env;
	else
		mdb_env_close(env);
	return rc;
}

/*
 * LMDB writes its lock file through a mapping, so that on a full file system it would be SIGBUS. What it will
 * map is allocated beforehand (it takes a larger file as it is); the data file it writes by pwrite.
 */
static int reserve_lock(const char *path)
{
	char name[4096 + 16];

	snprintf(name, sizeof(name), "%s/lock.mdb", path);

	wd_autoclose int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	int code = fd < 0 ? errno : posix_fallocate(fd, 0, LOCK_FILE_BYTES);

	/* a file system that cannot allocate is not made to */
	return code == EOPNOTSUPP || code == EINVAL ? 0 : code;
}

static int open_guarded(struct meta_env *e, struct meta_call *c)
{
	const char *path = c->path;
	size_t map_size = e->first_map_size;
	int rc;

	/* an address space limit may forbid the size one would like */
	for (e->map_size = map_size;; e->map_size /= 2) {
		rc = make_env(&e->env);
		if (rc != 0)
			return rc;
		rc = mdb_env_set_mapsize(e->env, e->map_size);
		if (rc == 0)
			rc = mdb_env_open(e->env, path, MDB_NOTLS | MDB_NOMEMINIT, 0600);
		if (rc != ENOMEM || e->map_size / 2 < MAP_SIZE_MIN)
			break;
		mdb_env_close(e->env);
	}
	if (rc == 0 && is_cut_short(e->env))
		rc = MDB_CORRUPTED;
	if (rc == 0)
		rc = open_tables(e);
	if (rc != 0)
		mdb_env_close(e->env);
	return rc;
}

static int try_open(struct meta_env *e, const char *path)
{
	struct meta_call c = {.path = path};
	int rc = reserve_lock(path);

	if (rc != 0)
		return rc;
	atomic_store(&e->is_dead, false);
	rc = meta_env_guarded(e, open_guarded, &c);
	if (!atomic_load(&e->is_dead))
		return rc;
	return rc < 0 ? rc : MDB_CORRUPTED;
}

static int open_or_set_aside(struct meta_env *e, const char *dir, struct wd_err *err)
{
	char path[4096];

	if ((size_t)snprintf(path, sizeof(path), "%s/meta", dir) >= sizeof(path) - 64)
		return wd_err_set(err, ENAMETOOLONG, "cache directory '%s': name too long", dir);
	/* at most: what is there, what is taken back, a new one */
	for (int attempt = 0;; attempt++) {
		int rc;

		if (mkdir(path, 0700) < 0 && errno != EEXIST)
			return wd_err_sys(err, errno, "create metadata directory '%s'", path);
		rc = try_open(e, path);
		if (rc == 0 && e->found_format < e->format && meta_has_own_aside(e, dir))
			mdb_env_close(e->env);
		else if (rc == 0)
			break;
		else if (attempt > 1 || !is_unreadable(rc))
			return wd_err_set(err, -meta_env_errno(rc), "open metadata '%s': %s", path,
				mdb_strerror(rc));
		rc = meta_make_way(e, dir, path, rc, err);
		if (rc < 0)
			return rc;
	}
	return e->found_format == e->format
		       ? 0
		       : meta_env_put_info(e, "format", &e->format, sizeof(e->format));
}

int meta_env_open(struct meta_env *e, const char *dir, size_t map_size, uint32_t format,
	struct wd_err *err)
{
	int rc = guard_install();

	if (rc < 0)
		return wd_err_sys(err, -rc, "catch SIGBUS");
	*e = (struct meta_env){.dir = dir, .first_map_size = map_size, .format = format};
	pthread_rwlock_init(&e->resize, NULL);
	rc = open_or_set_aside(e, dir, err);
	if (rc < 0)
		e->env = NULL;
	return rc;
}

int meta_env_revive(struct meta_env *e, const char *dir, struct wd_err *err)
{
	struct meta_env fresh = {.dir = e->dir, .first_map_size = e->first_map_size, .format = e->format};
	char lock[4096 + 16];
	int rc;

	/* the mutexes in it may be held for ever */
	snprintf(lock, sizeof(lock), "%s/meta/lock.mdb", dir);
	if (unlink(lock) < 0 && errno != ENOENT)
		return wd_err_sys(err, errno, "remove '%s'", lock);
	if (atomic_load(&e->is_garbage)) {
		char path[4096];

		snprintf(path, sizeof(path), "%s/meta", dir);
		rc = meta_set_aside(dir, path, "garbage", err);
		if (rc < 0 && rc != -ENOENT)
			return rc;
		atomic_store(&e->is_garbage, false);
	}
	rc = open_or_set_aside(&fresh, dir, err);
	if (rc < 0)
		return rc;
	/* a reader that hangs in what is dead must not hang the writer */
	if (pthread_rwlock_trywrlock(&e->resize) != 0) {
		mdb_env_close(fresh.env);
		return wd_err_set(err, EAGAIN, "open metadata '%s/meta' again: it is in use", dir);
	}
	e->env = fresh.env;
	memcpy(e->dbi, fresh.dbi, sizeof(e->dbi));
	e->map_size = fresh.map_size;
	atomic_store(&e->is_dead, false);
	pthread_rwlock_unlock(&e->resize);
	return 0;
}

void meta_env_close(struct meta_env *e)
{
	if (e->env && !atomic_load(&e->is_dead))
		mdb_env_close(e->env);
	pthread_rwlock_destroy(&e->resize);
}
