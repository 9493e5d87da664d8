/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control API's figures: of the node, as counters from which the caller makes rates, and of each mount. They are read
 * from where they are kept (agent/metrics.h and the shared tables), so asking costs no more than a scrape.
 */
#include <poll.h>
#include <stdlib.h>

#include "agent/condition.h"
#include "agent/control_internal.h"
#include "agent/metrics.h"
#include "agent/mount_metrics.h"
#include "common/cleanup.h"
#include "common/lock.h"

#define INTERVAL_MS 1000
#define INTERVAL_MIN_MS 100
#define INTERVAL_MAX_MS 3600000
#define MOUNTS_MAX 1024

typedef Warpdrive__V1__NodeStats NodeStats;
typedef Warpdrive__V1__MountInfo MountInfo;

static uint64_t metric(enum metric m)
{
	return atomic_load_explicit(&metric_values[m], memory_order_relaxed);
}

static uint64_t sum(const _Atomic uint64_t *values, int n)
{
	uint64_t total = 0;

	for (int i = 0; i < n; i++)
		total += atomic_load(&values[i]);
	return total;
}

static void fill_readers(struct agent *a, NodeStats *out)
{
	struct fetcher_stats f;

	fetcher_get_stats(a->fetcher, &f);
	out->opens_passthrough = metric(METRIC_OPENS_PASSTHROUGH);
	out->opens_cached = metric(METRIC_OPENS_CACHED);
	out->opens_cold = metric(METRIC_OPENS_COLD);
	out->hits = metric(METRIC_HITS);
	out->misses = metric(METRIC_MISSES);
	out->local_bytes = metric(METRIC_READ_LOCAL);
	out->peer_bytes = metric(METRIC_READ_PEER);
	out->server_bytes = metric(METRIC_SERVER_READ_BYTES);
	out->waits = wd_histogram_count(&metric_read_wait);
	out->wait_us = atomic_load(&metric_read_wait.sum_us);
	out->waiting = f.waits;
}

static void fill_origins(NodeStats *out)
{
	out->origin_bytes = metric(METRIC_READ_ORIGIN);
	out->origin_requests = sum(origin_stats.requests, ORIGIN_OP_COUNT);
	out->origin_errors = sum(origin_stats.errors, ORIGIN_OP_COUNT);
	out->origin_retries = atomic_load(&origin_stats.retries);
	out->ahead_bytes = metric(METRIC_PREFETCH_BYTES) + metric(METRIC_AHEAD_DIRECTORY);
	out->ahead_used_bytes = metric(METRIC_PREFETCH_USED);
	out->warm_bytes = metric(METRIC_AHEAD_WARM);
}

static void fill_cache(struct agent *a, NodeStats *out)
{
	struct store_stats s;

	store_get_stats(a->store, &s);
	out->cache_used = s.used_bytes + s.admitted_bytes;
	out->cache_limit = s.limit_bytes;
	out->cache_objects = s.objects;
	out->evicted_bytes = s.evicted_bytes;
	out->is_draining = s.is_draining;
	out->is_broken = s.is_broken;
}

static void fill(struct agent *a, NodeStats *out)
{
	mounts_counts_take(a);
	out->time_us = (uint64_t)wd_now_ns() / 1000;
	fill_readers(a, out);
	fill_origins(out);
	fill_cache(a, out);
	wd_lock(&a->lock);
	for (const struct mount *mnt = a->mounts; mnt; mnt = mnt->next)
		out->mounts++;
	wd_unlock(&a->lock);
}

enum rpc_code control_get_stats(struct rpc_call *call, const void *request, void *response)
{
	fill(control_agent(call), response);
	return RPC_OK;
}

/* False: the caller has gone, or its time is up. */
static bool pause_ms(struct rpc_call *call, uint32_t ms)
{
	struct pollfd gone = {.fd = call->cancel_fd, .events = POLLIN};

	return poll(&gone, 1, (int)ms) == 0 && wd_now_ns() < call->deadline_ns;
}

enum rpc_code control_stats(struct rpc_call *call, const void *request, void *response)
{
	const Warpdrive__V1__StatsRequest *in = request;
	uint32_t ms = in->interval_ms ? in->interval_ms : INTERVAL_MS, n = 0;

	if (ms < INTERVAL_MIN_MS || ms > INTERVAL_MAX_MS)
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "interval_ms: %u is not from %d to %d", ms, INTERVAL_MIN_MS,
			INTERVAL_MAX_MS);
	for (;;) {
		NodeStats out = WARPDRIVE__V1__NODE_STATS__INIT;

		fill(control_agent(call), &out);
		if (rpc_send(call, &out.base) < 0)
			return rpc_fail(call, RPC_CANCELLED, "the caller has gone");
		if (in->count && ++n == in->count)
			return RPC_OK;
		if (!pause_ms(call, ms))
			return RPC_CANCELLED;
	}
}

/* ---- mounts ---- */

static bool is_ill(struct mount *mnt)
{
	struct condition c;

	condition_look(mnt, &c);
	for (int part = 0; part < CONDITION_PARTS_COUNT; part++)
		if (c.text[part][0])
			return true;
	return false;
}

static MountInfo *mount_info(struct rpc_call *call, struct mount *mnt)
{
	MountInfo *out = arena_alloc(call->arena, sizeof(*out));
	char pod[MOUNT_POD_MAX];

	if (!out)
		return NULL;
	warpdrive__v1__mount_info__init(out);
	mount_pod_of(mnt->target, pod);
	out->id = mnt->id;
	out->target = control_text(call, mnt->target);
	out->url = control_text(call, mnt->display);
	out->pod = control_text(call, pod);
	if (!out->target || !out->url || !out->pod)
		return NULL;
	out->open_files = open_count(mnt);
	out->opens = atomic_load(&mnt->opened) + wd_mm_counted(&mnt->mm, WD_MM_PASSTHROUGH_OPENS) +
		wd_mm_counted(&mnt->mm, WD_MM_CACHED_OPENS);
	out->local_bytes = atomic_load(&mnt->passthrough_bytes) + wd_mm_counted(&mnt->mm, WD_MM_PASSTHROUGH_BYTES);
	out->server_bytes = wd_mm_counted(&mnt->mm, WD_MM_READ_BYTES);
	out->missed_bytes = atomic_load(&mnt->missed_bytes);
	out->waits = atomic_load(&mnt->flow->waits);
	out->wait_us = atomic_load(&mnt->flow->wait_us);
	out->sequential = atomic_load(&mnt->flow->patterns[FLOW_SEQUENTIAL]);
	out->strided = atomic_load(&mnt->flow->patterns[FLOW_STRIDED]);
	out->tail = atomic_load(&mnt->flow->patterns[FLOW_TAIL]);
	out->random = atomic_load(&mnt->flow->patterns[FLOW_RANDOM]);
	out->is_ill = is_ill(mnt);
	return out;
}

enum rpc_code control_list_mounts(struct rpc_call *call, const void *request, void *response)
{
	Warpdrive__V1__ListMountsResponse *out = response;
	wd_autofree struct mount **mounts = calloc(MOUNTS_MAX, sizeof(*mounts));
	struct agent *a = control_agent(call);
	unsigned n = 0;

	out->mounts = arena_alloc(call->arena, MOUNTS_MAX * sizeof(*out->mounts));
	if (!mounts || !out->mounts)
		return control_no_memory(call);
	wd_lock(&a->lock);
	for (struct mount *mnt = a->mounts; mnt && n < MOUNTS_MAX; mnt = mnt->next)
		mounts[n++] = mount_ref(mnt);
	wd_unlock(&a->lock);
	out->time_us = (uint64_t)wd_now_ns() / 1000;
	for (unsigned i = 0; i < n; i++) {
		MountInfo *info = mount_info(call, mounts[i]);

		if (info)
			out->mounts[out->n_mounts++] = info;
		mount_unref(mounts[i]);
	}
	return out->n_mounts == n ? RPC_OK : control_no_memory(call);
}
