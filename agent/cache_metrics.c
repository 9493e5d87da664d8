/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/cache_metrics.h"

#include <inttypes.h>

#include "agent/metrics.h"

static void print_store(struct store *store, FILE *out)
{
	struct store_stats s;

	store_get_stats(store, &s);
	metrics_print_one(out, "warpdrive_cache_used_bytes", "gauge", "Bytes charged to the cache", s.used_bytes);
	metrics_print_one(out, "warpdrive_cache_admitted_bytes", "gauge",
		"Bytes admitted to the cache and still on their way", s.admitted_bytes);
	metrics_print_one(out, "warpdrive_cache_limit_bytes", "gauge", "Most bytes the cache may hold",
		s.limit_bytes);
	metrics_print_one(out, "warpdrive_cache_free_bytes", "gauge",
		"Free bytes of the cache's file system", s.free_bytes);
	metrics_print_one(out, "warpdrive_cache_objects", "gauge", "Objects in the cache", s.objects);
	metrics_print_one(out, "warpdrive_cache_evicted_objects_total", "counter", "Objects evicted",
		s.evicted_objects);
	metrics_print_one(out, "warpdrive_cache_evicted_bytes_total", "counter", "Bytes evicted",
		s.evicted_bytes);
	metrics_print_one(out, "warpdrive_cache_refused_admissions_total", "counter",
		"Times that something found no room in the cache", s.refused_admissions);
	metrics_print_one(out, "warpdrive_cache_refused_bytes_total", "counter",
		"Bytes that found no room in the cache", s.refused_bytes);
	metrics_print_one(out, "warpdrive_cache_pinned_bytes", "gauge", "Sizes of the pinned objects", s.pinned_bytes);
	metrics_print_one(out, "warpdrive_cache_refused_pins_total", "counter",
		"Times that an object was not pinned because pinned ones take too much of the cache", s.refused_pins);
	metrics_print_one(out, "warpdrive_cache_io_errors_total", "counter", "Errors of the cache disk",
		s.io_errors);
	metrics_print_one(out, "warpdrive_cache_checked_blocks_total", "counter",
		"Cached blocks checked against their hashes", s.checked_blocks);
	metrics_print_one(out, "warpdrive_cache_corrupt_blocks_total", "counter",
		"Cached blocks that did not match their hashes; each is fetched anew", s.corrupt_blocks);
	metrics_print_one(out, "warpdrive_cache_damaged_objects_total", "counter",
		"Cached objects whose file or map was missing, cut or torn; what is lost is fetched anew",
		s.damaged_objects);
	metrics_print_one(out, "warpdrive_cache_is_broken", "gauge",
		"1 while the cache disk gives errors and nothing is admitted", s.is_broken);
}

static void print_evictions(const struct store_stats *s, FILE *out, const char *name, const char *help,
	bool are_bytes)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s counter\n", name, help, name);
	for (int policy = 0; policy < EVICT_FIXED; policy++) {
		for (int from = 0; from < EVICT_FROMS; from++) {
			const struct store_evictions *e = &s->evictions[policy][from];

			fprintf(out, "%s{policy=\"%s\",reason=\"%s\"} %" PRIu64 "\n", name,
				evict_policy_name((enum evict_policy)policy),
				evict_from_name((enum evict_from)from), are_bytes ? e->bytes : e->objects);
		}
	}
}

/* One figure for each fixed policy. */
static void print_policies(FILE *out, const char *name, const char *type, const char *help,
	const uint64_t values[EVICT_FIXED])
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
	for (int i = 0; i < EVICT_FIXED; i++)
		fprintf(out, "%s{policy=\"%s\"} %" PRIu64 "\n", name, evict_policy_name((enum evict_policy)i),
			values[i]);
}

static void print_policy(struct store *store, FILE *out)
{
	struct store_stats s;
	uint64_t is_ruler[EVICT_FIXED] = {0};

	store_get_stats(store, &s);
	is_ruler[s.ruler] = 1;
	print_evictions(&s, out, "warpdrive_cache_evictions_total",
		"Objects evicted for room, by the policy in force and why it was this one: oldest, newest, a "
		"newcomer, or stale (not used for longer than what is used again)",
		false);
	print_evictions(&s, out, "warpdrive_cache_eviction_bytes_total", "The same in bytes", true);
	print_policies(out, "warpdrive_cache_policy_in_force", "gauge", "1 for the eviction policy that rules", is_ruler);
	print_policies(out, "warpdrive_cache_shadow_hit_bytes_total", "counter",
		"Sizes of the objects that each policy would have had in the cache when they were opened, of those in the "
		"sample (eviction-policy auto)",
		s.shadows.hit_bytes);
	metrics_print_one(out, "warpdrive_cache_shadow_bytes_total", "counter",
		"Sizes of all objects in the sample when they were opened", s.shadows.bytes);
	metrics_print_one(out, "warpdrive_cache_shadow_entries", "gauge", "Objects that the sample remembers",
		s.shadows.entries);
	metrics_print_one(out, "warpdrive_cache_policy_switches_total", "counter",
		"Times that another policy took over", s.shadows.switches);
}

static void print_meta(struct meta *m, FILE *out)
{
	struct meta_stats meta;

	meta_get_stats(m, &meta);
	metrics_print_one(out, "warpdrive_meta_commits_total", "counter", "Commits of the metadata", meta.commits);
	metrics_print_one(out, "warpdrive_meta_damaged_records_total", "counter",
		"Metadata records whose checksum was wrong; treated as absent", meta.damaged);
	metrics_print_one(out, "warpdrive_meta_failed_commits_total", "counter",
		"Commits of the metadata that failed; each is tried again", meta.failed_commits);
	metrics_print_one(out, "warpdrive_meta_dropped_changes_total", "counter",
		"Changes of the metadata lost because its disk failed for too long", meta.dropped);
	metrics_print_one(out, "warpdrive_meta_is_failing", "gauge",
		"1 while the metadata cannot be written and is kept in memory", meta.is_failing);
	metrics_print_one(out, "warpdrive_meta_is_memory_only", "gauge",
		"1 while the metadata on disk cannot even be read", meta.is_memory_only);
}

void cache_print_metrics(struct store *store, struct meta *meta, FILE *out)
{
	print_store(store, out);
	print_policy(store, out);
	print_meta(meta, out);
}
