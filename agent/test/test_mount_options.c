/* SPDX-License-Identifier: Apache-2.0 */
/* Mount descriptions are untrusted: what is refused, and in which words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "agent/mount_options.h"

static const struct settings settings = {.metadata_ttl = 60000, .negative_ttl = 5000};

static int parse(const char *json, struct mount_options **ret, struct wd_err *err)
{
	return mount_options_parse(json, strlen(json), &settings, ret, err);
}

static void defaults_come_from_the_settings(void **state)
{
	struct mount_options *o;
	struct wd_err err = WD_ERR_INIT;

	assert_int_equal(parse("{\"url\":\"file:///d\"}", &o, &err), 0);
	assert_string_equal(o->url, "file:///d");
	assert_int_equal(o->metadata_ttl, 60000);
	assert_int_equal(o->file_mode, 0444);
	assert_int_equal(o->dir_mode, 0555);
	assert_true(o->is_read_only);
	mount_options_free(o);
}

static void options_of_every_type_are_read(void **state)
{
	struct mount_options *o;
	struct wd_err err = WD_ERR_INIT;
	char text[512];

	assert_int_equal(parse("{\"url\":\"s3://b/p\",\"options\":{\"uid\":\"1000\",\"file-mode\":\"0640\","
			       "\"metadata-ttl\":\"1s\",\"path-style\":\"\",\"endpoint\":\"http://e\"},"
			       "\"credentials\":{\"access_key\":\"AK\",\"secret_key\":\"SK\"}}",
				 &o, &err),
		0);
	assert_int_equal(o->uid, 1000);
	assert_int_equal(o->file_mode, 0640);
	assert_int_equal(o->metadata_ttl, 1000);
	assert_true(o->is_path_style);
	assert_int_equal(mount_options_place(o, text, sizeof(text)), 0);
	assert_non_null(strstr(text, "http://e"));
	assert_int_equal(mount_options_identity(o, text, sizeof(text)), 0);
	assert_string_equal(text, "AK");
	mount_options_free(o);
}

static void a_bad_description_is_refused(const char *json, const char *names)
{
	struct mount_options *o;
	struct wd_err err = WD_ERR_INIT;

	assert_int_equal(parse(json, &o, &err), -EINVAL);
	assert_non_null(strstr(err.msg, names));
}

static void bad_descriptions_are_refused_by_name(void **state)
{
	a_bad_description_is_refused("", "not a JSON object");
	a_bad_description_is_refused("[]", "not a JSON object");
	a_bad_description_is_refused("{}", "no url");
	a_bad_description_is_refused("{\"url\":\"s3://b\",\"options\":{\"nope\":\"1\"}}", "'nope'");
	a_bad_description_is_refused("{\"url\":\"s3://b\",\"options\":{\"nope\":\"1\"}}", "metadata-ttl");
	a_bad_description_is_refused("{\"url\":\"s3://b\",\"options\":{\"uid\":\"-1\"}}", "'uid'");
	a_bad_description_is_refused("{\"url\":\"s3://b\",\"options\":{\"file-mode\":\"9\"}}", "'file-mode'");
	a_bad_description_is_refused("{\"url\":\"s3://b\",\"options\":{\"dir-mode\":\"7777\"}}", "'dir-mode'");
	a_bad_description_is_refused("{\"url\":\"s3://b\",\"options\":{\"ro\":\"false\"}}", "'ro'");
	a_bad_description_is_refused("{\"url\":\"s3://b\",\"options\":{\"uid\":7}}", "not a string");
}

static void identities_hold_no_secret(void **state)
{
	struct mount_options *o;
	char text[512];

	assert_int_equal(parse("{\"url\":\"s3://b\",\"credentials\":{\"access_key\":\"AK\",\"secret_key\":"
			       "\"CANARY\",\"session_token\":\"CANARY\"}}",
				 &o, NULL),
		0);
	assert_int_equal(mount_options_identity(o, text, sizeof(text)), 0);
	assert_null(strstr(text, "CANARY"));
	assert_int_equal(mount_options_place(o, text, sizeof(text)), 0);
	assert_null(strstr(text, "CANARY"));
	mount_options_free(o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_come_from_the_settings),
		cmocka_unit_test(options_of_every_type_are_read),
		cmocka_unit_test(bad_descriptions_are_refused_by_name),
		cmocka_unit_test(identities_hold_no_secret),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
