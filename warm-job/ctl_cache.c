/* SPDX-License-Identifier: Apache-2.0 */
/* `warpdrive-ctl cache`, `drain` and `reload`: the cache of a node as a whole, and its settings. */
#include <string.h>

#include "common/config.h"
#include "common/control.pb-c.h"
#include "common/lock.h"
#include "warm-job/ctl_args.h"
#include "warm-job/ctl_ask.h"
#include "warm-job/ctl_commands.h"
#include "warm-job/ctl_stats.h"

#define LOOK_NS 200000000LL
#define STUCK_NS 5000000000LL

typedef Warpdrive__V1__CacheState CacheState;

const char ctl_cache_help[] =
	"Makes the cache of the running agent smaller, and waits until it is: what the\n"
	"eviction policy likes least goes. SIZE is at most the setting cache-size;\n"
	"\"default\" goes back to that. It is not kept: a restarted agent has the setting\n"
	"(change that, and use `reload`, for what shall last).\n"
	"For administrators of the node.\n"
	"\n"
	"  --run-dir DIR      where the agent's socket is (WARPDRIVE_RUN_DIR,\n"
	"                     /run/warpdrive)\n"
	"\n"
	"Exit code 3 when what is in use or pinned leaves it larger than that.\n"
	"\n"
	"Example: warpdrive-ctl cache shrink 200GiB\n";

const char ctl_drain_help[] =
	"From now on nothing new is admitted to the cache: what is there is served as\n"
	"ever, everything else is read from the origin past it, and nothing is fetched\n"
	"ahead. For a disk or node that is to go. Not kept: a restarted agent admits.\n"
	"For administrators of the node.\n"
	"\n"
	"  --end              admit again\n"
	"  --run-dir DIR      where the agent's socket is (WARPDRIVE_RUN_DIR,\n"
	"                     /run/warpdrive)\n";

const char ctl_reload_help[] =
	"The agent reads its settings again, as on SIGHUP, and applies what may change\n"
	"while it runs: cache-size, free-space-floor, bandwidth-limit. Others that have\n"
	"changed are named; a restart of the agent applies them, without an error for\n"
	"anybody who reads. For administrators of the node.\n"
	"\n"
	"  --run-dir DIR      where the agent's socket is (WARPDRIVE_RUN_DIR,\n"
	"                     /run/warpdrive)\n"
	"\n"
	"Exit code 3 when there are such others.\n";

/* ---- cache shrink, drain ---- */

/* The state after it; NULL, and told. */
static CacheState *set_cache(const struct ctl_command *self, struct ctl_control *agent,
	const Warpdrive__V1__SetCacheRequest *q)
{
	return ctl_ask(self, agent, "SetCache", &q->base, &warpdrive__v1__cache_state__descriptor);
}

/* Until it is as small as asked, or nothing goes any more. */
static CacheState *await_size(const struct ctl_command *self, struct ctl_control *agent, CacheState *s)
{
	Warpdrive__V1__SetCacheRequest nothing = WARPDRIVE__V1__SET_CACHE_REQUEST__INIT;
	int64_t moved_ns = wd_now_ns();

	while (s && s->used > s->limit && wd_now_ns() < moved_ns + STUCK_NS) {
		uint64_t evicted = s->evicted;

		warpdrive__v1__cache_state__free_unpacked(s, NULL);
		ctl_sleep_until(wd_now_ns() + LOOK_NS);
		s = set_cache(self, agent, &nothing);
		if (s && s->evicted != evicted)
			moved_ns = wd_now_ns();
	}
	return s;
}

static enum ctl_exit shrink(const struct ctl_command *self, const char *run_dir, const char *size)
{
	Warpdrive__V1__SetCacheRequest q = WARPDRIVE__V1__SET_CACHE_REQUEST__INIT;
	struct ctl_control *agent;
	char used[32], limit[32];
	enum ctl_exit code;
	CacheState *s;
	int64_t bytes = 0;

	q.is_default = strcmp(size, "default") == 0;
	if (!q.is_default && (wd_parse_size(size, &bytes) < 0 || bytes <= 0))
		return ctl_usage(self, "'%.20s' is no size such as 200GiB", size);
	q.limit = (uint64_t)bytes;
	agent = ctl_ask_agent(self, run_dir);
	s = agent ? await_size(self, agent, set_cache(self, agent, &q)) : NULL;
	ctl_control_free(agent);
	if (!s)
		return CTL_FAILED;
	code = s->used > s->limit ? CTL_PARTLY : CTL_DONE;
	printf("the cache may have %s until the agent is restarted; it has %s\n",
		wd_format_size(s->limit, limit, sizeof(limit)), wd_format_size(s->used, used, sizeof(used)));
	if (code == CTL_PARTLY)
		ctl_error("cache: what is in use or pinned cannot go yet");
	warpdrive__v1__cache_state__free_unpacked(s, NULL);
	return code;
}

enum ctl_exit ctl_cache(const struct ctl_command *self, int argc, char **argv)
{
	const char *run_dir = NULL;
	const struct ctl_option options[] = {{"run-dir", 0, CTL_STRING, &run_dir, NULL}};
	enum ctl_exit code;
	int first;

	if (!ctl_args_parse(self, argc, argv, options, 1, &first, &code))
		return code;
	if (argc != first + 2 || strcmp(argv[first], "shrink") != 0)
		return ctl_usage(self, "the one thing to do is `shrink SIZE`");
	return shrink(self, ctl_run_dir(run_dir), argv[first + 1]);
}

enum ctl_exit ctl_drain(const struct ctl_command *self, int argc, char **argv)
{
	Warpdrive__V1__SetCacheRequest q = WARPDRIVE__V1__SET_CACHE_REQUEST__INIT;
	const char *run_dir = NULL;
	bool is_end = false;
	const struct ctl_option options[] = {
		{"end", 0, CTL_FLAG, &is_end, NULL},
		{"run-dir", 0, CTL_STRING, &run_dir, NULL},
	};
	struct ctl_control *agent;
	enum ctl_exit code;
	CacheState *s;
	int first;

	if (!ctl_args_parse(self, argc, argv, options, 2, &first, &code))
		return code;
	if (first < argc)
		return ctl_usage(self, "takes no argument, not '%.20s'", argv[first]);
	q.drain = is_end ? WARPDRIVE__V1__DRAIN__DRAIN_END : WARPDRIVE__V1__DRAIN__DRAIN_BEGIN;
	agent = ctl_ask_agent(self, ctl_run_dir(run_dir));
	s = agent ? set_cache(self, agent, &q) : NULL;
	ctl_control_free(agent);
	if (!s)
		return CTL_FAILED;
	puts(s->is_draining ? "draining: nothing is admitted until `drain --end` or a restart" : "the cache admits again");
	warpdrive__v1__cache_state__free_unpacked(s, NULL);
	return CTL_DONE;
}

/* ---- reload ---- */

enum ctl_exit ctl_reload(const struct ctl_command *self, int argc, char **argv)
{
	Warpdrive__V1__ReloadRequest q = WARPDRIVE__V1__RELOAD_REQUEST__INIT;
	const char *run_dir = NULL;
	const struct ctl_option options[] = {{"run-dir", 0, CTL_STRING, &run_dir, NULL}};
	Warpdrive__V1__ReloadResponse *r;
	struct ctl_control *agent;
	enum ctl_exit code;
	int first;

	if (!ctl_args_parse(self, argc, argv, options, 1, &first, &code))
		return code;
	if (first < argc)
		return ctl_usage(self, "takes no argument, not '%.20s'", argv[first]);
	agent = ctl_ask_agent(self, ctl_run_dir(run_dir));
	r = agent ? ctl_ask(self, agent, "Reload", &q.base, &warpdrive__v1__reload_response__descriptor) : NULL;
	ctl_control_free(agent);
	if (!r)
		return CTL_FAILED;
	for (size_t i = 0; i < r->n_applied; i++)
		printf("%s: applied\n", r->applied[i]);
	for (size_t i = 0; i < r->n_not_applied; i++)
		printf("%s: needs a restart of the agent\n", r->not_applied[i]);
	if (r->n_applied + r->n_not_applied == 0)
		puts("no setting has changed");
	code = r->n_not_applied ? CTL_PARTLY : CTL_DONE;
	warpdrive__v1__reload_response__free_unpacked(r, NULL);
	return code;
}
