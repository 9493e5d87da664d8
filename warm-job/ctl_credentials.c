/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds S3 credentials. The file is the INI dialect of the AWS tools: "[profile]" lines, "key =
 * value" lines, comments with # or ; at the start of a line. Values are wiped before they are
 * freed.
 */
#include "warm-job/ctl_credentials.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

static void wipe(char **secret)
{
	if (*secret) {
		explicit_bzero(*secret, strlen(*secret));
		free(*secret);
	}
	*secret = NULL;
}

void ctl_credentials_release(struct ctl_credentials *credentials)
{
	wipe(&credentials->access_key);
	wipe(&credentials->secret_key);
	wipe(&credentials->session_token);
}

static char *trim(char *text)
{
	while (isspace((unsigned char)*text))
		text++;
	for (size_t len = strlen(text); len > 0 && isspace((unsigned char)text[len - 1]); len--)
		text[len - 1] = '\0';
	return text;
}

static void take(char *line, struct ctl_credentials *c)
{
	char *value = strchr(line, '=');

	if (!value)
		return;
	*value++ = '\0';

	const char *key = trim(line);
	char **slot = NULL;

	if (!strcmp(key, "aws_access_key_id"))
		slot = &c->access_key;
	else if (!strcmp(key, "aws_secret_access_key"))
		slot = &c->secret_key;
	else if (!strcmp(key, "aws_session_token"))
		slot = &c->session_token;
	if (!slot)
		return;
	wipe(slot);
	*slot = strdup(trim(value));
}

int ctl_credentials_read(const char *path, const char *profile,
	struct ctl_credentials *ret_credentials, struct wd_err *err)
{
	FILE *file = fopen(path, "re");

	if (!file)
		return wd_err_sys(err, errno, "credentials file '%s'", path);

	struct ctl_credentials c = CTL_CREDENTIALS_INIT;
	bool is_ours = false, is_found = false;
	char *line = NULL;
	size_t cap = 0;

	while (getline(&line, &cap, file) >= 0) {
		char *text = trim(line);
		size_t len = strlen(text);

		if (*text == '#' || *text == ';')
			continue;
		if (*text == '[' && text[len - 1] == ']') {
			text[len - 1] = '\0';
			is_ours = !strcmp(trim(text + 1), profile);
			is_found = is_found || is_ours;
		} else if (is_ours) {
			take(text, &c);
		}
	}
	if (line)
		explicit_bzero(line, cap);
	free(line);
	fclose(file);

	if (c.access_key && *c.access_key && c.secret_key && *c.secret_key) {
		*ret_credentials = c;
		return 0;
	}
	ctl_credentials_release(&c);
	if (!is_found)
		return wd_err_set(
			err, ENOENT, "credentials file '%s': has no profile '%s'", path, profile);
	return wd_err_set(err, ENOENT,
		"credentials file '%s', profile '%s': aws_access_key_id or aws_secret_access_key "
		"is missing",
		path, profile);
}

static char *from_env(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? strdup(value) : NULL;
}

int ctl_credentials_find(struct ctl_credentials *ret_credentials, struct wd_err *err)
{
	struct ctl_credentials c = CTL_CREDENTIALS_INIT;

	c.access_key = from_env("AWS_ACCESS_KEY_ID");
	c.secret_key = from_env("AWS_SECRET_ACCESS_KEY");
	c.session_token = from_env("AWS_SESSION_TOKEN");
	if (c.access_key && c.secret_key) {
		*ret_credentials = c;
		return 0;
	}
	bool is_half = c.access_key || c.secret_key;

	ctl_credentials_release(&c);
	if (is_half)
		return wd_err_set(err, ENOENT,
			"only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set: set both");

	wd_autofree char *file = from_env("AWS_SHARED_CREDENTIALS_FILE");
	wd_autofree char *profile = from_env("AWS_PROFILE");
	const char *home = getenv("HOME");
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/.aws/credentials", home ? home : "");

	int r = ctl_credentials_read(
		file ? file : path, profile ? profile : "default", ret_credentials, err);

	if (r == -ENOENT && !file && !profile)
		return wd_err_set(err, ENOENT,
			"no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, write "
			"~/.aws/credentials, or use -o anonymous for a public bucket");
	return r;
}
