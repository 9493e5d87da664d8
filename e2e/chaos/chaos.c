/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frame of a run: everything is started, the load runs while the plan injects its faults, everything is
 * ended, and what was counted is printed. See chaos.h for how to add a plan, --help for how to run one.
 */
#include "e2e/chaos/chaos.h"

#include <errno.h>
#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "e2e/chaos/content.h"
#include "e2e/chaos/run.h"

#define PROGRESS_US 10000000 /* a line so often */

static struct chaos chaos = {.origin_fd = -1}; /* for the signal handler; everybody else gets a pointer */

/* ---- what plans use ---- */

const struct chaos_options *chaos_options(const struct chaos *c)
{
	return &c->options;
}

const char *chaos_dir(const struct chaos *c)
{
	return c->dir;
}

const char *chaos_mount_dir(const struct chaos *c)
{
	return c->mount;
}

const char *chaos_cache_dir(const struct chaos *c)
{
	return c->cache;
}

const char *chaos_run_dir(const struct chaos *c)
{
	return c->run;
}

uint64_t chaos_random(struct chaos *c, uint64_t n)
{
	return content_random(&c->random) % n;
}

void chaos_pause(struct chaos *c, unsigned min_ms, unsigned max_ms)
{
	uint64_t ms = min_ms + chaos_random(c, max_ms - min_ms + 1);

	nanosleep(&(struct timespec){(time_t)(ms / 1000), (long)(ms % 1000) * 1000000}, NULL);
}

bool chaos_goes_on(const struct chaos *c)
{
	return !atomic_load(&c->is_over);
}

void chaos_error(struct chaos *c, const char *fmt, ...)
{
	char text[1200];
	va_list args;

	if (atomic_fetch_add(&c->stats.errors, 1) >= ERRORS_SHOWN)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	printf("error: %s\n", text);
}

void chaos_note(struct chaos *c, const char *fmt, ...)
{
	char text[600];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	printf("# %s\n", text);
}

bool chaos_suits(const struct chaos *c, const struct plan *plan)
{
	const struct chaos_options *o = &c->options;

	if ((plan->flags & PLAN_NEEDS_OTHER_BIN) && !o->other_bin[0])
		return false;
	if ((plan->flags & PLAN_NEEDS_HTTP) && o->origin == ORIGIN_FILE)
		return false;
	if ((plan->flags & PLAN_NEEDS_OWN_ORIGIN) && o->origin != ORIGIN_OWN)
		return false;
	return !(plan->flags & PLAN_NEEDS_HOLDER) || o->holder != HOLDER_NONE;
}

/* ---- the run ---- */

static void progress(struct chaos *c)
{
	load_show_slow(c);
	printf("%u faults, %llu operations, %llu MiB checked, errors %llu, wrong %llu\n",
		atomic_load(&c->stats.faults), (unsigned long long)atomic_load(&c->stats.ops),
		(unsigned long long)(atomic_load(&c->stats.bytes) >> 20),
		(unsigned long long)atomic_load(&c->stats.errors),
		(unsigned long long)atomic_load(&c->stats.wrong));
}

static void run_plan(struct chaos *c)
{
	const struct chaos_options *o = &c->options;
	uint64_t start = stats_now_us(), shown = start;

	while (chaos_goes_on(c)) {
		struct wd_err err = WD_ERR_INIT;
		uint64_t now = stats_now_us();

		if (o->seconds && now - start >= o->seconds * 1000000)
			break;
		if (o->faults && atomic_load(&c->stats.faults) >= o->faults)
			break;
		chaos_pause(c, o->min_ms, o->max_ms);
		if (o->plan->inject) {
			stats_fault(&c->stats);
			if (o->plan->inject(c, &err) < 0)
				chaos_error(c, "plan %s: %s", o->plan->name, err.msg);
		}
		programs_watch(c);
		if (stats_now_us() - shown > PROGRESS_US) {
			shown = stats_now_us();
			progress(c);
		}
	}
}

/* The new namespace has copies of the mounts that other runs have now; they would outlive those. */
static void drop_copies(void)
{
	char line[2 * CHAOS_PATH], path[CHAOS_PATH];
	FILE *f = fopen("/proc/self/mountinfo", "re");

	while (f && fgets(line, sizeof(line), f))
		if (strstr(line, " - fuse.warpdrive ") && sscanf(line, "%*s %*s %*s %*s %511s", path) == 1)
			umount2(path, MNT_DETACH);
	if (f)
		fclose(f);
}

/* Nobody else's mount namespace gets a copy of our mount, which would keep it alive after the umount. */
static int private_mounts(struct wd_err *err)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return wd_err_sys(err, errno, "make a mount namespace (this program needs root)");
	drop_copies();
	return 0;
}

static int make_directories(struct chaos *c, struct wd_err *err)
{
	const char *base = getenv("E2E_DIR");

	if (snprintf(c->dir, sizeof(c->dir), "%.400s/wd-chaos-XXXXXX", base ? base : "/var/tmp") < 0 ||
		!mkdtemp(c->dir))
		return wd_err_sys(err, errno, "make a directory '%s'", c->dir);
	snprintf(c->data, sizeof(c->data), "%.500s/data", c->dir);
	snprintf(c->mount, sizeof(c->mount), "%.500s/mount", c->dir);
	snprintf(c->run, sizeof(c->run), "%.500s/run", c->dir);
	snprintf(c->cache, sizeof(c->cache), "%.500s/cache", c->dir);
	if (mkdir(c->data, 0755) < 0 || mkdir(c->mount, 0755) < 0 || mkdir(c->run, 0755) < 0 ||
		mkdir(c->cache, 0755) < 0)
		return wd_err_sys(err, errno, "make directories in '%s'", c->dir);
	return 0;
}

static void add_options(struct chaos *c)
{
	const struct chaos_options *o = &c->options;

	chaos_agent_argument(c, "--set");
	chaos_agent_argument(c, "http-listen=");
	chaos_agent_argument(c, "--set");
	chaos_agent_argument(c, "cache-size=" CONTENT_CACHE);
	chaos_mount_option(c, "metadata-ttl=1s"); /* so that names are asked for again and again */
	if (o->has_no_open)
		chaos_mount_option(c, "no-open,version=" CONTENT_VERSION);
	if (o->has_no_passthrough)
		chaos_mount_option(c, "no-passthrough");
	if (o->has_no_resend)
		chaos_keeper_argument(c, "--no-resend");
}

static int set_up(struct chaos *c, struct wd_err *err)
{
	const struct plan *plan = c->options.plan;
	int rc = stats_init(&c->stats) < 0 ? wd_err_set(err, ENOMEM, "out of memory") : 0;

	if (rc == 0)
		rc = make_directories(c, err);
	add_options(c);
	if (rc == 0 && plan->configure)
		rc = plan->configure(c, err);
	if (rc == 0)
		rc = origin_prepare(c, err);
	if (rc == 0)
		rc = programs_mount(c, err);
	if (rc == 0 && plan->prepare)
		rc = plan->prepare(c, err);
	if (rc == 0 && resources_start(c) < 0)
		rc = wd_err_set(err, ENOMEM, "sample resources: out of memory");
	if (rc == 0)
		resources_mark(c);
	return rc < 0 ? rc : load_start(c, err);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

/* Also when the run did not start: whatever is there is ended. */
static void tear_down(struct chaos *c)
{
	struct wd_err err = WD_ERR_INIT;

	resources_compare(c);
	resources_stop(c);
	if (proc_mounts_below(c->mount) && programs_umount(c, &err) < 0)
		chaos_error(c, "%s", err.msg);
	if (programs_stop(c, &err) < 0)
		chaos_error(c, "%s", err.msg);
	resources_leaks(c);
	resources_logs(c);
	if (c->dir[0] && !c->options.is_kept && !atomic_load(&c->stats.errors) &&
		!atomic_load(&c->stats.wrong))
		nftw(c->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	else
		printf("kept: %s\n", c->dir);
}

static void report(struct chaos *c, double seconds)
{
	printf("plan %s: %u faults in %.0f s; %llu operations, %llu MiB checked\n", c->options.plan->name,
		atomic_load(&c->stats.faults), seconds, (unsigned long long)atomic_load(&c->stats.ops),
		(unsigned long long)(atomic_load(&c->stats.bytes) >> 20));
	resources_print(c);
	stats_print(&c->stats);
	printf("errors %llu wrong %llu\n", (unsigned long long)atomic_load(&c->stats.errors),
		(unsigned long long)atomic_load(&c->stats.wrong));
}

/* Orphans of killed daemons come to us, and each one's end is a SIGCHLD. One that comes while the main thread
 * has signals blocked, as in posix_spawn, is not thrown away but wakes some other thread: an operation that
 * waits for the mount then ends with EINTR, rightly. So it is blocked in every thread, before there are any. */
static void block_child_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

/* The first time the run ends early but in good order. */
static void stop(int sig)
{
	atomic_store(&chaos.is_over, true);
	signal(sig, SIG_DFL);
}

int main(int argc, char **argv)
{
	struct chaos *c = &chaos;
	struct wd_err err = WD_ERR_INIT;
	uint64_t start;
	int rc;

	if (argc > 1 && strcmp(argv[1], "--reader") == 0)
		return reader_main(argc, argv);
	if (argc > 1 && strcmp(argv[1], "--serve-origin") == 0)
		return origin_serve(argc, argv);
	rc = options_parse(c, argc, argv);
	if (rc >= 0)
		return rc;
	setvbuf(stdout, NULL, _IOLBF, 0);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	block_child_signals();
	signal(SIGINT, stop);
	signal(SIGTERM, stop);
	signal(SIGPIPE, SIG_IGN);
	c->random = c->options.seed;
	rc = private_mounts(&err);
	if (rc == 0)
		rc = set_up(c, &err);
	if (rc < 0)
		fprintf(stderr, "e2e-chaos: %s\n", err.msg);
	start = stats_now_us();
	if (rc == 0) {
		run_plan(c);
		err = WD_ERR_INIT;
		if (c->options.plan->finish && c->options.plan->finish(c, &err) < 0)
			chaos_error(c, "plan %s: %s", c->options.plan->name, err.msg);
	}
	load_stop(c);
	tear_down(c);
	if (rc < 0)
		return 2;
	report(c, (double)(stats_now_us() - start) / 1e6);
	return atomic_load(&c->stats.errors) || atomic_load(&c->stats.wrong);
}
