/* SPDX-License-Identifier: Apache-2.0 */
/* See credentials.h. */
#include "agent/credentials.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_s3(const struct mount_options *o)
{
	return strncmp(o->url, "s3://", 5) == 0;
}

static int check_region(const char *region, struct wd_err *err)
{
	if (strspn(region, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(region))
		return 0;
	return wd_err_set(err, EINVAL, "option 'region' is '%.64s'; it is a word like eu-west-1", region);
}

/* The pod's token, exchanged for keys of the role. */
static int assume(const struct agent *a, const struct mount_options *o, struct credentials *c, struct wd_err *err)
{
	const char *region = o->region ? o->region : "us-east-1", *endpoint = a->settings->sts_endpoint;
	char of_region[128];
	int rc = check_region(region, err);

	if (rc < 0)
		return rc;
	if (!o->role_arn)
		return wd_err_set(err, EINVAL,
			"authentication-source=pod: name the role that the pod's service account may assume with "
			"role-arn (in Kubernetes roleArn)");
	if (!endpoint || !*endpoint) {
		snprintf(of_region, sizeof(of_region), "https://sts.%.64s.amazonaws.com", region);
		endpoint = of_region;
	}
	rc = sts_assume(endpoint, o->role_arn, o->token, &c->keys, err);
	if (rc < 0)
		return rc;
	snprintf(c->subject, sizeof(c->subject), "%s %s", o->role_arn, o->subject ? o->subject : "");
	c->expires_s = c->keys.expires_s;
	c->origin.access_key = c->keys.access_key;
	c->origin.secret_key = c->keys.secret_key;
	c->origin.session_token = c->keys.session_token;
	return 0;
}

static int from_pod(const struct agent *a, const struct mount_options *o, struct credentials *c, struct wd_err *err)
{
	if (!o->token)
		return wd_err_set(err, EINVAL,
			"authentication-source=pod: no service-account token came with the mount; the CSIDriver's "
			"tokenRequests must ask for one");
	if (is_s3(o))
		return assume(a, o, c, err);
	if (strncmp(o->url, "http", 4) != 0)
		return wd_err_set(err, EINVAL, "authentication-source=pod means nothing for '%.60s'", o->url);
	snprintf(c->subject, sizeof(c->subject), "%s", o->subject ? o->subject : "");
	c->expires_s = o->token_expires_s;
	c->origin.bearer_token = o->token;
	return 0;
}

static int from_node(const struct agent *a, const struct mount_options *o, struct credentials *c, struct wd_err *err)
{
	const char *lent = a->settings->node_identity, *key = getenv("AWS_ACCESS_KEY_ID"),
		   *secret = getenv("AWS_SECRET_ACCESS_KEY");

	if (!lent || strcmp(lent, "none") == 0 || (o->is_ephemeral && strcmp(lent, "all") != 0))
		return wd_err_set(err, EACCES,
			"authentication-source=node is refused by node-identity (%s): the operator can lend the node's "
			"identity to %s volumes in the agent's configuration",
			lent && *lent ? lent : "none", o->is_ephemeral ? "inline" : "persistent");
	if (!is_s3(o))
		return wd_err_set(err, EINVAL, "authentication-source=node means nothing for '%.60s'", o->url);
	if (!key || !*key || !secret || !*secret)
		return wd_err_set(err, EKEYREJECTED,
			"authentication-source=node: the agent's environment has no AWS_ACCESS_KEY_ID and "
			"AWS_SECRET_ACCESS_KEY; instance profiles are not read");
	snprintf(c->subject, sizeof(c->subject), "node");
	c->origin.access_key = key;
	c->origin.secret_key = secret;
	c->origin.session_token = getenv("AWS_SESSION_TOKEN");
	return 0;
}

int credentials_resolve(const struct agent *a, const struct mount_options *o, struct credentials *ret_c,
	struct wd_err *err)
{
	const char *source = o->source ? o->source : "secret";
	struct credentials c = {0};
	int rc = 0;

	mount_options_origin(o, a->settings, &c.origin);
	if (strcmp(source, "pod") == 0)
		rc = from_pod(a, o, &c, err);
	else if (strcmp(source, "node") == 0)
		rc = from_node(a, o, &c, err);
	else if (strcmp(source, "secret") != 0)
		rc = wd_err_set(err, EINVAL, "mount option 'authentication-source': '%.60s' is not secret, pod or node",
			source);
	if (rc < 0)
		return rc;
	*ret_c = c;
	if (c.subject[0])
		ret_c->origin.subject = ret_c->subject;
	return 0;
}

void credentials_done(struct credentials *c)
{
	sts_keys_done(&c->keys);
}

int credentials_check_settings(const struct settings *s, struct wd_err *err)
{
	const char *lent = s->node_identity;

	if (lent && strcmp(lent, "none") != 0 && strcmp(lent, "volumes") != 0 && strcmp(lent, "all") != 0)
		return wd_err_set(err, EINVAL, "node-identity: '%.64s' is not none, volumes or all", lent);
	return 0;
}

int64_t credentials_refresh_at(int64_t now_s, int64_t expires_s, uint32_t random)
{
	int64_t left_s = expires_s > now_s ? expires_s - now_s : 0;

	return now_s + left_s * 7 / 10 + (int64_t)((double)left_s * 0.2 * random / UINT32_MAX);
}
