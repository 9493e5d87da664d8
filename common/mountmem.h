/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_MOUNTMEM_H
#define WD_COMMON_MOUNTMEM_H
/*
 * What a mount remembers across the death of its server: two memfds.
 *
 * The info memfd is written once by the keeper and sealed against everything: the kernel's INIT
 * request, the keeper's answer, the mount description.
 *
 * The tables memfd is sealed against resizing and shared by keeper, agent and the server of the
 * moment. The server owns its contents; keeper and agent treat it as hostile input: they read
 * single words, bound every index, and a lie can only harm the mount it belongs to.
 *
 *	header | slot states | inodes | handles | slots (requests, one per slot_size bytes)
 *
 * Slots. A server thread marks a slot WD_SLOT_BUSY, zeroes its fuse_in_header, and lets read(2)
 * on /dev/fuse fill it. After the answer the header's length is zeroed again and the slot freed. A
 * server that is killed leaves its unanswered requests there and the next one answers them. Slots of
 * WD_MM_SLOT_MIN bytes, as 1.0 made them, are served as well; a call through the control file has no room there.
 *
 * Inodes. One entry per open (or pooled) node: the mode in force and the backing id. The per-inode
 * rule of kernel passthrough (all opens of an inode share one mode and one id) is kept by it.
 * Entries are found by linear probing from a hash of the node id; WD_INO_GONE is a tombstone.
 * A pooled entry (WD_INO_IDLE: no handle, id still registered) is taken by compare-and-swap of
 * `state`: by the server to open it again (-> WD_INO_PASSTHROUGH), by the agent to take the
 * id back before an eviction (-> WD_INO_RECLAIM; it then closes the id and frees the entry
 * with -> WD_INO_GONE).
 *
 * Handles. One entry per open file; they are the truth: a new server recounts the opens of each
 * inode from them. A handle is OPENING from the allocation until OPEN's answer is written, then
 * ACTIVE; RELEASE frees it. fh = index + 1.
 *
 * Counts. What happens without a message to the agent, the server counts here; the agent exports it.
 *
 * Format WD_MM_VERSION.WD_MM_MINOR. Memory of another version is refused, and the mount stays with the
 * program that served it. The minor number says what there is that programs of one version may
 * ignore, so that servers follow each other in both directions: 1.1 has the counts, which a server of
 * 1.0 leaves as they are; a server of 1.0 or an early 1.1 leaves `uses` of the inodes. The keeper that makes a mount decides; where 1.0 had nothing there are zeros.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define WD_MM_MAGIC 0x4d4d4457u /* "WDMM" */
#define WD_MM_INFO_MAGIC 0x494d4457u
#define WD_MM_VERSION 1
#ifdef WD_PREVIOUS_FORMATS
#define WD_MM_MINOR 0
#else
#define WD_MM_MINOR 1
#endif
#define WD_MM_MINOR_COUNTS 1 /* the first with counts */

#define WD_MM_SLOTS 1280     /* above the kernel's max_background of 1024 */
#define WD_MM_SLOT_MIN 8192  /* FUSE_MIN_READ_BUFFER: the kernel gives out nothing to less */
#ifdef WD_PREVIOUS_FORMATS
#define WD_MM_SLOT_SIZE WD_MM_SLOT_MIN
#else
#define WD_MM_SLOT_SIZE 20480 /* whole pages; room for a call through the control file, the longest request */
#endif
#define WD_MM_INODES 32768   /* power of two */
#define WD_MM_HANDLES 65536
#define WD_MM_PROBES 1024 /* an entry is at most so far from its home; bounds every search */
#define WD_MM_POOL 16384  /* pooled backing ids per mount */

enum wd_slot_state { WD_SLOT_FREE = 0, WD_SLOT_BUSY = 1 };
enum wd_ino_state {
	WD_INO_FREE = 0,
	WD_INO_GONE = 1,	/* tombstone: reusable, probing goes on */
	WD_INO_OPENING = 2,	/* the agent is being asked */
	WD_INO_CACHED = 3,	/* open through the server */
	WD_INO_DIRECT = 4,	/* open, FOPEN_DIRECT_IO */
	WD_INO_PASSTHROUGH = 5, /* open on backing_id */
	WD_INO_IDLE = 6,	/* not open, backing_id registered */
	WD_INO_RECLAIM = 7,	/* the agent is closing backing_id */
	WD_INO_CLAIMED = 8,	/* wd_mm_claim is at work; for everybody else as GONE */
};
enum wd_handle_state { WD_HANDLE_FREE = 0, WD_HANDLE_OPENING = 1, WD_HANDLE_ACTIVE = 2 };

struct wd_mm_slot {
	_Atomic uint32_t state;
	_Atomic uint32_t is_interrupted; /* an INTERRUPT for it was received */
};

struct wd_mm_inode {
	_Atomic uint64_t node;
	_Atomic uint32_t state;
	_Atomic uint32_t opens; /* recounted from the handles at take-over */
	_Atomic uint32_t backing_id;
	_Atomic uint32_t uses; /* opens without a word to the agent; a server that does not count leaves it */
	_Atomic uint64_t size; /* bytes, as opened */
};

struct wd_mm_handle {
	_Atomic uint64_t unique; /* of the OPEN, without the resend bit */
	_Atomic uint64_t node;
	_Atomic uint32_t state;
	_Atomic uint32_t inode; /* index */
};

enum wd_mm_count {
	WD_MM_PASSTHROUGH_OPENS, /* of pooled or open files: the agent was not asked */
	WD_MM_PASSTHROUGH_BYTES, /* the sizes of those files */
	WD_MM_CACHED_OPENS,	 /* of files that are open through the server already */
	WD_MM_READ_BYTES,	 /* with which READs were answered */
	WD_MM_COUNTS
};

struct wd_mm_header {
	uint32_t magic, version;
	uint64_t total_size;
	uint32_t nslots, slot_size, ninodes, nhandles;
	uint64_t states_off, inodes_off, handles_off, slots_off;
	_Atomic uint32_t handle_high; /* no handle at or above this index was ever used */
	_Atomic uint32_t generation;  /* servers so far */
	uint32_t minor, reserved;
	_Atomic uint64_t counts[WD_MM_COUNTS]; /* since the mount was made; nobody else's business */
};

struct wd_mm_info {
	uint32_t magic, version;
	uint64_t mount;
	uint32_t mount_flags; /* enum wd_mount_flag */
	uint32_t has_resend;  /* the kernel takes FUSE_NOTIFY_RESEND */
	uint32_t init_len, reply_len;
	unsigned char init[256];  /* fuse_in_header + fuse_init_in, as the kernel sent it */
	unsigned char reply[256]; /* fuse_out_header + fuse_init_out, as the keeper answered */
};

/* A mapped tables memfd. Plain value; the pointers live until wd_mm_unmap. */
struct wd_mm {
	struct wd_mm_header *header;
	struct wd_mm_slot *slots;
	struct wd_mm_inode *inodes;
	struct wd_mm_handle *handles;
	unsigned char *requests;
	size_t size;
	/* copies of the header's numbers, taken once after they were checked: use these */
	uint32_t nslots, slot_size, ninodes, nhandles;
	bool has_counts;
};

/* Makes a fresh tables memfd, sealed against resizing. Returns the fd or -errno. */
int wd_mm_create(struct wd_err *err);
/* Maps fd after checking seals, size, magic, version and every offset. -EPROTO for a bad one. */
int wd_mm_map(int fd, struct wd_mm *ret_mm, struct wd_err *err);
void wd_mm_unmap(struct wd_mm *mm);

/* Makes the sealed info memfd. Returns the fd or -errno. */
int wd_mm_info_create(const struct wd_mm_info *info, struct wd_err *err);
int wd_mm_info_read(int fd, struct wd_mm_info *ret_info, struct wd_err *err);

/* The entry of node in any state but FREE, GONE and CLAIMED, or NULL. Lock-free; safe on hostile
 * tables. */
struct wd_mm_inode *wd_mm_find(const struct wd_mm *mm, uint64_t node);
/* Finds node's entry or claims a FREE or GONE one for it in state WD_INO_OPENING; *ret_is_new says
 * which. The caller holds the server's lock for that node; different nodes may race. NULL when
 * full, which may be before every entry is in use (WD_MM_PROBES). Node 0 is never found or claimed.
 */
struct wd_mm_inode *wd_mm_claim(const struct wd_mm *mm, uint64_t node, bool *ret_is_new);
/* Gives back what a killed server left half claimed. A new server calls it before it serves, when
 * the old one is gone; entries in OPENING without a handle are its own to settle. */
void wd_mm_recover(const struct wd_mm *mm);

static inline void wd_mm_add(const struct wd_mm *mm, enum wd_mm_count count, uint64_t n)
{
	if (mm->has_counts)
		atomic_fetch_add_explicit(&mm->header->counts[count], n, memory_order_relaxed);
}

/* What a server says; 0 where nothing is counted. */
static inline uint64_t wd_mm_counted(const struct wd_mm *mm, enum wd_mm_count count)
{
	return mm->has_counts
		       ? atomic_load_explicit(&mm->header->counts[count], memory_order_relaxed)
		       : 0;
}

static inline void *wd_mm_request(const struct wd_mm *mm, uint32_t slot)
{
	return mm->requests + (size_t)slot * mm->slot_size;
}

/* ---- the live map: which blocks of a partial cache file are present ----
 *
 * One memfd per partial object, written by the agent alone (sealed with F_SEAL_FUTURE_WRITE,
 * SHRINK, GROW) and mapped read-only by servers. A bit is set with release order after its
 * block's bytes are in the cache file; read it with acquire order.
 */
#define WD_BLOCK_SIZE (256 * 1024)
#define WD_LIVEMAP_MAGIC 0x4d4c4457u
#define WD_LIVEMAP_VERSION 1
enum wd_livemap_flag { WD_LIVEMAP_COMPLETE = 1 };

struct wd_livemap {
	uint32_t magic, version;
	uint64_t size; /* of the object, bytes */
	uint32_t block_size, nblocks;
	_Atomic uint32_t flags;
	uint32_t reserved;
	_Atomic uint64_t bits[];
};

static inline size_t wd_livemap_bytes(uint32_t nblocks)
{
	return sizeof(struct wd_livemap) + ((size_t)nblocks + 63) / 64 * 8;
}
static inline uint32_t wd_nblocks(uint64_t size)
{
	return (uint32_t)((size + WD_BLOCK_SIZE - 1) / WD_BLOCK_SIZE);
}
/* Maps a received live map read-only after checking seals, size and header. NULL on error. */
const struct wd_livemap *wd_livemap_map(int fd, size_t *ret_len, struct wd_err *err);
/* True when every block that [offset, offset+len) touches is present; len 0 is true, and so is what
 * lies behind the end of the object: it touches no block. */
bool wd_livemap_has(const struct wd_livemap *map, uint64_t offset, uint64_t len);

#endif
