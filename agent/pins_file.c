/* SPDX-License-Identifier: Apache-2.0 */
/*
 * <cache dir>/pins: what was asked to be pinned. A line with the tag, then one per rule, in which control characters and
 * "%" are written as %XX. It is apart from the metadata, which may be set aside, and is replaced as a whole.
 */
#include "agent/pins_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/log.h"

#define HEAD "warpdrive-pins 1 "
#define LINE_MAX_BYTES 8192

/* ---- writing ---- */

static void put_rule(FILE *out, const char *url)
{
	for (const unsigned char *p = (const unsigned char *)url; *p; p++)
		fprintf(out, *p < 0x20 || *p == 0x7f || *p == '%' ? "%%%02X" : "%c", *p);
	fputc('\n', out);
}

static int write_file(const char *path, const struct pin_list *l)
{
	FILE *out = fopen(path, "we");
	int rc = 0;

	if (!out)
		return -errno;
	fprintf(out, HEAD "%u\n", l->tag);
	for (unsigned i = 0; i < l->n; i++)
		put_rule(out, l->items[i].url);
	if (WD_FAULT("pins.write"))
		rc = -EIO;
	else if (fflush(out) != 0 || ferror(out) || fsync(fileno(out)) < 0)
		rc = errno ? -errno : -EIO;
	fclose(out);
	return rc;
}

static int sync_dir(const char *dir)
{
	wd_autoclose int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int pins_write(struct pins *p, const struct pin_list *l, struct wd_err *err)
{
	char path[PATH_MAX], aside[PATH_MAX];
	int rc;

	if (!p->dir)
		return 0;
	if (snprintf(path, sizeof(path), "%s/pins", p->dir) >= (int)sizeof(path) ||
		snprintf(aside, sizeof(aside), "%s/pins.new", p->dir) >= (int)sizeof(aside))
		return wd_err_sys(err, ENAMETOOLONG, "keep what is pinned");
	rc = write_file(aside, l);
	if (rc == 0 && rename(aside, path) < 0)
		rc = -errno;
	if (rc == 0)
		rc = sync_dir(p->dir);
	return rc < 0 ? wd_err_sys(err, -rc, "keep what is pinned in '%s'", path) : 0;
}

/* ---- reading ---- */

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* In place; false: it is no rule. */
static bool get_rule(char *line)
{
	char *out = line;

	for (const char *p = line; *p; p++) {
		if (*p != '%') {
			*out++ = *p;
			continue;
		}
		if (hex(p[1]) < 0 || hex(p[2]) < 0 || (p[1] == '0' && p[2] == '0'))
			return false;
		*out++ = (char)(hex(p[1]) * 16 + hex(p[2]));
		p += 2;
	}
	*out = '\0';
	return strstr(line, "://") != NULL;
}

static void read_file(FILE *in, const char *path, struct pin_list *l)
{
	char line[LINE_MAX_BYTES];
	unsigned tag, left_out = 0;
	bool has_head = fgets(line, sizeof(line), in) && sscanf(line, HEAD "%u", &tag) == 1 && tag > 0 && tag <= 0xfffe;

	if (has_head)
		l->tag = tag & 0xfffe;
	while (has_head && l->n < l->cap && fgets(line, sizeof(line), in)) {
		size_t len = strcspn(line, "\n");
		bool is_line = line[len] == '\n';

		line[len] = '\0';
		if (is_line && get_rule(line) && (l->items[l->n].url = strdup(line)) != NULL) {
			l->items[l->n].len = strlen(line);
			l->n++;
		} else {
			left_out++;
		}
	}
	if (!has_head || left_out > 0)
		wd_warn("'%s': %s; `warpdrive-ctl pin --list` shows what is pinned", path,
			has_head ? "some lines are no rules, and are left out" : "it makes no sense, and is left out");
}

int pins_open(struct pins *p, const char *dir, struct wd_err *err)
{
	struct pin_list *l = calloc(1, sizeof(*l) + (PINS_ASKED_MAX + 1) * sizeof(l->items[0]));
	char path[PATH_MAX];
	FILE *in;

	p->dir = strdup(dir);
	if (!l || !p->dir) {
		free(l);
		return wd_err_sys(err, ENOMEM, "read what is pinned");
	}
	l->cap = PINS_ASKED_MAX;
	snprintf(path, sizeof(path), "%s/pins", dir);
	in = fopen(path, "re");
	if (in) {
		read_file(in, path, l);
		fclose(in);
	} else if (errno != ENOENT) {
		wd_warn("read '%s': %s", path, strerror(errno));
	}
	if (l->tag == 0)
		l->tag = pins_new_tag(0);
	wd_lock(&p->lock);
	p->asked = l;
	wd_unlock(&p->lock);
	atomic_store(&p->nasked, l->n);
	return 0;
}
