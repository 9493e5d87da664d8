/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two sides of the cold benchmark, one turn per call; bench/cold-read runs them in rounds.
 *
 *	bench-cold-read get --connections N --range BYTES --size BYTES [--out DIR] URL...
 *	bench-cold-read read [--in-turn] FILE...
 *
 * get: what a tuned client can do: ranged GETs of all URLs (each --size bytes) from one queue over
 *N connections, one libcurl multi with 512 KiB buffers, written to preallocated files in DIR, or
 *thrown away. read: one thread per file, or one that reads them in turn; 1 MiB reads. Both print "MB/s
 *CPU-seconds" of their own.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <pthread.h>
#include <unistd.h>

#include "bench/client.h"

#define CONNECTIONS_MAX 64
#define FILES_MAX 64

static uint64_t size, range = 8 << 20, next_range;
static int nfiles, fds[FILES_MAX];
static char **urls;

struct transfer {
	struct client_slot slot;
	int fd;
	uint64_t at, end;
};

static size_t take(char *data, size_t one, size_t len, void *arg)
{
	struct transfer *t = arg;

	if (len > t->end - t->at)
		return 0;
	if (t->fd >= 0 && pwrite(t->fd, data, len, (off_t)t->at) != (ssize_t)len)
		return 0;
	t->at += len;
	return len * one;
}

/* Gives the transfer the next range of the queue, file by file; false when there is none. */
static bool assign(struct client_slot *s)
{
	struct transfer *t = (struct transfer *)s;
	uint64_t per_file = (size + range - 1) / range;

	if (next_range >= per_file * (uint64_t)nfiles)
		return false;

	int file = (int)(next_range / per_file);
	char text[64];

	t->at = next_range % per_file * range;
	t->end = t->at + range < size ? t->at + range : size;
	t->fd = fds[file];
	next_range++;
	snprintf(text, sizeof(text), "%llu-%llu", (unsigned long long)t->at,
		(unsigned long long)t->end - 1);
	curl_easy_setopt(s->easy, CURLOPT_URL, urls[file]);
	curl_easy_setopt(s->easy, CURLOPT_RANGE, text);
	return true;
}

static const char *finish(struct client_slot *s, long status)
{
	struct transfer *t = (struct transfer *)s;

	return status != 206 || t->at != t->end ? "not the whole range" : NULL;
}

static struct client_slot *slot(unsigned i)
{
	static struct transfer transfers[CONNECTIONS_MAX];

	return &transfers[i].slot;
}

static void prepare(const char *dir)
{
	for (int i = 0; i < nfiles; i++) {
		char path[PATH_MAX];

		fds[i] = -1;
		if (!dir)
			continue;
		snprintf(path, sizeof(path), "%s/out-%d", dir, i);
		fds[i] = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

		int code = fds[i] < 0 ? errno : posix_fallocate(fds[i], 0, (off_t)size);

		if (code)
			DIE("preallocate '%s': %s", path, strerror(code));
		unlink(path);
	}
}

static int get(int argc, char **argv)
{
	static const struct option options[] = {
		{"connections", required_argument, NULL, 'c'},
		{"range", required_argument, NULL, 'r'},
		{"size", required_argument, NULL, 's'},
		{"out", required_argument, NULL, 'o'},
		{NULL, 0, NULL, 0},
	};
	const char *out = NULL;
	int c, connections = 4;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			connections = atoi(optarg);
			break;
		case 'r':
			range = strtoull(optarg, NULL, 10);
			break;
		case 's':
			size = strtoull(optarg, NULL, 10);
			break;
		case 'o':
			out = optarg;
			break;
		default:
			return 2;
		}
	}
	urls = argv + optind;
	nfiles = argc - optind;
	if (!size || !range || nfiles < 1 || nfiles > FILES_MAX || connections < 1 ||
		connections > CONNECTIONS_MAX)
		DIE("get: bad arguments");
	curl_global_init(CURL_GLOBAL_ALL);
	prepare(out);

	double cpu = cpu_seconds(RUSAGE_SELF), start = seconds_now();

	client_run(&(struct client){(unsigned)connections, slot, take, assign, finish});

	double took = seconds_now() - start;

	printf("%.1f %.3f\n", (double)size * nfiles / took / 1e6, cpu_seconds(RUSAGE_SELF) - cpu);
	return 0;
}

static void *read_whole(void *arg)
{
	const char *path = arg;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	void *buffer = aligned_alloc(4096, 1 << 20);
	uint64_t *total = calloc(1, sizeof(*total));
	ssize_t n = -1;

	if (fd >= 0) {
		while ((n = read(fd, buffer, 1 << 20)) > 0)
			*total += (uint64_t)n;
	}
	if (n < 0)
		DIE("read '%s': %s", path, strerror(errno));
	close(fd);
	free(buffer);
	return total;
}

/* One after the other, by this thread; the sum of their bytes. */
static uint64_t read_in_turn(int n, char **paths)
{
	uint64_t total = 0;

	for (int i = 0; i < n; i++) {
		uint64_t *bytes = read_whole(paths[i]);

		total += *bytes;
		free(bytes);
	}
	return total;
}

static uint64_t read_at_once(int n, char **paths)
{
	pthread_t threads[FILES_MAX];
	uint64_t total = 0;

	for (int i = 0; i < n; i++) {
		if (pthread_create(&threads[i], NULL, read_whole, paths[i]))
			DIE("no thread");
	}
	for (int i = 0; i < n; i++) {
		void *bytes;

		pthread_join(threads[i], &bytes);
		total += *(uint64_t *)bytes;
		free(bytes);
	}
	return total;
}

static int read_files(int argc, char **argv)
{
	bool is_in_turn = argc > 1 && !strcmp(argv[1], "--in-turn");
	char **paths = argv + 1 + is_in_turn;
	uint64_t total;
	int n = argc - 1 - is_in_turn;

	if (n < 1 || n > FILES_MAX)
		DIE("read: bad arguments");

	double cpu = cpu_seconds(RUSAGE_SELF), start = seconds_now();

	total = is_in_turn ? read_in_turn(n, paths) : read_at_once(n, paths);
	printf("%.1f %.3f\n", (double)total / (seconds_now() - start) / 1e6, cpu_seconds(RUSAGE_SELF) - cpu);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "get"))
		return get(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "read"))
		return read_files(argc - 1, argv + 1);
	fprintf(stderr, "usage: bench-cold-read get|read ...\n");
	return 2;
}
