/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compares a directory with a manifest: names, sizes and the sha256 of every file.
 *
 *	e2e-check-tree [--threads N] [--names-only | --sizes-only | --read-only] [--omit FILE]
 *[--no-walk]
 *		[--quiet] DIR MANIFEST
 *
 * The walk finds what is there (one thread, readdir and stat), N threads read and hash. Every
 * difference is one line: missing, unexpected, size, bytes, error. --omit names files (one per
 *line, escaped like the manifest) that may not be there. --no-walk opens the manifest's names
 *without ever listing a directory. --sizes-only stats, --read-only reads without hashing. The last
 *line is "N files, N bytes, T s, R MB/s, N differences"; exit code 1 when there are any.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "e2e/tools/manifest.h"

#define READ_SIZE (1 << 20)
#define SHOWN_MAX 50

enum work { WORK_HASH, WORK_READ, WORK_STAT, WORK_NAME };

struct file {
	char *path;
	uint64_t size;
	char sha[SHA256_TEXT];
	bool is_seen, is_omitted;
};

static struct file *files;
static size_t nfiles;
static size_t *table; /* open addressing over indices + 1 */
static size_t table_mask;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long differences;    /* under lock */
static size_t next_file;    /* under lock */
static uint64_t bytes_read; /* under lock */
static enum work work = WORK_HASH;
static bool does_walk = true;
static int root = -1;

static void differ(const char *kind, const char *path, const char *detail)
{
	pthread_mutex_lock(&lock);
	if (++differences <= SHOWN_MAX)
		fprintf(stderr, "%s: '%s'%s%s\n", kind, path, *detail ? ": " : "", detail);
	pthread_mutex_unlock(&lock);
}

static size_t hash(const char *path)
{
	uint64_t h = 14695981039346656037ULL;

	for (; *path; path++)
		h = (h ^ (unsigned char)*path) * 0x100000001b3ULL;
	return (size_t)(h ^ (h >> 29));
}

static struct file *find(const char *path)
{
	for (size_t i = hash(path);; i++) {
		size_t entry = table[i & table_mask];

		if (!entry)
			return NULL;
		if (!strcmp(files[entry - 1].path, path))
			return &files[entry - 1];
	}
}

static void load_manifest(const char *name)
{
	FILE *in = fopen(name, "re");
	char *line = NULL;
	size_t cap = 0, room = 0;
	ssize_t n;

	if (!in) {
		perror(name);
		exit(2);
	}
	while ((n = getline(&line, &cap, in)) > 0) {
		line[n - 1] = '\0';

		char *tab = strchr(line, '\t');
		char *second = tab ? strchr(tab + 1, '\t') : NULL;

		if (!second)
			continue;
		*tab = '\0';
		if (nfiles == room) {
			room = room ? room * 2 : 1024;
			files = realloc(files, room * sizeof(*files));
			if (!files)
				exit(2);
		}
		struct file *f = &files[nfiles++];

		*f = (struct file){.size = strtoull(tab + 1, NULL, 10)};
		manifest_unescape(line);
		f->path = strdup(line);
		snprintf(f->sha, sizeof(f->sha), "%s", second + 1);
	}
	free(line);
	fclose(in);

	size_t slots = 64;

	while (slots < nfiles * 2)
		slots *= 2;
	table = calloc(slots, sizeof(*table));
	table_mask = slots - 1;
	for (size_t i = 0; i < nfiles; i++) {
		size_t at = hash(files[i].path);

		while (table[at & table_mask])
			at++;
		table[at & table_mask] = i + 1;
	}
}

static void load_omitted(const char *name)
{
	FILE *in = fopen(name, "re");
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;

	if (!in) {
		perror(name);
		exit(2);
	}
	while ((n = getline(&line, &cap, in)) > 0) {
		line[n - 1] = '\0';
		manifest_unescape(line);

		struct file *f = find(line);

		if (f)
			f->is_omitted = true;
	}
	free(line);
	fclose(in);
}

/* ---- the walk ---- */

static void saw(const char *path, bool is_file)
{
	struct file *f = find(path);

	if (!f) {
		differ("unexpected", path, is_file ? "" : "not a file");
		return;
	}
	if (f->is_seen)
		differ("repeated", path, "");
	f->is_seen = true;
}

static void walk(int dir_fd, const char *prefix)
{
	DIR *dir = fdopendir(dir_fd);
	struct dirent *entry;

	if (!dir) {
		differ("error", prefix, strerror(errno));
		close(dir_fd);
		return;
	}
	errno = 0;
	while ((entry = readdir(dir))) {
		char path[4096];
		struct stat st;

		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		snprintf(path, sizeof(path), "%s%s%s", prefix, *prefix ? "/" : "", entry->d_name);
		if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
			differ("error", path, strerror(errno));
		} else if (S_ISDIR(st.st_mode)) {
			int fd = openat(dirfd(dir), entry->d_name,
				O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

			if (fd < 0)
				differ("error", path, strerror(errno));
			else
				walk(fd, path);
		} else {
			saw(path, S_ISREG(st.st_mode));
		}
		errno = 0;
	}
	if (errno)
		differ("error", prefix, strerror(errno));
	closedir(dir);
}

/* ---- the files ---- */

static void read_file(struct file *f, unsigned char *buffer, EVP_MD_CTX *ctx)
{
	int fd = openat(root, f->path, O_RDONLY | O_CLOEXEC);
	char sha[SHA256_TEXT] = "", detail[200];
	uint64_t total = 0;
	ssize_t n = 0;

	if (fd < 0) {
		differ("error", f->path, strerror(errno));
		return;
	}
	EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);
	while ((n = read(fd, buffer, READ_SIZE)) > 0) {
		total += (uint64_t)n;
		if (work == WORK_HASH)
			EVP_DigestUpdate(ctx, buffer, (size_t)n);
	}
	if (n < 0)
		differ("error", f->path, strerror(errno));
	close(fd);
	sha256_text(ctx, sha);
	if (n == 0 && total != f->size) {
		snprintf(detail, sizeof(detail), "read %llu bytes, expected %llu",
			(unsigned long long)total, (unsigned long long)f->size);
		differ("size", f->path, detail);
	} else if (n == 0 && work == WORK_HASH && strcmp(sha, f->sha) != 0) {
		differ("bytes", f->path, "sha256 differs");
	}
	pthread_mutex_lock(&lock);
	bytes_read += total;
	pthread_mutex_unlock(&lock);
}

static void check_file(struct file *f, unsigned char *buffer, EVP_MD_CTX *ctx)
{
	struct stat st;
	char detail[100];

	if (fstatat(root, f->path, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		bool is_known = f->is_omitted || (does_walk && !f->is_seen);

		if (!(is_known && errno == ENOENT))
			differ(errno == ENOENT ? "missing" : "error", f->path, strerror(errno));
		return;
	}
	if ((uint64_t)st.st_size != f->size) {
		snprintf(detail, sizeof(detail), "stat says %llu bytes, expected %llu",
			(unsigned long long)st.st_size, (unsigned long long)f->size);
		differ("size", f->path, detail);
	}
	if (work <= WORK_READ)
		read_file(f, buffer, ctx);
}

static void *check_files(void *arg)
{
	unsigned char *buffer = malloc(READ_SIZE);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();

	for (;;) {
		pthread_mutex_lock(&lock);

		size_t i = next_file++;

		pthread_mutex_unlock(&lock);
		if (i >= nfiles || !buffer || !ctx)
			break;
		check_file(&files[i], buffer, ctx);
	}
	EVP_MD_CTX_free(ctx);
	free(buffer);
	return arg;
}

static void check_all(int nthreads)
{
	pthread_t threads[256];

	for (int i = 0; i < nthreads; i++) {
		if (pthread_create(&threads[i], NULL, check_files, NULL)) {
			fprintf(stderr, "check-tree: no thread\n");
			exit(2);
		}
	}
	for (int i = 0; i < nthreads; i++)
		pthread_join(threads[i], NULL);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"threads", required_argument, NULL, 't'},
		{"omit", required_argument, NULL, 'o'},
		{"names-only", no_argument, NULL, 'n'},
		{"sizes-only", no_argument, NULL, 's'},
		{"read-only", no_argument, NULL, 'r'},
		{"no-walk", no_argument, NULL, 'w'},
		{NULL, 0, NULL, 0},
	};
	const char *omit = NULL;
	int c, threads = 4;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 't':
			threads = atoi(optarg);
			break;
		case 'o':
			omit = optarg;
			break;
		case 'n':
			work = WORK_NAME;
			break;
		case 's':
			work = WORK_STAT;
			break;
		case 'r':
			work = WORK_READ;
			break;
		case 'w':
			does_walk = false;
			break;
		default:
			return 2;
		}
	}
	if (argc - optind != 2 || threads < 1 || threads > 256) {
		fprintf(stderr, "usage: e2e-check-tree [...] DIR MANIFEST\n");
		return 2;
	}
	load_manifest(argv[optind + 1]);
	if (omit)
		load_omitted(omit);
	root = open(argv[optind], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0) {
		perror(argv[optind]);
		return 2;
	}
	double start = now();

	if (does_walk) {
		walk(openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "");
		for (size_t i = 0; i < nfiles; i++) {
			if (!files[i].is_seen && !files[i].is_omitted)
				differ("missing", files[i].path, "not in any listing");
		}
	}
	if (work != WORK_NAME)
		check_all(threads);

	double seconds = now() - start;

	printf("%zu files, %llu bytes, %.3f s, %.0f MB/s, %ld differences\n", nfiles,
		(unsigned long long)bytes_read, seconds,
		seconds > 0 ? (double)bytes_read / seconds / 1e6 : 0.0, differences);
	return differences ? 1 : 0;
}
