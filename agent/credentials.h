/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_CREDENTIALS_H
#define WD_AGENT_CREDENTIALS_H
/*
 * Where a mount's credentials come from (option authentication-source):
 *
 *	secret	what the description brings, or none (anonymous); the default
 *	pod	the pod's service-account token: exchanged for keys of role-arn at the security token service for s3,
 *		sent as it is to http(s) origins
 *	node	the agent's own environment, for mounts that the setting node-identity names
 *
 * Keys that came from a token end sooner than the mount: a thread of the refresher has others made in time. All of
 * it stays in memory.
 */
#include "agent/agent.h"
#include "agent/mount_options.h"
#include "agent/sts.h"

struct credentials {
	struct origin_options origin; /* views of what follows, of the mount options and the environment */
	struct sts_keys keys;
	char subject[400];
	int64_t expires_s; /* Unix time; 0: not known */
};

/* What a mount with these options asks its origin with. May ask the token service: blocks some seconds. Keep o and
 * *ret_c until the origin has copied them. Errors as of origin_check(). */
int credentials_resolve(const struct agent *a, const struct mount_options *o, struct credentials *ret_c,
	struct wd_err *err);
void credentials_done(struct credentials *c);
/* -EINVAL for what --check-config should say. */
int credentials_check_settings(const struct settings *s, struct wd_err *err);

struct refresher;
struct refresher *refresher_new(struct agent *a);
/* Something that may be due sooner has come. */
void refresher_wake(struct refresher *r);
/* NULL is fine. */
void refresher_stop(struct refresher *r);
void refresher_free(struct refresher *r);

/* When credentials that end then are to be made anew: after four fifths of what is left, give or take a tenth. */
int64_t credentials_refresh_at(int64_t now_s, int64_t expires_s, uint32_t random);

#endif
