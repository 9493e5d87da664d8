/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `warpdrive-ctl top`: which mounts, or pods, read how much. A table per interval; on a terminal each takes the place of
 * the one before.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/control.pb-c.h"
#include "common/lock.h"
#include "warm-job/ctl_args.h"
#include "warm-job/ctl_ask.h"
#include "warm-job/ctl_commands.h"
#include "warm-job/ctl_stats.h"
#include "warm-job/ctl_table.h"

typedef Warpdrive__V1__ListMountsResponse Mounts;
typedef Warpdrive__V1__MountInfo Mount;

const char ctl_top_help[] =
	"Mounts by how much is read of them, per second: bytes of complete files that\n"
	"were opened (LOCAL) and bytes that the servers answered with (SERVER), bytes of\n"
	"files that had to come from the origin (ORIGIN), opens, reads that had to wait,\n"
	"files that are open, and the pattern of reads that are not the kernel's alone.\n"
	"For administrators of the node.\n"
	"\n"
	"  --by KIND          mount (the default) or pod\n"
	"  --once             one table, of one interval\n"
	"  --interval TIME    between tables (2s)\n"
	"  --count N          end after N tables\n"
	"  -o, --output KIND  text; json: an object per table, one per line\n"
	"  --run-dir DIR      where the agent's socket is (WARPDRIVE_RUN_DIR,\n"
	"                     /run/warpdrive)\n"
	"\n"
	"Example: warpdrive-ctl top --by pod\n";

struct row {
	const char *name;
	uint64_t local, server, origin, opens, waits, open_files;
	uint64_t patterns[4]; /* sequential, strided, tail, random */
	bool is_ill;
};

static const Mount *find(const Mounts *all, uint64_t id)
{
	for (size_t i = 0; all && i < all->n_mounts; i++)
		if (all->mounts[i]->id == id)
			return all->mounts[i];
	return NULL;
}

static uint64_t grown(uint64_t before, uint64_t now)
{
	return now > before ? now - before : 0;
}

static struct row *row_of(struct row *rows, size_t *n, const char *name)
{
	for (size_t i = 0; i < *n; i++)
		if (strcmp(rows[i].name, name) == 0)
			return &rows[i];
	rows[*n] = (struct row){.name = name};
	return &rows[(*n)++];
}

static void add(struct row *r, const Mount *a, const Mount *b)
{
	static const Mount none = WARPDRIVE__V1__MOUNT_INFO__INIT;

	a = a ? a : &none;
	r->local += grown(a->local_bytes, b->local_bytes);
	r->server += grown(a->server_bytes, b->server_bytes);
	r->origin += grown(a->missed_bytes, b->missed_bytes);
	r->opens += grown(a->opens, b->opens);
	r->waits += grown(a->waits, b->waits);
	r->open_files += b->open_files;
	r->patterns[0] += grown(a->sequential, b->sequential);
	r->patterns[1] += grown(a->strided, b->strided);
	r->patterns[2] += grown(a->tail, b->tail);
	r->patterns[3] += grown(a->random, b->random);
	r->is_ill |= b->is_ill;
}

static int by_bytes(const void *a, const void *b)
{
	const struct row *x = a, *y = b;
	uint64_t m = x->local + x->server, n = y->local + y->server;

	return m != n ? (m < n ? 1 : -1) : strcmp(x->name, y->name);
}

static size_t make_rows(const Mounts *before, const Mounts *now, bool by_pod, struct row *rows)
{
	size_t n = 0;

	for (size_t i = 0; i < now->n_mounts; i++) {
		const Mount *b = now->mounts[i];
		const char *name = by_pod ? (*b->pod ? b->pod : "(no pod)") : b->target;

		add(row_of(rows, &n, name), find(before, b->id), b);
	}
	if (n > 0)
		qsort(rows, n, sizeof(*rows), by_bytes);
	return n;
}

static const char *pattern_of(const struct row *r)
{
	static const char *const names[] = {"sequential", "strided", "tail", "random"};
	size_t most = 0;

	for (size_t i = 1; i < 4; i++)
		most = r->patterns[i] > r->patterns[most] ? i : most;
	return r->patterns[most] ? names[most] : "-";
}

static void print_text(const struct row *rows, size_t n, uint64_t us, bool by_pod)
{
	struct ctl_table *t = ctl_table_new(by_pod ? "LOCAL,SERVER,ORIGIN,OPENS,WAITS,OPEN,PATTERN,ILL,POD"
						   : "LOCAL,SERVER,ORIGIN,OPENS,WAITS,OPEN,PATTERN,ILL,MOUNT");

	for (size_t i = 0; i < n; i++) {
		const struct row *r = &rows[i];
		char text[24];

		ctl_table_cell(t, ctl_rate(0, r->local, us, text));
		ctl_table_cell(t, ctl_rate(0, r->server, us, text));
		ctl_table_cell(t, ctl_rate(0, r->origin, us, text));
		ctl_table_cell(t, ctl_rate(0, r->opens, us, text));
		ctl_table_cell(t, ctl_rate(0, r->waits, us, text));
		snprintf(text, sizeof(text), "%llu", (unsigned long long)r->open_files);
		ctl_table_cell(t, text);
		ctl_table_cell(t, pattern_of(r));
		ctl_table_cell(t, r->is_ill ? "ill" : "-");
		ctl_table_cell(t, r->name);
	}
	ctl_table_fit(t, CTL_COLUMNS);
	ctl_table_print(t, "no mounts", stdout);
	ctl_table_free(t);
}

static void print_json(const struct row *rows, size_t n, uint64_t us)
{
	json_t *list = json_array(), *root = json_pack("{s:f, s:o}", "seconds", (double)us / 1e6, "rows", list);

	for (size_t i = 0; i < n; i++) {
		const struct row *r = &rows[i];

		json_array_append_new(list,
			json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:b}", "name", r->name, "local_bytes",
				(json_int_t)r->local, "server_bytes", (json_int_t)r->server, "origin_bytes",
				(json_int_t)r->origin, "opens", (json_int_t)r->opens, "waits", (json_int_t)r->waits,
				"open_files", (json_int_t)r->open_files, "pattern", pattern_of(r), "is_ill", r->is_ill));
	}
	json_dumpf(root, stdout, JSON_COMPACT);
	putchar('\n');
	json_decref(root);
}

struct top {
	const struct ctl_command *self;
	struct ctl_control *agent;
	Mounts *last;
	bool by_pod, is_json, is_redrawn;
	uint64_t shown;
};

static bool look(struct top *t)
{
	Warpdrive__V1__ListMountsRequest q = WARPDRIVE__V1__LIST_MOUNTS_REQUEST__INIT;
	Mounts *now = ctl_ask(t->self, t->agent, "ListMounts", &q.base, &warpdrive__v1__list_mounts_response__descriptor);
	struct row *rows = now ? calloc(now->n_mounts + 1, sizeof(*rows)) : NULL;

	if (!now)
		return false;
	if (t->last && rows) {
		uint64_t us = grown(t->last->time_us, now->time_us);
		size_t n = make_rows(t->last, now, t->by_pod, rows);

		if (t->is_redrawn)
			fputs("\033[H\033[J", stdout);
		else if (t->shown && !t->is_json)
			putchar('\n');
		if (t->is_json)
			print_json(rows, n, us);
		else
			print_text(rows, n, us, t->by_pod);
		t->shown++;
	}
	free(rows);
	if (t->last)
		warpdrive__v1__list_mounts_response__free_unpacked(t->last, NULL);
	t->last = now;
	return fflush(stdout) == 0;
}

enum ctl_exit ctl_top(const struct ctl_command *self, int argc, char **argv)
{
	const char *run_dir = NULL, *by = "mount";
	enum ctl_output output = CTL_TEXT;
	int64_t interval_ms = 2000, next;
	uint64_t count = UINT64_MAX;
	bool is_once = false, is_good;
	const struct ctl_option options[] = {
		{"by", 0, CTL_STRING, &by, NULL},
		{"once", 0, CTL_FLAG, &is_once, NULL},
		{"interval", 0, CTL_DURATION, &interval_ms, NULL},
		{"count", 0, CTL_COUNT, &count, NULL},
		{"output", 'o', CTL_OUTPUT, &output, "text or json"},
		{"run-dir", 0, CTL_STRING, &run_dir, NULL},
	};
	struct top t = {.self = self};
	enum ctl_exit code;
	int first;

	if (!ctl_args_parse(self, argc, argv, options, sizeof(options) / sizeof(options[0]), &first, &code))
		return code;
	if (first < argc)
		return ctl_usage(self, "takes no argument, not '%.20s'", argv[first]);
	if (strcmp(by, "mount") != 0 && strcmp(by, "pod") != 0)
		return ctl_usage(self, "--by is mount or pod, not '%.20s'", by);
	t.by_pod = strcmp(by, "pod") == 0;
	t.is_json = output == CTL_JSON;
	t.is_redrawn = !t.is_json && !is_once && isatty(STDOUT_FILENO);
	t.agent = ctl_ask_agent(self, ctl_run_dir(run_dir));
	if (!t.agent)
		return CTL_FAILED;
	if (is_once)
		count = 1;
	next = wd_now_ns();
	for (is_good = look(&t); is_good && t.shown < count; is_good = look(&t))
		ctl_sleep_until(next += interval_ms * 1000000);
	if (t.last)
		warpdrive__v1__list_mounts_response__free_unpacked(t.last, NULL);
	ctl_control_free(t.agent);
	return is_good ? CTL_DONE : CTL_FAILED;
}
