// SPDX-License-Identifier: Apache-2.0
/*
 * Latencies for bench/slow-line, one turn per call.
 *
 *	bench-slow-line get URL SIZE COUNT LEN SEED	ranged GETs at random aligned offsets, one after the other,
 *							over one connection
 *	bench-slow-line read FILE COUNT LEN SEED [SIZE]	the same by pread, in the first SIZE bytes
 *	bench-slow-line stream FILE...			reads each file in sequence, a thread each, until it is told to end
 *
 * get and read print "median p99 mean" in ms. stream prints "MB/s" when it gets SIGTERM.
 */
#include <curl/curl.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/measure.h"

#define STREAMS_MAX 256
#define STEP (1 << 20)

static size_t throw_away(char *data, size_t one, size_t len, void *arg)
{
	(void)data;
	*(size_t *)arg += one * len;
	return one * len;
}

static void print(double *ms, size_t n)
{
	double m = median(ms, n), sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += ms[i];
	printf("%.3f %.3f %.3f\n", m, ms[n * 99 / 100 < n ? n * 99 / 100 : n - 1], sum / (double)n);
}

static void get(const char *url, uint64_t size, size_t count, uint64_t len, uint64_t seed)
{
	uint32_t *places = shuffled((uint32_t)(size / len), seed);
	double *ms = calloc(count, sizeof(*ms));
	CURL *easy = curl_easy_init();
	size_t got;

	if (!ms || !easy)
		DIE("out of memory");
	if (count >= size / len)
		DIE("%s has no %zu places", url, count + 1);
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, throw_away);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, &got);
	for (size_t i = 0; i <= count; i++) {
		uint64_t at = places[i] * len;
		char range[64];
		double start = seconds_now();

		snprintf(range, sizeof(range), "%llu-%llu", (unsigned long long)at, (unsigned long long)(at + len - 1));
		curl_easy_setopt(easy, CURLOPT_RANGE, range);
		got = 0;
		if (curl_easy_perform(easy) != CURLE_OK || got != len)
			DIE("GET %s %s failed", url, range);
		if (i > 0) /* the first one makes the connection */
			ms[i - 1] = (seconds_now() - start) * 1000;
	}
	curl_easy_cleanup(easy);
	print(ms, count);
	free(ms);
}

static void read_some(const char *path, size_t count, uint64_t len, uint64_t seed, uint64_t size)
{
	double *ms = calloc(count, sizeof(*ms));
	char *buffer = malloc(len);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint32_t *places;
	struct stat st;

	if (!ms || !buffer || fd < 0 || fstat(fd, &st) < 0)
		DIE("cannot read '%s'", path);
	if (size == 0)
		size = (uint64_t)st.st_size;
	if (count > size / len)
		DIE("'%s' has no %zu places", path, count);
	places = shuffled((uint32_t)(size / len), seed);
	for (size_t i = 0; i < count; i++) {
		uint64_t at = places[i] * len;
		double start = seconds_now();

		if (pread(fd, buffer, len, (off_t)at) != (ssize_t)len)
			DIE("a read of '%s' failed", path);
		ms[i] = (seconds_now() - start) * 1000;
	}
	close(fd);
	free(buffer);
	print(ms, count);
	free(ms);
}

static _Atomic uint64_t streamed;
static _Atomic int nopen;

static void *stream_main(void *arg)
{
	char *buffer = malloc(STEP);
	int fd = open(arg, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (!buffer || fd < 0)
		DIE("cannot read '%s'", (char *)arg);
	atomic_fetch_add(&nopen, 1);
	while ((n = read(fd, buffer, STEP)) > 0)
		atomic_fetch_add(&streamed, (uint64_t)n);
	if (n < 0)
		DIE("a read of '%s' failed", (char *)arg);
	pause();
	return NULL;
}

static void stream(char **files, int n)
{
	double start = seconds_now();
	sigset_t set;
	int signal;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (int i = 0; i < n; i++) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, stream_main, files[i]) != 0)
			DIE("cannot start a thread");
	}
	sigwait(&set, &signal);
	printf("%.1f\n", (double)atomic_load(&streamed) / 1e6 / (seconds_now() - start));
}

int main(int argc, char **argv)
{
	if (argc == 7 && strcmp(argv[1], "get") == 0)
		get(argv[2], strtoull(argv[3], NULL, 10), strtoul(argv[4], NULL, 10), strtoull(argv[5], NULL, 10),
			strtoull(argv[6], NULL, 10));
	else if ((argc == 6 || argc == 7) && strcmp(argv[1], "read") == 0)
		read_some(argv[2], strtoul(argv[3], NULL, 10), strtoull(argv[4], NULL, 10),
			strtoull(argv[5], NULL, 10), argc == 7 ? strtoull(argv[6], NULL, 10) : 0);
	else if (argc > 2 && argc <= STREAMS_MAX + 2 && strcmp(argv[1], "stream") == 0)
		stream(argv + 2, argc - 2);
	else
		DIE("usage: see bench/slow_line.c");
	fflush(stdout);
	_exit(0);
}
