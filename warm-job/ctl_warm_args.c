/* SPDX-License-Identifier: Apache-2.0 */
/* See ctl_warm_args.h. Mistakes are told here, before anything is asked of anybody. */
#include "warm-job/ctl_warm_args.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"

#define WORKERS_MAX 1024

enum {
	OPT_RECURSIVE = 256,
	OPT_MAX_SIZE,
	OPT_WORKERS,
	OPT_BANDWIDTH,
	OPT_INCLUDE,
	OPT_EXCLUDE,
	OPT_FROM_FILE,
	OPT_VERIFY,
	OPT_PIN,
	OPT_PROGRESS,
	OPT_WAIT,
	OPT_DETACH,
	OPT_RESUME,
	OPT_CANCEL,
	OPT_LIST,
	OPT_RUN_DIR,
	OPT_TIMEOUT,
};

static const struct option long_options[] = {
	{"help", no_argument, NULL, 'h'},
	{"recursive", no_argument, NULL, OPT_RECURSIVE},
	{"max-size", required_argument, NULL, OPT_MAX_SIZE},
	{"workers", required_argument, NULL, OPT_WORKERS},
	{"bandwidth", required_argument, NULL, OPT_BANDWIDTH},
	{"include", required_argument, NULL, OPT_INCLUDE},
	{"exclude", required_argument, NULL, OPT_EXCLUDE},
	{"from-file", required_argument, NULL, OPT_FROM_FILE},
	{"verify", no_argument, NULL, OPT_VERIFY},
	{"pin", no_argument, NULL, OPT_PIN},
	{"progress", required_argument, NULL, OPT_PROGRESS},
	{"wait", no_argument, NULL, OPT_WAIT},
	{"detach", no_argument, NULL, OPT_DETACH},
	{"resume", no_argument, NULL, OPT_RESUME},
	{"cancel", required_argument, NULL, OPT_CANCEL},
	{"list", no_argument, NULL, OPT_LIST},
	{"run-dir", required_argument, NULL, OPT_RUN_DIR},
	{"timeout", required_argument, NULL, OPT_TIMEOUT},
	{NULL, 0, NULL, 0},
};

static bool parse_count(const char *text, uint64_t max, uint64_t *ret)
{
	char *end;

	errno = 0;
	unsigned long long n = strtoull(text, &end, 10);

	if (errno || *end || end == text || *text == '-' || n < 1 || n > max)
		return false;
	*ret = n;
	return true;
}

static bool parse_size(const char *text, uint64_t *ret)
{
	char copy[64];
	int64_t bytes;
	size_t len = strlen(text);

	if (len >= sizeof(copy))
		return false;
	memcpy(copy, text, len + 1);
	/* a rate may be written as one */
	if (len > 2 && !strcmp(copy + len - 2, "/s"))
		copy[len - 2] = '\0';
	if (wd_parse_size(copy, &bytes) < 0 || bytes <= 0)
		return false;
	*ret = (uint64_t)bytes;
	return true;
}

static bool parse_progress(const char *text, enum warm_progress *ret)
{
	static const char *const names[] = {
		[WARM_AUTO] = "auto", [WARM_TTY] = "tty", [WARM_PLAIN] = "plain", [WARM_JSON] = "json", [WARM_NONE] = "none"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!strcmp(names[i], text)) {
			*ret = (enum warm_progress)i;
			return true;
		}
	}
	return false;
}

static enum ctl_exit set_option(const struct ctl_command *self, struct warm_args *a, int c)
{
	uint64_t n;

	switch (c) {
	case OPT_RECURSIVE: /* what is asked for anyway */
	case OPT_RESUME:
		break;
	case OPT_MAX_SIZE:
		if (!parse_size(optarg, &a->max_size))
			return ctl_usage(self, "--max-size takes a size such as 4MiB, not '%s'", optarg);
		break;
	case OPT_WORKERS:
		if (!parse_count(optarg, WORKERS_MAX, &n))
			return ctl_usage(self, "--workers takes a number from 1 to %d, not '%s'", WORKERS_MAX, optarg);
		a->workers = (uint32_t)n;
		break;
	case OPT_BANDWIDTH:
		if (!parse_size(optarg, &a->bandwidth))
			return ctl_usage(self, "--bandwidth takes bytes per second such as 100MiB, not '%s'", optarg);
		break;
	case OPT_INCLUDE:
		a->includes[a->nincludes++] = optarg;
		break;
	case OPT_EXCLUDE:
		a->excludes[a->nexcludes++] = optarg;
		break;
	case OPT_FROM_FILE:
		a->from_file = optarg;
		break;
	case OPT_VERIFY:
		a->verify = true;
		break;
	case OPT_PIN:
		a->pin = true;
		break;
	case OPT_PROGRESS:
		if (!parse_progress(optarg, &a->progress))
			return ctl_usage(self, "--progress is auto, tty, plain, json or none, not '%s'", optarg);
		break;
	case OPT_WAIT:
	case OPT_DETACH:
		a->detach = c == OPT_DETACH;
		break;
	case OPT_CANCEL:
		if (!parse_count(optarg, UINT64_MAX, &a->cancel))
			return ctl_usage(self, "--cancel takes the number of a task (--list shows them), not '%s'",
				optarg);
		break;
	case OPT_LIST:
		a->list = true;
		break;
	case OPT_RUN_DIR:
		a->run_dir = optarg;
		break;
	default:
		if (wd_parse_duration(optarg, &a->timeout_ms) < 0 || a->timeout_ms <= 0)
			return ctl_usage(self, "--timeout takes a time such as 30m, not '%s'", optarg);
	}
	return CTL_DONE;
}

static enum ctl_exit check_whole(const struct ctl_command *self, const struct warm_args *a)
{
	if (a->list && a->cancel)
		return ctl_usage(self, "--list and --cancel are two things: choose one");
	if ((a->list || a->cancel) && (a->nplaces > 1 || a->from_file))
		return ctl_usage(self, "--%s takes at most one PATH, a mount to ask through", a->list ? "list" : "cancel");
	if (!a->list && !a->cancel && !a->nplaces && !a->from_file)
		return ctl_usage(self, "needs a PATH inside a mount, or the URL of a mounted dataset");
	if (a->from_file && a->nplaces > 1)
		return ctl_usage(self, "with --from-file at most one PATH may be given: where relative ones start");
	return CTL_DONE;
}

bool warm_args_parse(const struct ctl_command *self, int argc, char **argv, struct warm_args *ret_args,
	enum ctl_exit *ret_exit)
{
	int c;

	*ret_args = (struct warm_args){0};
	ret_args->includes = calloc((size_t)argc + 1, sizeof(char *));
	ret_args->excludes = calloc((size_t)argc + 1, sizeof(char *));
	*ret_exit = CTL_FAILED;
	if (!ret_args->includes || !ret_args->excludes) {
		ctl_error("warm: %s", strerror(ENOMEM));
		return false;
	}
	opterr = 0;
	optind = 0; /* anew, also in tests */
	while ((c = getopt_long(argc, argv, ":h", long_options, NULL)) != -1) {
		if (c == 'h')
			*ret_exit = ctl_print_help(self);
		else if (c == ':')
			*ret_exit = ctl_usage(self, "'%.20s' needs a value", argv[optind - 1]);
		else if (c == '?')
			*ret_exit = ctl_usage(self, "unknown option '%.20s'", argv[optind - 1]);
		else if ((*ret_exit = set_option(self, ret_args, c)) == CTL_DONE)
			continue;
		return false;
	}
	ret_args->places = argv + optind;
	ret_args->nplaces = (size_t)(argc - optind);
	ret_args->run_dir = ctl_run_dir(ret_args->run_dir);
	*ret_exit = check_whole(self, ret_args);
	return *ret_exit == CTL_DONE;
}

void warm_args_done(struct warm_args *a)
{
	free(a->includes);
	free(a->excludes);
	*a = (struct warm_args){0};
}
