/* SPDX-License-Identifier: Apache-2.0 */
/* The support archive: what gets in, what never does. tar(1) is the judge of its form. */
#include "warm-job/test/doctor_fixture.h"

#include <errno.h>

#include "warm-job/ctl_bundle.h"
#include "warm-job/ctl_scrub.h"

static void assert_scrubbed(const char *from, const char *to)
{
	char text[512];

	assert_int_equal(strlen(from), strlen(to));
	snprintf(text, sizeof(text), "%s", from);
	ctl_scrub(text, strlen(text));
	assert_string_equal(text, to);
}

static void secrets_are_blanked_and_the_rest_stays(void **state)
{
	(void)state;
	assert_scrubbed("http://user:pa@ss@host/x", "http://**********@host/x");
	assert_scrubbed("see http://host/a@b and //c", "see http://host/a@b and //c");
	assert_scrubbed("AWS_SECRET_ACCESS_KEY=abc\nx", "AWS_SECRET_ACCESS_KEY=***\nx");
	assert_scrubbed("{\"secret_key\": \"a\\\"b\", \"n\": 1}", "{\"secret_key\": \"****\", \"n\": 1}");
	assert_scrubbed("\"msg\":\"{\\\"token\\\":\\\"abc\\\"}\"", "\"msg\":\"{\\\"token\\\":\\\"***\\\"}\"");
	assert_scrubbed("?X-Amz-Signature=ab12&x=1", "?X-Amz-Signature=****&x=1");
	assert_scrubbed("Authorization: AWS4 abc", "Authorization: ********");
	assert_scrubbed("peer-token: 'x y'\nz: 1", "peer-token: '***'\nz: 1");
	assert_scrubbed("no secret here, no token either", "no secret here, no token either");
	assert_scrubbed("{\"credentials\": {\"a\": 1}}", "{\"credentials\": {\"a\": 1}}");
	assert_scrubbed("password", "password");
	assert_scrubbed("password=", "password=");
	assert_scrubbed("//@", "//@");
	assert_scrubbed("token:\"", "token:\"");
	assert_scrubbed("token:\\\"", "token:\\\"");
}

static void every_prefix_of_a_text_can_be_scrubbed(void **state)
{
	static const char text[] = "http://u:p@h \"secret\\\\\": \\\"a\\\\\", token='x' //a@b@c?signature=q\n"
				   "password: \"\\";

	(void)state;
	/* on the heap, of exact length: a sanitizer sees a step too far */
	for (size_t n = 0; n < sizeof(text); n++) {
		char *copy = malloc(n ? n : 1);

		memcpy(copy, text, n);
		ctl_scrub(copy, n);
		free(copy);
	}
}

static int run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int run(const char *fmt, ...)
{
	char command[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	return system(command);
}

#define CANARY "c4n4ry"

static void an_archive_holds_what_helps_and_no_secret(void **state)
{
	struct machine *m = *state;
	struct wd_err err = WD_ERR_INIT;
	char path[128];
	struct stat st;

	setenv("AWS_SECRET_ACCESS_KEY", CANARY, 1);
	json_object_set_new(m->d.agent_check.json, "settings",
		json_string("cache-dir: /cache\npeer-secret: " CANARY "\nproxy: http://u:" CANARY "@p/\n"));
	json_object_set_new(m->d.agent.json, "note", json_string("https://joe:" CANARY "@host/"));
	put(m, "/run/wd/agent.log",
		"{\"level\":\"warn\",\"msg\":\"GET http://u:" CANARY "@h/ 403\"}\n{\"msg\":\"fine\"}\n");
	put(m, "/run/wd/unrelated.txt", "%s", CANARY);
	put(m, "/proc/100/environ", "SECRET=" CANARY);
	doctor_note(&m->d, DOCTOR_FAIL, "origin of /data", "x", "open 'http://u:%s@h/'", CANARY);
	snprintf(path, sizeof(path), "%s/b.tar", m->root);
	assert_int_equal(ctl_bundle_write(&m->d, path, &err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	unsetenv("AWS_SECRET_ACCESS_KEY");

	assert_int_equal(run("mkdir %s/x && tar -xf %s -C %s/x", m->root, path, m->root), 0);
	assert_int_not_equal(run("grep -r " CANARY " %s/x", m->root), 0);
	assert_int_equal(run("cd %s/x/warpdrive-doctor && grep -q '^cache-dir: /cache' settings.yaml && "
			     "grep -q warpdrive_mounts metrics.txt && grep -q FAIL report.txt && "
			     "grep -q '\"verdict\": \"FAIL\"' report.json && grep -q fine logs/agent.log && "
			     "grep -q '\"server_pid\": 300' keeper-status.json && "
			     "grep -q ' /data ' mountinfo.txt && ! grep -q ext4 mountinfo.txt && "
			     "grep -q max_pages_limit kernel.txt && grep -q s3://b/d/ origins.json",
				 m->root),
		0);
}

static void the_last_part_of_a_long_log_goes_in_by_whole_lines(void **state)
{
	struct machine *m = *state;
	struct wd_err err = WD_ERR_INIT;
	char path[128];

	assert_int_equal(run("yes '0123456789 a line of the log' | head -c 3000000 >%s/run/wd/keeper.log; "
			     "echo '\nthe end' >>%s/run/wd/keeper.log",
				 m->root, m->root),
		0);
	snprintf(path, sizeof(path), "%s/b.tar", m->root);
	assert_int_equal(ctl_bundle_write(&m->d, path, &err), 0);
	assert_int_equal(run("tar -xOf %s warpdrive-doctor/logs/keeper.log >%s/log && "
			     "[ $(wc -c <%s/log) -le 1048576 ] && [ $(wc -c <%s/log) -gt 1000000 ] && "
			     "head -n 1 %s/log | grep -qx '0123456789 a line of the log' && "
			     "tail -n 1 %s/log | grep -qx 'the end'",
				 path, m->root, m->root, m->root, m->root, m->root),
		0);
}

static void an_existing_file_is_never_overwritten(void **state)
{
	struct machine *m = *state;
	struct wd_err err = WD_ERR_INIT;
	char path[128];

	put(m, "/precious", "keep me");
	snprintf(path, sizeof(path), "%s/precious", m->root);
	assert_int_equal(ctl_bundle_write(&m->d, path, &err), -EEXIST);
	assert_non_null(strstr(err.msg, "choose a new name"));
	assert_int_equal(run("grep -qx 'keep me' %s", path), 0);
}

static void a_failed_archive_leaves_no_file(void **state)
{
	struct machine *m = *state;
	struct wd_err err = WD_ERR_INIT;

	assert_int_equal(ctl_bundle_write(&m->d, "/nonexistent/b.tar", &err), -ENOENT);
	assert_non_null(strstr(err.msg, "/nonexistent/b.tar"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(secrets_are_blanked_and_the_rest_stays),
		cmocka_unit_test(every_prefix_of_a_text_can_be_scrubbed),
		MACHINE_TEST(an_archive_holds_what_helps_and_no_secret),
		MACHINE_TEST(the_last_part_of_a_long_log_goes_in_by_whole_lines),
		MACHINE_TEST(an_existing_file_is_never_overwritten),
		MACHINE_TEST(a_failed_archive_leaves_no_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
