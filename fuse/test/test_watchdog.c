/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Servers that live and do not serve (mount_fixture.h). Under load a short --server-timeout may hit a
 * server that is merely slow: that is right, too, so nothing here counts kills from above.
 */
#include "fuse/test/mount_fixture.h"

/* long enough for a server to start in, on a busy machine */
#ifdef WD_SANITIZED
#define SHORT "5s"
#else
#define SHORT "800ms"
#endif

static long counter(const char *name)
{
	char key[64];

	snprintf(key, sizeof(key), "\"%s\":", name);
	return status_number(key);
}

static bool is_seen_stopped(void)
{
	return strstr(status_text(), "\"server_is_stopped\":true") != NULL;
}

/* The time-out is 30 s here: what ends this one is that it is seen to be stopped. */
static void a_stopped_server_is_replaced_at_once(void **state)
{
	struct reader r;
	pid_t pid;

	do_mount("{}");
	pid = server_pid();
	kill(pid, SIGSTOP);
	start_reader(&r, complete);
	join_reader(&r);
	assert_int_not_equal(server_pid(), pid);
	assert_true(counter("stopped_kills") >= 1);
	assert_int_equal(counter("watchdog_kills"), 0);
	assert_true(counter("takeovers") >= 1);
	set_auto();
	assert_reads_right(cold);
	do_umount();
}

static void a_server_that_is_continued_in_time_goes_on(void **state)
{
	pid_t pid;

	restart_with(NULL, "--stopped-timeout", "10m");
	do_mount("{}");
	pid = server_pid();
	for (int i = 0; i < 3; i++) {
		kill(pid, SIGSTOP);
		while (!is_seen_stopped())
			usleep(1000);
		kill(pid, SIGCONT);
		while (is_seen_stopped())
			usleep(1000);
	}
	assert_reads_right(complete);
	assert_int_equal(server_pid(), pid);
	do_umount();
}

/* It is stopped while it holds requests, again and again. */
static void readers_outlive_servers_that_are_stopped(void **state)
{
	struct fake_file *files[] = {cold, late, direct, bytes};
	struct reader readers[4];
	pid_t pid = 0;

	do_mount("{}");
	for (int i = 0; i < 4; i++)
		start_reader(&readers[i], files[i]);
	for (int i = 0; i < 10; i++) {
		pid = wait_for_new_server(pid);
		kill(pid, SIGSTOP);
	}
	wait_for_new_server(pid);
	assert_int_equal(counter("stopped_kills"), 10);
	assert_int_equal(counter("watchdog_kills"), 0);
	set_auto();
	fake_fill(cold, 0, cold->size);
	fake_fill(late, 0, late->size);
	for (int i = 0; i < 4; i++)
		join_reader(&readers[i]);
	do_umount();
}

static void a_server_that_answers_nothing_is_replaced(void **state)
{
	struct reader r;
	pid_t pid;

	keeper_options[2] = "--stopped-timeout";
	keeper_options[3] = "0";
	restart_with(NULL, "--server-timeout", SHORT);
	do_mount("{}");
	pid = server_pid();
	kill(pid, SIGSTOP);
	start_reader(&r, complete);
	join_reader(&r);
	assert_int_not_equal(server_pid(), pid);
	assert_true(counter("watchdog_kills") >= 1);
	assert_int_equal(counter("stopped_kills"), 0);
	do_umount();
}

static void parked_requests_are_no_hang(void **state)
{
	pid_t pid;
	struct reader r;

	restart_with(NULL, "--server-timeout", "4s");
	do_mount("{}");
	pid = server_pid();
	start_reader(&r, cold);
	fake_wait(&fake.parked_ensures, 1);
	usleep(5500000); /* what is shown is that nothing happens in more than the time-out */
	assert_int_equal(server_pid(), pid);
	set_auto();
	fake_fill(cold, 0, cold->size);
	join_reader(&r);
}

#ifdef WD_FAULTS

/* The main thread is well; a thread that received a request is not. */
static void a_server_whose_receiving_thread_hangs_is_replaced(void **state)
{
	keeper_options[0] = "--server-timeout";
	keeper_options[1] = SHORT;
	restart_with_faults("server.hang=@5");
	do_mount("{}");
	set_auto();
	/* each server loses a thread at its fifth request, and the next one answers that */
	do {
		assert_reads_right(late);
		usleep(10000);
	} while (counter("watchdog_kills") < 1);
	do_umount();
}

static void a_mount_whose_server_never_gets_ready_fails(void **state)
{
	struct wd_err err = WD_ERR_INIT;

	keeper_options[0] = "--server-timeout";
	keeper_options[1] = "50ms";
	restart_with_faults("server.mute=0");
	assert_true(ask_mount(target, "{}", &err) < 0);
	assert_non_null(strstr(err.msg, "does not start"));
	assert_true(counter("watchdog_kills") >= 1);
}

/* Each server needs 1.5 s before it is ready: as it may be on a machine under load. */
static void the_time_out_grows_until_a_slow_server_serves(void **state)
{
	keeper_options[0] = "--server-timeout";
	keeper_options[1] = "500ms";
	restart_with_faults("server.slow=0");
	do_mount("{}");
	assert_true(counter("watchdog_kills") >= 2);
	assert_true(counter("server_timeout_ms") >= 2000);
	assert_reads_right(complete);
	/* and is again what it was when one has answered for so long */
	while (counter("server_timeout_ms") != 500)
		usleep(10000);
	do_umount();
}

#endif

int main(void)
{
	static const struct CMUnitTest tests[] = {
		PLAIN(a_stopped_server_is_replaced_at_once),
		PLAIN(a_server_that_is_continued_in_time_goes_on),
		PLAIN(readers_outlive_servers_that_are_stopped),
		PLAIN(a_server_that_answers_nothing_is_replaced),
		PLAIN(parked_requests_are_no_hang),
#ifdef WD_FAULTS
		PLAIN(a_server_whose_receiving_thread_hangs_is_replaced),
		PLAIN(a_mount_whose_server_never_gets_ready_fails),
		PLAIN(the_time_out_grows_until_a_slow_server_serves),
#endif
	};

	return run_fixture(tests, sizeof(tests) / sizeof(tests[0]));
}
