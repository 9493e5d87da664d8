/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Help texts as roff (the man macros). A help text has paragraphs; options, whose meaning begins at column 22; and lines
 * with a blank in front that are neither, which are shown as they are: examples.
 */
#include "warm-job/ctl_man.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

#define MEANING 21 /* where the meaning of an option begins */

enum block { NO_BLOCK, PARAGRAPH, OPTION, EXAMPLE };

/* Text of a line that is no request. */
static void put_text(FILE *out, const char *text, size_t len)
{
	if (len > 0 && (*text == '.' || *text == '\''))
		fputs("\\&", out);
	for (size_t i = 0; i < len; i++) {
		switch (text[i]) {
		case '\\':
			fputs("\\e", out);
			break;
		case '-':
			fputs("\\-", out);
			break;
		case '`':
			fputs("\\(ga", out);
			break;
		case '\'':
			fputs("\\(aq", out);
			break;
		case '^':
			fputs("\\(ha", out);
			break;
		case '~':
			fputs("\\(ti", out);
			break;
		default:
			fputc(text[i], out);
		}
	}
	fputc('\n', out);
}

static size_t length_without_blanks(const char *text, size_t len)
{
	while (len > 0 && text[len - 1] == ' ')
		len--;
	return len;
}

/* "  --count N          end after N lines": how long "--count N" is; 0: no such line. */
static size_t option_length(const char *line, size_t len)
{
	const char *gap;

	if (len < 4 || strncmp(line, "  ", 2) != 0 || line[2] == ' ')
		return 0;
	gap = memmem(line + 2, len - 2, "  ", 2);
	if (len > MEANING && line[MEANING - 1] == ' ' && line[MEANING] != ' ')
		return length_without_blanks(line + 2, MEANING - 2);
	if (line[2] == '-' && !gap)
		return len - 2; /* alone on its line */
	return 0;
}

static void end_example(FILE *out, enum block block)
{
	if (block == EXAMPLE)
		fputs(".EE\n", out);
}

static enum block put_line(FILE *out, const char *line, size_t len, enum block block)
{
	size_t option = option_length(line, len), blanks = strspn(line, " ");

	if (len == 0) {
		end_example(out, block);
		return NO_BLOCK;
	}
	if (option > 0) {
		end_example(out, block);
		fputs(".TP\n.B ", out);
		put_text(out, line + 2, option);
		if (len > MEANING)
			put_text(out, line + MEANING, len - MEANING);
		return OPTION;
	}
	if (blanks >= MEANING && block == OPTION) {
		put_text(out, line + blanks, len - blanks);
		return OPTION;
	}
	if (blanks > 0) {
		if (block != EXAMPLE)
			fputs(".PP\n.EX\n", out);
		put_text(out, line, len);
		return EXAMPLE;
	}
	end_example(out, block);
	if (block != PARAGRAPH)
		fputs(".PP\n", out);
	put_text(out, line, len);
	return PARAGRAPH;
}

static void put_help(FILE *out, const char *help)
{
	enum block block = NO_BLOCK;

	for (const char *line = help; *line;) {
		size_t len = strcspn(line, "\n");

		block = put_line(out, line, len, block);
		line += len + (line[len] == '\n');
	}
	end_example(out, block);
}

static void put_title(FILE *out, const char *name)
{
	fputs(".\\\" made of the program's help\n.TH ", out);
	for (; *name; name++)
		fputc(*name >= 'a' && *name <= 'z' ? *name - 'a' + 'A' : *name, out);
	fputs(" 1 \"\" \"WarpDrive " WD_VERSION "\" \"WarpDrive\"\n.nh\n.ad l\n", out);
}

static void put_command(const struct ctl_command *c, FILE *out)
{
	wd_autofree char *more = NULL;
	char name[64];
	size_t len = 0;

	snprintf(name, sizeof(name), "warpdrive-ctl-%s", c->name);
	put_title(out, name);
	fprintf(out, ".SH NAME\nwarpdrive\\-ctl\\-%s \\- ", c->name);
	put_text(out, c->summary, strlen(c->summary));
	fprintf(out, ".SH SYNOPSIS\n.B warpdrive\\-ctl %s\n", c->name);
	if (*c->arguments)
		put_text(out, c->arguments, strlen(c->arguments));
	fputs(".SH DESCRIPTION\n", out);
	put_help(out, *c->help ? c->help : c->summary);
	if (c->print_more) {
		FILE *text = open_memstream(&more, &len);

		if (text) {
			c->print_more(text);
			fclose(text);
			put_help(out, more);
		}
	}
	fputs(".SH SEE ALSO\n.BR warpdrive\\-ctl (1)\n", out);
}

static void put_overview(const struct ctl_command *commands, size_t n, FILE *out)
{
	put_title(out, "warpdrive-ctl");
	fputs(".SH NAME\nwarpdrive\\-ctl \\- datasets in object storage as directories, with a local cache\n"
	      ".SH SYNOPSIS\n.B warpdrive\\-ctl\n.I COMMAND\n\\&...\n.SH DESCRIPTION\n"
	      "Mounts datasets, fills and looks at their cache, and finds what is wrong.\n"
	      "Each command has a page of its own.\n.SH COMMANDS\n",
		out);
	for (size_t i = 0; i < n; i++) {
		fprintf(out, ".TP\n.BR warpdrive\\-ctl\\-%s (1)\n", commands[i].name);
		put_text(out, commands[i].summary, strlen(commands[i].summary));
	}
	fputs(".SH EXIT STATUS\n0 done, 1 failed, 2 wrong usage, 3 partly done.\n"
	      ".SH ENVIRONMENT\n.TP\n.B WARPDRIVE_RUN_DIR\nwhere the daemons\\(aq sockets are\n"
	      ".TP\n.B WARPDRIVE_CACHE_DIR\nthe cache of an agent that\n.B mount\nstarts\n",
		out);
}

/* command NULL: the page of all. */
static int write_page(const struct ctl_command *commands, size_t n, const struct ctl_command *command, const char *dir,
	struct wd_err *err)
{
	char path[PATH_MAX];
	FILE *out;
	bool is_bad;

	if (snprintf(path, sizeof(path), "%s/warpdrive-ctl%s%s.1", dir, command ? "-" : "", command ? command->name : "") >=
		(int)sizeof(path))
		return wd_err_sys(err, ENAMETOOLONG, "write manual pages");
	out = fopen(path, "we");
	if (!out)
		return wd_err_sys(err, errno, "write '%s'", path);
	if (command)
		put_command(command, out);
	else
		put_overview(commands, n, out);
	is_bad = ferror(out) != 0;
	is_bad |= fclose(out) != 0;
	return is_bad ? wd_err_sys(err, EIO, "write '%s'", path) : 0;
}

int ctl_man_write(const struct ctl_command *commands, size_t n, const char *dir, struct wd_err *err)
{
	int rc = write_page(commands, n, NULL, dir, err);

	for (size_t i = 0; i < n && rc == 0; i++)
		rc = write_page(commands, n, &commands[i], dir, err);
	return rc;
}
