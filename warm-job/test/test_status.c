/* SPDX-License-Identifier: Apache-2.0 */
/* What `status` makes of the daemons' answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "warm-job/ctl_status.h"

static json_t *agent(void)
{
	return json_loads("{\"version\":\"1\",\"pid\":10,"
			  "\"cache\":{\"dir\":\"/c\",\"limit_bytes\":1000,\"used_bytes\":500,"
			  "\"free_bytes\":5,\"objects\":3,\"is_broken\":false},"
			  "\"datasets\":[{\"url\":\"s3://b/p\",\"objects\":4,\"bytes\":1000001,"
			  "\"cached_bytes\":1000000}],"
			  "\"mounts\":[{\"id\":7,\"target\":\"/m\",\"url\":\"s3://b/p\","
			  "\"open_files\":2,\"state\":\"ready\"}]}",
		0, NULL);
}

static json_t *keeper(void)
{
	return json_loads("{\"version\":\"2\",\"pid\":11,\"mounts\":["
			  "{\"id\":7,\"target\":\"/m\",\"server_pid\":12,\"restarts\":1,"
			  "\"state\":\"serving\"},"
			  "{\"id\":8,\"target\":\"/lost\\n\",\"server_pid\":13,\"restarts\":0,"
			  "\"state\":\"serving\"}]}",
		0, NULL);
}

static char *print(const json_t *merged)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	ctl_status_print(merged, false, out);
	fclose(out);
	return text;
}

static void mounts_are_joined_by_id(void **state)
{
	json_t *a = agent(), *k = keeper(), *merged = ctl_status_merge(a, k);
	json_t *mounts = json_object_get(merged, "mounts");
	json_t *first = json_array_get(mounts, 0);

	assert_int_equal(json_array_size(mounts), 2);
	assert_int_equal(json_integer_value(json_object_get(first, "server_pid")), 12);
	assert_int_equal(json_integer_value(json_object_get(first, "open_files")), 2);
	assert_string_equal(json_string_value(json_object_get(first, "state")), "serving");
	assert_int_equal(
		json_integer_value(json_object_get(json_object_get(merged, "agent"), "pid")), 10);
	assert_int_equal(
		json_integer_value(json_object_get(json_object_get(merged, "keeper"), "pid")), 11);
	json_decref(merged);
	json_decref(a);
	json_decref(k);
}

static void the_table_shows_mount_dataset_and_cache(void **state)
{
	json_t *a = agent(), *k = keeper(), *merged = ctl_status_merge(a, k);
	char *text = print(merged);

	assert_non_null(strstr(text, "/m"));
	assert_non_null(strstr(text, "/lost?"));
	/* one byte is missing: not 100% */
	assert_non_null(strstr(text, "99.9%"));
	assert_null(strstr(text, "100%"));
	assert_non_null(strstr(text, "cache /c:"));
	free(text);
	json_decref(merged);
	json_decref(a);
	json_decref(k);
}

static void a_daemon_that_is_missing_or_odd_is_no_crash(void **state)
{
	json_t *a = agent(),
	       *odd = json_loads("{\"mounts\":{\"a\":1},\"cache\":3,\"datasets\":[1]}", 0, NULL);
	json_t *no_keeper = ctl_status_merge(a, NULL);
	json_t *no_agent = ctl_status_merge(NULL, odd);
	json_t *strange = ctl_status_merge(odd, odd);
	char *text[] = {print(no_keeper), print(no_agent), print(strange)};

	assert_non_null(strstr(text[0], "/m"));
	assert_non_null(strstr(text[1], "no mounts"));
	assert_true(json_is_null(json_object_get(no_keeper, "keeper")));
	for (size_t i = 0; i < 3; i++)
		free(text[i]);
	json_decref(strange);
	json_decref(no_agent);
	json_decref(no_keeper);
	json_decref(odd);
	json_decref(a);
}

static void no_line_is_wider_than_80_columns(void **state)
{
	json_t *a = json_loads("{\"cache\":{\"dir\":\"/a/very/long/directory/for/the/cache/of/this/machine\",\"limit_bytes\":1000,"
			       "\"used_bytes\":999,\"is_draining\":true},\"datasets\":[{\"url\":"
			       "\"s3://a-bucket-with-a-long-name/and/a/long/prefix/below/it/train\",\"bytes\":10,"
			       "\"cached_bytes\":1}],\"mounts\":[{\"id\":1,\"url\":"
			       "\"s3://a-bucket-with-a-long-name/and/a/long/prefix/below/it/train\",\"target\":"
			       "\"/var/lib/kubelet/pods/0b3c1e1e-aaaa-bbbb-cccc-0123456789ab/volumes/x/mount\","
			       "\"state\":\"no server\",\"condition\":{\"origin\":\"list 's3://x/': HTTP 503 after 6 "
			       "tries, and a few more words about what there is to do\",\"server\":\"none\"}}]}",
		0, NULL);
	json_t *merged = ctl_status_merge(a, NULL);
	char *text = print(merged);

	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		if (strlen(line) > 80)
			fail_msg("%zu columns: %s", strlen(line), line);
	free(text);
	text = print(merged);
	assert_non_null(strstr(text, "no server"));
	assert_non_null(strstr(text, "origin,server"));
	assert_non_null(strstr(text, "draining"));
	assert_non_null(strstr(text, "train"));
	free(text);
	json_decref(merged);
	json_decref(a);
}

static void yaml_has_all_of_it(void **state)
{
	json_t *root = json_loads("{\"a\":1,\"b\":[{\"c\":\"x: y\",\"d\":true},[2,3]],\"e\":{},\"f\":{\"g\":null}}", 0, NULL);
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	ctl_print_yaml(root, out);
	fclose(out);
	assert_string_equal(text, "a: 1\nb:\n  - c: \"x: y\"\n    d: true\n  - - 2\n    - 3\ne: {}\nf:\n  g: null\n");
	free(text);
	json_decref(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mounts_are_joined_by_id),
		cmocka_unit_test(the_table_shows_mount_dataset_and_cache),
		cmocka_unit_test(a_daemon_that_is_missing_or_odd_is_no_crash),
		cmocka_unit_test(no_line_is_wider_than_80_columns),
		cmocka_unit_test(yaml_has_all_of_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
