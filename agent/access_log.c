/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See access_log.h. The writer takes what the ring has, makes lines of it, and writes them at once; a line is whole in
 * the file or not there. Which event is in the sample is decided by chance, so that no pattern of reads is in step
 * with it.
 */
#include "agent/access_log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/metrics.h"
#include "common/cleanup.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/utf8.h"

#define RING_BYTES ((size_t)1 << 20)
#define TAKE_BYTES ((size_t)64 << 10)
#define TELL_EVERY_NS 600000000000LL

struct access_log {
	struct trace_ring ring;
	uint64_t one_in, size_max;
	_Atomic uint64_t seed;
	pthread_t thread;
	char path[4096], old_path[4096 + 2];
	/* the thread's own */
	int fd; /* -1: it could not be opened */
	uint64_t size;
	int64_t told_ns; /* 0: never */
	char taken[TAKE_BYTES];
};

static int open_file(struct access_log *l, struct wd_err *err)
{
	struct stat st;
	int fd = open(l->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);

	if (fd < 0)
		return wd_err_sys(err, errno, "access-log '%s'", l->path);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		return wd_err_set(err, EINVAL, "access-log '%s': not a file", l->path);
	}
	l->fd = fd;
	l->size = (uint64_t)st.st_size;
	return 0;
}

/* One line of the log, without secrets: names and figures alone. NULL: out of memory. */
static char *line_of(struct trace_event *e)
{
	char at[40], stamp[64];
	time_t seconds = (time_t)(e->at_us / 1000000);
	const char *pod = "";
	int pod_len = (int)trace_pod(e->target, &pod);
	struct tm tm;
	json_t *root;
	char *text;

	gmtime_r(&seconds, &tm);
	strftime(at, sizeof(at), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(stamp, sizeof(stamp), "%s.%06dZ", at, (int)(e->at_us % 1000000));
	/* names are the origin's: what is no text is shown as "?" */
	wd_utf8_clean((char *)(uintptr_t)e->target);
	wd_utf8_clean((char *)(uintptr_t)e->dataset);
	wd_utf8_clean((char *)(uintptr_t)e->path);
	root = json_pack("{s:s, s:s, s:s, s:s%, s:s, s:s, s:I, s:I, s:s, s:s, s:I, s:i}", "time", stamp, "event",
		e->kind == TRACE_OPEN ? "open" : "read", "mount", e->target, "pod", pod, (size_t)pod_len, "dataset",
		e->dataset, "path", e->path, "offset", (json_int_t)e->offset, "length", (json_int_t)e->length,
		"tier", trace_tier_name(e->tier), "mode", trace_mode_name(e->mode), "wait_us",
		(json_int_t)e->wait_us, "errno", e->code);
	text = root ? json_dumps(root, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
	json_decref(root);
	return text;
}

static void tell(struct access_log *l, const char *text)
{
	int64_t now = wd_now_ns();

	if (l->told_ns && now - l->told_ns < TELL_EVERY_NS)
		return;
	l->told_ns = now;
	wd_warn("%s; lines of it are lost", text);
}

/* Moved or removed by somebody: another begins. At its size it becomes the old one. */
static void look_at_file(struct access_log *l)
{
	struct wd_err err = WD_ERR_INIT;
	struct stat st, there;

	if (l->fd >= 0 && l->size >= l->size_max)
		(void)!rename(l->path, l->old_path);
	if (l->fd >= 0 && fstat(l->fd, &st) == 0 && lstat(l->path, &there) == 0 && st.st_ino == there.st_ino &&
		st.st_dev == there.st_dev)
		return;
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
	if (open_file(l, &err) < 0)
		tell(l, err.msg);
}

/* All of it or nothing. */
static bool write_lines(struct access_log *l, const char *text, size_t len)
{
	ssize_t n;
	int code;

	if (l->fd < 0)
		return false;
	errno = EIO;
	n = WD_FAULT("access-log.write") ? -1 : write(l->fd, text, len);
	if (n == (ssize_t)len) {
		l->size += len;
		return true;
	}
	code = n < 0 ? errno : ENOSPC;
	if (n > 0)
		(void)!ftruncate(l->fd, (off_t)l->size);

	struct wd_err err = WD_ERR_INIT;

	wd_err_sys(&err, code, "write to access-log '%s'", l->path);
	tell(l, err.msg);
	return false;
}

static void write_taken(struct access_log *l, size_t len)
{
	wd_autofree char *text = NULL;
	size_t text_len = 0, at = 0;
	uint64_t lines = 0;
	struct trace_event e;
	FILE *out = open_memstream(&text, &text_len);
	bool is_written;

	while (trace_next(l->taken, len, &at, &e)) {
		wd_autofree char *line = line_of(&e);

		if (out && line)
			fprintf(out, "%s\n", line);
		lines++;
	}
	if (out)
		fclose(out);
	look_at_file(l);
	is_written = text && write_lines(l, text, text_len);
	metric_add(is_written ? METRIC_ACCESS_LOG_WRITTEN : METRIC_ACCESS_LOG_DROPPED, lines);
}

static void *run(void *arg)
{
	struct access_log *l = arg;
	bool has_ended;
	uint64_t lost;
	size_t len;

	do {
		has_ended = trace_ring_has_ended(&l->ring); /* what is put before is taken below */
		len = trace_ring_take(&l->ring, l->taken, sizeof(l->taken), INT64_MAX, &lost);
		if (len > 0)
			write_taken(l, len);
	} while (len > 0 || !has_ended);
	return NULL;
}

static void log_free(struct access_log *l)
{
	if (l->fd >= 0)
		close(l->fd);
	trace_ring_done(&l->ring);
	free(l);
}

int access_log_start(const struct settings *s, struct access_log **ret_log, struct wd_err *err)
{
	struct access_log *l;
	int rc;

	*ret_log = NULL;
	if (!s->access_log || !s->access_log[0])
		return 0;
	if (strlen(s->access_log) >= sizeof(l->path))
		return wd_err_set(err, ENAMETOOLONG, "access-log: the path is too long");
	l = calloc(1, sizeof(*l));
	if (!l)
		return wd_err_set(err, ENOMEM, "access-log: out of memory");
	l->fd = -1;
	l->one_in = (uint64_t)s->access_log_one_in;
	l->size_max = (uint64_t)s->access_log_size;
	atomic_store(&l->seed, (uint64_t)wd_now_ns());
	snprintf(l->path, sizeof(l->path), "%s", s->access_log);
	snprintf(l->old_path, sizeof(l->old_path), "%s.1", s->access_log);
	rc = trace_ring_init(&l->ring, RING_BYTES);
	rc = rc < 0 ? wd_err_set(err, ENOMEM, "access-log: out of memory") : open_file(l, err);
	if (rc == 0) {
		rc = -pthread_create(&l->thread, NULL, run, l);
		if (rc < 0)
			wd_err_sys(err, -rc, "access-log: start a thread");
	}
	if (rc < 0) {
		log_free(l);
		return rc;
	}
	*ret_log = l;
	return 0;
}

void access_log_stop(struct access_log *l)
{
	if (!l)
		return;
	trace_ring_end(&l->ring);
	pthread_join(l->thread, NULL);
	log_free(l);
}

/* splitmix64: cheap, and each call another number whoever calls. */
static uint64_t chance(struct access_log *l)
{
	uint64_t z = atomic_fetch_add_explicit(&l->seed, 0x9e3779b97f4a7c15u, memory_order_relaxed);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

void access_log_put(struct access_log *l, const struct trace_event *e)
{
	if (l->one_in > 1 && chance(l) % l->one_in != 0)
		return;
	if (!trace_ring_put(&l->ring, e))
		metric_inc(METRIC_ACCESS_LOG_DROPPED);
}
