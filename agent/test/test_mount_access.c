/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a mount is told when its origin does not let it in, and what happens when the origin is away: by a whole
 * agent, with origins that answer as they are told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "agent/test/agent_fixture.h"
#include "agent/test/http_origin.h"

#define S3_ERROR(code) "<?xml version='1.0'?><Error><Code>" code "</Code><Message>m</Message></Error>"

static struct rig rig;

static int start(void **state)
{
	rig_start(&rig, "request-deadline=5s", NULL);
	return 0;
}

static int stop(void **state)
{
	rig_stop(&rig);
	return 0;
}

/* Tries to mount the origin at this port; host NULL: 127.0.0.1. */
static int try_mount(struct rig_mount *m, bool is_s3, const char *host, int port, bool may_be_down)
{
	static uint64_t next_id = 100;
	char description[600];

	if (is_s3)
		snprintf(description, sizeof(description),
			"{\"url\":\"s3://bkt/p\",\"may_be_down\":%s,\"options\":{\"endpoint\":\"http://%s:%d\","
			"\"path-style\":\"true\"},\"credentials\":{\"access_key\":\"AK\",\"secret_key\":\"SK\","
			"\"session_token\":\"ST\"}}",
			may_be_down ? "true" : "false", host ? host : "127.0.0.1", port);
	else
		snprintf(description, sizeof(description),
			"{\"url\":\"http://%s:%d/d/\",\"may_be_down\":%s,\"options\":{}}", host ? host : "127.0.0.1",
			port, may_be_down ? "true" : "false");
	return rig_try_mount_of(&rig, m, next_id++, description);
}

static void refusals_tell_bad_credentials_from_missing_rights(void **state)
{
	static const struct {
		bool is_s3;
		int status;
		const char *body;
		int rc;
	} rows[] = {
		{true, 403, S3_ERROR("AccessDenied"), -EACCES},
		{true, 403, S3_ERROR("InvalidAccessKeyId"), -EKEYREJECTED},
		{true, 403, S3_ERROR("SignatureDoesNotMatch"), -EKEYREJECTED},
		{true, 403, S3_ERROR("RequestTimeTooSkewed"), -EKEYREJECTED},
		{true, 400, S3_ERROR("ExpiredToken"), -EKEYREJECTED},
		{true, 400, S3_ERROR("InvalidToken"), -EKEYREJECTED},
		{true, 401, "", -EKEYREJECTED},
		{true, 403, "", -EACCES},
		{true, 404, S3_ERROR("NoSuchBucket"), -ENOENT},
		{false, 401, "", -EKEYREJECTED},
		{false, 403, "", -EACCES},
		{false, 404, "", -ENOENT},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct http_origin *server = http_origin_start();
		struct rig_mount m;
		int rc;

		http_origin_fail_always(server, FAULT_STATUS, rows[i].status, rows[i].body);
		rc = try_mount(&m, rows[i].is_s3, NULL, server->port, true);
		rig_drop_mount(&m);
		http_origin_stop(server);
		if (rc != rows[i].rc)
			fail_msg("%d '%s': %d (%s)", rows[i].status, rows[i].body, rc, rig.call_text);
	}
}

static void an_origin_that_is_away_is_mounted_only_where_that_is_wanted(void **state)
{
	struct http_origin *server = http_origin_start();
	struct rig_mount m;
	int port = server->port;

	for (int is_s3 = 0; is_s3 < 2; is_s3++) {
		http_origin_fail_always(server, FAULT_STATUS, 503, "");
		assert_int_equal(try_mount(&m, is_s3, NULL, port, false), -EIO);
		rig_drop_mount(&m);
		assert_int_equal(try_mount(&m, is_s3, NULL, port, true), 0);
		rig_umount(&m);
	}
	http_origin_stop(server);
	assert_int_equal(try_mount(&m, true, NULL, port, false), -EIO); /* nobody listens */
	rig_drop_mount(&m);
	assert_int_equal(try_mount(&m, true, NULL, port, true), 0);
	rig_umount(&m);
	assert_int_equal(try_mount(&m, false, "no-such-host.invalid", 80, false), -ENOENT);
	rig_drop_mount(&m);
	assert_int_equal(try_mount(&m, false, "no-such-host.invalid", 80, true), 0);
	rig_umount(&m);
}

static void an_address_that_is_blocked_is_no_origin_that_is_away(void **state)
{
	struct rig_mount m;

	assert_int_equal(try_mount(&m, true, "169.254.169.254", 80, true), -EACCES);
	assert_non_null(strstr(rig.call_text, "blocked-addresses"));
	rig_drop_mount(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refusals_tell_bad_credentials_from_missing_rights),
		cmocka_unit_test(an_origin_that_is_away_is_mounted_only_where_that_is_wanted),
		cmocka_unit_test(an_address_that_is_blocked_is_no_origin_that_is_away),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
