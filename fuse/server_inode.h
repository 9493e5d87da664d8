/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_FUSE_SERVER_INODE_H
#define WD_FUSE_SERVER_INODE_H
/*
 * The server's use of the shared tables (common/mountmem.h): which mode an inode is open in, how
 * often, by which handles, and which idle inodes keep their backing id.
 *
 * No function locks: the caller holds one lock over all of them. The agent works on the tables at
 * the same time, but only by compare-and-swap from WD_INO_IDLE to WD_INO_RECLAIM and on to
 * WD_INO_GONE, and the functions are safe against that.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/mountmem.h"
#include "common/proto.h"

struct inodes {
	struct wd_mm mm; /* borrowed mapping */
	uint32_t *free_handles, nfree_handles;
	unsigned char *marks; /* per inode: enum inode_mark */
	struct inode_ring {
		uint32_t *at, first, len; /* indices of inodes */
	} idle, /* that went idle, oldest first */
		line; /* of which the agent is to be asked, see inode_next_unknown */
	uint32_t npooled; /* inodes marked INODE_POOLED */
	uint32_t nopen;	  /* in force, or the agent is being asked */
	uint32_t pool_max;
};

enum inode_verdict {
	INODE_OPEN,    /* in force: the entry says the mode */
	INODE_ASK,     /* claimed: ask the agent, then inode_settle */
	INODE_OPENING, /* the agent is being asked already */
	INODE_RECLAIM, /* the agent takes the id back: ask it, then begin again */
	INODE_FULL,
};

int inodes_init(struct inodes *t, const struct wd_mm *mm);
void inodes_done(struct inodes *t);

/* What is to be done to open node. INODE_OPEN takes a pooled inode out of the pool; the caller adds
 * a handle at once. */
enum inode_verdict inode_begin(struct inodes *t, uint64_t node, struct wd_mm_inode **ret_inode);
/* Puts a mode in force for an entry in WD_INO_OPENING. */
void inode_settle(
	struct wd_mm_inode *inode, enum wd_open_mode mode, uint32_t backing_id, uint64_t size);
/* An inode in force without handles: to the pool when it has a backing id, else forgotten. True
 * when the agent is to be told RELEASE. */
bool inode_drop(struct inodes *t, struct wd_mm_inode *inode);
/* When the pool is too full: forgets its oldest inode and returns its node, for RELEASE; else 0. It is too full
 * beyond pool_max, and when little of the table is left for what is open. */
uint64_t inode_evict(struct inodes *t);
/* An entry in WD_INO_OPENING that comes to nothing. */
void inode_forget(struct inodes *t, struct wd_mm_inode *inode);

/* Adds an open of inode. *ret_fh is its handle. False when no handle is left. */
bool handle_add(struct inodes *t, struct wd_mm_inode *inode, uint64_t unique, uint64_t *ret_fh);
/* The handle that a killed server made for the OPEN unique of node, or 0. It is active from now on,
 * whatever becomes of the answer: the kernel may have got the first one. */
uint64_t handle_adopt(struct inodes *t, uint64_t node, uint64_t unique);
/* OPEN's answer was written. */
void handle_opened(struct inodes *t, uint64_t fh);
/* OPEN's answer went nowhere. Returns the inode if that was its last handle (see handle_remove). An
 * adopted handle stays. */
struct wd_mm_inode *handle_not_opened(struct inodes *t, uint64_t fh, uint64_t node);
/* The inode of an open handle of node, or NULL for a handle that is none. */
struct wd_mm_inode *handle_inode(const struct inodes *t, uint64_t fh, uint64_t node);
/* Frees the handle; a repeated call does nothing. Returns the inode when it has no handle left. */
struct wd_mm_inode *handle_remove(struct inodes *t, uint64_t fh, uint64_t node);

/* After a predecessor's death: recounts the opens from the handles. inode_dropped(node) is called
 * for each inode that the agent may forget, inode_kept(inode) for each in force; the idle ones are lined up. */
void inodes_recover(struct inodes *t, void (*inode_dropped)(uint64_t node),
	void (*inode_kept)(struct wd_mm_inode *inode));
/* The agent is new: calls inode_kept for every inode in force, and lines up the idle ones. */
void inodes_ask_all(struct inodes *t, void (*inode_kept)(struct wd_mm_inode *inode));
/* The agent may not know of the inodes that were kept or lined up: these stay in the pool until it does
 * (inode_known), since it can close no backing id that it has not heard of. Takes the next out of the line; NULL
 * when there is none. */
struct wd_mm_inode *inode_next_unknown(struct inodes *t);
/* The agent has answered, or cannot be asked. */
void inode_known(struct inodes *t, const struct wd_mm_inode *inode);

static inline uint32_t inode_state(const struct wd_mm_inode *inode)
{
	return atomic_load_explicit(&inode->state, memory_order_acquire);
}
static inline uint64_t inode_node(const struct wd_mm_inode *inode)
{
	return atomic_load_explicit(&inode->node, memory_order_relaxed);
}

#endif
