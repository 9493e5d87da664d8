/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "e2e/chaos/run.h"

static void usage(void)
{
	printf("usage: e2e-chaos --bin DIR --plan PLAN [options]\n\n"
	       "Reads a mounted dataset in many ways and checks every byte, while PLAN injects faults. The last\n"
	       "line is \"errors N wrong M\"; the exit code is 0 when both are 0, 2 when the run did not start.\n"
	       "\nplans:\n");
	for (const struct plan *const *p = chaos_plans; *p; p++)
		printf("  %-10s %s\n", (*p)->name, (*p)->help);
	printf("\nload (how many of each):\n");
	load_print_help();
	printf("\n"
	       "  --bin DIR             the programs under test\n"
	       "  --other-bin DIR       a second build of them, for plans that replace one by the other\n"
	       "  --faults N, --kills N end after N faults (each plan has its number)\n"
	       "  --seconds N, --minutes N   end after this time; with --faults too: whichever is first\n"
	       "  --interval MIN-MAX    milliseconds between two faults\n"
	       "  --load KIND[=N],...   only these kinds of load, with N workers (all)\n"
	       "  --origin KIND         file, nginx, or own: made up by this program (file, if the plan can do with it)\n"
	       "  --no-passthrough      as on a kernel without passthrough\n"
	       "  --no-open             a pinned version, whose files the kernel opens without asking\n"
	       "  --no-resend           as on a kernel without RESEND\n"
	       "  --stop                servers are stopped (SIGSTOP) instead of killed\n"
	       "  --holder KIND         who holds the mount beside keeper and agent: supervisor ('warpdrive-ctl mount'\n"
	       "                        starts the daemons, its supervisor restarts them), csi or none\n"
	       "  --supervised          --holder supervisor\n"
	       "  --agent-option WORD, --keeper-option WORD, --mount-option WORD   handed on as they are\n"
	       "  --seed N              of content and chance (1)\n"
	       "  --keep                leave the directory, with the logs, and hanging operations as they are\n");
}

static int bad(const char *text, const char *value)
{
	fprintf(stderr, "e2e-chaos: %s '%s'; see --help\n", text, value);
	return 2;
}

/* A number of at least 1. */
static bool number(const char *text, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	return errno == 0 && end != text && !*end && *text != '-' && *ret > 0;
}

static bool interval(const char *text, struct chaos_options *o)
{
	int used = 0;

	return sscanf(text, "%u-%u%n", &o->min_ms, &o->max_ms, &used) == 2 && !text[used] &&
		o->min_ms <= o->max_ms && o->max_ms > 0 && o->max_ms <= 3600000;
}

static bool origin(const char *text, struct chaos_options *o)
{
	static const char *const names[] = {
		[ORIGIN_FILE] = "file", [ORIGIN_NGINX] = "nginx", [ORIGIN_OWN] = "own"};

	for (int i = ORIGIN_FILE; i <= ORIGIN_OWN; i++)
		if (strcmp(text, names[i]) == 0)
			o->origin = (enum origin_kind)i;
	return o->origin != ORIGIN_UNSAID;
}

static bool holder(const char *text, struct chaos_options *o)
{
	static const char *const names[] = {
		[HOLDER_NONE] = "none", [HOLDER_SUPERVISOR] = "supervisor", [HOLDER_CSI] = "csi"};

	for (int i = HOLDER_NONE; i <= HOLDER_CSI; i++) {
		if (strcmp(text, names[i]) != 0)
			continue;
		o->holder = (enum holder)i;
		return true;
	}
	return false;
}

static bool plan(const char *text, struct chaos_options *o)
{
	for (const struct plan *const *p = chaos_plans; *p; p++)
		if (strcmp((*p)->name, text) == 0)
			o->plan = *p;
	return o->plan != NULL;
}

static int add_argument(const char **list, const char *argument)
{
	for (int i = 0; i < ARGUMENTS_MAX - 1; i++) {
		if (list[i])
			continue;
		list[i] = argument;
		return 0;
	}
	return bad("there are too many options: no room for", argument);
}

void chaos_agent_argument(struct chaos *c, const char *argument)
{
	add_argument(c->agent_arguments, argument);
}

void chaos_keeper_argument(struct chaos *c, const char *argument)
{
	add_argument(c->keeper_arguments, argument);
}

void chaos_mount_option(struct chaos *c, const char *option)
{
	size_t len = strlen(c->mount_options);

	snprintf(c->mount_options + len, sizeof(c->mount_options) - len, "%s%s", len ? "," : "", option);
}

/* What only all options together can say. */
static int complete(struct chaos *c)
{
	struct chaos_options *o = &c->options;
	unsigned flags;

	if (!o->bin[0])
		return bad("missing option", "--bin");
	if (!o->plan)
		return bad("missing option", "--plan");
	flags = o->plan->flags;
	if (o->origin == ORIGIN_UNSAID)
		o->origin = flags & (PLAN_NEEDS_HTTP | PLAN_NEEDS_OWN_ORIGIN) ? ORIGIN_OWN : ORIGIN_FILE;
	if ((flags & PLAN_NEEDS_HOLDER) && o->holder == HOLDER_NONE)
		o->holder = HOLDER_SUPERVISOR;
	if ((flags & PLAN_NEEDS_OTHER_BIN) && !o->other_bin[0])
		return bad("this plan needs --other-bin:", o->plan->name);
	if (o->has_no_open && o->origin == ORIGIN_OWN)
		return bad("--no-open needs --origin file or nginx; plan:", o->plan->name);
	if (!chaos_suits(c, o->plan))
		return bad("this plan needs another --origin:", o->plan->name);
	if (!o->max_ms) {
		o->min_ms = o->plan->min_ms;
		o->max_ms = o->plan->max_ms;
	}
	if (!o->faults && !o->seconds)
		o->faults = o->plan->faults;
	if (!o->faults && !o->seconds)
		return bad("say how long with --seconds or --minutes; this plan has no end:", o->plan->name);
	return -1;
}

enum {
	OPT_BIN = 256,
	OPT_OTHER_BIN,
	OPT_PLAN,
	OPT_FAULTS,
	OPT_SECONDS,
	OPT_MINUTES,
	OPT_INTERVAL,
	OPT_LOAD,
	OPT_ORIGIN,
	OPT_NO_PASSTHROUGH,
	OPT_NO_OPEN,
	OPT_NO_RESEND,
	OPT_STOP,
	OPT_HOLDER,
	OPT_SUPERVISED,
	OPT_AGENT,
	OPT_KEEPER,
	OPT_MOUNT,
	OPT_SEED,
	OPT_KEEP,
	OPT_HELP,
};

static const struct option long_options[] = {
	{"bin", required_argument, NULL, OPT_BIN},
	{"other-bin", required_argument, NULL, OPT_OTHER_BIN},
	{"plan", required_argument, NULL, OPT_PLAN},
	{"faults", required_argument, NULL, OPT_FAULTS},
	{"kills", required_argument, NULL, OPT_FAULTS},
	{"seconds", required_argument, NULL, OPT_SECONDS},
	{"minutes", required_argument, NULL, OPT_MINUTES},
	{"interval", required_argument, NULL, OPT_INTERVAL},
	{"load", required_argument, NULL, OPT_LOAD},
	{"origin", required_argument, NULL, OPT_ORIGIN},
	{"no-passthrough", no_argument, NULL, OPT_NO_PASSTHROUGH},
	{"no-open", no_argument, NULL, OPT_NO_OPEN},
	{"no-resend", no_argument, NULL, OPT_NO_RESEND},
	{"stop", no_argument, NULL, OPT_STOP},
	{"holder", required_argument, NULL, OPT_HOLDER},
	{"supervised", no_argument, NULL, OPT_SUPERVISED},
	{"agent-option", required_argument, NULL, OPT_AGENT},
	{"keeper-option", required_argument, NULL, OPT_KEEPER},
	{"mount-option", required_argument, NULL, OPT_MOUNT},
	{"seed", required_argument, NULL, OPT_SEED},
	{"keep", no_argument, NULL, OPT_KEEP},
	{"help", no_argument, NULL, OPT_HELP},
	{NULL, 0, NULL, 0},
};

static bool directory(const char *text, char out[CHAOS_PATH])
{
	char full[PATH_MAX], program[PATH_MAX + 32];

	if (!realpath(text, full))
		return false;
	snprintf(program, sizeof(program), "%s/warpdrive-ctl", full);
	return access(program, X_OK) == 0 && snprintf(out, CHAOS_PATH, "%s", full) < CHAOS_PATH;
}

/* Returns -1 to go on, or an exit code. */
static int take(struct chaos *c, int option, const char *value)
{
	struct chaos_options *o = &c->options;

	switch (option) {
	case OPT_BIN:
		return directory(value, o->bin) ? -1 : bad("no warpdrive-ctl in", value);
	case OPT_OTHER_BIN:
		return directory(value, o->other_bin) ? -1 : bad("no warpdrive-ctl in", value);
	case OPT_PLAN:
		return plan(value, o) ? -1 : bad("unknown plan", value);
	case OPT_FAULTS:
		return number(value, &o->faults) ? -1 : bad("--faults takes a number, not", value);
	case OPT_SECONDS:
		return number(value, &o->seconds) ? -1 : bad("--seconds takes a number, not", value);
	case OPT_MINUTES:
		if (!number(value, &o->seconds))
			return bad("--minutes takes a number, not", value);
		o->seconds *= 60;
		return -1;
	case OPT_INTERVAL:
		return interval(value, o) ? -1 : bad("--interval takes MIN-MAX in ms, not", value);
	case OPT_LOAD:
		o->load = value;
		return load_is_known(value) ? -1 : bad("unknown load", value);
	case OPT_ORIGIN:
		return origin(value, o) ? -1 : bad("unknown origin", value);
	case OPT_AGENT:
		return add_argument(c->agent_arguments, value) == 0 ? -1 : 2;
	case OPT_KEEPER:
		return add_argument(c->keeper_arguments, value) == 0 ? -1 : 2;
	case OPT_MOUNT:
		chaos_mount_option(c, value);
		return -1;
	case OPT_SEED:
		return number(value, &o->seed) ? -1 : bad("--seed takes a number above 0, not", value);
	case OPT_NO_PASSTHROUGH:
		o->has_no_passthrough = true;
		return -1;
	case OPT_NO_OPEN:
		o->has_no_open = true;
		return -1;
	case OPT_NO_RESEND:
		o->has_no_resend = true;
		return -1;
	case OPT_STOP:
		o->is_stop = true;
		return -1;
	case OPT_HOLDER:
		return holder(value, o) ? -1 : bad("unknown holder", value);
	case OPT_SUPERVISED:
		o->holder = HOLDER_SUPERVISOR;
		return -1;
	case OPT_KEEP:
		o->is_kept = true;
		return -1;
	case OPT_HELP:
		usage();
		return 0;
	default:
		return 2;
	}
}

int options_parse(struct chaos *c, int argc, char **argv)
{
	int option, rc = -1;

	c->options.seed = 1;
	c->options.load = "all";
	while (rc < 0 && (option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		rc = take(c, option, optarg);
	if (rc < 0 && optind < argc)
		rc = bad("unexpected argument", argv[optind]);
	return rc < 0 ? complete(c) : rc;
}
