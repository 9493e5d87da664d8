/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_STORE_H
#define WD_AGENT_STORE_H
/*
 * The cache on disk: one sparse file per object version.
 *
 *	<dir>/objects/ab/<id>      the bytes; size = object size
 *	<dir>/objects/ab/<id>.map  while partial: header and a 16-byte entry per block
 *
 * The store knows bytes, blocks and space; what an object means, and who fetches it, is others'
 * business. An object is in memory while somebody holds a reference (and a while longer, bounded);
 * a reference also keeps it from being evicted. At rest it is a record in the metadata (META_OBJECTS,
 * META_LRU) and its files, so that start-up reads the records, never the tree.
 *
 * Writing a block: object_pwrite() its bytes, then object_commit() it with its hash: the map entry is
 * written before the live bit is set, so a kill at any point leaves only whole blocks marked present.
 * Space is charged by object blocks (256 KiB, the last one by its length, rounded up to 4 KiB) plus
 * the map, and is admitted before it is used: used + admitted never exceeds the limit, and the file
 * system keeps at least the free floor.
 *
 * Thread-safe. Lock order: store.lock, then object.lock. No lock is held over file I/O.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/evict.h"
#include "agent/meta.h"
#include "agent/object_id.h"
#include "common/err.h"
#include "common/mountmem.h"

struct store;
struct object;

/* Who keeps an object from being evicted. */
enum store_pin { STORE_UNPINNED, STORE_PIN_SETTING, STORE_PIN_ASKED, STORE_PINS };

struct store_config {
	const char *dir;
	uint64_t limit_bytes;	   /* size of the cache; 0: 90% of the file system */
	uint64_t free_floor_bytes; /* file system space that is never taken */
	/* Called on the evictor thread, no lock held, may block (bounded): give back what pools hold
	 * on to for an object that nobody has open (idle backing ids). 0 when every such reference
	 * is dropped (unpool, then unref), -EBUSY when the object is in use after all. May be NULL. */
	int (*reclaim)(void *arg, const struct object_id *id);
	void *reclaim_arg;
	enum evict_policy policy;
	/* Called on the evictor thread, no lock held, before room is made: object_used() for what was used in
	 * pools without a word to anybody. May be NULL. */
	void (*note_uses)(void *arg);
	void *note_uses_arg;
	/* Of what is pinned now, by either kind: objects that were pinned under another tag are not; 0: none is. */
	uint16_t pin_tags[STORE_PINS];
	/* Called on the checker thread, no lock held: a block of an object that was present is bad, and
	 * absent from now on; somebody who has it open may want it fetched. May be NULL. */
	void (*damaged)(void *arg, const struct object_id *id, uint64_t offset, uint64_t len);
	void *damaged_arg;
	int64_t probe_interval_ms;  /* how often a broken disk is tried; 0: every 5 s */
	uint64_t scrub_bytes_per_s; /* how fast all blocks are checked against their hashes; 0: never */
	int64_t scrub_interval_ms;  /* from the beginning of one such walk to that of the next */
};

struct store_evictions {
	uint64_t objects, bytes;
};

struct store_stats {
	uint64_t used_bytes, admitted_bytes, limit_bytes, free_bytes; /* free of the file system */
	uint64_t configured_bytes; /* what limit_bytes is unless store_set_limit() was called */
	bool is_draining;
	uint64_t objects, evicted_objects, evicted_bytes, io_errors;
	uint64_t refused_admissions, refused_bytes;
	struct store_evictions evictions[EVICT_FIXED][EVICT_FROMS]; /* for room: by rule, and from where */
	enum evict_policy policy, ruler; /* as configured, and the one in force */
	struct evict_shadow_stats shadows;
	uint64_t pinned_bytes, refused_pins;
	uint64_t checked_blocks, corrupt_blocks;
	uint64_t damaged_objects; /* whose files or map were found missing, cut or torn */
	bool is_broken; /* the disk gave errors, or the directory vanished: nothing is admitted until a probe,
			 * every few seconds, finds that it works again */
};

/* `meta` is borrowed. The directory is created when missing (mode 0700); an unwritable or full one
 * is an error that names it. */
int store_open(const struct store_config *config, struct meta *meta, struct store **ret_store,
	struct wd_err *err);
void store_close(struct store *s);
void store_get_stats(struct store *s, struct store_stats *ret_stats);

/* Another limit, until the next start: the evictor sees to what is above it. */
void store_set_limit(struct store *s, uint64_t bytes);
/* Other settings: of config.limit_bytes (0 as there), which also is the limit then, and config.free_floor_bytes. */
void store_set_configured(struct store *s, uint64_t bytes);
void store_set_floor(struct store *s, uint64_t bytes);
/* Nothing is admitted while it drains (-ENOSPC), and there is no room for anything ahead. */
void store_set_draining(struct store *s, bool is_draining);

/* hash of origin URL, key, and version: every string that tells bytes apart */
void object_id_make(const void *text, size_t len, struct object_id *ret_id);
void object_id_format(const struct object_id *id, char out[33]);

/*
 * A reference to the object, loading its record or beginning an empty one (size as given; a record of
 * another size is dropped). Touches no data file until something is written or opened.
 */
int store_get(struct store *s, const struct object_id *id, uint64_t size, struct object **ret_object,
	struct wd_err *err);
struct object *object_ref(struct object *o);
/* The last one writes the last use into META_LRU. */
void object_unref(struct object *o);

/* Somebody begins to read it: after store_get, and before it is fetched. What decides about evictions. */
void object_used(struct object *o);
/* A pinned object is not evicted for room, also after a restart, for as long as the tag of that kind stays. -ENOSPC:
 * pinned objects would take more than half of the cache. */
int object_pin(struct object *o, enum store_pin pin);
/* The same for one that may not be in memory, and without a use of it. */
int store_pin(struct store *s, const struct object_id *id, uint64_t size, enum store_pin pin);
/* When an object was used last (Unix time), which may not be in memory; 0: it is not known. */
uint64_t store_last_used(struct store *s, const struct object_id *id);
/* How an object is pinned that may not be in memory. */
enum store_pin store_pin_of(struct store *s, const struct object_id *id);
/* Another tag for what was asked to be pinned: from now on nothing is that was pinned under the one before. */
void store_set_pin_tag(struct store *s, uint16_t tag);

/* References that are pools' (idle backing ids): they may be reclaimed for an eviction. */
void object_pool(struct object *o);   /* one of the references becomes a pool's */
void object_unpool(struct object *o); /* and a user's again; before that reference is dropped */

const struct object_id *object_id(const struct object *o);
uint64_t object_size(const struct object *o);
bool object_is_complete(const struct object *o); /* a size of 0 is complete from the start */
bool object_has(const struct object *o, uint64_t offset, uint64_t len);
bool object_has_block(const struct object *o, uint32_t block);
/* With those that are suspect: bytes that somebody was allowed to fetch. */
uint64_t object_present_bytes(const struct object *o);
/*
 * Blocks that were on disk when the machine stopped uncleanly, or that nothing but their map vouches
 * for, are suspect: they are not present until they were checked against their hashes.
 */
bool object_is_suspect(const struct object *o);
/* Checks the suspect ones among these blocks, then calls cb on the checker thread: each is present or
 * absent by then (on a disk that gives errors it may stay suspect). Asked for in order, never refused. */
void store_check(struct store *s, struct object *o, uint32_t first, uint32_t count, void (*cb)(void *arg),
	void *arg);
/* The same for all of it, when there is nothing more urgent; an object that was checked gets passthrough. */
void store_check_whole(struct store *s, struct object *o);
/* object_present_bytes of an object that may not be in memory; *ret_present 0 when unknown. */
void store_peek(struct store *s, const struct object_id *id, uint64_t size, uint64_t *ret_present);

/*
 * The same by position: the object in pieces of *ret_piece bytes, each a number of whole blocks, the last one shorter,
 * and what is present of each; returns how many. One piece where no more is known, as of an object that rests.
 */
#define STORE_PIECES 64
unsigned store_peek_pieces(struct store *s, const struct object_id *id, uint64_t size,
	uint64_t ret_present[STORE_PIECES], uint64_t *ret_piece);

/* Fresh descriptors (caller closes): the cache file read-only, and the live map. -ENOENT: the file is gone;
 * the object is empty from now on. */
int object_open_file(struct object *o, struct wd_err *err);
int object_open_map(struct object *o, struct wd_err *err);

/*
 * Asks for room for `bytes` more of object o. Calls cb(arg, 0) at once when there is room, else later on
 * the evictor thread with 0 or -ENOSPC (nothing evictable is left, or the disk is broken): then read
 * through. What was admitted and not committed is given back by store_unadmit. cb may be called before
 * store_admit returns.
 */
void store_admit(struct store *s, struct object *o, uint64_t bytes, void (*cb)(void *arg, int status),
	void *arg);
void store_unadmit(struct store *s, struct object *o, uint64_t bytes);
/* How much more can be admitted before something is evicted for it; a 64th of the cache is left out. Of this moment. */
uint64_t store_room(struct store *s);

/* Bytes of admitted blocks, not yet present. -errno on a disk error (counted; ENOSPC too). */
int object_pwrite(struct object *o, const void *data, size_t len, uint64_t offset);
/* Block `block` is whole: record its hash (XXH3-64), make it present, turn admitted into used. The last
 * one folds the map away. Idempotent. */
int object_commit(struct object *o, uint32_t block, uint64_t hash);
/* Admitted bytes of one block of o: what commit will charge. */
uint64_t object_block_charge(const struct object *o, uint32_t block);

/* A whole small object (admitted by its block charges): written aside, renamed, complete. After a
 * failure what was admitted is still the caller's to give back. Larger ones go by blocks. */
int object_put(struct object *o, const void *data, size_t len);

/* Checks a present or suspect block against its recorded hash: 0 (it is present), -EILSEQ (it is absent
 * from now on: counted, logged), -EIO; -ENOENT when there is none. */
int object_verify(struct object *o, uint32_t block);

/* Drops an object that nobody uses: -EBUSY when somebody does or a pool holds it, -ENOENT when there
 * is none. May wait for the evictor: not from its callbacks (reclaim, admissions). */
int store_evict(struct store *s, const struct object_id *id);

/* Calls back with every object id and its present bytes, oldest use first (status, tests). */
typedef bool (*store_visit)(void *arg, const struct object_id *id, uint64_t size, uint64_t present);
int store_scan(struct store *s, store_visit visit, void *arg);

#endif
