/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is said of a mount that is ill: by a whole agent, whose origin goes away, refuses, and comes back. The same
 * is asked for as warpdrive-ctl does (STATUS) and as Prometheus does (the metrics in a CHECK).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <jansson.h>

#include "agent/condition.h"
#include "agent/test/agent_fixture.h"
#include "agent/test/http_origin.h"

static struct rig rig;
static struct http_origin *server;
static struct wd_msg msg;
static const char *_Atomic known; /* the one token that is taken; NULL: any */

static const char *guard(const char *head)
{
	char line[200];

	if (known && (!http_origin_header(head, "Authorization", line, sizeof(line)) ||
			     strcmp(line + strlen("Bearer "), known) != 0))
		return "AccessDenied";
	return NULL;
}

static int start(void **state)
{
	rig_start(&rig, "request-deadline=1s", NULL);
	return 0;
}

static int stop(void **state)
{
	rig_stop(&rig);
	return 0;
}

static int begin(void **state)
{
	known = NULL;
	server = http_origin_start();
	http_origin_put(server, "/d/", "[]", 2, NULL, "application/json");
	http_origin_put(server, "/d/f", "hello", 5, "\"v\"", NULL);
	http_origin_guard(server, guard);
	return 0;
}

static int end(void **state)
{
	http_origin_stop(server);
	return 0;
}

static const char *describe(const char *token)
{
	static char text[400];

	snprintf(text, sizeof(text),
		"{\"url\":\"http://127.0.0.1:%d/d/\",\"may_be_down\":true,\"credentials\":{\"bearer_token\":\"%s\"}}",
		server->port, token);
	return text;
}

static void mount_as(struct rig_mount *m, const char *token)
{
	static uint64_t next_id = 100;

	if (rig_try_mount_of(&rig, m, next_id++, describe(token)) < 0)
		fail_msg("mount as '%s': %s", token, rig.call_text);
}

/* Asks as warpdrive-ctl does. */
static json_t *ask(uint16_t type)
{
	struct wd_err err = WD_ERR_INIT;
	char path[128], text[65536];
	ssize_t n;
	json_t *root;
	int sock, fd;

	snprintf(path, sizeof(path), "%s/run/agent.sock", rig.dir);
	sock = wd_client_connect(path, WD_ROLE_CTL, &err);
	assert_true(sock >= 0);
	wd_msg_start(&msg, type, 1);
	if (type == WD_MSG_CHECK)
		wd_put_u64(&msg, 0);
	assert_int_equal(wd_client_call(sock, &msg, -1, &err), 0);
	fd = wd_msg_take_fd(&msg, 0);
	n = pread(fd, text, sizeof(text), 0);
	assert_true(n > 0);
	root = json_loadb(text, (size_t)n, 0, NULL);
	assert_non_null(root);
	close(fd);
	close(sock);
	return root;
}

/* What the one mount's status says of the part; "" when it is well. */
static const char *said_of(const char *part)
{
	static char text[400];
	json_t *root = ask(WD_MSG_STATUS);
	json_t *mount = json_array_get(json_object_get(root, "mounts"), 0);
	const char *said = json_string_value(json_object_get(json_object_get(mount, "condition"), part));

	assert_non_null(json_object_get(mount, "condition"));
	snprintf(text, sizeof(text), "%s", said ? said : "");
	json_decref(root);
	return text;
}

static void assert_metric(const char *part, int value)
{
	char sample[100];
	json_t *root = ask(WD_MSG_CHECK);
	const char *metrics = json_string_value(json_object_get(root, "metrics"));

	snprintf(sample, sizeof(sample), "warpdrive_volume_condition{part=\"%s\"} %d\n", part, value);
	if (!metrics || !strstr(metrics, sample))
		fail_msg("no '%s'", sample);
	json_decref(root);
}

static void wait_until_well(const char *part)
{
	while (said_of(part)[0]) /* a probe is under way */
		usleep(1000);
}

static void a_mount_that_is_well_has_no_condition(void **state)
{
	struct rig_mount m;

	mount_as(&m, "t");
	for (int part = 0; part < CONDITION_PARTS_COUNT; part++) {
		assert_string_equal(said_of(condition_part_name(part)), "");
		assert_metric(condition_part_name(part), 0);
	}
	rig_umount(&m);
}

static void an_origin_that_is_away_is_said_and_found_well_again(void **state)
{
	struct rig_mount m;

	http_origin_fail_always(server, FAULT_STATUS, 503, "");
	mount_as(&m, "t");
	http_origin_heal(server);
	assert_non_null(strstr(said_of("origin"), "503")); /* the question starts a probe */
	wait_until_well("origin");
	assert_metric("origin", 0);
	rig_umount(&m);
}

static void an_origin_that_goes_away_under_readers_is_said(void **state)
{
	struct rig_mount m;
	uint64_t node;

	mount_as(&m, "t");
	http_origin_fail_always(server, FAULT_STATUS, 503, "");
	assert_int_equal(rig_lookup(&m, &msg, RIG_ROOT, "f", &node), -EIO);
	assert_non_null(strstr(said_of("origin"), "503"));
	assert_metric("origin", 1);
	assert_metric("credentials", 0);
	rig_umount(&m);
}

static void credentials_that_are_refused_are_said(void **state)
{
	struct rig_mount m;
	uint64_t node;

	mount_as(&m, "t");
	http_origin_fail_always(server, FAULT_STATUS, 401, "");
	assert_int_equal(rig_lookup(&m, &msg, RIG_ROOT, "f", &node), -EACCES);
	assert_non_null(strstr(said_of("credentials"), "401"));
	assert_metric("credentials", 1);
	assert_metric("origin", 0);
	rig_umount(&m);
}

/* What is forbidden is one object: the mount is well. */
static void a_forbidden_object_is_no_illness(void **state)
{
	struct rig_mount m;
	uint64_t node;

	mount_as(&m, "t");
	http_origin_fail(server, FAULT_STATUS, 403, "");
	assert_int_equal(rig_lookup(&m, &msg, RIG_ROOT, "f", &node), -EACCES);
	assert_string_equal(said_of("credentials"), "");
	rig_umount(&m);
}

static void new_credentials_that_are_refused_are_said_until_good_ones_come(void **state)
{
	struct rig_mount m;

	known = "first";
	mount_as(&m, "first");
	assert_int_equal(rig_renew(&m, describe("second")), -EACCES);
	assert_non_null(strstr(said_of("credentials"), "not taken over"));
	assert_metric("credentials", 1);
	known = "second";
	assert_int_equal(rig_renew(&m, describe("second")), 0);
	assert_string_equal(said_of("credentials"), "");
	rig_umount(&m);
}

static void a_mount_without_a_server_says_so(void **state)
{
	struct rig_mount m;

	mount_as(&m, "t");
	close(m.sock);
	m.sock = -1;
	while (!said_of("server")[0]) /* the agent reads the end of file */
		usleep(1000);
	assert_metric("server", 1);
	rig_umount(&m);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_mount_that_is_well_has_no_condition),
		TEST(an_origin_that_is_away_is_said_and_found_well_again),
		TEST(an_origin_that_goes_away_under_readers_is_said),
		TEST(credentials_that_are_refused_are_said),
		TEST(a_forbidden_object_is_no_illness),
		TEST(new_credentials_that_are_refused_are_said_until_good_ones_come),
		TEST(a_mount_without_a_server_says_so),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
