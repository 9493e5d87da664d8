/* SPDX-License-Identifier: Apache-2.0 */
/* The page without an agent: strips, rates, and the HTML that is made of them, also of hostile names and of very much. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/page.h"

#define KIB 1024ULL
#define MIB (1024 * KIB)

static struct page page;

static int begin(void **state)
{
	page = (struct page){.now_s = 1700000100, .since_s = 1700000000, .host = "node-1", .cache_dir = "/var/cache/warpdrive",
		.used_bytes = 5 * MIB, .limit_bytes = 10 * MIB, .free_bytes = 100 * MIB, .objects = 3};
	return 0;
}

static char *print(void)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	page_print(&page, out);
	fclose(out);
	assert_int_equal(strlen(text), len);
	return text;
}

static void add_dataset(const char *url, uint64_t bytes, uint64_t cached)
{
	struct page_dataset *d = &page.datasets[page.ndatasets++];

	*d = (struct page_dataset){.url = url, .files = 7, .bytes = bytes, .cached = cached, .mounts = 1, .is_listed = true};
	page_strip_add(&d->strip, bytes, cached);
}

static unsigned count(const char *text, const char *what)
{
	unsigned n = 0;

	for (; (text = strstr(text, what)); text++)
		n++;
	return n;
}

/* ---- strips ---- */

static void strip_keeps_positions_however_long_the_row_gets(void **state)
{
	struct page_strip s = {0};
	uint64_t sum = 0;

	/* a quarter that is there, a half that is not, a quarter of which half is */
	for (int i = 0; i < 250; i++)
		page_strip_add(&s, MIB, MIB);
	for (int i = 0; i < 500; i++)
		page_strip_add(&s, MIB, 0);
	for (int i = 0; i < 250; i++)
		page_strip_add(&s, MIB, MIB / 2);
	assert_in_range(page_strip_cells(&s), STRIP_CELLS / 2, STRIP_CELLS);
	for (unsigned i = 0; i < page_strip_cells(&s); i++) {
		double from = (double)i * (double)s.width / (double)(1000 * MIB), to = from + (double)s.width / (double)(1000 * MIB);

		sum += s.cached[i];
		if (to <= 0.25)
			assert_int_equal(page_strip_level(&s, i), 10);
		else if (from >= 0.25 && to <= 0.75)
			assert_int_equal(page_strip_level(&s, i), 0);
		else if (from >= 0.75)
			assert_in_range(page_strip_level(&s, i), 4, 5);
	}
	assert_int_equal(sum, 375 * MIB);
}

static void one_large_object_is_spread_over_its_cells(void **state)
{
	struct page_strip s = {0};

	page_strip_add(&s, 1ULL << 40, 1ULL << 40);
	page_strip_add(&s, 1ULL << 40, 0);
	assert_int_equal(page_strip_cells(&s), STRIP_CELLS);
	assert_int_equal(page_strip_level(&s, 0), 10);
	assert_int_equal(page_strip_level(&s, 63), 10);
	assert_int_equal(page_strip_level(&s, 64), 0);
	assert_int_equal(page_strip_level(&s, 127), 0);
}

static void full_is_said_of_what_is_complete_alone(void **state)
{
	struct page_strip s = {0};

	page_strip_add(&s, 64, 63);
	page_strip_add(&s, 64, 1);
	page_strip_add(&s, 3, 3);
	assert_int_equal(page_strip_cells(&s), 3);
	assert_int_equal(page_strip_level(&s, 0), 9);
	assert_int_equal(page_strip_level(&s, 1), 1);
	assert_int_equal(page_strip_level(&s, 2), 10);
}

static void empty_and_absurd_sizes_do_no_harm(void **state)
{
	struct page_strip s = {0};

	assert_int_equal(page_strip_cells(&s), 0);
	page_strip_add(&s, 0, 0);
	page_strip_add(&s, UINT64_MAX, 5);
	assert_int_equal(page_strip_cells(&s), 0);
	page_strip_add(&s, UINT64_MAX / 8, UINT64_MAX / 8);
	page_strip_add(&s, UINT64_MAX / 8, 0);
	page_strip_add(&s, UINT64_MAX / 8, 0);
	assert_in_range(page_strip_cells(&s), 1, STRIP_CELLS);
	assert_int_equal(page_strip_level(&s, 0), 10);
}

/* ---- rates ---- */

static void rates_are_per_second_and_five_minutes_long(void **state)
{
	struct rates r = {0};
	uint64_t values[RATES] = {0};

	for (int i = 0; i <= RATES_POINTS + 10; i++) {
		rates_sample(&r, values, 1 + i * 5000000000LL);
		values[RATE_ORIGIN] += 5000 * (uint64_t)(i + 1);
	}
	assert_int_equal(rates_point(&r, RATE_ORIGIN, RATES_POINTS - 1), 1000 * (RATES_POINTS + 10));
	assert_int_equal(rates_point(&r, RATE_ORIGIN, 0), 1000 * 11);
	assert_int_equal(rates_point(&r, RATE_LOCAL, 0), 0);
}

static void rates_before_the_first_samples_are_zero(void **state)
{
	struct rates r = {0};
	uint64_t values[RATES] = {[RATE_LOCAL] = 1000000};

	rates_sample(&r, values, 1);
	assert_int_equal(rates_point(&r, RATE_LOCAL, RATES_POINTS - 1), 0);
	values[RATE_LOCAL] += 500;
	rates_sample(&r, values, 500000001);
	assert_int_equal(rates_point(&r, RATE_LOCAL, RATES_POINTS - 1), 1000);
	assert_int_equal(rates_point(&r, RATE_LOCAL, RATES_POINTS - 2), 0);
	values[RATE_LOCAL] = 0;
	rates_sample(&r, values, 1000000001);
	assert_int_equal(rates_point(&r, RATE_LOCAL, RATES_POINTS - 1), 0);
}

/* ---- the page ---- */

static void empty_agent_says_so(void **state)
{
	char *text = print();

	assert_non_null(strstr(text, "Nothing is mounted."));
	assert_non_null(strstr(text, "None since the agent began."));
	assert_non_null(strstr(text, "WarpDrive on node-1"));
	assert_non_null(strstr(text, "up for 100 s"));
	assert_non_null(strstr(text, "<b>5 MiB</b> of 10 MiB"));
	assert_null(strstr(text, "<h2>Mounts"));
	free(text);
}

static void dataset_has_its_share_and_a_strip(void **state)
{
	char *text;

	add_dataset("s3://bucket/whole", 10 * MIB, 10 * MIB);
	add_dataset("s3://bucket/nearly", 1000 * MIB, 1000 * MIB - 1);
	add_dataset("s3://bucket/none", 10 * MIB, 0);
	add_dataset("s3://bucket/unknown", 0, 0);
	page.datasets[3].files = 0;
	page.datasets[2].is_listed = false;
	text = print();
	assert_non_null(strstr(text, "<b>100%</b> cached <span class=\"dim\">(10 MiB of 10 MiB)"));
	assert_non_null(strstr(text, "<b>99.9%</b> cached"));
	assert_non_null(strstr(text, "<b>0.0%</b> cached"));
	assert_non_null(strstr(text, "no files known yet"));
	assert_non_null(strstr(text, "7 files known so far, 1 mount<"));
	/* whole: one run of cells; nearly: one but for a cell; and the cache's */
	assert_int_equal(count(text, "fill-opacity=\"1.00\"/>"), 3);
	free(text);
}

static void hostile_names_are_text(void **state)
{
	static const char evil[] = "s3://b/<script>alert('x')</script>\"onload=\"&amp;\x1b[2J\xff\xe2\x80\xae" "gpj.exe";
	struct page_mount *m = &page.mounts[page.nmounts++];
	char *text;

	add_dataset(evil, MIB, 0);
	*m = (struct page_mount){.target = evil, .url = evil};
	snprintf(m->condition.text[CONDITION_ORIGIN], sizeof(m->condition.text[0]), "%s", evil);
	page.log[page.nlog++] = (struct wd_log_line){.at_s = 1700000050, .level = WD_LOG_ERROR};
	snprintf(page.log[0].text, sizeof(page.log[0].text), "%s", evil);
	page.host = page.cache_dir = page.cache_trouble = evil;
	text = print();
	assert_int_equal(count(text, "<script>"), 1); /* the page's own */
	assert_int_equal(count(text, "</script>"), 1);
	assert_null(strstr(text, "\"onload"));
	assert_null(strchr(text, '\x1b'));
	assert_null(strchr(text, '\xff'));
	assert_null(strstr(text, "\xe2\x80\xae"));
	assert_int_equal(count(text, "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;onload=&quot;&amp;amp;?[2J??gpj.exe"), 9);
	free(text);
}

static void long_names_are_cut(void **state)
{
	static char name[100001];
	char *text;

	memset(name, '<', sizeof(name) - 1);
	add_dataset(name, MIB, 0);
	text = print();
	assert_true(strlen(text) < 20000);
	assert_non_null(strstr(text, "&lt;…"));
	free(text);
}

/* As much as there can be of everything. */
static void page_is_bounded(void **state)
{
	static char name[2000];
	char *text;

	memset(name, '\'', sizeof(name) - 1);
	for (int i = 0; i < PAGE_DATASETS; i++) {
		struct page_strip *s = &page.datasets[i].strip;

		add_dataset(name, 0, 0);
		for (uint64_t k = 0; k < STRIP_CELLS; k++)
			page_strip_add(s, 1ULL << 40, k % 2 ? 1ULL << 38 : 1ULL << 39);
	}
	page.more_datasets.n = 950;
	page.more_datasets.bytes = 4 * MIB;
	page.more_datasets.cached = 3 * MIB;
	page.more_mounts = 974;
	page.more_ill = 3;
	for (int i = 0; i < PAGE_MOUNTS; i++) {
		struct page_mount *m = &page.mounts[page.nmounts++];

		*m = (struct page_mount){.target = name, .url = name};
		for (int part = 0; part < CONDITION_PARTS_COUNT; part++)
			snprintf(m->condition.text[part], sizeof(m->condition.text[0]), "%.300s", name);
	}
	for (int i = 0; i < WD_LOG_KEPT; i++) {
		page.log[i].level = WD_LOG_WARN;
		snprintf(page.log[page.nlog++].text, sizeof(page.log[0].text), "%.390s", name);
	}
	text = print();
	assert_true(strlen(text) < 2 * MIB);
	assert_non_null(strstr(text, "950 more datasets"));
	assert_non_null(strstr(text, "<b>75.0%</b> cached"));
	assert_non_null(strstr(text, "<td>974 more</td><td class=\"bad\">3 ill</td>"));
	free(text);
}

static void ill_mounts_say_why(void **state)
{
	char *text;

	page.mounts[0] = (struct page_mount){.target = "/mnt/a", .url = "s3://b/a", .has_passthrough = true};
	page.mounts[1] = (struct page_mount){.target = "/mnt/b", .url = "s3://b/b"};
	strcpy(page.mounts[1].condition.text[CONDITION_SERVER], "no FUSE server is connected");
	page.nmounts = 2;
	text = print();
	assert_non_null(strstr(text, "/mnt/a<div class=\"dim\">s3://b/a</div></td><td class=\"name\">well</td>"));
	assert_non_null(strstr(text, "s3://b/b, without passthrough</div>"));
	assert_non_null(strstr(text, "<div class=\"bad\">server: no FUSE server is connected</div>"));
	free(text);
}

static void policy_names_the_pages_own_style_and_script(void **state)
{
	char policy[PAGE_POLICY_MAX];
	char *text = print();

	page_policy(policy);
	assert_int_equal(count(policy, "'sha256-"), 2);
	assert_non_null(strstr(policy, "default-src 'none'; "));
	assert_non_null(strstr(policy, "frame-ancestors 'none'"));
	assert_int_equal(count(text, "<style>"), 1);
	assert_int_equal(count(text, " style="), 0); /* which the policy would ignore */
	assert_int_equal(count(text, "src="), 0);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(strip_keeps_positions_however_long_the_row_gets),
		cmocka_unit_test(one_large_object_is_spread_over_its_cells),
		cmocka_unit_test(full_is_said_of_what_is_complete_alone),
		cmocka_unit_test(empty_and_absurd_sizes_do_no_harm),
		cmocka_unit_test(rates_are_per_second_and_five_minutes_long),
		cmocka_unit_test(rates_before_the_first_samples_are_zero),
		cmocka_unit_test_setup(empty_agent_says_so, begin),
		cmocka_unit_test_setup(dataset_has_its_share_and_a_strip, begin),
		cmocka_unit_test_setup(hostile_names_are_text, begin),
		cmocka_unit_test_setup(long_names_are_cut, begin),
		cmocka_unit_test_setup(page_is_bounded, begin),
		cmocka_unit_test_setup(ill_mounts_say_why, begin),
		cmocka_unit_test_setup(policy_names_the_pages_own_style_and_script, begin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
