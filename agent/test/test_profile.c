/* SPDX-License-Identifier: Apache-2.0 */
/* Bundles of settings: what they set, and what wins over them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "agent/mount_options.h"
#include "agent/profile.h"

static void every_value_of_every_profile_can_be_set(void **state)
{
	for (const struct profile_value *v = profile_values; v->profile; v++) {
		struct settings s = {0};
		struct wd_err err = WD_ERR_INIT;

		assert_int_equal(wd_config_defaults(settings_keys, &s, &err), 0);
		assert_int_equal(profile_apply(&s, v->profile, &err), 0);
		assert_int_equal(profile_check(v->profile, &err), 0);
		wd_config_free(settings_keys, &s);
	}
}

static void an_unknown_one_is_refused_with_the_known_ones(void **state)
{
	struct wd_err err = WD_ERR_INIT;

	assert_int_equal(profile_check("nope", &err), -EINVAL);
	assert_non_null(strstr(err.msg, "checkpoints"));
	assert_int_equal(profile_check("", &err), 0);
}

static void parse(const struct settings *s, const char *options, struct mount_options **ret_options)
{
	struct wd_err err = WD_ERR_INIT;
	char text[300];

	snprintf(text, sizeof(text), "{\"url\":\"s3://b\",\"options\":{%s}}", options);
	assert_int_equal(mount_options_parse(text, strlen(text), s, ret_options, &err), 0);
}

static void a_mounts_profile_gives_way_to_its_other_options(void **state)
{
	struct settings s = {0};
	struct wd_err err = WD_ERR_INIT;
	struct mount_options *o;
	const char *bad = "{\"url\":\"s3://b\",\"options\":{\"profile\":\"nope\"}}";

	assert_int_equal(wd_config_defaults(settings_keys, &s, &err), 0);
	parse(&s, "", &o);
	assert_int_equal(o->prefetch, PREFETCH_AUTO);
	assert_int_equal(o->metadata_ttl, 60000);
	mount_options_free(o);
	parse(&s, "\"profile\":\"checkpoints\"", &o);
	assert_int_equal(o->prefetch, PREFETCH_FILE);
	assert_int_equal(o->metadata_ttl, 5000);
	mount_options_free(o);
	/* whatever their order */
	parse(&s, "\"metadata-ttl\":\"1s\",\"profile\":\"checkpoints\",\"prefetch\":\"off\"", &o);
	assert_int_equal(o->prefetch, PREFETCH_OFF);
	assert_int_equal(o->metadata_ttl, 1000);
	mount_options_free(o);
	assert_int_equal(mount_options_parse(bad, strlen(bad), &s, &o, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "inference"));
	wd_config_free(settings_keys, &s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_value_of_every_profile_can_be_set),
		cmocka_unit_test(an_unknown_one_is_refused_with_the_known_ones),
		cmocka_unit_test(a_mounts_profile_gives_way_to_its_other_options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
