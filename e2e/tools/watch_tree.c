/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the files of a manifest again and again, checks every byte, and times every operation, until it is told
 * to end (SIGTERM or SIGINT) or the time is over.
 *
 *	e2e-watch-tree [--threads N] [--seconds N] DIR MANIFEST
 *
 * A round of a thread: a file chosen at random is opened, stat'ed, read in pieces, hashed and closed; its
 * pages are dropped, so that the next round asks the file system again. Every tenth round lists the
 * file's directory. What went wrong is a line each (the first 50). A line "at N s: N operations" comes each
 * second; the last line is "operations N errors N wrong N longest_ms N WHAT 'FILE'"; exit code 1 when something was
 * wrong, or nothing was read.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "e2e/tools/manifest.h"

#define PIECE (256 << 10)
#define SHOWN_MAX 50

struct file {
	char *path;
	uint64_t size;
	char sha[SHA256_TEXT];
};

static struct file *files;
static size_t nfiles;
static int root = -1;
static atomic_bool is_over;
static _Atomic uint64_t operations, errors, wrong;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t longest_ns;	       /* under lock, as its words */
static const char *longest_what = "none", *longest_path = "";

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void complain(_Atomic uint64_t *count, const char *what, const char *path, const char *why)
{
	if (atomic_fetch_add(count, 1) < SHOWN_MAX) {
		printf("%s '%s': %s\n", what, path, why);
		fflush(stdout);
	}
}

/* The end of an operation that began at start_ns; is_good: it did what it should, or errno says why not. */
static bool done(const char *what, const char *path, int64_t start_ns, bool is_good)
{
	int64_t took_ns = now_ns() - start_ns;

	if (!is_good)
		complain(&errors, what, path, strerror(errno));
	atomic_fetch_add(&operations, 1);
	pthread_mutex_lock(&lock);
	if (took_ns > longest_ns) {
		longest_ns = took_ns;
		longest_what = what;
		longest_path = path;
	}
	pthread_mutex_unlock(&lock);
	return is_good;
}

static void read_file(int fd, const struct file *f, unsigned char *buffer, EVP_MD_CTX *ctx)
{
	char sha[SHA256_TEXT];
	uint64_t total = 0;
	ssize_t n;

	EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);
	do {
		int64_t start = now_ns();

		n = pread(fd, buffer, PIECE, (off_t)total);
		if (!done("read", f->path, start, n >= 0))
			return;
		EVP_DigestUpdate(ctx, buffer, (size_t)n);
		total += (uint64_t)n;
	} while (n > 0);
	sha256_text(ctx, sha);
	if (total != f->size || strcmp(sha, f->sha) != 0)
		complain(&wrong, "wrong", f->path, total != f->size ? "its size" : "its bytes");
}

static void check_file(const struct file *f, unsigned char *buffer, EVP_MD_CTX *ctx)
{
	int64_t start = now_ns();
	int fd = openat(root, f->path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (!done("open", f->path, start, fd >= 0))
		return;
	start = now_ns();
	if (done("stat", f->path, start, fstat(fd, &st) == 0) && (uint64_t)st.st_size != f->size)
		complain(&wrong, "wrong", f->path, "its stat'ed size");
	read_file(fd, f, buffer, ctx);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
}

static void list_directory(const struct file *f)
{
	const char *slash = strrchr(f->path, '/');
	char *directory = slash ? strndup(f->path, (size_t)(slash - f->path)) : strdup(".");
	int64_t start = now_ns();
	int fd = directory ? openat(root, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	bool is_seen = false;
	struct dirent *e;

	if (done("opendir", f->path, start, dir != NULL)) {
		start = now_ns();
		errno = 0;
		while ((e = readdir(dir)))
			is_seen |= strcmp(e->d_name, slash ? slash + 1 : f->path) == 0;
		if (done("readdir", f->path, start, errno == 0) && !is_seen)
			complain(&wrong, "wrong", f->path, "missing in its directory");
		closedir(dir);
	}
	free(directory);
}

static void *watch(void *arg)
{
	uint64_t state = 0x9e3779b97f4a7c15u * ((uintptr_t)arg + 1);
	unsigned char *buffer = malloc(PIECE);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();

	for (unsigned round = 0; !is_over; round++) {
		const struct file *f;

		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		f = &files[state % nfiles];
		check_file(f, buffer, ctx);
		if (round % 10 == 0)
			list_directory(f);
	}
	EVP_MD_CTX_free(ctx);
	free(buffer);
	return NULL;
}

static void load_manifest(const char *path)
{
	FILE *in = fopen(path, "re");
	char *line = NULL;
	size_t cap = 0, room = 0;

	while (in && getline(&line, &cap, in) > 0) {
		char *size = strchr(line, '\t'), *sha = size ? strchr(size + 1, '\t') : NULL;

		if (!sha)
			continue;
		*size++ = *sha++ = '\0';
		sha[strcspn(sha, "\n")] = '\0';
		if (nfiles == room) {
			room = room ? 2 * room : 1024;
			files = realloc(files, room * sizeof(*files));
		}
		manifest_unescape(line);
		files[nfiles] = (struct file){.path = strdup(line), .size = strtoull(size, NULL, 10)};
		snprintf(files[nfiles].sha, SHA256_TEXT, "%s", sha);
		nfiles++;
	}
	free(line);
	if (in)
		fclose(in);
	if (nfiles == 0) {
		fprintf(stderr, "watch-tree: manifest '%s': nothing in it\n", path);
		exit(2);
	}
}

/* Until a signal comes or the time is over, a line a second. */
static void wait_for_end(const sigset_t *signals, long seconds)
{
	struct timespec second = {.tv_sec = 1};

	for (long t = 1; sigtimedwait(signals, NULL, &second) < 0 && (seconds <= 0 || t < seconds); t++) {
		printf("at %ld s: %llu operations\n", t, (unsigned long long)operations);
		fflush(stdout);
	}
	is_over = true;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"threads", required_argument, NULL, 't'}, {"seconds", required_argument, NULL, 's'}, {0}};
	long nthreads = 2, seconds = 0;
	pthread_t threads[64];
	sigset_t signals;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 't')
			nthreads = strtol(optarg, NULL, 10);
		else if (c == 's')
			seconds = strtol(optarg, NULL, 10);
	}
	if (optind + 2 != argc || nthreads < 1 || nthreads > 64) {
		fprintf(stderr, "usage: e2e-watch-tree [--threads N] [--seconds N] DIR MANIFEST\n");
		return 2;
	}
	load_manifest(argv[optind + 1]);
	root = open(argv[optind], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0) {
		fprintf(stderr, "watch-tree: '%s': %s\n", argv[optind], strerror(errno));
		return 2;
	}
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	pthread_sigmask(SIG_BLOCK, &signals, NULL); /* the threads' too */
	for (intptr_t i = 0; i < nthreads; i++)
		pthread_create(&threads[i], NULL, watch, (void *)i);
	wait_for_end(&signals, seconds);
	for (long i = 0; i < nthreads; i++)
		pthread_join(threads[i], NULL);
	printf("operations %llu errors %llu wrong %llu longest_ms %lld %s '%s'\n", (unsigned long long)operations,
		(unsigned long long)errors, (unsigned long long)wrong, (long long)(longest_ns / 1000000), longest_what,
		longest_path);
	return errors || wrong || !operations;
}
