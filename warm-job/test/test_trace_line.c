/* SPDX-License-Identifier: Apache-2.0 */
/* How `trace` shows an event, for people and as JSON. */
#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "warm-job/ctl_trace.h"

static Warpdrive__V1__TraceEvent event(void)
{
	Warpdrive__V1__TraceEvent e = WARPDRIVE__V1__TRACE_EVENT__INIT;

	e.time_us = 1700000000123456;
	e.kind = WARPDRIVE__V1__TRACE_KIND__TRACE_READ;
	e.tier = WARPDRIVE__V1__TRACE_TIER__TRACE_ORIGIN;
	e.mode = WARPDRIVE__V1__TRACE_MODE__TRACE_CACHED;
	e.target = "/mnt/set";
	e.pod = "6b1e";
	e.dataset = "s3://bucket/set";
	e.path = "train/a\x1b[2J.tar";
	e.offset = 1048576;
	e.length = 262144;
	e.wait_us = 12345;
	return e;
}

static void expect(const Warpdrive__V1__TraceEvent *e, bool shows_mount, const char *want)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	ctl_trace_print(e, shows_mount, out);
	fclose(out);
	assert_string_equal(text, want);
	free(text);
}

static void line_is_for_people(void **state)
{
	Warpdrive__V1__TraceEvent e = event();

	expect(&e, false, "22:13:20.123 origin read   12 ms   256 KiB @1048576     cached      train/a?[2J.tar\n");
	expect(&e, true, "22:13:20.123 origin read   12 ms   256 KiB @1048576     cached      /mnt/set/train/a?[2J.tar\n");
	e.tier = WARPDRIVE__V1__TRACE_TIER__TRACE_NO_BYTES;
	e.kind = WARPDRIVE__V1__TRACE_KIND__TRACE_OPEN;
	e.code = ESTALE;
	e.wait_us = 999;
	expect(&e, false, "22:13:20.123 -      open  999 us Stale file handle train/a?[2J.tar\n");
}

static void values_of_a_newer_agent_are_shown_as_such(void **state)
{
	Warpdrive__V1__TraceEvent e = event();

	e.tier = 17;
	e.mode = 23;
	expect(&e, false, "22:13:20.123 unknown read   12 ms   256 KiB @1048576     unknown     train/a?[2J.tar\n");
}

static void json_has_every_field(void **state)
{
	static const char *const keys[] = {"time", "event", "mount", "pod", "dataset", "path", "offset", "length", "tier",
		"mode", "wait_us", "errno"};
	Warpdrive__V1__TraceEvent e = event();
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	json_t *root;

	ctl_trace_print_json(&e, out);
	fclose(out);
	assert_ptr_equal(strchr(text, '\n'), text + len - 1);
	root = json_loads(text, 0, NULL);
	assert_non_null(root);
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		assert_non_null(json_object_get(root, keys[i]));
	assert_string_equal(json_string_value(json_object_get(root, "time")), "2023-11-14T22:13:20.123456Z");
	assert_string_equal(json_string_value(json_object_get(root, "path")), e.path);
	json_decref(root);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(line_is_for_people),
		cmocka_unit_test(values_of_a_newer_agent_are_shown_as_such),
		cmocka_unit_test(json_has_every_field),
	};

	setenv("TZ", "UTC", 1);
	tzset();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
