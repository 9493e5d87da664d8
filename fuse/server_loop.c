/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receiving requests. A thread takes a free slot, marks it busy, zeroes its header and lets read(2)
 * on /dev/fuse fill it in place. The slot keeps the request until it was answered, so that a server
 * which is killed at any moment leaves behind exactly what is still owed.
 *
 * Slots come from a stack: the few that an idle mount uses stay warm, the others cost nothing. When
 * all are taken, receiving waits until one is free; the kernel queues what comes meanwhile.
 *
 * On few cores one thread receives while nothing can block (open and release of files in force): each request would
 * wake another thread of those that wait in read(2), often on another core, and what two threads do by turns one does
 * with half of the switches. As soon as a request may block, all receive again.
 *
 * Every page of a slot is touched before read(2): were it absent and SIGKILL pending, the kernel
 * would drop the request with EIO.
 */
#include "fuse/server.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/fault.h"
#include "common/log.h"
#include "fuse/fuse_abi.h"
#include "fuse/keeper_spawn.h"

#define SLOTS_LIMIT 65536u /* an op's id has 16 bits for its slot */
#define SLOTS_WARM 8	   /* free slots that keep their memory */

#define CALM_REQUESTS 256  /* so many in a row that did not block: few threads are enough */
#define CORES_PER_THREAD 2 /* of those few */

static _Thread_local struct {
	struct op *op;
	bool is_detached;
	bool is_receiver; /* counted in nreceivers */
} current;

static struct wd_mutex turn_lock;
static struct wd_cond turn; /* a receiver left, or all may be one */
static unsigned nreceivers WD_GUARDED_BY(turn_lock), few_threads;
static _Atomic unsigned calm; /* requests since the last that might block */

static bool *warm; /* per slot: it may have memory */
static uint32_t *cooling;
static size_t page_size;

static unsigned count_few(void)
{
	cpu_set_t set;
	unsigned n = sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : LOOP_THREADS;

	n /= CORES_PER_THREAD;
	return n < 1 ? 1 : n < LOOP_THREADS ? n : LOOP_THREADS;
}

int loop_init(struct wd_err *err)
{
	uint32_t n = server.mm.nslots;

	if (n > SLOTS_LIMIT)
		return wd_err_set(err, EPROTO, "the tables have %u slots", n);
	page_size = (size_t)sysconf(_SC_PAGESIZE);
	server.ops = calloc(n, sizeof(*server.ops));
	server.free_slots = calloc(n, sizeof(*server.free_slots));
	cooling = calloc(n, sizeof(*cooling));
	warm = calloc(n, sizeof(*warm));
	if (!server.ops || !server.free_slots || !cooling || !warm)
		return wd_err_set(err, ENOMEM, "out of memory for %u slots", n);
	wd_mutex_init(&server.slot_lock);
	wd_cond_init(&server.slot_freed);
	wd_mutex_init(&turn_lock);
	wd_cond_init(&turn);
	few_threads = count_few();
	for (uint32_t i = 0; i < n; i++)
		server.free_slots[i] = n - 1 - i;
	server.nfree_slots = n;
	return 0;
}

static uint32_t slot_of(const struct op *op)
{
	return (uint32_t)(op - server.ops);
}

static struct abi_in_header *header_of(uint32_t slot)
{
	return wd_mm_request(&server.mm, slot);
}

static uint32_t slot_get(void)
{
	uint32_t slot;

	wd_lock(&server.slot_lock);
	while (server.nfree_slots == 0)
		wd_cond_wait(&server.slot_freed, &server.slot_lock);
	slot = server.free_slots[--server.nfree_slots];
	wd_unlock(&server.slot_lock);
	return slot;
}

static void slot_put(uint32_t slot)
{
	atomic_store(&server.mm.slots[slot].is_interrupted, 0);
	/* after this a successor sees no request here */
	*(volatile uint32_t *)&header_of(slot)->len = 0;
	atomic_store(&server.mm.slots[slot].state, WD_SLOT_FREE);
	wd_lock(&server.slot_lock);
	server.free_slots[server.nfree_slots++] = slot;
	wd_cond_signal(&server.slot_freed);
	wd_unlock(&server.slot_lock);
}

static void slot_prepare(uint32_t slot)
{
	volatile unsigned char *mem = wd_mm_request(&server.mm, slot);

	warm[slot] = true;
	for (size_t at = 0; at < server.mm.slot_size; at += page_size)
		mem[at] = 0;
	memset((void *)(uintptr_t)mem, 0, sizeof(struct abi_in_header));
	atomic_store(&server.mm.slots[slot].is_interrupted, 0);
	atomic_store(&server.mm.slots[slot].state, WD_SLOT_BUSY);
}

/* ---- whose turn it is to receive ---- */

static bool is_calm(void)
{
	return atomic_load_explicit(&calm, memory_order_relaxed) >= CALM_REQUESTS;
}

/* Before each read(2): waits while it is calm and enough others receive. */
static void receiver_enter(void)
{
	if (few_threads == LOOP_THREADS || (current.is_receiver && !is_calm()))
		return;
	wd_lock(&turn_lock);
	nreceivers += !current.is_receiver;
	while (is_calm() && nreceivers > few_threads) {
		nreceivers--;
		wd_cond_wait(&turn, &turn_lock);
		nreceivers++;
	}
	wd_unlock(&turn_lock);
	current.is_receiver = true;
}

/* Who waits does so only while it is calm, and then one receives that has not called this. */
void loop_may_block(void)
{
	if (!current.is_receiver)
		return;
	current.is_receiver = false;
	wd_lock(&turn_lock);
	nreceivers--;
	if (atomic_exchange_explicit(&calm, 0, memory_order_relaxed) >= CALM_REQUESTS)
		wd_cond_broadcast(&turn);
	wd_unlock(&turn_lock);
}

static void note_calm(void)
{
	if (current.is_receiver && !is_calm())
		atomic_fetch_add_explicit(&calm, 1, memory_order_relaxed);
}

/* ---- ops ---- */

struct op *op_current(void)
{
	return current.op;
}

void op_detach(struct op *op)
{
	if (current.op == op)
		current.is_detached = true;
}

void op_done(struct op *op)
{
	op_detach(op);
	wd_lock(&server.lock);
	op->state = OP_NONE;
	wd_unlock(&server.lock);
	slot_put(slot_of(op));
}

void op_reply_err(struct op *op, int err)
{
	fuse_reply_err(op->req, err);
	op_done(op);
}

static void reply_raw(uint64_t unique, int error)
{
	struct abi_out_header out = {.len = sizeof(out), .error = -error, .unique = unique};

	if (write(SERVER_FD_FUSE, &out, sizeof(out)) < 0)
		wd_debug("answer a request: %s", strerror(errno));
}

/* Which slot holds the request does not matter for a request that is answered meanwhile: the mark
 * carries the unique, so it cannot hit the slot's next request. The header may be written by the
 * kernel while it is read here: any value that is not the unique is as good. */
__attribute__((no_sanitize("thread"))) static void interrupt(uint64_t unique)
{
	unique &= ~ABI_UNIQUE_RESEND;
	for (uint32_t slot = 0; slot < server.mm.nslots; slot++) {
		const volatile struct abi_in_header *h;

		if (atomic_load(&server.mm.slots[slot].state) != WD_SLOT_BUSY)
			continue;
		h = header_of(slot);
		if ((h->unique & ~ABI_UNIQUE_RESEND) != unique || h->opcode == ABI_OP_INTERRUPT)
			continue;
		atomic_store(&server.mm.slots[slot].is_interrupted, op_interrupt_mark(unique));
		agent_interrupt(slot, unique);
	}
}

/* Operations that change something: SETATTR, SYMLINK, MKNOD, MKDIR, UNLINK, RMDIR, RENAME, LINK,
 * WRITE, SETXATTR, REMOVEXATTR, CREATE, FALLOCATE, RENAME2, COPY_FILE_RANGE, TMPFILE. The kernel
 * refuses most of them by itself on a read-only mount. */
static bool is_writing(uint32_t opcode)
{
	static const uint64_t set = 1ULL << 4 | 1ULL << 6 | 1ULL << 8 | 1ULL << 9 | 1ULL << 10 |
				    1ULL << 11 | 1ULL << 12 | 1ULL << 13 | 1ULL << 16 | 1ULL << 21 |
				    1ULL << 24 | 1ULL << 35 | 1ULL << 43 | 1ULL << 45 | 1ULL << 47 |
				    1ULL << 51;

	return opcode < 64 && (set >> opcode & 1);
}

static void begin_read(void)
{
	loop_may_block(); /* on the cache's disk */
	if (WD_FAULT("server.stuck-read") && atomic_load(&server.mm.header->generation) == 1)
		for (;;)
			poll(NULL, 0, -1);
}

/* Hands the request in slot to its handler. The slot is freed now or when it is answered. */
static void dispatch(uint32_t slot, size_t len, bool is_repeat)
{
	struct abi_in_header *h = header_of(slot);
	struct fuse_buf buf = {.mem = h, .size = len};
	struct op *op = &server.ops[slot];

	beat_work();
	server_note_activity();
	switch (h->opcode) {
	case ABI_OP_FORGET:
	case ABI_OP_BATCH_FORGET: /* node ids are the agent's and outlive the kernel's interest */
		slot_put(slot);
		return;
	case ABI_OP_INTERRUPT:
		if (len >= sizeof(*h) + sizeof(struct abi_interrupt_in))
			interrupt(((const struct abi_interrupt_in *)(h + 1))->unique);
		slot_put(slot);
		return;
	}
	if (is_writing(h->opcode)) {
		reply_raw(h->unique, EROFS);
		slot_put(slot);
		return;
	}
	wd_lock(&server.lock);
	memset(op, 0, sizeof(*op));
	op->state = OP_RUNNING;
	op->unique = h->unique & ~ABI_UNIQUE_RESEND;
	op->is_repeat = is_repeat || (h->unique & ABI_UNIQUE_RESEND);
	link_init(&op->out.link);
	link_init(&op->wait);
	wd_unlock(&server.lock);
	current.op = op;
	current.is_detached = false;
	if (h->opcode == ABI_OP_READ)
		begin_read();
	fuse_session_process_buf(server.se, &buf);
	current.op = NULL;
	if (!current.is_detached)
		op_done(op);
	note_calm();
}

static void on_read_error(int code)
{
	switch (code) {
	case EINTR:
	case EAGAIN:
	case ENOENT: /* the request was interrupted before it was read */
		return;
	case ENODEV:
	case ECONNABORTED:
		wd_debug("the mount is gone");
		server_exit(0);
	default:
		wd_error("receive from /dev/fuse: %s", strerror(code));
		server_exit(1);
	}
}

void *loop_run(void *unused)
{
	for (;;) {
		uint32_t slot;
		ssize_t n;

		beat_wait();
		receiver_enter();
		slot = slot_get();
		slot_prepare(slot);
		while ((n = read(SERVER_FD_FUSE, wd_mm_request(&server.mm, slot),
				server.mm.slot_size)) < 0)
			on_read_error(errno);
		if (WD_FAULT("server.die"))
			server_exit(1);
		if (WD_FAULT("server.hang")) {
			beat_work();
			for (;;)
				poll(NULL, 0, -1);
		}
		if ((size_t)n < sizeof(struct abi_in_header) || header_of(slot)->len != (size_t)n) {
			wd_error("the kernel sent a request of %zd bytes that says otherwise", n);
			slot_put(slot);
			continue;
		}
		dispatch(slot, (size_t)n, false);
	}
	return unused;
}

/* ---- taking over ---- */

/* The kernel gives out again whatever is unanswered. */
static bool ask_to_resend(void)
{
	struct abi_out_header notify = {.len = sizeof(notify), .error = ABI_NOTIFY_RESEND};

	if (!server.info.has_resend)
		return false;
	if (write(SERVER_FD_FUSE, &notify, sizeof(notify)) == (ssize_t)sizeof(notify))
		return true;
	wd_warn("ask the kernel to resend requests: %s", strerror(errno));
	return false;
}

/* The requests that the predecessor owed come from the kernel where it resends, else from the slots: never
 * from both. A request that was resent has another unique, so that the answer to its copy in a slot counts for
 * nothing, and with each server that dies there would be one copy more of all that waits for the agent. */
void loop_replay(void)
{
	uint32_t n = server.mm.nslots, replayed = 0;
	bool is_resent = ask_to_resend();

	/* first the list of free slots: replaying frees more */
	wd_lock(&server.slot_lock);
	server.nfree_slots = 0;
	for (uint32_t slot = n; slot-- > 0;) {
		if (atomic_load(&server.mm.slots[slot].state) == WD_SLOT_FREE)
			server.free_slots[server.nfree_slots++] = slot;
		else
			cooling[replayed++] = slot;
	}
	wd_unlock(&server.slot_lock);
	for (uint32_t i = replayed; i-- > 0;) {
		uint32_t slot = cooling[i], len = header_of(slot)->len;

		warm[slot] = true;
		/* the predecessor was waiting in read(2), or the slot is broken */
		if (is_resent || len < sizeof(struct abi_in_header) || len > server.mm.slot_size)
			slot_put(slot);
		else
			dispatch(slot, len, true);
	}
	if (replayed > 0)
		wd_debug("looked after %u slots of the server before", replayed);
}

/* ---- memory ---- */

void loop_trim(void)
{
	uint32_t n = 0, kept = SLOTS_WARM;

	if (server.mm.slot_size % page_size != 0)
		return;
	/* the coldest free slots are out of the list while their memory is taken */
	wd_lock(&server.slot_lock);
	if (server.nfree_slots > kept) {
		n = server.nfree_slots - kept;
		memcpy(cooling, server.free_slots, n * sizeof(*cooling));
		memmove(server.free_slots, server.free_slots + n, kept * sizeof(*cooling));
		server.nfree_slots = kept;
	}
	wd_unlock(&server.slot_lock);
	for (uint32_t i = 0; i < n; i++) {
		if (!warm[cooling[i]])
			continue;
		madvise(wd_mm_request(&server.mm, cooling[i]), server.mm.slot_size, MADV_REMOVE);
		warm[cooling[i]] = false;
	}
	wd_lock(&server.slot_lock);
	memmove(server.free_slots + n, server.free_slots, server.nfree_slots * sizeof(*cooling));
	memcpy(server.free_slots, cooling, n * sizeof(*cooling));
	server.nfree_slots += n;
	for (uint32_t i = 0; i < n && i < LOOP_THREADS; i++)
		wd_cond_signal(&server.slot_freed);
	wd_unlock(&server.slot_lock);
}
