/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The namespace over a real directory (file: origin): ids, versions, time to live, listings that change.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/meta_guard.h"
#include "agent/origin.h"
#include "agent/tree.h"
#include "common/fault.h"

#define FOREVER 3600000

struct fixture {
	char dir[64], data[96], cache[96];
	struct settings settings;
	struct meta *meta;
	struct tree *tree;
	struct dataset *ds;
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void put_file(struct fixture *f, const char *name, const char *text)
{
	char path[1024];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", f->data, name);
	fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void begin(struct fixture *f)
{
	struct wd_err err = WD_ERR_INIT;
	struct origin_options options = {0};
	struct origin *origin;
	char url[128];

	assert_int_equal(meta_open(f->cache, &f->meta, &err), 0);
	f->tree = tree_new(f->meta, &f->settings);
	snprintf(url, sizeof(url), "file://%s", f->data);
	assert_int_equal(origin_open(url, &options, &origin, &err), 0);
	assert_int_equal(tree_dataset(f->tree, origin, url, "me", &(struct identity){0}, false, &f->ds, &err), 0);
}

static void end(struct fixture *f)
{
	dataset_unref(f->ds);
	tree_free(f->tree);
	meta_close(f->meta);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct wd_err err = WD_ERR_INIT;

	strcpy(f->dir, "/tmp/wd-tree-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->data, sizeof(f->data), "%s/data", f->dir);
	snprintf(f->cache, sizeof(f->cache), "%s/cache", f->dir);
	mkdir(f->data, 0755);
	mkdir(f->cache, 0700);
	f->settings = (struct settings){.metadata_ttl = FOREVER, .list_after_lookups = 8};
	assert_int_equal(origins_start(1, 4, &err), 0);
	begin(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	end(f);
	origins_stop();
	nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static int lookup(struct fixture *f, uint64_t dir, const char *name, int64_t ttl, struct node *ret)
{
	uint32_t ttl_ms;
	struct wd_err err = WD_ERR_INIT;

	return tree_lookup(f->ds, dir, name, ttl, true, ret, &ttl_ms, &err);
}

static void a_name_is_found_and_remembered(void **state)
{
	struct fixture *f = *state;
	struct node a, b;
	uint32_t ttl_ms;

	put_file(f, "a.txt", "hello");
	assert_int_equal(tree_lookup(f->ds, TREE_ROOT, "a.txt", FOREVER, false, &a, &ttl_ms, NULL), -EAGAIN);
	assert_int_equal(lookup(f, TREE_ROOT, "a.txt", FOREVER, &a), 0);
	assert_int_equal(a.version.size, 5);
	assert_false(a.is_dir);
	assert_int_equal(tree_lookup(f->ds, TREE_ROOT, "a.txt", FOREVER, false, &b, &ttl_ms, NULL), 0);
	assert_int_equal(a.node, b.node);
	assert_true(ttl_ms > 0 && ttl_ms <= FOREVER);
	assert_int_equal(lookup(f, TREE_ROOT, "b.txt", FOREVER, &b), -ENOENT);
}

static void ids_survive_a_restart(void **state)
{
	struct fixture *f = *state;
	struct node a, b;

	put_file(f, "a.txt", "hello");
	assert_int_equal(lookup(f, TREE_ROOT, "a.txt", FOREVER, &a), 0);
	end(f);
	begin(f);
	assert_int_equal(tree_node(f->ds, a.node, &b), 0);
	assert_string_equal(b.key, "a.txt");
	assert_int_equal(lookup(f, TREE_ROOT, "a.txt", FOREVER, &b), 0);
	assert_int_equal(a.node, b.node);
	assert_int_equal(a.ino, b.ino);
}

static void a_new_version_gets_a_new_node_and_keeps_the_ino(void **state)
{
	struct fixture *f = *state;
	struct node a, b, old;
	struct object_id oa, ob;

	put_file(f, "a.txt", "hello");
	assert_int_equal(lookup(f, TREE_ROOT, "a.txt", FOREVER, &a), 0);
	put_file(f, "a.txt", "hello, world");
	assert_int_equal(lookup(f, TREE_ROOT, "a.txt", FOREVER, &b), 0);
	assert_int_equal(a.node, b.node); /* still believed */
	assert_int_equal(lookup(f, TREE_ROOT, "a.txt", 0, &b), 0);
	assert_int_not_equal(a.node, b.node);
	assert_int_equal(a.ino, b.ino);
	assert_int_equal(b.version.size, 12);
	/* the old one is still what it was, for those who have it open */
	assert_int_equal(tree_node(f->ds, a.node, &old), 0);
	assert_int_equal(old.version.size, 5);
	tree_object_id(f->ds, &a, &oa);
	tree_object_id(f->ds, &b, &ob);
	assert_memory_not_equal(&oa, &ob, sizeof(oa));
}

static void a_deleted_file_is_gone_after_the_ttl(void **state)
{
	struct fixture *f = *state;
	struct node a;
	char path[256];

	put_file(f, "a.txt", "hello");
	assert_int_equal(lookup(f, TREE_ROOT, "a.txt", FOREVER, &a), 0);
	snprintf(path, sizeof(path), "%s/a.txt", f->data);
	unlink(path);
	assert_int_equal(lookup(f, TREE_ROOT, "a.txt", FOREVER, &a), 0);
	assert_int_equal(lookup(f, TREE_ROOT, "a.txt", 0, &a), -ENOENT);
}

static void expire_makes_the_next_lookup_ask(void **state)
{
	struct fixture *f = *state;
	struct node a;
	uint32_t ttl_ms;

	put_file(f, "a.txt", "hello");
	assert_int_equal(lookup(f, TREE_ROOT, "a.txt", FOREVER, &a), 0);
	tree_expire(f->ds, a.node);
	assert_int_equal(tree_lookup(f->ds, TREE_ROOT, "a.txt", FOREVER, false, &a, &ttl_ms, NULL), -EAGAIN);
}

static void foreign_ids_are_stale(void **state)
{
	struct fixture *f = *state;
	struct node a;

	assert_int_equal(tree_node(f->ds, 12345, &a), -ESTALE);
	assert_int_equal(tree_node(f->ds, TREE_ROOT, &a), 0);
	assert_true(a.is_dir);
	assert_int_equal(a.node, TREE_ROOT);
}

/* ---- directories ---- */

struct names {
	char seen[4096][24];
	int count, stop_after;
	uint64_t last;
};

static bool note(void *arg, uint64_t cookie, const char *name, const struct node *node)
{
	struct names *n = arg;

	if (n->stop_after && n->count == n->stop_after)
		return false;
	assert_true(cookie >= 16);
	assert_true(cookie > n->last);
	n->last = cookie;
	snprintf(n->seen[n->count++], sizeof(n->seen[0]), "%s", name);
	return true;
}

static int count_of(const struct names *n, const char *name)
{
	int count = 0;

	for (int i = 0; i < n->count; i++)
		count += strcmp(n->seen[i], name) == 0;
	return count;
}

static void a_listing_that_changes_neither_skips_nor_repeats(void **state)
{
	struct fixture *f = *state;
	struct names *n = calloc(1, sizeof(*n));
	struct wd_err err = WD_ERR_INIT;
	char name[24], path[256];
	uint32_t ttl_ms;
	bool is_end;

	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "f%04d", i);
		put_file(f, name, "x");
	}
	n->stop_after = 300;
	assert_int_equal(tree_readdir(f->ds, TREE_ROOT, 0, FOREVER, note, n, &is_end, &ttl_ms, &err), 0);
	assert_false(is_end);
	assert_int_equal(n->count, 300);
	/* meanwhile some go, some come, and somebody else lists again */
	for (int i = 0; i < 1000; i += 10) {
		snprintf(path, sizeof(path), "%s/f%04d", f->data, i);
		unlink(path);
		snprintf(name, sizeof(name), "a%04d", i);
		put_file(f, name, "y");
	}
	struct names *other = calloc(1, sizeof(*other));

	assert_int_equal(tree_readdir(f->ds, TREE_ROOT, 0, 0, note, other, &is_end, &ttl_ms, &err), 0);
	assert_true(is_end);
	assert_int_equal(other->count, 1000);
	n->stop_after = 0;
	assert_int_equal(tree_readdir(f->ds, TREE_ROOT, n->last, FOREVER, note, n, &is_end, &ttl_ms, &err), 0);
	assert_true(is_end);
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "f%04d", i);
		if (i % 10)
			assert_int_equal(count_of(n, name), 1);
		else
			assert_true(count_of(n, name) <= 1);
	}
	free(other);
	free(n);
}

static void after_a_few_unknown_names_the_directory_is_listed(void **state)
{
	struct fixture *f = *state;
	struct node a;
	char name[24];
	uint32_t ttl_ms;

	for (int i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "f%04d", i);
		put_file(f, name, "x");
	}
	for (int i = 0; i < 9; i++) {
		snprintf(name, sizeof(name), "f%04d", i);
		assert_int_equal(lookup(f, TREE_ROOT, name, FOREVER, &a), 0);
	}
	/* the ninth listed: the rest is known without asking */
	for (int i = 9; i < 50; i++) {
		snprintf(name, sizeof(name), "f%04d", i);
		assert_int_equal(tree_lookup(f->ds, TREE_ROOT, name, FOREVER, false, &a, &ttl_ms, NULL), 0);
	}
	assert_int_equal(tree_lookup(f->ds, TREE_ROOT, "none", FOREVER, false, &a, &ttl_ms, NULL), -ENOENT);
}

/* The database is cut under the tree: what was listed is asked again, not taken for absent. */
static void a_lost_database_hides_no_name(void **state)
{
	struct fixture *f = *state;
	struct names *n = calloc(1, sizeof(*n));
	struct wd_err err = WD_ERR_INIT;
	char name[24], path[256];
	struct node a;
	uint32_t ttl_ms;
	bool is_end;

	for (int i = 0; i < 600; i++) {
		snprintf(name, sizeof(name), "f%04d", i);
		put_file(f, name, "x");
	}
	assert_int_equal(tree_readdir(f->ds, TREE_ROOT, 0, FOREVER, note, n, &is_end, &ttl_ms, &err), 0);
	assert_int_equal(n->count, 600);
	assert_int_equal(meta_flush(f->meta), 0);
	assert_int_equal(guard_install(), 0); /* cmocka has set its own handler since the setup */
	for (int round = 0; round < 4; round++) {
		struct meta_stats st;

		/* with and without a way to open it again meanwhile; with the listing's mark in memory or not */
		if (round % 2)
			wd_fault_arm("meta.revive=0");
		if (round < 2)
			assert_int_equal(lookup(f, TREE_ROOT, "f0000", 0, &a), 0);
		snprintf(path, sizeof(path), "%s/meta/data.mdb", f->cache);
		assert_int_equal(truncate(path, 8192), 0);
		assert_int_equal(lookup(f, TREE_ROOT, "f0300", FOREVER, &a), 0);
		memset(n, 0, sizeof(*n));
		assert_int_equal(
			tree_readdir(f->ds, TREE_ROOT, 0, FOREVER, note, n, &is_end, &ttl_ms, &err), 0);
		assert_true(is_end);
		for (int i = 0; i < 600; i++) {
			snprintf(name, sizeof(name), "f%04d", i);
			assert_true(count_of(n, name) >= 1);
			assert_int_equal(lookup(f, TREE_ROOT, name, FOREVER, &a), 0);
		}
		wd_fault_arm(NULL);
		do
			(void)meta_flush(f->meta);
		while (meta_get_stats(f->meta, &st), st.is_memory_only);
		assert_int_equal(meta_flush(f->meta), 0);
	}
	free(n);
}

static void a_file_that_became_a_directory_is_another_inode(void **state)
{
	struct fixture *f = *state;
	struct node a, b, c;
	char path[256];

	put_file(f, "x", "file");
	assert_int_equal(lookup(f, TREE_ROOT, "x", FOREVER, &a), 0);
	snprintf(path, sizeof(path), "%s/x", f->data);
	unlink(path);
	mkdir(path, 0755);
	put_file(f, "x/inner", "1");
	assert_int_equal(lookup(f, TREE_ROOT, "x", 0, &b), 0);
	assert_true(b.is_dir);
	assert_int_not_equal(a.ino, b.ino);
	assert_int_equal(lookup(f, b.node, "inner", FOREVER, &c), 0);
	assert_string_equal(c.key, "x/inner");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_name_is_found_and_remembered),
		T(ids_survive_a_restart),
		T(a_new_version_gets_a_new_node_and_keeps_the_ino),
		T(a_deleted_file_is_gone_after_the_ttl),
		T(expire_makes_the_next_lookup_ask),
		T(foreign_ids_are_stale),
		T(a_listing_that_changes_neither_skips_nor_repeats),
		T(after_a_few_unknown_names_the_directory_is_listed),
		T(a_lost_database_hides_no_name),
		T(a_file_that_became_a_directory_is_another_inode),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
