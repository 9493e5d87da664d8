/* SPDX-License-Identifier: Apache-2.0 */
/* warpdrive-agent: command line, settings, signals. Everything else is agent/agent.c. */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/credentials.h"
#include "agent/directories.h"
#include "agent/metrics.h"
#include "agent/mount_options.h"
#include "agent/profile.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/options.h"

#define DEFAULT_CONFIG "/etc/warpdrive/agent.yaml"

static int fail(int code, const struct wd_err *err)
{
	fprintf(stderr, "warpdrive-agent: %s\n", err->msg);
	return code;
}

static int set_pair(struct settings *s, const char *pair, struct wd_err *err)
{
	const char *eq = strchr(pair, '=');
	char name[64];

	if (!eq || (size_t)(eq - pair) >= sizeof(name))
		return wd_err_set(err, 22, "--set '%s': not KEY=VALUE", pair);
	memcpy(name, pair, (size_t)(eq - pair));
	name[eq - pair] = '\0';
	return wd_config_set(settings_keys, s, name, eq + 1, err);
}

/* What the command line says; settings in its order, to be applied after the file. */
struct command_line {
	const char *config;
	struct pair {
		const char *name; /* NULL: value is KEY=VALUE */
		const char *value;
	} *pairs; /* room for one per argument */
	size_t npairs;
	const char *owner; /* of --make-directories */
	bool is_standby, exits_when_idle, is_check, is_print, is_print_profiles, is_print_metrics;
	int ready_fd;
};

static int add_pair(struct command_line *l, const char *name, const char *value)
{
	l->pairs[l->npairs++] = (struct pair){name, value};
	return 0;
}

static int add_setting(void *line, const char *text)
{
	return add_pair(line, NULL, text);
}

static int add_run_dir(void *line, const char *text)
{
	return add_pair(line, "run-dir", text);
}

static int add_cache_dir(void *line, const char *text)
{
	return add_pair(line, "cache-dir", text);
}

#define AT(field) offsetof(struct command_line, field)
static const struct wd_option options_known[] = {
	{"config", WD_OPTION_TEXT, AT(config), "FILE", NULL, "settings, YAML (default " DEFAULT_CONFIG " if it exists)", NULL},
	{"set", WD_OPTION_CALL, 0, "KEY=VALUE", NULL, "one setting; may be repeated; wins over the file", add_setting},
	{"run-dir", WD_OPTION_CALL, 0, "DIR", NULL, "short for --set run-dir=DIR", add_run_dir},
	{"cache-dir", WD_OPTION_CALL, 0, "DIR", NULL, "short for --set cache-dir=DIR", add_cache_dir},
	{"standby", WD_OPTION_FLAG, AT(is_standby), NULL, NULL,
		"wait until the agent that has the directories ends, and take over;\n"
		"else it is an error when there is one for 3 s", NULL},
	{"exit-when-idle", WD_OPTION_FLAG, AT(exits_when_idle), NULL, NULL, "end when the last mount is gone", NULL},
	{"ready-fd", WD_OPTION_NUMBER, AT(ready_fd), "N", NULL, "write a byte to descriptor N when ready", NULL},
	{"make-directories", WD_OPTION_TEXT, AT(owner), "UID:GID", NULL,
		"make run and cache directory for an agent of that uid and gid, and\n"
		"end; needs root", NULL},
	{"check-config", WD_OPTION_FLAG, AT(is_check), NULL, NULL, "check the settings and end", NULL},
	{"print-defaults", WD_OPTION_FLAG, AT(is_print), NULL, NULL,
		"print every setting with its default and meaning, and end", NULL},
	{"print-profiles", WD_OPTION_FLAG, AT(is_print_profiles), NULL, NULL,
		"print what each profile sets, and end", NULL},
	{"print-metrics", WD_OPTION_FLAG, AT(is_print_metrics), NULL, NULL,
		"print every metric with its type, unit and meaning, and end", NULL},
	{0},
};

static const struct wd_command command = {
	.name = "warpdrive-agent",
	.usage = "[options]",
	.about = "Keeps object data in sparse files on local disk and serves the mounts of this node.\n",
	.more = "Environment: WARPDRIVE_RUN_DIR, WARPDRIVE_CACHE_DIR, WARPDRIVE_LOG=debug|info|warn|error.\n",
	.options = options_known,
};

/* The profile over the defaults, then the file, then the environment, then the command line in its order. */
static int read_over(const struct command_line *l, const char *profile, struct settings *s, struct wd_err *err)
{
	const char *env;
	int rc = wd_config_defaults(settings_keys, s, err);

	if (rc == 0)
		rc = profile_apply(s, profile, err);
	if (rc == 0 && (l->config || access(DEFAULT_CONFIG, F_OK) == 0))
		rc = wd_config_read_file(settings_keys, s, l->config ? l->config : DEFAULT_CONFIG, err);
	if (rc == 0 && (env = getenv("WARPDRIVE_RUN_DIR")))
		rc = wd_config_set(settings_keys, s, "run-dir", env, err);
	if (rc == 0 && (env = getenv("WARPDRIVE_CACHE_DIR")))
		rc = wd_config_set(settings_keys, s, "cache-dir", env, err);
	for (size_t i = 0; rc == 0 && i < l->npairs; i++) {
		const struct pair *p = &l->pairs[i];

		rc = p->name ? wd_config_set(settings_keys, s, p->name, p->value, err)
			     : set_pair(s, p->value, err);
	}
	return rc;
}

/* Twice where there is a profile: which it is, is said last. */
static int read_settings(const struct command_line *l, struct settings *s, struct wd_err *err)
{
	char profile[64];
	int rc = read_over(l, "", s, err);

	if (rc < 0 || !s->profile[0])
		return rc;
	rc = profile_check(s->profile, err);
	if (rc < 0)
		return rc;
	snprintf(profile, sizeof(profile), "%s", s->profile);
	wd_config_free(settings_keys, s);
	*s = (struct settings){0};
	return read_over(l, profile, s, err);
}

static int read_again(void *arg, struct settings *ret_settings, struct wd_err *err)
{
	return read_settings(arg, ret_settings, err);
}

static void prepare_process(void)
{
	struct rlimit files;
	sigset_t set;

	prctl(PR_SET_DUMPABLE, 0); /* secrets live in memory: no core dumps, no ptrace */
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	mallopt(M_ARENA_MAX, 2);
	mallopt(M_TRIM_THRESHOLD, 1 << 20);
	mallopt(M_MMAP_THRESHOLD, 256 * 1024);
}

static int run(int argc, char **argv, struct command_line *l, struct settings *s)
{
	struct agent_options options = {.settings = s};
	struct wd_err err = WD_ERR_INIT;
	int rc = wd_options_parse(&command, argc, argv, l);

	if (rc >= 0)
		return rc;
	if (l->is_print_profiles) {
		profiles_print(stdout);
		return 0;
	}
	if (l->is_print_metrics) {
		metrics_describe(stdout);
		return 0;
	}
	wd_log_init("agent");
	wd_log_keep();
	if (read_settings(l, s, &err) < 0)
		return fail(2, &err);
	if (l->is_print) {
		wd_config_print(settings_keys, s, stdout);
		return 0;
	}
	options.exits_when_idle = l->exits_when_idle;
	options.is_standby = l->is_standby;
	options.ready_fd = l->ready_fd;
	options.reread = read_again;
	options.reread_arg = l;
	if (l->is_check) {
		struct origin_policy *policy;
		enum prefetch prefetch;

		if (!prefetch_parse(s->prefetch, &prefetch)) {
			wd_err_set(&err, EINVAL, "setting 'prefetch': '%.60s' is none of auto, file, off", s->prefetch);
			return fail(2, &err);
		}
		if (origin_policy_new(s, &policy, &err) < 0 || credentials_check_settings(s, &err) < 0)
			return fail(2, &err);
		origin_policy_free(policy);
		puts("ok");
		return 0;
	}
	if (l->owner)
		return directories_make(s, l->owner, &err) < 0 ? fail(1, &err) : 0;
	prepare_process();
	rc = agent_run(&options, &err);
	return rc < 0 ? fail(1, &err) : 0;
}

int main(int argc, char **argv)
{
	struct settings s = {0};
	struct command_line line = {.pairs = calloc((size_t)argc, sizeof(*line.pairs)), .ready_fd = -1};
	int code = line.pairs ? run(argc, argv, &line, &s) : 1;

	free(line.pairs);
	wd_config_free(settings_keys, &s);
	return code;
}
