/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/cache_metrics.h"

#include "agent/metrics.h"

static void one(FILE *out, enum family family, uint64_t value)
{
	wd_family_one(out, &families[family], value);
}

static void print_store(const struct store_stats *s, FILE *out)
{
	one(out, FAMILY_USED, s->used_bytes);
	one(out, FAMILY_ADMITTED, s->admitted_bytes);
	one(out, FAMILY_LIMIT, s->limit_bytes);
	one(out, FAMILY_FREE, s->free_bytes);
	one(out, FAMILY_OBJECTS, s->objects);
	one(out, FAMILY_EVICTED, s->evicted_objects);
	one(out, FAMILY_EVICTED_BYTES, s->evicted_bytes);
	one(out, FAMILY_REFUSED, s->refused_admissions);
	one(out, FAMILY_REFUSED_BYTES, s->refused_bytes);
	one(out, FAMILY_PINNED, s->pinned_bytes);
	one(out, FAMILY_REFUSED_PINS, s->refused_pins);
	one(out, FAMILY_IO_ERRORS, s->io_errors);
	one(out, FAMILY_CHECKED, s->checked_blocks);
	one(out, FAMILY_CORRUPT, s->corrupt_blocks);
	one(out, FAMILY_DAMAGED, s->damaged_objects);
	one(out, FAMILY_BROKEN, s->is_broken);
}

static void print_evictions(const struct store_stats *s, FILE *out, enum family family)
{
	wd_family_begin(out, &families[family]);
	for (int policy = 0; policy < EVICT_FIXED; policy++) {
		for (int from = 0; from < EVICT_FROMS; from++) {
			const struct store_evictions *e = &s->evictions[policy][from];
			const char *values[] = {evict_policy_name((enum evict_policy)policy),
				evict_from_name((enum evict_from)from)};

			wd_sample(out, &families[family], values,
				family == FAMILY_EVICTION_BYTES ? e->bytes : e->objects);
		}
	}
}

/* One figure for each fixed policy. */
static void print_policies(FILE *out, enum family family, const uint64_t values[EVICT_FIXED])
{
	wd_family_begin(out, &families[family]);
	for (int i = 0; i < EVICT_FIXED; i++)
		wd_sample(out, &families[family], (const char *[]){evict_policy_name((enum evict_policy)i)}, values[i]);
}

static void print_policy(const struct store_stats *s, FILE *out)
{
	uint64_t is_ruler[EVICT_FIXED] = {0};

	is_ruler[s->ruler] = 1;
	print_evictions(s, out, FAMILY_EVICTIONS);
	print_evictions(s, out, FAMILY_EVICTION_BYTES);
	print_policies(out, FAMILY_POLICY, is_ruler);
	print_policies(out, FAMILY_SHADOW_HITS, s->shadows.hit_bytes);
	one(out, FAMILY_SHADOW_BYTES, s->shadows.bytes);
	one(out, FAMILY_SHADOW_ENTRIES, s->shadows.entries);
	one(out, FAMILY_POLICY_SWITCHES, s->shadows.switches);
}

static void print_meta(struct meta *m, FILE *out)
{
	struct meta_stats meta;

	meta_get_stats(m, &meta);
	one(out, FAMILY_META_COMMITS, meta.commits);
	one(out, FAMILY_META_DAMAGED, meta.damaged);
	one(out, FAMILY_META_FAILED, meta.failed_commits);
	one(out, FAMILY_META_DROPPED, meta.dropped);
	one(out, FAMILY_META_FAILING, meta.is_failing);
	one(out, FAMILY_META_MEMORY, meta.is_memory_only);
}

void cache_print_metrics(struct store *store, struct meta *meta, FILE *out)
{
	struct store_stats s;

	store_get_stats(store, &s);
	print_store(&s, out);
	print_policy(&s, out);
	print_meta(meta, out);
}
