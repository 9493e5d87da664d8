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
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/client.h"

#define CONNECTIONS_MAX 256
#define PROCESSES_MAX 64
#define SIZE_MAX_BYTES (16 << 20)

static unsigned nfiles = 10000, nconnections = 16, nprocesses = 8;
static size_t size = 100 * 1024;
static uint32_t *order;
static unsigned next_file;
static const char *out, *place;

struct transfer {
	struct client_slot slot;
	char *data;
	size_t len;
	unsigned file;
};

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

static bool assign(struct client_slot *s)
{
	struct transfer *t = (struct transfer *)s;
	char url[4096];

	if (next_file >= nfiles)
		return false;
	t->file = order[next_file++];
	t->len = 0;
	snprintf(url, sizeof(url), "%s/%05u", place, t->file);
	curl_easy_setopt(s->easy, CURLOPT_URL, url);
	return true;
}

static const char *finish(struct client_slot *s, long status)
{
	struct transfer *t = (struct transfer *)s;

	if (status != 200 || t->len != size)
		return "not the whole file";
	if (out)
		keep(t);
	return NULL;
}

static struct client_slot *slot(unsigned i)
{
	static struct transfer transfers[CONNECTIONS_MAX];

	if (!transfers[i].data)
		transfers[i].data = malloc(size);
	return &transfers[i].slot;
}

static int get(void)
{
	struct client client = {nconnections, slot, take, assign, finish};
	double cpu, start;

	curl_global_init(CURL_GLOBAL_ALL);
	cpu = cpu_seconds(RUSAGE_SELF);
	start = seconds_now();
	client_run(&client);
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
	order = shuffled(nfiles, seed);
	if (!strcmp(argv[optind], "get"))
		return get();
	if (!strcmp(argv[optind], "read"))
		return read_all();
	DIE("get or read");
}
