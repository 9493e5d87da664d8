/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `warpdrive-ctl trace`: begins a trace in the agent, asks it for events again and again, and prints them. One that is
 * stopped ends its trace; one that is killed leaves it to the agent, which ends what nobody reads.
 */
#include "warm-job/ctl_trace.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/control.pb-c.h"
#include "warm-job/ctl.h"
#include "warm-job/ctl_control.h"
#include "warm-job/ctl_warm_places.h"

#define MOUNTINFO "/proc/self/mountinfo"
#define WAIT_MS 1000 /* a signal that comes just before the call is noticed so late */

struct trace_args {
	const char *run_dir, *mount, *pod, *path;
	unsigned long long count; /* 0: no end */
	bool is_json;
};

static volatile sig_atomic_t is_told_to_end;

static void note_signal(int number)
{
	is_told_to_end = 1;
}

/* ---- the command line ---- */

static bool parse(const struct ctl_command *self, int argc, char **argv, struct trace_args *a, enum ctl_exit *ret_code)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {"mount", required_argument, NULL, 'm'},
		{"pod", required_argument, NULL, 'p'}, {"count", required_argument, NULL, 'n'},
		{"run-dir", required_argument, NULL, 'r'}, {NULL, 0, NULL, 0}};
	char *end = NULL;
	int c;

	*a = (struct trace_args){0};
	*ret_code = CTL_USAGE;
	optind = 1;
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":ho:", options, NULL)) != -1) {
		switch (c) {
		case 'h':
			*ret_code = ctl_print_help(self);
			return false;
		case 'm':
			a->mount = optarg;
			break;
		case 'p':
			a->pod = optarg;
			break;
		case 'r':
			a->run_dir = optarg;
			break;
		case 'n':
			errno = 0;
			a->count = strtoull(optarg, &end, 10);
			if (errno || *end || a->count == 0 || *optarg == '-')
				return ctl_usage(self, "--count takes a number above 0, not '%s'", optarg), false;
			break;
		case 'o':
			if (strcmp(optarg, "json") != 0)
				return ctl_usage(self, "-o takes json, not '%s'", optarg), false;
			a->is_json = true;
			break;
		case ':':
			return ctl_usage(self, "'%s' needs a value", argv[optind - 1]), false;
		default:
			return ctl_usage(self, "unknown option '%s'", argv[optind - 1]), false;
		}
	}
	if (argc - optind > 1)
		return ctl_usage(self, "takes one PATH, and not '%s' as well", argv[optind + 1]), false;
	a->path = argv[optind];
	a->run_dir = ctl_run_dir(a->run_dir);
	return true;
}

/* ---- whom, and what ---- */

/* What is named, as the agent knows it. */
static int find_place(struct warm_places *places, const struct trace_args *a, Warpdrive__V1__TraceRequest *q,
	struct wd_err *err)
{
	char joined[PATH_MAX];
	const char *what = a->path ? a->path : a->mount;
	int r;

	if (!what)
		return 0;
	if (a->path && a->mount && a->path[0] != '/') {
		if (snprintf(joined, sizeof(joined), "%s/%s", a->mount, a->path) >= (int)sizeof(joined))
			return wd_err_set(err, ENAMETOOLONG, "'%s': the path is too long", a->path);
		what = joined;
	}
	r = warm_places_add(places, what, err);
	if (r < 0)
		return r;
	if (ctl_control_is_mount(places->targets[0].control))
		return wd_err_set(err, ENOENT, "'%s' is not a mount of the agent in '%s'", what, a->run_dir);
	if (!a->path && !places->targets[0].is_whole)
		return wd_err_set(err, EINVAL, "--mount '%s' is not where something is mounted", a->mount);
	q->target = places->targets[0].target;
	if (!places->targets[0].is_whole)
		q->path = places->targets[0].paths[0];
	return 0;
}

/* ---- following ---- */

struct following {
	struct ctl_control *control;
	const struct trace_args *args;
	uint64_t id;
	bool is_one_mount;
	unsigned long long shown;
	uint64_t lost, server_bytes, unseen_opens;
};

static void print(struct following *f, const Warpdrive__V1__TraceEvents *in)
{
	for (size_t i = 0; i < in->n_events; i++) {
		if (f->args->count && f->shown == f->args->count)
			return;
		if (f->args->is_json)
			ctl_trace_print_json(in->events[i], stdout);
		else
			ctl_trace_print(in->events[i], !f->is_one_mount, stdout);
		f->shown++;
	}
	fflush(stdout);
	if (in->lost > f->lost)
		ctl_warn("%llu lines are lost: they come faster than they are read", (unsigned long long)(in->lost - f->lost));
	f->lost = in->lost;
	f->server_bytes = in->server_bytes;
	f->unseen_opens = in->unseen_opens;
}

static bool is_over(const struct following *f)
{
	return is_told_to_end || ferror(stdout) || (f->args->count && f->shown >= f->args->count);
}

static int follow(struct following *f, struct wd_err *err)
{
	Warpdrive__V1__ReadTraceRequest q = WARPDRIVE__V1__READ_TRACE_REQUEST__INIT;
	ProtobufCMessage *reply;
	int r = 0;

	q.id = f->id;
	q.wait_ms = WAIT_MS;
	while (!is_over(f)) {
		r = ctl_control_call(f->control, "ReadTrace", &q.base, &warpdrive__v1__trace_events__descriptor, &reply, err);
		if (r == -EINTR)
			continue;
		if (r < 0)
			return r;
		print(f, (const Warpdrive__V1__TraceEvents *)reply);
		protobuf_c_message_free_unpacked(reply, NULL);
	}
	return 0;
}

static void stop(struct following *f)
{
	Warpdrive__V1__StopTraceRequest q = WARPDRIVE__V1__STOP_TRACE_REQUEST__INIT;
	struct wd_err err = WD_ERR_INIT;
	ProtobufCMessage *reply;

	q.id = f->id;
	/* that it cannot be told matters to nobody: it ends by itself */
	if (ctl_control_call(
		    f->control, "StopTrace", &q.base, &warpdrive__v1__stop_trace_response__descriptor, &reply, &err) == 0)
		protobuf_c_message_free_unpacked(reply, NULL);
}

static void summarise(const struct following *f)
{
	char size[24];

	fprintf(stderr, "%llu shown, %llu lost; servers answered reads of %s in all and %llu opens by themselves\n",
		f->shown, (unsigned long long)f->lost, wd_format_size(f->server_bytes, size, sizeof(size)),
		(unsigned long long)f->unseen_opens);
}

static int begin(struct following *f, Warpdrive__V1__TraceRequest *q, struct wd_err *err)
{
	ProtobufCMessage *reply;
	int r = ctl_control_call(
		f->control, "StartTrace", &q->base, &warpdrive__v1__start_trace_response__descriptor, &reply, err);

	if (r < 0)
		return r;
	f->id = ((const Warpdrive__V1__StartTraceResponse *)reply)->id;
	protobuf_c_message_free_unpacked(reply, NULL);
	return 0;
}

static enum ctl_exit trace(struct warm_places *places, const struct trace_args *a)
{
	Warpdrive__V1__TraceRequest q = WARPDRIVE__V1__TRACE_REQUEST__INIT;
	struct following f = {.control = places->agent, .args = a};
	struct sigaction end = {.sa_handler = note_signal};
	struct wd_err err = WD_ERR_INIT;
	int r = 0;

	if (!places->agent) {
		ctl_error("trace: no agent can be asked in '%s': %s", a->run_dir, places->agent_err.msg);
		return CTL_FAILED;
	}
	q.pod = (char *)(uintptr_t)(a->pod ? a->pod : "");
	r = find_place(places, a, &q, &err);
	f.is_one_mount = q.target[0] != '\0';
	sigaction(SIGINT, &end, NULL);
	sigaction(SIGTERM, &end, NULL);
	signal(SIGPIPE, SIG_IGN); /* the trace is stopped first */
	if (r == 0)
		r = begin(&f, &q, &err);
	if (r == 0) {
		r = follow(&f, &err);
		stop(&f);
		summarise(&f);
	}
	if (r < 0)
		ctl_error("trace: %s", err.msg);
	return r < 0 ? CTL_FAILED : CTL_DONE;
}

enum ctl_exit ctl_trace(const struct ctl_command *self, int argc, char **argv)
{
	struct wd_err err = WD_ERR_INIT;
	struct warm_places places;
	struct trace_args args;
	enum ctl_exit code;

	if (!parse(self, argc, argv, &args, &code))
		return code;
	if (warm_places_open(&places, args.run_dir, MOUNTINFO, &err) < 0) {
		ctl_error("trace: %s", err.msg);
		code = CTL_FAILED;
	} else {
		code = trace(&places, &args);
	}
	warm_places_close(&places);
	return code;
}
