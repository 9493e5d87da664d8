/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the same files natively and through a mount, in turns, all of it cached, and compares.
 *
 *	bench-cached-read --native DIR --mount DIR [--rounds N] [--evict]
 *
 * Both directories hold `big` and `part-00` ... `part-31`. Each round of a test runs it on both
 *sides, the one that goes first changing from round to round; a figure is the median of the rounds'
 *ratios. Files are opened afresh in each round. Nothing is dropped between rounds; with --evict,
 *instead, the mount's own pages are dropped (posix_fadvise) before each of its turns, so that reads
 *reach the server. The last two lines are "random4k R" and "ratio R", the worst of the others.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/measure.h"

#define PARTS 32
#define STEP (1 << 20)
#define ROUNDS_MAX 51

struct side {
	const char *dir;
	bool is_evicted;
};

static int open_file(const struct side *side, const char *name, off_t *ret_size)
{
	char path[PATH_MAX];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", side->dir, name);

	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0)
		DIE("open '%s': %s", path, strerror(errno));
	*ret_size = st.st_size;
	return fd;
}

static void evict(const struct side *side, const char *name)
{
	off_t size;
	int fd = open_file(side, name, &size);

	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
}

static void read_at(int fd, void *buffer, size_t len, off_t at)
{
	for (size_t got = 0; got < len;) {
		ssize_t n = pread(fd, (char *)buffer + got, len - got, at + (off_t)got);

		if (n <= 0)
			DIE("read: %s", n < 0 ? strerror(errno) : "file too short");
		got += (size_t)n;
	}
}

/* ---- the tests: each returns bytes read; the clock is the caller's ---- */

static uint64_t sequential(const struct side *side, const char *name)
{
	off_t size;
	int fd = open_file(side, name, &size);
	void *buffer = aligned_alloc(4096, STEP);

	for (off_t at = 0; at + STEP <= size; at += STEP)
		read_at(fd, buffer, STEP, at);
	free(buffer);
	close(fd);
	return (uint64_t)size / STEP * STEP;
}

static uint64_t sequential_1(const struct side *side)
{
	return sequential(side, "big");
}

struct reader {
	const struct side *side;
	char name[24];
	uint64_t bytes;
	pthread_t thread;
};

static void *read_part(void *arg)
{
	struct reader *r = arg;

	for (int i = 0; i < 4; i++)
		r->bytes += sequential(r->side, r->name);
	return NULL;
}

static uint64_t sequential_32(const struct side *side)
{
	struct reader readers[PARTS];
	uint64_t bytes = 0;

	for (int i = 0; i < PARTS; i++) {
		readers[i] = (struct reader){.side = side};
		snprintf(readers[i].name, sizeof(readers[i].name), "part-%02d", i);
		if (pthread_create(&readers[i].thread, NULL, read_part, &readers[i]))
			DIE("no thread");
	}
	for (int i = 0; i < PARTS; i++) {
		pthread_join(readers[i].thread, NULL);
		bytes += readers[i].bytes;
	}
	return bytes;
}

static uint64_t random_reads(const struct side *side, size_t len, size_t count)
{
	off_t size;
	int fd = open_file(side, "big", &size);
	void *buffer = aligned_alloc(4096, len);
	uint64_t state = 88172645463325252ULL, slots = (uint64_t)size / len;

	for (size_t i = 0; i < count; i++) {
		/* xorshift: the same places on both sides */
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		read_at(fd, buffer, len, (off_t)(state % slots * len));
	}
	free(buffer);
	close(fd);
	return (uint64_t)len * count;
}

static uint64_t random_4k(const struct side *side)
{
	return random_reads(side, 4096, 400000);
}

static uint64_t random_4m(const struct side *side)
{
	return random_reads(side, 4 << 20, 400);
}

static uint64_t mapped(const struct side *side)
{
	off_t size;
	int fd = open_file(side, "big", &size);
	const uint64_t *words = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0);
	volatile uint64_t sum = 0;

	if (words == MAP_FAILED)
		DIE("mmap: %s", strerror(errno));
	uint64_t local = 0;

	/* one word per cache line */
	for (size_t i = 0; i < (size_t)size / 8; i += 8)
		local += words[i];
	sum = local;
	(void)sum;
	munmap((void *)words, (size_t)size);
	close(fd);
	return (uint64_t)size;
}

static const struct test {
	const char *name;
	uint64_t (*run)(const struct side *side);
	bool stands_apart; /* 4 KiB random is told by itself */
} tests[] = {
	{"sequential, 1 reader", sequential_1, false},
	{"sequential, 32 readers", sequential_32, false},
	{"random 4 MiB", random_4m, false},
	{"mmap", mapped, false},
	{"random 4 KiB", random_4k, true},
};
#define NTESTS (sizeof(tests) / sizeof(tests[0]))

static double one_turn(const struct test *test, const struct side *side)
{
	if (side->is_evicted) {
		evict(side, "big");
		for (int i = 0; i < PARTS; i++) {
			char name[24];

			snprintf(name, sizeof(name), "part-%02d", i);
			evict(side, name);
		}
	}
	double start = seconds_now();
	uint64_t bytes = test->run(side);

	return (double)bytes / (seconds_now() - start) / 1e6;
}

static double compare(const struct test *test, const struct side sides[2], int rounds)
{
	double speeds[2][ROUNDS_MAX], ratios[ROUNDS_MAX];

	/* one turn each for nothing: pages in, frequency up */
	one_turn(test, &sides[0]);
	one_turn(test, &sides[1]);
	for (int i = 0; i < rounds; i++) {
		int first = i % 2;

		speeds[first][i] = one_turn(test, &sides[first]);
		speeds[!first][i] = one_turn(test, &sides[!first]);
		ratios[i] = speeds[1][i] / speeds[0][i];
	}
	double ratio = median(ratios, (size_t)rounds);

	printf("%-24s %10.0f %10.0f %8.3f  [%.3f - %.3f]\n", test->name,
		median(speeds[0], (size_t)rounds), median(speeds[1], (size_t)rounds), ratio,
		ratios[0], ratios[rounds - 1]);
	fflush(stdout);
	return ratio;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"native", required_argument, NULL, 'n'},
		{"mount", required_argument, NULL, 'm'},
		{"rounds", required_argument, NULL, 'r'},
		{"evict", no_argument, NULL, 'e'},
		{NULL, 0, NULL, 0},
	};
	struct side sides[2] = {{NULL, false}, {NULL, false}};
	double worst = 1e9, apart = 1e9;
	int c, rounds = 7;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'n':
			sides[0].dir = optarg;
			break;
		case 'm':
			sides[1].dir = optarg;
			break;
		case 'r':
			rounds = atoi(optarg);
			break;
		case 'e':
			sides[1].is_evicted = true;
			break;
		default:
			return 2;
		}
	}
	if (!sides[0].dir || !sides[1].dir || rounds < 1 || rounds > ROUNDS_MAX) {
		fprintf(stderr, "usage: bench-cached-read --native DIR --mount DIR [...]\n");
		return 2;
	}
	printf("%-24s %10s %10s %8s\n", "MB/s, medians", "native", "mount", "ratio");
	for (size_t i = 0; i < NTESTS; i++) {
		double ratio = compare(&tests[i], sides, rounds);

		if (tests[i].stands_apart)
			apart = ratio;
		else if (ratio < worst)
			worst = ratio;
	}
	printf("random4k %.3f\nratio %.3f\n", apart, worst);
	return 0;
}
