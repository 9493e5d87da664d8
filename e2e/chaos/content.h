/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_E2E_CHAOS_CONTENT_H
#define WD_E2E_CHAOS_CONTENT_H
/*
 * The dataset: which files there are, and what is in them. Every 8-byte word of a file is a function of seed,
 * file and position, so that whoever reads any piece can tell whether it is right without asking anybody.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define CONTENT_HOT 4	       /* files that stay cached, and so are read by passthrough */
#define CONTENT_COLD 8	       /* more than the cache holds: streamed and evicted again and again */
#define CONTENT_SMALL 400      /* in CONTENT_DIRS directories */
#define CONTENT_DIRS 20
#define CONTENT_FILES (CONTENT_HOT + CONTENT_COLD + CONTENT_SMALL)
#define CONTENT_CACHE "112MiB" /* what the cache may hold: less than all of it, more than hot and small */
#define CONTENT_SMALL_MAX (200 * 1024ULL)
#define CONTENT_PATH 64
#define CONTENT_VERSION "all"

static inline uint32_t content_hot(uint64_t n)
{
	return (uint32_t)(n % CONTENT_HOT);
}

static inline uint32_t content_cold(uint64_t n)
{
	return CONTENT_HOT + (uint32_t)(n % CONTENT_COLD);
}

static inline uint32_t content_small(uint64_t n)
{
	return CONTENT_HOT + CONTENT_COLD + (uint32_t)(n % CONTENT_SMALL);
}

/* A bijection that looks random. */
uint64_t content_mix(uint64_t x);
/* The next number of a sequence. */
uint64_t content_random(uint64_t *state);

/* Always a multiple of 8. */
uint64_t content_size(uint32_t file);
/* Below the dataset's root, without a slash at its start. */
void content_path(uint32_t file, char out[CONTENT_PATH]);
/* The file of a path below the root; -1 when there is none. */
int content_find(const char *path);
/* offset and len are multiples of 8. */
void content_fill(uint64_t seed, uint32_t file, uint64_t offset, void *out, size_t len);
/* Returns the offset of the first wrong word, or -1 when all are right. */
int64_t content_check(uint64_t seed, uint32_t file, uint64_t offset, const void *data, size_t len);
/* Writes the whole dataset below a directory. */
int content_write(uint64_t seed, const char *root, struct wd_err *err);
/* Pins what content_write() has written as the version CONTENT_VERSION. */
int content_pin(const char *root, struct wd_err *err);

#endif
