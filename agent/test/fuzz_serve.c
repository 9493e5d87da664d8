/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer target: a whole agent, and a server that has been taken over. An input is a program for
 * that server: messages in any order with any contents and descriptors, tables scribbled over,
 * answers not read, its replacement in the middle of things. Beside it lives a mount of another
 * dataset: it is read now and then and must be right, and nothing of it may ever reach the other.
 */
#include "agent/test/agent_fixture.h"

#include "common/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define THEIR_SIZE 77777 /* of every file of the other mount, and of none of ours */
#define NODES 8
#define CHECK_EVERY 64

static struct rig rig;
static struct rig_mount evil, good;
static uint64_t nodes[NODES]; /* the last ones are the other mount's */
static struct wd_msg msg;

struct input {
	const uint8_t *p;
	size_t left;
};

static void require(bool is_so)
{
	if (!is_so)
		abort();
}

static uint64_t take(struct input *in, unsigned bytes)
{
	uint64_t v = 0;

	while (bytes-- > 0 && in->left > 0) {
		v = v << 8 | *in->p++;
		in->left--;
	}
	return v;
}

static void end(void)
{
	rig_drop_mount(&evil);
	rig_drop_mount(&good);
	rig_stop(&rig);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	wd_log_set_level(WD_LOG_ERROR + 1);
	rig_start(&rig, "small-object-size=4KiB", "cache-size=4MiB", "max-get-size=256KiB",
		"metadata-workers=4", "request-deadline=2s", NULL);
	rig_file(&rig, "evil/small", 1000);
	rig_file(&rig, "evil/large", 600000);
	rig_file(&rig, "evil/dir/empty", 0);
	rig_file(&rig, "evil/dir/other", 300000);
	rig_file(&rig, "good/one", THEIR_SIZE);
	rig_file(&rig, "good/two", THEIR_SIZE);
	rig_mount(&rig, &evil, 1, "evil", "");
	rig_mount(&rig, &good, 2, "good", "");
	nodes[0] = RIG_ROOT;
	require(rig_lookup(&evil, &msg, RIG_ROOT, "small", &nodes[1]) == 0);
	require(rig_lookup(&evil, &msg, RIG_ROOT, "large", &nodes[2]) == 0);
	require(rig_lookup(&evil, &msg, RIG_ROOT, "dir", &nodes[3]) == 0);
	require(rig_lookup(&evil, &msg, nodes[3], "empty", &nodes[4]) == 0);
	require(rig_lookup(&evil, &msg, nodes[3], "other", &nodes[5]) == 0);
	require(rig_lookup(&good, &msg, RIG_ROOT, "one", &nodes[6]) == 0);
	require(rig_lookup(&good, &msg, RIG_ROOT, "two", &nodes[7]) == 0);
	atexit(end);
	return 0;
}

/* An answer to the evil server: whatever it holds, it is not the other mount's. */
static void check_answer(struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	struct wd_attr attr;
	struct stat st;

	for (unsigned i = 0; i < m->nfds; i++)
		require(fstat(m->fds[i], &st) == 0 && st.st_size != THEIR_SIZE);
	if (m->status == 0 && m->type == (WD_MSG_OPEN | WD_MSG_REPLY)) {
		wd_rd_u8(&r);
		wd_rd_u32(&r);
		require(wd_rd_u64(&r) != THEIR_SIZE && wd_rd_done(&r));
	} else if (m->status == 0 && (m->type == (WD_MSG_LOOKUP | WD_MSG_REPLY) ||
					     m->type == (WD_MSG_GETATTR | WD_MSG_REPLY))) {
		require(wd_rd_attr(&r, &attr) && attr.size != THEIR_SIZE);
	}
	wd_msg_close_fds(m);
}

static void drain(void)
{
	while (wd_msg_recv(evil.sock, &msg, MSG_DONTWAIT) == 1)
		check_answer(&msg);
}

static uint64_t take_node(struct input *in)
{
	uint8_t which = (uint8_t)take(in, 1);

	return which < 240 ? nodes[which % NODES] : take(in, 8);
}

static void put_fields(struct input *in, uint16_t type)
{
	static const char *const names[] = {"small", "large", "dir", "empty", "..", "", "a/b",
		"user.warpdrive.origin", "user.warpdrive.version", "user.warpdrive.cached", "none"};

	if (type != WD_MSG_STATFS)
		wd_put_u64(&msg, take_node(in));
	switch (type) {
	case WD_MSG_LOOKUP:
	case WD_MSG_GETXATTR:
		wd_put_str(&msg, names[take(in, 1) % (sizeof(names) / sizeof(names[0]))]);
		break;
	case WD_MSG_READDIR:
		wd_put_u64(&msg, take(in, 1) % 3 ? 0 : take(in, 8));
		wd_put_u32(&msg, (uint32_t)take(in, 2));
		break;
	case WD_MSG_OPEN:
		wd_put_u32(&msg, (uint32_t)take(in, 1));
		break;
	case WD_MSG_ENSURE:
		wd_put_u64(&msg, take(in, 1) % 4 ? take(in, 2) * 16 : take(in, 8));
		wd_put_u32(&msg, (uint32_t)take(in, 3));
		wd_put_u32(&msg, (uint32_t)take(in, 1));
		break;
	case WD_MSG_HINT:
		wd_put_u64(&msg, take(in, 3));
		wd_put_u32(&msg, (uint32_t)take(in, 3));
		break;
	}
}

static void send_message(struct input *in)
{
	static const uint16_t types[] = {WD_MSG_LOOKUP, WD_MSG_GETATTR, WD_MSG_READDIR, WD_MSG_OPEN,
		WD_MSG_RELEASE, WD_MSG_ENSURE, WD_MSG_CANCEL, WD_MSG_HINT, WD_MSG_STATFS,
		WD_MSG_GETXATTR};
	uint8_t op = (uint8_t)take(in, 1);
	uint16_t type = op < 250 ? types[op % 10] : (uint16_t)take(in, 2);

	wd_msg_start(&msg, type, take(in, 1));
	if (op >= 250 || op % 25 == 24)
		for (uint64_t n = take(in, 1) % 64; n > 0 && in->left > 0; n--)
			wd_put_u8(&msg, (uint8_t)take(in, 1));
	else
		put_fields(in, type);
	if (op % 16 == 7)
		wd_put_fd(&msg, op & 64 ? evil.tables_fd : evil.sock);
	wd_msg_send(evil.sock, &msg, MSG_DONTWAIT);
}

static void scribble(struct input *in)
{
	uint64_t what = take(in, 8);
	uint32_t state = (uint32_t)take(in, 1) % 10, backing = (uint32_t)take(in, 1);
	uint64_t node = take_node(in);
	bool is_new;
	struct wd_mm_inode *e;

	if (state == 9) {
		size_t where = (size_t)(what % (evil.mm.size - 8));

		memcpy((unsigned char *)evil.mm.header + where, &what, 8);
		return;
	}
	e = wd_mm_claim(&evil.mm, node, &is_new);
	if (!e)
		return;
	atomic_store(&e->state, state);
	atomic_store(&e->backing_id, backing);
	if (what & 1)
		atomic_store(&e->node, what);
}

static void step(struct input *in)
{
	uint8_t op = (uint8_t)take(in, 1);

	if (op < 180) {
		send_message(in);
	} else if (op < 210) {
		scribble(in);
	} else if (op < 235) {
		drain();
	} else if (op < 240) {
		rig_new_server(&evil);
	} else if (op < 250) {
		rig_set_backing(&rig, op & 1 ? -EPERM : 0);
	} else {
		unsigned char junk[32];

		for (size_t i = 0; i < sizeof(junk); i++)
			junk[i] = (unsigned char)take(in, 1);
		send(evil.sock, junk, sizeof(junk), MSG_DONTWAIT | MSG_NOSIGNAL);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static unsigned runs;
	struct input in = {data, size};
	int rc;

	if (size > 4096)
		return -1;
	while (in.left > 0)
		step(&in);
	/* a last word that is answered: everything before it was looked at */
	wd_msg_start(&msg, WD_MSG_STATFS, 0);
	msg.id = UINT64_MAX;
	rc = wd_msg_send(evil.sock, &msg, 0);
	while (rc >= 0 && (rc = wd_msg_recv(evil.sock, &msg, 0)) == 1 && msg.id != UINT64_MAX)
		check_answer(&msg);
	if (rc <= 0)
		rig_new_server(&evil); /* it was dropped for what it sent */
	else
		wd_msg_close_fds(&msg);
	if (runs++ % CHECK_EVERY == 0) {
		require(rig_read(&good, &msg, RIG_ROOT, "one", "good/one") == 0);
		require(rig_read(&good, &msg, RIG_ROOT, "two", "good/two") == 0);
	}
	return 0;
}
