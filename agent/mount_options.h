/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_MOUNT_OPTIONS_H
#define WD_AGENT_MOUNT_OPTIONS_H
/*
 * The mount description: a JSON object {"url", "target", "may_be_down",
 * "ephemeral", "identity", "options": {...}, "credentials": {...}} that travels from warpdrive-ctl or csi through the keeper (which does not read it) to the agent.
 * It is checked here as untrusted input. Credentials stay in memory and are wiped when freed.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/origin.h"
#include "agent/settings.h"
#include "common/err.h"

/* What is fetched before somebody asks for it. */
enum prefetch {
	PREFETCH_OFF,  /* nothing */
	PREFETCH_FILE, /* the rest of a file that is read */
	PREFETCH_AUTO, /* that, and the next files of a directory */
};
/* "off", "file", "auto"; false: none of them. */
bool prefetch_parse(const char *text, enum prefetch *ret);

struct mount_options {
	char *url;
	char *endpoint, *region, *ca_cert, *index;
	char *version; /* a pinned one; NULL: the dataset as it is */
	bool has_no_open; /* with a version: the kernel opens files without asking */
	bool is_path_style, is_anonymous, is_read_only, has_no_passthrough;
	bool may_be_down; /* mounted even while the origin is away: nobody reads what an error would say */
	int64_t uid, gid, file_mode, dir_mode; /* modes are permission bits */
	int64_t metadata_ttl, negative_ttl;    /* ms */
	enum prefetch prefetch;
	int64_t bandwidth_limit;	       /* bytes per second from the origin; 0: none */
	char *source, *role_arn, *audience; /* credentials.h; who made the description has used audience */
	bool is_ephemeral;		    /* an inline volume */
	char *access_key, *secret_key, *session_token, *bearer_token;
	char *token;   /* of the pod's service account */
	char *subject; /* whose token it is, as Kubernetes says; NULL: nobody said */
	int64_t token_expires_s;
	char *identity; /* of a mount whose credentials were renewed: what its dataset was opened as; else NULL */
};

int mount_options_parse(const void *json, size_t len, const struct settings *settings,
	struct mount_options **ret_options, struct wd_err *err);
void mount_options_free(struct mount_options *o);
/* Views into o. */
void mount_options_origin(const struct mount_options *o, const struct settings *settings,
	struct origin_options *ret_origin);
/* What tells this origin from others, and this identity's datasets from others', without a secret. */
int mount_options_place(const struct mount_options *o, char *out, size_t cap);
int mount_options_identity(const struct mount_options *o, char *out, size_t cap);

#endif
