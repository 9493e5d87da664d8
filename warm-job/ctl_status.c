/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `warpdrive-ctl status`: asks agent and keeper, joins their answers by mount id, and prints tables
 * or JSON. Every field is taken as possibly missing: a daemon may be older or newer than this
 * program.
 */
#include "warm-job/ctl_status.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/config.h"
#include "common/control.pb-c.h"
#include "common/proto.h"
#include "warm-job/ctl.h"
#include "warm-job/ctl_control.h"
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

/* ---- joining ---- */

static json_t *identity(const json_t *daemon)
{
	if (!daemon)
		return json_null();

	json_t *out = json_object();
	static const char *const keys[] = {"version", "pid"};

	for (size_t i = 0; i < 2; i++) {
		json_t *value = json_object_get(daemon, keys[i]);

		if (value)
			json_object_set(out, keys[i], value);
	}
	return out;
}

static json_t *find_mount(json_t *mounts, const json_t *id)
{
	size_t i;
	json_t *mount;

	json_array_foreach(mounts, i, mount)
	{
		if (id && json_equal(json_object_get(mount, "id"), id))
			return mount;
	}
	return NULL;
}

static void join_mount(json_t *mounts, json_t *from_keeper)
{
	json_t *known = find_mount(mounts, json_object_get(from_keeper, "id"));

	if (!known) {
		json_array_append_new(mounts, json_deep_copy(from_keeper));
		return;
	}
	/* the keeper's state ("serving", "starting") is the mount's; the agent's is its own view */
	json_t *agent_state = json_object_get(known, "state");

	if (agent_state)
		json_object_set(known, "agent_state", agent_state);
	json_object_update(known, from_keeper);
}

json_t *ctl_status_merge(const json_t *agent, const json_t *keeper)
{
	json_t *out = agent ? json_deep_copy(agent) : json_object();
	json_t *mounts = json_object_get(out, "mounts");
	size_t i;
	json_t *mount;

	json_object_del(out, "version");
	json_object_del(out, "pid");
	json_object_set_new(out, "agent", identity(agent));
	json_object_set_new(out, "keeper", identity(keeper));
	if (json_object_get(keeper, "counters"))
		json_object_set(json_object_get(out, "keeper"), "counters",
			json_object_get(keeper, "counters"));
	if (!json_is_array(mounts)) {
		mounts = json_array();
		json_object_set_new(out, "mounts", mounts);
	}
	json_array_foreach(json_object_get(keeper, "mounts"), i, mount)
	{
		join_mount(mounts, mount);
	}
	return out;
}

/* ---- printing ---- */

static void percent(uint64_t part, uint64_t whole, char *out, size_t cap)
{
	if (whole == 0)
		snprintf(out, cap, "-");
	else if (part >= whole)
		snprintf(out, cap, "100%%");
	else /* rounded down: 100% is said of what is complete, and of nothing else */
		snprintf(out, cap, "%.1f%%", (double)(part * 1000 / whole) / 10.0);
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

static void print_mounts(const json_t *merged, FILE *out)
{
	struct ctl_table *t = ctl_table_new("TARGET,DATASET,OPEN,RESTARTS,STATE");
	size_t i;
	json_t *mount;

	json_array_foreach(json_object_get(merged, "mounts"), i, mount)
	{
		char open_files[24], restarts[24];

		snprintf(open_files, sizeof(open_files), "%llu",
			(unsigned long long)number_of(mount, "open_files"));
		snprintf(restarts, sizeof(restarts), "%llu",
			(unsigned long long)number_of(mount, "restarts"));
		ctl_table_cell(t, text_of(mount, "target"));
		ctl_table_cell(t, text_of(mount, "url"));
		ctl_table_cell(t, open_files);
		ctl_table_cell(t, restarts);
		ctl_table_cell(t, text_of(mount, "state"));
	}
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
				fprintf(out, "ill: %s: %s: %s\n", text_of(mount, "target"), part,
					json_string_value(text));
		}
	}
}

static void print_datasets(const json_t *merged, FILE *out)
{
	struct ctl_table *t = ctl_table_new("DATASET,OBJECTS,SIZE,CACHED,%,MOUNTS");
	size_t i;
	json_t *dataset;

	json_array_foreach(json_object_get(merged, "datasets"), i, dataset)
	{
		uint64_t bytes = number_of(dataset, "bytes");
		uint64_t cached = number_of(dataset, "cached_bytes");
		char objects[24], size[24], have[24], share[16], mounts[16];

		snprintf(objects, sizeof(objects), "%llu",
			(unsigned long long)number_of(dataset, "objects"));
		percent(cached, bytes, share, sizeof(share));
		snprintf(mounts, sizeof(mounts), "%u", mounts_of(merged, text_of(dataset, "url")));
		ctl_table_cell(t, text_of(dataset, "url"));
		ctl_table_cell(t, objects);
		ctl_table_cell(t, wd_format_size(bytes, size, sizeof(size)));
		ctl_table_cell(t, wd_format_size(cached, have, sizeof(have)));
		ctl_table_cell(t, share);
		ctl_table_cell(t, mounts);
	}
	ctl_table_print(t, "no datasets", out);
	ctl_table_free(t);
}

static void print_cache(const json_t *merged, FILE *out)
{
	const json_t *cache = json_object_get(merged, "cache");
	char used[24], limit[24], free_space[24], share[16];

	if (!cache)
		return;
	percent(number_of(cache, "used_bytes"), number_of(cache, "limit_bytes"), share,
		sizeof(share));
	fprintf(out, "cache %s: %s of %s used (%s), %llu objects, %s free on the disk%s\n",
		text_of(cache, "dir"),
		wd_format_size(number_of(cache, "used_bytes"), used, sizeof(used)),
		wd_format_size(number_of(cache, "limit_bytes"), limit, sizeof(limit)), share,
		(unsigned long long)number_of(cache, "objects"),
		wd_format_size(number_of(cache, "free_bytes"), free_space, sizeof(free_space)),
		json_is_true(json_object_get(cache, "is_broken"))
			? "; the disk gives errors, reads go through uncached"
			: "");
}

/* What happened to the servers, as far as anything did. */
static void print_counters(const json_t *merged, FILE *out)
{
	const json_t *counters = json_object_get(json_object_get(merged, "keeper"), "counters");
	bool is_first = true;
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)counters, name, value)
	{
		char words[64];

		if (json_integer_value(value) == 0)
			continue;
		snprintf(words, sizeof(words), "%s", name);
		for (char *p = words; *p; p++)
			*p = *p == '_' ? ' ' : *p;
		fprintf(out, "%s%s %lld", is_first ? "keeper: " : ", ", words,
			(long long)json_integer_value(value));
		is_first = false;
	}
	if (!is_first)
		fputc('\n', out);
}

void ctl_status_print(const json_t *merged, FILE *out)
{
	print_mounts(merged, out);
	print_conditions(merged, out);
	fputc('\n', out);
	print_datasets(merged, out);
	fputc('\n', out);
	print_cache(merged, out);
	print_counters(merged, out);
}

/* ---- the subcommand ---- */

static json_t *ask(const char *run_dir, const char *socket_name, unsigned type, int *ret_status,
	struct wd_err *err)
{
	wd_autofree char *text = NULL;
	char path[108];
	json_error_t bad;

	*ret_status = ctl_run_path(run_dir, socket_name, path, err);
	if (*ret_status == 0)
		*ret_status = ctl_fetch_status(path, type, &text, err);
	if (*ret_status < 0)
		return NULL;

	json_t *object = json_loads(text, 0, &bad);

	if (!object)
		*ret_status = wd_err_set(err, EPROTO, "its answer is not JSON: %s", bad.text);
	return object;
}

static bool is_absent(int status)
{
	return status == -ENOENT || status == -ECONNREFUSED;
}

static void show(const json_t *agent, const json_t *keeper, bool as_json)
{
	json_t *merged = ctl_status_merge(agent, keeper);

	if (as_json) {
		json_dumpf(merged, stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		ctl_status_print(merged, stdout);
	}
	json_decref(merged);
}

/* What the agent says of the mount that path lies in, through its control file: all that a pod may know. */
static enum ctl_exit report_mount(const char *path, bool as_json)
{
	Warpdrive__V1__GetStatusRequest request = WARPDRIVE__V1__GET_STATUS_REQUEST__INIT;
	struct ctl_control *control = NULL;
	struct wd_err err = WD_ERR_INIT;
	ProtobufCMessage *reply = NULL;
	json_t *status = NULL;
	int r = ctl_control_open_mount(path, &control, &err);

	if (r == 0)
		r = ctl_control_call(control, "GetStatus", &request.base, &warpdrive__v1__get_status_response__descriptor,
			&reply, &err);
	if (r == 0) {
		status = json_loads(((Warpdrive__V1__GetStatusResponse *)reply)->json, 0, NULL);
		r = status ? 0 : wd_err_set(&err, EPROTO, "the agent's answer is not JSON");
		protobuf_c_message_free_unpacked(reply, NULL);
	}
	if (r == 0)
		show(status, NULL, as_json);
	else
		ctl_error("status '%s': %s", path, err.msg);
	json_decref(status);
	ctl_control_free(control);
	return r == 0 ? CTL_DONE : CTL_FAILED;
}

static enum ctl_exit report(const char *run_dir, bool as_json)
{
	struct wd_err agent_err = WD_ERR_INIT, keeper_err = WD_ERR_INIT;
	int agent_status, keeper_status;
	json_t *agent = ask(run_dir, "agent.sock", WD_MSG_STATUS, &agent_status, &agent_err);
	json_t *keeper =
		ask(run_dir, "keeper.sock", WD_MSG_KEEPER_STATUS, &keeper_status, &keeper_err);
	enum ctl_exit code = agent && keeper ? CTL_DONE : agent || keeper ? CTL_PARTLY : CTL_FAILED;

	if (is_absent(agent_status) && is_absent(keeper_status)) {
		ctl_error("status: no agent and no keeper run in '%s': `warpdrive-ctl mount` "
			  "starts them, "
			  "--run-dir names another place",
			run_dir);
		return CTL_FAILED;
	}
	if (!agent)
		ctl_error("status: agent: %s", agent_err.msg);
	if (!keeper)
		ctl_error("status: keeper: %s", keeper_err.msg);
	if (agent || keeper)
		show(agent, keeper, as_json);
	json_decref(agent);
	json_decref(keeper);
	return code;
}

enum ctl_exit ctl_status(const struct ctl_command *self, int argc, char **argv)
{
	static const struct option long_options[] = {
		{"help", no_argument, NULL, 'h'},
		{"output", required_argument, NULL, 'o'},
		{"run-dir", required_argument, NULL, 'r'},
		{NULL, 0, NULL, 0},
	};
	const char *run_dir = NULL;
	bool as_json = false;
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":ho:r:", long_options, NULL)) != -1) {
		switch (c) {
		case 'h':
			return ctl_print_help(self);
		case 'o':
			if (strcmp(optarg, "json") != 0 && strcmp(optarg, "text") != 0)
				return ctl_usage(self, "output '%s': choose text or json", optarg);
			as_json = !strcmp(optarg, "json");
			break;
		case 'r':
			run_dir = optarg;
			break;
		case ':':
			return ctl_usage(self, "'%s' needs a value", argv[optind - 1]);
		default:
			return ctl_usage(self, "unknown option '%s'", argv[optind - 1]);
		}
	}
	if (optind + 1 < argc)
		return ctl_usage(self, "takes one PATH, '%s' is another", argv[optind + 1]);
	if (optind < argc)
		return report_mount(argv[optind], as_json);
	return report(ctl_run_dir(run_dir), as_json);
}
