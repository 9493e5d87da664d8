/* SPDX-License-Identifier: Apache-2.0 */
/* Pinned versions, over a directory: names and versions come from the manifest alone. */
#include "agent/test/origin_fixture.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/origin_manifest.h"

struct setup {
	char dir[64];
	struct origin *origin;
};

static void write_manifest(const struct setup *s, const char *text, size_t len)
{
	char path[200];
	FILE *out;

	snprintf(path, sizeof(path), "%s/" MANIFEST_DIR "v1" MANIFEST_SUFFIX, s->dir);
	out = fopen(path, "we");
	assert_non_null(out);
	assert_int_equal(fwrite(text, 1, len, out), len);
	fclose(out);
}

static int begin(void **state)
{
	struct setup *s = calloc(1, sizeof(*s));
	struct origin_options options = {.version = "v1"};
	struct wd_err err = WD_ERR_INIT;
	char path[200];

	snprintf(s->dir, sizeof(s->dir), "/tmp/wd-manifest-XXXXXX");
	if (!mkdtemp(s->dir) || origins_start(1, 1, &err) < 0)
		return -1;
	snprintf(path, sizeof(path), "%s/.warpdrive", s->dir);
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "%s/.warpdrive/versions", s->dir);
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "file://%s", s->dir);
	*state = s;
	return origin_open(path, &options, &s->origin, &err);
}

static int drop(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st, (void)kind, (void)ftw;
	return remove(path);
}

static int end(void **state)
{
	struct setup *s = *state;

	origin_close(s->origin);
	origins_stop();
	nftw(s->dir, drop, 16, FTW_DEPTH | FTW_PHYS);
	free(s);
	return 0;
}

#define THREE                                                                                      \
	"{\"key\":\"a\",\"size\":1,\"mtime\":5,\"etag\":\"\\\"x\\\"\"}\n"                          \
	"{\"key\":\"d/b\",\"size\":2,\"mtime\":\"2026-01-02T03:04:05.000000006Z\"}\n"              \
	"{\"key\":\"d/e/\",\"size\":0}\n"

static void it_is_the_only_truth(void **state)
{
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	struct listed l = {0};
	enum origin_kind kind;
	struct version v;
	bool is_complete = false;

	write_manifest(s, THREE, strlen(THREE));
	assert_ok(origin_check(s->origin, &err));
	assert_true(origin_lists_recursively(s->origin));
	assert_ok(origin_list(s->origin, "", true, 0, listed_add, &l, &is_complete, &err));
	assert_string_equal(l.keys, "a d/b d/e/ ");
	assert_true(is_complete);
	l = (struct listed){0};
	assert_ok(origin_list(s->origin, "", false, 0, listed_add, &l, &is_complete, &err));
	assert_string_equal(l.keys, "a d/ ");
	assert_ok(origin_stat(s->origin, "d/b", &v, &err));
	assert_true(v.size == 2 && v.mtime_ns == 6 && v.is_bound);
	assert_ok(origin_probe(s->origin, "d", &kind, &v, &err));
	assert_int_equal(kind, ORIGIN_PREFIX);
	assert_ok(origin_probe(s->origin, "a", &kind, &v, &err));
	assert_int_equal(kind, ORIGIN_OBJECT);
	assert_string_equal(v.etag, "\"x\"");
	/* it does exist, but not in this version */
	assert_int_equal(origin_stat(s->origin, ".warpdrive/versions/v1.jsonl", &v, &err), -ENOENT);
	assert_ok(origin_probe(s->origin, "nothing", &kind, &v, &err));
	assert_int_equal(kind, ORIGIN_NONE);
}

static void one_of_many_chunks_is_read_to_its_end(void **state)
{
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	const size_t lines = 100000, each = 90;
	char *text = malloc(lines * each + 1);
	size_t len = 0;
	struct version v;

	assert_non_null(text);
	for (size_t i = 0; i < lines; i++)
		len += (size_t)snprintf(text + len, lines * each + 1 - len,
			"{\"key\":\"directory/file-%06zu\",\"size\":%zu,\"mtime\":1795827287,\"etag\":\"\\\"0123456789\\\"\"}\n", i, i);
	assert_true(len > 8 << 20); /* three requests */
	write_manifest(s, text, len);
	free(text);
	assert_ok(origin_stat(s->origin, "directory/file-099999", &v, &err));
	assert_int_equal(v.size, 99999);
}

static void what_is_wrong_with_it_is_said(void **state)
{
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	struct listed l = {0};

	assert_int_equal(origin_check(s->origin, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "no such version"));
	err = (struct wd_err)WD_ERR_INIT;
	write_manifest(s, THREE, strlen(THREE) - 20); /* cut */
	assert_int_equal(origin_list(s->origin, "", true, 0, listed_add, &l, NULL, &err), -EIO);
	assert_non_null(strstr(err.msg, "v1.jsonl"));
	err = (struct wd_err)WD_ERR_INIT;
	write_manifest(s, "{\"key\":3}\n", 10);
	assert_int_equal(origin_list(s->origin, "", true, 0, listed_add, &l, NULL, &err), -EIO);
	assert_non_null(strstr(err.msg, "v1.jsonl"));
}

static void names_are_plain(void **state)
{
	struct origin_options options = {.version = "v1", .index = "index"};
	struct wd_err err = WD_ERR_INIT;
	struct origin *o;

	assert_true(manifest_is_name("2026-11_b.1"));
	assert_false(manifest_is_name(""));
	assert_false(manifest_is_name(".v"));
	assert_false(manifest_is_name("a/b"));
	assert_int_equal(origin_open("http://h/", &options, &o, &err), -EINVAL);
	options = (struct origin_options){.version = "../x"};
	assert_int_equal(origin_open("http://h/", &options, &o, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "../x"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(it_is_the_only_truth, begin, end),
		cmocka_unit_test_setup_teardown(one_of_many_chunks_is_read_to_its_end, begin, end),
		cmocka_unit_test_setup_teardown(what_is_wrong_with_it_is_said, begin, end),
		cmocka_unit_test(names_are_plain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
