/* SPDX-License-Identifier: Apache-2.0 */
/* Calls from bytes to bytes: what hostile requests meet before a handler sees them, and what it gets. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "csi/csi.pb-c.h"
#include "csi/driver.h"
#include "csi/target.h"

struct state {
	char dir[64];
	struct driver driver;
	struct arena arena;
	struct rpc_call call;
};

static int set_up(void **state)
{
	static struct state s;
	struct wd_err err = WD_ERR_INIT;

	strcpy(s.dir, "/tmp/wd-csi-XXXXXX");
	assert_non_null(mkdtemp(s.dir));
	assert_int_equal(driver_init(&s.driver, s.dir, s.dir, "node", &err), 0);
	arena_init(&s.arena);
	s.call = (struct rpc_call){.arena = &s.arena, .arg = &s.driver, .deadline_ns = 0, .cancel_fd = -1};
	*state = &s;
	return 0;
}

static int tear_down(void **state)
{
	struct state *s = *state;

	arena_done(&s->arena);
	driver_done(&s->driver);
	return rmdir(s->dir);
}

static const struct rpc_method *method(const char *name)
{
	for (size_t i = 0; i < node_nmethods; i++)
		if (strstr(node_methods[i].path, name))
			return &node_methods[i];
	for (size_t i = 0; i < controller_nmethods; i++)
		if (strstr(controller_methods[i].path, name))
			return &controller_methods[i];
	for (size_t i = 0; i < identity_nmethods; i++)
		if (strstr(identity_methods[i].path, name))
			return &identity_methods[i];
	return NULL;
}

static enum rpc_code run(struct state *s, const char *name, const void *bytes, size_t len)
{
	void *out;
	size_t out_len;

	return rpc_run(method(name), &s->call, bytes, len, &out, &out_len);
}

static void a_string_with_a_nul_or_broken_text_is_refused_by_name(void **state)
{
	struct state *s = *state;

	/* volume_id (1) of NodeUnpublishVolume: "a\0b" */
	assert_int_equal(run(s, "NodeUnpublish", "\x0a\x03" "a\0b", 5), RPC_INVALID_ARGUMENT);
	assert_non_null(strstr(s->call.text, "volume_id"));
	assert_int_equal(run(s, "NodeUnpublish", "\x12\x02\xff\xfe", 4), RPC_INVALID_ARGUMENT);
	assert_non_null(strstr(s->call.text, "target_path"));
	/* volume_context (8) of NodePublishVolume: an entry whose value holds a NUL */
	assert_int_equal(run(s, "NodePublish", "\x42\x06\x0a\x01k\x12\x01\0", 8), RPC_INVALID_ARGUMENT);
	assert_non_null(strstr(s->call.text, "volume_context"));
}

static void what_cannot_be_decoded_is_an_error_and_no_crash(void **state)
{
	struct state *s = *state;

	assert_int_equal(run(s, "NodeUnpublish", "\x0a\x7f" "abc", 5), RPC_INTERNAL);
	assert_int_equal(run(s, "NodeUnpublish", "\x0b\x0c", 2), RPC_INTERNAL); /* a group */
	assert_int_equal(run(s, "NodeUnpublish", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11), RPC_INTERNAL);
}

static void an_unknown_field_is_no_mistake(void **state)
{
	assert_int_equal(run(*state, "Probe", "\xfa\x3e\x03new", 6), RPC_OK);
}

static void targets_outside_the_kubelet_directory_create_nothing(void **state)
{
	static const char *const bad[] = {"relative", "/etc/x", "/", "", "//x", "%s/../x", "%s/a/./b", "%s",
		"%s-beside/x", "%s/a//b"};
	struct state *s = *state;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char target[300];
		const char *at = strstr(bad[i], "%s"), *path;

		snprintf(target, sizeof(target), "%s%s", at ? s->dir : "", at ? at + 2 : bad[i]);
		if (target_check(&s->call, &s->driver, "target_path", target, &path) != RPC_INVALID_ARGUMENT)
			fail_msg("'%s' was accepted", target);
		assert_non_null(strstr(s->call.text, "target_path"));
	}
}

static void a_symbolic_link_on_the_way_is_refused(void **state)
{
	struct state *s = *state;
	char link[128], target[160];
	const char *path;

	snprintf(link, sizeof(link), "%s/link", s->dir);
	assert_int_equal(symlink("/tmp", link), 0);
	snprintf(target, sizeof(target), "%s/wd-csi-never", link);
	assert_int_equal(target_check(&s->call, &s->driver, "target_path", target, &path), RPC_OK);
	assert_int_equal(target_make(&s->call, &s->driver, path), RPC_INVALID_ARGUMENT);
	assert_int_equal(access("/tmp/wd-csi-never", F_OK), -1);
	/* and the target itself may be none */
	assert_int_equal(target_check(&s->call, &s->driver, "target_path", link, &path), RPC_OK);
	assert_int_equal(target_make(&s->call, &s->driver, path), RPC_INVALID_ARGUMENT);
	unlink(link);
}

static void a_target_is_made_and_removed_as_often_as_asked(void **state)
{
	struct state *s = *state;
	char target[128];
	const char *path;

	snprintf(target, sizeof(target), "%s/mount/", s->dir);
	assert_int_equal(target_check(&s->call, &s->driver, "target_path", target, &path), RPC_OK);
	for (int i = 0; i < 2; i++)
		assert_int_equal(target_make(&s->call, &s->driver, path), RPC_OK);
	assert_int_equal(access(path, F_OK), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(target_remove(&s->call, &s->driver, path), RPC_OK);
	assert_int_equal(access(path, F_OK), -1);
}

static void one_call_at_a_time_works_on_a_target(void **state)
{
	struct state *s = *state;

	assert_true(driver_claim(&s->driver, "/a"));
	assert_false(driver_claim(&s->driver, "/a"));
	assert_true(driver_claim(&s->driver, "/b"));
	driver_release(&s->driver, "/a");
	assert_true(driver_claim(&s->driver, "/a"));
	driver_release(&s->driver, "/a");
	driver_release(&s->driver, "/b");
}

static void unpublish_of_what_never_was_is_fine(void **state)
{
	struct state *s = *state;
	Csi__V1__NodeUnpublishVolumeRequest in = CSI__V1__NODE_UNPUBLISH_VOLUME_REQUEST__INIT;
	char target[128];
	unsigned char bytes[256];

	snprintf(target, sizeof(target), "%s/gone", s->dir);
	in.volume_id = (char *)"v";
	in.target_path = target;
	assert_int_equal(run(s, "NodeUnpublish", bytes, csi__v1__node_unpublish_volume_request__pack(&in, bytes)),
		RPC_OK);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(a_string_with_a_nul_or_broken_text_is_refused_by_name),
		T(what_cannot_be_decoded_is_an_error_and_no_crash),
		T(an_unknown_field_is_no_mistake),
		T(targets_outside_the_kubelet_directory_create_nothing),
		T(a_symbolic_link_on_the_way_is_refused),
		T(a_target_is_made_and_removed_as_often_as_asked),
		T(one_call_at_a_time_works_on_a_target),
		T(unpublish_of_what_never_was_is_fine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
