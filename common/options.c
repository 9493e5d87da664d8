/* SPDX-License-Identifier: Apache-2.0 */
/* See options.h; getopt_long(3) does the work. */
#include "common/options.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config.h"
#include "common/log.h"

#define OPTIONS_MAX 32
#define HELP_COLUMN 22

static size_t count(const struct wd_command *c)
{
	size_t n = 0;

	while (c->options[n].name)
		n++;
	assert(n <= OPTIONS_MAX);
	return n;
}

static void print_option(const struct wd_option *o)
{
	const char *line = o->help;
	int width = printf("  --%s%s%s", o->name, o->argument ? " " : "", o->argument ? o->argument : "");

	while (line) {
		int len = (int)strcspn(line, "\n");

		printf("%*s%.*s", width < HELP_COLUMN ? HELP_COLUMN - width : 1, "", len, line);
		width = 0;
		line = line[len] ? line + len + 1 : NULL;
		if (!line && o->initial)
			printf(" (default %s)", o->initial);
		puts("");
	}
}

static void print_help(const struct wd_command *c)
{
	printf("usage: %s %s\n\n%s\n", c->name, c->usage, c->about);
	for (size_t i = 0; i < count(c); i++)
		print_option(&c->options[i]);
	printf("  --help, --version\n\n%s", c->more);
}

/* 0, or -EINVAL when the text is no such value. */
static int set_value(const struct wd_option *o, void *values, const char *text)
{
	void *field = (char *)values + o->offset;
	int64_t ms;
	char *end;
	long n;

	switch (o->type) {
	case WD_OPTION_TEXT:
		*(const char **)field = text;
		return 0;
	case WD_OPTION_FLAG:
		*(bool *)field = true;
		return 0;
	case WD_OPTION_NUMBER:
		n = strtol(text, &end, 10);
		if (*end || end == text || n < 0 || n >= INT_MAX)
			return -EINVAL;
		*(int *)field = (int)n;
		return 0;
	case WD_OPTION_SIZE:
		return wd_parse_size(text, field);
	case WD_OPTION_SPAN:
		if (wd_parse_duration(text, &ms) < 0 || ms > INT64_MAX / 4000000)
			return -EINVAL;
		*(int64_t *)field = ms * 1000000;
		return 0;
	case WD_OPTION_CALL:
		return o->set(values, text);
	}
	return -EINVAL;
}

static int bad_value(const struct wd_command *c, const struct wd_option *o, const char *text)
{
	static const char *const kinds[] = {[WD_OPTION_NUMBER] = " number", [WD_OPTION_SIZE] = " size such as 4MiB",
		[WD_OPTION_SPAN] = " time such as 30s", [WD_OPTION_CALL] = NULL};
	const char *kind = kinds[o->type];

	fprintf(stderr, "%s: --%s takes %s%s, not '%s'; see --help\n", c->name, o->name, kind ? "a" : o->argument,
		kind ? kind : "", text);
	return 2;
}

int wd_options_parse(const struct wd_command *c, int argc, char **argv, void *values)
{
	struct option list[OPTIONS_MAX + 3] = {{0}};
	size_t n = count(c);
	int code;

	for (size_t i = 0; i < n; i++)
		list[i] = (struct option){c->options[i].name,
			c->options[i].argument ? required_argument : no_argument, NULL, (int)i + 256};
	list[n] = (struct option){"help", no_argument, NULL, 'h'};
	list[n + 1] = (struct option){"version", no_argument, NULL, 'V'};
	for (size_t i = 0; i < n; i++)
		if (c->options[i].initial && set_value(&c->options[i], values, c->options[i].initial) < 0)
			assert(!"a default is no value for its option");
	optind = 0; /* anew, also in tests */
	while ((code = getopt_long(argc, argv, "h", list, NULL)) >= 0) {
		const struct wd_option *o = code >= 256 ? &c->options[code - 256] : NULL;

		if (code == 'h')
			print_help(c);
		else if (code == 'V')
			printf("%s %s\n", c->name, WD_VERSION);
		if (!o)
			return code == '?' ? 2 : 0;
		if (set_value(o, values, optarg) < 0)
			return bad_value(c, o, optarg);
	}
	if (optind < argc) {
		fprintf(stderr, "%s: unexpected argument '%s'; see --help\n", c->name, argv[optind]);
		return 2;
	}
	return -1;
}

void wd_tell_ready(int fd)
{
	if (fd < 0)
		return;
	if (write(fd, "1", 1) < 0)
		wd_warn("tell descriptor %d of being ready: %s", fd, strerror(errno));
	close(fd);
}
