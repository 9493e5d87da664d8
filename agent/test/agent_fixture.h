/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_TEST_AGENT_FIXTURE_H
#define WD_AGENT_TEST_AGENT_FIXTURE_H
/*
 * A whole agent on a thread of the test, with a directory of its own, a made-up keeper that says
 * what a test wants it to, and mounts of file: datasets whose servers are the test itself: it holds
 * their sockets and their tables.
 *
 *	struct rig rig;
 *	rig_start(&rig, "small-object-size=0");    // --set pairs, NULL at the end
 *	rig_file(&rig, "a/one", 1000);             // bytes by rig_byte("a/one", offset)
 *	rig_mount(&rig, &m, 1, "a", "");           // the dataset is the directory a
 *	rig_call(&m, &msg) ...
 *	rig_stop(&rig);
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent.h"
#include "common/lock.h"
#include "common/mountmem.h"
#include "common/proto.h"

#define RIG_ROOT 1 /* node id of a mount's root */
#define RIG_CLOSES 256

struct rig {
	char dir[64];
	struct settings settings;
	pthread_t agent, keeper_thread;
	int keeper; /* our socket as the keeper */
	struct wd_msg keeper_in, keeper_out; /* its thread's; not from malloc, which tests let fail */
	int agent_rc;

	struct wd_mutex lock;
	struct wd_cond changed;
	/* the one call to the agent that is under way */
	uint64_t call_id WD_GUARDED_BY(lock);
	bool is_answered WD_GUARDED_BY(lock), is_gone WD_GUARDED_BY(lock);
	int call_status WD_GUARDED_BY(lock);
	char call_text[512] WD_GUARDED_BY(lock);
	/* how BACKING_OPEN is answered: 0, or -errno; and what came of it */
	int backing_status WD_GUARDED_BY(lock);
	int close_status WD_GUARDED_BY(lock); /* how BACKING_CLOSE is; 1: when rig_set_close() says otherwise */
	uint64_t held_closes[RIG_CLOSES] WD_GUARDED_BY(lock);
	unsigned nheld_closes WD_GUARDED_BY(lock);
	uint32_t next_backing WD_GUARDED_BY(lock);
	unsigned backing_opens WD_GUARDED_BY(lock), backing_closes WD_GUARDED_BY(lock);
	uint64_t last_backing_mount WD_GUARDED_BY(lock);
	/* how KEEPER_STATUS is answered: 0: some JSON; -errno; 1: not at all */
	int status_mode WD_GUARDED_BY(lock);
};

struct rig_mount {
	struct rig *rig;
	uint64_t id, next_id;
	int sock, tables_fd;
	struct wd_mm mm;
};

static inline void rig_die(const char *what)
{
	fprintf(stderr, "rig: %s: %s\n", what, strerror(errno));
	abort();
}

static inline unsigned char rig_byte(const char *path, uint64_t offset)
{
	unsigned char c = 17;

	for (const char *p = path; *p; p++)
		c = (unsigned char)(c * 31 + *p);
	return (unsigned char)(c + offset * 7 + (offset >> 12) * 13 + (offset >> 18) * 31);
}

/* ---- files ---- */

static inline void rig_file(struct rig *r, const char *path, uint64_t size)
{
	char name[512], *slash;
	unsigned char *data = malloc(size + 1);
	int fd;

	snprintf(name, sizeof(name), "%s/data/%s", r->dir, path);
	for (slash = strchr(name + strlen(r->dir) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(name, 0755);
		*slash = '/';
	}
	for (uint64_t i = 0; i < size; i++)
		data[i] = rig_byte(path, i);
	fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		rig_die(name);
	close(fd);
	free(data);
}

static inline int rig_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

/* ---- the keeper ---- */

static inline void rig_backing_open(struct rig *r, struct wd_msg *m, struct wd_msg *out)
{
	struct wd_rd rd = wd_rd_start(m);
	uint64_t mount = wd_rd_u64(&rd);

	if (!wd_rd_done(&rd) || m->nfds != 1)
		rig_die("BACKING_OPEN is malformed");
	wd_lock(&r->lock);
	r->backing_opens++;
	r->last_backing_mount = mount;
	wd_msg_start_reply(out, m->type, m->id, r->backing_status);
	if (r->backing_status < 0)
		wd_put_str(out, "not here");
	else
		wd_put_u32(out, ++r->next_backing);
	wd_unlock(&r->lock);
	wd_msg_send(r->keeper, out, 0);
}

static inline void rig_answer_close(struct rig *r, uint64_t id, struct wd_msg *out) WD_REQUIRES(r->lock)
{
	wd_msg_start_reply(out, WD_MSG_BACKING_CLOSE, id, r->close_status);
	if (r->close_status < 0)
		wd_put_str(out, "not now");
	wd_msg_send(r->keeper, out, 0);
}

static inline void rig_backing_close(struct rig *r, struct wd_msg *m, struct wd_msg *out)
{
	wd_lock(&r->lock);
	r->backing_closes++;
	if (r->close_status == 1)
		r->held_closes[r->nheld_closes++ % RIG_CLOSES] = m->id;
	else
		rig_answer_close(r, m->id, out);
	wd_unlock(&r->lock);
}

static inline void rig_status(struct rig *r, struct wd_msg *m, struct wd_msg *out)
{
	static const char text[] = "{\"version\":\"7\",\"mounts\":[]}";
	int fd = memfd_create("rig-status", MFD_CLOEXEC), mode;

	wd_lock(&r->lock);
	mode = r->status_mode;
	wd_unlock(&r->lock);
	wd_msg_start_reply(out, m->type, m->id, mode);
	if (mode < 0)
		wd_put_str(out, "not now");
	else if (write(fd, text, strlen(text)) > 0)
		wd_put_fd(out, fd);
	if (mode <= 0)
		wd_msg_send(r->keeper, out, 0);
	close(fd);
}

static inline void rig_answered(struct rig *r, struct wd_msg *m)
{
	struct wd_rd rd = wd_rd_start(m);

	wd_lock(&r->lock);
	if (m->id == r->call_id) {
		r->is_answered = true;
		r->call_status = m->status;
		r->call_text[0] = '\0';
		if (m->status < 0 || m->type == (WD_MSG_MOUNT_RENEW | WD_MSG_REPLY))
			wd_rd_str(&rd, r->call_text, sizeof(r->call_text));
		wd_cond_broadcast(&r->changed);
	}
	wd_unlock(&r->lock);
}

static inline void *rig_run_keeper(void *arg)
{
	struct rig *r = arg;
	struct wd_msg *m = &r->keeper_in, *out = &r->keeper_out;

	while (wd_msg_recv(r->keeper, m, 0) == 1) {
		if (m->type & WD_MSG_REPLY) {
			rig_answered(r, m);
		} else if (m->type == WD_MSG_BACKING_OPEN) {
			rig_backing_open(r, m, out);
		} else if (m->type == WD_MSG_BACKING_CLOSE) {
			rig_backing_close(r, m, out);
		} else if (m->type == WD_MSG_KEEPER_STATUS) {
			rig_status(r, m, out);
		}
		wd_msg_close_fds(m);
	}
	wd_lock(&r->lock);
	r->is_gone = true;
	wd_cond_broadcast(&r->changed);
	wd_unlock(&r->lock);
	return NULL;
}

/* Sends m, whose id is set here, as the keeper; the status of the answer. */
static inline int rig_keeper_call(struct rig *r, struct wd_msg *m)
{
	static _Atomic uint64_t next = 1000;
	int status;

	m->id = ++next;
	wd_lock(&r->lock);
	r->call_id = m->id;
	r->is_answered = false;
	wd_unlock(&r->lock);
	if (wd_msg_send(r->keeper, m, 0) < 0)
		return -EPIPE;
	wd_lock(&r->lock);
	while (!r->is_answered && !r->is_gone)
		wd_cond_wait(&r->changed, &r->lock);
	status = r->is_answered ? r->call_status : -EPIPE;
	wd_unlock(&r->lock);
	return status;
}

static inline void rig_set_backing(struct rig *r, int status)
{
	wd_lock(&r->lock);
	r->backing_status = status;
	wd_unlock(&r->lock);
}

static inline void rig_set_close(struct rig *r, int status)
{
	static struct wd_msg out; /* calls come from one thread */

	wd_lock(&r->lock);
	r->close_status = status;
	while (status != 1 && r->nheld_closes > 0)
		rig_answer_close(r, r->held_closes[--r->nheld_closes], &out);
	wd_unlock(&r->lock);
}

/* ---- the agent ---- */

/* How the agent reads its settings again; set before rig_start(). */
static int (*rig_reread)(void *arg, struct settings *ret_settings, struct wd_err *err);

static inline void *rig_run_agent(void *arg)
{
	struct rig *r = arg;
	struct wd_err err = WD_ERR_INIT;
	struct agent_options options = {.settings = &r->settings, .ready_fd = -1, .reread = rig_reread, .reread_arg = r};

	r->agent_rc = agent_run(&options, &err);
	if (r->agent_rc < 0)
		fprintf(stderr, "rig: agent: %s\n", err.msg);
	return NULL;
}

static inline void rig_connect_keeper(struct rig *r)
{
	struct wd_err err = WD_ERR_INIT;
	char path[128];

	snprintf(path, sizeof(path), "%s/run/agent.sock", r->dir);
	while ((r->keeper = wd_client_connect(path, WD_ROLE_KEEPER, &err)) < 0) {
		if (r->agent_rc < 0)
			abort();
		usleep(1000); /* until it listens */
	}
	r->is_gone = false;
	if (pthread_create(&r->keeper_thread, NULL, rig_run_keeper, r) != 0)
		rig_die("start a thread");
}

static inline void rig_launch(struct rig *r)
{
	r->agent_rc = 0;
	if (pthread_create(&r->agent, NULL, rig_run_agent, r) != 0)
		rig_die("start a thread");
	rig_connect_keeper(r);
}

/* pairs: "key=value" of the settings; NULL at the end. */
static inline void rig_start(struct rig *r, ...)
{
	struct wd_err err = WD_ERR_INIT;
	char path[128];
	const char *pair;
	sigset_t set;
	va_list ap;

	memset(r, 0, sizeof(*r));
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	strcpy(r->dir, "/tmp/wd-rig-XXXXXX");
	if (!mkdtemp(r->dir) || wd_config_defaults(settings_keys, &r->settings, &err) < 0)
		rig_die("make a directory");
	snprintf(path, sizeof(path), "%s/data", r->dir);
	mkdir(path, 0755);
	wd_config_set(settings_keys, &r->settings, "http-listen", "", &err);
	wd_config_set(settings_keys, &r->settings, "kubernetes", "false", &err);
	wd_config_set(settings_keys, &r->settings, "cache-size", "64MiB", &err);
	wd_config_set(settings_keys, &r->settings, "free-space-floor", "0", &err);
	snprintf(path, sizeof(path), "%s/run", r->dir);
	wd_config_set(settings_keys, &r->settings, "run-dir", path, &err);
	snprintf(path, sizeof(path), "%s/cache", r->dir);
	wd_config_set(settings_keys, &r->settings, "cache-dir", path, &err);
	va_start(ap, r);
	while ((pair = va_arg(ap, const char *))) {
		char name[64];
		const char *eq = strchr(pair, '=');

		snprintf(name, sizeof(name), "%.*s", (int)(eq - pair), pair);
		if (wd_config_set(settings_keys, &r->settings, name, eq + 1, &err) < 0) {
			fprintf(stderr, "rig: %s\n", err.msg);
			abort();
		}
	}
	va_end(ap);
	wd_mutex_init(&r->lock);
	wd_cond_init(&r->changed);
	rig_launch(r);
}

/* Ends the agent as SIGTERM does. */
static inline void rig_halt(struct rig *r)
{
	kill(getpid(), SIGTERM);
	pthread_join(r->agent, NULL);
	shutdown(r->keeper, SHUT_RDWR);
	pthread_join(r->keeper_thread, NULL);
	close(r->keeper);
}

static inline void rig_stop(struct rig *r)
{
	rig_halt(r);
	nftw(r->dir, rig_remove_one, 16, FTW_DEPTH | FTW_PHYS);
	wd_config_free(settings_keys, &r->settings);
	wd_cond_done(&r->changed);
	wd_mutex_done(&r->lock);
}

/* ---- mounts ---- */

/* Tells the agent of the mount. description: as the keeper sends it. */
static inline int rig_try_mount_of(
	struct rig *r, struct rig_mount *mnt, uint64_t id, const char *description)
{
	static struct wd_msg m; /* calls come from one thread */
	struct wd_err err = WD_ERR_INIT;
	int pair[2], rc;

	*mnt = (struct rig_mount){.rig = r, .id = id};
	mnt->tables_fd = wd_mm_create(&err);
	if (mnt->tables_fd < 0 || wd_mm_map(mnt->tables_fd, &mnt->mm, &err) < 0 ||
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		rig_die("make a mount");
	mnt->sock = pair[0];
	wd_msg_start(&m, WD_MSG_MOUNT_ADD, 0);
	wd_put_u64(&m, id);
	wd_put_bytes(&m, description, strlen(description));
	wd_put_str(&m, "/nowhere");
	wd_put_u32(&m, 0);
	wd_put_fd(&m, pair[1]);
	wd_put_fd(&m, mnt->tables_fd);
	rc = rig_keeper_call(r, &m);
	close(pair[1]);
	return rc;
}

/* ... of the directory `dataset`. options: members of the "options" object, as text. */
static inline int rig_try_mount(struct rig *r, struct rig_mount *mnt, uint64_t id,
	const char *dataset, const char *options)
{
	char description[512];

	snprintf(description, sizeof(description),
		"{\"url\":\"file://%s/data/%s\",\"options\":{%s}}", r->dir, dataset, options);
	return rig_try_mount_of(r, mnt, id, description);
}

static inline void rig_drop_mount(struct rig_mount *mnt)
{
	wd_mm_unmap(&mnt->mm);
	close(mnt->tables_fd);
	close(mnt->sock);
}

static inline void rig_mount(struct rig *r, struct rig_mount *mnt, uint64_t id, const char *dataset,
	const char *options)
{
	int rc = rig_try_mount(r, mnt, id, dataset, options);

	if (rc < 0) {
		fprintf(stderr, "rig: mount '%s': %s\n", dataset, r->call_text);
		abort();
	}
}

/* Other credentials for the mount, as the keeper brings them; what is to be kept is in rig->call_text. */
static inline int rig_renew(struct rig_mount *mnt, const char *description)
{
	static struct wd_msg m; /* calls come from one thread */

	wd_msg_start(&m, WD_MSG_MOUNT_RENEW, 0);
	wd_put_u64(&m, mnt->id);
	wd_put_bytes(&m, description, strlen(description));
	return rig_keeper_call(mnt->rig, &m);
}

static inline bool rig_is_connected(struct rig *r)
{
	bool is_connected;

	wd_lock(&r->lock);
	is_connected = !r->is_gone;
	wd_unlock(&r->lock);
	return is_connected;
}

/* The agent dropped the keeper: another connection, as the keeper makes one. */
static inline void rig_reconnect_keeper(struct rig *r)
{
	pthread_join(r->keeper_thread, NULL);
	close(r->keeper);
	rig_connect_keeper(r);
}

/* As the keeper does when a server was replaced: a new socket, the old one is void. -errno: the agent refused, or dropped the keeper. */
static inline int rig_try_new_server(struct rig_mount *mnt)
{
	static struct wd_msg m; /* calls come from one thread */
	int pair[2], rc;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		rig_die("socketpair");
	wd_msg_start(&m, WD_MSG_MOUNT_SERVER, 0);
	wd_put_u64(&m, mnt->id);
	wd_put_fd(&m, pair[1]);
	rc = rig_keeper_call(mnt->rig, &m);
	close(pair[1]);
	close(mnt->sock);
	mnt->sock = pair[0];
	return rc;
}

static inline void rig_new_server(struct rig_mount *mnt)
{
	if (rig_try_new_server(mnt) < 0)
		rig_die("MOUNT_SERVER is refused");
}

static inline void rig_umount(struct rig_mount *mnt)
{
	static struct wd_msg m; /* calls come from one thread */

	wd_msg_start(&m, WD_MSG_MOUNT_DEL, 0);
	wd_put_u64(&m, mnt->id);
	rig_keeper_call(mnt->rig, &m);
	rig_drop_mount(mnt);
}

/* Sends m as the mount's server and replaces it by the answer; other answers that come before it
 * are thrown away. The status, or -EPIPE when the agent dropped us. */
static inline int rig_call(struct rig_mount *mnt, struct wd_msg *m)
{
	uint64_t id = m->id = (1ULL << 40) + ++mnt->next_id;
	uint16_t type = m->type;
	int rc = wd_msg_send(mnt->sock, m, 0);

	while (rc >= 0) {
		rc = wd_msg_recv(mnt->sock, m, 0);
		if (rc <= 0)
			return -EPIPE;
		if (m->id == id && m->type == (type | WD_MSG_REPLY))
			return m->status;
		wd_msg_close_fds(m);
	}
	return -EPIPE;
}

/* Looks a name up; -errno. */
static inline int rig_lookup(
	struct rig_mount *mnt, struct wd_msg *m, uint64_t dir, const char *name, uint64_t *ret_node)
{
	struct wd_attr attr;
	struct wd_rd r;
	int rc;

	wd_msg_start(m, WD_MSG_LOOKUP, 0);
	wd_put_u64(m, dir);
	wd_put_str(m, name);
	rc = rig_call(mnt, m);
	if (rc < 0)
		return rc;
	r = wd_rd_start(m);
	if (!wd_rd_attr(&r, &attr) || !wd_rd_done(&r))
		return -EPROTO;
	*ret_node = attr.node;
	return 0;
}

/* The mode, or -errno; descriptors stay in m. */
static inline int rig_open(struct rig_mount *mnt, struct wd_msg *m, uint64_t node, uint32_t flags,
	uint64_t *ret_size)
{
	struct wd_rd r;
	int rc, mode;

	wd_msg_start(m, WD_MSG_OPEN, 0);
	wd_put_u64(m, node);
	wd_put_u32(m, flags);
	rc = rig_call(mnt, m);
	if (rc < 0)
		return rc;
	r = wd_rd_start(m);
	mode = wd_rd_u8(&r);
	wd_rd_u32(&r);
	*ret_size = wd_rd_u64(&r);
	return wd_rd_done(&r) ? mode : -EPROTO;
}

/* A descriptor in m with the bytes at *ret_position (BYTES), or 0 and none (PRESENT); -errno. */
static inline int rig_ensure(struct rig_mount *mnt, struct wd_msg *m, uint64_t node, uint64_t offset,
	uint32_t len, uint32_t flags, uint64_t *ret_position)
{
	struct wd_rd r;
	int rc;

	wd_msg_start(m, WD_MSG_ENSURE, 0);
	wd_put_u64(m, node);
	wd_put_u64(m, offset);
	wd_put_u32(m, len);
	wd_put_u32(m, flags);
	rc = rig_call(mnt, m);
	if (rc < 0)
		return rc;
	r = wd_rd_start(m);
	rc = wd_rd_u8(&r);
	*ret_position = wd_rd_u64(&r);
	return wd_rd_done(&r) ? rc : -EPROTO;
}

static inline int rig_call_empty(struct rig_mount *mnt, struct wd_msg *m, uint16_t type)
{
	wd_msg_start(m, type, 0);
	return rig_call(mnt, m);
}

/* Reads a whole file as a server does: open, ensure, the cache file or the bytes; compares. 0 or
 * -errno (-EILSEQ: wrong bytes). */
static inline int rig_read(struct rig_mount *mnt, struct wd_msg *m, uint64_t dir, const char *name,
	const char *path)
{
	unsigned char buf[4096];
	uint64_t node, size, position;
	int mode, file, rc = rig_lookup(mnt, m, dir, name, &node);

	if (rc < 0)
		return rc;
	mode = rig_open(mnt, m, node, 0, &size);
	if (mode < 0)
		return mode;
	file = wd_msg_take_fd(m, 0);
	wd_msg_close_fds(m);
	for (uint64_t at = 0; at < size && rc == 0 && mode != WD_OPEN_PASSTHROUGH;) {
		uint32_t len = size - at < sizeof(buf) ? (uint32_t)(size - at) : sizeof(buf);
		int fd, how = rig_ensure(mnt, m, node, at, len,
				 file < 0 ? WD_ENSURE_BYTES : 0, &position);

		if (how < 0) {
			rc = how;
			break;
		}
		fd = how == WD_ENSURE_FD ? wd_msg_take_fd(m, 0) : file;
		wd_msg_close_fds(m);
		if (how == WD_ENSURE_PRESENT)
			position = at;
		if (pread(fd, buf, len, (off_t)position) != (ssize_t)len)
			rc = -ENODATA;
		for (uint32_t i = 0; i < len && rc == 0; i++)
			rc = buf[i] == rig_byte(path, at + i) ? 0 : -EILSEQ;
		if (how == WD_ENSURE_FD)
			close(fd);
		at += size > 65536 ? 65536 : len; /* samples of a large one */
	}
	if (file >= 0)
		close(file);
	wd_msg_start(m, WD_MSG_RELEASE, 0);
	wd_put_u64(m, node);
	wd_msg_send(mnt->sock, m, 0);
	return rc;
}

#endif
