/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `warpdrive-ctl mount`: checks what can be checked here (the shape of the URL and the options, the
 * mountpoint, that there are credentials), starts private daemons where none run, and asks the
 * keeper. The description that travels is JSON: url, target, options, credentials. The keeper
 * passes it on unread; the agent checks every word of it.
 */
#include "warm-job/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/mountinfo.h"
#include "common/proto.h"
#include "warm-job/ctl_credentials.h"
#include "warm-job/ctl_daemons.h"
#include "warm-job/ctl_options.h"

struct mount_request {
	const char *url;
	const char *dir; /* as given */
	char target[PATH_MAX];
	bool is_on_mount; /* one of ours, which may be dead */
	json_t *options;
	struct ctl_daemons daemons;
};

static bool is_s3(const char *url)
{
	return !strncmp(url, "s3://", 5);
}

/* A URL for messages: what stands before "@" in its host part is left out. */
static void show_url(const char *url, char *out, size_t cap)
{
	const char *host = strstr(url, "://");
	const char *end = host ? host + 3 + strcspn(host + 3, "/") : NULL;
	const char *at = NULL;

	for (const char *p = host; p && p < end; p++) {
		if (*p == '@')
			at = p;
	}
	if (at)
		snprintf(out, cap, "%.*s%s", (int)(host + 3 - url), url, at + 1);
	else
		snprintf(out, cap, "%s", url);
}

/* Strings made for the daemons' command lines; they live as long as the process. */
static char *kept[4 * CTL_DAEMON_ARGS_MAX];

static const char *keep(char *text)
{
	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
		if (!kept[i]) {
			kept[i] = text;
			return text;
		}
	}
	free(text);
	return NULL;
}

static const char *join(const char *a, const char *b, const char *c)
{
	char *text = NULL;

	return asprintf(&text, "%s%s%s", a, b, c) < 0 ? NULL : keep(text);
}

/* The daemons live in "/": a path of the user's must not depend on where the user stands. */
static const char *absolute(const char *path)
{
	char here[PATH_MAX];

	if (path[0] == '/' || !getcwd(here, sizeof(here)))
		return path;
	return join(here, "/", path);
}

static int check_target(struct mount_request *q, struct wd_err *err)
{
	struct mountinfo info;
	struct statx stx;

	/* one of ours is left to the keeper: a look at it might hang, and if it is dead the keeper
	 * clears it away */
	if (ctl_absolute(q->dir, q->target, NULL) == 0 &&
		mountinfo_find(q->target, &info, NULL) > 0 &&
		strcmp(info.type, "fuse.warpdrive") == 0) {
		q->is_on_mount = true;
		return 0;
	}
	if (!realpath(q->dir, q->target)) {
		if (errno == ENOENT)
			return wd_err_set(err, ENOENT, "mountpoint missing: make it with mkdir -p");
		if (errno == ENOTCONN)
			return wd_err_set(err, ENOTCONN,
				"a dead mount is in the way: clear it with umount -l");
		return wd_err_sys(err, errno, "mountpoint");
	}
	if (statx(AT_FDCWD, q->target, AT_STATX_DONT_SYNC, STATX_TYPE, &stx) < 0)
		return wd_err_sys(err, errno, "mountpoint");
	if (!S_ISDIR(stx.stx_mode))
		return wd_err_set(err, ENOTDIR, "mountpoint is not a directory: name a directory");
	if (stx.stx_attributes & stx.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT)
		return wd_err_set(err, EBUSY,
			"mountpoint busy, something is mounted there: unmount it first, or choose "
			"another");
	return 0;
}

/* Environment variables of the S3 tools stand in for options that were not given. */
static void add_defaults(json_t *options)
{
	static const struct {
		const char *option, *variable;
	} defaults[] = {
		{"region", "AWS_REGION"},
		{"region", "AWS_DEFAULT_REGION"},
		{"endpoint", "AWS_ENDPOINT_URL_S3"},
		{"endpoint", "AWS_ENDPOINT_URL"},
	};

	for (size_t i = 0; i < sizeof(defaults) / sizeof(defaults[0]); i++) {
		const char *value = getenv(defaults[i].variable);

		if (value && *value && !json_object_get(options, defaults[i].option))
			json_object_set_new(options, defaults[i].option, json_string(value));
	}
}

static int make_description(struct mount_request *q, char **ret_text, struct wd_err *err)
{
	struct ctl_credentials c = CTL_CREDENTIALS_INIT;
	json_t *keys = json_object();

	prctl(PR_SET_DUMPABLE, 0); /* from here on there are secrets in memory: no core dumps */

	if (is_s3(q->url)) {
		add_defaults(q->options);
		if (!ctl_options_flag(q->options, "anonymous")) {
			int r = ctl_credentials_find(&c, err);

			if (r < 0) {
				json_decref(keys);
				return r;
			}
			json_object_set_new(keys, "access_key", json_string(c.access_key));
			json_object_set_new(keys, "secret_key", json_string(c.secret_key));
			if (c.session_token)
				json_object_set_new(
					keys, "session_token", json_string(c.session_token));
		}
	}
	json_t *d = json_pack("{s:s, s:s, s:O, s:O}", "url", q->url, "target", q->target, "options",
		q->options, "credentials", keys);

	*ret_text = d ? json_dumps(d, JSON_COMPACT) : NULL;
	json_decref(d);
	json_decref(keys);
	ctl_credentials_release(&c);
	if (!*ret_text)
		return wd_err_set(err, EINVAL, "the URL or the mountpoint's path is not UTF-8");
	return 0;
}

static int read_answer(int sock, struct wd_msg *m, struct wd_err *err)
{
	int r = wd_msg_recv(sock, m, 0);
	char reason[480];

	if (r <= 0)
		return wd_err_sys(err, r < 0 ? -r : ECONNRESET, "wait for the keeper");
	if (m->type != (WD_MSG_MOUNT | WD_MSG_REPLY))
		return wd_err_set(err, EPROTO, "the keeper's answer makes no sense");
	if (m->status == 0)
		return 0;

	struct wd_rd rd = wd_rd_start(m);

	if (!wd_rd_str(&rd, reason, sizeof(reason)) || !*reason)
		return wd_err_sys(err, -m->status, "refused");
	return wd_err_set(err, -m->status, "%s", reason);
}

/* *ret_is_lost: the daemons went away under the request; asking again is right. */
static int ask_keeper(
	struct mount_request *q, const char *description, bool *ret_is_lost, struct wd_err *err)
{
	char path[108];
	int r = ctl_run_path(q->daemons.run_dir, "keeper.sock", path, err);

	*ret_is_lost = false;
	if (r < 0)
		return r;

	wd_autoclose int sock = wd_client_connect(path, WD_ROLE_CTL, err);

	*ret_is_lost = sock < 0;
	if (sock < 0)
		return sock;

	struct wd_msg *m = calloc(1, sizeof(*m));

	if (!m)
		return wd_err_sys(err, ENOMEM, "ask the keeper");
	wd_msg_start(m, WD_MSG_MOUNT, 1);
	wd_put_str(m, q->target);
	wd_put_bytes(m, description, strlen(description));
	wd_put_u32(m, 0);
	r = wd_msg_send(sock, m, 0);
	if (r < 0)
		wd_err_sys(err, -r, "ask the keeper");
	if (r == 0) /* no limit here: keeper and agent have their own, and ^C is the user's */
		r = read_answer(sock, m, err);
	/* refused: the agent that the keeper would ask has just ended */
	*ret_is_lost = r == -ECONNRESET || r == -EPIPE || r == -ECONNREFUSED;
	wd_msg_close_fds(m);
	explicit_bzero(m, sizeof(*m));
	free(m);
	return r;
}

/* A private daemon ends with its last mount, perhaps just now: then once more, with new ones. */
#define TRIES 5

static int start_and_ask(struct mount_request *q, const char *description, struct wd_err *err)
{
	int r = ctl_daemons_lock(&q->daemons, err);
	bool is_lost = true;

	for (int i = 0; r == 0 && is_lost && i < TRIES; i++) {
		*err = WD_ERR_INIT;
		r = ctl_daemons_start(&q->daemons, err);
		if (r < 0)
			break;
		r = ask_keeper(q, description, &is_lost, err);
		if (is_lost && i + 1 < TRIES)
			r = 0;
	}
	ctl_daemons_done(&q->daemons, r < 0);
	return r;
}

static int mount_it(struct mount_request *q, struct wd_err *err)
{
	char *description = NULL;
	int r = check_target(q, err);
	const char *ca_cert = json_string_value(json_object_get(q->options, "ca-cert"));

	if (ca_cert)
		json_object_set_new(q->options, "ca-cert", json_string(absolute(ca_cert)));
	if (r == 0)
		r = make_description(q, &description, err);
	if (r == 0)
		r = start_and_ask(q, description, err);
	if (r == -EBUSY && q->is_on_mount)
		wd_err_set(err, EBUSY,
			"mountpoint busy, something is mounted there: unmount it first, or choose "
			"another");
	if (description)
		explicit_bzero(description, strlen(description));
	free(description);
	return r;
}

/* ---- the command line ---- */

enum { OPT_RUN_DIR = 256, OPT_AGENT, OPT_KEEPER };

static const struct option long_options[] = {
	{"help", no_argument, NULL, 'h'},
	{"options", required_argument, NULL, 'o'},
	{"run-dir", required_argument, NULL, OPT_RUN_DIR},
	{"cache-dir", required_argument, NULL, OPT_AGENT},
	{"cache-size", required_argument, NULL, OPT_AGENT},
	{"config", required_argument, NULL, OPT_AGENT},
	{"set", required_argument, NULL, OPT_AGENT},
	{"read-ahead", required_argument, NULL, OPT_KEEPER},
	{NULL, 0, NULL, 0},
};

/* Adds "--name value" to what a new daemon is told; false when there is no room. */
static bool add_daemon_arg(const char **args, const char *name, const char *value)
{
	int n = 0;

	while (args[n])
		n++;
	if (n + 3 > CTL_DAEMON_ARGS_MAX)
		return false;
	if (!strcmp(name, "cache-size")) {
		value = join(name, "=", value);
		name = "set";
	} else if (!strcmp(name, "cache-dir") || !strcmp(name, "config")) {
		value = absolute(value);
	}
	args[n + 1] = value;
	args[n] = join("--", name, "");
	return args[n] && value;
}

static enum ctl_exit parse(
	const struct ctl_command *self, int argc, char **argv, struct mount_request *q)
{
	struct wd_err err = WD_ERR_INIT;
	const char *run_dir = NULL;
	int c, index;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":ho:", long_options, &index)) != -1) {
		switch (c) {
		case 'o':
			if (ctl_options_parse(optarg, q->options, &err) < 0)
				return ctl_usage(self, "%s", err.msg);
			break;
		case OPT_RUN_DIR:
			run_dir = optarg;
			break;
		case OPT_AGENT:
		case OPT_KEEPER:
			if (!add_daemon_arg(
				    c == OPT_AGENT ? q->daemons.agent_args : q->daemons.keeper_args,
				    long_options[index].name, optarg))
				return ctl_usage(self, "too many options for the agent");
			break;
		case ':':
			return ctl_usage(self, "'%.20s' needs a value", argv[optind - 1]);
		default:
			return ctl_usage(self, "unknown option '%.20s'", argv[optind - 1]);
		}
	}
	if (argc - optind != 2)
		return ctl_usage(self, "%s",
			argc - optind < 2 ? "needs a URL and a directory"
					  : "takes one URL and one directory");
	q->url = argv[optind];
	q->dir = argv[optind + 1];
	if (!strstr(q->url, "://"))
		return ctl_usage(
			self, "'%s' is not a URL: write s3://, http(s):// or file:///", q->url);
	q->daemons.run_dir = absolute(ctl_run_dir(run_dir));
	return CTL_DONE;
}

static bool wants_help(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--"); i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
			return true;
	}
	return false;
}

enum ctl_exit ctl_mount(const struct ctl_command *self, int argc, char **argv)
{
	struct mount_request q = {.options = json_object()};
	struct wd_err err = WD_ERR_INIT;

	if (wants_help(argc, argv)) {
		json_decref(q.options);
		return ctl_print_help(self);
	}
	enum ctl_exit code = parse(self, argc, argv, &q);

	if (code == CTL_DONE && mount_it(&q, &err) < 0) {
		char url[1024];

		show_url(q.url, url, sizeof(url));
		ctl_error("mount '%s' on '%s': %s", url, q.dir, err.msg);
		code = CTL_FAILED;
	}
	json_decref(q.options);
	return code;
}
