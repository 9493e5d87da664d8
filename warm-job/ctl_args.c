/* SPDX-License-Identifier: Apache-2.0 */
#include "warm-job/ctl_args.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"

#define FIRST 256

static bool parse_output(const char *text, const char *choices, enum ctl_output *ret)
{
	static const char *const names[] = {"text", "wide", "json", "yaml"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(text, names[i]) == 0 && strstr(choices, names[i])) {
			*ret = (enum ctl_output)i;
			return true;
		}
	}
	return false;
}

static bool parse_count(const char *text, uint64_t *ret)
{
	unsigned long long n;
	char *end;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno || *end || end == text || *text == '-' || n == 0)
		return false;
	*ret = n;
	return true;
}

static enum ctl_exit set(const struct ctl_command *self, const struct ctl_option *o, const char *text)
{
	int64_t n;

	switch (o->kind) {
	case CTL_FLAG:
		*(bool *)o->value = true;
		break;
	case CTL_STRING:
		*(const char **)o->value = text;
		break;
	case CTL_COUNT:
		if (!parse_count(text, o->value))
			return ctl_usage(self, "--%s takes a number, not '%.20s'", o->name, text);
		break;
	case CTL_SIZE:
		if (wd_parse_size(text, &n) < 0 || n <= 0)
			return ctl_usage(self, "--%s takes a size like 20GiB, not '%.20s'", o->name, text);
		*(uint64_t *)o->value = (uint64_t)n;
		break;
	case CTL_DURATION:
		if (wd_parse_duration(text, &n) < 0 || n <= 0)
			return ctl_usage(self, "--%s takes a time like 5s, not '%.20s'", o->name, text);
		*(int64_t *)o->value = n;
		break;
	case CTL_OUTPUT:
		if (!parse_output(text, o->outputs, o->value))
			return ctl_usage(self, "output '%.20s': choose %s", text, o->outputs);
		break;
	}
	return CTL_DONE;
}

bool ctl_args_parse(const struct ctl_command *self, int argc, char **argv, const struct ctl_option *options, size_t n,
	int *ret_first, enum ctl_exit *ret_exit)
{
	struct option known[CTL_OPTIONS_MAX + 2] = {{"help", no_argument, NULL, 'h'}};
	char letters[2 * CTL_OPTIONS_MAX + 8] = ":h";
	int c;

	assert(n <= CTL_OPTIONS_MAX);
	for (size_t i = 0; i < n; i++) {
		int has_arg = options[i].kind == CTL_FLAG ? no_argument : required_argument;
		size_t len = strlen(letters);

		known[i + 1] = (struct option){options[i].name, has_arg, NULL, FIRST + (int)i};
		if (options[i].letter)
			snprintf(letters + len, sizeof(letters) - len, "%c%s", options[i].letter, has_arg ? ":" : "");
	}
	opterr = 0;
	optind = 0; /* anew, also in tests */
	while ((c = getopt_long(argc, argv, letters, known, NULL)) != -1) {
		size_t i = (size_t)(c - FIRST);

		for (size_t k = 0; c < FIRST && k < n; k++)
			if (options[k].letter == c)
				i = k;
		if (c == 'h')
			*ret_exit = ctl_print_help(self);
		else if (c == ':')
			*ret_exit = ctl_usage(self, "'%.20s' needs a value", argv[optind - 1]);
		else if (c == '?')
			*ret_exit = ctl_usage(self, "unknown option '%.20s'", argv[optind - 1]);
		else if ((*ret_exit = set(self, &options[i], optarg)) == CTL_DONE)
			continue;
		return false;
	}
	*ret_first = optind;
	return true;
}
