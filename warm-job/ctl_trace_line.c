/* SPDX-License-Identifier: Apache-2.0 */
/* See ctl_trace.h. An agent may be newer than this program: values that it does not know are shown as such. */
#include "warm-job/ctl_trace.h"

#include <jansson.h>
#include <string.h>
#include <time.h>

#include "common/config.h"

static const char *tier_of(const Warpdrive__V1__TraceEvent *e)
{
	static const char *const names[] = {"", "local", "peer", "origin"};

	return (unsigned)e->tier < sizeof(names) / sizeof(names[0]) ? names[e->tier] : "unknown";
}

static const char *mode_of(const Warpdrive__V1__TraceEvent *e)
{
	static const char *const names[] = {"passthrough", "cached", "cold", "uncached"};

	return (unsigned)e->mode < sizeof(names) / sizeof(names[0]) ? names[e->mode] : "unknown";
}

static const char *kind_of(const Warpdrive__V1__TraceEvent *e)
{
	return e->kind == WARPDRIVE__V1__TRACE_KIND__TRACE_OPEN ? "open" : "read";
}

static void print_name(const char *name, FILE *out)
{
	for (const char *p = name; *p; p++)
		putc((unsigned char)*p < 0x20 || *p == 0x7f ? '?' : *p, out);
}

/* At most eight characters. */
static void format_wait(uint64_t us, char *out, size_t cap)
{
	if (us < 10000)
		snprintf(out, cap, "%llu us", (unsigned long long)us);
	else if (us < 10000000)
		snprintf(out, cap, "%llu ms", (unsigned long long)us / 1000);
	else
		snprintf(out, cap, "%llu s", (unsigned long long)us / 1000000);
}

void ctl_trace_print(const Warpdrive__V1__TraceEvent *e, bool shows_mount, FILE *out)
{
	time_t seconds = (time_t)(e->time_us / 1000000);
	char at[16], wait[24], size[24];
	struct tm tm;

	localtime_r(&seconds, &tm);
	strftime(at, sizeof(at), "%H:%M:%S", &tm);
	format_wait(e->wait_us, wait, sizeof(wait));
	fprintf(out, "%s.%03d %-6s %s %7s ", at, (int)(e->time_us / 1000 % 1000), tier_of(e)[0] ? tier_of(e) : "-",
		kind_of(e), wait);
	if (e->code)
		fprintf(out, "%s ", strerror(e->code));
	else
		fprintf(out, "%9s @%-11llu %-11s ", wd_format_size(e->length, size, sizeof(size)),
			(unsigned long long)e->offset, mode_of(e));
	if (shows_mount) {
		print_name(e->target, out);
		putc('/', out);
	}
	print_name(e->path, out);
	putc('\n', out);
}

void ctl_trace_print_json(const Warpdrive__V1__TraceEvent *e, FILE *out)
{
	time_t seconds = (time_t)(e->time_us / 1000000);
	char at[40], stamp[64];
	struct tm tm;
	json_t *root;

	gmtime_r(&seconds, &tm);
	strftime(at, sizeof(at), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(stamp, sizeof(stamp), "%s.%06dZ", at, (int)(e->time_us % 1000000));
	root = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:s, s:s, s:I, s:i}", "time", stamp, "event", kind_of(e),
		"mount", e->target, "pod", e->pod, "dataset", e->dataset, "path", e->path, "offset",
		(json_int_t)e->offset, "length", (json_int_t)e->length, "tier", tier_of(e), "mode", mode_of(e),
		"wait_us", (json_int_t)e->wait_us, "errno", (int)e->code);
	if (root && json_dumpf(root, out, JSON_COMPACT | JSON_PRESERVE_ORDER) == 0)
		putc('\n', out);
	json_decref(root);
}
