/* SPDX-License-Identifier: Apache-2.0 */
/* What is in the cache, seen and changed by calls of the control API of a whole agent: ListFiles, Evict, Pin, Unpin. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "agent/test/control_calls.h"

#define KIB 1024ULL
#define MIB (1024 * KIB)
#define FILES 20
#define SMALL (10 * KIB)
#define ROOT 1

typedef Warpdrive__V1__EvictRequest EvictRequest;
typedef Warpdrive__V1__EvictResponse Evicted;
typedef Warpdrive__V1__PinRequest PinRequest;
typedef Warpdrive__V1__PinResponse Pinned;
typedef Warpdrive__V1__ListFilesRequest ListRequest;
typedef Warpdrive__V1__ListFilesResponse Listed;
typedef Warpdrive__V1__FileEntry Entry;

static struct rig rig;
static struct rig_mount mnt;
static struct wd_msg msg;
static uint64_t next_mount = 1;

static int begin(void **state)
{
	rig_start(&rig, "small-object-size=64KiB", "metadata-ttl=1h", "prefetch=off", NULL);
	for (int i = 0; i < FILES; i++) {
		char path[64];

		snprintf(path, sizeof(path), "set/%s/f%02d", i % 2 ? "odd" : "even", i);
		rig_file(&rig, path, SMALL);
	}
	for (int i = 0; i < 300; i++) {
		char path[256];

		snprintf(path, sizeof(path), "set/many/%0200d", i);
		rig_file(&rig, path, 1);
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

/* ---- calls ---- */

static void evicted_free(Evicted *e)
{
	warpdrive__v1__evict_response__free_unpacked(e, NULL);
}

/* Until no more than so many files are in use: a transfer may hold one for a moment longer than its readers. What went
 * is of all tries. */
static Evicted *evict_until(char **paths, size_t npaths, uint64_t in_use)
{
	EvictRequest request = WARPDRIVE__V1__EVICT_REQUEST__INIT;
	uint64_t files = 0, bytes = 0;
	Evicted *out = NULL;

	request.target = (char *)(uintptr_t)"/nowhere";
	request.paths = paths;
	request.n_paths = npaths;
	do {
		if (out)
			evicted_free(out);
		assert_int_equal(control_call(&rig, NULL, "Evict", &request.base), 0);
		out = control_answer(&warpdrive__v1__evict_response__descriptor);
		assert_true(out->is_done);
		files += out->files;
		bytes += out->bytes;
	} while (out->files_in_use > in_use);
	out->files = files;
	out->bytes = bytes;
	return out;
}

static Evicted *evict(const char *path)
{
	char *paths[] = {(char *)(uintptr_t)path};

	return evict_until(paths, path != NULL, 0);
}

static int try_pin(const char *method, const char *path)
{
	PinRequest request = WARPDRIVE__V1__PIN_REQUEST__INIT;
	char *paths[] = {(char *)(uintptr_t)path};

	request.target = (char *)(uintptr_t)"/nowhere";
	request.paths = paths;
	request.n_paths = path != NULL;
	return control_call(&rig, NULL, method, &request.base);
}

/* How many files were found in the cache. */
static uint64_t pin(const char *method, const char *path)
{
	Pinned *out;
	uint64_t files;

	assert_int_equal(try_pin(method, path), 0);
	out = control_answer(&warpdrive__v1__pin_response__descriptor);
	assert_true(out->is_done);
	files = out->files;
	warpdrive__v1__pin_response__free_unpacked(out, NULL);
	return files;
}

static uint64_t pinned_bytes(size_t rules)
{
	Warpdrive__V1__ListPinsRequest request = WARPDRIVE__V1__LIST_PINS_REQUEST__INIT;
	Warpdrive__V1__ListPinsResponse *pins;
	uint64_t bytes;

	assert_int_equal(control_call(&rig, NULL, "ListPins", &request.base), 0);
	pins = control_answer(&warpdrive__v1__list_pins_response__descriptor);
	assert_int_equal(pins->n_rules, rules);
	for (size_t i = 0; i < rules; i++) {
		assert_false(pins->rules[i]->is_setting);
		assert_non_null(strstr(pins->rules[i]->url, "/set/"));
	}
	bytes = pins->pinned_bytes;
	warpdrive__v1__list_pins_response__free_unpacked(pins, NULL);
	return bytes;
}

static Listed *list(struct rig_mount *m, const char *path, uint64_t after)
{
	ListRequest request = WARPDRIVE__V1__LIST_FILES_REQUEST__INIT;

	request.target = (char *)(uintptr_t)(m ? "" : "/nowhere");
	request.path = (char *)(uintptr_t)path;
	request.after = after;
	assert_int_equal(control_call(&rig, m, "ListFiles", &request.base), 0);
	return control_answer(&warpdrive__v1__list_files_response__descriptor);
}

static void list_free(Listed *l)
{
	warpdrive__v1__list_files_response__free_unpacked(l, NULL);
}

static const Entry *entry(const Listed *l, const char *name)
{
	for (size_t i = 0; i < l->n_entries; i++)
		if (strcmp(l->entries[i]->name, name) == 0)
			return l->entries[i];
	fail_msg("there is no '%s'", name);
	return NULL;
}

static uint64_t cached_below(const char *name)
{
	Listed *l = list(NULL, "", 0);
	uint64_t cached = entry(l, name)->cached;

	list_free(l);
	return cached;
}

static void read_file(const char *dir, unsigned i)
{
	char name[16], path[64];
	uint64_t node = 0;

	assert_int_equal(rig_lookup(&mnt, &msg, ROOT, dir, &node), 0);
	snprintf(name, sizeof(name), "f%02u", i);
	snprintf(path, sizeof(path), "set/%s/%s", dir, name);
	assert_int_equal(rig_read(&mnt, &msg, node, name, path), 0);
}

/* What was said to the agent as a server, RELEASE, it has read. */
static void settle(void)
{
	uint64_t node;

	assert_int_equal(rig_lookup(&mnt, &msg, ROOT, "odd", &node), 0);
}

static void read_all(void)
{
	for (unsigned i = 0; i < FILES; i++)
		read_file(i % 2 ? "odd" : "even", i);
	settle();
}

/* ---- ListFiles ---- */

static void a_directory_has_sums_and_a_file_its_share(void **state)
{
	Listed *l;
	const Entry *e;

	read_file("even", 0);
	l = list(&mnt, "", 0); /* as a pod asks */
	assert_int_equal(l->n_entries, 4);
	assert_int_equal(l->next, 0);
	e = entry(l, "even");
	assert_true(e->is_directory);
	assert_int_equal(e->cached, SMALL);
	assert_int_equal(entry(l, "large")->size, MIB);
	assert_int_equal(entry(l, "large")->cached, 0);
	list_free(l);
	l = list(NULL, "even", 0);
	assert_int_equal(l->n_entries, FILES / 2);
	assert_int_equal(entry(l, "f00")->cached, SMALL);
	assert_int_equal(entry(l, "f02")->cached, 0);
	list_free(l);
	l = list(NULL, "", 0); /* now that it was listed */
	e = entry(l, "even");
	assert_int_equal(e->files, FILES / 2);
	assert_int_equal(e->size, FILES / 2 * SMALL);
	assert_true(e->is_whole);
	list_free(l);
	l = list(NULL, "even/f02", 0);
	assert_int_equal(l->n_entries, 1);
	assert_false(entry(l, "f02")->is_directory);
	list_free(l);
}

static void a_large_directory_comes_in_pages_that_fit_a_control_file(void **state)
{
	uint64_t after = 0, seen = 0, pages = 0;

	do {
		Listed *l = list(&mnt, "many", after);

		assert_true(warpdrive__v1__list_files_response__get_packed_size(l) <= 16000);
		seen += l->n_entries;
		after = l->next;
		pages++;
		list_free(l);
	} while (after != 0);
	assert_int_equal(seen, 300);
	assert_true(pages > 4);
}

static void what_is_not_there_is_said_so(void **state)
{
	ListRequest request = WARPDRIVE__V1__LIST_FILES_REQUEST__INIT;
	char beyond[] = "large/beyond";

	request.path = (char *)(uintptr_t)"nothing";
	assert_int_equal(control_call(&rig, &mnt, "ListFiles", &request.base), -ENOENT);
	request.path = beyond;
	assert_true(control_call(&rig, &mnt, "ListFiles", &request.base) < 0);
}

/* ---- Evict ---- */

static void what_nobody_has_open_goes(void **state)
{
	Evicted *e;

	read_all();
	e = evict("odd");
	assert_int_equal(e->files, FILES / 2);
	assert_int_equal(e->bytes, FILES / 2 * SMALL);
	assert_int_equal(e->files_in_use + e->files_pinned + e->files_failed, 0);
	evicted_free(e);
	assert_int_equal(cached_below("odd"), 0);
	assert_int_equal(cached_below("even"), FILES / 2 * SMALL);
	e = evict("odd"); /* nothing is left to go */
	assert_int_equal(e->files, 0);
	evicted_free(e);
	e = evict("even/f02");
	assert_int_equal(e->files, 1);
	evicted_free(e);
	read_all(); /* it comes back, right */
}

static void what_is_open_stays_and_is_named(void **state)
{
	uint64_t dir = 0, node = 0, size;
	Evicted *e;

	read_all();
	assert_int_equal(rig_lookup(&mnt, &msg, ROOT, "even", &dir), 0);
	assert_int_equal(rig_lookup(&mnt, &msg, dir, "f04", &node), 0);
	assert_true(rig_open(&mnt, &msg, node, 0, &size) >= 0);
	wd_msg_close_fds(&msg);
	e = evict_until(NULL, 0, 1);
	assert_int_equal(e->files, FILES - 1);
	assert_int_equal(e->files_in_use, 1);
	assert_int_equal(e->bytes_in_use, SMALL);
	assert_int_equal(e->n_kept, 1);
	assert_string_equal(e->kept[0]->path, "even/f04");
	assert_int_equal(e->kept[0]->code, EBUSY);
	evicted_free(e);
	wd_msg_start(&msg, WD_MSG_RELEASE, 0);
	wd_put_u64(&msg, node);
	wd_msg_send(mnt.sock, &msg, 0);
	settle();
	e = evict("even");
	assert_int_equal(e->files, 1);
	evicted_free(e);
}

static void a_name_that_is_not_there_fails_alone(void **state)
{
	char missing[] = "missing", odd[] = "odd", *paths[] = {missing, odd};
	Evicted *e;

	read_all();
	e = evict_until(paths, 2, 0);
	assert_int_equal(e->files, FILES / 2);
	assert_int_equal(e->files_failed, 1);
	assert_int_equal(e->kept[0]->code, ENOENT);
	evicted_free(e);
}

/* ---- Pin ---- */

static void what_is_pinned_stays_through_a_restart_until_it_is_unpinned(void **state)
{
	Evicted *e;

	read_all();
	assert_int_equal(pin("Pin", "odd"), FILES / 2);
	assert_int_equal(pin("Pin", "odd"), FILES / 2); /* once more is no harm */
	e = evict("odd");
	assert_int_equal(e->files, 0);
	assert_int_equal(e->files_pinned, FILES / 2);
	assert_int_equal(e->kept[0]->code, EPERM);
	evicted_free(e);
	rig_umount(&mnt);
	rig_halt(&rig);
	rig_launch(&rig);
	rig_mount(&rig, &mnt, next_mount++, "set", "");
	e = evict(NULL);
	assert_int_equal(e->files, FILES / 2);
	assert_int_equal(e->files_pinned, FILES / 2);
	evicted_free(e);
	assert_int_equal(pinned_bytes(1), FILES / 2 * SMALL);
	assert_int_equal(try_pin("Unpin", "odd/f01"), -ENOENT); /* a part of what is pinned */
	assert_int_equal(pin("Unpin", "odd"), 0); /* the last rule ends every mark at once */
	assert_int_equal(pinned_bytes(0), 0);
	e = evict("odd");
	assert_int_equal(e->files, FILES / 2);
	evicted_free(e);
}

static void one_rule_ends_and_the_other_stays(void **state)
{
	Evicted *e;

	read_all();
	pin("Pin", "odd");
	pin("Pin", "even/f00");
	assert_int_equal(pinned_bytes(2), (FILES / 2 + 1) * SMALL);
	assert_int_equal(pin("Unpin", "odd"), FILES / 2);
	e = evict(NULL);
	assert_int_equal(e->files, FILES - 1);
	assert_int_equal(e->files_pinned, 1);
	evicted_free(e);
	assert_int_equal(try_pin("Unpin", "odd"), -ENOENT);
	pin("Unpin", "even/f00");
}

static void what_is_read_later_is_pinned_when_it_comes(void **state)
{
	Evicted *e = evict(NULL);

	evicted_free(e);
	assert_int_equal(pin("Pin", "even"), 0);
	read_all();
	e = evict(NULL);
	assert_int_equal(e->files_pinned, FILES / 2);
	evicted_free(e);
	pin("Unpin", "even");
	assert_int_equal(try_pin("Pin", "missing"), -ENOENT);
}

static void what_is_warmed_is_pinned_as_well(void **state)
{
	Warpdrive__V1__WarmRequest warm = WARPDRIVE__V1__WARM_REQUEST__INIT;
	Warpdrive__V1__GetWarmRequest look = WARPDRIVE__V1__GET_WARM_REQUEST__INIT;
	Warpdrive__V1__StartWarmResponse *begun;
	Warpdrive__V1__WarmProgress *p = NULL;
	char odd[] = "odd", target[] = "/nowhere", *paths[] = {odd};

	evicted_free(evict(NULL));
	pin("Pin", "odd");
	warm.target = target;
	warm.paths = paths;
	warm.n_paths = 1;
	assert_int_equal(control_call(&rig, NULL, "StartWarm", &warm.base), 0);
	begun = control_answer(&warpdrive__v1__start_warm_response__descriptor);
	look.id = begun->id;
	look.wait_ms = 10000;
	warpdrive__v1__start_warm_response__free_unpacked(begun, NULL);
	do {
		if (p) {
			look.version = p->version;
			warpdrive__v1__warm_progress__free_unpacked(p, NULL);
		}
		assert_int_equal(control_call(&rig, NULL, "GetWarm", &look.base), 0);
		p = control_answer(&warpdrive__v1__warm_progress__descriptor);
	} while (p->state == WARPDRIVE__V1__WARM_STATE__WARM_RUNNING);
	assert_int_equal(p->files_done, FILES / 2);
	warpdrive__v1__warm_progress__free_unpacked(p, NULL);
	assert_int_equal(pinned_bytes(1), FILES / 2 * SMALL);
	pin("Unpin", "odd");
}

/* ---- who may ---- */

static void none_of_it_goes_through_a_mount(void **state)
{
	EvictRequest request = WARPDRIVE__V1__EVICT_REQUEST__INIT;
	static const char *const methods[] = {"Evict", "Pin", "Unpin", "ListPins"};

	read_all();
	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
		assert_int_equal(control_call(&rig, &mnt, methods[i], &request.base), -EPERM);
		assert_true(call_msg.len > 20); /* with a sentence */
	}
	assert_int_equal(cached_below("even"), FILES / 2 * SMALL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_directory_has_sums_and_a_file_its_share),
		cmocka_unit_test(a_large_directory_comes_in_pages_that_fit_a_control_file),
		cmocka_unit_test(what_is_not_there_is_said_so),
		cmocka_unit_test(what_nobody_has_open_goes),
		cmocka_unit_test(what_is_open_stays_and_is_named),
		cmocka_unit_test(a_name_that_is_not_there_fails_alone),
		cmocka_unit_test(what_is_pinned_stays_through_a_restart_until_it_is_unpinned),
		cmocka_unit_test(one_rule_ends_and_the_other_stays),
		cmocka_unit_test(what_is_read_later_is_pinned_when_it_comes),
		cmocka_unit_test(what_is_warmed_is_pinned_as_well),
		cmocka_unit_test(none_of_it_goes_through_a_mount),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
