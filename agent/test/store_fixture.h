/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_TEST_STORE_FIXTURE_H
#define WD_AGENT_TEST_STORE_FIXTURE_H
/* A store in a directory of its own, and helpers to fill it, for the tests of the store. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "agent/meta.h"
#include "agent/store.h"
#include "common/fault.h"

#define BLOCK ((uint64_t)WD_BLOCK_SIZE)
#define MIB ((uint64_t)1 << 20)

struct fixture {
	char dir[64];
	struct meta *meta;
	struct store *store;
	struct store_config config;
};

static inline void remove_tree(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	while (dir && (e = readdir(dir)) != NULL) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (unlinkat(dirfd(dir), e->d_name, 0) < 0)
			remove_tree(dirfd(dir), e->d_name);
	}
	if (dir)
		closedir(dir);
	unlinkat(at, name, AT_REMOVEDIR);
}

static inline void fx_open(struct fixture *f)
{
	struct wd_err err = WD_ERR_INIT;

	f->config.dir = f->dir;
	if (meta_open(f->dir, &f->meta, &err) < 0 ||
		store_open(&f->config, f->meta, &f->store, &err) < 0)
		fail_msg("%s", err.msg);
}

static inline void fx_close(struct fixture *f)
{
	store_close(f->store);
	meta_close(f->meta);
	f->store = NULL;
	f->meta = NULL;
}

static inline void fx_reopen(struct fixture *f)
{
	fx_close(f);
	fx_open(f);
}

static inline void fx_begin(struct fixture *f, uint64_t limit)
{
	const char *tmp = getenv("TMPDIR");

	memset(f, 0, sizeof(*f));
	snprintf(f->dir, sizeof(f->dir), "%s/wd-store-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->dir));
	f->config.limit_bytes = limit;
	fx_open(f);
}

static inline void fx_end(struct fixture *f)
{
	wd_fault_arm(NULL);
	fx_close(f);
	remove_tree(AT_FDCWD, f->dir);
}

static inline struct object_id make_id(unsigned n)
{
	struct object_id id;

	object_id_make(&n, sizeof(n), &id);
	return id;
}

static inline struct object *get(struct fixture *f, unsigned n, uint64_t size)
{
	struct object_id id = make_id(n);
	struct wd_err err = WD_ERR_INIT;
	struct object *o = NULL;

	if (store_get(f->store, &id, size, &o, &err) < 0)
		fail_msg("%s", err.msg);
	return o;
}

/* Bytes that differ by object and block. */
static inline void make_block(unsigned n, uint32_t block, unsigned char *data, size_t len)
{
	uint64_t seed = (uint64_t)n << 32 | block;

	for (size_t i = 0; i < len; i += 8) {
		uint64_t x = (seed + i) * 0x9e3779b97f4a7c15ull;

		x ^= x >> 29;
		memcpy(data + i, &x, len - i < 8 ? len - i : 8);
	}
}

static inline size_t length_of(const struct object *o, uint32_t block)
{
	uint64_t left = object_size(o) - block * BLOCK;

	return left < BLOCK ? left : BLOCK;
}

static inline int write_block(struct object *o, unsigned n, uint32_t block)
{
	unsigned char *data = malloc(BLOCK);
	size_t len = length_of(o, block);
	int rc;

	make_block(n, block, data, len);
	rc = object_pwrite(o, data, len, block * BLOCK);
	if (rc == 0)
		rc = object_commit(o, block, XXH3_64bits(data, len));
	free(data);
	return rc;
}

static inline void write_all(struct object *o, unsigned n)
{
	for (uint32_t i = 0; i < wd_nblocks(object_size(o)); i++)
		assert_int_equal(write_block(o, n, i), 0);
}

static inline int put_all(struct object *o, unsigned n)
{
	unsigned char *data = malloc(object_size(o) + 1);
	int rc;

	for (uint32_t i = 0; i < wd_nblocks(object_size(o)); i++)
		make_block(n, i, data + i * BLOCK, length_of(o, i));
	rc = object_put(o, data, object_size(o));
	free(data);
	return rc;
}

/* What the file holds of a block is what make_block() makes. */
static inline bool block_is_right(struct object *o, unsigned n, uint32_t block)
{
	unsigned char *want = malloc(BLOCK), *have = malloc(BLOCK);
	size_t len = length_of(o, block);
	int fd = object_open_file(o, NULL);
	bool is_right;

	make_block(n, block, want, len);
	is_right = fd >= 0 && pread(fd, have, len, (off_t)(block * BLOCK)) == (ssize_t)len &&
		   memcmp(want, have, len) == 0;
	if (fd >= 0)
		close(fd);
	free(want);
	free(have);
	return is_right;
}

static inline void path_of(struct fixture *f, unsigned n, const char *suffix, char out[160])
{
	struct object_id id = make_id(n);
	char hex[33];

	object_id_format(&id, hex);
	snprintf(out, 160, "%s/objects/%.2s/%s%s", f->dir, hex, hex, suffix);
}

static inline bool has_file(struct fixture *f, unsigned n, const char *suffix)
{
	char path[160];

	path_of(f, n, suffix, path);
	return access(path, F_OK) == 0;
}

/* Flips a byte of a block in the cache file. */
static inline void damage(struct fixture *f, unsigned n, uint32_t block)
{
	char path[160];
	unsigned char c;
	int fd;

	path_of(f, n, "", path);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &c, 1, (off_t)(block * BLOCK + 77)), 1);
	c ^= 1;
	assert_int_equal(pwrite(fd, &c, 1, (off_t)(block * BLOCK + 77)), 1);
	close(fd);
}

static inline struct store_stats stats_of(struct fixture *f)
{
	struct store_stats st;

	store_get_stats(f->store, &st);
	return st;
}

/* An admission that is waited for. */
struct ticket {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool is_done;
	int status;
};

static inline void ticket_cb(void *arg, int status)
{
	struct ticket *t = arg;

	pthread_mutex_lock(&t->lock);
	t->is_done = true;
	t->status = status;
	pthread_cond_signal(&t->cond);
	pthread_mutex_unlock(&t->lock);
}

static inline int admit(struct fixture *f, struct object *o, uint64_t bytes)
{
	struct ticket t = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, 0};

	store_admit(f->store, o, bytes, ticket_cb, &t);
	pthread_mutex_lock(&t.lock);
	while (!t.is_done)
		pthread_cond_wait(&t.cond, &t.lock);
	pthread_mutex_unlock(&t.lock);
	return t.status;
}

/* A complete object of `size`, admitted and written; the reference is dropped. */
static inline int add_object(struct fixture *f, unsigned n, uint64_t size)
{
	struct object *o = get(f, n, size);
	uint64_t bytes = 0;
	int rc;

	for (uint32_t i = 0; i < wd_nblocks(size); i++)
		bytes += object_block_charge(o, i);
	rc = admit(f, o, bytes);
	if (rc == 0)
		rc = put_all(o, n);
	object_unref(o);
	return rc;
}

static inline bool is_cached(struct fixture *f, unsigned n, uint64_t size)
{
	struct object_id id = make_id(n);
	uint64_t present;

	store_peek(f->store, &id, size, &present);
	return present == size;
}

#endif
