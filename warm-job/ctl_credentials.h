/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_CREDENTIALS_H
#define WD_WARM_JOB_CTL_CREDENTIALS_H
/*
 * Where `mount s3://...` takes its keys from: the environment, else a profile of the shared
 * credentials file that other S3 tools use. The values stay in memory and go to the agent over its
 * socket.
 */
#include "common/err.h"

struct ctl_credentials {
	char *access_key, *secret_key, *session_token; /* session_token may be NULL */
};
#define CTL_CREDENTIALS_INIT ((struct ctl_credentials){NULL, NULL, NULL})

/* -ENOENT when there are none anywhere; the text says what was looked for. */
int ctl_credentials_find(struct ctl_credentials *ret_credentials, struct wd_err *err);
/* One profile of an INI text; -ENOENT when the profile or one of its keys is missing. */
int ctl_credentials_read(const char *path, const char *profile,
	struct ctl_credentials *ret_credentials, struct wd_err *err);
/* Wipes and frees. */
void ctl_credentials_release(struct ctl_credentials *credentials);

#endif
