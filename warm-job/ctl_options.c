/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options of `mount -o`, by table: adding one is one row (and the agent's understanding of it).
 */
#include "warm-job/ctl_options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

struct option_row {
	const char *key;
	const char *value; /* what stands behind "=" in the help; NULL: a flag */
	const char *help;
};

static const struct option_row rows[] = {
	{"endpoint", "URL", "s3: server, http(s)://host[:port], when it is not AWS"},
	{"region", "NAME", "s3: region, default us-east-1"},
	{"path-style", NULL, "s3: bucket in the path, not in the host name"},
	{"anonymous", NULL, "s3: requests are not signed"},
	{"ca-cert", "FILE", "PEM certificates that the server's certificate is checked against"},
	{"index", "NAME", "http: file of JSON lines (key, size, mtime, etag) below the URL"},
	{"version", "NAME", "a pinned version of the dataset, as `warpdrive-ctl dataset pin` made it"},
	{"no-open", NULL, "with a version: files are opened without asking, their pages are kept"},
	{"uid", "NUMBER", "owner of everything, default 0"},
	{"gid", "NUMBER", "group of everything, default 0"},
	{"file-mode", "OCTAL", "permissions of files, default 0444"},
	{"dir-mode", "OCTAL", "permissions of directories, default 0555"},
	{"metadata-ttl", "TIME", "how long names and attributes are believed, default 60s"},
	{"negative-ttl", "TIME", "how long a missing name is believed missing, default 5s"},
	{"profile", "NAME", "defaults for images, shards, checkpoints or inference"},
	{"prefetch", "auto|file|off", "what is fetched before somebody asks for it, default auto"},
	{"bandwidth-limit", "SIZE", "bytes per second that this mount may fetch, e.g. 50MiB; default: no limit"},
	{"no-passthrough", NULL,
		"reads go through the FUSE server even where the kernel could do without"},
	{"ro", NULL, "read-only; every mount is, the word is accepted for mount(8)'s sake"},
};
#define NROWS (sizeof(rows) / sizeof(rows[0]))

static const struct option_row *find(const char *key)
{
	for (size_t i = 0; i < NROWS; i++) {
		if (!strcmp(rows[i].key, key))
			return &rows[i];
	}
	return NULL;
}

static int refuse_unknown(const char *key, struct wd_err *err)
{
	char known[480];
	size_t len = 0;

	for (size_t i = 0; i < NROWS && len < sizeof(known); i++)
		len += (size_t)snprintf(
			known + len, sizeof(known) - len, "%s%s", i ? ", " : "", rows[i].key);
	return wd_err_set(
		err, EINVAL, "option '%.64s': unknown: the known ones are %s", key, known);
}

static int add_one(char *item, json_t *options, struct wd_err *err)
{
	char *value = strchr(item, '=');

	if (value)
		*value++ = '\0';

	const struct option_row *row = find(item);

	if (!row)
		return refuse_unknown(item, err);
	if (row->value && (!value || !*value))
		return wd_err_set(err, EINVAL, "option '%s': needs a value: write %s=%s", item,
			item, row->value);
	if (!row->value && value && strcmp(value, "true") && strcmp(value, "false"))
		return wd_err_set(
			err, EINVAL, "option '%s': is a flag: leave '=%s' away", item, value);

	json_t *text = json_string(value ? value : "true");

	if (!text)
		return wd_err_set(err, EINVAL, "option '%s': its value is not UTF-8", item);
	json_object_set_new(options, item, text);
	return 0;
}

int ctl_options_parse(const char *text, json_t *options, struct wd_err *err)
{
	wd_autofree char *item = malloc(strlen(text) + 1);
	size_t len = 0;

	if (!item)
		return wd_err_sys(err, ENOMEM, "options");
	for (const char *p = text;; p++) {
		if (*p == '\\' && p[1] == ',') {
			item[len++] = *++p;
			continue;
		}
		if (*p && *p != ',') {
			item[len++] = *p;
			continue;
		}
		item[len] = '\0';
		if (len > 0) {
			int r = add_one(item, options, err);

			if (r < 0)
				return r;
		}
		len = 0;
		if (!*p)
			return 0;
	}
}

bool ctl_options_flag(const json_t *options, const char *key)
{
	const char *value = json_string_value(json_object_get(options, key));

	return value && !strcmp(value, "true");
}

#define TEXT_COLUMN 21
#define COLUMNS 80

/* Goes on at `column`, and breaks between words. */
static void print_help(const char *text, size_t column, FILE *out)
{
	const char *before = "";

	while (*text) {
		size_t len = strcspn(text, " ");

		if (column + strlen(before) + len > COLUMNS) {
			fprintf(out, "\n%*s", TEXT_COLUMN, "");
			column = TEXT_COLUMN;
			before = "";
		}
		column += (size_t)fprintf(out, "%s%.*s", before, (int)len, text);
		before = " ";
		text += len + strspn(text + len, " ");
	}
	fputc('\n', out);
}

void ctl_options_print(FILE *out)
{
	for (size_t i = 0; i < NROWS; i++) {
		char left[64];
		int n;

		snprintf(left, sizeof(left), "%s%s%s", rows[i].key, rows[i].value ? "=" : "",
			rows[i].value ? rows[i].value : "");
		n = fprintf(out, "  %-18s ", left);
		print_help(rows[i].help, n > 0 ? (size_t)n : 0, out);
	}
}
