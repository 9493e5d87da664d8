/* SPDX-License-Identifier: Apache-2.0 */
/* What the store makes of the eviction policies: epochs, pools, newcomers in use, pins, restarts. */
#include "agent/test/store_fixture.h"

#include "agent/store_internal.h"

#define SIZE (16 * 1024ull)
#define OBJECTS 200u
#define LIMIT(n) ((n) * SIZE * 64 / 63 + 8192) /* with what directories and a map take */

static void begin(struct fixture *f, uint64_t limit, enum evict_policy policy)
{
	fx_begin(f, limit);
	fx_close(f);
	f->config.policy = policy;
	f->config.pin_tags[STORE_PIN_SETTING] = 7;
	f->config.pin_tags[STORE_PIN_ASKED] = 10;
	fx_open(f);
}

/* Like an open, a whole read and the last close. True: it was there. */
static bool read_object(struct fixture *f, unsigned n)
{
	struct object *o = get(f, n, SIZE);
	bool is_hit = object_is_complete(o);

	object_used(o);
	if (!is_hit) {
		assert_int_equal(admit(f, o, SIZE), 0);
		assert_int_equal(put_all(o, n), 0);
	}
	object_unref(o);
	return is_hit;
}

/* The hits of an epoch over a half of what is read. */
static double epoch(struct fixture *f, unsigned seed)
{
	unsigned order[OBJECTS], hits = 0;

	srand(seed);
	for (unsigned i = 0; i < OBJECTS; i++) {
		unsigned j = (unsigned)rand() % (i + 1);

		order[i] = order[j];
		order[j] = i;
	}
	for (unsigned i = 0; i < OBJECTS; i++)
		hits += read_object(f, order[i]);
	return hits / (OBJECTS / 2.);
}

static double third_epoch(struct fixture *f, enum evict_policy policy)
{
	double ratio;

	begin(f, LIMIT(OBJECTS / 2), policy);
	epoch(f, 1);
	epoch(f, 2);
	ratio = epoch(f, 3);
	assert_true(stats_of(f).used_bytes <= f->config.limit_bytes);
	return ratio;
}

static void shuffled_epochs_find_half_of_the_dataset_and_under_lru_they_do_not(void **state)
{
	struct fixture f;
	double ratio;

	ratio = third_epoch(&f, EVICT_LRU);
	assert_true(ratio < 0.6);
	assert_true(stats_of(&f).evictions[EVICT_LRU][EVICT_OLDEST].objects > 250);
	fx_end(&f);
	ratio = third_epoch(&f, EVICT_UNIFORM);
	assert_true(ratio > 0.95);
	assert_true(stats_of(&f).evictions[EVICT_UNIFORM][EVICT_QUEUE].objects > 150);
	fx_end(&f);
	ratio = third_epoch(&f, EVICT_AUTO);
	assert_true(ratio > 0.95);
	assert_int_equal(stats_of(&f).ruler, EVICT_UNIFORM);
	assert_int_equal(stats_of(&f).shadows.switches, 1);
	assert_int_equal(stats_of(&f).shadows.bytes, 3 * OBJECTS * SIZE);
	fx_end(&f);
}

static void the_shadows_know_at_start_what_the_cache_has(void **state)
{
	struct fixture f;

	begin(&f, 64 * MIB, EVICT_AUTO);
	for (unsigned n = 0; n < 300; n++)
		read_object(&f, n);
	fx_reopen(&f);
	wd_lock(&f.store->lock);
	assert_true(f.store->use_seq >= 300); /* its clock goes on */
	wd_unlock(&f.store->lock);
	/* nothing asks for room: the evictor does nothing else */
	while (stats_of(&f).shadows.entries < 3 * 300)
		usleep(1000);
	for (unsigned n = 0; n < 300; n++)
		assert_true(read_object(&f, n));
	assert_int_equal(stats_of(&f).shadows.hit_bytes[EVICT_LRU], 300 * SIZE);
	assert_int_equal(stats_of(&f).shadows.hit_bytes[EVICT_UNIFORM], 300 * SIZE);
	fx_end(&f);
}

static void newcomers_in_use_stay_and_the_newest_go_for_them(void **state)
{
	struct object *held[40];
	struct fixture f;
	unsigned there = 0;

	begin(&f, LIMIT(100), EVICT_UNIFORM);
	for (unsigned n = 0; n < 100; n++)
		read_object(&f, n);
	for (unsigned n = 0; n < 40; n++) {
		held[n] = get(&f, 1000 + n, SIZE);
		object_used(held[n]);
		assert_int_equal(admit(&f, held[n], SIZE), 0);
		assert_int_equal(put_all(held[n], 1000 + n), 0);
	}
	for (unsigned n = 0; n < 40; n++)
		assert_true(object_is_complete(held[n]));
	for (unsigned n = 5; n < 55; n++)
		there += is_cached(&f, n, SIZE);
	assert_int_equal(there, 50); /* 95 to 99 and so on went, but for the few at the beginning */
	assert_true(stats_of(&f).evictions[EVICT_UNIFORM][EVICT_NEWEST].objects >= 35);
	for (unsigned n = 0; n < 40; n++)
		object_unref(held[n]);
	fx_end(&f);
}

/* Streams that take more than newcomers have: each one, when it is over, makes room for the next. */
static void what_just_came_to_rest_is_the_newest(void **state)
{
	struct object *held[10];
	struct fixture f;
	unsigned there = 0;

	begin(&f, LIMIT(100), EVICT_UNIFORM);
	for (unsigned n = 0; n < 100; n++)
		read_object(&f, n);
	for (unsigned n = 0; n < 60; n++) {
		if (n >= 10)
			object_unref(held[n % 10]);
		held[n % 10] = get(&f, 1000 + n, SIZE);
		object_used(held[n % 10]);
		assert_int_equal(admit(&f, held[n % 10], SIZE), 0);
		assert_int_equal(put_all(held[n % 10], 1000 + n), 0);
	}
	for (unsigned n = 0; n < 100; n++)
		there += is_cached(&f, n, SIZE);
	assert_in_range(there, 85, 91);
	for (unsigned n = 0; n < 10; n++)
		object_unref(held[n]);
	fx_end(&f);
}

static unsigned noted;
static struct object *pooled;

static void note(void *arg)
{
	noted++;
	object_used(pooled);
}

static int give_back_pooled(void *arg, const struct object_id *id)
{
	struct object *o = pooled;

	assert_memory_equal(id, object_id(o), sizeof(*id));
	pooled = NULL;
	object_unpool(o);
	object_unref(o);
	return 0;
}

static void pools_are_asked_what_was_used_before_room_is_made(void **state)
{
	struct fixture f;

	begin(&f, LIMIT(100), EVICT_LRU);
	fx_close(&f);
	f.config.note_uses = note;
	f.config.reclaim = give_back_pooled;
	fx_open(&f);
	read_object(&f, 0);
	pooled = get(&f, 0, SIZE);
	object_pool(pooled);
	for (unsigned n = 1; n < 100; n++)
		read_object(&f, n);
	assert_int_equal(noted, 0);
	read_object(&f, 100); /* room is needed */
	assert_true(noted > 0);
	assert_non_null(pooled); /* it was the oldest, but is used all the time */
	assert_true(is_cached(&f, 0, SIZE));
	assert_false(is_cached(&f, 1, SIZE));
	f.store->note_due_ns = INT64_MAX; /* the evictor is at rest; nothing is noted any more */
	for (unsigned n = 101; n < 200; n++)
		read_object(&f, n);
	assert_null(pooled); /* its turn came */
	fx_end(&f);
}

static void pin(struct fixture *f, unsigned n, int want)
{
	struct object *o = get(f, n, SIZE);

	assert_int_equal(object_pin(o, STORE_PIN_SETTING), want);
	object_unref(o);
}

static void pinned_objects_stay_and_take_no_more_than_half(void **state)
{
	struct object_id id = make_id(3);
	struct fixture f;

	begin(&f, LIMIT(98), EVICT_LRU);
	for (unsigned n = 0; n < 60; n++)
		read_object(&f, n);
	for (unsigned n = 0; n < 60; n++)
		pin(&f, n, n < 50 ? 0 : -ENOSPC);
	pin(&f, 0, 0);
	assert_int_equal(stats_of(&f).pinned_bytes, 50 * SIZE);
	assert_int_equal(stats_of(&f).refused_pins, 10);
	fx_reopen(&f);
	assert_int_equal(stats_of(&f).pinned_bytes, 50 * SIZE);
	for (unsigned n = 100; n < 300; n++)
		read_object(&f, n);
	for (unsigned n = 0; n < 60; n++)
		assert_int_equal(is_cached(&f, n, SIZE), n < 50);
	assert_int_equal(store_evict(f.store, &id), 0); /* who asks for it gets it */
	assert_int_equal(stats_of(&f).pinned_bytes, 49 * SIZE);
	fx_close(&f);
	f.config.pin_tags[STORE_PIN_SETTING] = 8; /* another list of what is pinned */
	fx_open(&f);
	assert_int_equal(stats_of(&f).pinned_bytes, 0);
	for (unsigned n = 300; n < 500; n++)
		read_object(&f, n);
	for (unsigned n = 0; n < 50; n++)
		assert_false(is_cached(&f, n, SIZE));
	fx_end(&f);
}

static void pin_as(struct fixture *f, unsigned n, enum store_pin pin)
{
	struct object *o = get(f, n, SIZE);

	assert_int_equal(object_pin(o, pin), 0);
	object_unref(o);
}

static void what_was_asked_for_is_apart_from_the_setting(void **state)
{
	struct object_id setting = make_id(0), asked = make_id(1), again = make_id(2);
	struct fixture f;

	begin(&f, LIMIT(98), EVICT_LRU);
	for (unsigned n = 0; n < 3; n++)
		read_object(&f, n);
	pin_as(&f, 0, STORE_PIN_SETTING);
	pin_as(&f, 1, STORE_PIN_ASKED);
	pin_as(&f, 2, STORE_PIN_ASKED);
	fx_reopen(&f);
	assert_int_equal(store_pin_of(f.store, &setting), STORE_PIN_SETTING);
	assert_int_equal(store_pin_of(f.store, &asked), STORE_PIN_ASKED);
	assert_int_equal(stats_of(&f).pinned_bytes, 3 * SIZE);
	pin_as(&f, 2, STORE_UNPINNED);
	assert_int_equal(store_pin_of(f.store, &again), STORE_UNPINNED);
	assert_int_equal(stats_of(&f).pinned_bytes, 2 * SIZE);
	store_set_pin_tag(f.store, 12); /* one is not in memory, one is */
	assert_int_equal(store_pin_of(f.store, &asked), STORE_UNPINNED);
	assert_int_equal(store_pin_of(f.store, &setting), STORE_PIN_SETTING);
	assert_int_equal(stats_of(&f).pinned_bytes, SIZE);
	for (unsigned n = 100; n < 300; n++)
		read_object(&f, n);
	assert_true(is_cached(&f, 0, SIZE));
	assert_false(is_cached(&f, 1, SIZE));
	fx_end(&f);
}

static void a_pin_of_what_never_came_is_not_counted(void **state)
{
	struct fixture f;

	begin(&f, LIMIT(98), EVICT_LRU);
	pin_as(&f, 0, STORE_PIN_SETTING); /* opened, and nothing of it could be fetched */
	assert_int_equal(stats_of(&f).pinned_bytes, 0);
	fx_end(&f);
}

static void when_all_is_pinned_or_in_use_nothing_is_admitted(void **state)
{
	struct object *held[50], *o;
	struct fixture f;

	begin(&f, LIMIT(100), EVICT_UNIFORM);
	for (unsigned n = 0; n < 100; n++)
		read_object(&f, n);
	for (unsigned n = 0; n < 50; n++)
		pin(&f, n, 0);
	for (unsigned n = 0; n < 50; n++)
		held[n] = get(&f, 50 + n, SIZE);
	o = get(&f, 200, SIZE);
	assert_int_equal(admit(&f, o, SIZE), -ENOSPC);
	assert_int_equal(stats_of(&f).refused_admissions, 1);
	object_unref(held[7]);
	assert_int_equal(admit(&f, o, SIZE), 0);
	assert_false(is_cached(&f, 57, SIZE));
	object_unref(o);
	for (unsigned n = 0; n < 50; n++)
		if (n != 7)
			object_unref(held[n]);
	fx_end(&f);
}

static void what_the_disk_can_hold_counts_where_that_is_less(void **state)
{
	struct fixture f;

	begin(&f, 100 * SIZE, EVICT_UNIFORM);
	wd_lock(&f.store->lock);
	f.store->config.free_floor_bytes = UINT64_MAX / 4;
	wd_unlock(&f.store->lock);
	assert_int_equal(add_object(&f, 1, SIZE), -ENOSPC);
	wd_lock(&f.store->lock);
	assert_int_equal(f.store->capacity, 0);
	wd_unlock(&f.store->lock);
	fx_end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shuffled_epochs_find_half_of_the_dataset_and_under_lru_they_do_not),
		cmocka_unit_test(the_shadows_know_at_start_what_the_cache_has),
		cmocka_unit_test(newcomers_in_use_stay_and_the_newest_go_for_them),
		cmocka_unit_test(what_just_came_to_rest_is_the_newest),
		cmocka_unit_test(pools_are_asked_what_was_used_before_room_is_made),
		cmocka_unit_test(pinned_objects_stay_and_take_no_more_than_half),
		cmocka_unit_test(what_was_asked_for_is_apart_from_the_setting),
		cmocka_unit_test(a_pin_of_what_never_came_is_not_counted),
		cmocka_unit_test(when_all_is_pinned_or_in_use_nothing_is_admitted),
		cmocka_unit_test(what_the_disk_can_hold_counts_where_that_is_less),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
