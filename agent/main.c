/* SPDX-License-Identifier: Apache-2.0 */
/* warpdrive-agent: command line, settings, signals. Everything else is agent/agent.c. */
#include <getopt.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "agent/agent.h"
#include "common/fault.h"
#include "common/log.h"

#define DEFAULT_CONFIG "/etc/warpdrive/agent.yaml"

static void usage(FILE *out)
{
	fputs("Usage: warpdrive-agent [OPTION]...\n"
	      "Keeps object data in sparse files on local disk and serves the mounts of this node.\n\n"
	      "  --config FILE       settings, YAML (default " DEFAULT_CONFIG " if it exists)\n"
	      "  --set KEY=VALUE     one setting; may be repeated; wins over the file\n"
	      "  --run-dir DIR       short for --set run-dir=DIR\n"
	      "  --cache-dir DIR     short for --set cache-dir=DIR\n"
	      "  --exit-when-idle    end when the last mount is gone\n"
	      "  --ready-fd N        write a byte to descriptor N when ready\n"
	      "  --check-config      check the settings and end\n"
	      "  --print-defaults    print every setting with its default and meaning, and end\n"
	      "  --help, --version\n\n"
	      "Environment: WARPDRIVE_RUN_DIR, WARPDRIVE_CACHE_DIR, WARPDRIVE_LOG=debug|info|warn|error.\n",
		out);
}

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

enum { OPT_CONFIG = 1000, OPT_SET, OPT_RUN_DIR, OPT_CACHE_DIR, OPT_IDLE, OPT_READY, OPT_CHECK, OPT_PRINT };

static const struct option long_options[] = {
	{"config", required_argument, NULL, OPT_CONFIG},
	{"set", required_argument, NULL, OPT_SET},
	{"run-dir", required_argument, NULL, OPT_RUN_DIR},
	{"cache-dir", required_argument, NULL, OPT_CACHE_DIR},
	{"exit-when-idle", no_argument, NULL, OPT_IDLE},
	{"ready-fd", required_argument, NULL, OPT_READY},
	{"check-config", no_argument, NULL, OPT_CHECK},
	{"print-defaults", no_argument, NULL, OPT_PRINT},
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, 'V'},
	{0},
};

/* The file first, wherever --config stands, then the environment, then the flags in order. */
static int read_settings(int argc, char **argv, struct settings *s, struct wd_err *err)
{
	const char *config = NULL, *env;
	int c, rc = wd_config_defaults(settings_keys, s, err);

	opterr = 0;
	while ((c = getopt_long(argc, argv, "hV", long_options, NULL)) != -1)
		if (c == OPT_CONFIG)
			config = optarg;
	opterr = 1;
	optind = 1;
	if (rc == 0 && (config || access(DEFAULT_CONFIG, F_OK) == 0))
		rc = wd_config_read_file(settings_keys, s, config ? config : DEFAULT_CONFIG, err);
	if (rc == 0 && (env = getenv("WARPDRIVE_RUN_DIR")))
		rc = wd_config_set(settings_keys, s, "run-dir", env, err);
	if (rc == 0 && (env = getenv("WARPDRIVE_CACHE_DIR")))
		rc = wd_config_set(settings_keys, s, "cache-dir", env, err);
	return rc;
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
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	mallopt(M_ARENA_MAX, 2);
	mallopt(M_TRIM_THRESHOLD, 1 << 20);
	mallopt(M_MMAP_THRESHOLD, 256 * 1024);
}

static int run(int argc, char **argv, struct settings *s)
{
	struct agent_options options = {.settings = s, .ready_fd = -1};
	struct wd_err err = WD_ERR_INIT;
	bool is_check = false;
	int c, rc;

	wd_log_init("agent");
	if (read_settings(argc, argv, s, &err) < 0)
		return fail(2, &err);
	while ((c = getopt_long(argc, argv, "hV", long_options, NULL)) != -1) {
		rc = 0;
		switch (c) {
		case OPT_CONFIG:
			break;
		case OPT_SET:
			rc = set_pair(s, optarg, &err);
			break;
		case OPT_RUN_DIR:
			rc = wd_config_set(settings_keys, s, "run-dir", optarg, &err);
			break;
		case OPT_CACHE_DIR:
			rc = wd_config_set(settings_keys, s, "cache-dir", optarg, &err);
			break;
		case OPT_IDLE:
			options.exits_when_idle = true;
			break;
		case OPT_READY:
			options.ready_fd = atoi(optarg);
			break;
		case OPT_CHECK:
			is_check = true;
			break;
		case OPT_PRINT:
			wd_config_print(settings_keys, s, stdout);
			return 0;
		case 'h':
			usage(stdout);
			return 0;
		case 'V':
			puts("warpdrive-agent " WD_VERSION);
			return 0;
		default:
			usage(stderr);
			return 2;
		}
		if (rc < 0)
			return fail(2, &err);
	}
	if (is_check) {
		struct origin_policy *policy;

		if (origin_policy_new(s, &policy, &err) < 0)
			return fail(2, &err);
		origin_policy_free(policy);
		puts("ok");
		return 0;
	}
	prepare_process();
	rc = agent_run(&options, &err);
	return rc < 0 ? fail(1, &err) : 0;
}

int main(int argc, char **argv)
{
	struct settings s = {0};
	int code = run(argc, argv, &s);

	wd_config_free(settings_keys, &s);
	return code;
}
