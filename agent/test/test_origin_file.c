/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/test/origin_fixture.h"

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fault.h"

struct setup {
	char dir[64];
	struct origin *origin;
};

static void put(struct setup *s, const char *name, const void *data, size_t len)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", s->dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	close(fd);
}

static void make_dir(struct setup *s, const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", s->dir, name);
	assert_int_equal(mkdir(path, 0755), 0);
}

static void make_link(struct setup *s, const char *target, const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", s->dir, name);
	assert_int_equal(symlink(target, path), 0);
}

static int begin(void **state)
{
	struct setup *s = calloc(1, sizeof(*s));
	struct wd_err err = WD_ERR_INIT;
	char url[100];

	snprintf(s->dir, sizeof(s->dir), "/tmp/wd-origin-XXXXXX");
	if (!mkdtemp(s->dir) || origins_start(1, 1, &err) < 0)
		return -1;
	snprintf(url, sizeof(url), "file://%s", s->dir);
	*state = s;
	return origin_open(url, NULL, &s->origin, &err);
}

static int drop(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st, (void)kind, (void)ftw;
	return remove(path);
}

static int end(void **state)
{
	struct setup *s = *state;

	wd_fault_arm(NULL);
	origin_close(s->origin);
	origins_stop();
	nftw(s->dir, drop, 16, FTW_DEPTH | FTW_PHYS);
	free(s);
	return 0;
}

static bool has(const struct listed *l, const char *key)
{
	char needle[600];

	snprintf(needle, sizeof(needle), "%s ", key);
	return strncmp(l->keys, needle, strlen(needle)) == 0 ||
	       (snprintf(needle, sizeof(needle), " %s ", key) && strstr(l->keys, needle));
}

static void one_level_is_listed_with_versions(void **state)
{
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	struct listed l = {0};
	bool is_complete = false;
	struct version v;

	put(s, "n\nl", "abc", 3);
	assert_ok(origin_list(s->origin, "", false, 0, listed_add, &l, &is_complete, &err));
	assert_string_equal(l.keys, "n\nl ");
	assert_true(is_complete);
	assert_true(l.last.is_bound);
	assert_int_equal(l.last.size, 3);
	assert_ok(origin_stat(s->origin, "n\nl", &v, &err));
	assert_true(version_equal(&v, &l.last));
	assert_string_equal(v.etag, l.last.etag);
	make_dir(s, "d");
	make_dir(s, "d/e");
	put(s, "d/bad\xff", "", 0);
	put(s, "d/.dot", "", 0);
	l = (struct listed){0};
	assert_ok(origin_list(s->origin, "d/", false, 0, listed_add, &l, NULL, &err));
	assert_int_equal(l.n, 3);
	assert_true(has(&l, "d/bad\xff") && has(&l, "d/.dot") && has(&l, "d/e/"));
	assert_int_equal(
		origin_list(s->origin, "no/", false, 0, listed_add, &l, NULL, &err), -ENOENT);
}

static void symlinks_that_stay_inside_are_followed(void **state)
{
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	enum origin_kind kind;
	struct listed l = {0};
	struct version v;
	char path[200];

	put(s, "f", "abc", 3);
	make_dir(s, "d");
	put(s, "d/g", "x", 1);
	make_link(s, "f", "in");
	make_link(s, "d", "dirlink");
	make_link(s, "../f", "d/up");
	make_link(s, "/etc/passwd", "absolute");
	make_link(s, "../../etc/passwd", "out");
	make_link(s, "nothing", "dangling");
	make_link(s, "circle", "circle");
	make_link(s, ".", "self");
	make_link(s, "..", "d/loop");
	snprintf(path, sizeof(path), "%s/pipe", s->dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_ok(origin_list(s->origin, "", false, 0, listed_add, &l, NULL, &err));
	assert_int_equal(l.n, 4);
	assert_true(has(&l, "f") && has(&l, "in") && has(&l, "d/") && has(&l, "dirlink/"));
	l = (struct listed){0};
	assert_ok(origin_list(s->origin, "dirlink/", false, 0, listed_add, &l, NULL, &err));
	assert_int_equal(l.n, 2);
	assert_true(has(&l, "dirlink/g") && has(&l, "dirlink/up"));
	assert_ok(origin_stat(s->origin, "d/up", &v, &err));
	assert_int_equal(v.size, 3);
	assert_int_equal(origin_stat(s->origin, "out", &v, &err), -ENOENT);
	assert_int_equal(origin_stat(s->origin, "absolute", &v, &err), -ENOENT);
	assert_ok(origin_probe(s->origin, "circle", &kind, &v, &err));
	assert_int_equal(kind, ORIGIN_NONE);
	assert_ok(origin_probe(s->origin, "pipe", &kind, &v, &err));
	assert_int_equal(kind, ORIGIN_NONE);
}

static void keys_cannot_lead_out(void **state)
{
	static const char *const keys[] = {"../x", "..", "d/../../etc/passwd", "/etc/passwd",
		"d//f", "d/./f", ".", "f/", "f/x"};
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	struct version v;

	make_dir(s, "d");
	put(s, "d/f", "x", 1);
	put(s, "f", "x", 1);
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		assert_int_equal(origin_stat(s->origin, keys[i], &v, &err), -ENOENT);
	assert_int_equal(origin_list(s->origin, "../", false, 0, listed_add, &(struct listed){0},
				 NULL, &err),
		-ENOENT);
}

static void probe_tells_files_from_directories(void **state)
{
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	enum origin_kind kind;
	struct version v;

	make_dir(s, "d");
	put(s, "f", "xy", 2);
	assert_ok(origin_probe(s->origin, "d", &kind, &v, &err));
	assert_int_equal(kind, ORIGIN_PREFIX);
	assert_ok(origin_probe(s->origin, "", &kind, &v, &err));
	assert_int_equal(kind, ORIGIN_PREFIX);
	assert_ok(origin_probe(s->origin, "f", &kind, &v, &err));
	assert_int_equal(kind, ORIGIN_OBJECT);
	assert_int_equal(v.size, 2);
	assert_ok(origin_probe(s->origin, "x", &kind, &v, &err));
	assert_int_equal(kind, ORIGIN_NONE);
}

static void ranges_are_read(void **state)
{
	struct setup *s = *state;
	size_t size = 5 * 1024 * 1024 + 3;
	unsigned char *data = malloc(size);
	struct wd_err err = WD_ERR_INIT;
	struct fetch f[6];
	struct version v;

	for (size_t i = 0; i < size; i++)
		data[i] = (unsigned char)(i * 2654435761u >> 11);
	put(s, "f", data, size);
	assert_ok(origin_stat(s->origin, "f", &v, &err));
	for (unsigned i = 0; i < 6; i++) {
		uint64_t offset = i * 1000000;

		fetch_init(&f[i], "f", &v, offset, i == 5 ? size - offset : 999999 + i);
		if (i == 0)
			f[i].get.length = size, free(f[i].data), f[i].data = malloc(size);
		origin_get(s->origin, &f[i].get);
	}
	for (unsigned i = 0; i < 6; i++) {
		assert_int_equal(fetch_wait(&f[i]), 0);
		assert_memory_equal(f[i].data, data + f[i].get.offset, f[i].get.length);
		fetch_free(&f[i]);
	}
	free(data);
}

static void changed_file_is_estale(void **state)
{
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	struct version v;
	struct fetch f;

	put(s, "f", "old", 3);
	assert_ok(origin_stat(s->origin, "f", &v, &err));
	put(s, "f", "longer", 6);
	fetch_init(&f, "f", &v, 0, 3);
	origin_get(s->origin, &f.get);
	assert_int_equal(fetch_wait(&f), -ESTALE);
	assert_says(f.err, "fetch 'file:///tmp/wd-origin-");
	assert_int_equal(f.got, 0);
	fetch_free(&f);
}

/* The file changes while it is read: no byte of the new contents may follow the old ones. */
static struct setup *changing;

static int change_it(void *arg, uint64_t offset, const void *data, size_t len)
{
	if (offset == 0)
		put(changing, "f", "new", 3);
	return fetch_sink(arg, offset, data, len);
}

static void file_that_changes_while_it_is_read_is_estale(void **state)
{
	struct setup *s = *state;
	size_t size = 3 * 1024 * 1024;
	unsigned char *data = calloc(1, size);
	struct wd_err err = WD_ERR_INIT;
	struct version v;
	struct fetch f;

	put(s, "f", data, size);
	assert_ok(origin_stat(s->origin, "f", &v, &err));
	fetch_init(&f, "f", &v, 0, size);
	f.get.sink = change_it;
	changing = s;
	origin_get(s->origin, &f.get);
	assert_int_equal(fetch_wait(&f), -ESTALE);
	assert_int_equal(f.got, 1024 * 1024);
	fetch_free(&f);
	free(data);
}

static void reads_end_with_the_reason(void **state)
{
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	struct version v;
	struct fetch f;

	put(s, "f", "abc", 3);
	assert_ok(origin_stat(s->origin, "f", &v, &err));
	wd_fault_arm("origin_file.read=1");
	fetch_init(&f, "f", &v, 0, 3);
	origin_get(s->origin, &f.get);
	assert_int_equal(fetch_wait(&f), -EIO);
	fetch_free(&f);
	fetch_init(&f, "gone", &v, 0, 3);
	origin_get(s->origin, &f.get);
	assert_int_equal(fetch_wait(&f), -ENOENT);
	fetch_free(&f);
	fetch_init(&f, "f", &v, 0, 3);
	f.sink_rc = -ENOSPC;
	origin_get(s->origin, &f.get);
	assert_int_equal(fetch_wait(&f), -ENOSPC);
	fetch_free(&f);
}

static void check_names_the_missing_directory(void **state)
{
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	struct origin *o = NULL;
	char url[200];

	assert_ok(origin_check(s->origin, &err));
	assert_ok(origin_open("file:///no/such/dir", NULL, &o, &err));
	assert_int_equal(origin_check(o, &err), -ENOENT);
	assert_says(err, "'/no/such/dir': the directory does not exist");
	origin_close(o);
	put(s, "f", "", 0);
	snprintf(url, sizeof(url), "file://%s/f", s->dir);
	assert_ok(origin_open(url, NULL, &o, &err));
	assert_int_equal(origin_check(o, &err), -ENOTDIR);
	origin_close(o);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(one_level_is_listed_with_versions),
		TEST(symlinks_that_stay_inside_are_followed),
		TEST(keys_cannot_lead_out),
		TEST(probe_tells_files_from_directories),
		TEST(ranges_are_read),
		TEST(changed_file_is_estale),
		TEST(file_that_changes_while_it_is_read_is_estale),
		TEST(reads_end_with_the_reason),
		TEST(check_names_the_missing_directory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
