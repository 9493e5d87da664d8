/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `warpdrive-ctl stats`: a line per second of what the node's agent does. The agent gives counters, and a line is the
 * difference of two answers; where they run backwards, another agent has come, and begins at nothing.
 */
#include "warm-job/ctl_stats.h"

#include <jansson.h>
#include <string.h>
#include <time.h>

#include "common/control.pb-c.h"
#include "common/lock.h"
#include "warm-job/ctl_args.h"
#include "warm-job/ctl_ask.h"
#include "warm-job/ctl_commands.h"
#include "warm-job/ctl_table.h"

#define HEAD_EVERY 20

const char ctl_stats_help[] =
	"A line per interval, per second: bytes of files that were opened complete in the\n"
	"cache, which the kernel reads itself (LOCAL); bytes of reads that the servers\n"
	"answered (SERVER); bytes that came from origins (ORIGIN), of them ahead of\n"
	"readers (AHEAD) and by `warm` (WARM); opens, and how many of them found all in\n"
	"the cache (HIT); reads that had to wait, and for how many milliseconds on\n"
	"average (MS); how full the cache is. For administrators of the node.\n"
	"\n"
	"  --interval TIME    between lines (1s)\n"
	"  --count N          end after N lines; else it goes on\n"
	"  -o, --output KIND  text; json: an object per line, with the counters as well\n"
	"  --run-dir DIR      where the agent's socket is (WARPDRIVE_RUN_DIR,\n"
	"                     /run/warpdrive)\n"
	"\n"
	"Example: warpdrive-ctl stats --interval 5s\n";

const char *ctl_rate(uint64_t before, uint64_t now, uint64_t us, char out[16])
{
	double rate = now > before && us > 0 ? (double)(now - before) * 1e6 / (double)us : 0;
	const char *unit = " KMGTP";

	while (rate >= 999.5 && unit[1]) {
		rate /= 1024;
		unit++;
	}
	if (*unit == ' ')
		snprintf(out, 16, "%.0f", rate);
	else
		snprintf(out, 16, rate < 9.95 ? "%.1f%c" : "%.0f%c", rate, *unit);
	return out;
}

static uint64_t grown(uint64_t before, uint64_t now)
{
	return now > before ? now - before : 0;
}

static uint64_t opens(const Warpdrive__V1__NodeStats *s)
{
	return s->opens_passthrough + s->opens_cached + s->opens_cold;
}

static void whole(double value, char out[16])
{
	snprintf(out, 16, value < 9.95 ? "%.1f" : "%.0f", value);
}

void ctl_stats_head(FILE *out)
{
	fprintf(out, "  LOCAL  SERVER  ORIGIN   AHEAD    WARM   OPENS   HIT   WAITS     MS  CACHE\n");
}

void ctl_stats_line(const Warpdrive__V1__NodeStats *a, const Warpdrive__V1__NodeStats *b, FILE *out)
{
	uint64_t us = grown(a->time_us, b->time_us), waits = grown(a->waits, b->waits);
	uint64_t hits = grown(a->hits, b->hits), all = hits + grown(a->misses, b->misses);
	char text[8][16], hit[16], cache[16];

	if (all > 0)
		snprintf(hit, sizeof(hit), "%.0f%%", 100.0 * (double)hits / (double)all);
	else
		snprintf(hit, sizeof(hit), "-");
	if (waits > 0)
		whole((double)grown(a->wait_us, b->wait_us) / 1000 / (double)waits, text[7]);
	else
		snprintf(text[7], sizeof(text[7]), "-");
	ctl_percent(b->cache_used, b->cache_limit, cache, sizeof(cache));
	fprintf(out, "%7s %7s %7s %7s %7s %7s %5s %7s %6s %6s%s\n",
		ctl_rate(a->local_bytes, b->local_bytes, us, text[0]),
		ctl_rate(a->server_bytes, b->server_bytes, us, text[1]),
		ctl_rate(a->origin_bytes, b->origin_bytes, us, text[2]),
		ctl_rate(a->ahead_bytes, b->ahead_bytes, us, text[3]), ctl_rate(a->warm_bytes, b->warm_bytes, us, text[4]),
		ctl_rate(opens(a), opens(b), us, text[5]), hit, ctl_rate(a->waits, b->waits, us, text[6]), text[7], cache,
		b->is_broken ? " ill" : b->is_draining ? " drain" : "");
}

static json_t *rates(const Warpdrive__V1__NodeStats *a, const Warpdrive__V1__NodeStats *b)
{
	const ProtobufCMessageDescriptor *d = a->base.descriptor;
	double s = (double)grown(a->time_us, b->time_us) / 1e6;
	json_t *out = json_object(), *counters = json_object();

	for (unsigned i = 0; i < d->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &d->fields[i];
		const char *x = (const char *)a + f->offset, *y = (const char *)b + f->offset;
		uint64_t before, now;

		if (f->type == PROTOBUF_C_TYPE_BOOL) {
			json_object_set_new(out, f->name, json_boolean(*(const protobuf_c_boolean *)y));
			continue;
		}
		before = *(const uint64_t *)x;
		now = *(const uint64_t *)y;
		json_object_set_new(counters, f->name, json_integer((json_int_t)now));
		/* gauges have no rate, and come behind the counters */
		if (f->id > CTL_STATS_GAUGES || strcmp(f->name, "time_us") == 0)
			continue;
		json_object_set_new(out, f->name, json_real(s > 0 ? (double)grown(before, now) / s : 0));
	}
	return json_pack("{s:f, s:o, s:o}", "seconds", s, "per_second", out, "values", counters);
}

struct stats {
	const struct ctl_command *self;
	struct ctl_control *agent;
	Warpdrive__V1__NodeStats *last;
	uint64_t lines;
	bool is_json;
};

static bool look(struct stats *s)
{
	Warpdrive__V1__GetStatsRequest q = WARPDRIVE__V1__GET_STATS_REQUEST__INIT;
	Warpdrive__V1__NodeStats *now =
		ctl_ask(s->self, s->agent, "GetStats", &q.base, &warpdrive__v1__node_stats__descriptor);

	if (!now)
		return false;
	if (s->last && s->is_json) {
		json_t *line = rates(s->last, now);

		json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
		putchar('\n');
		json_decref(line);
	} else if (s->last) {
		if (s->lines % HEAD_EVERY == 0)
			ctl_stats_head(stdout);
		ctl_stats_line(s->last, now, stdout);
	}
	s->lines += s->last != NULL;
	if (s->last)
		warpdrive__v1__node_stats__free_unpacked(s->last, NULL);
	s->last = now;
	return fflush(stdout) == 0;
}

void ctl_sleep_until(int64_t at_ns)
{
	struct timespec at = {at_ns / 1000000000, at_ns % 1000000000};

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

enum ctl_exit ctl_stats(const struct ctl_command *self, int argc, char **argv)
{
	const char *run_dir = NULL;
	enum ctl_output output = CTL_TEXT;
	int64_t interval_ms = 1000, next;
	uint64_t count = UINT64_MAX;
	const struct ctl_option options[] = {
		{"interval", 0, CTL_DURATION, &interval_ms, NULL},
		{"count", 0, CTL_COUNT, &count, NULL},
		{"output", 'o', CTL_OUTPUT, &output, "text or json"},
		{"run-dir", 0, CTL_STRING, &run_dir, NULL},
	};
	struct stats s = {.self = self};
	enum ctl_exit code;
	bool is_good;
	int first;

	if (!ctl_args_parse(self, argc, argv, options, sizeof(options) / sizeof(options[0]), &first, &code))
		return code;
	if (first < argc)
		return ctl_usage(self, "takes no argument, not '%.20s'", argv[first]);
	s.is_json = output == CTL_JSON;
	s.agent = ctl_ask_agent(self, ctl_run_dir(run_dir));
	if (!s.agent)
		return CTL_FAILED;
	next = wd_now_ns();
	for (is_good = look(&s); is_good && s.lines < count; is_good = look(&s))
		ctl_sleep_until(next += interval_ms * 1000000);
	if (s.last)
		warpdrive__v1__node_stats__free_unpacked(s.last, NULL);
	ctl_control_free(s.agent);
	return is_good ? CTL_DONE : CTL_FAILED;
}
