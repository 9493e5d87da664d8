/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_MOUNT_H
#define WD_AGENT_MOUNT_H
/*
 * A mount as the agent sees it: a dataset, options, the socket of the server of the moment, the shared
 * tables, and the files that are open (or pooled) in it. Counted: a request under way holds a
 * reference.
 */
#include <stdbool.h>
#include <stdint.h>

#include "agent/agent.h"
#include "agent/hash.h"
#include "agent/mount_options.h"
#include "common/mountmem.h"

struct open_file;
struct lent;

/* Embedded in who waits for a worker. */
struct mount_job {
	void (*fn)(void *arg);
	void *arg;
	struct mount_job *next;
};

struct mount {
	struct agent *agent;
	uint64_t id;
	_Atomic int refs;
	char *target, *display; /* display: the URL, as shown in /proc/mounts */
	struct mount_options *options;
	struct flow *flow; /* what its reads cost */
	struct dataset *dataset;
	struct origin *origin; /* the dataset's URL with this mount's own credentials: for proofs and checks */
	struct wd_mm mm;
	_Atomic uint64_t counted[WD_MM_COUNTS]; /* of its counts, in the metrics already */
	_Atomic uint64_t opened, passthrough_bytes, missed_bytes; /* of opens that came to the agent */
	int64_t mounted_s; /* Unix time; the directories' mtime */
	_Atomic bool has_no_passthrough; /* an option, or the kernel refused */
	_Atomic bool is_being_checked;	 /* by check.c */
	_Atomic bool is_disallowed;	 /* it stands, but could not be mounted now: allowed-origins has changed */
	_Atomic int64_t expires_s;	 /* Unix time: its credentials end; 0: not known */
	_Atomic int64_t refresh_at_s;	 /* ... and are to be made anew; 0: never, or that is under way */
	_Atomic bool is_being_renewed;
	_Atomic bool is_being_probed;	 /* by condition.c, as below */
	_Atomic int64_t probed_ns;
	struct mount *next; /* agent->lock */

	struct wd_mutex lock;
	struct identity who WD_GUARDED_BY(lock);
	struct mount_options *latest; /* whose credentials are in use, if not those of options; renew.c's */
	struct wd_err renewal_trouble WD_GUARDED_BY(lock); /* why the last renewal was refused; code 0: it was not */
	struct conn *conn WD_GUARDED_BY(lock);
	struct open_file *opens WD_GUARDED_BY(lock); /* by node */
	struct open_file *by_object WD_GUARDED_BY(lock); /* those that are OPEN, by the object's id; several may have one */
	bool is_gone WD_GUARDED_BY(lock);
	/* its share, see mount_share.c */
	struct mount_job *jobs WD_GUARDED_BY(lock); /* that wait */
	int64_t nworkers WD_GUARDED_BY(lock);	    /* at work for it */
	struct lent *lent WD_GUARDED_BY(lock);	    /* the oldest first */
	uint64_t lent_bytes WD_GUARDED_BY(lock);
};

struct mount *mount_ref(struct mount *mnt);
void mount_unref(struct mount *mnt);
/* Whose credentials it has at this moment. */
void mount_who(struct mount *mnt, struct identity *ret_who);
/* A reference to the mount with this id, or NULL. */
struct mount *mount_find(struct agent *a, uint64_t id);

/* The keeper's MOUNT_ADD, MOUNT_SERVER and MOUNT_DEL (hub thread; the first goes on as a job). */
bool mount_on_add(struct agent *a, struct conn *keeper, struct wd_msg *m);
bool mount_on_server(struct agent *a, struct conn *keeper, struct wd_msg *m);
bool mount_on_del(struct agent *a, struct conn *keeper, struct wd_msg *m);
/* False for the socket of a server that was replaced: what it still had to say is void. */
bool mount_is_served_by(struct mount *mnt, const struct conn *c);
/* The server's socket closed. */
void mount_on_server_gone(struct mount *mnt, struct conn *c);
/* Ends the mount as the keeper's MOUNT_DEL does, if it is here. */
void mount_end(struct agent *a, uint64_t id);
/* Ends the mounts of which nothing is held: the keeper that was making them is gone. */
void mounts_end_unheld(struct agent *a);
/* Drops every mount (at the agent's end). */
void mounts_drop_all(struct agent *a);

/* ---- mount_share.c ---- */
/* Runs fn(arg) on a worker, after what the mount asked for before if its share of them is taken. fn
 * frees the job. */
void mount_run(struct mount *mnt, struct mount_job *job, void (*fn)(void *arg), void *arg);
/* fd (borrowed) with len bytes is about to be sent as the answer to request id. False: out of
 * memory or descriptors, and it must not be sent. */
bool mount_lend(struct mount *mnt, uint64_t id, int fd, uint64_t len);
/* The server has read what it got for request id. */
void mount_lent_is_read(struct mount *mnt, uint64_t id);
/* Takes all back: the server is gone. */
void mount_lent_drop(struct mount *mnt);

/* ---- mount_counts.c ---- */
/* From now on what its servers count is counted here; what was before, an earlier agent has had. */
void mount_counts_begin(struct mount *mnt);
void mount_counts_take(struct mount *mnt);
/* Before the metrics are printed. */
void mounts_counts_take(struct agent *a);
/* An open was answered by the agent; size: of the file, where it is passthrough. */
void mount_count_open(struct mount *mnt, uint64_t size);
/* What was taken so far, of all mounts. */
uint64_t mounts_counted(enum wd_mm_count count);

/* ---- serve.c: a server's message on the hub thread ---- */
bool serve_message(struct mount *mnt, struct conn *c, struct wd_msg *m);
void serve_fill_attr(const struct mount *mnt, const struct node *node, uint32_t ttl_ms,
	struct wd_attr *ret_attr);

/* ---- open.c ---- */
void open_on_open(struct mount *mnt, struct conn *c, uint64_t id, uint64_t node, uint32_t flags);
void open_on_release(struct mount *mnt, uint64_t node);
/* The fetch of an open file, with a reference; NULL when it is not open. */
struct fetch *open_fetch(struct mount *mnt, uint64_t node);
/* The fetch of some open file of this object, with a reference; NULL when there is none. */
struct fetch *open_fetch_of(struct mount *mnt, const struct object_id *id);
/* A server died and another is about to start: closes what the shared tables do not hold any longer, since
 * the RELEASE of the dead one may never have come. */
void open_reconcile(struct mount *mnt);
/* Closes all files of a mount that is gone (the kernel's registrations went with it). */
void open_drop_all(struct mount *mnt);
/* Files that somebody has open; those that are merely pooled are not counted. */
unsigned open_count(struct mount *mnt);

/* ---- open_reclaim.c ---- */
/* The store's reclaim callback: gives back idle backing ids of an object. arg: struct agent. */
int open_reclaim(void *arg, const struct object_id *id);
/* For the store: object_used() for what servers opened without asking. arg: the agent. Waits for nobody. */
void open_note_uses(void *arg);
/* Gives back all idle backing ids of a mount, so that each file is asked for when it is opened again. Blocks. */
void open_drop_idle(struct mount *mnt);
/* For a mount that comes from an agent that died: ends what that one was taking back from the pool. */
void open_inherit(struct mount *mnt);

/* ---- open_pool.c ---- */
/* Bounds the pools of all mounts: as many files stay registered with the kernel, unless more are open. */
struct open_pool *open_pool_new(const struct settings *settings);
void open_pool_free(struct open_pool *p);

/* ---- repair.c: the store's damaged callback; arg: struct agent ---- */
void repair_damaged(void *arg, const struct object_id *id, uint64_t offset, uint64_t len);

#endif
