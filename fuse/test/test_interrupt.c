/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Readers that are signalled while what they read is absent and the origin is down (mount_fixture.h).
 *
 * What the kernel reads ahead into its page cache belongs to no reader and goes on; a reader that waits
 * for such pages can be killed. A read that goes past the page cache is the reader's own: INTERRUPT
 * ends it, and the agent hears that nobody waits any longer.
 */
#include "fuse/test/mount_fixture.h"

#define EXIT_EINTR 42

static void on_signal(int sig)
{
	(void)sig;
}

static int setup_down(void **state)
{
	int rc = setup_mounted(state);

	wd_lock(&fake.lock);
	fake.is_down = true;
	wd_unlock(&fake.lock);
	return rc;
}

/* A process that reads the beginning of a file, and says how that ended. */
static pid_t start_child(const struct fake_file *f, bool has_handler)
{
	pid_t pid = fork();

	if (pid == 0) {
		struct sigaction action = {.sa_handler = has_handler ? on_signal : SIG_DFL};
		char buf[4096];
		int fd;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		sigaction(SIGINT, &action, NULL);
		fd = open_file(f->name);
		if (fd < 0)
			_exit(1);
		_exit(pread(fd, buf, sizeof(buf), 0) < 0 && errno == EINTR ? EXIT_EINTR : 2);
	}
	assert_true(pid > 0);
	return pid;
}

static void assert_ends_by(pid_t pid, int sig)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), sig);
}

static void a_reader_that_waits_for_pages_can_be_killed(void **state)
{
	static const int signals[] = {SIGKILL, SIGINT};

	for (unsigned i = 0; i < 2; i++) {
		struct fake_file *f = i == 0 ? cold : late;
		pid_t pid = start_child(f, false);

		fake_wait(&f->ensures, 1);
		kill(pid, signals[i]);
		assert_ends_by(pid, signals[i]);
	}
}

static void a_read_of_its_own_ends_with_its_reader(void **state)
{
	static const int signals[] = {SIGKILL, SIGINT};

	for (unsigned i = 0; i < 2; i++) {
		pid_t pid = start_child(direct, false);

		fake_wait(&direct->ensures, i + 1);
		kill(pid, signals[i]);
		assert_ends_by(pid, signals[i]);
		fake_wait(&direct->cancels, i + 1);
	}
	assert_int_equal(fake_get(&fake.parked_ensures), 0);
}

static void a_signal_with_a_handler_ends_a_read_with_eintr(void **state)
{
	pid_t pid = start_child(direct, true);
	int status;

	fake_wait(&direct->ensures, 1);
	kill(pid, SIGINT);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), EXIT_EINTR);
	fake_wait(&direct->cancels, 1);
}

static void a_read_that_was_taken_over_ends_with_its_reader(void **state)
{
	pid_t reader = start_child(direct, false), server = server_pid();

	fake_wait(&direct->ensures, 1);
	kill(server, SIGKILL);
	wait_for_new_server(server);
	fake_wait(&direct->ensures, 2);
	kill(reader, SIGKILL);
	assert_ends_by(reader, SIGKILL);
	fake_wait(&direct->cancels, 1);
	assert_int_equal(fake_get(&fake.parked_ensures), 0);
}

/* While no server lives the kernel keeps who has been heard; the next server lets go. */
static void a_reader_that_is_killed_while_no_server_lives_goes_with_the_next(void **state)
{
	pid_t reader = start_child(direct, false), server = server_pid();

	fake_wait(&direct->ensures, 1);
	kill(server, SIGKILL);
	kill(reader, SIGKILL);
	assert_ends_by(reader, SIGKILL);
	wait_for_new_server(server);
	set_auto();
	wd_lock(&fake.lock);
	fake.is_down = false;
	wd_unlock(&fake.lock);
	assert_reads_right(direct);
}

#define DOWN(name) cmocka_unit_test_setup_teardown(name, setup_down, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		DOWN(a_reader_that_waits_for_pages_can_be_killed),
		DOWN(a_read_of_its_own_ends_with_its_reader),
		DOWN(a_signal_with_a_handler_ends_a_read_with_eintr),
		DOWN(a_read_that_was_taken_over_ends_with_its_reader),
		DOWN(a_reader_that_is_killed_while_no_server_lives_goes_with_the_next),
	};

	return run_fixture(tests, sizeof(tests) / sizeof(tests[0]));
}
