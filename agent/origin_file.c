/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The origin file:///dir: a local directory, read as if it were far away.
 *
 * Every path is opened below the root with RESOLVE_BENEATH, so neither a key nor a symlink leads
 * out of it; symlinks that stay inside are followed, except those to a directory that the link lies
 * in (an endless tree). Special files are left out. The root itself is opened anew for each
 * operation: a directory that is mounted over or replaced is seen as it is now.
 *
 * A version is inode, size, mtime and ctime. Reads run on a few threads of their own, 1 MiB at a
 * time, with an fstat before and after each: bytes of a file that changed meanwhile never reach the
 * sink.
 */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/get_queue.h"
#include "agent/origin_health.h"
#include "agent/origin_impl.h"
#include "common/cleanup.h"
#include "common/fault.h"
#include "common/log.h"

#define READ_STEP (1024 * 1024)
#define MAX_THREADS 16

struct file_origin {
	struct origin base;
	char *root;
};

static struct {
	struct get_queue *queue;
	pthread_t threads[MAX_THREADS];
	unsigned nthreads;
} pool;

static struct file_origin *file_of(struct origin *o)
{
	return (struct file_origin *)o;
}

static void dir_close(DIR **d)
{
	if (*d)
		closedir(*d);
}
#define autoclosedir __attribute__((cleanup(dir_close)))

/* ---- paths ---- */

/* A key that names one path only: no empty, "." or ".." parts. */
static bool is_plain_key(const char *key)
{
	for (const char *p = key;;) {
		size_t len = strcspn(p, "/");

		if (len == 0 || (len == 1 && p[0] == '.') || (len == 2 && memcmp(p, "..", 2) == 0))
			return false;
		if (!p[len])
			return true;
		p += len + 1;
	}
}

static int open_root(const struct file_origin *f)
{
	int fd = open(f->root, O_PATH | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* Opens path below the root; "" is the root itself. What lies outside does not exist. */
static int open_beneath(int root, const char *path, int flags)
{
	struct open_how how = {.flags = (uint64_t)flags | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
	long fd;

	for (int tries = 0;; tries++) {
		fd = syscall(SYS_openat2, root, *path ? path : ".", &how, sizeof(how));
		/* EAGAIN: something was renamed meanwhile, the kernel cannot be sure */
		if (fd >= 0 || (errno != EAGAIN && errno != EINTR) || tries == 100)
			break;
	}
	if (fd >= 0)
		return (int)fd;
	switch (errno) {
	case ENOTDIR:
	case ELOOP:
	case EXDEV:
	case ENAMETOOLONG:
		return -ENOENT;
	default:
		return -errno;
	}
}

static void version_of(const struct stat *st, struct version *v)
{
	*v = (struct version){.size = (uint64_t)st->st_size,
		.mtime_s = st->st_mtim.tv_sec,
		.mtime_ns = (uint32_t)st->st_mtim.tv_nsec,
		.is_bound = true};
	snprintf(v->etag, sizeof(v->etag), "\"%llx-%llx-%llx.%lx-%llx.%lx\"",
		(unsigned long long)st->st_ino, (unsigned long long)st->st_size,
		(unsigned long long)st->st_mtim.tv_sec, (unsigned long)st->st_mtim.tv_nsec,
		(unsigned long long)st->st_ctim.tv_sec, (unsigned long)st->st_ctim.tv_nsec);
}

/* Opens key and stats it. Returns an O_PATH fd, or -errno. */
static int look_up(const struct file_origin *f, const char *key, struct stat *ret_st)
{
	wd_autoclose int root = open_root(f);
	wd_autoclose int fd = -1;

	if (root < 0)
		return root;
	if (*key && !is_plain_key(key))
		return -ENOENT;
	fd = open_beneath(root, key, O_PATH);
	if (fd < 0)
		return fd;
	if (fstat(fd, ret_st) < 0)
		return -errno;
	return wd_steal_fd(&fd);
}

/* ---- open and check ---- */

static int file_open(const char *url, const struct origin_options *options,
	struct origin **ret_origin, struct wd_err *err)
{
	const char *path = url + strlen("file://");
	struct file_origin *f;
	size_t len;

	(void)options;
	if (path[0] != '/')
		return wd_err_set(
			err, EINVAL, "a file URL is file:///absolute/path, without a host");
	f = calloc(1, sizeof(*f));
	if (!f || !origin_copy(&f->root, path)) {
		free(f);
		return wd_err_sys(err, ENOMEM, "cannot open");
	}
	len = strlen(path);
	if (asprintf(&f->base.url, "%s%s", url, path[len - 1] == '/' ? "" : "/") < 0) {
		f->base.url = NULL;
		free(f->root);
		free(f);
		return wd_err_sys(err, ENOMEM, "cannot open");
	}
	*ret_origin = &f->base;
	return 0;
}

static void file_close(struct origin *o)
{
	free(file_of(o)->root);
	free(o);
}

static int file_check(struct origin *o, struct wd_err *err)
{
	const char *root = file_of(o)->root;
	wd_autoclose int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0)
		return 0;
	switch (errno) {
	case ENOENT:
		return wd_err_set(err, ENOENT,
			"open '%s': the directory does not exist; create it or correct the URL",
			root);
	case ENOTDIR:
		return wd_err_set(err, ENOTDIR,
			"open '%s': not a directory; give the directory above the files", root);
	case EACCES:
		return wd_err_set(err, EACCES,
			"open '%s': permission denied; let the agent's user read it", root);
	default:
		return wd_err_sys(err, errno, "open '%s'", root);
	}
}

static bool file_lists_recursively(const struct origin *o)
{
	(void)o;
	return false;
}

/* Counts a failure by its class. Absence of a name is none. */
static int count_fault(int rc, enum origin_op op)
{
	enum origin_fault fault = rc == -ENOENT ? ORIGIN_FAULT_GONE
		: rc == -ESTALE			? ORIGIN_FAULT_CHANGED
		: rc == -EACCES || rc == -EPERM ? ORIGIN_FAULT_DENIED
						: ORIGIN_FAULT_IO;

	if (rc < 0 && rc != -ECANCELED && (rc != -ENOENT || op == ORIGIN_OP_GET)) {
		origin_stats.faults[fault]++;
		origin_stats.errors[op]++;
	}
	return rc;
}

/* ---- list ---- */

/* Is the directory one of those that lead to prefix? A symlink to it would make an endless tree. */
static bool is_above(int root, const char *prefix, const struct stat *dir)
{
	wd_autofree char *path = strdup(prefix);
	struct stat st;

	if (!path)
		return true;
	for (;;) {
		wd_autoclose int fd = open_beneath(root, path, O_PATH);
		char *slash;

		if (fd < 0 || fstat(fd, &st) < 0 ||
			(st.st_ino == dir->st_ino && st.st_dev == dir->st_dev))
			return true;
		if (!*path)
			return false;
		path[strlen(path) - 1] = 0; /* the trailing slash */
		slash = strrchr(path, '/');
		*(slash ? slash + 1 : path) = 0;
	}
}

/* Stats a directory's child as readers would see it. False: left out. */
static bool stat_child(int root, int dir, const char *prefix, const char *name, const char *key,
	struct stat *ret_st)
{
	if (fstatat(dir, name, ret_st, AT_SYMLINK_NOFOLLOW) < 0)
		return false;
	if (S_ISLNK(ret_st->st_mode)) {
		wd_autoclose int fd = open_beneath(root, key, O_PATH);

		if (fd < 0 || fstat(fd, ret_st) < 0)
			return false;
		if (S_ISDIR(ret_st->st_mode) && is_above(root, prefix, ret_st))
			return false;
	}
	return S_ISREG(ret_st->st_mode) || S_ISDIR(ret_st->st_mode);
}

/* Gives one child to cb; false when cb wants no more. */
static bool list_child(int root, int dir, const char *prefix, const struct dirent *d,
	origin_entry_cb cb, void *arg)
{
	char key[ORIGIN_KEY_MAX + 2];
	struct origin_entry entry = {.key = key};
	struct stat st;
	int len = snprintf(key, sizeof(key) - 1, "%s%s", prefix, d->d_name);

	if (len > ORIGIN_KEY_MAX) {
		wd_warn("left out '%.64s...': the path is longer than %d bytes", key,
			ORIGIN_KEY_MAX);
		return true;
	}
	if (d->d_type == DT_DIR)
		entry.is_prefix = true;
	else if (!stat_child(root, dir, prefix, d->d_name, key, &st))
		return true;
	else if (S_ISDIR(st.st_mode))
		entry.is_prefix = true;
	else
		version_of(&st, &entry.version);
	if (entry.is_prefix) {
		key[len++] = '/';
		key[len] = 0;
	}
	entry.key_len = (size_t)len;
	return cb(arg, &entry);
}

static int file_list(struct origin *o, const char *prefix, bool is_recursive, unsigned max_pages,
	origin_entry_cb cb, void *arg, bool *ret_is_complete, struct wd_err *err)
{
	struct file_origin *f = file_of(o);
	wd_autofree char *path = strndup(prefix, strlen(prefix) - (*prefix ? 1 : 0));
	wd_autoclose int root = open_root(f);
	autoclosedir DIR *dir = NULL;
	const struct dirent *d;
	int fd;

	(void)is_recursive;
	(void)max_pages;
	origin_stats.requests[ORIGIN_OP_LIST]++;
	if (!path)
		return wd_err_sys(err, ENOMEM, "list '%s%s'", o->url, prefix);
	if (root < 0)
		return wd_err_sys(err, -count_fault(root, ORIGIN_OP_LIST), "list '%s'", o->url);
	fd = *path && !is_plain_key(path) ? -ENOENT
					  : open_beneath(root, path, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return wd_err_sys(err, -count_fault(fd, ORIGIN_OP_LIST), "list '%s%s'", o->url, prefix);
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return wd_err_sys(err, ENOMEM, "list '%s%s'", o->url, prefix);
	}
	while (errno = 0, (d = readdir(dir))) {
		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
			continue;
		if (!list_child(root, fd, prefix, d, cb, arg))
			return 0;
	}
	if (errno)
		return wd_err_sys(err, -count_fault(-errno, ORIGIN_OP_LIST), "list '%s%s'", o->url, prefix);
	*ret_is_complete = true;
	return 0;
}

/* ---- probe and stat ---- */

static int file_probe(struct origin *o, const char *key, enum origin_kind *ret_kind,
	struct version *ret_version, struct wd_err *err)
{
	struct stat st;
	wd_autoclose int fd = look_up(file_of(o), key, &st);

	origin_stats.requests[ORIGIN_OP_HEAD]++;
	if (fd < 0 && fd != -ENOENT)
		return wd_err_sys(err, -count_fault(fd, ORIGIN_OP_HEAD), "look up '%s%s'", o->url, key);
	*ret_kind = ORIGIN_NONE;
	if (fd >= 0 && S_ISDIR(st.st_mode)) {
		*ret_kind = ORIGIN_PREFIX;
	} else if (fd >= 0 && S_ISREG(st.st_mode)) {
		*ret_kind = ORIGIN_OBJECT;
		version_of(&st, ret_version);
	}
	return 0;
}

static int file_stat(
	struct origin *o, const char *key, struct version *ret_version, struct wd_err *err)
{
	enum origin_kind kind = ORIGIN_NONE;
	struct version version;
	int rc = file_probe(o, key, &kind, &version, err);

	if (rc < 0)
		return rc;
	if (kind != ORIGIN_OBJECT)
		return wd_err_set(err, ENOENT, "look up '%s%s': no such file", o->url, key);
	*ret_version = version;
	return 0;
}

/* ---- reads ---- */

/* Opens the file of a read without touching anything that is no regular file. */
static int open_for_read(const struct file_origin *f, const char *key)
{
	struct stat st;
	wd_autoclose int path = look_up(f, key, &st);
	wd_autoclose int root = open_root(f);

	if (path < 0)
		return path;
	if (root < 0)
		return root;
	if (!S_ISREG(st.st_mode))
		return -ENOENT;
	return open_beneath(root, key, O_RDONLY | O_NONBLOCK | O_NOCTTY);
}

static int check_version(int fd, const struct version *want)
{
	struct version now;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	version_of(&st, &now);
	return S_ISREG(st.st_mode) && version_equal(&now, want) ? 0 : -ESTALE;
}

static int read_step(int fd, const struct origin_get *get, uint64_t offset, char *buf, size_t len)
{
	size_t have = 0;
	int rc = check_version(fd, get->version);

	if (rc < 0)
		return rc;
	if (WD_FAULT("origin_file.read"))
		return -EIO;
	while (have < len) {
		ssize_t n = pread(fd, buf + have, len - have, (off_t)(offset + have));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ESTALE;
		have += (size_t)n;
	}
	return check_version(fd, get->version);
}

static int read_all(const struct get_job *job, char *buf, size_t cap)
{
	struct origin_get *get = job->get;
	wd_autoclose int fd = open_for_read(file_of(job->origin), get->key);
	uint64_t end = get->offset + get->length;

	if (fd < 0)
		return fd;
	posix_fadvise(fd, (off_t)get->offset, (off_t)get->length, POSIX_FADV_SEQUENTIAL);
	for (uint64_t at = get->offset; at < end;) {
		size_t len = end - at < cap ? (size_t)(end - at) : cap;
		int rc;

		if (job->is_cancelled)
			return -ECANCELED;
		rc = read_step(fd, get, at, buf, len);
		if (rc < 0)
			return rc;
		origin_stats.bytes += len; /* before the sink wakes who may look */
		get->resume.given += len;
		rc = get->sink(get->arg, at, buf, len);
		if (rc < 0)
			return rc;
		at += len;
	}
	return 0;
}

static void run_job(struct get_job *job)
{
	const struct origin_get *get = job->get;
	int64_t began_ns = wd_now_ns();
	size_t cap = get->length < READ_STEP ? (size_t)get->length : READ_STEP;
	wd_autofree char *buf = malloc(cap);
	struct wd_err err = WD_ERR_INIT;
	int rc = -EIO;

	origin_stats.requests[ORIGIN_OP_GET]++;
	if (job->is_cancelled)
		rc = -ECANCELED;
	else if (buf)
		rc = read_all(job, buf, cap);
	if (rc < 0) {
		wd_err_sys(&err, -rc, "fetch '%s%s' bytes %" PRIu64 "-%" PRIu64, job->origin->url,
			get->key, get->offset, get->offset + get->length - 1);
		count_fault(rc, ORIGIN_OP_GET);
	} else {
		health_fetched(NULL, wd_now_ns() - began_ns);
	}
	get_queue_finish(pool.queue, job, rc, &err);
}

static void *read_main(void *arg)
{
	struct get_job *job;

	while ((job = get_queue_wait(pool.queue, (unsigned)(uintptr_t)arg)))
		run_job(job);
	return NULL;
}

int origin_file_start(unsigned threads, struct wd_err *err)
{
	int rc = 0;

	assert(!pool.queue && threads > 0 && threads <= MAX_THREADS);
	pool.queue = get_queue_new(threads, threads, NULL, NULL, wd_now_ns);
	if (!pool.queue)
		return wd_err_sys(err, ENOMEM, "start reading threads");
	for (pool.nthreads = 0; pool.nthreads < threads && rc == 0; pool.nthreads++)
		rc = -pthread_create(&pool.threads[pool.nthreads], NULL, read_main,
			(void *)(uintptr_t)pool.nthreads);
	if (rc == 0)
		return 0;
	pool.nthreads--;
	origin_file_stop();
	return wd_err_sys(err, -rc, "start reading threads");
}

void origin_file_stop(void)
{
	if (!pool.queue)
		return;
	get_queue_stop(pool.queue);
	for (unsigned i = 0; i < pool.nthreads; i++)
		pthread_join(pool.threads[i], NULL);
	get_queue_free(pool.queue);
	pool.queue = NULL;
	pool.nthreads = 0;
}

static void file_drain(struct origin *o)
{
	if (pool.queue)
		get_queue_drain(pool.queue, o);
}

static void file_get(struct origin *o, struct origin_get *get)
{
	get_queue_push(pool.queue, o, get);
}

static void file_cancel(struct origin *o, struct origin_get *get)
{
	(void)o;
	get_queue_cancel(pool.queue, get);
}

static void file_prioritise(struct origin *o, struct origin_get *get, enum get_priority priority)
{
	(void)o;
	get_queue_prioritise(pool.queue, get, priority);
}

const struct origin_ops origin_file_ops = {
	.scheme = "file",
	.open = file_open,
	.close = file_close,
	.drain = file_drain,
	.check = file_check,
	.lists_recursively = file_lists_recursively,
	.list = file_list,
	.probe = file_probe,
	.stat = file_stat,
	.get = file_get,
	.cancel = file_cancel,
	.prioritise = file_prioritise,
};
