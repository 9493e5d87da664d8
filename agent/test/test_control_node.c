/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of the control API about the node: figures, mounts, datasets, the size of the cache, draining, settings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "agent/test/control_calls.h"

#define KIB 1024ULL
#define MIB (1024 * KIB)
#define FILES 20
#define SIZE (100 * KIB)
#define ROOT 1

typedef Warpdrive__V1__NodeStats Stats;
typedef Warpdrive__V1__ListMountsResponse Mounts;
typedef Warpdrive__V1__ListDatasetsResponse Datasets;
typedef Warpdrive__V1__SetCacheRequest SetCache;
typedef Warpdrive__V1__CacheState State;
typedef Warpdrive__V1__ReloadResponse Reloaded;

static struct rig rig;
static struct rig_mount mnt;
static struct wd_msg msg;
static uint64_t next_mount = 1;
static char changed_settings[256]; /* KEY=VALUE lines that a reload finds */

static int begin(void **state)
{
	rig_start(&rig, "small-object-size=256KiB", "metadata-ttl=1h", "prefetch=off", NULL);
	for (int i = 0; i < FILES; i++) {
		char path[64];

		snprintf(path, sizeof(path), "set/f%02d", i);
		rig_file(&rig, path, SIZE);
	}
	rig_file(&rig, "set/large", MIB);
	rig_mount(&rig, &mnt, next_mount++, "set", "");
	return 0;
}

static int end(void **state)
{
	rig_umount(&mnt);
	rig_stop(&rig);
	return 0;
}

static void read_file(unsigned i)
{
	char name[16], path[64];

	snprintf(name, sizeof(name), "f%02u", i);
	snprintf(path, sizeof(path), "set/%s", name);
	assert_int_equal(rig_read(&mnt, &msg, ROOT, name, path), 0);
}

static void read_all(void)
{
	uint64_t node;

	for (unsigned i = 0; i < FILES; i++)
		read_file(i);
	assert_int_equal(rig_lookup(&mnt, &msg, ROOT, "large", &node), 0); /* behind the last RELEASE */
}

static void *ask(const char *method, const ProtobufCMessage *request, const ProtobufCMessageDescriptor *type)
{
	assert_int_equal(control_call(&rig, NULL, method, request), 0);
	return control_answer(type);
}

static Stats *stats(void)
{
	Warpdrive__V1__GetStatsRequest request = WARPDRIVE__V1__GET_STATS_REQUEST__INIT;

	return ask("GetStats", &request.base, &warpdrive__v1__node_stats__descriptor);
}

static void stats_free(Stats *s)
{
	warpdrive__v1__node_stats__free_unpacked(s, NULL);
}

static Mounts *mounts(void)
{
	Warpdrive__V1__ListMountsRequest request = WARPDRIVE__V1__LIST_MOUNTS_REQUEST__INIT;

	return ask("ListMounts", &request.base, &warpdrive__v1__list_mounts_response__descriptor);
}

static Datasets *datasets(void)
{
	Warpdrive__V1__ListDatasetsRequest request = WARPDRIVE__V1__LIST_DATASETS_REQUEST__INIT;

	return ask("ListDatasets", &request.base, &warpdrive__v1__list_datasets_response__descriptor);
}

/* What is in the cache afterwards. */
static uint64_t set_cache(uint64_t limit, bool is_default, Warpdrive__V1__Drain drain)
{
	SetCache request = WARPDRIVE__V1__SET_CACHE_REQUEST__INIT;
	uint64_t used;
	State *s;

	request.limit = limit;
	request.is_default = is_default;
	request.drain = drain;
	s = ask("SetCache", &request.base, &warpdrive__v1__cache_state__descriptor);
	if (limit)
		assert_int_equal(s->limit, limit);
	used = s->used;
	warpdrive__v1__cache_state__free_unpacked(s, NULL);
	return used;
}

/* ---- figures ---- */

static void counters_grow_with_what_is_read(void **state)
{
	Stats *a = stats(), *b;
	Mounts *before = mounts(), *after;

	read_all();
	read_file(0); /* from the cache */
	b = stats();
	assert_true(b->time_us > a->time_us);
	assert_int_equal(b->misses - a->misses, FILES);
	assert_int_equal(b->hits - a->hits, 1);
	assert_int_equal(b->origin_bytes - a->origin_bytes, FILES * SIZE);
	assert_true(b->cache_used >= FILES * SIZE);
	assert_int_equal(b->cache_limit, 64 * MIB);
	assert_int_equal(b->mounts, 1);
	after = mounts();
	assert_int_equal(after->n_mounts, 1);
	assert_string_equal(after->mounts[0]->target, "/nowhere");
	assert_int_equal(after->mounts[0]->opens - before->mounts[0]->opens, FILES + 1);
	assert_int_equal(after->mounts[0]->missed_bytes - before->mounts[0]->missed_bytes, FILES * SIZE);
	warpdrive__v1__list_mounts_response__free_unpacked(before, NULL);
	warpdrive__v1__list_mounts_response__free_unpacked(after, NULL);
	stats_free(a);
	stats_free(b);
}

static void waits_and_patterns_are_the_mounts_own(void **state)
{
	Mounts *before = mounts(), *after;

	assert_int_equal(rig_read(&mnt, &msg, ROOT, "large", "set/large"), 0); /* in sequence, from the origin */
	after = mounts();
	assert_true(after->mounts[0]->waits > before->mounts[0]->waits);
	assert_true(after->mounts[0]->wait_us >= before->mounts[0]->wait_us);
	assert_true(after->mounts[0]->sequential + after->mounts[0]->strided + after->mounts[0]->random >
		before->mounts[0]->sequential + before->mounts[0]->strided + before->mounts[0]->random);
	warpdrive__v1__list_mounts_response__free_unpacked(before, NULL);
	warpdrive__v1__list_mounts_response__free_unpacked(after, NULL);
}

/* ---- datasets ---- */

static void a_dataset_is_known_when_it_is_not_mounted_any_more(void **state)
{
	Datasets *d;

	read_all();
	d = datasets();
	assert_int_equal(d->n_datasets, 1);
	assert_int_equal(d->datasets[0]->mounts, 1);
	warpdrive__v1__list_datasets_response__free_unpacked(d, NULL);
	rig_umount(&mnt);
	rig_halt(&rig);
	rig_launch(&rig);
	d = datasets();
	assert_int_equal(d->n_datasets, 1);
	assert_non_null(strstr(d->datasets[0]->url, "/data/set"));
	assert_int_equal(d->datasets[0]->mounts, 0);
	assert_true(d->datasets[0]->cached >= FILES * SIZE);
	assert_true(d->datasets[0]->files >= FILES);
	assert_true(d->datasets[0]->last_used > 1700000000);
	warpdrive__v1__list_datasets_response__free_unpacked(d, NULL);
	rig_mount(&rig, &mnt, next_mount++, "set", "");
}

/* ---- the cache ---- */

static void the_cache_shrinks_while_it_is_used_and_grows_again(void **state)
{
	SetCache more = WARPDRIVE__V1__SET_CACHE_REQUEST__INIT;
	uint64_t used;

	read_all();
	assert_true(set_cache(0, false, WARPDRIVE__V1__DRAIN__DRAIN_AS_IT_IS) >= FILES * SIZE);
	used = set_cache(MIB, false, WARPDRIVE__V1__DRAIN__DRAIN_AS_IT_IS);
	while (used > MIB) /* the evictor is at it */
		used = set_cache(0, false, WARPDRIVE__V1__DRAIN__DRAIN_AS_IT_IS);
	read_all(); /* what went comes back, within the limit */
	assert_true(set_cache(0, false, WARPDRIVE__V1__DRAIN__DRAIN_AS_IT_IS) <= MIB);
	more.limit = 65 * MIB;
	assert_int_equal(control_call(&rig, NULL, "SetCache", &more.base), -EINVAL);
	set_cache(0, true, WARPDRIVE__V1__DRAIN__DRAIN_AS_IT_IS);
	read_all();
	assert_true(set_cache(0, false, WARPDRIVE__V1__DRAIN__DRAIN_AS_IT_IS) >= FILES * SIZE);
}

static void while_it_drains_nothing_is_admitted_and_reads_go_on(void **state)
{
	Warpdrive__V1__EvictRequest evict = WARPDRIVE__V1__EVICT_REQUEST__INIT;
	Warpdrive__V1__EvictResponse *out = NULL;
	char target[] = "/nowhere";
	Datasets *d;

	read_all();
	evict.target = target;
	do { /* a transfer may hold one for a moment longer than its readers */
		if (out)
			warpdrive__v1__evict_response__free_unpacked(out, NULL);
		out = ask("Evict", &evict.base, &warpdrive__v1__evict_response__descriptor);
	} while (out->files_in_use > 0);
	warpdrive__v1__evict_response__free_unpacked(out, NULL);
	set_cache(0, false, WARPDRIVE__V1__DRAIN__DRAIN_BEGIN);
	read_all();
	d = datasets();
	assert_int_equal(d->datasets[0]->cached, 0);
	warpdrive__v1__list_datasets_response__free_unpacked(d, NULL);
	set_cache(0, false, WARPDRIVE__V1__DRAIN__DRAIN_END);
	read_all();
	d = datasets();
	assert_int_equal(d->datasets[0]->cached, FILES * SIZE);
	warpdrive__v1__list_datasets_response__free_unpacked(d, NULL);
}

/* ---- settings ---- */

/* As at the start, but for what has changed. */
static int reread(void *arg, struct settings *ret_settings, struct wd_err *err)
{
	const struct rig *r = arg;
	char copy[sizeof(changed_settings)], *save;
	int rc = wd_config_defaults(settings_keys, ret_settings, err);

	for (const struct wd_config_key *key = settings_keys; key->name && rc == 0; key++) {
		const void *from = (const char *)&r->settings + key->offset;
		void *to = (char *)ret_settings + key->offset;

		if (key->type == WD_CONFIG_STRING || key->type == WD_CONFIG_LIST) {
			free(*(char **)to);
			*(char **)to = strdup(*(char *const *)from);
		} else {
			memcpy(to, from, key->type == WD_CONFIG_BOOL ? sizeof(bool) : sizeof(int64_t));
		}
	}
	snprintf(copy, sizeof(copy), "%s", changed_settings);
	for (char *line = strtok_r(copy, "\n", &save); line && rc == 0; line = strtok_r(NULL, "\n", &save)) {
		char *eq = strchr(line, '=');

		*eq = '\0';
		rc = wd_config_set(settings_keys, ret_settings, line, eq + 1, err);
	}
	return rc;
}

static Reloaded *reload(const char *changed)
{
	Warpdrive__V1__ReloadRequest request = WARPDRIVE__V1__RELOAD_REQUEST__INIT;

	snprintf(changed_settings, sizeof(changed_settings), "%s", changed);
	return ask("Reload", &request.base, &warpdrive__v1__reload_response__descriptor);
}

static void what_may_change_is_applied_and_the_rest_is_named(void **state)
{
	Warpdrive__V1__ReloadRequest request = WARPDRIVE__V1__RELOAD_REQUEST__INIT;
	Reloaded *r;
	Stats *s;

	r = reload("");
	assert_int_equal(r->n_applied + r->n_not_applied, 0);
	warpdrive__v1__reload_response__free_unpacked(r, NULL);
	r = reload("cache-size=32MiB\nproof-ttl=1h\n");
	assert_int_equal(r->n_applied, 1);
	assert_string_equal(r->applied[0], "cache-size");
	assert_int_equal(r->n_not_applied, 1);
	assert_string_equal(r->not_applied[0], "proof-ttl");
	warpdrive__v1__reload_response__free_unpacked(r, NULL);
	s = stats();
	assert_int_equal(s->cache_limit, 32 * MIB);
	stats_free(s);
	r = reload("cache-size=32MiB\n"); /* that is in force */
	assert_int_equal(r->n_applied + r->n_not_applied, 0);
	warpdrive__v1__reload_response__free_unpacked(r, NULL);
	snprintf(changed_settings, sizeof(changed_settings), "cache-size=much");
	assert_int_equal(control_call(&rig, NULL, "Reload", &request.base), -EINVAL);
	r = reload("");
	assert_string_equal(r->applied[0], "cache-size");
	warpdrive__v1__reload_response__free_unpacked(r, NULL);
}

/* ---- who may ---- */

static void none_of_it_goes_through_a_mount(void **state)
{
	Warpdrive__V1__GetStatsRequest request = WARPDRIVE__V1__GET_STATS_REQUEST__INIT;
	static const char *const methods[] = {"GetStats", "ListMounts", "ListDatasets", "SetCache", "Reload"};

	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
		assert_int_equal(control_call(&rig, &mnt, methods[i], &request.base), -EPERM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counters_grow_with_what_is_read),
		cmocka_unit_test(waits_and_patterns_are_the_mounts_own),
		cmocka_unit_test(a_dataset_is_known_when_it_is_not_mounted_any_more),
		cmocka_unit_test(the_cache_shrinks_while_it_is_used_and_grows_again),
		cmocka_unit_test(while_it_drains_nothing_is_admitted_and_reads_go_on),
		cmocka_unit_test(what_may_change_is_applied_and_the_rest_is_named),
		cmocka_unit_test(none_of_it_goes_through_a_mount),
	};

	rig_reread = reread;
	return cmocka_run_group_tests(tests, begin, end);
}
