/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_FUSE_TEST_FAKE_AGENT_H
#define WD_FUSE_TEST_FAKE_AGENT_H
/*
 * A small agent for tests of keeper and server: it speaks the protocol on a thread of the test
 * process and serves a made-up tree.
 *
 *	/NAME...        the files that the test added with fake_add()
 *	/many/fNNN      FAKE_MANY empty files
 *
 * The bytes of a file are fake_byte(node, offset). A file is complete (passthrough), or partial:
 * its blocks become present when the test says so (fake_fill), or when somebody asks if is_auto is
 * set. Calls through a control file are answered by method: Echo by what they said, Fail by an error,
 * Wait when the test says so (fake_answer_calls), Garbage, TooLong and LongError by what an agent
 * should not say. One lock over everything; fake.changed is broadcast whenever a counter moves.
 */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <fcntl.h>

#include "common/control.h"
#include "common/hold.h"
#include "common/lock.h"
#include "common/mountmem.h"
#include "common/proto.h"

#define FAKE_ROOT 1
#define FAKE_DIR 2
#define FAKE_FIRST 16
#define FAKE_FILES 128
#define FAKE_MANY 500
#define FAKE_MANY_FIRST 1000
#define FAKE_MOUNTS 4
#define FAKE_PARKED 512
#define FAKE_CALLS 64

struct fake_file {
	char name[64];
	uint64_t node, size;
	bool is_complete, is_direct;
	bool is_bytes; /* ENSURE is answered with bytes */
	int fd;
	struct wd_livemap *map;
	int map_fd; /* what servers get */
	uint32_t backing_id;
	uint64_t backing_mount;
	unsigned opens, reopens, releases, ensures, cancels, hints;
};

struct fake_parked {
	int sock;
	uint64_t id, offset, keeper_id;
	uint32_t len;
	bool is_reopen;
	struct fake_file *file; /* NULL: free */
};

struct fake_call {
	int sock;
	uint64_t id; /* 0: free */
};

struct fake_mount {
	uint64_t id;
	int sock, tables_fd;
	bool is_cached; /* without passthrough */
};

static struct {
	char run_dir[200];
	struct wd_mutex lock;
	struct wd_cond changed;
	pthread_t thread;
	int wake;
	bool is_stopping, is_running;
	int listener, keeper;
	struct fake_mount mounts[FAKE_MOUNTS];
	struct fake_file files[FAKE_FILES];
	unsigned nfiles;
	struct fake_parked parked[FAKE_PARKED];
	struct fake_call waiting[FAKE_CALLS];
	unsigned calls, parked_calls, call_cancels;
	unsigned entries_max; /* in an answer to READDIR; 0: as many as fit */
	bool is_auto; /* absent blocks are filled when asked for */
	int program_status; /* the answer to the last offer */
	unsigned program_answers;
	char status[8192]; /* of the keeper, when it was asked for; "": no answer */
	uint32_t version; /* of the protocol; 0: the newest */
	bool is_down; /* nothing can be had: every ENSURE is parked */
	bool is_deaf; /* lookups and getattrs are not answered */
	bool are_reopens_held; /* those of passthrough files are parked until fake_answer_reopens() */
	unsigned held_reopens;
	bool is_no_holder;
	struct wd_hold hold; /* of the keeper's deposits */
	uint64_t next_id;
	unsigned holds, unholds;
	char description[64]; /* of the last MOUNT_ADD */
	int renew_status;     /* the answer to MOUNT_RENEW; 0: what is kept is "kept" and what came */
	unsigned renews;
	unsigned adds, servers, dels, requests, lookups, parked_ensures;
} fake;

static inline unsigned char fake_byte(uint64_t node, uint64_t offset)
{
	return (unsigned char)(node * 131 + offset * 7 + (offset >> 12) * 13 + (offset >> 18) * 31);
}

static inline void fake_fatal(const char *what)
{
	perror(what);
	abort();
}

static inline struct fake_file *fake_file_by_node(uint64_t node)
{
	return node >= FAKE_FIRST && node < FAKE_FIRST + fake.nfiles
		       ? &fake.files[node - FAKE_FIRST]
		       : NULL;
}

/* ---- files ---- */

static inline void fake_make_map(struct fake_file *f)
{
	uint32_t nblocks = wd_nblocks(f->size);
	size_t len = wd_livemap_bytes(nblocks);

	f->map_fd = memfd_create("fake-map", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (f->map_fd < 0 || ftruncate(f->map_fd, (off_t)len) < 0)
		fake_fatal("memfd");
	f->map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, f->map_fd, 0);
	if (f->map == MAP_FAILED)
		fake_fatal("mmap");
	*f->map = (struct wd_livemap){.magic = WD_LIVEMAP_MAGIC,
		.version = WD_LIVEMAP_VERSION,
		.size = f->size,
		.block_size = WD_BLOCK_SIZE,
		.nblocks = nblocks};
	if (fcntl(f->map_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE) < 0)
		fake_fatal("seal");
}

static inline void fake_write_block(struct fake_file *f, uint32_t block)
{
	static unsigned char buf[WD_BLOCK_SIZE];
	uint64_t at = (uint64_t)block * WD_BLOCK_SIZE;
	size_t len = f->size - at < WD_BLOCK_SIZE ? f->size - at : WD_BLOCK_SIZE;

	for (size_t i = 0; i < len; i++)
		buf[i] = fake_byte(f->node, at + i);
	if (pwrite(f->fd, buf, len, (off_t)at) != (ssize_t)len)
		fake_fatal("pwrite");
	atomic_fetch_or(&f->map->bits[block / 64], 1ULL << (block % 64));
}

static inline struct fake_file *fake_add(const char *name, uint64_t size, bool is_complete)
{
	struct fake_file *f = &fake.files[fake.nfiles];
	char path[300];

	snprintf(path, sizeof(path), "%s/cache-%u", fake.run_dir, fake.nfiles);
	*f = (struct fake_file){.node = FAKE_FIRST + fake.nfiles, .size = size};
	snprintf(f->name, sizeof(f->name), "%s", name);
	f->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_TRUNC, 0600);
	if (f->fd < 0 || ftruncate(f->fd, (off_t)size) < 0)
		fake_fatal(path);
	unlink(path);
	fake_make_map(f);
	if (is_complete) {
		for (uint32_t b = 0; b < wd_nblocks(size); b++)
			fake_write_block(f, b);
		f->is_complete = true;
	}
	fake.nfiles++;
	return f;
}

/* ---- sending ---- */

static struct wd_msg fake_out; /* guarded by fake.lock */

static inline void fake_send(int sock)
{
	int rc = wd_msg_send(sock, &fake_out, 0);

	if (rc < 0 && rc != -EPIPE && rc != -ENOTSOCK)
		fprintf(stderr, "fake agent: send: %s\n", strerror(-rc));
}

static inline void fake_error(int sock, const struct wd_msg *m, int status)
{
	wd_msg_start_reply(&fake_out, m->type, m->id, status);
	wd_put_str(&fake_out, "fake");
	fake_send(sock);
}

/* ---- answering ---- */

static inline void fake_attr(uint64_t node, struct wd_attr *ret)
{
	const struct fake_file *f = fake_file_by_node(node);
	bool is_dir = node == FAKE_ROOT || node == FAKE_DIR;

	*ret = (struct wd_attr){.node = node,
		.ino = node + 7000000,
		.size = f ? f->size : 0,
		.mtime_s = 1700000000,
		.mtime_ns = 5,
		.mode = is_dir ? S_IFDIR | 0555 : S_IFREG | 0444,
		.nlink = is_dir ? 2 : 1,
		.entry_ttl_ms = 1000,
		.attr_ttl_ms = 1000};
}

static inline bool fake_is_node(uint64_t node)
{
	return node == FAKE_ROOT || node == FAKE_DIR || fake_file_by_node(node) ||
	       (node >= FAKE_MANY_FIRST && node < FAKE_MANY_FIRST + FAKE_MANY);
}

static inline uint64_t fake_lookup(uint64_t parent, const char *name)
{
	unsigned number;

	if (parent == FAKE_ROOT && strcmp(name, "many") == 0)
		return FAKE_DIR;
	if (parent == FAKE_DIR && sscanf(name, "f%03u", &number) == 1 && number < FAKE_MANY)
		return FAKE_MANY_FIRST + number;
	for (unsigned i = 0; parent == FAKE_ROOT && i < fake.nfiles; i++)
		if (strcmp(fake.files[i].name, name) == 0)
			return fake.files[i].node;
	return 0;
}

static inline void fake_on_lookup(int sock, struct wd_msg *m, struct wd_rd *r)
{
	uint64_t parent = wd_rd_u64(r), node;
	struct wd_attr attr;
	char name[256];

	wd_rd_str(r, name, sizeof(name));
	node = fake_lookup(parent, name);
	fake.lookups++;
	if (node == 0) {
		wd_msg_start_reply(&fake_out, m->type, m->id, -ENOENT);
		wd_put_u32(&fake_out, strncmp(name, "negative", 8) == 0 ? 60000 : 0);
	} else {
		fake_attr(node, &attr);
		wd_msg_start_reply(&fake_out, m->type, m->id, 0);
		wd_put_attr(&fake_out, &attr);
	}
	fake_send(sock);
}

static inline void fake_on_readdir(int sock, struct wd_msg *m, struct wd_rd *r)
{
	uint64_t node = wd_rd_u64(r), offset = wd_rd_u64(r);
	uint32_t max = wd_rd_u32(r);
	uint64_t n = node == FAKE_DIR ? FAKE_MANY : fake.nfiles + 1;
	unsigned shown = 0;
	uint64_t i = offset >= 16 ? offset - 16 + 1 : 0;
	size_t at;

	wd_msg_start_reply(&fake_out, m->type, m->id, 0);
	at = fake_out.len;
	wd_put_u8(&fake_out, 0);
	for (; i < n; i++) {
		struct wd_attr attr;
		char name[64];

		if (node == FAKE_DIR)
			snprintf(name, sizeof(name), "f%03u", (unsigned)i);
		else
			snprintf(
				name, sizeof(name), "%s", i == 0 ? "many" : fake.files[i - 1].name);
		if (fake_out.len + 8 + WD_ATTR_WIRE + 4 + strlen(name) > max ||
			(fake.entries_max && shown++ == fake.entries_max))
			break;
		fake_attr(fake_lookup(node, name), &attr);
		wd_put_u64(&fake_out, 16 + i);
		wd_put_attr(&fake_out, &attr);
		wd_put_str(&fake_out, name);
	}
	wd_msg_body(&fake_out)[at] = i == n;
	fake_send(sock);
}

static inline void fake_reply_open(
	int sock, uint64_t id, struct fake_file *f, enum wd_open_mode mode)
{
	wd_msg_start_reply(&fake_out, WD_MSG_OPEN, id, 0);
	wd_put_u8(&fake_out, mode);
	wd_put_u32(&fake_out, mode == WD_OPEN_PASSTHROUGH ? f->backing_id : 0);
	wd_put_u64(&fake_out, f->size);
	if (mode == WD_OPEN_CACHED) {
		wd_put_fd(&fake_out, f->fd);
		wd_put_fd(&fake_out, f->map_fd);
	}
	fake_send(sock);
}

static inline struct fake_parked *fake_park(int sock, uint64_t id, struct fake_file *f)
{
	for (int i = 0; i < FAKE_PARKED; i++) {
		if (fake.parked[i].file)
			continue;
		fake.parked[i] = (struct fake_parked){.sock = sock, .id = id, .file = f};
		return &fake.parked[i];
	}
	fprintf(stderr, "fake agent: too many parked\n");
	abort();
}

static inline void fake_on_open(struct fake_mount *mount, struct wd_msg *m, struct wd_rd *r)
{
	struct fake_file *f = fake_file_by_node(wd_rd_u64(r));
	uint32_t flags = wd_rd_u32(r);
	struct fake_parked *p;

	if (!f) {
		fake_error(mount->sock, m, -ESTALE);
		return;
	}
	f->opens++;
	if (flags & WD_OPEN_REOPEN)
		f->reopens++;
	if (fake.are_reopens_held && (flags & WD_OPEN_WAS_PASSTHROUGH)) {
		fake_park(mount->sock, m->id, f)->is_reopen = true;
		fake.held_reopens++;
		return;
	}
	if (f->is_direct) {
		fake_reply_open(mount->sock, m->id, f, WD_OPEN_DIRECT);
		return;
	}
	/* what was open in cached mode stays so, also when it has become complete */
	if (!f->is_complete || mount->is_cached ||
		((flags & WD_OPEN_REOPEN) && !(flags & WD_OPEN_WAS_PASSTHROUGH))) {
		fake_reply_open(mount->sock, m->id, f, WD_OPEN_CACHED);
		return;
	}
	if (f->backing_id && f->backing_mount == mount->id) {
		fake_reply_open(mount->sock, m->id, f, WD_OPEN_PASSTHROUGH);
		return;
	}
	p = fake_park(mount->sock, m->id, f);
	p->keeper_id = ++fake.next_id;
	wd_msg_start(&fake_out, WD_MSG_BACKING_OPEN, p->keeper_id);
	wd_put_u64(&fake_out, mount->id);
	wd_put_fd(&fake_out, f->fd);
	fake_send(fake.keeper);
}

/* Those that are held; the next are held, too. */
static inline void fake_answer_reopens(void)
{
	wd_lock(&fake.lock);
	for (int i = 0; i < FAKE_PARKED; i++) {
		struct fake_parked *p = &fake.parked[i];

		if (!p->file || !p->is_reopen)
			continue;
		fake_reply_open(p->sock, p->id, p->file, WD_OPEN_PASSTHROUGH);
		p->file = NULL;
		fake.held_reopens--;
	}
	wd_unlock(&fake.lock);
}

static inline void fake_reply_bytes(
	int sock, uint64_t id, struct fake_file *f, uint64_t offset, uint32_t len)
{
	int fd = memfd_create("fake-bytes", MFD_CLOEXEC);
	unsigned char *buf = malloc(len);

	for (uint32_t i = 0; i < len; i++)
		buf[i] = fake_byte(f->node, offset + i);
	if (pwrite(fd, buf, len, 100) != (ssize_t)len)
		fake_fatal("pwrite");
	free(buf);
	wd_msg_start_reply(&fake_out, WD_MSG_ENSURE, id, 0);
	wd_put_u8(&fake_out, WD_ENSURE_FD);
	wd_put_u64(&fake_out, 100);
	wd_put_fd(&fake_out, fd);
	fake_send(sock);
	close(fd);
}

static inline void fake_reply_present(int sock, uint64_t id)
{
	wd_msg_start_reply(&fake_out, WD_MSG_ENSURE, id, 0);
	wd_put_u8(&fake_out, WD_ENSURE_PRESENT);
	wd_put_u64(&fake_out, 0);
	fake_send(sock);
}

static inline void fake_fill_locked(struct fake_file *f, uint64_t offset, uint64_t len)
{
	for (uint32_t b = (uint32_t)(offset / WD_BLOCK_SIZE);
		b < wd_nblocks(f->size) && (uint64_t)b * WD_BLOCK_SIZE < offset + len; b++)
		if (!(f->map->bits[b / 64] & 1ULL << (b % 64)))
			fake_write_block(f, b);
}

static inline void fake_on_ensure(int sock, struct wd_msg *m, struct wd_rd *r)
{
	struct fake_file *f = fake_file_by_node(wd_rd_u64(r));
	uint64_t offset = wd_rd_u64(r);
	uint32_t len = wd_rd_u32(r), flags = wd_rd_u32(r);
	struct fake_parked *p;

	if (!f || !wd_rd_done(r) || offset + len > f->size || len == 0) {
		fake_error(sock, m, -EIO);
		return;
	}
	f->ensures++;
	if (fake.is_auto)
		fake_fill_locked(f, offset, len);
	if (!fake.is_down && ((flags & WD_ENSURE_BYTES) || f->is_bytes)) {
		fake_reply_bytes(sock, m->id, f, offset, len);
	} else if (!fake.is_down && wd_livemap_has(f->map, offset, len)) {
		fake_reply_present(sock, m->id);
	} else {
		p = fake_park(sock, m->id, f);
		p->offset = offset;
		p->len = len;
		fake.parked_ensures++;
	}
}

static inline void fake_on_cancel(uint64_t id)
{
	for (int i = 0; i < FAKE_PARKED; i++) {
		struct fake_parked *p = &fake.parked[i];

		if (!p->file || p->id != id || p->keeper_id)
			continue;
		p->file->cancels++;
		p->file = NULL;
		fake.parked_ensures--;
	}
	for (int i = 0; i < FAKE_CALLS; i++) {
		if (fake.waiting[i].id != id)
			continue;
		fake.waiting[i].id = 0;
		fake.call_cancels++;
		fake.parked_calls--;
	}
}

static inline void fake_park_call(int sock, uint64_t id)
{
	int i = 0;

	while (i < FAKE_CALLS && fake.waiting[i].id)
		i++;
	if (i == FAKE_CALLS)
		fake_fatal("too many calls");
	fake.waiting[i] = (struct fake_call){sock, id};
	fake.parked_calls++;
}

static inline void fake_on_control(int sock, struct wd_msg *m, struct wd_rd *r)
{
	static const char junk[WD_CONTROL_DATA_MAX + 1];
	char method[WD_CONTROL_METHOD_MAX];
	int status = 0;
	const void *data;
	size_t len;

	wd_rd_str(r, method, sizeof(method));
	data = wd_rd_bytes(r, &len);
	if (!wd_rd_done(r) || len > WD_CONTROL_DATA_MAX)
		fake_fatal("a malformed call");
	fake.calls++;
	if (strcmp(method, "Wait") == 0) {
		fake_park_call(sock, m->id);
		return;
	}
	if (strcmp(method, "NoSuchMethod") == 0) {
		fake_error(sock, m, -ENOSYS);
		return;
	}
	if (strcmp(method, "Fail") == 0)
		status = -EACCES;
	else if (strcmp(method, "LongError") == 0)
		status = -EINVAL;
	wd_msg_start_reply(&fake_out, m->type, m->id, status);
	if (strcmp(method, "Fail") == 0)
		wd_put_str(&fake_out, "the fake agent says no");
	else if (strcmp(method, "LongError") == 0 || strcmp(method, "TooLong") == 0)
		wd_put_bytes(&fake_out, junk, sizeof(junk));
	else if (strcmp(method, "Garbage") == 0)
		wd_put_u64(&fake_out, UINT64_MAX);
	else
		wd_put_bytes(&fake_out, data, len);
	fake_send(sock);
}

/* Answers the calls that wait. */
static inline void fake_answer_calls(void)
{
	for (int i = 0; i < FAKE_CALLS; i++) {
		if (!fake.waiting[i].id)
			continue;
		wd_msg_start_reply(&fake_out, WD_MSG_CONTROL, fake.waiting[i].id, 0);
		wd_put_str(&fake_out, "at last");
		fake_send(fake.waiting[i].sock);
		fake.waiting[i].id = 0;
		fake.parked_calls--;
	}
}

static inline void fake_on_server(struct fake_mount *mount, struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	struct fake_file *f;
	struct wd_attr attr;
	uint64_t node;
	char name[256];

	fake.requests++;
	switch (m->type) {
	case WD_MSG_LOOKUP:
		if (!fake.is_deaf)
			fake_on_lookup(mount->sock, m, &r);
		break;
	case WD_MSG_GETATTR:
		node = wd_rd_u64(&r);
		if (fake.is_deaf)
			break;
		if (!fake_is_node(node)) {
			fake_error(mount->sock, m, -ESTALE);
			break;
		}
		fake_attr(node, &attr);
		wd_msg_start_reply(&fake_out, m->type, m->id, 0);
		wd_put_attr(&fake_out, &attr);
		fake_send(mount->sock);
		break;
	case WD_MSG_READDIR:
		fake_on_readdir(mount->sock, m, &r);
		break;
	case WD_MSG_OPEN:
		fake_on_open(mount, m, &r);
		break;
	case WD_MSG_RELEASE:
		f = fake_file_by_node(wd_rd_u64(&r));
		if (f)
			f->releases++;
		break;
	case WD_MSG_ENSURE:
		fake_on_ensure(mount->sock, m, &r);
		break;
	case WD_MSG_CANCEL:
		fake_on_cancel(wd_rd_u64(&r));
		break;
	case WD_MSG_HINT:
		f = fake_file_by_node(wd_rd_u64(&r));
		if (f)
			f->hints++;
		break;
	case WD_MSG_STATFS:
		wd_msg_start_reply(&fake_out, m->type, m->id, 0);
		wd_put_u64(&fake_out, 1ULL << 40);
		wd_put_u64(&fake_out, 1ULL << 39);
		wd_put_u64(&fake_out, 1234);
		fake_send(mount->sock);
		break;
	case WD_MSG_GETXATTR:
		wd_rd_u64(&r);
		wd_rd_str(&r, name, sizeof(name));
		if (strcmp(name, "user.warpdrive.cached") != 0) {
			fake_error(mount->sock, m, -ENODATA);
			break;
		}
		wd_msg_start_reply(&fake_out, m->type, m->id, 0);
		wd_put_str(&fake_out, "42");
		fake_send(mount->sock);
		break;
	case WD_MSG_CONTROL:
		fake_on_control(mount->sock, m, &r);
		break;
	default:
		fprintf(stderr, "fake agent: message type %u\n", m->type);
	}
}

/* ---- the keeper ---- */

static inline struct fake_mount *fake_mount_by_id(uint64_t id)
{
	for (int i = 0; i < FAKE_MOUNTS; i++)
		if (fake.mounts[i].sock >= 0 && fake.mounts[i].id == id)
			return &fake.mounts[i];
	return NULL;
}

static inline void fake_drop_parked(int sock)
{
	for (int i = 0; i < FAKE_PARKED; i++) {
		if (!fake.parked[i].file || fake.parked[i].sock != sock)
			continue;
		if (fake.parked[i].is_reopen)
			fake.held_reopens--;
		else if (!fake.parked[i].keeper_id)
			fake.parked_ensures--;
		fake.parked[i].file = NULL;
	}
	for (int i = 0; i < FAKE_CALLS; i++) {
		if (!fake.waiting[i].id || fake.waiting[i].sock != sock)
			continue;
		fake.waiting[i].id = 0;
		fake.parked_calls--;
	}
}

static inline void fake_on_renew(struct wd_msg *m, struct wd_rd *r)
{
	char kept[80];
	size_t len;
	const char *description;

	wd_rd_u64(r);
	description = wd_rd_bytes(r, &len);
	fake.renews++;
	if (fake.renew_status < 0) {
		fake_error(fake.keeper, m, fake.renew_status);
		return;
	}
	snprintf(kept, sizeof(kept), "kept %.*s", (int)len, description);
	wd_msg_start_reply(&fake_out, m->type, m->id, 0);
	wd_put_str(&fake_out, len > 0 ? kept : "");
	fake_send(fake.keeper);
}

static inline void fake_on_add(struct wd_msg *m, struct wd_rd *r)
{
	uint64_t id = wd_rd_u64(r);
	size_t len;
	const char *description = wd_rd_bytes(r, &len);
	int i = 0;

	fake.adds++;
	snprintf(fake.description, sizeof(fake.description), "%.*s", (int)len, description);
	if (len >= 6 && memcmp(description, "refuse", 6) == 0) {
		fake_error(fake.keeper, m, -EACCES);
		return;
	}
	while (i < FAKE_MOUNTS && fake.mounts[i].sock >= 0 && fake.mounts[i].id != id)
		i++;
	if (i == FAKE_MOUNTS)
		fake_fatal("too many mounts");
	if (fake.mounts[i].sock >= 0) { /* the keeper connected anew */
		fake_error(fake.keeper, m, -EEXIST);
		return;
	}
	fake.mounts[i] = (struct fake_mount){.id = id,
		.sock = wd_msg_take_fd(m, 0),
		.tables_fd = wd_msg_take_fd(m, 1),
		.is_cached = len >= 6 && memcmp(description, "cached", 6) == 0};
	wd_msg_start_reply(&fake_out, m->type, m->id, 0);
	wd_put_u32(&fake_out,
		WD_MOUNT_READ_ONLY | (fake.mounts[i].is_cached ? WD_MOUNT_NO_PASSTHROUGH : 0));
	wd_put_str(&fake_out, "fake://data");
	fake_send(fake.keeper);
}

static inline void fake_on_backing(struct wd_msg *m, struct wd_rd *r)
{
	for (int i = 0; i < FAKE_PARKED; i++) {
		struct fake_parked *p = &fake.parked[i];

		if (!p->file || p->keeper_id != m->id)
			continue;
		if (m->status == 0) {
			struct fake_mount *mount = NULL;

			for (int k = 0; k < FAKE_MOUNTS; k++)
				if (fake.mounts[k].sock == p->sock)
					mount = &fake.mounts[k];
			p->file->backing_id = wd_rd_u32(r);
			p->file->backing_mount = mount ? mount->id : 0;
			fake_reply_open(p->sock, p->id, p->file, WD_OPEN_PASSTHROUGH);
		} else {
			wd_msg_start_reply(&fake_out, WD_MSG_OPEN, p->id, m->status);
			wd_put_str(&fake_out, "no backing id");
			fake_send(p->sock);
		}
		p->file = NULL;
	}
}

static inline void fake_on_status(struct wd_msg *m)
{
	int fd = wd_msg_take_fd(m, 0);

	if (fd < 0) /* the answer to a malformed question */
		return;
	if (pread(fd, fake.status, sizeof(fake.status) - 1, 0) <= 0)
		fake_fatal("the keeper's status");
	close(fd);
}

static inline void fake_drop_mount(struct fake_mount *mount)
{
	fake_drop_parked(mount->sock);
	close(mount->sock);
	close(mount->tables_fd);
	mount->sock = -1;
}

static inline int fake_hold_send(void *arg, struct wd_msg *m)
{
	return wd_msg_send(fake.keeper, m, 0);
}

static inline void fake_hold_ended(void *arg, const struct wd_deposit *d, enum wd_hold_end why)
{
	struct fake_mount *mount = fake_mount_by_id(d->mount);

	fake.unholds++;
	if (why == WD_HOLD_GONE && mount)
		fake_drop_mount(mount);
}

/* The keeper is gone: what was asked of it is answered as well as can be. */
static inline void fake_lose_keeper(void)
{
	close(fake.keeper);
	fake.keeper = -1;
	wd_hold_lost(&fake.hold, wd_now_ns());
	for (int i = 0; i < FAKE_PARKED; i++) {
		struct fake_parked *p = &fake.parked[i];

		if (!p->file || !p->keeper_id)
			continue;
		fake_reply_open(p->sock, p->id, p->file, WD_OPEN_CACHED);
		p->file = NULL;
	}
}

static inline void fake_on_keeper(struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	struct fake_mount *mount;

	if (wd_hold_takes(m->type)) {
		fake.holds += m->type == WD_MSG_HOLD;
		if (!wd_hold_message(&fake.hold, m))
			fake_fatal("a malformed message of a holder's");
		return;
	}
	switch (m->type) {
	case WD_MSG_HOLDINGS:
		if (fake.is_no_holder)
			fake_error(fake.keeper, m, -ENOSYS);
		else
			wd_hold_begin(&fake.hold);
		break;
	case WD_MSG_HELLO:
		if (fake.version && wd_rd_u32(&r) != fake.version) { /* as version 1 does */
			fake_error(fake.keeper, m, -EPROTO);
			break;
		}
		wd_msg_start_reply(&fake_out, m->type, m->id, 0);
		wd_put_u32(&fake_out, fake.version ? fake.version : WD_PROTO_VERSION);
		wd_put_str(&fake_out, "fake");
		fake_send(fake.keeper);
		break;
	case WD_MSG_MOUNT_ADD:
		fake_on_add(m, &r);
		break;
	case WD_MSG_MOUNT_SERVER:
		mount = fake_mount_by_id(wd_rd_u64(&r));
		fake.servers++;
		if (!mount) {
			fake_error(fake.keeper, m, -ENOENT);
			break;
		}
		fake_drop_parked(mount->sock);
		close(mount->sock);
		mount->sock = wd_msg_take_fd(m, 0);
		wd_msg_start_reply(&fake_out, m->type, m->id, 0);
		fake_send(fake.keeper);
		break;
	case WD_MSG_MOUNT_RENEW:
		fake_on_renew(m, &r);
		break;
	case WD_MSG_MOUNT_DEL:
		mount = fake_mount_by_id(wd_rd_u64(&r));
		fake.dels++;
		if (mount)
			fake_drop_mount(mount);
		wd_msg_start_reply(&fake_out, m->type, m->id, 0);
		fake_send(fake.keeper);
		break;
	case WD_MSG_SERVER_PROGRAM | WD_MSG_REPLY:
		fake.program_status = m->status;
		fake.program_answers++;
		break;
	case WD_MSG_BACKING_OPEN | WD_MSG_REPLY:
		fake_on_backing(m, &r);
		break;
	case WD_MSG_KEEPER_STATUS | WD_MSG_REPLY:
		fake_on_status(m);
		break;
	}
}

/* ---- the thread ---- */

static inline void fake_poll_once(struct wd_msg *m)
{
	struct pollfd fds[3 + FAKE_MOUNTS];
	int socks[FAKE_MOUNTS];

	wd_lock(&fake.lock);
	fds[0] = (struct pollfd){.fd = fake.wake, .events = POLLIN};
	fds[1] = (struct pollfd){.fd = fake.listener, .events = POLLIN};
	fds[2] = (struct pollfd){.fd = fake.keeper, .events = POLLIN};
	for (int i = 0; i < FAKE_MOUNTS; i++) {
		socks[i] = fake.mounts[i].sock;
		fds[3 + i] = (struct pollfd){.fd = socks[i], .events = POLLIN};
	}
	wd_unlock(&fake.lock);
	if (poll(fds, 3 + FAKE_MOUNTS, -1) < 0)
		return;
	wd_lock(&fake.lock);
	if (fds[1].revents && fake.keeper < 0)
		fake.keeper = accept4(fake.listener, NULL, NULL, SOCK_CLOEXEC);
	if (fds[2].revents) {
		if (wd_msg_recv(fake.keeper, m, MSG_DONTWAIT) == 1) {
			fake_on_keeper(m);
			wd_msg_close_fds(m);
		} else {
			fake_lose_keeper();
		}
	}
	for (int i = 0; i < FAKE_MOUNTS; i++) {
		struct fake_mount *mount = &fake.mounts[i];

		if (!fds[3 + i].revents || mount->sock != socks[i] || mount->sock < 0)
			continue;
		if (wd_msg_recv(mount->sock, m, MSG_DONTWAIT) == 1) {
			fake_on_server(mount, m);
			wd_msg_close_fds(m);
		} else {
			int dead = mount->sock; /* a new end follows with MOUNT_SERVER */

			fake_drop_parked(dead);
			mount->sock = eventfd(0, EFD_CLOEXEC); /* never readable */
			shutdown(dead, SHUT_RDWR);
			close(dead);
		}
	}
	wd_cond_broadcast(&fake.changed);
	wd_unlock(&fake.lock);
}

static inline void *fake_run(void *unused)
{
	static struct wd_msg m;
	bool is_stopping = false;

	while (!is_stopping) {
		fake_poll_once(&m);
		wd_lock(&fake.lock);
		is_stopping = fake.is_stopping;
		wd_unlock(&fake.lock);
	}
	return unused;
}

static inline void fake_init(const char *run_dir)
{
	snprintf(fake.run_dir, sizeof(fake.run_dir), "%s", run_dir);
	wd_mutex_init(&fake.lock);
	wd_cond_init(&fake.changed);
	fake.keeper = fake.listener = -1;
	for (int i = 0; i < FAKE_MOUNTS; i++)
		fake.mounts[i].sock = -1;
}

static inline void fake_start(void)
{
	struct wd_err err = WD_ERR_INIT;
	char path[256];

	snprintf(path, sizeof(path), "%s/agent.sock", fake.run_dir);
	fake.is_stopping = false;
	fake.hold = (struct wd_hold){.send = fake_hold_send,
		.on_end = fake_hold_ended,
		.give_up_ns = 300000000000LL};
	if (wd_hold_init(&fake.hold) < 0)
		abort();
	fake.wake = eventfd(0, EFD_CLOEXEC);
	fake.listener = wd_listen(path, &err);
	if (fake.listener < 0) {
		fprintf(stderr, "%s\n", err.msg);
		abort();
	}
	if (pthread_create(&fake.thread, NULL, fake_run, NULL) != 0)
		abort();
	fake.is_running = true;
}

/* Ends the agent as SIGKILL would: all sockets close, its socket file stays. */
static inline void fake_stop(void)
{
	if (!fake.is_running)
		return;
	wd_lock(&fake.lock);
	fake.is_stopping = true;
	wd_unlock(&fake.lock);
	eventfd_write(fake.wake, 1);
	pthread_join(fake.thread, NULL);
	fake.is_running = false;
	close(fake.wake);
	close(fake.listener);
	if (fake.keeper >= 0)
		close(fake.keeper);
	fake.keeper = fake.listener = -1;
	wd_hold_done(&fake.hold);
	for (int i = 0; i < FAKE_MOUNTS; i++)
		if (fake.mounts[i].sock >= 0)
			fake_drop_mount(&fake.mounts[i]);
}

/* Offers the keeper a server program and waits for its answer. fd is borrowed. */
static inline int fake_offer(const char *id, int fd)
{
	unsigned before;
	int status;

	wd_lock(&fake.lock);
	before = fake.program_answers;
	wd_msg_start(&fake_out, WD_MSG_SERVER_PROGRAM, ++fake.next_id);
	wd_put_str(&fake_out, id);
	wd_put_str(&fake_out, "fake");
	if (fd >= 0)
		wd_put_fd(&fake_out, fd);
	fake_send(fake.keeper);
	while (fake.program_answers == before)
		wd_cond_wait(&fake.changed, &fake.lock);
	status = fake.program_status;
	wd_unlock(&fake.lock);
	return status;
}

/* Makes a range present and answers who waits for it. */
static inline void fake_fill(struct fake_file *f, uint64_t offset, uint64_t len)
{
	wd_lock(&fake.lock);
	fake_fill_locked(f, offset, len);
	for (int i = 0; i < FAKE_PARKED; i++) {
		struct fake_parked *p = &fake.parked[i];

		if (p->file != f || p->keeper_id || !wd_livemap_has(f->map, p->offset, p->len))
			continue;
		fake_reply_present(p->sock, p->id);
		p->file = NULL;
		fake.parked_ensures--;
	}
	wd_unlock(&fake.lock);
}

/* Waits until a counter of the agent has at least that value; the test's alarm is the bound. */
static inline void fake_wait(const unsigned *counter, unsigned value)
{
	wd_lock(&fake.lock);
	while (*counter < value)
		wd_cond_wait(&fake.changed, &fake.lock);
	wd_unlock(&fake.lock);
}

static inline unsigned fake_get(const unsigned *counter)
{
	unsigned value;

	wd_lock(&fake.lock);
	value = *counter;
	wd_unlock(&fake.lock);
	return value;
}

#endif
