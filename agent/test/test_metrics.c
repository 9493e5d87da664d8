/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables of metrics, held to Prometheus' rules for names, and the text that is made of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "agent/metrics.h"
#include "agent/mount_metrics.h"
#include "agent/origin_health.h"
#include "agent/test/exposition.h"
#include "common/keeper_stats.h"
#include "common/rpc_stats.h"

/* ---- the tables ---- */

static const struct wd_family *all[FAMILY_COUNT + WD_KEEPER_STATS_COUNT + 1];
#define ALL (sizeof(all) / sizeof(all[0]))

static int collect(void **state)
{
	size_t n = 0;

	for (int i = 0; i < FAMILY_COUNT; i++)
		all[n++] = &families[i];
	for (int i = 0; i < WD_KEEPER_STATS_COUNT; i++)
		all[n++] = &wd_keeper_families[i];
	all[n++] = &wd_rpc_family;
	return n == ALL ? 0 : -1;
}

static bool ends_with(const char *text, const char *end)
{
	size_t len = strlen(text), n = strlen(end);

	return len >= n && strcmp(text + len - n, end) == 0;
}

static void must(const struct wd_family *f, bool is_so, const char *what)
{
	if (!is_so)
		fail_msg("%s: %s", f->name, what);
}

static void every_name_follows_the_rules(void **state)
{
	for (size_t i = 0; i < ALL; i++) {
		const struct wd_family *f = all[i];
		bool is_total = ends_with(f->name, "_total");
		char base[128];

		snprintf(base, sizeof(base), "%.*s", (int)(strlen(f->name) - (is_total ? strlen("_total") : 0)), f->name);
		must(f, strncmp(f->name, "warpdrive_", 10) == 0, "does not begin with warpdrive_");
		must(f, strspn(f->name, "abcdefghijklmnopqrstuvwxyz_") == strlen(f->name), "other letters than a-z");
		must(f, is_total == (f->type == WD_COUNTER), "_total is for counters, and for all of them");
		must(f, ends_with(base, "_bytes") == (strcmp(f->unit, "bytes") == 0), "name and unit differ: bytes");
		must(f, (ends_with(base, "_seconds")) == (strcmp(f->unit, "seconds") == 0), "name and unit differ: seconds");
		must(f, !strstr(f->name, "micro") && !strstr(f->name, "milli") && !strstr(f->name, "kib"), "not a base unit");
		must(f, !ends_with(f->name, "_count") && !ends_with(f->name, "_sum"), "ends like a histogram's sample");
	}
}

static void every_metric_has_help_and_unit(void **state)
{
	for (size_t i = 0; i < ALL; i++) {
		must(all[i], strlen(all[i]->help) >= 9, "no help");
		must(all[i], !ends_with(all[i]->help, "."), "help ends with a full stop");
		must(all[i], !strchr(all[i]->help, '\n') && !strchr(all[i]->help, '\\'), "help of more than a line");
		must(all[i], *all[i]->unit, "no unit");
	}
}

static void no_name_is_there_twice(void **state)
{
	for (size_t i = 0; i < ALL; i++)
		for (size_t j = 0; j < i; j++)
			must(all[i], strcmp(all[i]->name, all[j]->name) != 0, "twice");
}

static void labels_have_few_values(void **state)
{
	static const char known[] = ",mode,tier,pattern,class,outcome,op,origin,to,size,policy,reason,part,mount,target,pod,state,"
				    "version,method,code,";

	for (size_t i = 0; i < ALL; i++) {
		char name[64];

		for (const char *p = all[i]->labels; *p;) {
			size_t len = strcspn(p, ",");

			snprintf(name, sizeof(name), ",%.*s,", (int)len, p);
			must(all[i], strstr(known, name), "a label that is not known here: of what may its values be?");
			p += len + (p[len] == ',');
		}
	}
}

/* ---- the text ---- */

static char *text;
static size_t text_len;
static FILE *out;

static int begin(void **state)
{
	out = open_memstream(&text, &text_len);
	return out ? 0 : -1;
}

static int end(void **state)
{
	fclose(out);
	free(text);
	return 0;
}

static const char *printed(void)
{
	fflush(out);
	return text;
}

static const struct wd_family two = {"warpdrive_test_total", WD_COUNTER, "tests", "a,b", "Tests"};
static const struct wd_family took = {"warpdrive_test_seconds", WD_HISTOGRAM, "seconds", "a", "Time"};

static void nothing_in_a_value_ends_its_label(void **state)
{
	wd_sample(out, &two, (const char *[]){"x\"} 1\n", "\\\xff\xc3\xa4"}, 7);
	assert_string_equal(printed(), "warpdrive_test_total{a=\"x\\\"} 1_\",b=\"\\\\_\xc3\xa4\"} 7\n");
}

static void a_histogram_is_cumulative_and_agrees_with_itself(void **state)
{
	struct wd_histogram h = {0};

	wd_histogram_add(&h, 1000000);	     /* the bound itself */
	wd_histogram_add(&h, 1001000);
	wd_histogram_add(&h, 90000000000LL); /* longer than all */
	wd_histogram_add(&h, -5);
	wd_histogram_print(out, &took, (const char *[]){"v"}, &h);
	assert_int_equal(exposed_in(printed(), "warpdrive_test_seconds_bucket{a=\"v\",le=\"0.001\"}"), 2);
	assert_int_equal(exposed_in(printed(), "warpdrive_test_seconds_bucket{a=\"v\",le=\"0.0025\"}"), 3);
	assert_int_equal(exposed_in(printed(), "warpdrive_test_seconds_bucket{a=\"v\",le=\"60\"}"), 3);
	assert_int_equal(exposed_in(printed(), "warpdrive_test_seconds_bucket{a=\"v\",le=\"+Inf\"}"), 4);
	assert_int_equal(exposed_in(printed(), "warpdrive_test_seconds_count{a=\"v\"}"), 4);
	assert_non_null(strstr(printed(), "warpdrive_test_seconds_sum{a=\"v\"} 90.002001\n"));
}

static void what_is_kept_in_microseconds_is_printed_in_seconds(void **state)
{
	metric_add(METRIC_QUEUE_US_DEMAND, 1500000);
	metrics_print(out);
	assert_non_null(strstr(printed(), "\nwarpdrive_queue_seconds_total{class=\"demand\"} 1.500000\n"));
}

static void each_family_begins_once(void **state)
{
	metrics_print(out);
	origin_print_metrics(out);
	for (size_t i = 0; i < ALL; i++) {
		char head[160];
		const char *at;

		snprintf(head, sizeof(head), "# TYPE %s ", all[i]->name);
		at = strstr(printed(), head);
		must(all[i], !at || !strstr(at + 1, head), "begins twice");
	}
}

/* ---- who prints ---- */

static void calls_are_counted_by_method_and_code(void **state)
{
	rpc_stats_add("/x.Y/Do", RPC_OK, 2000000);
	rpc_stats_add("/x.Y/Do", RPC_OK, 2000000);
	rpc_stats_add("/x.Y/Do", RPC_NOT_FOUND, 2000000);
	rpc_stats_print(out);
	assert_int_equal(exposed_in(printed(), "warpdrive_rpc_seconds_count{method=\"x.Y/Do\",code=\"OK\"}"), 2);
	assert_int_equal(exposed_in(printed(), "warpdrive_rpc_seconds_count{method=\"x.Y/Do\",code=\"NOT_FOUND\"}"), 1);
	assert_null(strstr(printed(), "INTERNAL"));
}

static void an_origins_series_go_with_it_and_are_bounded(void **state)
{
	struct health *many[HEALTH_SERIES_MAX + 3];

	for (size_t i = 0; i < sizeof(many) / sizeof(many[0]); i++) {
		char name[64];

		snprintf(name, sizeof(name), "http://origin-%zu:80", i);
		many[i] = health_open(name);
		health_first_byte(many[i], 1000);
	}
	health_print_metrics(out);
	assert_int_equal(exposed_in(printed(), "warpdrive_origin_first_byte_seconds_count{origin=\"http://origin-63:80\"}"), 1);
	assert_null(strstr(printed(), "origin-64"));
	assert_int_equal(exposed_in(printed(), "warpdrive_origin_first_byte_seconds_count{origin=\"other\"}"), 3);
	for (size_t i = 0; i < sizeof(many) / sizeof(many[0]); i++)
		health_close(many[i]);
	rewind(out);
	health_print_metrics(out);
	fputc('\0', out);
	assert_null(strstr(printed(), "origin-1:"));
	assert_int_equal(exposed_in(printed(), "warpdrive_origin_first_byte_seconds_count{origin=\"other\"}"), 3);
}

static void the_pod_is_in_the_kubelets_targets_alone(void **state)
{
	char pod[MOUNT_POD_MAX];

	mount_pod_of("/var/lib/kubelet/pods/0f-1/volumes/kubernetes.io~csi/pvc-1/mount", pod);
	assert_string_equal(pod, "0f-1");
	mount_pod_of("/mnt/pods/data", pod);
	assert_string_equal(pod, "");
	mount_pod_of("/pods//volumes/", pod);
	assert_string_equal(pod, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_name_follows_the_rules),
		cmocka_unit_test(every_metric_has_help_and_unit),
		cmocka_unit_test(no_name_is_there_twice),
		cmocka_unit_test(labels_have_few_values),
		cmocka_unit_test_setup_teardown(nothing_in_a_value_ends_its_label, begin, end),
		cmocka_unit_test_setup_teardown(a_histogram_is_cumulative_and_agrees_with_itself, begin, end),
		cmocka_unit_test_setup_teardown(what_is_kept_in_microseconds_is_printed_in_seconds, begin, end),
		cmocka_unit_test_setup_teardown(each_family_begins_once, begin, end),
		cmocka_unit_test_setup_teardown(calls_are_counted_by_method_and_code, begin, end),
		cmocka_unit_test_setup_teardown(an_origins_series_go_with_it_and_are_bounded, begin, end),
		cmocka_unit_test(the_pod_is_in_the_kubelets_targets_alone),
	};

	return cmocka_run_group_tests(tests, collect, NULL);
}
