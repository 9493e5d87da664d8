/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_STORE_INTERNAL_H
#define WD_AGENT_STORE_INTERNAL_H
/*
 * Inside the store:
 *
 *	store.c         opening, the table of objects in memory, references
 *	store_load.c    from disk to memory: one object, the sums at start
 *	store_scan.c    numbers, and all objects in order
 *	store_record.c  what is kept about an object in the metadata; last uses
 *	store_map.c     the .map file: which blocks of a partial object are present, and their hashes
 *	store_file.c    names, making and opening files, the probe of a broken disk
 *	store_object.c  present bits, writing, committing
 *	store_verify.c  checking blocks against their hashes, and what follows when one is bad
 *	store_suspect.c blocks from before an unclean restart of the machine, until they are checked
 *	store_check.c   the checker thread: suspect blocks that somebody wants, and the scrubber
 *	store_live.c    the live map that servers see
 *	store_admit.c   space: accounts, admission
 *	store_evict.c   the evictor thread: making room, folding, the broken disk
 *	store_victim.c  which object makes room: what the policy is told, and what it says
 *	store_pin.c     which objects never do
 *	store_size.c    how large it may be, changed while it runs
 *	store_sweep.c   on the same thread: files that no record knows of
 *
 * An object is in the table while it is referenced, and for a while after (the idle list, bounded).
 * is_busy keeps everybody else away from one that is being loaded or evicted: they wait for
 * `changed` without holding anything. Opening, making and folding files is one thread's at a time
 *per object (is_opening, waited for on object.cond).
 *
 * Lock order: store.lock, object.lock, the metadata's own (meta_apply and meta_is_busy never
 *block).
 */
#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>

#define HASH_FUNCTION(key, len, hash) memcpy(&(hash), key, sizeof(hash)) /* ids are hashes */
#include <string.h>
#include <utlist.h>

#include "agent/evict.h"
#include "agent/hash.h"
#include "agent/store.h"
#include "common/lock.h"

#define SMALL_BLOCKS 16 /* up to here the hashes of a complete object are in its record */
#define IDLE_MAX 4096	/* objects kept in memory without a reference */
#define IDLE_NBLOCKS_MAX (1u << 14) /* larger ones are not: their bits would take too much */

#define FILE_NAME_MAX 48 /* "ab/<32 hex digits>.map" */

/* Orders uses; unique within a run of the agent. */
struct last_use {
	uint64_t seconds, seq;
};

struct object {
	UT_hash_handle hh;
	struct store *store;
	struct object_id id;
	uint64_t size;
	uint32_t nblocks;

	/* under store.lock */
	unsigned refs, pool_refs; /* pool_refs are among refs */
	bool is_busy;
	bool is_recorded;      /* META_OBJECTS has it, with recorded_use as its key in META_LRU */
	bool is_touched;       /* on the touched list: used since recorded */
	bool is_idle;	       /* on the idle list */
	bool is_folding;       /* on the list of folds */
	bool is_dirty;	       /* the record is behind the map */
	bool is_marked;	       /* the record has RECORD_IN_USE */
	bool has_map;	       /* a .map file exists and is charged */
	bool is_doubtful;      /* a bad block could not be taken out of the map */
	bool is_used;	       /* somebody read it since it was loaded (object_used) */
	enum store_pin pin;    /* never evicted for room; counted in store.pinned */
	uint64_t charged;      /* of store.used */
	uint64_t admitted;     /* of store.admitted, for blocks */
	uint64_t map_admitted; /* the same, for the map */
	uint64_t unrecorded;   /* bytes committed since the record was written */
	uint64_t era;	       /* of the record, while there are suspect blocks */
	struct last_use use, recorded_use;
	struct object *prev, *next;   /* idle list */
	struct object *tprev, *tnext; /* touched list */
	struct object *fold_next;

	/* changed under lock, read without */
	_Atomic bool is_complete;
	_Atomic uint64_t present;	  /* bytes */
	_Atomic uint64_t suspect_bytes;	  /* on disk, and not known to be right */
	_Atomic(_Atomic uint64_t *) bits; /* NULL while complete; never freed before the object */

	struct wd_mutex lock;
	struct wd_cond cond;
	bool is_opening WD_GUARDED_BY(lock);
	bool is_created WD_GUARDED_BY(lock); /* the data file exists */
	bool is_told WD_GUARDED_BY(lock);    /* of a bad block */
	bool is_check_queued; /* under store.check_lock */
	int data_fd WD_GUARDED_BY(lock), map_fd
		WD_GUARDED_BY(lock); /* both or none; partial only */
	unsigned fd_users WD_GUARDED_BY(lock);
	uint64_t dirty_bytes WD_GUARDED_BY(lock); /* written since the last early writeback */
	uint64_t dirty_from WD_GUARDED_BY(lock), dirty_to WD_GUARDED_BY(lock);
	uint64_t *suspect WD_GUARDED_BY(lock); /* a bit per block; NULL: none */
	struct wd_livemap *live WD_GUARDED_BY(lock);
	int live_fd WD_GUARDED_BY(lock);
	uint64_t hashes[SMALL_BLOCKS]; /* of present blocks, when nblocks <= SMALL_BLOCKS; under
					  lock */
};

struct admission {
	struct admission *next;
	struct object *o; /* a reference */
	uint64_t bytes;
	void (*cb)(void *arg, int status);
	void *arg;
};

/* Blocks that somebody waits to be checked (store_check). */
struct check {
	struct check *next;
	struct object *o; /* a reference */
	uint32_t first, count;
	void (*cb)(void *arg); /* NULL: nobody waits, it is done when nothing else is to do */
	void *arg;
};

/* The checker thread's own, but for what store.check_lock guards. */
struct scrub {
	struct object_id next; /* where the walk goes on */
	bool is_walking;
	int64_t due_ns;	       /* no block is read before */
	int64_t pass_ns;       /* when the walk began */
	uint64_t checked, bad; /* blocks of this walk */
};

#define LRU_KEY_LEN 32
#define CANDIDATES 128
#define NEWEST_MAX 16
#define PIN_SHARE 2 /* pinned objects take at most one part in so many of the cache */

/* Why an object goes: for room (a value of enum evict_from), or because somebody wants it gone. */
typedef unsigned evict_why;
#define EVICT_ASKED ((evict_why)EVICT_FROMS)

struct recent {
	struct object_id id;
	struct last_use use;
};

/* A walk along META_LRU; the evictor thread's own. */
struct lru_walk {
	unsigned char keys[CANDIDATES][LRU_KEY_LEN];
	unsigned nkeys, pos;
	unsigned char last[LRU_KEY_LEN + 1]; /* where the next scan begins */
	size_t last_len;
	bool is_end;
};

/* The sweep for files without a record; the evictor thread's own but for is_on and due_ns. */
struct sweep {
	bool is_on;
	int64_t due_ns, interval_ns;
	unsigned dir; /* of objects/00 to ff */
	DIR *open_dir;
	uint64_t found;
};

struct store {
	struct store_config config;
	char *dir;
	struct meta *meta;
	int dir_fd; /* of objects/ */
	dev_t dev;  /* its file system */
	_Atomic uint64_t limit, configured; /* changed under lock */
	_Atomic bool is_draining;
	_Atomic bool has_no_tmpfile; /* the file system lacks O_TMPFILE */
	_Atomic uint64_t ndirs;	     /* objects/ab directories */
	_Atomic uint64_t tmp_seq;
	pthread_t evictor;

	struct wd_mutex lock;
	struct wd_cond changed; /* an object ceased to be busy */
	struct wd_cond wake;	/* the evictor */
	struct object *table WD_GUARDED_BY(lock);
	struct object *idle WD_GUARDED_BY(lock), *touched WD_GUARDED_BY(lock);
	unsigned nidle WD_GUARDED_BY(lock);
	struct object *folds WD_GUARDED_BY(lock);
	int64_t fold_ns WD_GUARDED_BY(lock); /* when the first of them is due */
	bool is_folding WD_GUARDED_BY(lock);
	uint64_t folded_seq WD_GUARDED_BY(lock); /* folds that ended */
	uint64_t use_seq WD_GUARDED_BY(lock), use_seconds WD_GUARDED_BY(lock);

	uint64_t used WD_GUARDED_BY(lock), admitted WD_GUARDED_BY(lock),
		nobjects WD_GUARDED_BY(lock);
	uint64_t free_sample WD_GUARDED_BY(lock); /* bytes free of the file system at sample_ns */
	int64_t sample_ns WD_GUARDED_BY(lock);
	uint64_t promised WD_GUARDED_BY(lock); /* admitted then, and since */
	uint64_t sampled_since WD_GUARDED_BY(lock);
	struct admission *queue WD_GUARDED_BY(lock), **queue_tail WD_GUARDED_BY(lock);
	unsigned nqueue WD_GUARDED_BY(lock);
	/* a walk begun at idle_gen == hopeless_gen found nothing to evict: believed for a moment */
	uint64_t idle_gen WD_GUARDED_BY(lock), hopeless_gen WD_GUARDED_BY(lock);
	int64_t hopeless_until_ns WD_GUARDED_BY(lock);
	uint64_t shrink_bytes WD_GUARDED_BY(lock); /* the disk said full: make some room anyway */
	bool is_broken WD_GUARDED_BY(lock), is_stopping WD_GUARDED_BY(lock);
	int64_t full_told_ns WD_GUARDED_BY(lock); /* when the log said that the disk is full; 0: never */
	int64_t probe_ns WD_GUARDED_BY(lock); /* while broken: no probe before */
	uint64_t evicted_objects WD_GUARDED_BY(lock), evicted_bytes WD_GUARDED_BY(lock);
	uint64_t refused_admissions WD_GUARDED_BY(lock), refused_bytes WD_GUARDED_BY(lock);
	uint64_t io_errors WD_GUARDED_BY(lock);
	struct evict *policy WD_GUARDED_BY(lock);
	uint64_t capacity WD_GUARDED_BY(lock); /* as the policy knows it */
	struct store_evictions evictions[EVICT_FIXED][EVICT_FROMS] WD_GUARDED_BY(lock);
	uint64_t pinned[STORE_PINS] WD_GUARDED_BY(lock), refused_pins WD_GUARDED_BY(lock);
		/* sizes of objects, by how they are pinned; [STORE_UNPINNED] means nothing */
	_Atomic uint16_t asked_tag; /* of STORE_PIN_ASKED */

	/* the evictor thread's own */
	struct lru_walk walk;
	struct recent newest[NEWEST_MAX]; /* found, and not tried yet; the newest last */
	unsigned nnewest;
	uint64_t newest_gen; /* idle_gen when they were found */
	int64_t note_due_ns; /* the pools are not asked before */
	struct {
		bool is_on;
		struct lru_walk walk;
	} seed;
	struct sweep sweep;

	_Atomic uint64_t corrupt_blocks, checked_blocks, damaged_objects;
	pthread_t checker;
	bool has_checker;
	struct wd_mutex check_lock; /* a leaf */
	struct wd_cond check_wake;
	struct check *checks WD_GUARDED_BY(check_lock), **checks_tail WD_GUARDED_BY(check_lock);
	bool is_check_stopping WD_GUARDED_BY(check_lock);
	struct scrub scrub;
};

/* ---- store.c ---- */
struct object *object_new(struct store *s, const struct object_id *id, uint64_t size);
void object_free(struct object *o);
struct object *store_find_locked(struct store *s, const struct object_id *id) WD_REQUIRES(s->lock);
/* The end of a reference that was no use of the object. */
void object_unref_quietly(struct object *o);
void store_untouch_locked(struct store *s, struct object *o) WD_REQUIRES(s->lock);
void store_unidle_locked(struct store *s, struct object *o) WD_REQUIRES(s->lock);
void store_touch_locked(struct store *s, struct object *o) WD_REQUIRES(s->lock);
/* Writes the last uses that are only in memory. */
void store_write_touches(struct store *s);
/* Counts and logs that the files of an object are not what its record says. */
void store_tell_damage(struct store *s, const struct object_id *id, const char *what);
/* Counts a disk error and draws the consequences; returns -code. */
int store_io_error(struct store *s, int code, const char *what);

/* ---- store_record.c ---- */
enum record_flag { RECORD_COMPLETE = 1, RECORD_HAS_MAP = 2, RECORD_IN_USE = 4 };
#define RECORD_PIN_SHIFT 16 /* above it in the flags: the pin_tag under which it was pinned, or 0 */
struct record {
	uint32_t flags;
	uint64_t size, charged, present;
	struct last_use use;
	uint64_t era;
	uint32_t nhashes; /* complete small objects */
	uint64_t hashes[SMALL_BLOCKS];
};
int record_read(struct meta *m, const struct object_id *id, struct record *ret_rec);
bool record_decode(const void *value, size_t len, struct record *ret_rec);
/* Writes o's record and its place in META_LRU. The caller calls meta_throttle() with no lock held.
 */
void record_write_locked(struct store *s, struct object *o) WD_REQUIRES(s->lock);
void record_delete(struct meta *m, const struct object_id *id, const struct last_use *use);
void lru_key(
	const struct last_use *use, const struct object_id *id, unsigned char out[LRU_KEY_LEN]);
void lru_key_parse(const unsigned char *key, struct last_use *ret_use, struct object_id *ret_id);

/* ---- store_map.c: descriptors of .map files; -errno ---- */
size_t map_bytes(uint32_t nblocks);
int map_write_header(int fd, const struct object_id *id, uint64_t size);
/* 0 when fd is the valid map of this object, else -EILSEQ or the error of reading. */
int map_check_header(int fd, const struct object_id *id, uint64_t size);
int map_write(int fd, const struct object_id *id, uint32_t block, uint64_t hash);
int map_clear(int fd, uint32_t block);
/* -ENOENT when the block is absent or its entry is damaged */
int map_read(int fd, const struct object_id *id, uint32_t block, uint64_t *ret_hash);
/* Calls present() for every valid entry. -EUCLEAN after all of them when others are damaged or cut off;
 * these are made absent if fd can be written, so that they are found once. */
int map_load(int fd, const struct object_id *id, uint32_t nblocks,
	void (*present)(void *arg, uint32_t block, uint64_t hash), void *arg);

/* ---- store_file.c ---- */
void file_name(const struct object_id *id, const char *suffix, char out[FILE_NAME_MAX]);
/* Opens relative to objects/; with O_CREAT makes the directory when it is missing. */
int file_open(struct store *s, const struct object_id *id, const char *suffix, int flags);
/* New data file and map, replacing what no record knows of. */
int file_create(struct store *s, const struct object *o, int *ret_data, int *ret_map);
int file_put(struct store *s, const struct object *o, const void *data, size_t len);
bool file_has_size(struct store *s, const struct object_id *id, uint64_t size);
/* Both files; 0 when the data is not there any more. */
int file_unlink(struct store *s, const struct object_id *id);
int file_probe(struct store *s);
/* The directory was removed: makes it anew, on the same file system. */
int file_reattach(struct store *s);
int file_open_dir(struct store *s, struct wd_err *err);
int pwrite_all(int fd, const void *data, size_t len, uint64_t offset);
int pread_all(
	int fd, void *data, size_t len, uint64_t offset); /* -ENODATA at the end of the file */

/* ---- store_object.c ---- */
uint64_t block_len(const struct object *o, uint32_t block);
uint64_t block_charge(const struct object *o, uint32_t block);
uint64_t map_charge(uint32_t nblocks);
int object_alloc_bits(struct object *o);
/* Sets the bit; true when it was not set. Also in the live map. */
bool object_mark_locked(struct object *o, uint32_t block, uint64_t hash) WD_REQUIRES(o->lock);
/* Every block is there: closes what only partial objects need. */
void object_complete_locked(struct store *s, struct object *o) WD_REQUIRES(s->lock)
	WD_REQUIRES(o->lock);
/* Takes the descriptors (the caller closes those >= 0) and drops the live map of an object that
 * nobody references. */
void object_rest(struct object *o, int ret_fds[2]);
/* For the evictor: removes the map of a complete small object, whose record has the hashes. */
void object_fold(struct object *o);

/* ---- store_live.c ---- */
void live_mark_locked(struct object *o, uint32_t block) WD_REQUIRES(o->lock);
void live_clear_locked(struct object *o, uint32_t block) WD_REQUIRES(o->lock);
void live_complete_locked(struct object *o) WD_REQUIRES(o->lock);
void live_close_locked(struct object *o) WD_REQUIRES(o->lock);
/* Nothing is present any more for who has mapped it, ever. */
void live_abandon_locked(struct object *o) WD_REQUIRES(o->lock);

/* ---- store_suspect.c ---- */
/* The block is on disk, charged, and not to be believed. */
int suspect_add(struct object *o, uint32_t block, uint64_t hash);
bool suspect_has_locked(const struct object *o, uint32_t block) WD_REQUIRES(o->lock);
bool suspect_has(struct object *o, uint32_t block);
/* The block is not suspect any more: right, overwritten or given up. True when it was. */
bool suspect_clear_locked(struct object *o, uint32_t block) WD_REQUIRES(o->lock);
/* Gives up what is suspect in the range, which is about to be overwritten. */
int suspect_give_up(struct object *o, uint64_t offset, uint64_t len);

/* ---- store_verify.c ---- */
/* A map with every block but one: for a complete object that has none. but: UINT32_MAX for none */
int map_remake(struct object *o, uint32_t but, const uint64_t *hashes);
/* object_verify; drops_pages: from the disk itself, leaving nothing in memory. */
int block_verify(struct object *o, uint32_t block, bool drops_pages);

/* ---- store_check.c ---- */
int check_start(struct store *s);
void check_stop(struct store *s);

/* ---- store_load.c ---- */
/* Fills a new, busy object. */
int object_load(struct object *o);
int store_load_totals(struct store *s, struct wd_err *err);

/* ---- store_admit.c ---- */
/* Moves what was admitted for `bytes` of o's blocks to used. */
void account_commit_locked(struct store *s, struct object *o, uint64_t bytes) WD_REQUIRES(s->lock);
/* The same for its map. */
void account_map_locked(struct store *s, struct object *o) WD_REQUIRES(s->lock);
/* Gives back everything admitted for o that was not used. */
void account_return_locked(struct store *s, struct object *o) WD_REQUIRES(s->lock);
bool has_room_locked(const struct store *s, uint64_t bytes) WD_REQUIRES(s->lock);
/* Asks the file system how much is free. No lock held. */
void admit_sample(struct store *s);
/* Admits the first in the queue when there is room for it; else *ret_need is what it takes. */
bool admit_first(struct store *s, uint64_t *ret_need);
/* Refuses everything in the queue. */
void admit_refuse_all(struct store *s);

/* ---- store_evict.c ---- */
int evict_start(struct store *s);
void evict_stop(struct store *s);
/* When a disk that is broken now is tried again. */
int64_t evict_probe_ns(const struct store *s);
void evict_wake_locked(struct store *s) WD_REQUIRES(s->lock);
/* Evicts an object at rest; use: only while that is its last use. -EAGAIN: only a pool holds it. A pinned one
 * does not go for room: -EBUSY. */
int evict_object(struct store *s, const struct object_id *id, const struct last_use *use, evict_why why);

/* ---- store_victim.c ---- */
int victim_init(struct store *s);
void victim_done(struct store *s);
/* An object got its first record, or lost its last (then the counters of evictions go on). */
void victim_came_locked(struct store *s, const struct object *o) WD_REQUIRES(s->lock);
void victim_gone_locked(struct store *s, const struct object *o, evict_why why) WD_REQUIRES(s->lock);
void victim_set_capacity(struct store *s);
/* Asks the pools which of their objects were used. */
void victim_note_uses(struct store *s);
/* Evicts one object; false when there is none that can go from here to the end of the walk. */
bool victim_evict(struct store *s);
void victim_restart(struct store *s);
bool victim_is_at_start(const struct store *s);
void victim_seed_step(struct store *s);

/* ---- store_size.c ---- */
/* What the setting stands for; where the file system does not say its size, nothing: no room. */
uint64_t size_of_setting(const struct store *s, uint64_t bytes);

/* ---- store_pin.c ---- */
enum store_pin record_pin(const struct store *s, const struct record *rec);
/* What goes into the record's flags. */
uint32_t pin_flags(const struct store *s, enum store_pin pin);
void pin_set_locked(struct store *s, struct object *o, enum store_pin pin) WD_REQUIRES(s->lock);
/* One that is counted has gone without being in memory. */
void pin_gone_locked(struct store *s, const struct record *rec) WD_REQUIRES(s->lock);

/* ---- store_sweep.c ---- */
/* Before the evictor starts: the sweep runs after a kill or with a new metadata environment. */
void sweep_prepare(struct store *s);
/* Looks at some files. The evictor calls it when due_ns has come. */
void sweep_step(struct store *s);
void sweep_done(struct store *s);
/* For tests: starts it now, and returns when it is over. */
void sweep_run(struct store *s);

#endif
