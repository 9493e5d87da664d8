/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reading side of bench/rivals: the same reads whoever serves the files.
 *
 *	bench-rivals sequential FILE
 *	bench-rivals random FILE READS BYTES SEED
 *	bench-rivals small DIR FILES PROCESSES SEED
 *
 * sequential: 1 MiB reads from start to end; prints MB/s. random: that many reads at aligned places, each place
 * once; prints MB/s, and the median and the mean of one read in milliseconds. small: DIR/00000 and so on in
 * shuffled order, each opened, read to its end and closed by one of the processes; prints files per second.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/measure.h"

#define BUFFER (1 << 20)

static uint64_t dice;

static uint64_t roll(uint64_t sides)
{
	dice = dice * 6364136223846793005ULL + 1442695040888963407ULL;
	return (dice >> 32) % sides;
}

/* The numbers below n in random order. */
static uint32_t *shuffled(uint32_t n)
{
	uint32_t *order = calloc(n, sizeof(*order));

	if (!order)
		DIE("no memory");
	for (uint32_t i = 0; i < n; i++) {
		uint32_t j = (uint32_t)roll(i + 1);

		order[i] = order[j];
		order[j] = i;
	}
	return order;
}

static int open_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		DIE("open '%s': %s", path, strerror(errno));
	return fd;
}

static void *new_buffer(size_t size)
{
	void *buffer = aligned_alloc(4096, (size + 4095) / 4096 * 4096);

	if (!buffer)
		DIE("no memory");
	return buffer;
}

static uint64_t read_to_end(const char *path, void *buffer)
{
	int fd = open_file(path);
	uint64_t sum = 0;
	ssize_t n;

	while ((n = read(fd, buffer, BUFFER)) > 0)
		sum += (uint64_t)n;
	if (n < 0)
		DIE("read '%s': %s", path, strerror(errno));
	close(fd);
	return sum;
}

static int sequential(char **argv)
{
	void *buffer = new_buffer(BUFFER);
	double start = seconds_now();
	uint64_t sum = read_to_end(argv[0], buffer);

	printf("%.1f\n", (double)sum / (seconds_now() - start) / 1e6);
	free(buffer);
	return 0;
}

static int random_reads(char **argv)
{
	uint32_t reads = (uint32_t)atoi(argv[1]), places;
	size_t len = strtoull(argv[2], NULL, 10);
	int fd = open_file(argv[0]);
	void *buffer = new_buffer(len);
	double *took = calloc(reads, sizeof(*took)), sum = 0;
	uint32_t *order;
	struct stat st;

	dice = strtoull(argv[3], NULL, 10);
	if (fstat(fd, &st) < 0 || !took)
		DIE("stat '%s': %s", argv[0], strerror(errno));
	places = (uint32_t)((uint64_t)st.st_size / len);
	if (reads == 0 || reads > places)
		DIE("'%s' has %u places", argv[0], places);
	order = shuffled(places);
	for (uint32_t i = 0; i < reads; i++) {
		double start = seconds_now();

		if (pread(fd, buffer, len, (off_t)(order[i] * (uint64_t)len)) != (ssize_t)len)
			DIE("read '%s': %s", argv[0], strerror(errno));
		took[i] = seconds_now() - start;
		sum += took[i];
	}
	printf("%.1f %.3f %.3f\n", (double)reads * (double)len / sum / 1e6, median(took, reads) * 1e3,
		sum / reads * 1e3);
	close(fd);
	free(order);
	free(took);
	free(buffer);
	return 0;
}

/* One of the processes: takes the next file from the counter that all share. */
static void read_small(const char *dir, const uint32_t *order, uint32_t n, _Atomic uint32_t *next)
{
	void *buffer = new_buffer(BUFFER);
	uint32_t i;

	while ((i = (*next)++) < n) {
		char path[PATH_MAX];

		snprintf(path, sizeof(path), "%s/%05u", dir, order[i]);
		if (read_to_end(path, buffer) == 0)
			DIE("'%s' is empty", path);
	}
	free(buffer);
}

static int small(char **argv)
{
	uint32_t n = (uint32_t)atoi(argv[1]), *order;
	int processes = atoi(argv[2]), status;
	_Atomic uint32_t *next = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	double start;

	if (next == MAP_FAILED)
		DIE("no memory");
	dice = strtoull(argv[3], NULL, 10);
	order = shuffled(n);
	start = seconds_now();
	for (int i = 0; i < processes; i++) {
		pid_t pid = fork();

		if (pid < 0)
			DIE("fork: %s", strerror(errno));
		if (pid == 0) {
			read_small(argv[0], order, n, next);
			_exit(0);
		}
	}
	for (int i = 0; i < processes; i++) {
		if (wait(&status) < 0 || status != 0)
			DIE("a reader failed");
	}
	printf("%.1f\n", n / (seconds_now() - start));
	free(order);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "sequential"))
		return sequential(argv + 2);
	if (argc == 6 && !strcmp(argv[1], "random"))
		return random_reads(argv + 2);
	if (argc == 6 && !strcmp(argv[1], "small"))
		return small(argv + 2);
	fprintf(stderr, "usage: bench-rivals sequential FILE | random FILE READS BYTES SEED | "
			"small DIR FILES PROCESSES SEED\n");
	return 2;
}
