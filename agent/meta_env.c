/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The LMDB environment below the metadata: checked reads, one synced transaction per batch. How it is opened
 * is in meta_env_open.c.
 *
 * LMDB checks nothing it reads, so that every value carries a checksum. The map is large and sparse and
 * grows when it is full, which LMDB allows only while no transaction is open: `resize` sees to that.
 *
 * Readers may come from any thread (MDB_NOTLS: a transaction belongs to no thread); only the writer
 * thread, and meta_open and meta_close when it does not run, commit.
 *
 * Every call of LMDB that touches the map is guarded (meta_guard.h): a file cut short, or a disk that is
 * dead under it, kills the environment instead of the agent.
 */
#include "agent/meta_env_internal.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "agent/meta_guard.h"
#include "common/fault.h"
#include "common/log.h"

const char *const meta_table_names[META_TABLES] = {
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

int meta_env_errno(int rc)
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

/* ---- under the guard ---- */

#define GRAVES 64
static _Atomic unsigned ngraves;
static void *graves[GRAVES]; /* so that nobody takes it for a leak */

static void bury(void *p)
{
	unsigned i = p ? atomic_fetch_add(&ngraves, 1) : GRAVES;

	if (i < GRAVES)
		graves[i] = p;
}

static void die(struct meta_env *e, const struct meta_call *c, enum guard_why why)
{
	if (atomic_exchange(&e->is_dead, true))
		return;
	atomic_store(&e->died_ms, meta_unix_ms());
	bury(e->env);
	if (why == GUARD_GARBAGE || atomic_fetch_add(&e->deaths, 1) + 1 >= META_DEATHS_MAX)
		atomic_store(&e->is_garbage, true);
	if (c->path)
		return; /* it is said when it is set aside */
	wd_error("metadata '%s/meta': %s; going on in memory until a database can be opened again", e->dir,
		why == GUARD_PAGE
			? "a page of the database cannot be read: its file was cut, or its disk is dead"
			: "a page of the database makes no sense");
}

int meta_env_guarded(
	struct meta_env *e, int (*fn)(struct meta_env *e, struct meta_call *c), struct meta_call *c)
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

static int guarded_read(
	struct meta_env *e, int (*fn)(struct meta_env *e, struct meta_call *c), struct meta_call *c)
{
	int rc;

	pthread_rwlock_rdlock(&e->resize);
	rc = meta_env_guarded(e, fn, c);
	pthread_rwlock_unlock(&e->resize);
	return rc;
}

/* ---- reading ---- */

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
			meta_table_names[table]);
	return -EILSEQ;
}

static int begin_read(struct meta_env *e, struct meta_call *c)
{
	if (WD_FAULT("meta.page"))
		raise(SIGBUS); /* what a page that cannot be read is */
	return mdb_txn_begin(e->env, NULL, MDB_RDONLY, &c->txn);
}

static int get_guarded(struct meta_env *e, struct meta_call *c)
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
	struct meta_call c = {.table = table,
		.key = {.mv_size = key_len, .mv_data = (void *)key},
		.out = value,
		.cap = cap};
	int rc = meta_env_errno(guarded_read(e, get_guarded, &c));

	if (rc == 0)
		*ret_len = c.len;
	return rc;
}

static int scan_guarded(struct meta_env *e, struct meta_call *c)
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
	struct meta_call c = {.table = table,
		.key = {.mv_size = from_len, .mv_data = (void *)from},
		.visit = visit,
		.arg = arg};

	return meta_env_errno(guarded_read(e, scan_guarded, &c));
}

static int count_guarded(struct meta_env *e, struct meta_call *c)
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
	struct meta_call c = {.table = table};

	return guarded_read(e, count_guarded, &c) == 0 ? c.len : 0;
}

/* ---- writing ---- */

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

static int commit_guarded(struct meta_env *e, struct meta_call *c)
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
	struct meta_call c = {.batch = batch};
	int rc;

	do
		rc = meta_env_guarded(e, commit_guarded, &c);
	while (rc == MDB_MAP_FULL && grow(e) == 0);
	return meta_env_errno(rc);
}

static int put_info_guarded(struct meta_env *e, struct meta_call *c)
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
	struct meta_call c = {.key = {.mv_size = strlen(name), .mv_data = (void *)name},
		.value = {.mv_size = len, .mv_data = (void *)value}};

	return meta_env_errno(meta_env_guarded(e, put_info_guarded, &c));
}
