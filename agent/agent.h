/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_AGENT_H
#define WD_AGENT_AGENT_H
/*
 * The agent as a whole: what its parts share.
 *
 * Lock order, outermost first: agent->lock, mount->lock; warms->lock, warm->lock; holder->lock, conn->lock;
 * ahead->lock, jobs->lock; traces->lock, a ring's lock; hub, tree, dataset, fetcher, fetch, pool,
 * store and object locks are leaves of their modules: none of them is held when a lock of another
 * module is taken.
 */
#include "agent/fetch.h"
#include "agent/hub.h"
#include "agent/jobs.h"
#include "agent/keeper_link.h"
#include "agent/meta.h"
#include "agent/origin_policy.h"
#include "agent/settings.h"
#include "agent/store.h"
#include "agent/tree.h"
#include "common/lock.h"

struct ahead;
struct mount;
struct open_pool;
struct holder;
struct http;
struct server_program;
struct refresher;
struct pins;
struct warms;
struct control;
struct traces;

#define AGENT_RELOADED 3

struct agent {
	const struct settings *settings;
	struct origin_policy *policy;
	struct pins *pins;
	struct meta *meta;
	struct store *store;
	struct tree *tree;
	struct fetcher *fetcher;
	struct ahead *ahead;
	struct open_pool *pool;
	struct jobs *jobs;
	struct jobs *waiters; /* calls that wait for news of a task */
	struct jobs *control; /* status and checks: answered while all of jobs waits for an origin */
	struct hub *hub;
	struct keeper_link *keeper;
	struct holder *holder;
	struct http *http;
	struct refresher *refresher;
	struct warms *warms;
	struct traces *traces;
	struct control *api; /* gRPC */
	struct server_program *server_program; /* NULL: none */
	bool exits_when_idle;
	int run_lock; /* held for as long as this agent has the run directory */
	bool is_closing; /* the hub has ended; main thread */
	int (*reread)(void *arg, struct settings *ret_settings, struct wd_err *err); /* as in agent_options */
	void *reread_arg;
	int64_t reloaded[AGENT_RELOADED]; /* reload.c's: what is in force of what may change */
	struct wd_mutex lock;
	struct wd_cond reload_done;
	bool is_reloading WD_GUARDED_BY(lock);
	struct mount *mounts WD_GUARDED_BY(lock);
	bool had_mount WD_GUARDED_BY(lock);
};

struct agent_options {
	const struct settings *settings;
	int ready_fd; /* one byte is written when the agent listens; -1: none */
	bool exits_when_idle; /* when the last mount is gone */
	/* Reads the settings once more, as the caller did; from any thread. NULL: they cannot be. What it returns is freed
	 * with wd_config_free(), also after an error. */
	int (*reread)(void *arg, struct settings *ret_settings, struct wd_err *err);
	void *reread_arg;
	bool is_standby; /* waits for the agent that has the directories to end; see standby.h */
};

/* Ends an agent that ends when idle, if it is: had a mount, and has and holds none. Any thread. */
void agent_stop_if_idle(struct agent *a);

/* Runs until SIGTERM or SIGINT; SIGHUP reads the settings again. The caller has blocked them in every thread. 0 or
 * -errno. */
int agent_run(const struct agent_options *options, struct wd_err *err);

#endif
