/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `warpdrive-ctl status`: asks agent and keeper, joins their answers by mount id, and prints tables
 * or JSON. Every field is taken as possibly missing: a daemon may be older or newer than this
 * program.
 */
#include "warm-job/ctl_status.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/control.pb-c.h"
#include "common/proto.h"
#include "warm-job/ctl_args.h"
#include "warm-job/ctl_control.h"
#include "warm-job/ctl_table.h"

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

static void show(const json_t *agent, const json_t *keeper, enum ctl_output output)
{
	json_t *merged = ctl_status_merge(agent, keeper);

	if (output == CTL_JSON)
		ctl_print_json(merged, stdout);
	else if (output == CTL_YAML)
		ctl_print_yaml(merged, stdout);
	else
		ctl_status_print(merged, output == CTL_WIDE, stdout);
	json_decref(merged);
}

/* What the agent says of the mount that path lies in, through its control file: all that a pod may know. */
static enum ctl_exit report_mount(const char *path, enum ctl_output output)
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
		show(status, NULL, output);
	else
		ctl_error("status '%s': %s", path, err.msg);
	json_decref(status);
	ctl_control_free(control);
	return r == 0 ? CTL_DONE : CTL_FAILED;
}

static enum ctl_exit report(const char *run_dir, enum ctl_output output)
{
	struct wd_err agent_err = WD_ERR_INIT, keeper_err = WD_ERR_INIT;
	int agent_status, keeper_status;
	json_t *agent = ask(run_dir, "agent.sock", WD_MSG_STATUS, &agent_status, &agent_err);
	json_t *keeper =
		ask(run_dir, "keeper.sock", WD_MSG_KEEPER_STATUS, &keeper_status, &keeper_err);
	enum ctl_exit code = agent && keeper ? CTL_DONE : agent || keeper ? CTL_PARTLY : CTL_FAILED;

	if (is_absent(agent_status) && is_absent(keeper_status)) {
		ctl_error("status: no agent and no keeper in '%s'", run_dir);
		return CTL_FAILED;
	}
	ctl_explain("agent", run_dir, &agent_err);
	ctl_explain("keeper", run_dir, &keeper_err);
	if (!agent)
		ctl_error("status: %s", agent_err.msg);
	if (!keeper && (agent || agent_status != keeper_status))
		ctl_error("status: %s", keeper_err.msg);
	if (agent || keeper)
		show(agent, keeper, output);
	json_decref(agent);
	json_decref(keeper);
	return code;
}

enum ctl_exit ctl_status(const struct ctl_command *self, int argc, char **argv)
{
	const char *run_dir = NULL;
	enum ctl_output output = CTL_TEXT;
	const struct ctl_option options[] = {
		{"output", 'o', CTL_OUTPUT, &output, "text, wide, json or yaml"},
		{"run-dir", 'r', CTL_STRING, &run_dir, NULL},
	};
	enum ctl_exit code;
	int first;

	if (!ctl_args_parse(self, argc, argv, options, 2, &first, &code))
		return code;
	if (first + 1 < argc)
		return ctl_usage(self, "takes one PATH, '%.20s' is another", argv[first + 1]);
	if (first < argc)
		return report_mount(argv[first], output);
	return report(ctl_run_dir(run_dir), output);
}
