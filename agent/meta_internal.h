/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_META_INTERNAL_H
#define WD_AGENT_META_INTERNAL_H
/*
 * Shared by meta.c (batches, reads, the writer thread), meta_open.c (opening, closing, ids),
 * meta_journal.c (what survives a kill before it is committed), meta_env.c and
 * meta_env_open.c (the LMDB environment) and meta_aside.c (environments set aside).
 * Tests use meta_open_sized() and meta_checksum().
 */
#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>

#define HASH_FUNCTION(key, len, hash) ((hash) = (unsigned)XXH3_64bits(key, len))
#include <xxhash.h>

#include "agent/hash.h"
#include "agent/memory.h"
#include "agent/meta.h"
#include "common/lock.h"

/*
 * The format of the cache, for all of it: metadata, records, maps, files. A program reads its own and older
 * ones; what is newer is set aside under its number and taken back by the program that knows it. The minor
 * number tells changes that programs of the same format may ignore, and is only written:
 *
 *	1.0  the first
 *	1.1  eras, the journal
 */
#define META_FORMAT 1u
#ifdef WD_PREVIOUS_FORMATS
#define META_FORMAT_MINOR 0u
#else
#define META_FORMAT_MINOR 1u
#endif
#define META_KEEPS_ERAS (META_FORMAT_MINOR >= 1)
#define META_CHECKSUM 8 /* bytes behind each value */

/* One queued change. data: the table as a byte, the key, the value. */
struct meta_entry {
	UT_hash_handle hh;
	uint64_t seq;
	bool is_delete;
	uint16_t key_len; /* with the table byte */
	uint32_t len;
	unsigned char data[];
};

struct meta_batch {
	struct meta_entry *entries;
	size_t ops, bytes;
	int64_t since_ns;  /* when the first change came */
	uint64_t last_seq; /* of the newest change in it */
};

#define DAMAGE_TOLD_MAX 16 /* then it is silent: the database is to be replaced */

#define META_DEATHS_MAX 3 /* of pages that cannot be read; then the file is given up */

struct meta_env {
	const char *dir; /* of the cache, for messages; borrowed */
	MDB_env *env;
	MDB_dbi dbi[META_TABLES];
	size_t map_size, first_map_size;
	uint32_t format, found_format; /* ours, and that of what is open */
	bool is_taken_back;	       /* set aside earlier: it does not know what happened since */
	pthread_rwlock_t resize; /* read: a transaction is open; write: the map grows, or is replaced */
	_Atomic uint64_t damaged;
	_Atomic uint64_t told[DAMAGE_TOLD_MAX]; /* records that the log has as damaged, hashed */
	_Atomic bool is_dead; /* a page of it could not be had: LMDB must not be called any more */
	_Atomic bool is_garbage; /* and it is of no use to open it again */
	_Atomic unsigned deaths;
	_Atomic int64_t died_ms; /* Unix time */
};

#define JOURNAL_MAX ((off_t)32 << 20) /* of one file */

/* The fields are guarded by meta.lock, but for fd and token, which do not change. */
struct meta_journal {
	int fd[2];
	uint64_t token;
	int active; /* the file of `pending`; the other is that of `committing` */
	uint64_t bytes[2];
	uint64_t saved_seq; /* changes up to here are in it, or committed */
	bool is_saving;	    /* somebody appends; told by meta.done */
	bool is_off, is_told;
};

struct meta {
	struct meta_env env;
	struct meta_journal journal;
	int dir_fd, lock_fd;
	char *dir;
	char boot_id[40];
	bool was_unclean, was_closed, has_other_format;
	_Atomic int64_t lost_ms; /* Unix time at which changes were lost, at last */
	uint64_t epoch, era;
	pthread_t writer;

	struct wd_mutex lock;
	struct wd_cond wake; /* the writer: there is something to do */
	struct wd_cond done; /* everyone else: a commit ended */
	struct meta_batch pending WD_GUARDED_BY(lock);
	struct meta_batch committing; /* changed by the writer only, under the lock */
	bool is_stopping WD_GUARDED_BY(lock);
	unsigned flushers WD_GUARDED_BY(lock);
	uint64_t seq WD_GUARDED_BY(lock), done_seq WD_GUARDED_BY(lock);
	int64_t retry_ns WD_GUARDED_BY(lock); /* while failing: not before */
	int error WD_GUARDED_BY(lock);	      /* of the last commit */
	uint64_t next_id WD_GUARDED_BY(lock), reserved WD_GUARDED_BY(lock);
	uint64_t asked WD_GUARDED_BY(lock), asked_seq WD_GUARDED_BY(lock);
	struct meta_stats stats WD_GUARDED_BY(lock);
};

struct meta_entry *meta_entry_new(const struct meta_op *op);
/* The uncommitted change of a key, newest first, or NULL. */
const struct meta_entry *meta_find_locked(struct meta *m, enum meta_table table, const void *key,
	size_t key_len) WD_REQUIRES(m->lock);
void meta_queue_locked(struct meta *m, struct meta_entry *x) WD_REQUIRES(m->lock);
void meta_batch_free(struct meta_batch *b);
void *meta_run_writer(void *meta);

/* ---- meta_journal.c ---- */
/* Opens the files in dir, queues what they hold when they may be believed, and makes this run's token. */
void meta_journal_open(struct meta *m, const char *dir, bool is_believed);
/* For the fuzzer and tests. */
void meta_journal_replay(struct meta *m, uint64_t token);
/* The start is committed, token included. */
void meta_journal_begin(struct meta *m);
void meta_journal_close(struct meta *m);
/* The writer's: pending becomes committing; committing was committed; it was given up. */
void meta_journal_swap_locked(struct meta *m) WD_REQUIRES(m->lock);
void meta_journal_committed_locked(struct meta *m) WD_REQUIRES(m->lock);
void meta_journal_lost_locked(struct meta *m) WD_REQUIRES(m->lock);

int64_t meta_unix_ms(void);
/* The database may have died: the writer is to look. */
void meta_wake(struct meta *m);
/* Queues what an environment must know of this run: for one that took the place of another. */
void meta_introduce(struct meta *m);

/* As a program of another format, for tests. */
int meta_open_as(const char *dir, uint32_t format, struct meta **ret_meta, struct wd_err *err);
int meta_open_sized(const char *dir, size_t map_size, struct meta **ret_meta, struct wd_err *err);

/* XXH3-64 of the value, seeded by table and key, so that a value under a wrong key is damage too.
 */
uint64_t meta_checksum(
	enum meta_table table, const void *key, size_t key_len, const void *value, size_t len);

/* Opens <dir>/meta, setting aside one that cannot be used, and taking back one of our format. */
int meta_env_open(struct meta_env *e, const char *dir, size_t map_size, uint32_t format,
	struct wd_err *err);
void meta_env_close(struct meta_env *e);
/* Opens a dead environment anew, setting aside what cannot be used. No transaction may be begun meanwhile
 * by this thread; the readers' get -EIO until it returns 0. */
int meta_env_revive(struct meta_env *e, const char *dir, struct wd_err *err);
int meta_env_get(struct meta_env *e, enum meta_table table, const void *key, size_t key_len,
	void *value, size_t cap, size_t *ret_len);
int meta_env_scan(struct meta_env *e, enum meta_table table, const void *from, size_t from_len,
	meta_visit visit, void *arg);
uint64_t meta_env_count(struct meta_env *e, enum meta_table table);
/* One synced transaction. Grows the map when it is full. */
int meta_env_commit(struct meta_env *e, const struct meta_batch *batch);
/* The same for a single META_INFO value; value NULL deletes. */
int meta_env_put_info(struct meta_env *e, const char *name, const void *value, size_t len);

/* ---- meta_aside.c; path is <dir>/meta ---- */
/* Under a name that tells the time. */
int meta_set_aside(const char *dir, const char *path, const char *why, struct wd_err *err);
/* Ours that a program of another format has set aside. */
bool meta_has_own_aside(const struct meta_env *e, const char *dir);
/* Puts away what was found, and what of ours was put away in its place. why: an LMDB or errno code, 0 for an
 * older format. 0: try again. */
int meta_make_way(struct meta_env *e, const char *dir, const char *path, int why, struct wd_err *err);
/* True when a cache of another format was set aside in dir. */
bool meta_env_has_other(const char *dir);

#endif
