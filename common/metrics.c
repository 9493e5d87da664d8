/* SPDX-License-Identifier: Apache-2.0 */
/* See metrics.h. Text format 0.0.4. */
#include "common/metrics.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "common/utf8.h"

static const char *const type_names[] = {
	[WD_COUNTER] = "counter", [WD_GAUGE] = "gauge", [WD_HISTOGRAM] = "histogram"};

/* In microseconds, and as they are printed. */
static const struct {
	int64_t us;
	const char *text;
} bounds[WD_HISTOGRAM_BOUNDS] = {
	{1000, "0.001"}, {2500, "0.0025"}, {5000, "0.005"}, {10000, "0.01"}, {25000, "0.025"}, {50000, "0.05"},
	{100000, "0.1"}, {250000, "0.25"}, {500000, "0.5"}, {1000000, "1"}, {2500000, "2.5"}, {5000000, "5"},
	{10000000, "10"}, {30000000, "30"}, {60000000, "60"},
};

void wd_family_begin(FILE *out, const struct wd_family *f)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", f->name, f->help, f->name, type_names[f->type]);
}

/* A value may be a part of a URL or a path that a user gave: nothing in it ends the label or the line, and what is not
 * UTF-8 would spoil the whole scrape. */
static void print_value(FILE *out, const char *value)
{
	const char *plain = value, *p = value;

	while (*p) {
		uint32_t code;
		unsigned len = (unsigned char)*p < 0x80 ? 1 : wd_utf8_decode(p, &code);
		bool is_bad = len == 0 || (unsigned char)*p < 0x20;

		if (is_bad || *p == '"' || *p == '\\') {
			fwrite(plain, 1, (size_t)(p - plain), out);
			fputc(is_bad ? '_' : '\\', out);
			plain = p + is_bad;
		}
		p += len ? len : 1;
	}
	fwrite(plain, 1, (size_t)(p - plain), out);
}

/* {a="x",b="y"}, with le as the last where that is not NULL; nothing without labels. */
static void print_labels(FILE *out, const struct wd_family *f, const char *const *values, const char *le)
{
	const char *sep = "{";

	for (const char *name = f->labels; *name; values++) {
		size_t len = strcspn(name, ",");

		fprintf(out, "%s%.*s=\"", sep, (int)len, name);
		print_value(out, *values);
		fputc('"', out);
		sep = ",";
		name += len + (name[len] == ',');
	}
	if (le) {
		fprintf(out, "%sle=\"%s\"", sep, le);
		sep = ",";
	}
	if (*sep == ',')
		fputc('}', out);
}

void wd_sample(FILE *out, const struct wd_family *f, const char *const *values, uint64_t value)
{
	fputs(f->name, out);
	print_labels(out, f, values, NULL);
	fprintf(out, " %" PRIu64 "\n", value);
}

void wd_sample_real(FILE *out, const struct wd_family *f, const char *const *values, double value)
{
	fputs(f->name, out);
	print_labels(out, f, values, NULL);
	fprintf(out, " %.6f\n", value);
}

void wd_family_one(FILE *out, const struct wd_family *f, uint64_t value)
{
	wd_family_begin(out, f);
	wd_sample(out, f, NULL, value);
}

/* '|' would end the cell. */
static void print_cell(FILE *out, const char *text)
{
	for (; *text; text++)
		fprintf(out, "%s%c", *text == '|' ? "\\" : "", *text);
}

void wd_family_describe(FILE *out, const struct wd_family *f)
{
	fprintf(out, "| `%s", f->name);
	if (*f->labels)
		fprintf(out, "{%s}", f->labels);
	fprintf(out, "` | %s | %s | ", type_names[f->type], f->unit);
	print_cell(out, f->help);
	fputs(" |\n", out);
}

/* ---- histograms ---- */

void wd_histogram_add(struct wd_histogram *h, int64_t took_ns)
{
	int64_t us = took_ns > 0 ? took_ns / 1000 : 0;
	unsigned i = 0;

	while (i < WD_HISTOGRAM_BOUNDS && us > bounds[i].us)
		i++;
	atomic_fetch_add_explicit(&h->buckets[i], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&h->sum_us, (uint64_t)us, memory_order_relaxed);
}

uint64_t wd_histogram_count(const struct wd_histogram *h)
{
	uint64_t count = 0;

	for (unsigned i = 0; i <= WD_HISTOGRAM_BOUNDS; i++)
		count += atomic_load_explicit(&h->buckets[i], memory_order_relaxed);
	return count;
}

/* The count is made of the buckets that were read, so that they agree whatever is added meanwhile. */
void wd_histogram_print(FILE *out, const struct wd_family *f, const char *const *values, const struct wd_histogram *h)
{
	uint64_t count = 0;

	for (unsigned i = 0; i <= WD_HISTOGRAM_BOUNDS; i++) {
		count += atomic_load_explicit(&h->buckets[i], memory_order_relaxed);
		fprintf(out, "%s_bucket", f->name);
		print_labels(out, f, values, i < WD_HISTOGRAM_BOUNDS ? bounds[i].text : "+Inf");
		fprintf(out, " %" PRIu64 "\n", count);
	}
	fprintf(out, "%s_sum", f->name);
	print_labels(out, f, values, NULL);
	fprintf(out, " %.6f\n%s_count", (double)atomic_load_explicit(&h->sum_us, memory_order_relaxed) / 1e6, f->name);
	print_labels(out, f, values, NULL);
	fprintf(out, " %" PRIu64 "\n", count);
}
