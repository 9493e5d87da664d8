/* SPDX-License-Identifier: Apache-2.0 */
/* Traces by a whole agent, asked for as warpdrive-ctl does (CONTROL on agent.sock): what they show, and their bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "agent/test/control_calls.h"
#include "agent/trace.h"

#define BLOCK (256 * 1024)

typedef Warpdrive__V1__TraceEvents Events;

static struct rig rig;
static struct rig_mount mnt;
static uint64_t next_mount = 1;

static int start(void **state)
{
	rig_start(&rig, "small-object-size=64KiB", "metadata-ttl=0", "prefetch=off", NULL);
	rig_file(&rig, "set/small", 1000);
	rig_file(&rig, "set/dir/large", 3 * BLOCK + 17);
	rig_file(&rig, "set/dir/larger", 3 * BLOCK);
	return 0;
}

static int stop(void **state)
{
	rig_stop(&rig);
	return 0;
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

/* ---- calls ---- */

static int try_begin(const char *target, const char *path, const char *pod, uint64_t *ret_id)
{
	Warpdrive__V1__TraceRequest q = WARPDRIVE__V1__TRACE_REQUEST__INIT;
	Warpdrive__V1__StartTraceResponse *out;
	int rc;

	q.target = (char *)(uintptr_t)target;
	q.path = (char *)(uintptr_t)path;
	q.pod = (char *)(uintptr_t)pod;
	rc = control_call(&rig, NULL, "StartTrace", &q.base);
	if (rc < 0)
		return rc;
	out = control_answer(&warpdrive__v1__start_trace_response__descriptor);
	*ret_id = out->id;
	warpdrive__v1__start_trace_response__free_unpacked(out, NULL);
	return 0;
}

static uint64_t begin(const char *path)
{
	uint64_t id = 0;

	assert_int_equal(try_begin("", path, "", &id), 0);
	return id;
}

static int try_look(uint64_t id, uint32_t wait_ms, Events **ret_events)
{
	Warpdrive__V1__ReadTraceRequest q = WARPDRIVE__V1__READ_TRACE_REQUEST__INIT;
	int rc;

	q.id = id;
	q.wait_ms = wait_ms;
	rc = control_call(&rig, NULL, "ReadTrace", &q.base);
	if (rc == 0)
		*ret_events = control_answer(&warpdrive__v1__trace_events__descriptor);
	return rc;
}

/* All there are, which must be `n`: an event is told before its answer. */
static Events *look(uint64_t id, size_t n)
{
	Events *events = NULL;

	assert_int_equal(try_look(id, 0, &events), 0);
	assert_int_equal(events->n_events, n);
	return events;
}

static void events_free(Events *e)
{
	warpdrive__v1__trace_events__free_unpacked(e, NULL);
}

static void end(uint64_t id)
{
	Warpdrive__V1__StopTraceRequest q = WARPDRIVE__V1__STOP_TRACE_REQUEST__INIT;

	q.id = id;
	assert_int_equal(control_call(&rig, NULL, "StopTrace", &q.base), 0);
}

/* Opens set/dir/NAME and leaves it open. */
static uint64_t open_large(const char *name)
{
	uint64_t dir = 0, node = 0, size;

	assert_int_equal(rig_lookup(&mnt, &call_msg, RIG_ROOT, "dir", &dir), 0);
	assert_int_equal(rig_lookup(&mnt, &call_msg, dir, name, &node), 0);
	assert_int_equal(rig_open(&mnt, &call_msg, node, 0, &size), WD_OPEN_CACHED);
	wd_msg_close_fds(&call_msg);
	return node;
}

static void ensure(uint64_t node, uint64_t offset, uint32_t len)
{
	uint64_t position;

	assert_int_equal(rig_ensure(&mnt, &call_msg, node, offset, len, 0, &position), WD_ENSURE_PRESENT);
}

static void release(uint64_t node)
{
	wd_msg_start(&call_msg, WD_MSG_RELEASE, 0);
	wd_put_u64(&call_msg, node);
	wd_msg_send(mnt.sock, &call_msg, 0);
}

/* ---- tests ---- */

static void shows_where_the_bytes_of_each_read_came_from(void **state)
{
	uint64_t id = begin("");
	uint64_t node = open_large("large");
	Events *seen = NULL;

	ensure(node, BLOCK, 100);
	ensure(node, BLOCK + 50, 1000);
	ensure(node, BLOCK, BLOCK + 10);
	seen = look(id, 4);
	assert_int_equal(seen->events[0]->kind, WARPDRIVE__V1__TRACE_KIND__TRACE_OPEN);
	assert_int_equal(seen->events[0]->mode, WARPDRIVE__V1__TRACE_MODE__TRACE_COLD);
	assert_int_equal(seen->events[0]->tier, WARPDRIVE__V1__TRACE_TIER__TRACE_NO_BYTES);
	assert_string_equal(seen->events[0]->path, "dir/large");
	assert_string_equal(seen->events[0]->target, "/nowhere");
	assert_non_null(strstr(seen->events[0]->dataset, "/data/set"));
	assert_int_equal(seen->events[1]->kind, WARPDRIVE__V1__TRACE_KIND__TRACE_READ);
	assert_int_equal(seen->events[1]->tier, WARPDRIVE__V1__TRACE_TIER__TRACE_ORIGIN);
	assert_int_equal(seen->events[1]->mode, WARPDRIVE__V1__TRACE_MODE__TRACE_CACHED);
	assert_int_equal(seen->events[1]->offset, BLOCK);
	assert_int_equal(seen->events[1]->length, 100);
	assert_int_equal(seen->events[1]->code, 0);
	assert_string_equal(seen->events[1]->path, "dir/large");
	assert_int_equal(seen->events[2]->tier, WARPDRIVE__V1__TRACE_TIER__TRACE_LOCAL);
	/* a part of it was not there */
	assert_int_equal(seen->events[3]->tier, WARPDRIVE__V1__TRACE_TIER__TRACE_ORIGIN);
	assert_true(seen->events[3]->time_us >= seen->events[1]->time_us);
	events_free(seen);
	release(node);
	end(id);
}

static void small_file_comes_from_the_origin_once(void **state)
{
	uint64_t id = begin("small"), node = 0, size;
	Events *seen = NULL;

	assert_int_equal(rig_lookup(&mnt, &call_msg, RIG_ROOT, "small", &node), 0);
	assert_int_equal(rig_open(&mnt, &call_msg, node, 0, &size), WD_OPEN_PASSTHROUGH);
	release(node);
	assert_int_equal(rig_open(&mnt, &call_msg, node, 0, &size), WD_OPEN_PASSTHROUGH);
	release(node);
	seen = look(id, 2);
	assert_int_equal(seen->events[0]->tier, WARPDRIVE__V1__TRACE_TIER__TRACE_ORIGIN);
	assert_int_equal(seen->events[0]->mode, WARPDRIVE__V1__TRACE_MODE__TRACE_PASSTHROUGH);
	assert_int_equal(seen->events[0]->length, 1000);
	assert_int_equal(seen->events[1]->tier, WARPDRIVE__V1__TRACE_TIER__TRACE_LOCAL);
	events_free(seen);
	end(id);
}

static void path_shows_itself_and_what_is_below_it(void **state)
{
	uint64_t file = begin("dir/large"), directory = begin("dir"), other = begin("di");
	uint64_t one = open_large("large"), two = open_large("larger");

	release(one);
	release(two);
	events_free(look(file, 1));
	events_free(look(directory, 2));
	events_free(look(other, 0));
	end(file);
	end(directory);
	end(other);
}

static void failure_is_shown_with_its_errno(void **state)
{
	uint64_t id = begin(""), node = 0, size;
	char path[128];
	Events *seen = NULL;

	rig_file(&rig, "set/gone", 100000);
	assert_int_equal(rig_lookup(&mnt, &call_msg, RIG_ROOT, "gone", &node), 0);
	snprintf(path, sizeof(path), "%s/data/set/gone", rig.dir);
	unlink(path);
	assert_int_equal(rig_open(&mnt, &call_msg, node, 0, &size), -ESTALE);
	seen = look(id, 1);
	assert_int_equal(seen->events[0]->code, ESTALE);
	assert_string_equal(seen->events[0]->path, "gone");
	assert_int_equal(seen->events[0]->length, 0);
	events_free(seen);
	end(id);
}

static void reader_that_is_slow_loses_lines_and_holds_up_nobody(void **state)
{
	uint64_t id = begin(""), node = open_large("large"), shown = 0, lost = 0, reads = 4000;
	Events *seen = NULL;

	ensure(node, 0, 10);
	for (uint64_t i = 1; i < reads; i++)
		ensure(node, i % 100, 10); /* present: each is answered at once, though nobody takes the lines */
	do {
		assert_int_equal(try_look(id, 0, &seen), 0);
		shown += seen->n_events;
		lost = seen->lost;
		reads = seen->n_events ? reads : 0;
		events_free(seen);
	} while (reads);
	assert_true(shown > 100 && lost > 100);
	assert_int_equal(shown + lost, 4001); /* and the open */
	release(node);
	end(id);
}

static void what_servers_do_without_the_agent_is_counted(void **state)
{
	uint64_t id = begin("");
	Events *seen = NULL;

	wd_mm_add(&mnt.mm, WD_MM_READ_BYTES, 12345);
	wd_mm_add(&mnt.mm, WD_MM_PASSTHROUGH_OPENS, 3);
	wd_mm_add(&mnt.mm, WD_MM_CACHED_OPENS, 4);
	seen = look(id, 0);
	assert_int_equal(seen->server_bytes, 12345);
	assert_int_equal(seen->unseen_opens, 7);
	events_free(seen);
	end(id);
}

static void mount_that_is_not_there_or_ends_is_told(void **state)
{
	struct rig_mount other;
	uint64_t id = 0;
	Events *seen = NULL;

	assert_int_equal(try_begin("/no-such-place", "", "", &id), -ENOENT);
	/* the rig has one place for all mounts: the first is meant */
	rig_mount(&rig, &other, next_mount++, "set", "");
	assert_int_equal(try_begin("/nowhere", "", "", &id), 0);
	rig_umount(&other);
	rig_umount(&mnt);
	assert_int_equal(try_look(id, 10000, &seen), -ENOENT);
	end(id);
	rig_mount(&rig, &mnt, next_mount++, "set", "");
}

static void pod_sees_no_trace(void **state)
{
	Warpdrive__V1__TraceRequest begin_q = WARPDRIVE__V1__TRACE_REQUEST__INIT;
	Warpdrive__V1__ReadTraceRequest read_q = WARPDRIVE__V1__READ_TRACE_REQUEST__INIT;
	Warpdrive__V1__StopTraceRequest stop_q = WARPDRIVE__V1__STOP_TRACE_REQUEST__INIT;
	uint64_t id = begin("");

	assert_int_equal(control_call(&rig, &mnt, "StartTrace", &begin_q.base), -EACCES);
	read_q.id = stop_q.id = id;
	assert_int_equal(control_call(&rig, &mnt, "ReadTrace", &read_q.base), -ENOENT);
	assert_int_equal(control_call(&rig, &mnt, "StopTrace", &stop_q.base), -ENOENT);
	assert_int_equal(control_call(&rig, &mnt, "Trace", &begin_q.base), -ENOSYS);
	events_free(look(id, 0));
	end(id);
}

static void other_pods_are_left_out(void **state)
{
	uint64_t id = 0, node;

	assert_int_equal(try_begin("", "", "6b1e", &id), 0);
	node = open_large("large");
	release(node);
	events_free(look(id, 0));
	end(id);
}

static void traces_are_bounded(void **state)
{
	uint64_t ids[TRACERS_MAX], more;
	Events *seen = NULL;

	for (int i = 0; i < TRACERS_MAX; i++)
		ids[i] = begin("");
	assert_int_equal(try_begin("", "", "", &more), -EAGAIN);
	end(ids[3]);
	assert_int_equal(try_look(ids[3], 0, &seen), -ENOENT);
	ids[3] = begin("");
	for (int i = 0; i < TRACERS_MAX; i++)
		end(ids[i]);
}

int main(void)
{
#define ON_A_MOUNT(f) cmocka_unit_test_setup_teardown(f, mount_set, umount_set)
	const struct CMUnitTest tests[] = {
		ON_A_MOUNT(shows_where_the_bytes_of_each_read_came_from),
		ON_A_MOUNT(small_file_comes_from_the_origin_once),
		ON_A_MOUNT(path_shows_itself_and_what_is_below_it),
		ON_A_MOUNT(failure_is_shown_with_its_errno),
		ON_A_MOUNT(reader_that_is_slow_loses_lines_and_holds_up_nobody),
		ON_A_MOUNT(what_servers_do_without_the_agent_is_counted),
		ON_A_MOUNT(mount_that_is_not_there_or_ends_is_told),
		ON_A_MOUNT(pod_sees_no_trace),
		ON_A_MOUNT(other_pods_are_left_out),
		ON_A_MOUNT(traces_are_bounded),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
