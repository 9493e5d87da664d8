/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a server is, as /proc shows it, and what becomes of one that does what it must not: a build
 * with fault points does any system call that the test names (server_misbehave.c), the filter ends
 * it, the keeper starts another, and readers notice nothing.
 */
#include "fuse/test/mount_fixture.h"

#include <net/if.h>
#include <sys/ioctl.h>

#include "fuse/server.h"

/* Keeper and servers write to a file, which the tests read. */
static char log_path[200];

static int log_begin(void)
{
	int saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	int log = open(log_path, O_WRONLY | O_APPEND | O_CLOEXEC);

	assert_true(saved >= 0 && log >= 0);
	dup2(log, STDERR_FILENO);
	close(log);
	return saved;
}

static void log_end(int saved)
{
	dup2(saved, STDERR_FILENO);
	close(saved);
}

static void restart_logged(const char *faults)
{
	int saved = log_begin();

	restart_with_faults(faults);
	log_end(saved);
}

/* ---- what /proc shows ---- */

/* A line of /proc/PID/task/TID/status, without its key and the white space around; static. */
static const char *task_line(pid_t pid, const char *task, const char *key)
{
	static char line[256];
	char path[300], *value = NULL;
	size_t len = strlen(key);
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%s/status", (int)pid, task);
	f = fopen(path, "re");
	assert_non_null(f);
	while (!value && fgets(line, sizeof(line), f))
		if (strncmp(line, key, len) == 0 && line[len] == ':')
			value = line + len + 1 + strspn(line + len + 1, "\t ");
	fclose(f);
	assert_non_null(value);
	value[strcspn(value, "\n")] = '\0';
	for (size_t n = strlen(value); n > 0 && value[n - 1] == ' '; n--)
		value[n - 1] = '\0';
	return value;
}

static void check_task(pid_t pid, const char *task)
{
	static const char *const caps[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"};

	assert_string_equal(task_line(pid, task, "NoNewPrivs"), "1");
#ifndef WD_COVERAGE
	for (int i = 0; i < 5; i++)
		assert_string_equal(task_line(pid, task, caps[i]), "0000000000000000");
	assert_string_equal(task_line(pid, task, "Uid"), "65534\t65534\t65534\t65534");
	assert_string_equal(task_line(pid, task, "Gid"), "65534\t65534\t65534\t65534");
	assert_string_equal(task_line(pid, task, "Groups"), "");
#else
	(void)caps;
#endif
#if !defined(WD_SANITIZED) && !defined(WD_COVERAGE)
	assert_string_equal(task_line(pid, task, "Seccomp"), "2");
#endif
}

static void no_thread_of_a_server_has_a_privilege(void **state)
{
	unsigned ntasks = 0;
	struct dirent *e;
	char path[64];
	pid_t pid = server_pid();
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	d = opendir(path);
	assert_non_null(d);
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		check_task(pid, e->d_name);
		ntasks++;
	}
	closedir(d);
	assert_true(ntasks >= LOOP_THREADS + REPLY_THREADS + 2);
}

/* In a child, which enters the namespace: the number of interfaces that are up, or -1. */
static int interfaces_up(int ns)
{
	struct if_nameindex *names;
	int sock, up = 0;

	if (setns(ns, CLONE_NEWNET) < 0)
		return -1;
	sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	names = if_nameindex();
	for (struct if_nameindex *i = names; i && i->if_index; i++) {
		struct ifreq req = {0};

		snprintf(req.ifr_name, sizeof(req.ifr_name), "%s", i->if_name);
		if (ioctl(sock, SIOCGIFFLAGS, &req) < 0 || (req.ifr_flags & IFF_UP))
			up++;
	}
	if_freenameindex(names);
	close(sock);
	return up;
}

static void a_server_has_no_network(void **state)
{
	char path[64], theirs[64] = "", ours[64] = "";
	pid_t child;
	int ns, status;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)server_pid());
	assert_true(readlink(path, theirs, sizeof(theirs) - 1) > 0);
	assert_true(readlink("/proc/self/ns/net", ours, sizeof(ours) - 1) > 0);
	assert_string_not_equal(theirs, ours);
	ns = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(ns >= 0);
	child = fork();
	if (child == 0)
		_exit(interfaces_up(ns));
	close(ns);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* What descriptor fd of the server is, by the beginning of what /proc says. */
static void check_fd(pid_t pid, int fd, const char *is)
{
	char path[64], what[300] = "";

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
	assert_true(readlink(path, what, sizeof(what) - 1) > 0);
	if (strncmp(what, is, strlen(is)) != 0)
		fail_msg("descriptor %d is '%s', not '%s'", fd, what, is);
}

static void a_server_has_the_descriptors_that_it_needs_and_no_others(void **state)
{
	pid_t pid = server_pid();
	char path[64], cwd[64];

	check_fd(pid, 0, "/dev/null");
	check_fd(pid, 1, log_path);
	check_fd(pid, 2, log_path);
	check_fd(pid, 3, "/dev/fuse");
	check_fd(pid, 4, "/memfd:warpdrive-info");
	check_fd(pid, 5, "/memfd:warpdrive-tables");
	check_fd(pid, 6, "socket:");
	check_fd(pid, 7, "socket:");
	check_fd(pid, 8, "anon_inode:[timerfd]");
	assert_int_equal(count_fds(pid), 9);
	/* what is opened by passthrough or complete costs it nothing */
	assert_reads_right(complete);
	assert_int_equal(count_fds(pid), 9);
	snprintf(path, sizeof(path), "/proc/%d/cwd", (int)pid);
	assert_int_equal(readlink(path, cwd, sizeof(cwd)), 1);
	assert_int_equal(cwd[0], '/');
}

static void a_server_knows_nothing_of_the_keepers_environment(void **state)
{
	static char env[8192];
	char path[64];
	ssize_t n;
	int fd;

	setenv("AWS_SECRET_ACCESS_KEY", "hunter2", 1);
	setenv("WARPDRIVE_LOG", "debug", 1);
	restart_logged("server.die=@1000000");
	unsetenv("AWS_SECRET_ACCESS_KEY");
	unsetenv("WARPDRIVE_LOG");
	do_mount("{}");
	snprintf(path, sizeof(path), "/proc/%d/environ", (int)server_pid());
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	n = read(fd, env, sizeof(env) - 1);
	close(fd);
	assert_true(n > 0);
	for (ssize_t i = 0; i < n; i++)
		if (env[i] == '\0')
			env[i] = '\n';
	assert_null(strstr(env, "hunter2"));
	assert_null(strstr(env, "PATH="));
	assert_non_null(strstr(env, "WARPDRIVE_LOG=debug\n"));
}

/* ---- misdeeds ---- */

#ifdef WD_FAULTS
struct server server; /* for the object that knows the misdeeds' names */
#endif

#if defined(WD_FAULTS) && !defined(WD_SANITIZED) && !defined(WD_COVERAGE)

#define DEATHS_PER_MOUNT 3 /* more in a row are replaced ever more slowly */

static bool log_has(const char *text)
{
	char line[1024];
	bool has = false;
	FILE *f = fopen(log_path, "re");

	assert_non_null(f);
	while (!has && fgets(line, sizeof(line), f))
		has = strstr(line, text) != NULL;
	fclose(f);
	return has;
}

static void ask_to_misbehave(const char *name)
{
	char path[300], attribute[100], value[16];

	snprintf(path, sizeof(path), "%s/complete", target);
	snprintf(attribute, sizeof(attribute), "user.misbehave.%s", name);
	errno = 0;
	assert_int_equal(getxattr(path, attribute, value, sizeof(value)), -1);
	assert_int_equal(errno, ENODATA);
}

/* The server dies of it, is replaced, and its successor answers. */
static void misdeed(const char *name)
{
	pid_t before = server_pid(), after;
	char line[100];

	ask_to_misbehave(name);
	after = server_pid();
	snprintf(line, sizeof(line), "not stopped: %s ", name);
	if (after == before || log_has(line))
		fail_msg("'%s' was not stopped", name);
	snprintf(line, sizeof(line), "FUSE server %d of ", (int)before);
	assert_true(log_has(line));
}

struct endless {
	pthread_t thread;
	struct fake_file *file;
	_Atomic bool stop;
	int rc;
	unsigned rounds;
};

static void *run_endless(void *arg)
{
	struct endless *e = arg;

	while (!e->stop && e->rc == 0) {
		e->rc = read_whole(e->file);
		e->rounds++;
	}
	return NULL;
}

static void a_server_that_misbehaves_is_stopped_and_readers_go_on(void **state)
{
	struct fake_file *files[] = {complete, late, direct};
	struct endless readers[3];
	unsigned n = 0, deaths = 0;
	const char *name;
	int sigsys = 0;
	char line[1024];
	FILE *f;

	restart_logged("server.misbehave=0");
	set_auto();
	while (misbehave_name(n)) {
		unsigned end = n + DEATHS_PER_MOUNT;

		do_mount("{}");
		for (int i = 0; i < 3; i++) {
			readers[i] = (struct endless){.file = files[i]};
			assert_int_equal(pthread_create(&readers[i].thread, NULL, run_endless,
						 &readers[i]),
				0);
		}
		for (; n < end && (name = misbehave_name(n)); n++)
			misdeed(name);
		for (int i = 0; i < 3; i++) {
			readers[i].stop = true;
			pthread_join(readers[i].thread, NULL);
			if (readers[i].rc)
				fail_msg("reader of '%s': %s", files[i]->name,
					strerror(readers[i].rc));
		}
		do_umount();
		guard->deadline = wd_now_ns() / 1000000000 + SECONDS;
	}
	f = fopen(log_path, "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		deaths += strstr(line, "was ended by signal") != NULL;
		sigsys += strstr(line, "was ended by signal 31") != NULL;
	}
	fclose(f);
	print_message("%u misdeeds, %d times SIGSYS\n", n, sigsys);
	assert_int_equal(sigsys, n);
	assert_int_equal(deaths, n);
}

/* ---- lies ---- */

static char other[200]; /* another mount */

static void mount_other(void)
{
	struct wd_err err = WD_ERR_INIT;

	snprintf(other, sizeof(other), "%s/other", dir);
	assert_int_equal(mkdir(other, 0755), 0);
	if (ask_mount(other, "{}", &err) < 0)
		fail_msg("%s", err.msg);
}

static void umount_other(void)
{
	struct wd_err err = WD_ERR_INIT;

	if (ask_umount(other, 0, &err) < 0)
		fail_msg("%s", err.msg);
	rmdir(other);
}

static int read_other(void)
{
	unsigned char *buf = malloc(700000);
	char path[300];
	ssize_t n;
	int fd, rc;

	snprintf(path, sizeof(path), "%s/complete", other);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = pread(fd, buf, 700000, 0);
	rc = n == 700000 && is_right(complete, buf, 0, 700000) ? 0 : -EIO;
	close(fd);
	free(buf);
	return rc;
}

/* The pid of the server of that mountpoint. */
static pid_t server_of(const char *where)
{
	const char *at = strstr(status_text(), where);

	at = at ? strstr(at, "\"server_pid\":") : NULL;
	return at ? (pid_t)strtol(at + strlen("\"server_pid\":"), NULL, 10) : -1;
}

/* What a server says to the keeper beyond its one READY costs it its life, and nobody else a thing. */
static void a_server_that_lies_to_the_keeper_is_replaced(void **state)
{
	static const char *const lies[] = {
		"ready-again", "ready-with-fds", "mount-please", "junk-to-keeper"};

	restart_logged("server.misbehave=0");
	set_auto();
	for (int i = 0; i < 4; i++) {
		pid_t before, theirs;

		do_mount("{}");
		mount_other();
		before = server_of(target);
		theirs = server_of(other);
		assert_true(before > 0 && theirs > 0);
		ask_to_misbehave(lies[i]);
		while (server_of(target) == before || server_of(target) <= 0)
			usleep(1000);
		assert_reads_right(late);
		assert_int_equal(server_of(other), theirs);
		assert_int_equal(read_other(), 0);
		umount_other();
		do_umount();
	}
	assert_int_equal(waitpid(guard->keeper, NULL, WNOHANG), 0);
	assert_true(count_fds(guard->keeper) < 40);
}

/* A server wrecks its mount's tables and dies. What becomes of that mount is its own affair; the
 * keeper and the other mount go on, and the wreck can be taken away. */
static void a_server_that_wrecks_its_tables_harms_its_own_mount_only(void **state)
{
	char path[300], value[16];
	pid_t child, theirs;

	restart_logged("server.misbehave=0");
	set_auto();
	do_mount("{}");
	mount_other();
	theirs = server_of(other);
	snprintf(path, sizeof(path), "%s/complete", target);
	child = fork(); /* whoever waits for the wreck may wait long */
	if (child == 0)
		_exit(getxattr(path, "user.misbehave.scribble", value, sizeof(value)) < 0);
	while (!log_has("about to misbehave: scribble"))
		usleep(1000);
	for (int i = 0; i < 5; i++) {
		pid_t pid = server_of(target);

		if (pid > 0)
			kill(pid, SIGKILL);
		assert_int_equal(read_other(), 0);
	}
	assert_int_equal(waitpid(guard->keeper, NULL, WNOHANG), 0);
	abort_connection();
	waitpid(child, NULL, 0);
	assert_int_equal(read_other(), 0);
	assert_int_equal(server_of(other), theirs);
	umount_other();
}

/* The harness itself: a command that does nothing ends nobody, and without the fault point armed
 * nothing can be commanded. */
static void a_server_that_does_nothing_wrong_is_left_alone(void **state)
{
	pid_t before;

	restart_logged("server.misbehave=0");
	do_mount("{}");
	before = server_pid();
	ask_to_misbehave("nothing");
	assert_int_equal(server_pid(), before);
	assert_true(log_has("about to misbehave: nothing"));
	do_umount();
	restart_logged("server.die=@1000000");
	do_mount("{}");
	before = server_pid();
	ask_to_misbehave("openat");
	assert_int_equal(server_pid(), before);
}

#endif

static int setup_logged(void **state)
{
	int log, saved, rc;

	snprintf(log_path, sizeof(log_path), "/tmp/wd-jail-XXXXXX");
	log = mkostemp(log_path, O_CLOEXEC);
	if (log < 0)
		return -1;
	close(log);
	saved = log_begin();
	rc = setup(state);
	log_end(saved);
	return rc;
}

static int setup_logged_mounted(void **state)
{
	int rc = setup_logged(state);

	if (rc == 0)
		do_mount("{}");
	return rc;
}

static int teardown_logged(void **state)
{
	int rc = teardown(state);

	unlink(log_path);
	return rc;
}

#define LOGGED(name) cmocka_unit_test_setup_teardown(name, setup_logged, teardown_logged)
#define LOGGED_MOUNTED(name)                                                                       \
	cmocka_unit_test_setup_teardown(name, setup_logged_mounted, teardown_logged)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		LOGGED_MOUNTED(no_thread_of_a_server_has_a_privilege),
		LOGGED_MOUNTED(a_server_has_no_network),
		LOGGED_MOUNTED(a_server_has_the_descriptors_that_it_needs_and_no_others),
		LOGGED(a_server_knows_nothing_of_the_keepers_environment),
#if defined(WD_FAULTS) && !defined(WD_SANITIZED) && !defined(WD_COVERAGE)
		LOGGED(a_server_that_misbehaves_is_stopped_and_readers_go_on),
		LOGGED(a_server_that_does_nothing_wrong_is_left_alone),
		LOGGED(a_server_that_lies_to_the_keeper_is_replaced),
		LOGGED(a_server_that_wrecks_its_tables_harms_its_own_mount_only),
#endif
	};

	return run_fixture(tests, sizeof(tests) / sizeof(tests[0]));
}
