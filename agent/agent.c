/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent put together, and its threads:
 *
 *	name       count               owns                       woken by            stops
 *	main (hub) 1                   sockets, mounts' events    epoll               SIGTERM, idle
 *	signals    1                   SIGTERM, SIGINT, SIGHUP    sigwait             pthread_cancel
 *	workers    metadata-workers    questions to origins       queue condition     jobs_stop
 *	control    up to 8            status, checks             queue condition     jobs_stop
 *	ahead      up to 4            files before they are opened  queue condition  ahead_stop
 *	waiters    up to 64           calls that wait for news    queue condition     jobs_stop
 *	warm       one per task       the walk of a warm task     condition           warms_stop
 *	gRPC       18 and core's      control.sock                core's queue        control_stop
 *	transfers  transfer-threads    curl multi handles         curl_multi_poll     origins_stop
 *	file I/O   few                 reads of file: origins     queue condition     origins_stop
 *	evictor    1                   admissions, evictions      queue condition     store_close
 *	checker    1                   checks of cache blocks     condition, its pace  store_close
 *	meta       1                   LMDB write transactions    condition, batch age meta_close
 *	refresher  1                   when credentials end       condition, a time   refresher_stop
 *	http       1                   /metrics                   epoll               http_stop
 *	page       1                   counters over time, the page  condition         http_stop
 *	access log 1, if there is one  its file                  condition           traces_free
 */
#include "agent/agent.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/ahead.h"
#include "agent/check.h"
#include "agent/control.h"
#include "agent/credentials.h"
#include "agent/holder.h"
#include "agent/http.h"
#include "agent/mount.h"
#include "agent/pins.h"
#include "agent/reload.h"
#include "agent/renew.h"
#include "agent/server_program.h"
#include "agent/standby.h"
#include "agent/status.h"
#include "agent/trace.h"
#include "agent/warm.h"
#include "common/hold.h"
#include "common/log.h"
#include "common/options.h"

#define JOB_QUEUE 8192
#define CONTROL_THREADS 8
#define CONTROL_QUEUE 2048
#define WAITERS 64
#define WAITERS_QUEUE 1024

static bool on_hello(struct agent *a, struct conn *c, struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	uint32_t theirs = wd_rd_u32(&r), role = wd_rd_u32(&r), version = wd_proto_common(theirs);
	char build[64];
	struct wd_msg *reply;

	if (m->type != WD_MSG_HELLO || !wd_rd_str(&r, build, sizeof(build)) || !wd_rd_done(&r))
		return false;
	if (version == 0) {
		char text[128];

		snprintf(text, sizeof(text), "this agent speaks protocol %d, not %u: use matching releases",
			WD_PROTO_VERSION, theirs);
		conn_reply_error(c, WD_MSG_HELLO, m->id, -EPROTO, text);
		return true;
	}
	conn_set_role(c, (int)role);
	conn_set_version(c, version);
	reply = hub_scratch();
	wd_msg_start_reply(reply, WD_MSG_HELLO, m->id, 0);
	wd_put_u32(reply, version);
	wd_put_str(reply, WD_VERSION);
	conn_send(c, reply);
	if (role == WD_ROLE_KEEPER)
		keeper_link_attach(a->keeper, c);
	if (role == WD_ROLE_KEEPER && version >= 2)
		server_program_offer(a->server_program, a->keeper);
	return true;
}

static bool on_message(void *arg, struct conn *c, struct wd_msg *m)
{
	struct agent *a = arg;
	struct mount *mnt = conn_user(c);
	int role = conn_role(c);

	if (mnt)
		return !mount_is_served_by(mnt, c) || serve_message(mnt, c, m);
	if (role == 0)
		return on_hello(a, c, m);
	if (role == WD_ROLE_KEEPER) {
		if (m->type == WD_MSG_HOLDINGS) {
			holder_begin(a->holder, c);
			return true;
		}
		if (wd_hold_takes(m->type))
			return holder_message(a->holder, c, m);
		if (m->type & WD_MSG_REPLY)
			return keeper_link_reply(a->keeper, m);
		if (m->type == WD_MSG_MOUNT_ADD)
			return mount_on_add(a, c, m);
		if (m->type == WD_MSG_MOUNT_SERVER)
			return mount_on_server(a, c, m);
		if (m->type == WD_MSG_KEEPER_STATS)
			return keeper_link_stats(a->keeper, m);
		if (m->type == WD_MSG_MOUNT_DEL)
			return mount_on_del(a, c, m);
		if (m->type == WD_MSG_MOUNT_RENEW)
			return renew_on_request(a, c, m);
	}
	if (m->type == WD_MSG_STATUS) {
		status_on_request(a, c, m->id);
		return true;
	}
	if (m->type == WD_MSG_KEEPER_STATUS) {
		status_on_keeper_request(a, c, m->id);
		return true;
	}
	if (m->type == WD_MSG_CONTROL)
		return control_on_message(a, NULL, c, m);
	if (m->type == WD_MSG_CHECK)
		return check_on_request(a, c, m);
	conn_reply_error(c, m->type, m->id, -ENOSYS, "unknown message");
	return true;
}

static void on_close(void *arg, struct conn *c)
{
	struct agent *a = arg;

	if (conn_user(c)) {
		mount_on_server_gone(conn_user(c), c);
		return;
	}
	if (conn_role(c) != WD_ROLE_KEEPER)
		return;
	if (a->is_closing)
		return;
	keeper_link_detach(a->keeper, c);
	holder_lost(a->holder, c);
	wd_lock(&a->lock);
	a->had_mount = true; /* a keeper came and went */
	wd_unlock(&a->lock);
	agent_stop_if_idle(a);
}

static void on_timer(void *arg)
{
	struct agent *a = arg;

	holder_tick(a->holder);
}

void agent_stop_if_idle(struct agent *a)
{
	bool is_idle;

	wd_lock(&a->lock);
	is_idle = !a->mounts && a->had_mount;
	wd_unlock(&a->lock);
	if (is_idle && a->exits_when_idle && holder_count(a->holder) == 0)
		hub_stop(a->hub);
}

static void reload_for_signal(struct agent *a)
{
	struct wd_err err = WD_ERR_INIT;

	if (reload(a, NULL, NULL, &err) < 0)
		wd_error("SIGHUP: the settings stay as they are: %s", err.msg);
}

static void *wait_for_signal(void *arg)
{
	struct agent *a = arg;
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	while (sigwait(&set, &sig) == 0) {
		int old;

		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old); /* not under a lock */
		if (sig == SIGHUP) {
			reload_for_signal(a);
		} else {
			wd_info("ending: signal %d", sig);
			holder_leave(a->holder);
		}
		pthread_setcancelstate(old, NULL);
	}
	return NULL;
}

/* A standby is alive and, as far as others are concerned, ready: it says so as soon as it may. Its predecessor may
 * have the port still, and answers for it. */
static int open_http(struct agent *a, bool is_standby, struct wd_err *err)
{
	const char *address = a->settings->http_listen;
	int rc;

	if (a->http || !address || !address[0])
		return 0;
	rc = http_start(a, address, &a->http, err);
	if (!is_standby || rc != -EADDRINUSE)
		return rc;
	*err = WD_ERR_INIT;
	return 0;
}

/* One agent per run directory and per cache directory. */
static int open_meta(struct agent *a, bool is_standby, struct wd_err *err)
{
	const struct settings *s = a->settings;
	struct standby_locks locks = {-1, -1};
	int rc = is_standby ? open_http(a, true, err) : 0;

	if (rc == 0)
		rc = is_standby ? standby_wait(s, &locks, err) : standby_lock(s, &locks, err);
	a->run_lock = locks.run_fd;
	return rc < 0 ? rc : meta_open_with(s->cache_dir, s->run_dir, locks.cache_fd, &a->meta, err);
}

static int agent_open(struct agent *a, bool is_standby, struct wd_err *err)
{
	const struct settings *s = a->settings;
	struct store_config store = {.dir = s->cache_dir,
		.limit_bytes = (uint64_t)s->cache_size,
		.free_floor_bytes = (uint64_t)s->free_space_floor,
		.reclaim = open_reclaim,
		.reclaim_arg = a,
		.note_uses = open_note_uses,
		.note_uses_arg = a,
		.damaged = repair_damaged,
		.damaged_arg = a,
		.scrub_bytes_per_s = (uint64_t)s->scrub_rate,
		.scrub_interval_ms = s->scrub_interval};
	struct hub_handlers handlers = {on_message, on_close, on_timer, a};
	enum prefetch prefetch;
	char path[4096];
	int rc;

	if (!prefetch_parse(s->prefetch, &prefetch))
		return wd_err_set(err, EINVAL, "setting 'prefetch': '%.60s' is none of auto, file, off", s->prefetch);
	if (mkdir(s->cache_dir, 0700) < 0 && errno != EEXIST)
		return wd_err_sys(err, errno, "create cache directory '%s'", s->cache_dir);
	if (mkdir(s->run_dir, 0755) < 0 && errno != EEXIST)
		return wd_err_sys(err, errno, "create run directory '%s'", s->run_dir);
	origins_set_stall_timeout(s->stall_timeout);
	flows_set_limit((uint64_t)s->bandwidth_limit);
	rc = origin_policy_new(s, &a->policy, err);
	if (rc == 0)
		rc = credentials_check_settings(s, err);
	if (rc == 0)
		rc = pins_new(s->pinned, &a->pins, err);
	if (rc == 0 && evict_policy_parse(s->eviction_policy, &store.policy) < 0)
		rc = wd_err_set(err, EINVAL, "eviction-policy: '%.64s' is not auto, lru, s3fifo or uniform",
			s->eviction_policy);
	if (rc < 0)
		return rc;
	store.pin_tags[STORE_PIN_SETTING] = pins_tag(a->pins, STORE_PIN_SETTING);
	origins_set_policy(a->policy);
	rc = traces_new(a, &a->traces, err);
	if (rc < 0)
		return rc;
	rc = server_program_load(s, &a->server_program, err);
	if (rc < 0)
		return rc;
	rc = origins_start((unsigned)s->transfer_threads, (unsigned)s->max_transfers, err);
	if (rc == 0)
		rc = open_meta(a, is_standby, err);
	if (rc == 0)
		rc = pins_open(a->pins, s->cache_dir, err); /* the agent before has no more to write */
	store.pin_tags[STORE_PIN_ASKED] = pins_tag(a->pins, STORE_PIN_ASKED);
	if (rc == 0)
		rc = store_open(&store, a->meta, &a->store, err);
	if (rc < 0)
		return rc;
	a->tree = tree_new(a->meta, s);
	a->fetcher = fetcher_new(a->store, a->meta, s);
	a->ahead = ahead_new(a);
	a->pool = open_pool_new(s);
	a->jobs = jobs_new((unsigned)s->metadata_workers, JOB_QUEUE);
	a->control = jobs_new(CONTROL_THREADS, CONTROL_QUEUE);
	a->waiters = jobs_new(WAITERS, WAITERS_QUEUE);
	a->warms = warms_new(a);
	a->keeper = keeper_link_new();
	a->holder = holder_new(a);
	a->refresher = refresher_new(a);
	if (!a->tree || !a->fetcher || !a->ahead || !a->pool || !a->jobs || !a->control || !a->waiters || !a->warms || !a->keeper ||
		!a->holder || !a->refresher)
		return wd_err_set(err, ENOMEM, "out of memory");
	rc = open_http(a, false, err);
	if (rc < 0)
		return rc;
	snprintf(path, sizeof(path), "%s/agent.sock", s->run_dir);
	rc = hub_new(path, s->socket_for_group, &handlers, &a->hub, err);
	if (rc == 0)
		rc = control_start(a, &a->api, err);
	if (rc == 0)
		http_begin(a->http);
	return rc;
}

static void agent_close(struct agent *a)
{
	http_stop(a->http);
	traces_stop(a->traces); /* calls wait for them */
	control_stop(a->api);
	a->is_closing = true;
	if (a->hub) {
		mounts_drop_all(a);
		keeper_link_stop(a->keeper); /* jobs that are under way may still ask it */
	}
	refresher_stop(a->refresher); /* before the jobs that it makes */
	origins_interrupt();
	ahead_stop(a->ahead);
	warms_stop(a->warms);
	jobs_stop(a->waiters);
	jobs_stop(a->jobs);
	jobs_stop(a->control);
	if (a->hub)
		mounts_drop_all(a); /* one that a job was adding */
	if (a->fetcher)
		fetcher_stop(a->fetcher);
	origins_stop();
	hub_free(a->hub);
	warms_free(a->warms);
	keeper_link_free(a->keeper);
	holder_free(a->holder);
	refresher_free(a->refresher);
	store_close(a->store);
	ahead_free(a->ahead);
	open_pool_free(a->pool);
	fetcher_free(a->fetcher);
	tree_free(a->tree);
	meta_close(a->meta);
	server_program_free(a->server_program);
	if (a->run_lock >= 0)
		close(a->run_lock); /* now the next agent may begin */
	origins_set_policy(NULL);
	origin_policy_free(a->policy);
	pins_free(a->pins);
	traces_free(a->traces);
}

int agent_run(const struct agent_options *options, struct wd_err *err)
{
	struct agent a = {
		.settings = options->settings, .exits_when_idle = options->exits_when_idle, .run_lock = -1};
	pthread_t signals;
	int rc;

	a.reread = options->reread;
	a.reread_arg = options->reread_arg;
	wd_mutex_init(&a.lock);
	wd_cond_init(&a.reload_done);
	reload_begin(&a);
	rc = agent_open(&a, options->is_standby, err);
	if (rc == 0) {
		rc = -pthread_create(&signals, NULL, wait_for_signal, &a);
		if (rc < 0)
			wd_err_sys(err, -rc, "start a thread");
	}
	if (rc == 0) {
		wd_info("warpdrive-agent " WD_VERSION " ready on '%s', cache in '%s'",
			options->settings->run_dir, options->settings->cache_dir);
		wd_tell_ready(options->ready_fd);
		hub_run(a.hub);
		pthread_cancel(signals);
		pthread_join(signals, NULL);
	}
	agent_close(&a);
	wd_cond_done(&a.reload_done);
	wd_mutex_done(&a.lock);
	return rc;
}
