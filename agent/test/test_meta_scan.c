/* SPDX-License-Identifier: Apache-2.0 */
/* Scans below a prefix see committed and uncommitted entries as one, in order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/meta.h"

struct fixture {
	char dir[32];
	struct meta *meta;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/wd-scan-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	assert_int_equal(meta_open(f->dir, &f->meta, NULL), 0);
	*state = f;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	meta_close(f->meta);
	nftw(f->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static void put(struct fixture *f, const char *key, const char *value)
{
	meta_put(f->meta, META_COOKIES, key, strlen(key), value, strlen(value));
}

static void del(struct fixture *f, const char *key)
{
	meta_del(f->meta, META_COOKIES, key, strlen(key));
}

struct seen {
	char text[256];
	int left;
};

static bool note(void *arg, const void *key, size_t key_len, const void *value, size_t len)
{
	struct seen *s = arg;
	size_t used = strlen(s->text);

	snprintf(s->text + used, sizeof(s->text) - used, "%.*s=%.*s ", (int)key_len, (const char *)key,
		(int)len, (const char *)value);
	return --s->left != 0;
}

static const char *scan(struct fixture *f, const char *from, size_t prefix_len, int limit)
{
	static struct seen s;

	s = (struct seen){"", limit};
	assert_int_equal(
		meta_scan_below(f->meta, META_COOKIES, from, strlen(from), prefix_len, note, &s), 0);
	return s.text;
}

static void both_kinds_are_one_sequence(void **state)
{
	struct fixture *f = *state;

	put(f, "a1", "c");
	put(f, "a3", "c");
	put(f, "a5", "c");
	put(f, "b1", "c");
	assert_int_equal(meta_flush(f->meta), 0);
	put(f, "a0", "u");
	put(f, "a3", "u");
	put(f, "a4", "u");
	put(f, "a9", "u");
	put(f, "b0", "u");
	del(f, "a5");
	assert_string_equal(scan(f, "a", 1, 0), "a0=u a1=c a3=u a4=u a9=u ");
	assert_string_equal(scan(f, "a3", 1, 0), "a3=u a4=u a9=u ");
	assert_string_equal(scan(f, "b", 1, 0), "b0=u b1=c ");
	assert_string_equal(scan(f, "a", 1, 2), "a0=u a1=c ");
	assert_string_equal(scan(f, "c", 1, 0), "");
	assert_int_equal(meta_flush(f->meta), 0);
	assert_string_equal(scan(f, "a", 1, 0), "a0=u a1=c a3=u a4=u a9=u ");
}

static void the_newest_change_wins(void **state)
{
	struct fixture *f = *state;

	put(f, "a1", "1");
	put(f, "a1", "2");
	del(f, "a1");
	assert_string_equal(scan(f, "a", 1, 0), "");
	put(f, "a1", "3");
	assert_string_equal(scan(f, "a", 1, 0), "a1=3 ");
}

static bool count(void *arg, const void *key, size_t key_len, const void *value, size_t len)
{
	int *n = arg, i;

	assert_int_equal(sscanf((const char *)key, "d%06d", &i), 1);
	assert_int_equal(i, *n);
	(*n)++;
	return true;
}

static void scans_during_commits_miss_and_repeat_nothing(void **state)
{
	struct fixture *f = *state;
	char key[16];

	for (int i = 0; i < 20000; i++) {
		snprintf(key, sizeof(key), "d%06d", i);
		put(f, key, "x");
		if (i % 1000 == 999) {
			int n = 0;

			assert_int_equal(meta_scan_below(f->meta, META_COOKIES, "d", 1, 1, count, &n), 0);
			assert_int_equal(n, i + 1);
		}
	}
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(both_kinds_are_one_sequence),
		T(the_newest_change_wins),
		T(scans_during_commits_miss_and_repeat_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
