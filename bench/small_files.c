/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two sides of the small-files benchmark, one turn per call; bench/small-files runs them in rounds.
 *
 *	bench-small-files get --connections N --files N --size BYTES --seed N [--out DIR] URL
 *	bench-small-files read --processes N --files N --size BYTES --seed N DIR
 *
 * The files are named 00000, 00001 ... and each turn takes them in an order of its own. get: what a tuned client
 * can do: a GET for each over N connections, one libcurl multi with 512 KiB buffers; each answer goes into a file
 * of its own in DIR by one write, or is thrown away. read: N processes that share the files; open, read whole,
 * close. Both print "files/s CPU-seconds", theirs.
 */
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/measure.h"

#define BUFFER (512 * 1024)
#define CONNECTIONS_MAX 256
#define PROCESSES_MAX 64
#define SIZE_MAX_BYTES (16 << 20)

static unsigned nfiles = 10000, nconnections = 16, nprocesses = 8;
static size_t size = 100 * 1024;
static unsigned *order, next_file;
static const char *out, *place;

struct transfer {
	CURL *easy;
	char *data;
	size_t len;
	unsigned file;
};

static double cpu_seconds(int who)
{
	struct rusage u;

	getrusage(who, &u);
	return (double)u.ru_utime.tv_sec + (double)u.ru_utime.tv_usec / 1e6 + (double)u.ru_stime.tv_sec +
	       (double)u.ru_stime.tv_usec / 1e6;
}

static void shuffle(unsigned seed)
{
	uint64_t state = seed * 2654435761ULL + 88172645463325252ULL;

	order = calloc(nfiles, sizeof(*order));
	for (unsigned i = 0; i < nfiles; i++) {
		unsigned j;

		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		j = (unsigned)(state % (i + 1));
		order[i] = order[j];
		order[j] = i;
	}
}

/* ---- the client ---- */

static size_t take(char *data, size_t one, size_t len, void *arg)
{
	struct transfer *t = arg;

	if (len > size - t->len)
		return 0;
	if (out)
		memcpy(t->data + t->len, data, len);
	t->len += len;
	return len * one;
}

static void keep(const struct transfer *t)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/%05u", out, t->file);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, t->data, t->len) != (ssize_t)t->len)
		DIE("write '%s': %s", path, strerror(errno));
	close(fd);
}

static bool assign(struct transfer *t)
{
	char url[4096];

	if (next_file >= nfiles)
		return false;
	t->file = order[next_file++];
	t->len = 0;
	snprintf(url, sizeof(url), "%s/%05u", place, t->file);
	curl_easy_setopt(t->easy, CURLOPT_URL, url);
	return true;
}

static void finish_one(CURLM *multi, CURLMsg *message)
{
	struct transfer *t = NULL;
	long status = 0;

	curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &t);
	curl_easy_getinfo(message->easy_handle, CURLINFO_RESPONSE_CODE, &status);
	if (message->data.result != CURLE_OK || status != 200 || t->len != size)
		DIE("GET: HTTP %ld, %s", status, curl_easy_strerror(message->data.result));
	if (out)
		keep(t);
	curl_multi_remove_handle(multi, t->easy);
	if (assign(t))
		curl_multi_add_handle(multi, t->easy);
}

static void fetch_all(void)
{
	static struct transfer transfers[CONNECTIONS_MAX];
	CURLM *multi = curl_multi_init();
	int running = 0;

	for (unsigned i = 0; i < nconnections; i++) {
		struct transfer *t = &transfers[i];

		t->easy = curl_easy_init();
		t->data = malloc(size);
		curl_easy_setopt(t->easy, CURLOPT_BUFFERSIZE, (long)BUFFER);
		curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, take);
		curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
		curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t);
		curl_easy_setopt(t->easy, CURLOPT_NOSIGNAL, 1L);
		if (assign(t))
			curl_multi_add_handle(multi, t->easy);
	}
	do {
		CURLMsg *message;
		int left;

		curl_multi_perform(multi, &running);
		while ((message = curl_multi_info_read(multi, &left))) {
			if (message->msg == CURLMSG_DONE) {
				finish_one(multi, message);
				running = 1;
			}
		}
		if (running)
			curl_multi_poll(multi, NULL, 0, 1000, NULL);
	} while (running);
	for (unsigned i = 0; i < nconnections; i++) {
		curl_easy_cleanup(transfers[i].easy);
		free(transfers[i].data);
	}
	curl_multi_cleanup(multi);
}

static int get(void)
{
	double cpu, start;

	curl_global_init(CURL_GLOBAL_ALL);
	cpu = cpu_seconds(RUSAGE_SELF);
	start = seconds_now();
	fetch_all();
	printf("%.0f %.3f\n", nfiles / (seconds_now() - start), cpu_seconds(RUSAGE_SELF) - cpu);
	return 0;
}

/* ---- the readers ---- */

static void read_one(int dir, unsigned file, char *buffer)
{
	char name[16];
	size_t got = 0;
	ssize_t n = 1;
	int fd;

	snprintf(name, sizeof(name), "%05u", file);
	fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && got < size && n > 0) {
		n = read(fd, buffer + got, size - got);
		got += n > 0 ? (size_t)n : 0;
	}
	if (got != size)
		DIE("read '%s/%s': %zu bytes, %s", place, name, got, strerror(errno));
	close(fd);
}

static void be_reader(unsigned number, int go)
{
	char *buffer = malloc(size), byte;
	int dir = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0)
		DIE("open '%s': %s", place, strerror(errno));
	if (read(go, &byte, 1) < 0)
		DIE("wait: %s", strerror(errno));
	for (unsigned i = number; i < nfiles; i += nprocesses)
		read_one(dir, order[i], buffer);
	_exit(0);
}

static int read_all(void)
{
	int go[2], status, bad = 0;
	double start;

	if (pipe(go) < 0)
		DIE("pipe: %s", strerror(errno));
	for (unsigned i = 0; i < nprocesses; i++) {
		if (fork() == 0) {
			close(go[1]);
			be_reader(i, go[0]);
		}
	}
	start = seconds_now();
	close(go[1]);
	for (unsigned i = 0; i < nprocesses; i++)
		bad |= wait(&status) < 0 || status != 0;
	if (bad)
		return 1;
	printf("%.0f %.3f\n", nfiles / (seconds_now() - start), cpu_seconds(RUSAGE_CHILDREN));
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"connections", required_argument, NULL, 'c'},
		{"processes", required_argument, NULL, 'p'},
		{"files", required_argument, NULL, 'f'},
		{"size", required_argument, NULL, 's'},
		{"seed", required_argument, NULL, 'r'},
		{"out", required_argument, NULL, 'o'},
		{NULL, 0, NULL, 0},
	};
	unsigned seed = 1;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			nconnections = (unsigned)atoi(optarg);
			break;
		case 'p':
			nprocesses = (unsigned)atoi(optarg);
			break;
		case 'f':
			nfiles = (unsigned)atoi(optarg);
			break;
		case 's':
			size = strtoull(optarg, NULL, 10);
			break;
		case 'r':
			seed = (unsigned)atoi(optarg);
			break;
		case 'o':
			out = optarg;
			break;
		default:
			return 2;
		}
	}
	if (argc - optind != 2 || !nfiles || nfiles > 100000 || !size || size > SIZE_MAX_BYTES || !nconnections ||
		nconnections > CONNECTIONS_MAX || !nprocesses || nprocesses > PROCESSES_MAX)
		DIE("bad arguments");
	place = argv[optind + 1];
	shuffle(seed);
	if (!strcmp(argv[optind], "get"))
		return get();
	if (!strcmp(argv[optind], "read"))
		return read_all();
	DIE("get or read");
}
