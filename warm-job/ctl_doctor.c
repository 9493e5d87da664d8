/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `warpdrive-ctl doctor`: asks, checks, prints. The checks are in ctl_doctor_*.c, see ctl_doctor.h.
 */
#include "warm-job/ctl_doctor.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config.h"
#include "warm-job/ctl.h"
#include "warm-job/ctl_bundle.h"

#define TIMEOUT_MS 5000
#define TIMEOUT_MAX_MS 600000

static enum ctl_exit examine(
	const char *run_dir, int timeout_ms, bool as_json, const char *bundle)
{
	struct doctor d = {.root = "",
		.run_dir = run_dir,
		.timeout_ms = timeout_ms,
		.is_root = geteuid() == 0};
	struct wd_err err = WD_ERR_INIT;
	enum ctl_exit code;

	doctor_ask(&d);
	doctor_check_kernel(&d);
	doctor_check_daemons(&d);
	doctor_check_mounts(&d);
	doctor_check_cache(&d);
	doctor_check_origins(&d);
	doctor_check_leftovers(&d);
	if (as_json) {
		json_t *json = doctor_to_json(&d);

		json_dumpf(json, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(json);
	} else {
		doctor_print(&d, stdout);
	}
	code = doctor_count(&d, DOCTOR_FAIL) ? CTL_FAILED : CTL_DONE;
	if (bundle && ctl_bundle_write(&d, bundle, &err) < 0) {
		ctl_error("doctor: bundle: %s", err.msg);
		code = CTL_FAILED;
	}
	doctor_done(&d);
	return code;
}

enum ctl_exit ctl_doctor(const struct ctl_command *self, int argc, char **argv)
{
	static const struct option long_options[] = {
		{"help", no_argument, NULL, 'h'},
		{"output", required_argument, NULL, 'o'},
		{"run-dir", required_argument, NULL, 'r'},
		{"bundle", required_argument, NULL, 'b'},
		{"timeout", required_argument, NULL, 't'},
		{NULL, 0, NULL, 0},
	};
	const char *run_dir = NULL, *bundle = NULL;
	int64_t timeout_ms = TIMEOUT_MS;
	bool as_json = false;
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":ho:r:", long_options, NULL)) != -1) {
		switch (c) {
		case 'h':
			return ctl_print_help(self);
		case 'o':
			if (strcmp(optarg, "json") != 0 && strcmp(optarg, "text") != 0)
				return ctl_usage(self, "output '%s': choose text or json", optarg);
			as_json = !strcmp(optarg, "json");
			break;
		case 'r':
			run_dir = optarg;
			break;
		case 'b':
			bundle = optarg;
			break;
		case 't':
			if (wd_parse_duration(optarg, &timeout_ms) < 0 || timeout_ms < 1000 ||
				timeout_ms > TIMEOUT_MAX_MS)
				return ctl_usage(self, "timeout '%s': choose 1 to %d seconds",
					optarg, TIMEOUT_MAX_MS / 1000);
			break;
		case ':':
			return ctl_usage(self, "'%.20s' needs a value", argv[optind - 1]);
		default:
			return ctl_usage(self, "unknown option '%.20s'", argv[optind - 1]);
		}
	}
	if (optind != argc)
		return ctl_usage(self, "takes no arguments, '%s' was given", argv[optind]);
	return examine(ctl_run_dir(run_dir), (int)timeout_ms, as_json, bundle);
}
