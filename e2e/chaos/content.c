/* SPDX-License-Identifier: Apache-2.0 */
#include "e2e/chaos/content.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"

#define HOT_SIZE (8 << 20)
#define COLD_SIZE (24 << 20)

uint64_t content_mix(uint64_t x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdULL;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53ULL;
	return x ^ x >> 33;
}

uint64_t content_random(uint64_t *state)
{
	return content_mix(*state += 0x9e3779b97f4a7c15ULL);
}

uint64_t content_size(uint32_t file)
{
	if (file < CONTENT_HOT)
		return HOT_SIZE;
	if (file < CONTENT_HOT + CONTENT_COLD)
		return COLD_SIZE;
	return 8 + content_mix(file) % (CONTENT_SMALL_MAX - 8) / 8 * 8;
}

void content_path(uint32_t file, char out[CONTENT_PATH])
{
	if (file < CONTENT_HOT)
		snprintf(out, CONTENT_PATH, "hot/hot-%u", file);
	else if (file < CONTENT_HOT + CONTENT_COLD)
		snprintf(out, CONTENT_PATH, "cold/cold-%u", file);
	else
		snprintf(out, CONTENT_PATH, "d%u/small-%u", file % CONTENT_DIRS, file);
}

int content_find(const char *path)
{
	const char *dash = strrchr(path, '-');
	unsigned file = 0;
	char right[CONTENT_PATH];

	if (!dash || sscanf(dash + 1, "%u", &file) != 1 || file >= CONTENT_FILES)
		return -1;
	content_path(file, right);
	return strcmp(path, right) == 0 ? (int)file : -1;
}

static uint64_t word_at(uint64_t key, uint64_t index)
{
	return content_mix(key ^ index);
}

static uint64_t key_of(uint64_t seed, uint32_t file)
{
	return content_mix(seed) ^ (uint64_t)file << 40;
}

void content_fill(uint64_t seed, uint32_t file, uint64_t offset, void *out, size_t len)
{
	uint64_t *words = out, key = key_of(seed, file);

	for (size_t i = 0; i < len / 8; i++)
		words[i] = word_at(key, offset / 8 + i);
}

int64_t content_check(uint64_t seed, uint32_t file, uint64_t offset, const void *data, size_t len)
{
	const uint64_t *words = data;
	uint64_t key = key_of(seed, file);

	for (size_t i = 0; i < len / 8; i++)
		if (words[i] != word_at(key, offset / 8 + i))
			return (int64_t)(offset + i * 8);
	return -1;
}

static int write_one(uint64_t seed, const char *root, uint32_t file, struct wd_err *err)
{
	static char buf[256 * 1024];
	char path[4096], below[CONTENT_PATH];
	uint64_t size = content_size(file);
	wd_autoclose int fd = -1;

	content_path(file, below);
	snprintf(path, sizeof(path), "%s/%s", root, below);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
	if (fd < 0)
		return wd_err_sys(err, errno, "make '%s'", path);
	for (uint64_t at = 0; at < size; at += sizeof(buf)) {
		size_t len = size - at < sizeof(buf) ? size - at : sizeof(buf);

		content_fill(seed, file, at, buf, len);
		if (write(fd, buf, len) != (ssize_t)len)
			return wd_err_sys(err, errno, "write '%s'", path);
	}
	return 0;
}

int content_write(uint64_t seed, const char *root, struct wd_err *err)
{
	char path[4096];
	int rc = 0;

	for (int i = -2; i < CONTENT_DIRS; i++) {
		if (i < 0)
			snprintf(path, sizeof(path), "%s/%s", root, i == -1 ? "hot" : "cold");
		else
			snprintf(path, sizeof(path), "%s/d%d", root, i);
		if (mkdir(path, 0755) < 0)
			return wd_err_sys(err, errno, "make '%s'", path);
	}
	for (uint32_t f = 0; f < CONTENT_FILES && rc == 0; f++)
		rc = write_one(seed, root, f, err);
	return rc;
}

int content_pin(const char *root, struct wd_err *err)
{
	char path[4096], below[CONTENT_PATH];
	struct stat st;
	FILE *out;
	int rc = 0;

	snprintf(path, sizeof(path), "%s/.warpdrive", root);
	if (mkdir(path, 0755) < 0)
		return wd_err_sys(err, errno, "make '%s'", path);
	strcat(path, "/versions");
	if (mkdir(path, 0755) < 0)
		return wd_err_sys(err, errno, "make '%s'", path);
	strcat(path, "/" CONTENT_VERSION ".jsonl");
	out = fopen(path, "we");
	if (!out)
		return wd_err_sys(err, errno, "make '%s'", path);
	for (uint32_t f = 0; f < CONTENT_FILES && rc == 0; f++) {
		content_path(f, below);
		snprintf(path, sizeof(path), "%s/%s", root, below);
		if (stat(path, &st) < 0)
			rc = wd_err_sys(err, errno, "look at '%s'", path);
		fprintf(out, "{\"key\":\"%s\",\"size\":%llu,\"mtime\":%lld}\n", below, (unsigned long long)content_size(f),
			(long long)st.st_mtime);
	}
	if (fclose(out) != 0 && rc == 0)
		rc = wd_err_sys(err, errno, "write the manifest");
	return rc;
}
