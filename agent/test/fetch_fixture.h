/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_TEST_FETCH_FIXTURE_H
#define WD_AGENT_TEST_FETCH_FIXTURE_H
/*
 * What the tests of fetching share: a store, a tree and a fetcher over a directory, or over what
 * fixture->url names, and reads that a test thread sleeps on. Included by one .c per program.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/fetch.h"
#include "agent/origin_impl.h"
#include "common/fault.h"
#include "common/lock.h"

#define MIB (1024 * 1024)
#define SIZE (24 * MIB + 777)

struct fixture {
	char dir[64], data[96], cache[96];
	char url[128]; /* empty: the directory `data` */
	struct settings settings;
	struct meta *meta;
	struct store *store;
	struct tree *tree;
	struct fetcher *fetcher;
	struct origin *origin; /* the dataset's */
	struct dataset *ds;
};

static inline unsigned char byte_at(uint64_t i)
{
	return (unsigned char)(i * 2654435761u >> 13 ^ i >> 20);
}

static inline void put_file(struct fixture *f, const char *name, uint64_t size, unsigned salt)
{
	char path[256];
	unsigned char *data = malloc(size);
	int fd;

	for (uint64_t i = 0; i < size; i++)
		data[i] = (unsigned char)(byte_at(i) + salt);
	snprintf(path, sizeof(path), "%s/%s", f->data, name);
	fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
	assert_int_equal(write(fd, data, size), size);
	close(fd);
	free(data);
}

static inline void start(struct fixture *f, uint64_t limit)
{
	struct wd_err err = WD_ERR_INIT;
	struct origin_options options = {0};
	struct store_config config = {.dir = f->cache, .limit_bytes = limit};

	assert_int_equal(origins_start(2, 8, &err), 0);
	assert_int_equal(meta_open(f->cache, &f->meta, &err), 0);
	assert_int_equal(store_open(&config, f->meta, &f->store, &err), 0);
	f->tree = tree_new(f->meta, &f->settings);
	f->fetcher = fetcher_new(f->store, f->meta, &f->settings);
	if (!f->url[0])
		snprintf(f->url, sizeof(f->url), "file://%s", f->data);
	assert_int_equal(origin_open(f->url, &options, &f->origin, &err), 0);
	assert_int_equal(tree_dataset(f->tree, f->origin, f->url, "me", &(struct identity){0}, false, &f->ds, &err), 0);
}

static inline void stop(struct fixture *f)
{
	/* what nobody waits for may still run */
	fetcher_stop(f->fetcher);
	f->origin->ops->drain(f->origin);
	dataset_unref(f->ds);
	origins_stop();
	store_close(f->store);
	fetcher_free(f->fetcher);
	tree_free(f->tree);
	meta_close(f->meta);
}

static inline int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/wd-fetch-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->data, sizeof(f->data), "%s/data", f->dir);
	snprintf(f->cache, sizeof(f->cache), "%s/cache", f->dir);
	mkdir(f->data, 0755);
	mkdir(f->cache, 0700);
	f->settings = (struct settings){.metadata_ttl = 60000,
		.list_after_lookups = 8,
		.memory_limit = 64 * MIB,
		.small_object_size = MIB,
		.prefetch_window = 8 * MIB,
		.prefetch_budget = 64 * MIB,
		.max_get_size = 2 * MIB,
		.max_transfers = 8,
		.proof_ttl = 60000};
	*state = f;
	return 0;
}

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static inline int teardown(void **state)
{
	struct fixture *f = *state;

	wd_fault_arm(NULL);
	nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static inline struct fetch *open_one(struct fixture *f, const char *name)
{
	struct node node;
	struct object_id id;
	struct object *object = NULL;
	struct fetch *fetch = NULL;
	struct wd_err err = WD_ERR_INIT;
	uint32_t ttl_ms;

	assert_int_equal(tree_lookup(f->ds, TREE_ROOT, name, 0, true, &node, &ttl_ms, &err), 0);
	assert_int_equal(tree_bind(f->ds, node.node, true, &node, &err), 0);
	tree_object_id(f->ds, &node, &id);
	assert_int_equal(store_get(f->store, &id, node.version.size, &object, &err), 0);
	assert_int_equal(fetch_open(f->fetcher, f->ds, &node, object, &fetch), 0);
	object_unref(object);
	return fetch;
}

/* A wait that a test thread sleeps on. */
struct sleeper {
	struct fetch_wait wait;
	struct wd_mutex lock;
	struct wd_cond cond;
	int status, fd, answers;
};

static inline void answered(struct fetch_wait *w, int status, int fd, const struct wd_err *err)
{
	struct sleeper *s = (struct sleeper *)w;

	wd_lock(&s->lock);
	s->status = status;
	s->fd = fd;
	s->answers++;
	wd_cond_broadcast(&s->cond);
	wd_unlock(&s->lock);
}

static bool is_reader_gone;

static inline bool reader_is_gone(const struct fetch_wait *w)
{
	return is_reader_gone;
}

/* Reads a range through ensure; returns the status. */
static inline int read_range(struct fetch *fetch, uint64_t offset, uint64_t len, unsigned flags, unsigned char *out,
	bool *ret_is_cached)
{
	struct sleeper s = {.wait = {.offset = offset, .len = len, .flags = flags, .cb = answered,
				    .is_gone = reader_is_gone}};
	int fd;

	wd_mutex_init(&s.lock);
	wd_cond_init(&s.cond);
	fetch_ensure(fetch, &s.wait);
	wd_lock(&s.lock);
	while (!s.answers)
		wd_cond_wait(&s.cond, &s.lock);
	wd_unlock(&s.lock);
	assert_int_equal(s.answers, 1);
	wd_cond_done(&s.cond);
	wd_mutex_done(&s.lock);
	if (s.status < 0)
		return s.status;
	fd = s.fd >= 0 ? s.fd : object_open_file(fetch_object(fetch), NULL);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, out, len, s.fd >= 0 ? 0 : (off_t)offset), len);
	close(fd);
	if (ret_is_cached)
		*ret_is_cached = s.fd < 0;
	return 0;
}

static inline void check(const unsigned char *data, uint64_t offset, uint64_t len, unsigned salt)
{
	for (uint64_t i = 0; i < len; i++)
		if (data[i] != (unsigned char)(byte_at(offset + i) + salt))
			fail_msg("wrong byte at %llu", (unsigned long long)(offset + i));
}

#endif
