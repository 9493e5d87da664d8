/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The LMDB environment below the metadata: opening it, checked reads, one synced transaction per
 * batch. What cannot be opened is set aside (meta_aside.c).
 *
 * LMDB checks nothing it reads, so that every value carries a checksum, and a file that is shorter
 * than its own header says is refused before anything is read from the map. The map is large and
 * sparse and grows when it is full, which LMDB allows only while no transaction is open: `resize`
 * sees to that.
 *
 * Readers may come from any thread (MDB_NOTLS: a transaction belongs to no thread); only the writer
 * thread, and meta_open and meta_close when it does not run, commit.
 *
 * Every call of LMDB that touches the map is guarded (meta_guard.h): a file cut short, or a disk that is
 * dead under it, kills the environment instead of the agent.
 */
#include "agent/meta_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/meta_guard.h"
#include "common/cleanup.h"
#include "common/fault.h"
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

int64_t meta_unix_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
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

/* ---- under the guard ---- */

/* One call. Where the guard ends it, what LMDB allocated is never freed: it may still be in use there. */
struct call {
	enum meta_table table;
	MDB_val key, value;
	MDB_txn *txn;
	MDB_cursor *cursor;
	/* of get */
	void *out;
	size_t cap, len;
	/* of scan */
	meta_visit visit;
	void *arg;
	/* of commit */
	const struct meta_batch *batch;
	/* of opening */
	const char *path;
};

#define GRAVES 64
static _Atomic unsigned ngraves;
static void *graves[GRAVES]; /* so that nobody takes it for a leak */

static void bury(void *p)
{
	unsigned i = p ? atomic_fetch_add(&ngraves, 1) : GRAVES;

	if (i < GRAVES)
		graves[i] = p;
}

#define DEATHS_MAX 3 /* of pages that cannot be read; then the file is given up */

static void die(struct meta_env *e, const struct call *c, enum guard_why why)
{
	if (atomic_exchange(&e->is_dead, true))
		return;
	atomic_store(&e->died_ms, meta_unix_ms());
	bury(e->env);
	if (why == GUARD_GARBAGE || atomic_fetch_add(&e->deaths, 1) + 1 >= DEATHS_MAX)
		atomic_store(&e->is_garbage, true);
	if (c->path)
		return; /* it is said when it is set aside */
	wd_error("metadata '%s/meta': %s; going on in memory until a database can be opened again", e->dir,
		why == GUARD_PAGE
			? "a page of the database cannot be read: its file was cut, or its disk is dead"
			: "a page of the database makes no sense");
}

/* Returns what fn returns, an LMDB code; EIO when the environment is dead. */
static int guarded(struct meta_env *e, int (*fn)(struct meta_env *e, struct call *c), struct call *c)
{
	struct guard g;
	volatile int rc = EIO;

	if (atomic_load(&e->is_dead))
		return EIO;
	if (guard_enter(&g)) {
		rc = fn(e, c);
		if (rc == MDB_CORRUPTED || rc == MDB_PAGE_NOTFOUND || rc == MDB_PANIC)
			die(e, c, GUARD_GARBAGE);
	} else {
		bury(c->txn);
		bury(c->cursor);
		die(e, c, g.why);
	}
	guard_leave(&g);
	return rc;
}

static int guarded_read(struct meta_env *e, int (*fn)(struct meta_env *e, struct call *c), struct call *c)
{
	int rc;

	pthread_rwlock_rdlock(&e->resize);
	rc = guarded(e, fn, c);
	pthread_rwlock_unlock(&e->resize);
	return rc;
}

/* ---- opening ---- */

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

static int open_guarded(struct meta_env *e, struct call *c)
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
	struct call c = {.path = path};
	int rc = reserve_lock(path);

	if (rc != 0)
		return rc;
	atomic_store(&e->is_dead, false);
	rc = guarded(e, open_guarded, &c);
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
			return wd_err_set(err, -to_errno(rc), "open metadata '%s': %s", path,
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

/* True the first time that a record is found damaged: it may be read a thousand times a second. */
static bool is_news(struct meta_env *e, enum meta_table table, const MDB_val *key)
{
	uint64_t name = meta_checksum(table, key->mv_data, key->mv_size, "", 0) | 1;

	for (int i = 0; i < DAMAGE_TOLD_MAX; i++) {
		uint64_t told = 0;

		if (atomic_compare_exchange_strong(&e->told[i], &told, name))
			return true;
		if (told == name)
			return false;
	}
	return false;
}

/* Checks and strips the checksum. -EILSEQ for damage, which is counted, and logged once per record. */
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
	atomic_fetch_add_explicit(&e->damaged, 1, memory_order_relaxed);
	if (is_news(e, table, key))
		wd_error("metadata '%s/meta': a damaged record in table '%s' is ignored", e->dir,
			table_names[table]);
	return -EILSEQ;
}

static int begin_read(struct meta_env *e, struct call *c)
{
	if (WD_FAULT("meta.page"))
		raise(SIGBUS); /* what a page that cannot be read is */
	return mdb_txn_begin(e->env, NULL, MDB_RDONLY, &c->txn);
}

static int get_guarded(struct meta_env *e, struct call *c)
{
	int rc = begin_read(e, c);

	if (rc != 0)
		return rc;
	rc = mdb_get(c->txn, e->dbi[c->table], &c->key, &c->value);
	if (rc == 0 && check_value(e, c->table, &c->key, &c->value) < 0)
		rc = MDB_NOTFOUND;
	if (rc == 0 && c->value.mv_size > c->cap)
		rc = E2BIG;
	if (rc == 0) {
		memcpy(c->out, c->value.mv_data, c->value.mv_size);
		c->len = c->value.mv_size;
	}
	mdb_txn_abort(c->txn);
	return rc;
}

int meta_env_get(struct meta_env *e, enum meta_table table, const void *key, size_t key_len,
	void *value, size_t cap, size_t *ret_len)
{
	struct call c = {.table = table,
		.key = {.mv_size = key_len, .mv_data = (void *)key},
		.out = value,
		.cap = cap};
	int rc = to_errno(guarded_read(e, get_guarded, &c));

	if (rc == 0)
		*ret_len = c.len;
	return rc;
}

static int scan_guarded(struct meta_env *e, struct call *c)
{
	int rc = begin_read(e, c);

	if (rc != 0)
		return rc;
	rc = mdb_cursor_open(c->txn, e->dbi[c->table], &c->cursor);
	if (rc == 0) {
		rc = mdb_cursor_get(c->cursor, &c->key, &c->value,
			c->key.mv_size ? MDB_SET_RANGE : MDB_FIRST);
		for (; rc == 0; rc = mdb_cursor_get(c->cursor, &c->key, &c->value, MDB_NEXT)) {
			if (check_value(e, c->table, &c->key, &c->value) == 0 &&
				!c->visit(c->arg, c->key.mv_data, c->key.mv_size, c->value.mv_data,
					c->value.mv_size))
				break;
		}
		mdb_cursor_close(c->cursor);
	}
	mdb_txn_abort(c->txn);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

int meta_env_scan(struct meta_env *e, enum meta_table table, const void *from, size_t from_len,
	meta_visit visit, void *arg)
{
	struct call c = {.table = table,
		.key = {.mv_size = from_len, .mv_data = (void *)from},
		.visit = visit,
		.arg = arg};

	return to_errno(guarded_read(e, scan_guarded, &c));
}

static int count_guarded(struct meta_env *e, struct call *c)
{
	MDB_stat stat = {0};
	int rc = begin_read(e, c);

	if (rc != 0)
		return rc;
	rc = mdb_stat(c->txn, e->dbi[c->table], &stat);
	mdb_txn_abort(c->txn);
	c->len = stat.ms_entries;
	return rc;
}

uint64_t meta_env_count(struct meta_env *e, enum meta_table table)
{
	struct call c = {.table = table};

	return guarded_read(e, count_guarded, &c) == 0 ? c.len : 0;
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

static int commit_guarded(struct meta_env *e, struct call *c)
{
	MDB_txn *txn; /* the environment's own: nothing is lost with it */
	int rc = mdb_txn_begin(e->env, NULL, 0, &txn);

	if (rc != 0)
		return rc;
	for (struct meta_entry *x = c->batch->entries; x && rc == 0; x = x->hh.next) {
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
	struct call c = {.batch = batch};
	int rc;

	do
		rc = guarded(e, commit_guarded, &c);
	while (rc == MDB_MAP_FULL && grow(e) == 0);
	return to_errno(rc);
}

static int put_info_guarded(struct meta_env *e, struct call *c)
{
	MDB_txn *txn;
	int rc = mdb_txn_begin(e->env, NULL, 0, &txn);

	if (rc != 0)
		return rc;
	rc = c->value.mv_data ? put(e, txn, META_INFO, &c->key, c->value.mv_data, c->value.mv_size)
			      : del(e, txn, META_INFO, &c->key);
	if (rc != 0) {
		mdb_txn_abort(txn);
		return rc;
	}
	return mdb_txn_commit(txn);
}

int meta_env_put_info(struct meta_env *e, const char *name, const void *value, size_t len)
{
	struct call c = {.key = {.mv_size = strlen(name), .mv_data = (void *)name},
		.value = {.mv_size = len, .mv_data = (void *)value}};

	return to_errno(guarded(e, put_info_guarded, &c));
}
