/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes a tree of files that is the same for the same seed, and writes down what it made.
 *
 *	e2e-make-tree --out DIR --manifest FILE [--index FILE] [--seed N] [--files N] [--big BYTES]
 *		[--many N] [--plain-names]
 *
 *	many/     a directory of N entries (10,000)
 *	sizes/    sizes around the edges of pages, blocks and GETs, up to --big (1 GiB, with holes)
 *	names/    names that trip programs
 *	deep/     a chain of directories
 *	small/    the rest of N files (20,000)
 *
 * --index writes the JSON lines that an https: origin reads, with the ETag nginx gives.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include "e2e/tools/manifest.h"

#define CHUNK (1 << 20)

static FILE *manifest, *index_file;
static uint64_t seed = 1;
static long files_made;
static unsigned char chunk[CHUNK];

static void die(const char *what, const char *subject)
{
	fprintf(stderr, "make-tree: %s '%s': %s\n", what, subject, strerror(errno));
	exit(1);
}

static uint64_t next(uint64_t *state)
{
	/* splitmix64: one multiply-xor chain per number, good enough and never zero-stuck */
	uint64_t z = (*state += 0x9e3779b97f4a7c15ULL);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

static uint64_t hash_name(const char *path)
{
	uint64_t h = seed * 0x100000001b3ULL + 14695981039346656037ULL;

	for (; *path; path++)
		h = (h ^ (unsigned char)*path) * 0x100000001b3ULL;
	return h;
}

static void fill(uint64_t *state, size_t len)
{
	for (size_t i = 0; i < len; i += 8) {
		uint64_t v = next(state);

		memcpy(chunk + i, &v, 8);
	}
}

static void write_index(const char *path, uint64_t size, int64_t mtime)
{
	if (!index_file)
		return;
	fputs("{\"key\":\"", index_file);
	for (const char *p = path; *p; p++) {
		unsigned char c = (unsigned char)*p;

		if (c < 0x20 || c == '"' || c == '\\' || c == 0x7f)
			fprintf(index_file, "\\u%04x", c);
		else
			fputc(c, index_file);
	}
	fprintf(index_file, "\",\"size\":%llu,\"mtime\":%lld,\"etag\":\"\\\"%llx-%llx\\\"\"}\n",
		(unsigned long long)size, (long long)mtime, (unsigned long long)mtime,
		(unsigned long long)size);
}

/* Writes one file of pseudo-random bytes; in a large one every seventh MiB is a hole. */
static void make_file(const char *path, uint64_t size)
{
	uint64_t state = hash_name(path);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	char sha[SHA256_TEXT] = "";
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

	if (fd < 0 || !ctx)
		die("create", path);
	EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);
	for (uint64_t at = 0; at < size;) {
		size_t len = size - at < CHUNK ? (size_t)(size - at) : CHUNK;
		bool is_hole = size > 16 * CHUNK && at / CHUNK % 7 == 3;

		if (is_hole) {
			memset(chunk, 0, len);
		} else {
			fill(&state, len);
			if (pwrite(fd, chunk, len, (off_t)at) != (ssize_t)len)
				die("write", path);
		}
		EVP_DigestUpdate(ctx, chunk, len);
		at += len;
	}
	if (ftruncate(fd, (off_t)size) < 0)
		die("extend", path);

	/* whole seconds in the past, each file its own */
	struct timespec when = {.tv_sec = 1500000000 + files_made};
	struct timespec times[2] = {when, when};

	if (futimens(fd, times) < 0)
		die("date", path);
	close(fd);
	sha256_text(ctx, sha);
	EVP_MD_CTX_free(ctx);
	manifest_write(manifest, path, size, sha);
	write_index(path, size, when.tv_sec);
	files_made++;
}

static void make_dir(const char *path)
{
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		die("make directory", path);
}

static void make_many(long n)
{
	char path[64];

	make_dir("many");
	for (long i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "many/entry-%05ld", i);
		make_file(path, (uint64_t)i % 200);
	}
}

static void make_sizes(uint64_t big)
{
	static const uint64_t edges[] = {4096, 65536, 262144, 1 << 20, 4 << 20, 16 << 20};
	char path[64];

	make_dir("sizes");
	make_file("sizes/0", 0);
	make_file("sizes/1", 1);
	for (size_t i = 0; i < sizeof(edges) / sizeof(edges[0]); i++) {
		for (int d = -1; d <= 1; d++) {
			uint64_t size = edges[i] + (uint64_t)(int64_t)d;

			snprintf(path, sizeof(path), "sizes/%llu", (unsigned long long)size);
			make_file(path, size);
		}
	}
	make_file("sizes/odd", (40 << 20) + 12345);
	if (big)
		make_file("sizes/big", big);
}

static void make_names(bool plain)
{
	static const char *const odd[] = {"with space", " leading space", "trailing space ",
		"tab\there", "new\nline", "two\n\nlines\n", ".hidden", "..two-dots", "...",
		"trailing.", "-rf", "--help", "quote'single", "quote\"double", "back\\slash",
		"percent%20%2F%00", "plus+and&question?hash#", "semi;colon:at@eq=", "star*[x]{y}",
		"dollar$(x)`y`", "<xml>&amp;", "~tilde", "control\x01\x1f", "\xc3\xbcml\xc3\xa4ut",
		"\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e", "\xf0\x9f\x9a\x80 rocket",
		"e\xcc\x81 decomposed", "\xd8\xb9\xd8\xb1\xd8\xa8\xd9\x8a", "CON", "index.html",
		"a|b", "a,b"};
	char path[300];

	make_dir("names");
	make_file("names/plain", 100);
	if (plain)
		return;
	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		snprintf(path, sizeof(path), "names/%s", odd[i]);
		make_file(path, 1000 + i);
	}
	/* as long as a name may be: 255 bytes, once ASCII, once two-byte letters and one more */
	snprintf(path, sizeof(path), "names/");
	memset(path + 6, 'n', 255);
	path[6 + 255] = '\0';
	make_file(path, 255);
	for (size_t i = 0; i < 254; i += 2)
		memcpy(path + 6 + i, "\xc3\xa9", 2);
	path[6 + 254] = 'x';
	make_file(path, 256);
	make_dir("names/dir with space");
	make_file("names/dir with space/file\nname", 77);
	make_dir("names/.hidden-dir");
	make_file("names/.hidden-dir/.file", 78);
}

static void make_deep(void)
{
	char path[512] = "deep";

	for (int i = 0; i < 30; i++) {
		make_dir(path);
		snprintf(path + strlen(path), sizeof(path) - strlen(path), "/level%02d", i);
	}
	make_file(path, 4242);
}

static void make_small(long until)
{
	uint64_t state = seed;
	char path[64];

	make_dir("small");
	for (long i = 0; files_made < until; i++) {
		if (i % 100 == 0) {
			snprintf(path, sizeof(path), "small/%03ld", i / 100);
			make_dir(path);
		}
		snprintf(path, sizeof(path), "small/%03ld/file-%ld.bin", i / 100, i);

		/* most are small, a few are not: 0 B to 64 KiB */
		uint64_t r = next(&state);

		make_file(path, r % ((r >> 32) % 8 == 0 ? 65536 : 4096));
	}
}

static FILE *open_out(const char *path)
{
	FILE *out = fopen(path, "we");

	if (!out)
		die("open", path);
	return out;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"out", required_argument, NULL, 'o'},
		{"manifest", required_argument, NULL, 'm'},
		{"index", required_argument, NULL, 'i'},
		{"seed", required_argument, NULL, 's'},
		{"files", required_argument, NULL, 'f'},
		{"big", required_argument, NULL, 'b'},
		{"many", required_argument, NULL, 'n'},
		{"plain-names", no_argument, NULL, 'p'},
		{NULL, 0, NULL, 0},
	};
	const char *out = NULL;
	long files = 20000, many = 10000;
	uint64_t big = 1ULL << 30;
	bool plain = false;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'o':
			out = optarg;
			break;
		case 'm':
			manifest = open_out(optarg);
			break;
		case 'i':
			index_file = open_out(optarg);
			break;
		case 's':
			seed = strtoull(optarg, NULL, 10);
			break;
		case 'f':
			files = strtol(optarg, NULL, 10);
			break;
		case 'b':
			big = strtoull(optarg, NULL, 10);
			break;
		case 'n':
			many = strtol(optarg, NULL, 10);
			break;
		case 'p':
			plain = true;
			break;
		default:
			return 2;
		}
	}
	if (!out || !manifest) {
		fprintf(stderr, "usage: e2e-make-tree --out DIR --manifest FILE [...]\n");
		return 2;
	}
	make_dir(out);
	if (chdir(out) < 0)
		die("enter", out);
	make_file("top.txt", 12);
	make_names(plain);
	make_sizes(big);
	make_deep();
	make_many(many);
	make_small(files);
	if (fclose(manifest) || (index_file && fclose(index_file)))
		die("write", "manifest");
	printf("%ld files\n", files_made);
	return 0;
}
