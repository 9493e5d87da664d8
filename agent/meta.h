/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_META_H
#define WD_AGENT_META_H
/*
 * The metadata of the agent: a handful of ordered key-value tables in one LMDB environment.
 *
 * Writes go to an in-memory batch that one writer thread commits (synced) a few times a second; reads
 * look into the batch first, so that a writer reads what it wrote. Scans flush first. Every value
 * carries a checksum, verified before use: a damaged one reads as absent, is logged and counted.
 *
 * Reading the database never kills the agent: where its file was cut, or its disk is dead, it is given up,
 * what is known goes on in memory (bounded), and it is opened again once that works.
 *
 * An environment that cannot be opened is set aside as meta.<time>.aside (never deleted) and a new one with
 * another epoch begins. One of a newer format is set aside as meta.format-<number>, and the program of that
 * format takes it back. Thread-safe.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define META_KEY_MAX 511    /* LMDB's limit */
#define META_VALUE_MAX 4096 /* longer values are refused with an assertion */

enum meta_table {
	META_INFO,     /* name -> value: format, epoch, counters, clean mark */
	META_NODES,    /* node id -> node record (agent/tree) */
	META_CHILDREN, /* directory ino, name -> child record (agent/tree) */
	META_COOKIES,  /* directory ino, child ino -> name (agent/tree) */
	META_DATASETS, /* origin and identity -> dataset record (agent/tree) */
	META_OBJECTS,  /* object id -> object record (agent/store) */
	META_LRU,      /* last use (seconds, sequence; big-endian), object id -> empty (agent/store) */
	META_PROOFS,   /* object id, identity -> expiry (agent/mount) */
	META_TABLES
};

struct meta;

/* Opens <dir>/meta, creating it. The journal (meta_save) is two files meta-journal.* in journal_dir, which
 * is best one in memory that survives the process: the run directory. lock_fd: of meta_wait_for_lock, owned from
 * now on; -1: the lock is taken here, and -EBUSY where another agent keeps it for 3 s. */
int meta_open_with(
	const char *dir, const char *journal_dir, int lock_fd, struct meta **ret_meta, struct wd_err *err);
/* Waits for as long as another agent has dir, and takes its lock: the descriptor for meta_open_with. A signal does
 * not end the wait, unless its handler ends the process. */
int meta_wait_for_lock(const char *dir, struct wd_err *err);
/* The same with the journal in dir. */
int meta_open(const char *dir, struct meta **ret_meta, struct wd_err *err);
/* Commits what is pending, marks the shutdown clean, closes. NULL is fine. */
void meta_close(struct meta *m);

/* True when the last agent ended uncleanly by a machine restart (no clean mark, another boot id). */
bool meta_was_unclean(const struct meta *m);

/*
 * How often what is on disk may have been lost to a machine that stopped uncleanly, or to a program that
 * does not count eras. What was written in an older era is to be checked before it is believed.
 */
uint64_t meta_era(const struct meta *m);

/* True when the last agent closed properly: false after a kill, too, and for a new environment. */
bool meta_was_closed(const struct meta *m);

/* True when the metadata of another format was set aside here: its files are still among the others. */
bool meta_has_other_format(const struct meta *m);

/* A number never given before in this environment, nor in any earlier one of this cache directory
 * with fair certainty: 20 bits of epoch (random, never 0), 44 bits of counter starting at 16. The counter is
 * reserved durably in advance, so that ids survive a kill of the agent. */
uint64_t meta_next_id(struct meta *m);
uint64_t meta_epoch(const struct meta *m); /* epoch << 44 */

/* Copies the value; *ret_len is its length. -ENOENT, -E2BIG when cap is too small. */
int meta_get(struct meta *m, enum meta_table table, const void *key, size_t key_len, void *value,
	size_t cap, size_t *ret_len);
/* Queues; blocks only when the batch is at its bound (then until the writer has caught up). */
void meta_put(struct meta *m, enum meta_table table, const void *key, size_t key_len, const void *value,
	size_t len);
void meta_del(struct meta *m, enum meta_table table, const void *key, size_t key_len);

/* Several changes that are committed together or not at all. Never blocks, and so may go over the
 * bound of the batch: call meta_throttle() before or after it, where no lock is held. */
struct meta_op {
	enum meta_table table;
	const void *key;
	size_t key_len;
	const void *value; /* NULL: delete */
	size_t len;
};
void meta_apply(struct meta *m, const struct meta_op *ops, size_t nops);
/* Blocks while the batch is at its bound. */
void meta_throttle(struct meta *m);
/* True while a change of this key is not committed yet. */
bool meta_is_pending(struct meta *m, enum meta_table table, const void *key, size_t key_len);
/*
 * Returns when the change of this key survives a kill of the agent, though not of the machine, with all
 * that was put before it. That takes no sync and no commit, unless the journal is full or cannot be
 * written; then the result is that of meta_flush. Of META_NODES, CHILDREN, COOKIES and DATASETS only.
 */
int meta_save(struct meta *m, enum meta_table table, const void *key, size_t key_len);
/* True when meta_save would return at once. */
bool meta_is_saved(struct meta *m, enum meta_table table, const void *key, size_t key_len);
/* True when the batch is so full that what can be left out should be. */
bool meta_is_busy(struct meta *m);

/* Visits entries in key order from the first key >= from, until visit returns false. Flushes first.
 * visit runs inside a read transaction: it must be short, and must not call meta_* itself. */
typedef bool (*meta_visit)(void *arg, const void *key, size_t key_len, const void *value, size_t len);
int meta_scan(struct meta *m, enum meta_table table, const void *from, size_t from_len, meta_visit visit,
	void *arg);
/* The same for keys that share the first prefix_len bytes of `from`, and without waiting for a commit:
 * what was put is seen all the same. -EIO when the database died on the way; of one that is dead
 * already, what is in memory is all that there is. */
int meta_scan_below(struct meta *m, enum meta_table table, const void *from, size_t from_len,
	size_t prefix_len, meta_visit visit, void *arg);
/* When changes or the database itself were last lost, Unix time in ms; 0: never. A statement about many
 * records ("this directory was listed") that is as old is void, whatever is still found. */
int64_t meta_lost_ms(const struct meta *m);
/* Returns when everything put so far is committed; -errno when that was tried and failed (the disk is
 * full or broken: what was put is still read from memory, and tried again). */
int meta_flush(struct meta *m);
/* Entries of a table, for status. */
uint64_t meta_count(struct meta *m, enum meta_table table);

struct meta_stats {
	uint64_t commits, commit_ns, damaged;
	uint64_t failed_commits; /* each is tried again */
	uint64_t dropped;	 /* changes lost because the disk failed for too long */
	bool is_failing;	 /* the last commit failed: running from memory */
	bool is_memory_only;	 /* the database cannot be read either; it is opened again when it can be */
};
void meta_get_stats(struct meta *m, struct meta_stats *ret_stats);

#endif
