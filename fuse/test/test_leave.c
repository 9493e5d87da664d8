/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGTERM: who may leave, and who stays with the mounts (mount_fixture.h).
 */
#include "fuse/test/other_holder.h"

/* The first keeper has met the agent already: a new one meets one that is no holder. */
static int setup_without(const char *option, void **state)
{
	int rc = setup(state);

	if (rc == 0) {
		wd_lock(&fake.lock);
		fake.is_no_holder = true;
		wd_unlock(&fake.lock);
		restart_with(NULL, option, NULL);
		do_mount("{}");
	}
	return rc;
}

static int setup_without_holder(void **state)
{
	return setup_without(NULL, state);
}

static int setup_private_without_holder(void **state)
{
	return setup_without("--exit-when-idle", state);
}

static void assert_keeper_ends(void)
{
	int status;

	assert_int_equal(waitpid(guard->keeper, &status, 0), guard->keeper);
	guard->keeper = 0;
	assert_int_equal(status, 0);
	assert_int_equal(access(keeper_sock, F_OK), -1);
}

static dev_t device_of_target(void)
{
	struct stat st;

	assert_int_equal(stat(target, &st), 0);
	return st.st_dev;
}

static void a_keeper_leaves_its_mounts_to_a_holder(void **state)
{
	dev_t before = device_of_target();
	pid_t old = server_pid();
	int fd = open_file("complete");
	unsigned char buf[100];

	assert_true(fd >= 0);
	kill(guard->keeper, SIGTERM);
	assert_keeper_ends();
	assert_int_equal(device_of_target(), before); /* its server serves on */
	set_auto();
	assert_reads_right(late);
	start_keeper(NULL);
	wait_for_new_server(old);
	assert_int_equal(pread(fd, buf, sizeof(buf), 77), sizeof(buf));
	close(fd);
	assert_reads_right(complete);
	do_umount();
}

static void a_keeper_alone_stays_until_a_holder_comes(void **state)
{
	struct other o;
	unsigned holds;

	kill(guard->keeper, SIGTERM);
	set_auto();
	assert_reads_right(late);
	assert_non_null(strstr(status_text(), "\"serving\""));
	other_init(&o);
	other_connect(&o);
	while (other_step(&o))
		;
	holds = o.hold.count;
	assert_keeper_ends();
	assert_int_equal(holds, 1);
	assert_reads_right(late);
	start_keeper(NULL);
	other_connect(&o);
	other_wait_for_deposit(&o);
	wait_for_new_server(0);
	do_umount();
	other_done(&o);
}

static void a_private_keeper_alone_unmounts_what_is_idle(void **state)
{
	dev_t before = device_of_target();
	int fd = open_file("complete");

	assert_true(fd >= 0);
	kill(guard->keeper, SIGTERM);
	assert_int_equal(device_of_target(), before);
	assert_non_null(strstr(status_text(), "\"serving\""));
	close(fd);
	assert_keeper_ends();
	guard->connection = 0;
	assert_true(device_of_target() != before);
}

static void a_holder_leaves_when_the_keeper_stays(void **state)
{
	struct other o;

	other_init(&o);
	assert_true(wd_hold_may_leave(&o.hold)); /* it has nothing */
	other_connect(&o);
	other_wait_for_deposit(&o);
	assert_false(wd_hold_may_leave(&o.hold));
	wd_hold_leave(&o.hold);
	while (!wd_hold_may_leave(&o.hold))
		assert_true(other_step(&o));
	/* now the keeper does not count on it any more */
	kill(guard->keeper, SIGTERM);
	assert_reads_right(complete);
	assert_non_null(strstr(status_text(), "\"serving\""));
	other_done(&o);
	other_init(&o);
	other_connect(&o);
	while (other_step(&o))
		;
	assert_keeper_ends();
	other_done(&o);
}

static void a_holder_waits_for_a_keeper(void **state)
{
	struct other o;

	other_init(&o);
	other_connect(&o);
	other_wait_for_deposit(&o);
	end_keeper_by(SIGKILL);
	while (other_step(&o))
		;
	wd_hold_leave(&o.hold);
	assert_false(wd_hold_may_leave(&o.hold));
	start_keeper(NULL);
	other_connect(&o);
	while (!wd_hold_may_leave(&o.hold))
		assert_true(other_step(&o));
	other_done(&o);
	set_auto();
	assert_reads_right(late);
}

/* Both ask before either hears of the other: the keeper goes, the holder stays. */
static void of_two_that_leave_at_once_one_stays(void **state)
{
	struct pollfd p;
	struct other o;

	other_init(&o);
	other_connect(&o);
	other_wait_for_deposit(&o);
	kill(guard->keeper, SIGTERM);
	p = (struct pollfd){.fd = o.sock, .events = POLLIN};
	assert_int_equal(poll(&p, 1, -1), 1); /* the keeper's wish is here, unread */
	wd_hold_leave(&o.hold);
	while (other_step(&o))
		assert_false(wd_hold_may_leave(&o.hold));
	assert_false(wd_hold_may_leave(&o.hold));
	assert_keeper_ends();
	start_keeper(NULL);
	other_connect(&o);
	while (!wd_hold_may_leave(&o.hold))
		assert_true(other_step(&o));
	assert_int_equal(o.hold.count, 1);
	other_done(&o);
	set_auto();
	assert_reads_right(late);
	do_umount();
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		MOUNTED(a_keeper_leaves_its_mounts_to_a_holder),
		cmocka_unit_test_setup_teardown(a_keeper_alone_stays_until_a_holder_comes,
			setup_without_holder, teardown),
		cmocka_unit_test_setup_teardown(a_private_keeper_alone_unmounts_what_is_idle,
			setup_private_without_holder, teardown),
		cmocka_unit_test_setup_teardown(
			a_holder_leaves_when_the_keeper_stays, setup_without_holder, teardown),
		cmocka_unit_test_setup_teardown(
			a_holder_waits_for_a_keeper, setup_without_holder, teardown),
		cmocka_unit_test_setup_teardown(
			of_two_that_leave_at_once_one_stays, setup_without_holder, teardown),
	};

	return run_fixture(tests, sizeof(tests) / sizeof(tests[0]));
}
