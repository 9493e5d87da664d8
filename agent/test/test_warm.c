/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Warm tasks by a whole agent, asked for as warpdrive-ctl does (CONTROL on agent.sock) and as a pod does (CONTROL on the
 * socket of its mount's server).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "agent/test/control_calls.h"
#include "agent/test/exposition.h"
#include "agent/test/http_origin.h"

#define KIB 1024ULL
#define MIB (1024 * KIB)
#define FILES 40
#define BLOCK (256 * KIB)

typedef Warpdrive__V1__WarmProgress Progress;
typedef Warpdrive__V1__WarmRequest Request;

static struct rig rig;
static struct rig_mount mnt;
static struct wd_msg msg;
static uint64_t next_mount = 1;
static const char *_Atomic denied; /* a path that the http origin refuses */

static int start(void **state)
{
	rig_start(&rig, "small-object-size=64KiB", "request-deadline=2s", "metadata-ttl=0", NULL);
	for (int i = 0; i < FILES; i++) {
		char path[64];

		snprintf(path, sizeof(path), "set/%s/f%02d.%s", i % 2 ? "odd" : "even", i, i % 4 ? "bin" : "txt");
		rig_file(&rig, path, 10000 + (uint64_t)i * 100);
	}
	rig_file(&rig, "set/large", 3 * MIB + 12345);
	rig_file(&rig, "other/one", 1000);
	return 0;
}

static int stop(void **state)
{
	rig_stop(&rig);
	return 0;
}

/* ---- calls ---- */

#define call(m, method, request) control_call(&rig, m, method, request)
#define answer(type) control_answer(type)

static uint64_t begin_warm(struct rig_mount *m, Request *request)
{
	Warpdrive__V1__StartWarmResponse *out;
	uint64_t id;

	request->target = (char *)(uintptr_t)(m ? "" : "/nowhere");
	assert_int_equal(call(m, "StartWarm", &request->base), 0);
	out = answer(&warpdrive__v1__start_warm_response__descriptor);
	id = out->id;
	warpdrive__v1__start_warm_response__free_unpacked(out, NULL);
	return id;
}

static int look(struct rig_mount *m, uint64_t id, uint64_t version, Progress **ret_progress)
{
	Warpdrive__V1__GetWarmRequest request = WARPDRIVE__V1__GET_WARM_REQUEST__INIT;
	int rc;

	request.id = id;
	request.version = version;
	request.wait_ms = version ? 10000 : 0;
	rc = call(m, "GetWarm", &request.base);
	if (rc == 0)
		*ret_progress = answer(&warpdrive__v1__warm_progress__descriptor);
	return rc;
}

static void progress_free(Progress *p)
{
	warpdrive__v1__warm_progress__free_unpacked(p, NULL);
}

/* Waits by the API's own means until the task is over. */
static Progress *await_end(struct rig_mount *m, uint64_t id)
{
	Progress *p = NULL;

	assert_int_equal(look(m, id, 0, &p), 0);
	while (p->state == WARPDRIVE__V1__WARM_STATE__WARM_RUNNING) {
		uint64_t version = p->version;

		progress_free(p);
		assert_int_equal(look(m, id, version, &p), 0);
	}
	return p;
}

static Progress *warm(struct rig_mount *m, Request *request)
{
	return await_end(m, begin_warm(m, request));
}

static void cancel(uint64_t id)
{
	Warpdrive__V1__CancelWarmRequest request = WARPDRIVE__V1__CANCEL_WARM_REQUEST__INIT;

	request.id = id;
	assert_int_equal(call(NULL, "CancelWarm", &request.base), 0);
}

static uint64_t origin_bytes(void)
{
	return exposed("warpdrive_origin_bytes_total");
}

static int mount_set(void **state)
{
	rig_mount(&rig, &mnt, next_mount++, "set", "");
	return 0;
}

static int umount_set(void **state)
{
	rig_umount(&mnt);
	return 0;
}

static uint64_t size_of_set(void)
{
	uint64_t sum = 3 * MIB + 12345;

	for (uint64_t i = 0; i < FILES; i++)
		sum += 10000 + i * 100;
	return sum;
}

/* ---- tests ---- */

static void only_what_is_wanted_is_fetched(void **state)
{
	char *paths[] = {"even", "odd/f01.bin"}, *includes[] = {"*.bin"}, *excludes[] = {"even/f1*"};
	Request request = WARPDRIVE__V1__WARM_REQUEST__INIT;
	uint64_t before = origin_bytes(), size = 0;
	Progress *p = NULL;

	for (uint64_t i = 2; i < FILES; i += 2)
		if (i % 4 && i / 10 != 1)
			size += 10000 + i * 100;
	size += 10100;
	request.paths = paths;
	request.n_paths = 2;
	request.includes = includes;
	request.n_includes = 1;
	request.excludes = excludes;
	request.n_excludes = 1;
	p = warm(NULL, &request);
	assert_int_equal(p->state, WARPDRIVE__V1__WARM_STATE__WARM_DONE);
	assert_int_equal(p->files, 8);
	assert_int_equal(p->files_done, 8);
	assert_int_equal(p->files_skipped, 13);
	assert_int_equal(p->bytes, size);
	assert_int_equal(p->bytes_present, size);
	assert_int_equal(origin_bytes() - before, size);
	assert_string_equal(p->target, "/nowhere");
	progress_free(p);
}

static void all_of_it_and_nothing_twice(void **state)
{
	Request request = WARPDRIVE__V1__WARM_REQUEST__INIT;
	uint64_t before = origin_bytes(), there, node = 0, size;
	Progress *p = NULL;

	request.max_file_size = MIB;
	p = warm(NULL, &request);
	assert_int_equal(p->state, WARPDRIVE__V1__WARM_STATE__WARM_DONE);
	assert_int_equal(p->files, FILES);
	assert_int_equal(p->files_skipped, 1);
	there = p->bytes_present - p->bytes_fetched; /* from the test before */
	assert_int_equal(origin_bytes() - before, p->bytes - there);
	progress_free(p);
	request.max_file_size = 0;
	p = warm(&mnt, &request); /* as a pod asks */
	assert_int_equal(p->files_done, FILES + 1);
	assert_int_equal(p->bytes_present, size_of_set());
	assert_int_equal(p->bytes_fetched, 3 * MIB + 12345);
	progress_free(p);
	before = origin_bytes();
	p = warm(NULL, &request);
	assert_int_equal(p->bytes_fetched, 0);
	assert_int_equal(p->bytes_present, size_of_set());
	assert_int_equal(origin_bytes(), before);
	progress_free(p);
	assert_int_equal(rig_lookup(&mnt, &msg, RIG_ROOT, "large", &node), 0);
	assert_int_equal(rig_open(&mnt, &msg, node, 0, &size), WD_OPEN_PASSTHROUGH);
	wd_msg_start(&msg, WD_MSG_RELEASE, 0);
	wd_put_u64(&msg, node);
	wd_msg_send(mnt.sock, &msg, 0);
	assert_int_equal(rig_read(&mnt, &msg, RIG_ROOT, "large", "set/large"), 0);
}

static void same_token_is_the_same_task(void **state)
{
	Request request = WARPDRIVE__V1__WARM_REQUEST__INIT;
	uint64_t first;

	request.token.data = (uint8_t *)(uintptr_t)"0123456789abcdef";
	request.token.len = 16;
	first = begin_warm(&mnt, &request);
	assert_int_equal(begin_warm(&mnt, &request), first);
	progress_free(await_end(&mnt, first));
	assert_int_equal(begin_warm(&mnt, &request), first);
	request.token.len = 3;
	assert_int_equal(call(&mnt, "StartWarm", &request.base), -EINVAL);
}

static void a_mounts_server_sees_its_own_tasks_only(void **state)
{
	Request request = WARPDRIVE__V1__WARM_REQUEST__INIT;
	Warpdrive__V1__ListWarmRequest list = WARPDRIVE__V1__LIST_WARM_REQUEST__INIT;
	Warpdrive__V1__GetStatusRequest ask = WARPDRIVE__V1__GET_STATUS_REQUEST__INIT;
	Warpdrive__V1__GetStatusResponse *status;
	Warpdrive__V1__ListWarmResponse *tasks;
	struct rig_mount other;
	Progress *p = NULL;
	uint64_t id;

	rig_mount(&rig, &other, next_mount++, "other", "");
	id = begin_warm(&other, &request);
	progress_free(await_end(&other, id));
	assert_int_equal(look(&mnt, id, 0, &p), -ENOENT);
	assert_int_equal(look(NULL, id, 0, &p), 0);
	progress_free(p);
	assert_int_equal(call(&other, "ListWarm", &list.base), 0);
	tasks = answer(&warpdrive__v1__list_warm_response__descriptor);
	assert_int_equal(tasks->n_tasks, 1);
	assert_int_equal(tasks->tasks[0]->id, id);
	warpdrive__v1__list_warm_response__free_unpacked(tasks, NULL);
	request.target = (char *)(uintptr_t)"/nowhere";
	assert_int_equal(call(&other, "StartWarm", &request.base), -EINVAL);
	assert_int_equal(call(&other, "GetStatus", &ask.base), 0);
	status = answer(&warpdrive__v1__get_status_response__descriptor);
	assert_non_null(strstr(status->json, "/data/other"));
	assert_null(strstr(status->json, "/data/set"));
	warpdrive__v1__get_status_response__free_unpacked(status, NULL);
	assert_int_equal(call(&other, "Nonesuch", &ask.base), -ENOSYS);
	rig_umount(&other);
	assert_int_equal(look(NULL, id, 0, &p), -ENOENT); /* its tasks went with it */
}

static void bad_requests_are_refused_by_name(void **state)
{
	char *paths[] = {"even/../../etc"}, *missing[] = {"nothing/here"};
	Request request = WARPDRIVE__V1__WARM_REQUEST__INIT;
	Progress *p = NULL;

	request.target = (char *)(uintptr_t)"/somewhere/else";
	assert_int_equal(call(NULL, "StartWarm", &request.base), -ENOENT);
	request.target = (char *)(uintptr_t)"";
	request.paths = paths;
	request.n_paths = 1;
	assert_int_equal(call(&mnt, "StartWarm", &request.base), -EINVAL);
	request.paths = missing;
	p = warm(&mnt, &request);
	assert_int_equal(p->state, WARPDRIVE__V1__WARM_STATE__WARM_PARTLY);
	assert_int_equal(p->n_failures, 1);
	assert_string_equal(p->failures[0]->path, "nothing/here");
	assert_int_equal(p->failures[0]->code, ENOENT);
	progress_free(p);
}

static void a_bandwidth_is_kept_to(void **state)
{
	char *paths[] = {"new"};
	Request request = WARPDRIVE__V1__WARM_REQUEST__INIT;
	Progress *p = NULL;

	rig_file(&rig, "set/new", 20 * MIB);
	request.paths = paths;
	request.n_paths = 1;
	request.bandwidth = 80 * MIB;
	p = warm(&mnt, &request);
	assert_int_equal(p->state, WARPDRIVE__V1__WARM_STATE__WARM_DONE);
	assert_int_equal(p->bytes_present, 20 * MIB);
	/* the last part is asked after the time of those before it */
	assert_true(p->elapsed_ms >= 200);
	progress_free(p);
}

/* Flips a bit in every cache file of that size; how many there are. */
static unsigned damage(uint64_t size)
{
	char command[320], out[16] = "";
	FILE *pipe;

	snprintf(command, sizeof(command),
		"find %s/cache/objects -type f -size %lluc -exec sh -c 'printf X | dd of=$0 bs=1 seek=300000 conv=notrunc "
		"status=none && echo' {} \\; | wc -l",
		rig.dir, (unsigned long long)size);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	assert_non_null(fgets(out, sizeof(out), pipe));
	pclose(pipe);
	return (unsigned)atoi(out);
}

static void what_is_damaged_is_found_and_fetched_anew(void **state)
{
	char *paths[] = {"large"};
	Request request = WARPDRIVE__V1__WARM_REQUEST__INIT;
	uint64_t before;
	Progress *p = NULL;

	request.paths = paths;
	request.n_paths = 1;
	progress_free(warm(&mnt, &request));
	assert_int_equal(damage(3 * MIB + 12345), 1);
	before = origin_bytes();
	progress_free(warm(&mnt, &request));
	assert_int_equal(origin_bytes(), before);
	request.verify = true;
	p = warm(&mnt, &request);
	assert_int_equal(p->state, WARPDRIVE__V1__WARM_STATE__WARM_DONE);
	assert_int_equal(p->bytes_present, 3 * MIB + 12345);
	assert_int_equal(origin_bytes() - before, BLOCK);
	progress_free(p);
	assert_int_equal(rig_read(&mnt, &msg, RIG_ROOT, "large", "set/large"), 0);
}

static void a_cancelled_task_is_gone_on_with(void **state)
{
	char *paths[] = {"huge"};
	Request request = WARPDRIVE__V1__WARM_REQUEST__INIT;
	uint64_t before, first, id, again;
	Progress *p = NULL;

	rig_file(&rig, "set/huge", 24 * MIB);
	before = origin_bytes();
	request.paths = paths;
	request.n_paths = 1;
	request.bandwidth = 16 * MIB; /* three parts, half a second each */
	id = begin_warm(&mnt, &request);
	do {
		assert_int_equal(look(NULL, id, 0, &p), 0);
		assert_int_equal(p->state, WARPDRIVE__V1__WARM_STATE__WARM_RUNNING);
		again = p->bytes_present;
		progress_free(p);
	} while (again == 0);
	cancel(id);
	p = await_end(NULL, id);
	assert_int_equal(p->state, WARPDRIVE__V1__WARM_STATE__WARM_CANCELLED);
	first = p->bytes_present;
	assert_in_range(first, 1, 24 * MIB - 1);
	progress_free(p);
	request.bandwidth = 0;
	p = warm(NULL, &request);
	assert_int_equal(p->state, WARPDRIVE__V1__WARM_STATE__WARM_DONE);
	assert_int_equal(p->bytes_present, 24 * MIB);
	progress_free(p);
	/* what was under way when it was cancelled may have landed after the look, never twice */
	assert_int_equal(origin_bytes() - before, 24 * MIB);
}

static void a_task_ends_with_its_mount(void **state)
{
	char *paths[] = {"slow"};
	Request request = WARPDRIVE__V1__WARM_REQUEST__INIT;
	Progress *p = NULL;
	uint64_t id;

	rig_file(&rig, "set/slow", 20 * MIB);
	request.paths = paths;
	request.n_paths = 1;
	request.bandwidth = MIB; /* twenty seconds */
	id = begin_warm(NULL, &request);
	rig_umount(&mnt);
	assert_int_equal(look(NULL, id, 0, &p), -ENOENT);
	mount_set(NULL);
}

static void a_full_cache_ends_it(void **state)
{
	char *paths[] = {"vast"};
	Request request = WARPDRIVE__V1__WARM_REQUEST__INIT;
	uint64_t before = exposed("warpdrive_agent_uncached_bytes_total");
	Progress *p = NULL;

	rig_file(&rig, "set/vast", 80 * MIB); /* the cache has 64 */
	request.paths = paths;
	request.n_paths = 1;
	p = warm(NULL, &request);
	assert_int_equal(p->state, WARPDRIVE__V1__WARM_STATE__WARM_NO_ROOM);
	assert_true(p->bytes_present <= 64 * MIB);
	progress_free(p);
	assert_int_equal(exposed("warpdrive_agent_uncached_bytes_total"), before);
}

/* ---- what an origin denies, or does not have ---- */

static const char *guard(const char *head)
{
	return denied && strstr(head, denied) ? "AccessDenied" : NULL;
}

static void files_that_fail_are_named_and_the_rest_is_warm(void **state)
{
	static const char listing[] = "[{\"name\":\"a\",\"type\":\"file\",\"size\":5},{\"name\":\"b\",\"type\":\"file\",\"size\":5},"
				      "{\"name\":\"c\",\"type\":\"file\",\"size\":5},{\"name\":\"d\",\"type\":\"file\",\"size\":5}]";
	Request request = WARPDRIVE__V1__WARM_REQUEST__INIT;
	struct http_origin *server = http_origin_start();
	char description[200];
	struct rig_mount web;
	Progress *p = NULL;

	http_origin_put(server, "/d/", listing, sizeof(listing) - 1, NULL, "application/json");
	http_origin_put(server, "/d/a", "aaaaa", 5, "\"a\"", NULL);
	http_origin_put(server, "/d/b", "bbbbb", 5, "\"b\"", NULL);
	http_origin_put(server, "/d/d", "ddddd", 5, "\"d\"", NULL);
	denied = " /d/b ";
	http_origin_guard(server, guard);
	snprintf(description, sizeof(description), "{\"url\":\"http://127.0.0.1:%d/d/\"}", server->port);
	assert_int_equal(rig_try_mount_of(&rig, &web, next_mount++, description), 0);
	p = warm(&web, &request);
	assert_int_equal(p->state, WARPDRIVE__V1__WARM_STATE__WARM_PARTLY);
	assert_int_equal(p->files, 4);
	assert_int_equal(p->files_done, 2);
	assert_int_equal(p->files_failed, 2);
	assert_int_equal(p->n_failures, 2);
	for (size_t i = 0; i < 2; i++) {
		bool is_denied = strcmp(p->failures[i]->path, "b") == 0;

		assert_true(is_denied || strcmp(p->failures[i]->path, "c") == 0);
		assert_int_equal(p->failures[i]->code, is_denied ? EACCES : ENOENT);
	}
	assert_string_not_equal(p->failures[0]->path, p->failures[1]->path);
	progress_free(p);
	rig_umount(&web);
	http_origin_stop(server);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, mount_set, umount_set)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(only_what_is_wanted_is_fetched),
		TEST(all_of_it_and_nothing_twice),
		TEST(same_token_is_the_same_task),
		TEST(a_mounts_server_sees_its_own_tasks_only),
		TEST(bad_requests_are_refused_by_name),
		TEST(a_bandwidth_is_kept_to),
		TEST(what_is_damaged_is_found_and_fetched_anew),
		TEST(a_cancelled_task_is_gone_on_with),
		TEST(a_task_ends_with_its_mount),
		TEST(a_full_cache_ends_it),
		TEST(files_that_fail_are_named_and_the_rest_is_warm),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
