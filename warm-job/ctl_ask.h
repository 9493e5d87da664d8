/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_ASK_H
#define WD_WARM_JOB_CTL_ASK_H
/*
 * One question to the control API, as most subcommands have it: what fails is told in one line, "warpdrive-ctl: NAME:
 * why", the same for all of them. One thread.
 */
#include "warm-job/ctl.h"
#include "warm-job/ctl_control.h"
#include "warm-job/ctl_warm_places.h"

/* The agent of run_dir; NULL, and told: there is none, or it is not for this user. */
struct ctl_control *ctl_ask_agent(const struct ctl_command *self, const char *run_dir);
/* The reply, which the caller frees; NULL, and told. */
void *ctl_ask(const struct ctl_command *self, struct ctl_control *control, const char *method,
	const ProtobufCMessage *request, const ProtobufCMessageDescriptor *reply);
/* Why `what` was not found, if that is because the agent could not be asked; else err stays. */
void ctl_ask_explain(const struct warm_places *places, const char *run_dir, const char *what, struct wd_err *err);
/* Finds the mounts of some PATHs and URLs. False, and told. ctl_ask_places_done() in any case. */
bool ctl_ask_places(const struct ctl_command *self, const char *run_dir, char *const *places, size_t n,
	struct warm_places *ret_places);
void ctl_ask_places_done(struct warm_places *places);

#endif
