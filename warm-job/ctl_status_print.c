/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of `warpdrive-ctl status`. Every field is taken as possibly missing: a daemon may be older or newer. */
#include <stdarg.h>
#include <string.h>

#include "common/config.h"
#include "warm-job/ctl_status.h"
#include "warm-job/ctl_table.h"

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "-";
}

static uint64_t number_of(const json_t *object, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(object, key));

	return n > 0 ? (uint64_t)n : 0;
}

/* A line, that goes on below itself where it is longer than 80 columns. */
__attribute__((format(printf, 2, 3))) static void print_folded(FILE *out, const char *fmt, ...)
{
	char line[2048], *p = line;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	for (char *c = line; *c; c++)
		*c = (unsigned char)*c < 0x20 || *c == 0x7f ? '?' : *c;
	for (size_t room = CTL_COLUMNS; strlen(p) > room; room = CTL_COLUMNS - 2) {
		char *end = p + room;

		while (end > p && *end != ' ')
			end--;
		if (end == p && !(end = strchr(p, ' ')))
			break;
		fprintf(out, "%.*s\n  ", (int)(end - p), p);
		p = end + 1;
	}
	fprintf(out, "%s\n", p);
}

static unsigned mounts_of(const json_t *merged, const char *url)
{
	unsigned n = 0;
	size_t i;
	json_t *mount;

	json_array_foreach(json_object_get(merged, "mounts"), i, mount)
	{
		n += !strcmp(text_of(mount, "url"), url);
	}
	return n;
}

static void cell_number(struct ctl_table *t, uint64_t n)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)n);
	ctl_table_cell(t, text);
}

static void print_mounts(const json_t *merged, bool is_wide, FILE *out)
{
	struct ctl_table *t = ctl_table_new(
		is_wide ? "TARGET,DATASET,OPEN,RESTARTS,STATE,PASSTHROUGH,SERVER" : "TARGET,DATASET,OPEN,RESTARTS,STATE");
	size_t i;
	json_t *mount;

	json_array_foreach(json_object_get(merged, "mounts"), i, mount)
	{
		ctl_table_cell(t, text_of(mount, "target"));
		ctl_table_cell(t, text_of(mount, "url"));
		cell_number(t, number_of(mount, "open_files"));
		cell_number(t, number_of(mount, "restarts"));
		ctl_table_cell(t, text_of(mount, "state"));
		if (!is_wide)
			continue;
		ctl_table_cell(t, json_is_true(json_object_get(mount, "passthrough")) ? "yes" : "no");
		cell_number(t, number_of(mount, "server_pid"));
	}
	if (!is_wide)
		ctl_table_fit(t, CTL_COLUMNS);
	ctl_table_print(t, "no mounts", out);
	ctl_table_free(t);
}

/* A line for each part of a mount that is ill. */
static void print_conditions(const json_t *merged, FILE *out)
{
	size_t i;
	json_t *mount, *text;
	const char *part;

	json_array_foreach(json_object_get(merged, "mounts"), i, mount)
	{
		json_object_foreach(json_object_get(mount, "condition"), part, text)
		{
			if (json_is_string(text))
				print_folded(out, "ill: %s: %s: %s", text_of(mount, "target"), part, json_string_value(text));
		}
	}
}

/* The state of a dataset's mounts: that of the worst, which is the first that does not serve. */
static const char *state_of(const json_t *merged, const char *url)
{
	const char *state = "-";
	size_t i;
	json_t *mount;

	json_array_foreach(json_object_get(merged, "mounts"), i, mount)
	{
		const char *text = text_of(mount, "state");

		if (strcmp(text_of(mount, "url"), url) != 0)
			continue;
		state = text;
		if (strcmp(text, "serving") != 0 && strcmp(text, "ready") != 0)
			break;
	}
	return state;
}

/* "ok", or the parts that are ill. */
static void condition_of(const json_t *merged, const char *url, char *out, size_t cap)
{
	size_t i, len = 0;
	json_t *mount, *text;
	const char *part;

	snprintf(out, cap, "ok");
	json_array_foreach(json_object_get(merged, "mounts"), i, mount)
	{
		if (strcmp(text_of(mount, "url"), url) != 0)
			continue;
		json_object_foreach(json_object_get(mount, "condition"), part, text)
		{
			if (len < cap && !(len && strstr(out, part)))
				len += (size_t)snprintf(out + len, cap - len, "%s%s", len ? "," : "", part);
		}
	}
}

static void print_datasets(const json_t *merged, bool is_wide, FILE *out)
{
	struct ctl_table *t = ctl_table_new(is_wide ? "DATASET,SIZE,CACHED,%,MOUNTS,STATE,CONDITION,OBJECTS,LISTED"
						    : "DATASET,SIZE,CACHED,%,MOUNTS,STATE,CONDITION");
	size_t i;
	json_t *dataset;

	json_array_foreach(json_object_get(merged, "datasets"), i, dataset)
	{
		const char *url = text_of(dataset, "url");
		uint64_t bytes = number_of(dataset, "bytes");
		uint64_t cached = number_of(dataset, "cached_bytes");
		char text[64];

		ctl_table_cell(t, url);
		ctl_table_cell(t, wd_format_size(bytes, text, sizeof(text)));
		ctl_table_cell(t, wd_format_size(cached, text, sizeof(text)));
		ctl_percent(cached, bytes, text, sizeof(text));
		ctl_table_cell(t, text);
		cell_number(t, mounts_of(merged, url));
		ctl_table_cell(t, state_of(merged, url));
		condition_of(merged, url, text, sizeof(text));
		ctl_table_cell(t, text);
		if (!is_wide)
			continue;
		cell_number(t, number_of(dataset, "objects"));
		ctl_table_cell(t, json_is_true(json_object_get(dataset, "is_listed")) ? "yes" : "no");
	}
	if (!is_wide)
		ctl_table_fit(t, CTL_COLUMNS);
	ctl_table_print(t, "no datasets", out);
	ctl_table_free(t);
}

static void print_cache(const json_t *merged, FILE *out)
{
	const json_t *cache = json_object_get(merged, "cache");
	char used[24], limit[24], free_space[24], share[16];

	if (!cache)
		return;
	ctl_percent(number_of(cache, "used_bytes"), number_of(cache, "limit_bytes"), share,
		sizeof(share));
	print_folded(out, "cache %s: %s of %s used (%s), %llu objects, %s free on the disk%s%s",
		text_of(cache, "dir"),
		wd_format_size(number_of(cache, "used_bytes"), used, sizeof(used)),
		wd_format_size(number_of(cache, "limit_bytes"), limit, sizeof(limit)), share,
		(unsigned long long)number_of(cache, "objects"),
		wd_format_size(number_of(cache, "free_bytes"), free_space, sizeof(free_space)),
		json_is_true(json_object_get(cache, "is_broken"))
			? "; the disk gives errors, reads go through uncached"
			: "",
		json_is_true(json_object_get(cache, "is_draining")) ? "; draining: nothing is admitted" : "");
}

/* What happened to the servers, as far as anything did. */
static void print_counters(const json_t *merged, FILE *out)
{
	const json_t *counters = json_object_get(json_object_get(merged, "keeper"), "counters");
	char text[1024] = "";
	size_t len = 0;
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)counters, name, value)
	{
		if (json_integer_value(value) != 0 && len < sizeof(text))
			len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s %lld", len ? ", " : "", name,
				(long long)json_integer_value(value));
	}
	for (char *p = text; *p; p++)
		*p = *p == '_' ? ' ' : *p;
	if (len > 0)
		print_folded(out, "keeper: %s", text);
}

void ctl_status_print(const json_t *merged, bool is_wide, FILE *out)
{
	print_mounts(merged, is_wide, out);
	print_conditions(merged, out);
	fputc('\n', out);
	print_datasets(merged, is_wide, out);
	fputc('\n', out);
	print_cache(merged, out);
	print_counters(merged, out);
}
