/* SPDX-License-Identifier: Apache-2.0 */
/* The table of the profiles. */
#include "agent/profile.h"

#include <errno.h>
#include <string.h>

const struct profile_value profile_values[] = {
	/* many small files, read whole, in another order each epoch */
	{"images", "metadata-ttl", "10m", true},
	{"images", "prefetch", "auto", true},
	{"images", "small-object-size", "4MiB", false},
	{"images", "directory-window", "4GiB", false},
	/* archives of samples, each read through, one after the other by each worker */
	{"shards", "metadata-ttl", "10m", true},
	{"shards", "prefetch", "auto", true},
	{"shards", "directory-window", "8GiB", false},
	/* a few large files, read whole once, that change */
	{"checkpoints", "metadata-ttl", "5s", true},
	{"checkpoints", "prefetch", "file", true},
	{"checkpoints", "prefetch-window", "512MiB", false},
	/* models, read in part and again and again, that nothing read once shall push out */
	{"inference", "metadata-ttl", "10m", true},
	{"inference", "prefetch", "file", true},
	{"inference", "eviction-policy", "s3fifo", false},
	{NULL, NULL, NULL, false},
};

int profile_check(const char *name, struct wd_err *err)
{
	if (!name || !name[0])
		return 0;
	for (const struct profile_value *v = profile_values; v->profile; v++)
		if (strcmp(v->profile, name) == 0)
			return 0;
	return wd_err_set(err, EINVAL,
		"profile '%.60s': there is none of that name; images, shards, checkpoints and inference are known", name);
}

int profile_apply(struct settings *s, const char *name, struct wd_err *err)
{
	int rc = profile_check(name, err);

	for (const struct profile_value *v = profile_values; rc == 0 && v->profile; v++)
		if (strcmp(v->profile, name) == 0)
			rc = wd_config_set(settings_keys, s, v->key, v->value, err);
	return rc;
}

void profiles_print(FILE *out)
{
	const char *last = "";

	for (const struct profile_value *v = profile_values; v->profile; v++) {
		if (strcmp(v->profile, last) != 0)
			fprintf(out, "%s%s:\n", last[0] ? "\n" : "", v->profile);
		fprintf(out, "  %s: %s%s\n", v->key, v->value, v->is_mounts ? "  # by mounts, too" : "");
		last = v->profile;
	}
}
