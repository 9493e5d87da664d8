/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `warpdrive-ctl warm`: fills the cache, in the agent; this program asks for it, shows how far it is, and tells how
 * it ended. Also --list and --cancel of what was begun before.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/control.pb-c.h"
#include "common/lock.h"
#include "warm-job/ctl.h"
#include "warm-job/ctl_pin.h"
#include "warm-job/ctl_table.h"
#include "warm-job/ctl_warm_args.h"
#include "warm-job/ctl_warm_places.h"
#include "warm-job/ctl_warm_run.h"
#include "warm-job/ctl_warm_task.h"

#define MOUNTINFO "/proc/self/mountinfo"

static int read_list(struct warm_places *places, const struct warm_args *a, struct wd_err *err)
{
	bool is_stdin = !strcmp(a->from_file, "-");
	FILE *in = is_stdin ? stdin : fopen(a->from_file, "re");
	int r;

	if (!in)
		return wd_err_sys(err, errno, "open the list '%s'", a->from_file);
	r = warm_places_add_lines(places, a->nplaces ? a->places[0] : NULL, in, err);
	if (!is_stdin)
		fclose(in);
	return r;
}

static int find_places(struct warm_places *places, const struct warm_args *a, struct wd_err *err)
{
	int r = 0;

	if (a->from_file)
		return read_list(places, a, err);
	for (size_t i = 0; i < a->nplaces && r == 0; i++)
		r = warm_places_add(places, a->places[i], err);
	return r;
}

/* Before anything is fetched: then nothing of it is evicted for the rest. */
static bool pin(const struct ctl_command *self, const struct warm_places *places)
{
	struct ctl_pinned sum = {0};

	for (size_t i = 0; i < places->ntargets; i++)
		if (!ctl_pin_target(self, &places->targets[i], false, &sum))
			return false;
	if (sum.refused > 0)
		ctl_warn("%llu files are not pinned: half of the cache is", (unsigned long long)sum.refused);
	return true;
}

static enum ctl_exit warm(const struct ctl_command *self, struct warm_places *places, const struct warm_args *a)
{
	struct wd_err err = WD_ERR_INIT;
	struct warm_run *run = NULL;
	struct warm_show show;
	enum ctl_exit code = CTL_FAILED;

	if (find_places(places, a, &err) < 0) {
		if (!a->from_file)
			ctl_ask_explain(places, a->run_dir, a->places[0], &err);
		ctl_error("warm: %s", err.msg);
	} else if (a->pin && !pin(self, places)) {
		code = CTL_FAILED; /* that was told */
	} else if (warm_run_new(places, a, &run, &err) < 0) {
		ctl_error("warm: %s", err.msg);
	} else if (a->detach) {
		code = warm_run_detach(run, a->progress == WARM_JSON, stdout);
	} else {
		warm_show_start(&show, a->progress, stdout, stderr, wd_now_ns() / 1000000);
		code = warm_run_wait(run, &show);
	}
	warm_run_free(run);
	return code;
}

/* Whom to ask about tasks: the agent, or with a PATH whoever that is asked through. NULL, and told. */
static struct ctl_control *whom_to_ask(struct warm_places *places, const struct warm_args *a)
{
	struct wd_err err = WD_ERR_INIT;

	if (a->nplaces && warm_places_add(places, a->places[0], &err) < 0)
		ctl_error("warm: %s", err.msg);
	else if (!a->nplaces && !places->agent) {
		err = places->agent_err;
		ctl_explain("agent", a->run_dir, &err);
		ctl_error("warm: %s", err.msg);
	} else
		return a->nplaces ? places->targets[0].control : places->agent;
	return NULL;
}

static enum ctl_exit cancel(struct warm_places *places, const struct warm_args *a)
{
	struct wd_err err = WD_ERR_INIT;
	struct ctl_control *control = whom_to_ask(places, a);

	if (!control)
		return CTL_FAILED;
	if (warm_task_cancel(control, a->cancel, &err) < 0) {
		ctl_error("warm: cancel task %llu: %s", (unsigned long long)a->cancel, err.msg);
		return CTL_FAILED;
	}
	return CTL_DONE;
}

static const char *state_of(Warpdrive__V1__WarmState state)
{
	static const char *const names[] = {"running", "done", "partly", "cancelled", "no room"};

	return (unsigned)state < sizeof(names) / sizeof(names[0]) ? names[state] : "unknown";
}

static void print_task(struct ctl_table *t, const Warpdrive__V1__WarmProgress *p)
{
	char id[24], files[48], size[24], have[24];

	snprintf(id, sizeof(id), "%llu", (unsigned long long)p->id);
	snprintf(files, sizeof(files), "%llu/%llu%s", (unsigned long long)p->files_done, (unsigned long long)p->files,
		p->is_listed ? "" : "+");
	ctl_table_cell(t, id);
	ctl_table_cell(t, state_of(p->state));
	ctl_table_cell(t, files);
	ctl_table_cell(t, wd_format_size(p->bytes_present, have, sizeof(have)));
	ctl_table_cell(t, wd_format_size(p->bytes, size, sizeof(size)));
	ctl_table_cell(t, p->target);
}

static enum ctl_exit list(struct warm_places *places, const struct warm_args *a)
{
	Warpdrive__V1__ListWarmRequest q = WARPDRIVE__V1__LIST_WARM_REQUEST__INIT;
	struct ctl_control *control = whom_to_ask(places, a);
	struct wd_err err = WD_ERR_INIT;
	Warpdrive__V1__ListWarmResponse *response;
	ProtobufCMessage *reply;
	struct ctl_table *t;

	if (!control)
		return CTL_FAILED;
	if (ctl_control_call(
		    control, "ListWarm", &q.base, &warpdrive__v1__list_warm_response__descriptor, &reply, &err) < 0) {
		ctl_error("warm: list tasks: %s", err.msg);
		return CTL_FAILED;
	}
	response = (Warpdrive__V1__ListWarmResponse *)reply;
	t = ctl_table_new("ID,STATE,FILES,CACHED,SIZE,TARGET");
	for (size_t i = 0; i < response->n_tasks; i++)
		print_task(t, response->tasks[i]);
	ctl_table_print(t, "no tasks", stdout);
	ctl_table_free(t);
	protobuf_c_message_free_unpacked(reply, NULL);
	return CTL_DONE;
}

enum ctl_exit ctl_warm(const struct ctl_command *self, int argc, char **argv)
{
	struct warm_args args;
	struct warm_places places;
	struct wd_err err = WD_ERR_INIT;
	enum ctl_exit code;

	if (warm_args_parse(self, argc, argv, &args, &code)) {
		if (warm_places_open(&places, args.run_dir, MOUNTINFO, &err) < 0) {
			ctl_error("warm: %s", err.msg);
			code = CTL_FAILED;
		} else {
			code = args.list ? list(&places, &args) : args.cancel ? cancel(&places, &args) : warm(self, &places, &args);
		}
		warm_places_close(&places);
	}
	warm_args_done(&args);
	return code;
}
