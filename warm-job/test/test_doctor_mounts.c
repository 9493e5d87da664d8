/* SPDX-License-Identifier: Apache-2.0 */
/* The doctor's look at mounts: dead, unserved, foreign, on machines made of files. */
#include "warm-job/test/doctor_fixture.h"

static void check(struct machine *m)
{
	doctor_check_mounts(&m->d);
}

static json_t *keeper_mount(struct machine *m)
{
	return json_array_get(json_object_get(m->d.keeper.json, "mounts"), 0);
}

static void a_served_mount_is_fine(void **state)
{
	struct machine *m = *state;

	check(m);
	assert_int_equal(m->d.nfindings, 1);
	assert_found(&m->d, DOCTOR_OK, "mount /data", "serving, server 300, 3 requests under way", "");
}

static void no_mounts_are_fine(void **state)
{
	struct machine *m = *state;

	put(m, "/proc/self/mountinfo", "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
	check(m);
	assert_int_equal(m->d.nfindings, 1);
	assert_found(&m->d, DOCTOR_OK, "mounts", "none", "");
}

static void a_mount_of_other_programs_is_nobody_s_business(void **state)
{
	struct machine *m = *state;

	put(m, "/proc/self/mountinfo", "22 20 0:41 / /data ro - fuse.sshfs s3://b/d/ ro - fuse.warpdrive x\n"
				       "23 20 0:42 / /x ro - fuse.warpdriver x ro\n");
	check(m);
	assert_found(&m->d, DOCTOR_OK, "mounts", "none", "");
}

static void a_name_with_spaces_is_read_as_it_is(void **state)
{
	struct machine *m = *state;

	put(m, "/proc/self/mountinfo", "22 20 0:41 / /a\\040b\\134\\011 ro - fuse.warpdrive x ro\n");
	json_object_set_new(keeper_mount(m), "target", json_string("/a b\\\t"));
	json_object_set_new(json_array_get(json_object_get(m->d.agent.json, "mounts"), 0), "target",
		json_string("/a b\\\t"));
	check(m);
	assert_found(&m->d, DOCTOR_OK, "mount /a b\\?", "serving", "");
}

static void a_dead_server_is_named(void **state)
{
	struct machine *m = *state;

	take_away(m, "/proc/300");
	check(m);
	assert_only_failure(&m->d, "mount /data", "server 300 is dead", "keeper.log");
}

static void a_server_that_nobody_reaped_is_dead(void **state)
{
	struct machine *m = *state;

	put_process(m, 300, "warpdrive-fuse", 'Z', 65534, "0", 2);
	check(m);
	assert_only_failure(&m->d, "mount /data", "server 300 is dead", "keeper.log");
}

static void a_mount_between_two_servers_is_named(void **state)
{
	struct machine *m = *state;

	json_object_set_new(keeper_mount(m), "server_pid", json_integer(0));
	json_object_set_new(keeper_mount(m), "restarts", json_integer(12));
	check(m);
	assert_only_failure(&m->d, "mount /data", "no server at the moment, 12 were", "keeper.log");
}

static void a_stopped_server_is_named(void **state)
{
	struct machine *m = *state;

	put_process(m, 300, "warpdrive-fuse", 'T', 65534, "0000000000000000", 2);
	check(m);
	assert_only_failure(&m->d, "mount /data", "300 is stopped", "kill -CONT 300");
}

static void a_server_with_privileges_is_named(void **state)
{
	struct machine *m = *state;

	put_process(m, 300, "warpdrive-fuse", 'S', 0, "000001ffffffffff", 0);
	check(m);
	assert_found(&m->d, DOCTOR_FAIL, "mount /data", "runs as root", "by hand");
	assert_found(&m->d, DOCTOR_FAIL, "mount /data", "CapEff 1ffffffffff", "by hand");
	assert_found(&m->d, DOCTOR_FAIL, "mount /data", "no_new_privs", "by hand");
#ifndef WD_SANITIZED
	assert_found(&m->d, DOCTOR_FAIL, "mount /data", "no seccomp filter", "by hand");
#endif
}

static void pids_of_another_namespace_are_not_judged(void **state)
{
	struct machine *m = *state;

	put_process(m, 200, "bash", 'S', 0, "0", 0);
	put_process(m, 300, "vi", 'T', 0, "000001ffffffffff", 0);
	check(m);
	assert_int_equal(m->d.nfindings, 1);
	assert_found(&m->d, DOCTOR_OK, "mount /data", "serving", "");
}

static void a_mount_that_the_agent_does_not_know_is_named(void **state)
{
	struct machine *m = *state;

	replace(&m->d.agent.json, "{\"pid\": 100, \"mounts\": []}");
	check(m);
	assert_only_failure(&m->d, "mount /data", "agent does not know it", "log");
}

static void an_aborted_connection_is_named(void **state)
{
	struct machine *m = *state;

	json_object_set_new(keeper_mount(m), "state", json_string("lost"));
	check(m);
	assert_only_failure(&m->d, "mount /data", "aborted", "warpdrive-ctl umount '/data'");
}

static void a_connection_that_is_gone_is_named(void **state)
{
	struct machine *m = *state;

	take_away(m, "/sys/fs/fuse/connections/41");
	check(m);
	assert_only_failure(&m->d, "mount /data", "aborted", "warpdrive-ctl umount '/data'");
}

static void without_fusectl_nothing_is_said_of_connections(void **state)
{
	struct machine *m = *state;

	take_away(m, "/sys/fs/fuse/connections/41");
	put(m, "/proc/self/mountinfo", "22 20 0:41 / /data ro - fuse.warpdrive x ro\n");
	check(m);
	assert_int_equal(m->d.nfindings, 1);
	assert_found(&m->d, DOCTOR_OK, "mount /data", "serving, server 300", "");
}

static void a_mount_that_nobody_holds_is_dead(void **state)
{
	struct machine *m = *state;

	json_decref(m->d.keeper.json);
	m->d.keeper.json = NULL;
	take_away(m, "/proc/200");
	take_away(m, "/proc/300");
	check(m);
	assert_only_failure(&m->d, "mount /data", "dead: no process holds", "umount '/data'");
}

static void another_mount_in_the_same_place_is_not_the_keeper_s(void **state)
{
	struct machine *m = *state;

	put(m, "/proc/self/mountinfo", "22 20 0:77 / /data ro - fuse.warpdrive x ro\n");
	check(m);
	assert_only_failure(&m->d, "mount /data", "dead: no process holds", "0:77");
}

static void who_is_not_root_cannot_call_a_mount_dead(void **state)
{
	struct machine *m = *state;

	replace(&m->d.keeper.json, "{\"pid\": 200, \"mounts\": []}");
	take_away(m, "/proc/200");
	take_away(m, "/proc/300");
	m->d.is_root = false;
	check(m);
	assert_only_warning(&m->d, "mount /data", "not known", "as root");
}

static void a_mount_without_a_keeper_is_named(void **state)
{
	struct machine *m = *state;

	json_decref(m->d.keeper.json);
	m->d.keeper.json = NULL;
	take_away(m, "/proc/200");
	check(m);
	assert_only_failure(&m->d, "mount /data", "no keeper looks after it; process 300", "start a keeper");
}

static void another_keeper_s_mount_is_fine(void **state)
{
	struct machine *m = *state;

	replace(&m->d.keeper.json, "{\"pid\": 999, \"mounts\": []}");
	check(m);
	assert_int_equal(m->d.nfindings, 1);
	assert_found(&m->d, DOCTOR_OK, "mount /data", "another keeper's, pid 200", "");
}

static void kernels_that_name_no_connection_give_the_benefit_of_doubt(void **state)
{
	struct machine *m = *state;

	replace(&m->d.keeper.json, "{\"pid\": 999, \"mounts\": []}");
	put(m, "/proc/200/fdinfo/7", "pos:\t0\n");
	put(m, "/proc/300/fdinfo/3", "pos:\t0\n");
	check(m);
	assert_found(&m->d, DOCTOR_OK, "mount /data", "another keeper's, pid 200", "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		MACHINE_TEST(a_served_mount_is_fine),
		MACHINE_TEST(no_mounts_are_fine),
		MACHINE_TEST(a_mount_of_other_programs_is_nobody_s_business),
		MACHINE_TEST(a_name_with_spaces_is_read_as_it_is),
		MACHINE_TEST(a_dead_server_is_named),
		MACHINE_TEST(a_server_that_nobody_reaped_is_dead),
		MACHINE_TEST(a_mount_between_two_servers_is_named),
		MACHINE_TEST(a_stopped_server_is_named),
		MACHINE_TEST(a_server_with_privileges_is_named),
		MACHINE_TEST(pids_of_another_namespace_are_not_judged),
		MACHINE_TEST(a_mount_that_the_agent_does_not_know_is_named),
		MACHINE_TEST(an_aborted_connection_is_named),
		MACHINE_TEST(a_connection_that_is_gone_is_named),
		MACHINE_TEST(without_fusectl_nothing_is_said_of_connections),
		MACHINE_TEST(a_mount_that_nobody_holds_is_dead),
		MACHINE_TEST(another_mount_in_the_same_place_is_not_the_keeper_s),
		MACHINE_TEST(who_is_not_root_cannot_call_a_mount_dead),
		MACHINE_TEST(a_mount_without_a_keeper_is_named),
		MACHINE_TEST(another_keeper_s_mount_is_fine),
		MACHINE_TEST(kernels_that_name_no_connection_give_the_benefit_of_doubt),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
