/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Torture of the FUSE server: a mount is made, read in every mode, listed and asked for this and
 * that, again and again, and each time one allocation more of the server is let through before one
 * fails. The mount comes up or is refused with a reason; every operation ends, with what was asked
 * for or with a definite error; and once no server fails any more all is well.
 */
#include "fuse/test/mount_fixture.h"

#ifdef WD_FAULTS

#define ROUNDS_MAX 400
#define QUIET_ROUNDS 3 /* so many in a row without a failure: there is nothing left to fail */

static char log_path[] = "/tmp/wd-torture-XXXXXX";

/* Counts lines with that text from *at on, and moves *at to the end. */
static unsigned count_in_log(const char *text, long *at)
{
	unsigned n = 0;
	char line[1024];
	FILE *f = fopen(log_path, "re");

	assert_non_null(f);
	fseek(f, *at, SEEK_SET);
	while (fgets(line, sizeof(line), f))
		n += strstr(line, text) != NULL;
	*at = ftell(f);
	fclose(f);
	return n;
}

static void restart_logged(const char *faults)
{
	int saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	int log = open(log_path, O_WRONLY | O_APPEND | O_CLOEXEC);

	assert_true(saved >= 0 && log >= 0);
	/* the agent forgets the mount of the keeper before */
	end_keeper();
	fake_stop();
	fake_start();
	dup2(log, STDERR_FILENO);
	restart_with_faults(faults);
	dup2(saved, STDERR_FILENO);
	close(log);
	close(saved);
}

/* 0, or 1 for an error that short memory may give; anything else fails the test. */
static unsigned definite(int code, const char *what)
{
	if (code == ENOMEM || code == EIO || code == ENFILE || code == ESTALE)
		return 1;
	if (code != 0)
		fail_msg("%s: %s is no answer to short memory", what, strerror(code));
	return 0;
}

static unsigned list_many(void)
{
	char path[300];
	struct dirent *e;
	unsigned n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "%s/many", target);
	d = opendir(path);
	if (!d)
		return definite(errno, "opendir");
	errno = 0;
	while ((e = readdir(d)))
		n++;
	if (errno == 0)
		assert_int_equal(n, FAKE_MANY + 2);
	n = definite(errno, "readdir");
	closedir(d);
	return n;
}

/* The number of operations that were refused. */
static unsigned use_the_mount(void)
{
	struct fake_file *files[] = {complete, late, bytes, direct, empty};
	char path[300], value[64];
	struct statvfs vfs;
	unsigned refused = 0;
	struct stat st;

	for (int i = 0; i < 5; i++)
		refused += definite(read_whole(files[i]), files[i]->name);
	refused += list_many();
	snprintf(path, sizeof(path), "%s/complete", target);
	refused += definite(stat(path, &st) < 0 ? errno : 0, "stat");
	refused += definite(statvfs(path, &vfs) < 0 ? errno : 0, "statvfs");
	refused += definite(
		getxattr(path, "user.warpdrive.cached", value, sizeof(value)) < 0 ? errno : 0,
		"getxattr");
	refused += definite(listxattr(path, NULL, 0) < 0 ? errno : 0, "listxattr");
	snprintf(path, sizeof(path), "%s/nowhere", target);
	assert_int_equal(stat(path, &st), -1);
	refused += errno != ENOENT ? definite(errno, "stat") : 0;
	return refused;
}

static void every_allocation_of_a_server_may_fail(void **state)
{
	unsigned n, injected = 0, refusals = 0, mounts_refused = 0, quiet = 0;
	int log = mkostemp(log_path, O_CLOEXEC);
	long at = 0;

	assert_true(log >= 0);
	close(log);
	set_auto();
	for (n = 1; n < ROUNDS_MAX && quiet < QUIET_ROUNDS; n++) {
		struct wd_err err = WD_ERR_INIT;
		char faults[64];
		unsigned failed;

		guard->deadline = wd_now_ns() / 1000000000 + SECONDS;
		guard->connection = 0;
		snprintf(faults, sizeof(faults), "server.malloc=@%u", n);
		restart_logged(faults);
		if (ask_mount(target, "{}", &err) < 0) {
			assert_true(err.msg[0] != '\0');
			mounts_refused++;
		} else {
			refusals += use_the_mount();
			/* readers that take over from a server that failed */
			kill(server_pid(), SIGKILL);
			refusals += use_the_mount();
			do_umount();
		}
		failed = count_in_log("an allocation fails", &at);
		assert_int_equal(count_in_log("was ended by signal 11", &(long){0}), 0);
		injected += failed;
		quiet = failed ? 0 : quiet + 1;
	}
	print_message("%u allocations, %u failures injected, %u mounts and %u operations refused\n",
		n - 1, injected, mounts_refused, refusals);
	assert_true(n < ROUNDS_MAX);
	assert_true(injected > 10);
	restart_logged("server.malloc=@1000000");
	do_mount("{}");
	assert_int_equal(use_the_mount(), 0);
	do_umount();
	unlink(log_path);
}

#endif

int main(void)
{
	static const struct CMUnitTest tests[] = {
#ifdef WD_FAULTS
		PLAIN(every_allocation_of_a_server_may_fail),
#endif
	};

#ifdef WD_FAULTS
	return run_fixture(tests, sizeof(tests) / sizeof(tests[0]));
#else
	(void)tests;
	return 77;
#endif
}
