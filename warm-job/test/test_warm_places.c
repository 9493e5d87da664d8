/* SPDX-License-Identifier: Apache-2.0 */
/* From what the user names to mount and path. Nothing is mounted: mountinfo is a file of the test's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <limits.h>
#include <sys/stat.h>

#include "warm-job/ctl_warm_places.h"
#include "warm-job/test/fake_agent.h"

static struct fake_agent agent = {
	.status = "{\"mounts\":[{\"id\":1,\"target\":\"/node/a\",\"url\":\"s3://b/d/\"},"
		  "{\"id\":2,\"target\":\"/node/a/deep\",\"url\":\"s3://b/d/deep\"},{\"id\":3,\"url\":7},{},"
		  "{\"id\":4,\"target\":\"/node/twice\",\"url\":\"s3://b/old\"},"
		  "{\"id\":5,\"target\":\"/node/twice\",\"url\":\"s3://b/new\"}]}"};
static char mountinfo[128];

static int setup(void **state)
{
	fake_start(&agent);
	snprintf(mountinfo, sizeof(mountinfo), "%s/mountinfo", agent.dir);
	return 0;
}

static int teardown(void **state)
{
	fake_stop(&agent);
	fake_free(&agent);
	return 0;
}

static void write_mounts(const char *text)
{
	FILE *out = fopen(mountinfo, "we");

	assert_non_null(out);
	fputs(text, out);
	fclose(out);
}

/* The one target of `what` (in lists, a line) is `target`, and its path below it `path` (NULL: all of it). */
static void expect(struct warm_places *p, const char *target, const char *path)
{
	const struct warm_target *t = &p->targets[p->ntargets - 1];

	assert_string_equal(t->target, target);
	if (path)
		assert_string_equal(t->paths[t->npaths - 1], path);
	else
		assert_true(t->is_whole);
}

static int add_lines(struct warm_places *p, const char *base, const char *text, struct wd_err *err)
{
	FILE *in = fmemopen((char *)(uintptr_t)text, strlen(text), "r");
	int r = warm_places_add_lines(p, base, in, err);

	fclose(in);
	return r;
}

static void paths_are_normalised_by_their_text(void **state)
{
	static const struct {
		const char *from, *path, *want;
	} rows[] = {{"/x", "y", "/x/y"}, {"/x", "/y//z/", "/y/z"}, {"/x", "./a/.././b", "/x/b"}, {"/x", "../../..", "/"},
		{"/", "..a/.b", "/..a/.b"}, {"/x/y", "", "/x/y"}};
	char out[PATH_MAX], longer[2 * PATH_MAX];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_true(warm_normalise(rows[i].from, rows[i].path, out));
		assert_string_equal(out, rows[i].want);
	}
	memset(longer, 'a', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	assert_false(warm_normalise("/", longer, out));
}

static void what_the_agent_alone_sees_is_found_by_its_mounts(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct warm_places p;

	write_mounts("22 20 0:41 / / rw - ext4 /dev/a rw\n");
	assert_int_equal(warm_places_open(&p, agent.dir, mountinfo, &err), 0);
	assert_int_equal(warm_places_add(&p, "/node/a", &err), 0);
	expect(&p, "/node/a", NULL);
	assert_int_equal(warm_places_add(&p, "/node/a/x/y", &err), 0);
	expect(&p, "/node/a", "x/y");
	assert_int_equal(p.ntargets, 1);
	assert_int_equal(warm_places_add(&p, "/node/a/deep/y", &err), 0);
	expect(&p, "/node/a/deep", "y");
	assert_int_equal(p.ntargets, 2);
	assert_int_equal(warm_places_add(&p, "/node/ab", &err), -ENOENT);
	assert_non_null(strstr(err.msg, "'/node/ab': not inside a WarpDrive mount"));
	warm_places_close(&p);
}

static void a_url_is_that_of_a_mount_or_below(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct warm_places p;

	write_mounts("");
	assert_int_equal(warm_places_open(&p, agent.dir, mountinfo, &err), 0);
	assert_int_equal(warm_places_add(&p, "s3://b/d", &err), 0);
	expect(&p, "/node/a", NULL);
	assert_int_equal(warm_places_add(&p, "s3://b/d/x", &err), 0);
	expect(&p, "/node/a", "x");
	assert_int_equal(warm_places_add(&p, "s3://b/d/deep/", &err), 0);
	expect(&p, "/node/a/deep", NULL);
	assert_int_equal(warm_places_add(&p, "s3://b/other", &err), -ENOENT);
	assert_non_null(strstr(err.msg, "'s3://b/other': not mounted on this node: mount it first"));
	warm_places_close(&p);
}

static void a_bind_mount_of_a_part_is_found_at_the_agents_target(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct warm_places p;
	char text[512], part[160];

	snprintf(part, sizeof(part), "%s/part", agent.dir);
	assert_int_equal(mkdir(part, 0700), 0);
	snprintf(text, sizeof(text),
		"23 20 0:50 / /node/a ro - fuse.warpdrive s3://b/d ro\n"
		"24 20 0:50 /train/x %s ro - fuse.warpdrive s3://b/d ro\n", part);
	write_mounts(text);
	assert_int_equal(warm_places_open(&p, agent.dir, mountinfo, &err), 0);
	assert_int_equal(warm_places_add(&p, part, &err), 0);
	expect(&p, "/node/a", "train/x");
	rmdir(part);
	warm_places_close(&p);
}

static void a_part_whose_root_is_not_seen_is_refused_with_the_reason(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct warm_places p;
	char text[256];

	snprintf(text, sizeof(text), "24 20 0:50 /sub %s ro - fuse.warpdrive s3://x/y ro\n", agent.dir);
	write_mounts(text);
	assert_int_equal(warm_places_open(&p, "/no such directory", mountinfo, &err), 0);
	assert_int_equal(warm_places_add(&p, agent.dir, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.msg, "(a subPath)"));
	assert_int_equal(warm_places_add(&p, "s3://x/y", &err), -EOPNOTSUPP);
	warm_places_close(&p);
}

static void two_mounts_of_one_name_are_not_asked_for_by_it(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct warm_places p;

	/* it is not to be seen here either, so that no control file is tried */
	write_mounts("");
	assert_int_equal(warm_places_open(&p, agent.dir, mountinfo, &err), 0);
	assert_int_equal(warm_places_add(&p, "/node/twice/x", &err), -ENOENT);
	assert_int_equal(warm_places_add(&p, "s3://b/new", &err), -ENOENT);
	/* here it is, and its control file is what is tried */
	warm_places_close(&p);
	write_mounts("24 20 0:50 / /node/twice ro - fuse.warpdrive s3://b/new ro\n");
	assert_int_equal(warm_places_open(&p, agent.dir, mountinfo, &err), 0);
	assert_int_equal(warm_places_add(&p, "s3://b/new", &err), -ENOENT);
	assert_non_null(strstr(err.msg, "look for '/node/twice'"));
	assert_int_equal(p.ntargets, 0);
	warm_places_close(&p);
}

static void what_is_not_there_is_told_at_once(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct warm_places p;
	char text[256], path[160];

	snprintf(text, sizeof(text), "24 20 0:50 / %s ro - fuse.warpdrive s3://x/y ro\n", agent.dir);
	snprintf(path, sizeof(path), "%s/missing", agent.dir);
	write_mounts(text);
	assert_int_equal(warm_places_open(&p, agent.dir, mountinfo, &err), 0);
	assert_int_equal(warm_places_add(&p, path, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "No such file"));
	warm_places_close(&p);
}

static void lists_have_relative_and_absolute_paths(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct warm_places p;

	write_mounts("");
	assert_int_equal(warm_places_open(&p, agent.dir, mountinfo, &err), 0);
	assert_int_equal(add_lines(&p, "s3://b/d/train", "a\n\n./b c/d\n../e\n/node/a/deep/f\n/node/a/g", &err), 0);
	assert_int_equal(p.ntargets, 2);
	assert_int_equal(p.targets[0].npaths, 4);
	assert_string_equal(p.targets[0].paths[0], "train/a");
	assert_string_equal(p.targets[0].paths[1], "train/b c/d");
	assert_string_equal(p.targets[0].paths[2], "e");
	assert_string_equal(p.targets[0].paths[3], "g");
	expect(&p, "/node/a/deep", "f");
	assert_false(p.targets[0].is_whole);
	assert_int_equal(add_lines(&p, NULL, "/elsewhere/x\n", &err), -ENOENT);
	assert_non_null(strstr(err.msg, "/elsewhere/x"));
	warm_places_close(&p);
}

static void no_agent_is_one_line_that_says_why(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct warm_places p;

	write_mounts("");
	assert_int_equal(warm_places_open(&p, "/no such directory", mountinfo, &err), 0);
	assert_int_equal(warm_places_add(&p, "/tmp", &err), -ENOENT);
	assert_non_null(strstr(err.msg, "no agent can be asked: connect to '/no such directory/agent.sock'"));
	err = WD_ERR_INIT;
	assert_int_equal(warm_places_add(&p, "s3://b/d", &err), -ENOENT);
	assert_non_null(strstr(err.msg, "no agent can be asked"));
	warm_places_close(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths_are_normalised_by_their_text),
		cmocka_unit_test(what_the_agent_alone_sees_is_found_by_its_mounts),
		cmocka_unit_test(a_url_is_that_of_a_mount_or_below),
		cmocka_unit_test(a_bind_mount_of_a_part_is_found_at_the_agents_target),
		cmocka_unit_test(a_part_whose_root_is_not_seen_is_refused_with_the_reason),
		cmocka_unit_test(two_mounts_of_one_name_are_not_asked_for_by_it),
		cmocka_unit_test(what_is_not_there_is_told_at_once),
		cmocka_unit_test(lists_have_relative_and_absolute_paths),
		cmocka_unit_test(no_agent_is_one_line_that_says_why),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
