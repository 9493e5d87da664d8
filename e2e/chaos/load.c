/* SPDX-License-Identifier: Apache-2.0 */
#include "e2e/chaos/load.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SLOW_US 3000000 /* said while it lasts */
#define HANG_SECONDS 120 /* an operation that is not over so long after the last fault hangs */

static const struct kind {
	const char *name, *help;
	void (*work)(struct worker *w);
	unsigned workers;
} kinds[] = {
	{"hot", "pread of complete files, which are read by passthrough", work_hot, 2},
	{"stream", "files that are not cached, from start to end", work_stream, 2},
	{"random", "pieces of the same files", work_random, 1},
	{"mmap", "mappings of both", work_mmap, 1},
	{"small", "small files: open, read, close", work_small, 2},
	{"walk", "listings of all directories, as ls -R does", work_walk, 1},
	{"stat", "stat of files by name", work_stat, 1},
	{"killed", "readers that are killed and interrupted while they read", work_killed, 1},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

struct load {
	unsigned count;
	struct worker workers[WORKERS_MAX];
};

/* ---- what workers call ---- */

bool load_goes_on(const struct worker *w)
{
	return !atomic_load(&w->chaos->is_over);
}

uint64_t load_random(struct worker *w, uint64_t n)
{
	return content_random(&w->random) % n;
}

void op_begin(struct worker *w, const char *what, const char *below, uint64_t offset)
{
	pthread_mutex_lock(&w->lock);
	w->what = what;
	snprintf(w->path, sizeof(w->path), "%s/%s", w->chaos->mount, below);
	w->offset = offset;
	w->since_us = stats_now_us();
	pthread_mutex_unlock(&w->lock);
}

void op_end(struct worker *w, int error)
{
	uint64_t start;

	pthread_mutex_lock(&w->lock);
	start = w->since_us;
	w->since_us = 0;
	pthread_mutex_unlock(&w->lock);
	stats_op(&w->chaos->stats, start, w->what, w->path, w->offset);
	atomic_fetch_add(&w->ops, 1);
	if (error)
		chaos_error(w->chaos, "%s '%s' at %llu: %s (errno %d)", w->what, w->path,
			(unsigned long long)w->offset, strerror(error), error);
}

void load_wrong(struct worker *w, const char *fmt, ...)
{
	char text[700];
	va_list args;

	if (atomic_fetch_add(&w->chaos->stats.wrong, 1) >= ERRORS_SHOWN)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	printf("wrong: %s\n", text);
}

void load_check(struct worker *w, uint32_t file, uint64_t offset, const void *data, size_t len)
{
	int64_t bad = content_check(w->chaos->options.seed, file, offset, data, len);

	if (bad >= 0)
		load_wrong(w, "%s '%s': the word at %lld is not right", w->what, w->path, (long long)bad);
	else
		atomic_fetch_add_explicit(&w->chaos->stats.bytes, len, memory_order_relaxed);
}

/* ---- choosing ---- */

/* The number of workers that "kind,kind=N" wants of a kind; -1: the list makes no sense. */
static int wanted(const char *list, const struct kind *kind)
{
	size_t len = strlen(kind->name);
	const char *at = list;

	if (strcmp(list, "all") == 0)
		return (int)kind->workers;
	while (at) {
		if (strncmp(at, kind->name, len) == 0 && at[len] == '=')
			return atoi(at + len + 1);
		if (strncmp(at, kind->name, len) == 0 && (at[len] == ',' || !at[len]))
			return (int)kind->workers;
		at = strchr(at, ',');
		at = at ? at + 1 : NULL;
	}
	return 0;
}

bool load_is_known(const char *list)
{
	const char *at = list;
	unsigned total = 0;

	for (size_t i = 0; i < KINDS; i++)
		total += (unsigned)wanted(list, &kinds[i]);
	if (strcmp(list, "all") == 0)
		return true;
	while (at) {
		size_t len = strcspn(at, ",=");
		bool is_known = false;

		for (size_t i = 0; i < KINDS; i++)
			is_known |= strlen(kinds[i].name) == len && strncmp(at, kinds[i].name, len) == 0;
		if (!is_known)
			return false;
		at = strchr(at, ',');
		at = at ? at + 1 : NULL;
	}
	return total > 0 && total <= WORKERS_MAX;
}

void load_print_help(void)
{
	for (size_t i = 0; i < KINDS; i++)
		printf("  %-10s %s (%u)\n", kinds[i].name, kinds[i].help, kinds[i].workers);
}

/* ---- the workers ---- */

static void *run_worker(void *arg)
{
	struct worker *w = arg;

	atomic_store(&w->tid, (pid_t)syscall(SYS_gettid));
	w->work(w);
	atomic_store(&w->is_done, true);
	return NULL;
}

static int add_worker(struct chaos *c, const struct kind *kind)
{
	struct worker *w = &c->load->workers[c->load->count];

	w->chaos = c;
	w->kind = kind->name;
	w->work = kind->work;
	w->random = content_mix(c->options.seed + c->load->count + 1);
	w->buf = malloc(LOAD_BUF);
	pthread_mutex_init(&w->lock, NULL);
	if (!w->buf || pthread_create(&w->thread, NULL, run_worker, w) != 0)
		return -ENOMEM;
	c->load->count++;
	return 0;
}

int load_start(struct chaos *c, struct wd_err *err)
{
	c->load = calloc(1, sizeof(*c->load));
	for (size_t i = 0; i < KINDS && c->load; i++) {
		int n = wanted(c->options.load, &kinds[i]);

		for (int k = 0; k < n; k++)
			if (add_worker(c, &kinds[i]) < 0)
				return wd_err_set(err, ENOMEM, "start the load: out of memory");
	}
	return c->load ? 0 : wd_err_set(err, ENOMEM, "start the load: out of memory");
}

/* Prints what a worker is doing, if that has taken longer than min_us. */
static bool show(struct worker *w, const char *word, uint64_t min_us)
{
	uint64_t since, now;

	pthread_mutex_lock(&w->lock);
	since = w->since_us;
	now = stats_now_us(); /* not before `since` */
	if (since && now - since >= min_us)
		printf("%s: %s '%s' at %llu for %.1f s\n", word, w->what, w->path,
			(unsigned long long)w->offset, (double)(now - since) / 1e6);
	pthread_mutex_unlock(&w->lock);
	return since && now - since >= min_us;
}

void load_show_slow(struct chaos *c)
{
	for (unsigned i = 0; i < c->load->count; i++)
		show(&c->load->workers[i], "slow", SLOW_US);
}

static unsigned count_busy(const struct load *load)
{
	unsigned n = 0;

	for (unsigned i = 0; i < load->count; i++)
		n += !atomic_load(&load->workers[i].is_done);
	return n;
}

static void wait_done(struct load *load, unsigned seconds)
{
	uint64_t end = stats_now_us() + seconds * 1000000ULL;

	while (count_busy(load) > 0 && stats_now_us() < end)
		nanosleep(&(struct timespec){0, 10000000}, NULL);
}

static void abort_connection(struct chaos *c)
{
	char dir[CHAOS_PATH + 32], path[CHAOS_PATH + 96];
	FILE *f;

	/* not everywhere mounted; in this mount namespace it harms nobody */
	snprintf(dir, sizeof(dir), "%s/fusectl", c->dir);
	mkdir(dir, 0700);
	if (mount("none", dir, "fusectl", 0, NULL) < 0)
		printf("mount fusectl: %s\n", strerror(errno));
	snprintf(path, sizeof(path), "%s/%u/abort", dir, c->connection);
	f = fopen(path, "we");
	if (f) {
		fputs("1", f);
		fclose(f);
	} else {
		printf("open '%s': %s\n", path, strerror(errno));
	}
	umount2(dir, MNT_DETACH);
}

void load_stop(struct chaos *c)
{
	if (!c->load)
		return;
	atomic_store(&c->is_over, true);
	wait_done(c->load, HANG_SECONDS);
	for (unsigned i = 0; i < c->load->count; i++) {
		struct worker *w = &c->load->workers[i];

		if (atomic_load(&w->is_done))
			continue;
		show(w, "hangs", 0);
		proc_print_stack(getpid(), atomic_load(&w->tid));
		if (atomic_load(&w->reader) > 0)
			proc_print_stack(atomic_load(&w->reader), atomic_load(&w->reader));
		chaos_error(c, "an operation of the load '%s' hangs", w->kind);
	}
	if (count_busy(c->load) > 0 && !c->options.is_kept) {
		printf("the connection is aborted, so that this program can end\n");
		abort_connection(c);
		wait_done(c->load, HANG_SECONDS);
	}
	for (unsigned i = 0; i < c->load->count; i++) {
		struct worker *w = &c->load->workers[i];

		if (atomic_load(&w->is_done))
			pthread_join(w->thread, NULL);
	}
}

int chaos_wait_progress(struct chaos *c, unsigned n, struct wd_err *err)
{
	uint64_t end = stats_now_us() + CHAOS_WAIT_SECONDS * 1000000ULL, from[WORKERS_MAX];

	for (unsigned i = 0; i < c->load->count; i++)
		from[i] = atomic_load(&c->load->workers[i].ops);
	for (unsigned i = 0; i < c->load->count;) {
		struct worker *w = &c->load->workers[i];

		if (atomic_load(&w->ops) - from[i] >= n || atomic_load(&w->is_done)) {
			i++;
			continue;
		}
		if (stats_now_us() > end) {
			show(w, "no progress", 0);
			proc_print_stack(getpid(), atomic_load(&w->tid));
			return wd_err_set(err, ETIMEDOUT, "a worker of '%s' made no progress in %d s",
				w->kind, CHAOS_WAIT_SECONDS);
		}
		nanosleep(&(struct timespec){0, 2000000}, NULL);
	}
	return 0;
}
