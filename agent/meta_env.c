/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The LMDB environment below the metadata: opening it or setting it aside, checked reads, one
 * synced transaction per batch.
 *
 * LMDB checks nothing it reads, so that every value carries a checksum, and a file that is shorter
 * than its own header says is refused before anything is read from the map. The map is large and
 * sparse and grows when it is full, which LMDB allows only while no transaction is open: `resize`
 * sees to that.
 *
 * Readers may come from any thread (MDB_NOTLS: a transaction belongs to no thread); only the writer
 * thread, and meta_open and meta_close when it does not run, commit.
 */
#include "agent/meta_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"

#define MAP_SIZE_MIN ((size_t)1 << 20)
#define READERS_MAX 1024 /* transactions open at once; more than there are threads */
#define LOCK_FILE_BYTES ((READERS_MAX + 64) * 64) /* LMDB's reader table, a cache line each, rounded up */

static const char *const table_names[META_TABLES] = {
	[META_INFO] = "info",
	[META_NODES] = "nodes",
	[META_CHILDREN] = "children",
	[META_COOKIES] = "cookies",
	[META_DATASETS] = "datasets",
	[META_OBJECTS] = "objects",
	[META_LRU] = "lru",
	[META_PROOFS] = "proofs",
};

uint64_t meta_checksum(
	enum meta_table table, const void *key, size_t key_len, const void *value, size_t len)
{
	return XXH3_64bits_withSeed(value, len, XXH3_64bits_withSeed(key, key_len, table));
}

/* LMDB's codes are errno values or negative ones of its own. */
static int to_errno(int rc)
{
	if (rc >= 0)
		return -rc;
	switch (rc) {
	case MDB_NOTFOUND:
		return -ENOENT;
	case MDB_MAP_FULL:
		return -ENOSPC;
	case MDB_READERS_FULL:
		return -EAGAIN;
	default:
		return -EIO;
	}
}

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

		rc = mdb_dbi_open(txn, table_names[i], MDB_CREATE, &e->dbi[i]);
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

	uint32_t format = META_FORMAT;
	size_t len;

	if (entries == 0)
		return -meta_env_put_info(e, "format", &format, sizeof(format));
	rc = meta_env_get(e, META_INFO, "format", 6, &format, sizeof(format), &len);
	return rc == 0 && len == sizeof(format) && format == META_FORMAT ? 0 : MDB_VERSION_MISMATCH;
}

static int make_env(MDB_env **ret_env)
{
	MDB_env *env;
	int rc = mdb_env_create(&env);

	if (rc != 0)
		return rc;
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

static int try_open(struct meta_env *e, const char *path, size_t map_size)
{
	int rc = reserve_lock(path);

	if (rc != 0)
		return rc;
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

static int set_aside(const char *dir, const char *path, int why, struct wd_err *err)
{
	char aside[4096];

	for (time_t now = time(NULL);; now++) {
		snprintf(aside, sizeof(aside), "%s/meta.%lld.aside", dir, (long long)now);
		if (rename(path, aside) == 0)
			break;
		if (errno != ENOTEMPTY && errno != EEXIST)
			return wd_err_sys(err, errno, "set aside unusable metadata '%s'", path);
	}
	wd_warn("metadata '%s' cannot be used (%s): set aside as '%s', starting anew", path,
		mdb_strerror(why), aside);
	return 0;
}

int meta_env_open(struct meta_env *e, const char *dir, size_t map_size, struct wd_err *err)
{
	char path[4096];

	*e = (struct meta_env){0};
	if ((size_t)snprintf(path, sizeof(path), "%s/meta", dir) >= sizeof(path) - 64)
		return wd_err_set(err, ENAMETOOLONG, "cache directory '%s': name too long", dir);
	pthread_rwlock_init(&e->resize, NULL);
	for (int attempt = 0;; attempt++) {
		int rc;

		if (mkdir(path, 0700) < 0 && errno != EEXIST)
			return wd_err_sys(err, errno, "create metadata directory '%s'", path);
		rc = try_open(e, path, map_size);
		if (rc == 0)
			break;
		if (attempt > 0 || !is_unreadable(rc))
			return wd_err_set(err, -to_errno(rc), "open metadata '%s': %s", path,
				mdb_strerror(rc));
		rc = set_aside(dir, path, rc, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

void meta_env_close(struct meta_env *e)
{
	mdb_env_close(e->env);
	pthread_rwlock_destroy(&e->resize);
}

/* Checks and strips the checksum. -EILSEQ for damage, which is logged and counted. */
static int check_value(
	struct meta_env *e, enum meta_table table, const MDB_val *key, MDB_val *value)
{
	uint64_t sum;

	if (value->mv_size >= META_CHECKSUM) {
		value->mv_size -= META_CHECKSUM;
		memcpy(&sum, (const char *)value->mv_data + value->mv_size, META_CHECKSUM);
		if (sum == meta_checksum(table, key->mv_data, key->mv_size, value->mv_data,
				   value->mv_size))
			return 0;
	}
	if (atomic_fetch_add_explicit(&e->damaged, 1, memory_order_relaxed) < 16)
		wd_error("metadata: a damaged record in table '%s' is ignored", table_names[table]);
	return -EILSEQ;
}

static int begin_read(struct meta_env *e, MDB_txn **ret_txn)
{
	int rc;

	pthread_rwlock_rdlock(&e->resize);
	rc = mdb_txn_begin(e->env, NULL, MDB_RDONLY, ret_txn);
	if (rc != 0)
		pthread_rwlock_unlock(&e->resize);
	return to_errno(rc);
}

static void end_read(struct meta_env *e, MDB_txn *txn)
{
	mdb_txn_abort(txn);
	pthread_rwlock_unlock(&e->resize);
}

int meta_env_get(struct meta_env *e, enum meta_table table, const void *key, size_t key_len,
	void *value, size_t cap, size_t *ret_len)
{
	MDB_val k = {.mv_size = key_len, .mv_data = (void *)key}, v;
	MDB_txn *txn;
	int rc = begin_read(e, &txn);

	if (rc < 0)
		return rc;
	rc = to_errno(mdb_get(txn, e->dbi[table], &k, &v));
	if (rc == 0 && check_value(e, table, &k, &v) < 0)
		rc = -ENOENT;
	if (rc == 0 && v.mv_size > cap)
		rc = -E2BIG;
	if (rc == 0) {
		memcpy(value, v.mv_data, v.mv_size);
		*ret_len = v.mv_size;
	}
	end_read(e, txn);
	return rc;
}

int meta_env_scan(struct meta_env *e, enum meta_table table, const void *from, size_t from_len,
	meta_visit visit, void *arg)
{
	MDB_val k = {.mv_size = from_len, .mv_data = (void *)from}, v;
	MDB_cursor *cursor;
	MDB_txn *txn;
	int rc = begin_read(e, &txn);

	if (rc < 0)
		return rc;
	rc = mdb_cursor_open(txn, e->dbi[table], &cursor);
	if (rc != 0) {
		end_read(e, txn);
		return to_errno(rc);
	}
	rc = mdb_cursor_get(cursor, &k, &v, from_len ? MDB_SET_RANGE : MDB_FIRST);
	for (; rc == 0; rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
		if (check_value(e, table, &k, &v) == 0 &&
			!visit(arg, k.mv_data, k.mv_size, v.mv_data, v.mv_size))
			break;
	}
	mdb_cursor_close(cursor);
	end_read(e, txn);
	return rc == MDB_NOTFOUND ? 0 : to_errno(rc);
}

uint64_t meta_env_count(struct meta_env *e, enum meta_table table)
{
	MDB_stat stat = {0};
	MDB_txn *txn;

	if (begin_read(e, &txn) < 0)
		return 0;
	mdb_stat(txn, e->dbi[table], &stat);
	end_read(e, txn);
	return stat.ms_entries;
}

static int put(struct meta_env *e, MDB_txn *txn, enum meta_table table, MDB_val *k,
	const void *value, size_t len)
{
	MDB_val v = {.mv_size = len + META_CHECKSUM};
	uint64_t sum = meta_checksum(table, k->mv_data, k->mv_size, value, len);
	int rc = mdb_put(txn, e->dbi[table], k, &v, MDB_RESERVE);

	if (rc != 0)
		return rc;
	if (len)
		memcpy(v.mv_data, value, len);
	memcpy((char *)v.mv_data + len, &sum, META_CHECKSUM);
	return 0;
}

static int del(struct meta_env *e, MDB_txn *txn, enum meta_table table, MDB_val *k)
{
	int rc = mdb_del(txn, e->dbi[table], k, NULL);

	return rc == MDB_NOTFOUND ? 0 : rc;
}

static int try_commit(struct meta_env *e, const struct meta_batch *batch)
{
	MDB_txn *txn;
	int rc = mdb_txn_begin(e->env, NULL, 0, &txn);

	if (rc != 0)
		return rc;
	for (struct meta_entry *x = batch->entries; x && rc == 0; x = x->hh.next) {
		MDB_val k = {.mv_size = (size_t)x->key_len - 1, .mv_data = x->data + 1};

		if (x->is_delete)
			rc = del(e, txn, x->data[0], &k);
		else
			rc = put(e, txn, x->data[0], &k, x->data + x->key_len, x->len);
	}
	if (rc != 0) {
		mdb_txn_abort(txn);
		return rc;
	}
	return mdb_txn_commit(txn);
}

static int grow(struct meta_env *e)
{
	int rc;

	pthread_rwlock_wrlock(&e->resize);
	rc = mdb_env_set_mapsize(e->env, e->map_size * 2);
	if (rc == 0)
		e->map_size *= 2;
	pthread_rwlock_unlock(&e->resize);
	if (rc == 0)
		wd_info("metadata: the map is full, grown to %zu MiB", e->map_size >> 20);
	else
		wd_error("metadata: the map of %zu MiB is full and cannot grow: %s",
			e->map_size >> 20, mdb_strerror(rc));
	return rc;
}

int meta_env_commit(struct meta_env *e, const struct meta_batch *batch)
{
	int rc;

	do
		rc = try_commit(e, batch);
	while (rc == MDB_MAP_FULL && grow(e) == 0);
	return to_errno(rc);
}

int meta_env_put_info(struct meta_env *e, const char *name, const void *value, size_t len)
{
	MDB_val k = {.mv_size = strlen(name), .mv_data = (void *)name};
	MDB_txn *txn;
	int rc = mdb_txn_begin(e->env, NULL, 0, &txn);

	if (rc != 0)
		return to_errno(rc);
	rc = value ? put(e, txn, META_INFO, &k, value, len) : del(e, txn, META_INFO, &k);
	if (rc != 0) {
		mdb_txn_abort(txn);
		return to_errno(rc);
	}
	return to_errno(mdb_txn_commit(txn));
}
