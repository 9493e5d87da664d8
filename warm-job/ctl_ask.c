/* SPDX-License-Identifier: Apache-2.0 */
#include "warm-job/ctl_ask.h"

#include <string.h>

#define MOUNTINFO "/proc/self/mountinfo"

struct ctl_control *ctl_ask_agent(const struct ctl_command *self, const char *run_dir)
{
	struct wd_err err = WD_ERR_INIT;
	struct ctl_control *control;

	if (ctl_control_open_agent(run_dir, &control, &err) == 0)
		return control;
	ctl_explain("agent", run_dir, &err);
	ctl_error("%s: %s", self->name, err.msg);
	return NULL;
}

void *ctl_ask(const struct ctl_command *self, struct ctl_control *control, const char *method,
	const ProtobufCMessage *request, const ProtobufCMessageDescriptor *type)
{
	struct wd_err err = WD_ERR_INIT;
	ProtobufCMessage *reply;

	if (ctl_control_call(control, method, request, type, &reply, &err) == 0)
		return reply;
	ctl_error("%s: %s", self->name, err.msg);
	return NULL;
}

void ctl_ask_explain(const struct warm_places *places, const char *run_dir, const char *what, struct wd_err *err)
{
	/* a path is in a mount that is seen here, or in none; a URL may be mounted where only the agent sees it */
	if (places->agent || !places->agent_err.code || (places->nmounts > 0 && !(what && strstr(what, "://"))))
		return;
	*err = places->agent_err;
	ctl_explain("agent", run_dir, err);
}

bool ctl_ask_places(const struct ctl_command *self, const char *run_dir, char *const *what, size_t n,
	struct warm_places *places)
{
	struct wd_err err = WD_ERR_INIT;
	int r = warm_places_open(places, run_dir, MOUNTINFO, &err);

	for (size_t i = 0; i < n && r == 0; i++) {
		r = warm_places_add(places, what[i], &err);
		if (r < 0)
			ctl_ask_explain(places, run_dir, what[i], &err);
	}
	if (r < 0)
		ctl_error("%s: %s", self->name, err.msg);
	return r == 0;
}

void ctl_ask_places_done(struct warm_places *places)
{
	warm_places_close(places);
}
