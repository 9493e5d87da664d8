/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory and descriptors of the programs, sampled every second, and at the end whatever is left behind.
 * Memory is RssAnon + RssShmem: what a program maps of files (LMDB) is the page cache's.
 */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "e2e/chaos/run.h"

#define MINUTE 60
#define SAMPLES_MAX (48 * 3600)
#define FD_SLACK 16 /* so many more descriptors at the end than at the start are no leak yet */

struct sample {
	uint32_t second, rss_kib, fds;
};

struct series {
	struct sample *samples;
	size_t count, cap;
};

struct resources {
	struct chaos *chaos;
	pthread_t thread;
	bool is_running;
	int stop_fd;
	uint64_t start_us;
	struct series series[ROLE_COUNT];
	unsigned own_fds, fds[ROLE_COUNT]; /* when the load started */
};

/* ---- sampling ---- */

static void add(struct series *s, struct sample sample)
{
	if (s->count == s->cap) {
		size_t cap = s->cap ? 2 * s->cap : 256;
		struct sample *grown = cap > SAMPLES_MAX ? NULL : realloc(s->samples, cap * sizeof(*grown));

		if (!grown)
			return;
		s->samples = grown;
		s->cap = cap;
	}
	s->samples[s->count++] = sample;
}

static void sample_all(struct resources *r)
{
	struct process all[PROCESSES_MAX];
	size_t n = proc_descendants(all, PROCESSES_MAX);
	uint32_t second = (uint32_t)((stats_now_us() - r->start_us) / 1000000);

	for (size_t i = 0; i < n; i++) {
		uint64_t rss;

		if (all[i].role == ROLE_COUNT || all[i].role == ROLE_ORIGIN)
			continue;
		rss = proc_rss_kib(all[i].pid);
		if (rss > 0) /* else it is just ending */
			add(&r->series[all[i].role],
				(struct sample){second, (uint32_t)rss, proc_count_fds(all[i].pid)});
	}
}

static void *run_sampler(void *arg)
{
	struct resources *r = arg;
	struct pollfd p = {.fd = r->stop_fd, .events = POLLIN};

	while (poll(&p, 1, 1000) <= 0)
		sample_all(r);
	return NULL;
}

int resources_start(struct chaos *c)
{
	struct resources *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	c->resources = r;
	r->chaos = c;
	r->start_us = stats_now_us();
	r->stop_fd = eventfd(0, EFD_CLOEXEC);
	r->is_running = r->stop_fd >= 0 && pthread_create(&r->thread, NULL, run_sampler, r) == 0;
	return r->is_running ? 0 : -ENOMEM;
}

void resources_stop(struct chaos *c)
{
	struct resources *r = c->resources;
	uint64_t one = 1;

	if (!r || !r->is_running)
		return;
	if (write(r->stop_fd, &one, sizeof(one)) < 0)
		return;
	pthread_join(r->thread, NULL);
	close(r->stop_fd);
	r->is_running = false;
}

/* ---- what was sampled ---- */

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* The median of a figure within [from, to] seconds. */
static uint32_t median(const struct series *s, uint32_t from, uint32_t to, bool is_fds)
{
	uint32_t *values = calloc(s->count ? s->count : 1, sizeof(*values)), result;
	size_t n = 0;

	for (size_t i = 0; i < s->count && values; i++)
		if (s->samples[i].second >= from && s->samples[i].second <= to)
			values[n++] = is_fds ? s->samples[i].fds : s->samples[i].rss_kib;
	if (n > 0)
		qsort(values, n, sizeof(*values), compare);
	result = n > 0 ? values[n / 2] : 0;
	free(values);
	return result;
}

static uint32_t highest(const struct series *s, bool is_fds)
{
	uint32_t max = 0;

	for (size_t i = 0; i < s->count; i++) {
		uint32_t value = is_fds ? s->samples[i].fds : s->samples[i].rss_kib;

		max = value > max ? value : max;
	}
	return max;
}

void resources_print(struct chaos *c)
{
	struct resources *r = c->resources;

	for (int role = 0; r && role < ROLE_COUNT; role++) {
		const struct series *s = &r->series[role];
		uint32_t end, last;

		if (s->count == 0)
			continue;
		end = s->samples[s->count - 1].second;
		last = end > MINUTE ? end - MINUTE : 0;
		printf("%-10s memory %u KiB in the first minute, %u in the last, at most %u; descriptors %u, %u, "
		       "at most %u\n",
			role_name((enum role)role), median(s, 0, MINUTE, false), median(s, last, end, false),
			highest(s, false), median(s, 0, MINUTE, true), median(s, last, end, true),
			highest(s, true));
	}
}

/* ---- leaks ---- */

/* Those whose number of descriptors does not depend on the load. */
static const enum role steady[] = {ROLE_KEEPER, ROLE_SUPERVISOR, ROLE_CSI};

static unsigned fds_of(struct chaos *c, enum role role)
{
	pid_t pids[CHAOS_MANY];

	return chaos_pids(c, role, pids) == 1 ? proc_count_fds(pids[0]) : 0;
}

void resources_mark(struct chaos *c)
{
	if (!c->resources)
		return;
	c->resources->own_fds = proc_count_fds(getpid());
	for (size_t i = 0; i < sizeof(steady) / sizeof(steady[0]); i++)
		c->resources->fds[steady[i]] = fds_of(c, steady[i]);
}

static void compare_fds(struct chaos *c, const char *who, unsigned before, unsigned after)
{
	if (before && after > before + FD_SLACK)
		chaos_error(c, "the %s had %u descriptors, and has %u now", who, before, after);
}

/* One look may meet a child that is just being reaped; two of them a second apart do not. */
static void check_zombies(struct chaos *c)
{
	struct process first[PROCESSES_MAX], second[PROCESSES_MAX];
	size_t n = proc_descendants(first, PROCESSES_MAX), m;
	bool is_any = false;

	for (size_t i = 0; i < n; i++)
		is_any |= first[i].state == 'Z' && first[i].parent != getpid();
	if (!is_any)
		return;
	chaos_pause(c, 2000, 2000);
	m = proc_descendants(second, PROCESSES_MAX);
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < m; k++)
			if (first[i].state == 'Z' && first[i].parent != getpid() &&
				first[i].pid == second[k].pid && second[k].state == 'Z')
				chaos_error(c, "'%s' (%d) is a zombie that its parent %d does not reap",
					first[i].name, (int)first[i].pid, (int)first[i].parent);
}

void resources_compare(struct chaos *c)
{
	if (!c->resources)
		return;
	for (size_t i = 0; i < sizeof(steady) / sizeof(steady[0]); i++)
		compare_fds(c, role_name(steady[i]), c->resources->fds[steady[i]], fds_of(c, steady[i]));
	check_zombies(c);
}

void resources_leaks(struct chaos *c)
{
	struct process all[PROCESSES_MAX];
	size_t n = proc_descendants(all, PROCESSES_MAX);
	unsigned own = proc_count_fds(getpid()), mounts = proc_mounts_below(c->dir);

	for (size_t i = 0; i < n; i++) {
		if (all[i].state == 'Z' && all[i].parent == getpid())
			continue;
		chaos_error(c, "left running: '%s' (%d), state %c", all[i].name, (int)all[i].pid,
			all[i].state);
		proc_print_stack(all[i].pid, all[i].pid);
		kill(all[i].pid, SIGKILL);
	}
	if (mounts)
		chaos_error(c, "left mounted: %u below '%s'", mounts, c->dir);
	if (c->resources && own > c->resources->own_fds)
		chaos_error(c, "this program had %u descriptors and has %u now", c->resources->own_fds, own);
}

/* ---- logs ---- */

static bool is_crash(const char *line)
{
	static const char *const words[] = {"AddressSanitizer", "LeakSanitizer", "ThreadSanitizer",
		"runtime error:", "ssertion `", "stack smashing", "exited with status"};
	const char *ended = strstr(line, "was ended by signal ");

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strstr(line, words[i]))
			return true;
	if (!ended)
		return false;
	switch (atoi(ended + strlen("was ended by signal "))) {
	case SIGKILL:
	case SIGTERM:
	case SIGINT:
		return false;
	default:
		return true;
	}
}

static void scan_log(struct chaos *c, const char *name)
{
	char path[CHAOS_PATH + 300], *line = NULL;
	unsigned errors = 0;
	size_t cap = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", c->run, name);
	f = fopen(path, "re");
	while (f && getline(&line, &cap, f) > 0) {
		line[strcspn(line, "\n")] = '\0';
		if (is_crash(line))
			chaos_error(c, "%s: %.300s", name, line);
		else if (strstr(line, "\"level\":\"error\"") && ++errors <= 5)
			printf("# %s: %.300s\n", name, line);
	}
	free(line);
	if (f)
		fclose(f);
	if (errors > 5)
		printf("# %s: %u lines of level error in all\n", name, errors);
}

void resources_logs(struct chaos *c)
{
	DIR *dir = opendir(c->run);
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		size_t len = strlen(e->d_name);

		if (len > 4 && strcmp(e->d_name + len - 4, ".log") == 0)
			scan_log(c, e->d_name);
	}
	if (dir)
		closedir(dir);
}
