/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_FUSE_SERVER_H
#define WD_FUSE_SERVER_H
/*
 * warpdrive-fuse: the state of one mount's server and the duties of its modules.
 *
 *	server.c          start-up, the control socket, the timer
 *	server_loop.c     receives requests into slots; replays those of a killed predecessor
 *	server_agent.c    requests to the agent, its answers, its restarts
 *	server_inode.c    the shared tables: per-inode rule, pool, handles
 *	server_open.c     open and release
 *	server_reopen.c   the same after restarts of server and agent
 *	server_file.c     nodes of which more is known than the tables say
 *	server_read.c     read
 *	server_unopened.c  mounts whose kernel sends no OPEN
 *	server_ops.c      all other operations
 *	server_control.c  the hidden control file
 *	server_beat.c     says whether the threads move
 *	server_data.c     cache files and live maps; buffers
 *	server_seccomp.c  the allow-list
 *	server_misbehave.c  for tests: what the allow-list is there to stop
 *	server_torture.c  for tests: allocations that fail
 *
 * Threads: LOOP_THREADS receive from /dev/fuse, on few cores one by one while nothing blocks (server_loop.c);
 * REPLY_THREADS receive from the agent and finish what was parked; one drops names from the kernel's cache; the main
 * thread has the control socket and the timer.
 *
 * One lock, server.lock, guards the tables, the ops and the queue to the agent. It is never held
 * over a system call, a reply or a malloc of size. Three more are leaves: the slot list's, the
 * buffers' and that of the receivers' turns.
 *
 * An op is one request of the kernel and lives in its slot. Whoever takes it out of OP_PARKED owns
 * it and answers it, exactly once; the slot is free after that.
 */
#define FUSE_USE_VERSION 317
#include <fuse_lowlevel.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/lock.h"
#include "common/mountmem.h"
#include "common/proto.h"
#include "fuse/server_inode.h"

#define LOOP_THREADS 4
#define REPLY_THREADS 2
#define BEAT_THREADS (LOOP_THREADS + REPLY_THREADS)
#define READ_MAX (1u << 20) /* bytes of the largest READ: max_pages of keeper_init.c */
#define FILE_BUCKETS 4096   /* power of two */
#define INVALS_MAX 64	    /* names that wait to be dropped; more are left to their TTL */
#define REOPENS_MAX 32	    /* idle inodes of which an agent is told at once: readers come first */
#define CONTROL_CALLS_MAX 16 /* that wait for the agent at once; further ones are refused */

struct link {
	struct link *next, *prev;
};

static inline void link_init(struct link *l)
{
	l->next = l->prev = l;
}
static inline bool link_is_empty(const struct link *l)
{
	return l->next == l;
}
static inline void link_add(struct link *head, struct link *l)
{
	l->prev = head->prev;
	l->next = head;
	head->prev->next = l;
	head->prev = l;
}
static inline void link_remove(struct link *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	link_init(l);
}

/* A message that waits to be sent to the agent. Embedded in who waits for the answer; or on its own
 * when there is none. */
struct out {
	struct link link; /* in server.queue, or alone */
	bool is_owned;	  /* freed once it was sent */
	uint16_t type;
	uint64_t id, node, offset;
	uint32_t len, flags;
	/* borrowed: they lie in the op's slot */
	const char *name;
	const struct wd_control_frame *frame;
};

/* A cache file and its live map. Counted, since a restart of the agent replaces them under readers.
 */
struct data {
	_Atomic uint32_t refs;
	int fd;
	const struct wd_livemap *map;
	size_t map_len;
};

/* A node of which the server knows more than the tables say: it is open through the server, or the
 * agent is being asked about it. */
struct file {
	struct file *next; /* in its bucket */
	uint64_t node;
	bool is_asking; /* out is unanswered */
	bool is_reopen; /* ... and is a REOPEN */
	bool is_ready;	/* data is what the agent gave, which for DIRECT is nothing */
	bool is_lined;	/* the REOPEN counts in server.nreopens */
	const struct wd_mm_inode *reopened; /* what it is for */
	struct out out;
	struct link waiters; /* of struct op.wait */
	struct data *data;
	uint64_t hinted; /* the last MiB of which the agent was told */
	struct link unopened; /* in server.unopened, or alone */
	int64_t used_ns;      /* there: when it was last read */
};

enum op_state { OP_NONE, OP_RUNNING, OP_PARKED };

struct op {
	enum op_state state;
	fuse_req_t req;
	uint64_t unique;  /* without the resend bit */
	bool is_repeat;	  /* replayed or resent: it may have been answered already */
	struct out out;	  /* out.id 0: nothing was asked of the agent */
	struct link wait; /* in file.waiters, or alone */
	/* Finishes the op with the agent's answer, or with m NULL because its file is ready (status
	 * 0) or cannot be had (-errno). Owns the op. */
	void (*finish)(struct op *op, struct wd_msg *m, int status);
	uint64_t node, fh, offset;
	uint32_t size, tries;
	bool is_plus;
	struct data *data;
	struct {
		int err; /* 0: answer with the mode */
		uint32_t state, backing_id;
		uint64_t size;
		bool is_adopted, is_unasked; /* unasked: the agent does not know of this open */
	} open;
};

struct server {
	struct fuse_session *se;
	struct wd_mm_info info;
	struct wd_mm mm;
	bool is_passthrough;

	struct wd_mutex lock;
	struct wd_cond changed; /* of the agent's socket: generation, is_sending */
	struct inodes inodes;
	struct op *ops;	     /* one per slot */
	struct link queue;   /* of struct out */
	bool is_agent_up;    /* not known to be away */
	bool is_sending;     /* a thread is at work on the queue */
	uint32_t generation; /* of the agent's socket */
	uint64_t next_id;
	uint32_t ncalls;     /* through the control file, that wait */
	struct file *buckets[FILE_BUCKETS];
	uint32_t nfiles, files_max; /* with data: bounded by the descriptors */
	uint32_t nreopens;	    /* of idle inodes, unanswered */
	struct link unopened;	    /* files that READs opened, the longest unread first */
	uint32_t nunopened;

	struct wd_mutex slot_lock;
	struct wd_cond slot_freed;
	uint32_t *free_slots, nfree_slots;

	int timer_fd;
	_Atomic bool is_timer_armed;
	_Atomic uint64_t activity;

	struct wd_mutex inval_lock;
	struct wd_cond inval_added;
	struct inval {
		uint64_t parent;
		char name[256];
	} invals[INVALS_MAX];
	unsigned ninvals, first_inval;
};

/* The one server of this process. */
extern struct server server;

/* ---- server_loop.c ---- */
/* Makes the ops and the list of free slots. */
int loop_init(struct wd_err *err);
/* Answers what a killed server left. Before loop_run. */
void loop_replay(void);
/* Receives requests for ever; exits the process when the mount is gone. */
void *loop_run(void *unused);
/* What a slot's is_interrupted holds when an INTERRUPT for the request unique was received. */
static inline uint32_t op_interrupt_mark(uint64_t unique)
{
	return (uint32_t)(unique >> 1) ? (uint32_t)(unique >> 1) : 1;
}
/* The op of the request that this thread dispatches. */
struct op *op_current(void);
/* The op was answered: frees its slot. */
void op_done(struct op *op);
/* The op will be answered later; called by the handler before another thread may see it. */
void op_detach(struct op *op);
void op_reply_err(struct op *op, int err);
/* The calling thread is about to do what may take long: others receive meanwhile. */
void loop_may_block(void);
/* Gives the memory of free slots back. */
void loop_trim(void);

/* ---- server_agent.c ---- */
/* Parks the current op until the agent answers: op->finish is called on a reply thread, or the op
 * ends with EINTR. op->out's fields from type on are set by the caller. */
void agent_ask(struct op *op);
/* The same under server.lock: parks, to be followed by agent_flush() when it returns 0. -EINTR: the
 * request was interrupted; nothing is parked. */
int agent_ask_locked(struct op *op);
/* Parks the op behind file. 0 or -EINTR. */
int agent_wait_file_locked(struct op *op, struct file *file);
/* Ends the op of slot with EINTR if it is parked and still the request unique. */
void agent_interrupt(uint32_t slot, uint64_t unique);
/* Queues a message without answer; node is all it has. */
void agent_tell_locked(uint16_t type, uint64_t node);
/* Asks (again) for file: OPEN or REOPEN. */
void agent_ask_file_locked(struct file *file, uint32_t flags);
/* Takes all waiters of file into list; the caller owns them. */
void agent_take_waiters_locked(struct file *file, struct link *list);
/* Sends what is queued, unless another thread is at it. Without the lock. */
void agent_flush(void);
/* A reader is at offset: tells the agent if that costs no waiting. */
void agent_hint(uint64_t node, uint64_t offset, uint32_t len);
void *agent_run(void *unused);
/* Replaces the agent's socket. Takes ownership of sock. Main thread. */
void agent_replace(int sock);
void *agent_run_invals(void *unused);
/* An errno of the agent as the kernel may see it. */
int agent_errno(int status);

/* ---- server_open.c ---- */
void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
/* The agent's answer to a file's OPEN or REOPEN. */
void open_answered(uint64_t id, struct wd_msg *m);

/* Parks op behind the file of its node, which asks the agent; claimed: the entry that is to be settled, or NULL.
 * False when that is not possible: op->open.err says why, and the entry is given back. */
bool open_wait_locked(struct op *op, struct wd_mm_inode *claimed);
/* The inode lost its last open: it goes to the pool or is forgotten, and so is what we had of it. Returns the data
 * to unref, without the lock. */
struct data *open_last_close_locked(struct wd_mm_inode *inode);

/* ---- server_unopened.c ---- */
/* True in a mount whose kernel sends no OPEN: its READs have fh 0. */
static inline bool unopened_is(void)
{
	return server.info.mount_flags & WD_MOUNT_NO_OPEN;
}
/* The inode that a READ of node is of, if it is open at the agent; it counts as read now. */
struct wd_mm_inode *unopened_find_locked(uint64_t node);
/* Opens it at the agent; op is finished again then. 0 or a positive errno: nothing is parked. */
int unopened_ask_locked(struct op *op);
/* The agent has opened file. */
void unopened_opened_locked(struct file *file, struct wd_mm_inode *inode);
/* file has no data any more. */
void unopened_forget_locked(struct file *file);
/* Closes what was not read for a while, and what is too much; is_idle: all that nobody waits for. */
void unopened_sweep(bool is_idle);

/* ---- server_reopen.c ---- */
/* Settles the tables of a predecessor and asks for the files that are open. */
void open_recover(void);
/* Asks for the files that are open: the agent is new. The ops that wait for their bytes then wait
 * for the files. */
void open_ask_all_locked(void);

/* ---- server_file.c ---- */
struct file *file_find_locked(uint64_t node);
/* Finds or makes; NULL without memory. */
struct file *file_get_locked(uint64_t node);
/* Frees file if nothing needs it. */
void file_put_locked(struct file *file);
/* Both return the data that is not needed any more, the caller's to unref without the lock. */
struct data *file_take_data_locked(struct file *file);
struct data *file_give_data_locked(struct file *file, struct data *data);

/* ---- server_read.c ---- */
void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
/* True when op is a read that waits for bytes. */
bool read_is_waiting(const struct op *op);
/* A read of node waits for bytes. */
bool read_is_waiting_of_locked(uint64_t node);
/* Lets a parked read begin anew behind its file. */
void read_requeue_locked(struct op *op);

/* ---- server_ops.c ---- */
extern const struct fuse_lowlevel_ops server_ops;

/* ---- server_control.c ---- */
bool control_is_name(uint64_t parent, const char *name);
bool control_is_node(uint64_t node);
/* True for an entry of the dataset's that the control file hides; says so once. */
bool control_hides(uint64_t parent, const char *name);
/* Answer at once, for the control file. */
void control_lookup(fuse_req_t req);
void control_getattr(fuse_req_t req);
void control_open(fuse_req_t req);
/* Of any file. */
void control_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi,
	unsigned flags, const void *in, size_t in_len, size_t out_len);

/* ---- server_data.c ---- */
/* Takes both descriptors, also on failure. */
struct data *data_new(int fd, int map_fd, struct wd_err *err);
struct data *data_ref(struct data *data);
void data_unref(struct data *data); /* NULL is fine; may unmap and close */
int buffers_init(struct wd_err *err);
/* A touched buffer of at least size bytes (<= READ_MAX); never NULL while its bound holds: one per
 * thread. */
void *buffer_get(size_t size);
void buffer_put(void *buffer);
void buffers_trim(void);

/* ---- server_beat.c ---- */
/* The calling thread is number `thread` of those that are watched, or beyond them. */
void beat_enter(unsigned thread);
/* It begins a piece of work; it waits for others. Nothing for threads that are not watched. */
void beat_work(void);
void beat_wait(void);
/* False when one of them is at the same work as at the call before. Main thread. */
bool beat_is_alive(void);

/* ---- server_seccomp.c ---- */
int seccomp_install(struct wd_err *err);

#ifdef WD_FAULTS
/* ---- server_misbehave.c ---- */
/* Does what an attribute name "user.misbehave.CALL" asks for; nothing for other names. */
void misbehave(const char *xattr);
/* The i-th CALL, or NULL. */
const char *misbehave_name(unsigned i);
#endif

/* ---- server.c ---- */
/* Ends the process; never returns. There is nothing to be tidied up. */
void server_exit(int status) __attribute__((noreturn));
/* Something was done: memory is given back a second after the last time. */
void server_note_activity(void);

#endif
