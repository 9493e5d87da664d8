/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_PROFILE_H
#define WD_AGENT_PROFILE_H
/*
 * Named bundles of settings for kinds of work. As the agent's setting `profile` it replaces defaults: whatever the file,
 * the environment or --set says wins. As a mount option it does that for the mount, as far as its settings are a mount's
 * own. The defaults are meant to be good enough without any.
 */
#include <stdbool.h>
#include <stdio.h>

#include "agent/settings.h"
#include "common/err.h"

struct profile_value {
	const char *profile, *key, *value;
	bool is_mounts; /* a mount option of the same name, too */
};

/* Ends with a row without a profile; the rows of one stand together. */
extern const struct profile_value profile_values[];

/* -EINVAL for a name that is none, with the known ones in the error. "" is none, and known. */
int profile_check(const char *name, struct wd_err *err);
/* Sets the profile's values in place of the defaults. */
int profile_apply(struct settings *s, const char *name, struct wd_err *err);
/* All of them, one setting per line. */
void profiles_print(FILE *out);

#endif
