/* SPDX-License-Identifier: Apache-2.0 */
/* Parsing and checking of mount descriptions (jansson), see mount_options.h. */
#include "agent/mount_options.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/identity.h"
#include "agent/profile.h"
#include "agent/tree.h"
#include "common/config.h"

#define FOR_EVER_MS (10LL * 365 * 86400000)

#define AT(field) offsetof(struct mount_options, field)

enum option_type { TEXT, FLAG, NUMBER, OCTAL, DURATION, SIZE, PREFETCH, PROFILE };

static const struct option {
	const char *name;
	enum option_type type;
	size_t offset;
	int64_t max;
} known[] = {
	{"endpoint", TEXT, AT(endpoint), 0},
	{"region", TEXT, AT(region), 0},
	{"path-style", FLAG, AT(is_path_style), 0},
	{"anonymous", FLAG, AT(is_anonymous), 0},
	{"ca-cert", TEXT, AT(ca_cert), 0},
	{"authentication-source", TEXT, AT(source), 0},
	{"role-arn", TEXT, AT(role_arn), 0},
	{"audience", TEXT, AT(audience), 0},
	{"index", TEXT, AT(index), 0},
	{"version", TEXT, AT(version), 0},
	{"no-open", FLAG, AT(has_no_open), 0},
	{"ro", FLAG, AT(is_read_only), 0},
	{"no-passthrough", FLAG, AT(has_no_passthrough), 0},
	{"uid", NUMBER, AT(uid), UINT32_MAX - 1},
	{"gid", NUMBER, AT(gid), UINT32_MAX - 1},
	{"file-mode", OCTAL, AT(file_mode), 0777},
	{"dir-mode", OCTAL, AT(dir_mode), 0777},
	{"metadata-ttl", DURATION, AT(metadata_ttl), 0},
	{"negative-ttl", DURATION, AT(negative_ttl), 0},
	{"prefetch", PREFETCH, AT(prefetch), 0},
	{"profile", PROFILE, 0, 0},
	{"bandwidth-limit", SIZE, AT(bandwidth_limit), 0},
};
#define NKNOWN (sizeof(known) / sizeof(known[0]))

bool prefetch_parse(const char *text, enum prefetch *ret)
{
	static const char *const words[] = {[PREFETCH_OFF] = "off", [PREFETCH_FILE] = "file", [PREFETCH_AUTO] = "auto"};

	for (int i = PREFETCH_OFF; i <= PREFETCH_AUTO; i++) {
		if (strcmp(text, words[i]) != 0)
			continue;
		*ret = (enum prefetch)i;
		return true;
	}
	return false;
}

static int unknown_option(const char *name, struct wd_err *err)
{
	char names[480];
	size_t used = 0;

	for (size_t i = 0; i < NKNOWN && used < sizeof(names); i++)
		used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s", i ? ", " : "",
			known[i].name);
	return wd_err_set(err, EINVAL, "unknown mount option '%.60s': the known ones are %s", name, names);
}

static int parse_number(const char *text, int base, int64_t max, int64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoll(text, &end, base);
	return errno || end == text || *end || *ret < 0 || *ret > max ? -EINVAL : 0;
}

static int set_option(struct mount_options *o, const char *name, const char *value, struct wd_err *err)
{
	const struct option *k = NULL;
	void *field;
	int rc = 0;

	for (size_t i = 0; i < NKNOWN; i++)
		if (strcmp(known[i].name, name) == 0)
			k = &known[i];
	if (!k)
		return unknown_option(name, err);
	field = (char *)o + k->offset;
	switch (k->type) {
	case TEXT:
		free(*(char **)field);
		*(char **)field = strdup(value);
		rc = *(char **)field ? 0 : -ENOMEM;
		break;
	case FLAG:
		*(bool *)field = strcmp(value, "") == 0 || strcmp(value, "true") == 0;
		rc = *(bool *)field || strcmp(value, "false") == 0 ? 0 : -EINVAL;
		break;
	case NUMBER:
		rc = parse_number(value, 10, k->max, field);
		break;
	case OCTAL:
		rc = parse_number(value, 8, k->max, field);
		break;
	case DURATION:
		rc = wd_parse_duration(value, field);
		break;
	case SIZE:
		rc = wd_parse_size(value, field);
		break;
	case PREFETCH:
		rc = prefetch_parse(value, field) ? 0 : -EINVAL;
		break;
	case PROFILE: /* read_profile() has seen to it */
		break;
	}
	if (rc == -EINVAL)
		return wd_err_set(err, EINVAL, "mount option '%s': bad value '%.60s'", name, value);
	return rc < 0 ? wd_err_sys(err, -rc, "mount option '%s'", name) : 0;
}

/* Leaves *ret NULL where there is no such string, or an empty one. */
static int copy_string(const json_t *object, const char *name, char **ret)
{
	const char *s = json_string_value(json_object_get(object, name));

	*ret = s && s[0] ? strdup(s) : NULL;
	return s && s[0] && !*ret ? -ENOMEM : 0;
}

/* Before the other options, which win over it. */
static int read_profile(struct mount_options *o, const json_t *options, struct wd_err *err)
{
	const char *name = json_string_value(json_object_get(options, "profile"));
	int rc = profile_check(name, err);

	for (const struct profile_value *v = profile_values; rc == 0 && name && v->profile; v++)
		if (v->is_mounts && strcmp(v->profile, name) == 0)
			rc = set_option(o, v->key, v->value, err);
	return rc;
}

static int read_options(struct mount_options *o, const json_t *options, struct wd_err *err)
{
	const char *name;
	json_t *value;
	int profile = read_profile(o, options, err);

	if (profile < 0)
		return profile;
	json_object_foreach((json_t *)options, name, value)
	{
		int rc;

		if (!json_is_string(value))
			return wd_err_set(err, EINVAL, "mount option '%.60s': not a string", name);
		rc = set_option(o, name, json_string_value(value), err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* What is pinned does not change: names and attributes are good for ever. */
static int freeze(struct mount_options *o, struct wd_err *err)
{
	if (!o->version)
		return o->has_no_open ? wd_err_set(err, EINVAL,
						"mount option 'no-open': for pinned versions: give 'version', too")
				      : 0;
	o->metadata_ttl = o->negative_ttl = FOR_EVER_MS;
	if (o->has_no_open)
		o->has_no_passthrough = true;
	return 0;
}

int mount_options_parse(const void *text, size_t len, const struct settings *settings,
	struct mount_options **ret_options, struct wd_err *err)
{
	json_t *root = json_loadb(text, len, 0, NULL), *credentials;
	struct mount_options *o = calloc(1, sizeof(*o));
	int rc = 0;

	if (!o || !json_is_object(root)) {
		rc = o ? wd_err_set(err, EINVAL, "mount description: not a JSON object")
		       : wd_err_set(err, ENOMEM, "out of memory");
		goto out;
	}
	o->is_read_only = true;
	o->file_mode = 0444;
	o->dir_mode = 0555;
	o->metadata_ttl = settings->metadata_ttl;
	o->negative_ttl = settings->negative_ttl;
	if (!settings->prefetch || !prefetch_parse(settings->prefetch, &o->prefetch))
		o->prefetch = PREFETCH_AUTO; /* tests; others were checked at the start */
	if (copy_string(root, "url", &o->url) < 0) {
		rc = wd_err_set(err, ENOMEM, "out of memory");
		goto out;
	}
	if (!o->url) {
		rc = wd_err_set(err, EINVAL, "mount description: no url");
		goto out;
	}
	o->is_ephemeral = json_is_true(json_object_get(root, "ephemeral"));
	o->may_be_down = json_is_true(json_object_get(root, "may_be_down"));
	rc = read_options(o, json_object_get(root, "options"), err);
	if (rc == 0)
		rc = freeze(o, err);
	if (rc == 0 && !o->is_read_only)
		rc = wd_err_set(err, EINVAL, "mount option 'ro': writable mounts are not supported");
	credentials = json_object_get(root, "credentials");
	/* a mount that lost its key to short memory would be another identity */
	if (rc == 0 && (copy_string(credentials, "access_key", &o->access_key) < 0 ||
			       copy_string(credentials, "secret_key", &o->secret_key) < 0 ||
			       copy_string(credentials, "session_token", &o->session_token) < 0 ||
			       copy_string(credentials, "bearer_token", &o->bearer_token) < 0 ||
			       copy_string(credentials, "token", &o->token) < 0 ||
			       copy_string(credentials, "subject", &o->subject) < 0 ||
			       copy_string(root, "identity", &o->identity) < 0))
		rc = wd_err_set(err, ENOMEM, "out of memory");
	o->token_expires_s = json_integer_value(json_object_get(credentials, "token_expires"));
out:
	json_decref(root);
	if (rc < 0) {
		mount_options_free(o);
		return rc;
	}
	*ret_options = o;
	return 0;
}

static void free_secret(char *s)
{
	if (s)
		explicit_bzero(s, strlen(s));
	free(s);
}

void mount_options_free(struct mount_options *o)
{
	if (!o)
		return;
	free(o->url);
	free(o->endpoint);
	free(o->region);
	free(o->ca_cert);
	free(o->index);
	free(o->version);
	free(o->access_key);
	free_secret(o->secret_key);
	free_secret(o->session_token);
	free_secret(o->bearer_token);
	free_secret(o->token);
	free(o->source);
	free(o->role_arn);
	free(o->audience);
	free(o->subject);
	free(o->identity);
	free(o);
}

void mount_options_origin(const struct mount_options *o, const struct settings *settings,
	struct origin_options *ret_origin)
{
	*ret_origin = (struct origin_options){
		.endpoint = o->endpoint,
		.region = o->region,
		.is_path_style = o->is_path_style,
		.is_anonymous = o->is_anonymous,
		.access_key = o->access_key,
		.secret_key = o->secret_key,
		.session_token = o->session_token,
		.bearer_token = o->bearer_token,
		.ca_cert = o->ca_cert,
		.index = o->index,
		.version = o->version,
		.deadline_ms = settings->request_deadline,
	};
}

int mount_options_place(const struct mount_options *o, char *out, size_t cap)
{
	int n = snprintf(out, cap, "%s\n%s\n%s%s%s", o->url, o->endpoint ? o->endpoint : "",
		o->index ? o->index : "", o->version ? TREE_PLACE_VERSION : "", o->version ? o->version : "");

	return n < 0 || (size_t)n >= cap ? -ENAMETOOLONG : 0;
}

int mount_options_identity(const struct mount_options *o, char *out, size_t cap)
{
	struct origin_options options = {.bearer_token = o->bearer_token};
	struct identity id;
	int n;

	if (o->identity) {
		n = snprintf(out, cap, "%s", o->identity);
	} else if (o->source && strcmp(o->source, "node") == 0) {
		n = snprintf(out, cap, "node");
	} else if (o->source && strcmp(o->source, "pod") == 0) {
		n = snprintf(out, cap, "pod %s %s", o->role_arn ? o->role_arn : "", o->subject ? o->subject : "");
	} else if (o->is_anonymous || (!o->access_key && !o->bearer_token)) {
		n = snprintf(out, cap, "anonymous");
	} else if (o->access_key) {
		n = snprintf(out, cap, "%s", o->access_key);
	} else {
		identity_make(&options, NULL, &id);
		n = snprintf(out, cap, "token ");
		for (size_t i = 0; i < sizeof(id.who.b) && (size_t)n < cap; i++)
			n += snprintf(out + n, cap - (size_t)n, "%02x", id.who.b[i]);
	}
	return n < 0 || (size_t)n >= cap ? -ENAMETOOLONG : 0;
}
