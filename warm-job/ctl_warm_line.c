/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See ctl_warm_line.h. A terminal's line is made of parts, and parts are left out one by one until the rest fits; a
 * bar takes the room that is left.
 */
#include "warm-job/ctl_warm_line.h"

#include <stdio.h>
#include <string.h>

#include "common/config.h"

#define FORGET_MS 5000 /* what is older counts for little */
#define BAR_MIN 10
#define BAR_MAX 32

enum part { PERCENT, FILES, BYTES, RATE, LEFT, FAILED, SKIPPED, NPARTS };

struct parts {
	char text[NPARTS][64]; /* "": left out */
};

/* ---- numbers ---- */

void warm_meter_add(struct warm_meter *m, int64_t now_ms, uint64_t bytes_fetched)
{
	int64_t dt = now_ms - m->last_ms, age = now_ms - m->first_ms;

	if (!m->is_started || bytes_fetched < m->last_bytes) {
		*m = (struct warm_meter){true, now_ms, now_ms, bytes_fetched, m->rate};
		return;
	}
	if (dt <= 0)
		return;

	double now = (double)(bytes_fetched - m->last_bytes) * 1000 / (double)dt;
	/* in the beginning the plain average */
	double weight = (double)dt / (double)(age < FORGET_MS ? age : FORGET_MS);

	m->rate += (now - m->rate) * (weight < 1 ? weight : 1);
	m->last_ms = now_ms;
	m->last_bytes = bytes_fetched;
}

int64_t warm_left_s(const struct warm_sum *sum, double rate)
{
	if (!sum->is_listed || rate < 1 || sum->bytes < sum->bytes_present)
		return -1;

	double left = (double)(sum->bytes - sum->bytes_present) / rate;

	return left < 1e9 ? (int64_t)(left + 0.999) : -1;
}

const char *warm_format_time(int64_t seconds, char *out, size_t cap)
{
	long long s = seconds;

	if (s < 3600)
		snprintf(out, cap, "%lld:%02lld", s / 60, s % 60);
	else if (s < 100 * 3600)
		snprintf(out, cap, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
	else
		snprintf(out, cap, "%lldd %lldh", s / 86400, s / 3600 % 24);
	return out;
}

/* Rounded down: 100 is said of what is complete, and of nothing else. */
static unsigned percent_of(const struct warm_sum *sum)
{
	uint64_t part = sum->bytes ? sum->bytes_present : sum->files_done;
	uint64_t whole = sum->bytes ? sum->bytes : sum->files;

	if (part >= whole)
		return 100;
	return (unsigned)((unsigned __int128)part * 100 / whole);
}

/* "3.1 of 20.0 GiB": the unit once where both have it. `of` is " of " or "/". */
static void format_share(uint64_t part, uint64_t whole, const char *of, const char *more, char *out, size_t cap)
{
	char left[24], right[24], *space;

	wd_format_size(part, left, sizeof(left));
	wd_format_size(whole, right, sizeof(right));
	space = strchr(left, ' ');
	if (space && !strcmp(space, strchr(right, ' ')))
		*space = '\0';
	space = strchr(right, ' ');
	snprintf(out, cap, "%s%s%.*s%s%s", left, of, (int)(space - right), right, more, space);
}

/* ---- lines ---- */

static void make_parts(const struct warm_sum *s, double rate, struct parts *p)
{
	const char *more = s->is_listed ? "" : "+"; /* the walk goes on */
	int64_t left_s = warm_left_s(s, rate);
	char size[24];

	memset(p, 0, sizeof(*p));
	if (s->is_listed)
		snprintf(p->text[PERCENT], sizeof(p->text[0]), "%3u%%", percent_of(s));
	snprintf(p->text[FILES], sizeof(p->text[0]), "%llu/%llu%s files", (unsigned long long)s->files_done,
		(unsigned long long)s->files, more);
	format_share(s->bytes_present, s->bytes, "/", more, p->text[BYTES], sizeof(p->text[0]));
	if (rate >= 1)
		snprintf(p->text[RATE], sizeof(p->text[0]), "%s/s",
			wd_format_size((uint64_t)rate, size, sizeof(size)));
	if (left_s >= 0 && s->bytes_present < s->bytes)
		snprintf(p->text[LEFT], sizeof(p->text[0]), "%s left", warm_format_time(left_s, size, sizeof(size)));
	if (s->files_skipped)
		snprintf(p->text[SKIPPED], sizeof(p->text[0]), "%llu skipped", (unsigned long long)s->files_skipped);
	if (s->files_failed)
		snprintf(p->text[FAILED], sizeof(p->text[0]), "%llu failed", (unsigned long long)s->files_failed);
}

static size_t width_of(const struct parts *p)
{
	size_t width = 0;

	for (size_t i = 0; i < NPARTS; i++) {
		if (p->text[i][0])
			width += strlen(p->text[i]) + (width ? 2 : 0);
	}
	return width;
}

/* Appends the parts, two blanks between them; before the first stands what `out` has. */
static void join(const struct parts *p, char *out, size_t cap)
{
	size_t len = strlen(out);
	const char *space = len ? " " : "";

	for (size_t i = 0; i < NPARTS && len < cap; i++) {
		if (!p->text[i][0])
			continue;
		len += (size_t)snprintf(out + len, cap - len, "%s%s", space, p->text[i]);
		space = "  ";
	}
}

static void draw_bar(const struct warm_sum *s, size_t width, char *out)
{
	size_t inside = width - 2, full = inside * percent_of(s) / 100;

	out[0] = '[';
	memset(out + 1, '=', full);
	memset(out + 1 + full, ' ', inside - full);
	if (full < inside)
		out[1 + full] = '>';
	memcpy(out + 1 + inside, "]", 2);
}

void warm_line(const struct warm_sum *sum, double rate, unsigned columns, char *out, size_t cap)
{
	static const enum part order[] = {SKIPPED, RATE, FILES, FAILED, LEFT, PERCENT};
	size_t room = columns > 1 ? columns - 1 : 1;
	struct parts p;

	make_parts(sum, rate, &p);
	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]) && width_of(&p) > room; i++)
		p.text[order[i]][0] = '\0';
	out[0] = '\0';
	if (sum->is_listed && width_of(&p) + 1 + BAR_MIN <= room) {
		size_t bar = room - width_of(&p) - 1;

		bar = bar > BAR_MAX ? BAR_MAX : bar;
		if (bar < cap)
			draw_bar(sum, bar, out);
	}
	join(&p, out, cap);
	if (room < cap)
		out[room] = '\0';
}

void warm_log_line(const struct warm_sum *sum, double rate, char *out, size_t cap)
{
	struct parts p;
	const char *percent = p.text[PERCENT];

	make_parts(sum, rate, &p);
	while (*percent == ' ')
		percent++;
	memmove(p.text[PERCENT], percent, strlen(percent) + 1);
	snprintf(out, cap, "warm:");
	join(&p, out, cap);
}

/* ---- the end ---- */

static const char *const states[] = {
	[WARM_END_NONE] = "running",
	[WARM_END_DONE] = "done",
	[WARM_END_PARTLY] = "partly",
	[WARM_END_NO_ROOM] = "no-room",
	[WARM_END_CANCELLED] = "cancelled",
	[WARM_END_STOPPED] = "stopped",
	[WARM_END_TIMEOUT] = "timeout",
	[WARM_END_FAILED] = "failed",
};

/* "430 of 1000 files, 8.6 of 20 GiB"; what is whole has one number */
static void format_have(const struct warm_sum *sum, char *out, size_t cap)
{
	const char *of = sum->is_listed ? " of " : " of at least ";
	const char *files = sum->files == 1 ? "file" : "files";
	char size[64];

	if (sum->is_listed && sum->files_done == sum->files && sum->bytes_present == sum->bytes) {
		snprintf(out, cap, "%llu %s, %s", (unsigned long long)sum->files, files,
			wd_format_size(sum->bytes, size, sizeof(size)));
		return;
	}
	format_share(sum->bytes_present, sum->bytes, of, "", size, sizeof(size));
	snprintf(out, cap, "%llu%s%llu %s, %s", (unsigned long long)sum->files_done, of,
		(unsigned long long)sum->files, files, size);
}

void warm_result(const struct warm_sum *sum, enum warm_end end, int64_t elapsed_ms, char *out, size_t cap)
{
	static const char *const words[] = {
		[WARM_END_NONE] = "running",
		[WARM_END_DONE] = "done",
		[WARM_END_PARTLY] = "partly done",
		[WARM_END_NO_ROOM] = "no room in the cache",
		[WARM_END_CANCELLED] = "cancelled",
		[WARM_END_STOPPED] = "stopped",
		[WARM_END_TIMEOUT] = "time is up",
		[WARM_END_FAILED] = "failed",
	};
	char have[128], failed[40] = "", skipped[40] = "", more[64] = "", fetched[24], took[24];

	format_have(sum, have, sizeof(have));
	if (sum->files_failed)
		snprintf(failed, sizeof(failed), "; %llu failed", (unsigned long long)sum->files_failed);
	if (sum->files_skipped)
		snprintf(skipped, sizeof(skipped), "; %llu skipped", (unsigned long long)sum->files_skipped);
	if (end == WARM_END_DONE)
		snprintf(more, sizeof(more), "; %s fetched in %s",
			wd_format_size(sum->bytes_fetched, fetched, sizeof(fetched)),
			warm_format_time(elapsed_ms / 1000, took, sizeof(took)));
	else if (end == WARM_END_CANCELLED || end == WARM_END_STOPPED || end == WARM_END_TIMEOUT)
		snprintf(more, sizeof(more), "; run it again to go on");
	snprintf(out, cap, "%s: %s are in the cache%s%s%s", words[end], have, failed, skipped, more);
}

static void put(json_t *object, const char *key, uint64_t value)
{
	json_object_set_new(object, key, json_integer((json_int_t)value));
}

json_t *warm_json(const struct warm_sum *sum, double rate, enum warm_end end, int64_t elapsed_ms)
{
	json_t *object = json_object();
	int64_t left_s = warm_left_s(sum, rate);

	json_object_set_new(object, "event", json_string(end == WARM_END_NONE ? "progress" : "result"));
	if (end != WARM_END_NONE)
		json_object_set_new(object, "state", json_string(states[end]));
	put(object, "files", sum->files);
	put(object, "files_done", sum->files_done);
	put(object, "files_failed", sum->files_failed);
	put(object, "files_skipped", sum->files_skipped);
	put(object, "bytes", sum->bytes);
	put(object, "bytes_present", sum->bytes_present);
	put(object, "bytes_fetched", sum->bytes_fetched);
	json_object_set_new(object, "is_listed", json_boolean(sum->is_listed));
	put(object, "elapsed_ms", (uint64_t)(elapsed_ms > 0 ? elapsed_ms : 0));
	if (end == WARM_END_NONE) {
		put(object, "bytes_per_second", (uint64_t)rate);
		json_object_set_new(object, "seconds_left", left_s >= 0 ? json_integer(left_s) : json_null());
	}
	return object;
}

/* Names of objects are bytes; those that are no UTF-8 are shown with "?" in place of what is not ASCII. */
static json_t *text_json(const char *text)
{
	json_t *string = json_string(text);
	char copy[4096];

	if (string)
		return string;
	snprintf(copy, sizeof(copy), "%s", text);
	for (char *p = copy; *p; p++) {
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	}
	return json_string(copy);
}

json_t *warm_failure_json(const char *path, int code, const char *text)
{
	json_t *object = json_object();
	const char *name = strerrorname_np(code);

	json_object_set_new(object, "event", json_string("failure"));
	json_object_set_new(object, "path", text_json(path));
	json_object_set_new(object, "code", json_string(name ? name : "EIO"));
	json_object_set_new(object, "text", text_json(text));
	return object;
}
