/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server's side of its conversation with the agent.
 *
 * What is to be sent is queued under the lock, in the order in which the tables changed, and sent
 * by one thread at a time without the lock: the agent sees a RELEASE of a node always before the
 * next OPEN of it. That thread may block when the agent is slow; the others only add to the queue,
 * and answers are received by threads that hardly ever send. The queue is bounded by the ops, one
 * message each, and by the inodes.
 *
 * Answers find their op by an id that holds its slot, their file by one that holds its bucket. Both
 * carry a number that is never used twice: an answer to what is over finds nothing.
 *
 * When the agent is gone everything that needs it stays parked. The keeper brings a socket to the
 * next agent: the files that are open are asked for first, then every op asks again.
 */
#include "fuse/server.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/control.h"
#include "common/log.h"
#include "fuse/keeper_spawn.h"

#define ID_SLOT_BITS 16
#define ID_FILE (1ULL << 63)

/* ---- sending ---- */

static void encode(struct wd_msg *m, const struct out *out)
{
	wd_msg_start(m, out->type, out->id);
	if (out->type == WD_MSG_STATFS)
		return;
	if (out->type == WD_MSG_CONTROL) {
		wd_put_bytes(m, out->frame->method, strnlen(out->frame->method, sizeof(out->frame->method)));
		wd_put_bytes(m, out->frame->data, out->len);
		return;
	}
	wd_put_u64(m, out->node); /* for CANCEL: the id */
	switch (out->type) {
	case WD_MSG_LOOKUP:
	case WD_MSG_GETXATTR:
		wd_put_str(m, out->name);
		break;
	case WD_MSG_READDIR:
		wd_put_u64(m, out->offset);
		wd_put_u32(m, out->len);
		break;
	case WD_MSG_OPEN:
		wd_put_u32(m, out->flags);
		break;
	case WD_MSG_ENSURE:
		wd_put_u64(m, out->offset);
		wd_put_u32(m, out->len);
		wd_put_u32(m, out->flags);
		break;
	case WD_MSG_HINT:
		wd_put_u64(m, out->offset);
		wd_put_u32(m, out->len);
		break;
	}
}

/* Sends the first message of the queue. Called and returns with the lock held, lets go of it
 * between; what lies in a slot may be gone as soon as it does. */
static void send_first(void) WD_REQUIRES(server.lock)
{
	static struct wd_msg m; /* is_sending makes it ours */
	struct out *out = (struct out *)((char *)server.queue.next - offsetof(struct out, link));
	bool is_owned = out->is_owned;
	uint16_t type = out->type;
	int rc;

	link_remove(&out->link);
	encode(&m, out);
	wd_unlock(&server.lock);
	if (is_owned)
		free(out);
	loop_may_block();
	beat_wait();
	rc = wd_msg_send(SERVER_FD_AGENT, &m, type == WD_MSG_HINT ? MSG_DONTWAIT : 0);
	beat_work();
	if (rc < 0 && rc != -EPIPE && rc != -EAGAIN)
		wd_error("send a message of type %u to the agent: %s", type, strerror(-rc));
	wd_lock(&server.lock);
	if (rc < 0 && type != WD_MSG_HINT)
		server.is_agent_up = false; /* what was lost is sent again to the next agent */
}

static void flush_locked(void) WD_REQUIRES(server.lock)
{
	if (server.is_sending)
		return;
	server.is_sending = true;
	while (server.is_agent_up && !link_is_empty(&server.queue))
		send_first();
	server.is_sending = false;
	wd_cond_broadcast(&server.changed);
}

void agent_flush(void)
{
	wd_lock(&server.lock);
	flush_locked();
	wd_unlock(&server.lock);
}

static void queue_locked(struct out *out)
{
	if (server.is_agent_up)
		link_add(&server.queue, &out->link);
}

static struct out *queue_owned_locked(uint16_t type, uint64_t node)
{
	struct out *out;

	if (!server.is_agent_up)
		return NULL; /* the next agent learns from the REOPENs */
	out = calloc(1, sizeof(*out));
	if (!out)
		return NULL;
	out->is_owned = true;
	out->type = type;
	out->id = ID_FILE | ++server.next_id;
	out->node = node;
	link_init(&out->link);
	queue_locked(out);
	return out;
}

void agent_tell_locked(uint16_t type, uint64_t node)
{
	queue_owned_locked(type, node);
}

void agent_hint(uint64_t node, uint64_t offset, uint32_t len)
{
	struct out *out;

	wd_lock(&server.lock);
	/* never behind others: it is worth little, and the queue must stay bounded */
	out = link_is_empty(&server.queue) ? queue_owned_locked(WD_MSG_HINT, node) : NULL;
	if (out) {
		out->offset = offset;
		out->len = len;
		flush_locked();
	}
	wd_unlock(&server.lock);
}

/* ---- asking ---- */

static uint32_t slot_of(const struct op *op)
{
	return (uint32_t)(op - server.ops);
}

/* True when the kernel does not want the answer any more. */
static bool is_interrupted(const struct op *op)
{
	return atomic_load(&server.mm.slots[slot_of(op)].is_interrupted) ==
	       op_interrupt_mark(op->unique);
}

int agent_ask_locked(struct op *op)
{
	if (is_interrupted(op))
		return -EINTR;
	op_detach(op);
	op->out.id = (++server.next_id << ID_SLOT_BITS & ~ID_FILE) | slot_of(op);
	op->state = OP_PARKED;
	queue_locked(&op->out);
	return 0;
}

void agent_ask(struct op *op)
{
	int rc;

	wd_lock(&server.lock);
	rc = agent_ask_locked(op);
	if (rc == 0)
		flush_locked();
	wd_unlock(&server.lock);
	if (rc < 0)
		op->finish(op, NULL, rc);
}

int agent_wait_file_locked(struct op *op, struct file *file)
{
	if (is_interrupted(op))
		return -EINTR;
	op_detach(op);
	op->out.id = 0;
	op->state = OP_PARKED;
	link_add(&file->waiters, &op->wait);
	return 0;
}

void agent_take_waiters_locked(struct file *file, struct link *list)
{
	link_init(list);
	while (!link_is_empty(&file->waiters)) {
		struct link *l = file->waiters.next;
		struct op *op = (struct op *)((char *)l - offsetof(struct op, wait));

		link_remove(l);
		link_add(list, l);
		op->state = OP_RUNNING;
	}
}

void agent_ask_file_locked(struct file *file, uint32_t flags)
{
	uint64_t bucket = file->node & (FILE_BUCKETS - 1);

	file->is_asking = true;
	file->is_reopen = flags & WD_OPEN_REOPEN;
	link_remove(&file->out.link);
	file->out.type = WD_MSG_OPEN;
	file->out.id = ID_FILE | bucket << 48 | (++server.next_id & 0xffffffffffffULL);
	file->out.node = file->node;
	file->out.flags = flags;
	queue_locked(&file->out);
}

void agent_interrupt(uint32_t slot, uint64_t unique)
{
	struct op *op = &server.ops[slot];
	bool is_mine;

	wd_lock(&server.lock);
	is_mine = op->state == OP_PARKED && op->unique == unique;
	if (is_mine) {
		op->state = OP_RUNNING;
		link_remove(&op->wait);
		if (op->out.id && link_is_empty(&op->out.link))
			agent_tell_locked(WD_MSG_CANCEL, op->out.id); /* it was sent */
		link_remove(&op->out.link);
		flush_locked();
	}
	wd_unlock(&server.lock);
	if (is_mine)
		op->finish(op, NULL, -EINTR);
}

int agent_errno(int status)
{
	static const int known[] = {ENOENT, EACCES, EPERM, ESTALE, ENOTDIR, EISDIR, ENAMETOOLONG,
		EINTR, ENODATA, ENOMEM, EROFS, EMFILE, ENFILE, ETIMEDOUT, EOVERFLOW, EOPNOTSUPP,
		EIO, ERANGE, EINVAL};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (status == -known[i])
			return known[i];
	return EIO;
}

/* ---- answers ---- */

static void on_answer(struct wd_msg *m)
{
	uint32_t slot = (uint32_t)(m->id & ((1u << ID_SLOT_BITS) - 1));
	struct op *op = &server.ops[slot];
	bool is_mine;

	if (slot >= server.mm.nslots)
		return;
	wd_lock(&server.lock);
	is_mine = op->state == OP_PARKED && op->out.id == m->id &&
		  m->type == (op->out.type | WD_MSG_REPLY);
	if (is_mine) {
		op->state = OP_RUNNING;
		link_remove(
			&op->out.link); /* queued again for a new agent, answered by the old one */
	}
	wd_unlock(&server.lock);
	if (is_mine)
		op->finish(op, m, m->status);
}

static void on_inval(struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	struct inval inval = {.parent = wd_rd_u64(&r)};

	wd_rd_str(&r, inval.name, sizeof(inval.name));
	if (!wd_rd_done(&r))
		return;
	wd_lock(&server.inval_lock);
	if (server.ninvals < INVALS_MAX) {
		server.invals[(server.first_inval + server.ninvals++) % INVALS_MAX] = inval;
		wd_cond_signal(&server.inval_added);
	}
	wd_unlock(&server.inval_lock);
}

/* The kernel locks the directory for it, which a LOOKUP that waits for the agent holds: so this
 * must not happen on a thread that answers. */
void *agent_run_invals(void *unused)
{
	for (;;) {
		struct inval inval;

		wd_lock(&server.inval_lock);
		while (server.ninvals == 0)
			wd_cond_wait(&server.inval_added, &server.inval_lock);
		inval = server.invals[server.first_inval];
		server.first_inval = (server.first_inval + 1) % INVALS_MAX;
		server.ninvals--;
		wd_unlock(&server.inval_lock);
		fuse_lowlevel_notify_inval_entry(
			server.se, inval.parent, inval.name, strlen(inval.name));
	}
	return unused;
}

static void on_message(struct wd_msg *m)
{
	if (m->type == WD_MSG_INVAL_ENTRY)
		on_inval(m);
	else if (!(m->type & WD_MSG_REPLY))
		wd_debug("the agent sent a message of type %u, which means nothing here", m->type);
	else if (m->id & ID_FILE)
		open_answered(m->id, m);
	else
		on_answer(m);
	wd_msg_close_fds(m);
}

void *agent_run(void *unused)
{
	struct wd_msg *m = malloc(sizeof(*m));
	uint32_t generation;
	int rc;

	if (!m)
		server_exit(1);
	wd_lock(&server.lock);
	for (;;) {
		generation = server.generation;
		wd_unlock(&server.lock);
		while (beat_wait(), (rc = wd_msg_recv(SERVER_FD_AGENT, m, 0)) > 0) {
			beat_work();
			server_note_activity();
			on_message(m);
		}
		if (rc < 0 && rc != -EPIPE && rc != -ENOTCONN) {
			wd_error("receive from the agent: %s; starting anew", strerror(-rc));
			server_exit(1); /* an answer was lost: the next server asks again */
		}
		wd_lock(&server.lock);
		while (server.generation == generation) {
			server.is_agent_up = false;
			wd_cond_wait(&server.changed, &server.lock);
		}
	}
	return unused;
}

/* ---- a new agent ---- */

static void forget_queue_locked(void)
{
	while (!link_is_empty(&server.queue)) {
		struct out *out =
			(struct out *)((char *)server.queue.next - offsetof(struct out, link));

		link_remove(&out->link);
		if (out->is_owned)
			free(out);
	}
}

void agent_replace(int sock)
{
	int rc;

	shutdown(SERVER_FD_AGENT, SHUT_RDWR); /* wakes who receives or sends */
	wd_lock(&server.lock);
	server.is_agent_up = false;
	while (server.is_sending)
		wd_cond_wait(&server.changed, &server.lock);
	server.is_sending = true; /* nobody sends while the sockets change */
	wd_unlock(&server.lock);
	rc = dup3(sock, SERVER_FD_AGENT, O_CLOEXEC);
	close(sock);
	if (rc < 0) {
		wd_error("take the agent's new socket: %s", strerror(errno));
		server_exit(1);
	}
	wd_lock(&server.lock);
	forget_queue_locked();
	server.is_agent_up = true;
	open_ask_all_locked();
	for (uint32_t slot = 0; slot < server.mm.nslots; slot++) {
		struct op *op = &server.ops[slot];

		if (op->state != OP_PARKED || !op->out.id)
			continue;
		if (read_is_waiting(op))
			read_requeue_locked(op);
		else
			queue_locked(&op->out);
	}
	server.generation++;
	server.is_sending = false;
	flush_locked();
	wd_unlock(&server.lock);
	wd_info("the agent is back");
}
