/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control file of a mount: what it is to the kernel and to those who look around, and calls through it
 * that wait, while agents and servers come and go (mount_fixture.h). The fake agent's methods are in fake_agent.h.
 */
#include "fuse/test/mount_fixture.h"

#include <sys/ioctl.h>

#include "common/control_client.h"
#include "fuse/server.h"

#define EXIT_EINTR 42
#define MANY_BELOW "many/f007"

static const char *path_of(const char *name)
{
	static char path[300];

	snprintf(path, sizeof(path), "%s%s%s", target, name[0] ? "/" : "", name);
	return path;
}

static int open_control(void)
{
	int fd = open_file(WD_CONTROL_NAME);

	assert_true(fd >= 0);
	return fd;
}

/* One ioctl with a frame that may make no sense: 0, or a positive errno. */
static int raw_call(int fd, const char *method, uint32_t len, struct wd_control_frame *frame)
{
	memset(frame, 0, sizeof(*frame));
	snprintf(frame->method, sizeof(frame->method), "%s", method);
	frame->len = len;
	return ioctl(fd, WD_CONTROL_CALL, frame) < 0 ? errno : 0;
}

static int call(int fd, const char *method, struct wd_err *err)
{
	static _Thread_local uint8_t response[WD_CONTROL_DATA_MAX];
	size_t len;

	return wd_control_call(fd, method, NULL, 0, response, &len, err);
}

static void assert_echo(int fd, size_t size)
{
	static uint8_t request[WD_CONTROL_DATA_MAX], response[WD_CONTROL_DATA_MAX];
	struct wd_err err = WD_ERR_INIT;
	size_t len = 0;

	memset(request, 0, sizeof(request));
	for (size_t i = 0; i < size; i++)
		request[i] = fake_byte(size, i);
	memset(response, 0, sizeof(response));
	if (wd_control_call(fd, "Echo", request, size, response, &len, &err) < 0)
		fail_msg("%zu bytes: %s", size, err.msg);
	assert_int_equal(len, size);
	assert_memory_equal(request, response, sizeof(response)); /* and nothing behind them */
}

static void let_calls_end(void)
{
	wd_lock(&fake.lock);
	fake_answer_calls();
	wd_unlock(&fake.lock);
}

struct caller {
	pthread_t thread;
	int fd, rc;
};

static void *run_caller(void *arg)
{
	struct caller *c = arg;

	c->rc = call(c->fd, "Wait", NULL);
	return NULL;
}

static void start_callers(struct caller *callers, int fd, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		callers[i].fd = fd;
		assert_int_equal(pthread_create(&callers[i].thread, NULL, run_caller, &callers[i]), 0);
	}
}

static void join_callers(struct caller *callers, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		pthread_join(callers[i].thread, NULL);
		assert_int_equal(callers[i].rc, 0);
	}
}

/* ---- the file ---- */

static void it_is_an_empty_file_that_nobody_may_write(void **state)
{
	unsigned lookups = fake_get(&fake.lookups);
	char path[300], buf[64];
	struct stat st;
	int fd;

	strcpy(path, path_of(WD_CONTROL_NAME));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0444);
	assert_int_equal(st.st_ino, WD_CONTROL_NODE);
	assert_int_equal(st.st_nlink, 1);
	assert_int_equal(st.st_size, 0);
	fd = open_control();
	assert_int_equal(read(fd, buf, sizeof(buf)), 0);
	assert_int_equal(pread(fd, buf, sizeof(buf), 1 << 20), 0);
	assert_int_equal(lseek(fd, 0, SEEK_END), 0);
	assert_int_equal(lseek(fd, 100, SEEK_SET), 100);
	assert_int_equal(read(fd, buf, sizeof(buf)), 0);
	assert_int_equal(lseek(fd, 0, SEEK_DATA), -1);
	assert_int_equal(errno, ENXIO);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_ino, WD_CONTROL_NODE);
	assert_int_equal(flistxattr(fd, buf, sizeof(buf)), 0);
	assert_int_equal(fgetxattr(fd, "user.warpdrive.cached", buf, sizeof(buf)), -1);
	assert_int_equal(errno, ENODATA);
	assert_int_equal(fsync(fd) < 0 ? errno : 0, 0);
	close(fd);
	assert_int_equal(open(path, O_WRONLY | O_CLOEXEC), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(unlink(path), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(access(path, X_OK), -1);
	assert_int_equal(fake_get(&fake.lookups), lookups);
	/* the name means nothing elsewhere */
	assert_int_equal(stat(path_of("many/" WD_CONTROL_NAME), &st), -1);
	assert_int_equal(errno, ENOENT);
}

/* A mapping of it is as one of any empty file: there is no page to touch. */
static void touching_a_mapping_of_it_is_sigbus(void **state)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		int fd = open_file(WD_CONTROL_NAME);
		const volatile char *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);

		signal(SIGBUS, SIG_DFL);
		_exit(fd < 0 || p == MAP_FAILED ? 1 : p[0] + 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGBUS);
}

static void assert_not_shown_by(const char *command)
{
	char line[512];
	unsigned n = 0;
	FILE *f = popen(command, "re");

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		assert_null(strstr(line, WD_CONTROL_NAME));
		n++;
	}
	assert_int_equal(pclose(f), 0);
	assert_true(n > FAKE_MANY); /* it has looked */
}

static void who_lists_does_not_see_it(void **state)
{
	set_auto();
	close(open_control()); /* the kernel knows the name */
	setenv("MOUNT", target, 1);
	assert_not_shown_by("find \"$MOUNT\"");
	assert_not_shown_by("ls -laR \"$MOUNT\"");
	assert_not_shown_by("tar -cf - -C \"$MOUNT\" . | tar -tf -");
	if (system("command -v rsync >/dev/null") == 0)
		assert_not_shown_by("rsync -a --list-only \"$MOUNT/\"");
}

static unsigned list_root(bool *ret_is_control_listed)
{
	DIR *d = opendir(target);
	struct dirent *e;
	unsigned n = 0;

	assert_non_null(d);
	*ret_is_control_listed = false;
	while ((e = readdir(d))) {
		n++;
		if (strcmp(e->d_name, WD_CONTROL_NAME) == 0)
			*ret_is_control_listed = true;
	}
	closedir(d);
	return n;
}

static void a_file_of_the_datasets_with_that_name_is_hidden(void **state)
{
	unsigned before, n;
	bool is_listed;
	struct stat st;

	before = list_root(&is_listed);
	wd_lock(&fake.lock);
	fake_add(WD_CONTROL_NAME, 1000, true);
	fake_add("behind", 1000, true);
	wd_unlock(&fake.lock);
	n = list_root(&is_listed);
	assert_false(is_listed);
	assert_int_equal(n, before + 1);
	assert_int_equal(stat(path_of("behind"), &st), 0);
	assert_int_equal(stat(path_of(WD_CONTROL_NAME), &st), 0);
	assert_int_equal(st.st_size, 0);
	/* answers of one entry each: one of them has nothing to show, and is not the end */
	wd_lock(&fake.lock);
	fake.entries_max = 1;
	wd_unlock(&fake.lock);
	assert_int_equal(list_root(&is_listed), n);
	assert_false(is_listed);
}

/* ---- calls ---- */

static void a_call_gets_its_answer(void **state)
{
	static const size_t sizes[] = {0, 1, 100, 4096, 8192, WD_CONTROL_DATA_MAX};
	struct wd_err err = WD_ERR_INIT;
	int fd = open_control();

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		assert_echo(fd, sizes[i]);
	assert_int_equal(call(fd, "Fail", &err), -EACCES);
	assert_string_equal(err.msg, "the fake agent says no");
	assert_int_equal(call(fd, "NoSuchMethod", &err), -EOPNOTSUPP);
	close(fd);
}

/* Nor does anything of the server's memory come along. */
static void what_lies_behind_an_answer_is_as_it_was(void **state)
{
	struct wd_control_frame frame = {.method = "Echo", .len = 5};
	int fd = open_control();

	memset(frame.data, 0x5a, sizeof(frame.data));
	assert_int_equal(ioctl(fd, WD_CONTROL_CALL, &frame), 0);
	assert_int_equal(frame.len, 5);
	for (size_t i = 0; i < sizeof(frame.data); i++)
		assert_int_equal(frame.data[i], 0x5a);
	close(fd);
}

static void what_makes_no_sense_is_refused(void **state)
{
	static struct wd_control_frame frame;
	int fd = open_control(), other = open_file("complete"), root = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char small[100] = "Echo";
	long flags;

	assert_int_equal(raw_call(fd, "", 0, &frame), EPROTO);
	assert_int_equal(raw_call(fd, "Echo", WD_CONTROL_DATA_MAX + 1, &frame), EPROTO);
	assert_int_equal(raw_call(fd, "Echo", UINT32_MAX, &frame), EPROTO);
	memset(&frame, 'x', sizeof(frame));
	frame.len = 0;
	assert_int_equal(ioctl(fd, WD_CONTROL_CALL, &frame), -1);
	assert_int_equal(errno, EPROTO);
	assert_int_equal(ioctl(fd, WD_CONTROL_CALL, NULL), -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(ioctl(fd, _IOWR('W', 1, small), small), -1);
	assert_int_equal(errno, ENOTTY);
	assert_int_equal(ioctl(fd, _IOC(_IOC_READ | _IOC_WRITE, 'W', 2, sizeof(frame)), &frame), -1);
	assert_int_equal(errno, ENOTTY);
	assert_int_equal(ioctl(fd, _IO('f', 1), &flags), -1);
	assert_int_equal(errno, ENOTTY);
	assert_int_equal(ioctl(other, WD_CONTROL_CALL, &frame), -1);
	assert_int_equal(errno, ENOTTY);
	assert_int_equal(ioctl(root, WD_CONTROL_CALL, &frame), -1);
	assert_int_equal(errno, ENOTTY);
	assert_int_equal(fake_get(&fake.calls), 0);
	/* an agent that talks nonsense */
	assert_int_equal(raw_call(fd, "Garbage", 0, &frame), EPROTO);
	assert_int_equal(raw_call(fd, "TooLong", 0, &frame), EPROTO);
	assert_int_equal(raw_call(fd, "LongError", 0, &frame), 0);
	assert_int_equal(frame.status, -EINVAL);
	assert_int_equal(frame.len, WD_CONTROL_DATA_MAX);
	assert_echo(fd, 10);
	close(root);
	close(other);
	close(fd);
}

static void whoever_may_look_into_the_root_may_call(void **state)
{
	pid_t pid;
	int status;

	assert_int_equal(chmod(dir, 0755), 0);
	pid = fork();
	if (pid == 0) {
		static struct wd_control_frame frame;
		int fd;

		if (setgid(1000) < 0 || setuid(1000) < 0)
			_exit(1);
		fd = open_file(WD_CONTROL_NAME);
		_exit(fd < 0 ? 2 : raw_call(fd, "Echo", 5, &frame) != 0 || frame.len != 5 ? 3 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- calls that wait ---- */

static void on_signal(int sig)
{
	(void)sig;
}

static pid_t start_child(bool has_handler)
{
	pid_t pid = fork();

	if (pid == 0) {
		struct sigaction action = {.sa_handler = has_handler ? on_signal : SIG_DFL};
		static struct wd_control_frame frame;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		sigaction(SIGINT, &action, NULL);
		_exit(raw_call(open_file(WD_CONTROL_NAME), "Wait", 0, &frame) == EINTR ? EXIT_EINTR : 1);
	}
	assert_true(pid > 0);
	return pid;
}

static void a_call_ends_with_its_caller(void **state)
{
	static const int signals[] = {SIGINT, SIGINT, SIGKILL};
	int status;

	for (unsigned i = 0; i < 3; i++) {
		pid_t pid = start_child(i == 0);

		fake_wait(&fake.calls, i + 1);
		kill(pid, signals[i]);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (i == 0)
			assert_int_equal(WIFEXITED(status) ? WEXITSTATUS(status) : -1, EXIT_EINTR);
		else
			assert_int_equal(WIFSIGNALED(status) ? WTERMSIG(status) : -1, signals[i]);
		fake_wait(&fake.call_cancels, i + 1);
	}
	assert_int_equal(fake_get(&fake.parked_calls), 0);
}

static void a_call_that_was_taken_over_ends_with_its_caller(void **state)
{
	pid_t caller = start_child(true), pid = server_pid();
	int status;

	fake_wait(&fake.calls, 1);
	kill(pid, SIGKILL);
	wait_for_new_server(pid);
	fake_wait(&fake.calls, 2);
	kill(caller, SIGINT);
	assert_int_equal(waitpid(caller, &status, 0), caller);
	assert_int_equal(WIFEXITED(status) ? WEXITSTATUS(status) : -1, EXIT_EINTR);
	fake_wait(&fake.call_cancels, 1);
}

static void a_call_outlives_the_agent(void **state)
{
	struct caller callers[2];
	int fd = open_control();

	start_callers(callers, fd, 1);
	fake_wait(&fake.calls, 1);
	fake_stop();
	start_callers(callers + 1, fd, 1); /* nobody is there */
	fake_start();
	fake_wait(&fake.calls, 3);
	assert_int_equal(fake_get(&fake.parked_calls), 2);
	let_calls_end();
	join_callers(callers, 2);
	assert_echo(fd, 1000);
	close(fd);
}

static void calls_outlive_servers(void **state)
{
	struct caller callers[3];
	int fd = open_control();
	pid_t pid;

	start_callers(callers, fd, 3);
	for (unsigned i = 1; i <= 3; i++) {
		fake_wait(&fake.calls, 3 * i);
		pid = server_pid();
		kill(pid, SIGKILL);
		wait_for_new_server(pid);
	}
	fake_wait(&fake.calls, 12);
	assert_int_equal(fake_get(&fake.calls), 12); /* each once */
	let_calls_end();
	join_callers(callers, 3);
	assert_echo(fd, WD_CONTROL_DATA_MAX);
	close(fd);
	do_umount();
}

/* A kernel before 6.9: the call, with all of its bytes, is in its slot alone. */
static void calls_outlive_servers_without_resend(void **state)
{
	restart_with(NULL, "--no-resend", NULL);
	do_mount("{}");
	calls_outlive_servers(state);
}

static void only_so_many_calls_wait_at_once(void **state)
{
	struct caller callers[CONTROL_CALLS_MAX];
	struct wd_err err = WD_ERR_INIT;
	int fd = open_control();
	pid_t pid = server_pid();

	set_auto();
	start_callers(callers, fd, CONTROL_CALLS_MAX);
	fake_wait(&fake.calls, CONTROL_CALLS_MAX);
	assert_int_equal(call(fd, "Echo", &err), -EBUSY);
	assert_non_null(strstr(err.msg, "too many"));
	assert_reads_right(late); /* nobody else minds */
	kill(pid, SIGKILL);
	wait_for_new_server(pid);
	fake_wait(&fake.calls, 2 * CONTROL_CALLS_MAX);
	assert_int_equal(call(fd, "Echo", &err), -EBUSY);
	let_calls_end();
	join_callers(callers, CONTROL_CALLS_MAX);
	assert_echo(fd, 1);
	start_callers(callers, fd, CONTROL_CALLS_MAX);
	fake_wait(&fake.calls, 3 * CONTROL_CALLS_MAX + 1);
	let_calls_end();
	join_callers(callers, CONTROL_CALLS_MAX);
	close(fd);
}

/* ---- the client ---- */

static void assert_below(const char *path, const char *want)
{
	char below[PATH_MAX] = "untouched";
	struct wd_err err = WD_ERR_INIT;
	int fd = wd_control_open(path, below, &err);

	if (fd < 0)
		fail_msg("%s", err.msg);
	assert_string_equal(below, want);
	assert_echo(fd, 3);
	close(fd);
}

static void a_client_finds_the_root_from_anywhere_below(void **state)
{
	char path[300];

	assert_below(target, "");
	assert_below(path_of("complete"), "complete");
	assert_below(path_of("many/../" MANY_BELOW), MANY_BELOW);
	snprintf(path, sizeof(path), "%s/link", dir);
	assert_int_equal(symlink(path_of("many"), path), 0);
	assert_below(path, "many");
	unlink(path);
}

/* What a pod sees whose volumeMount has a subPath. */
static void a_client_that_sees_but_a_part_of_the_volume_says_so(void **state)
{
	char part[200], path[300], below[PATH_MAX];
	struct wd_err err = WD_ERR_INIT;
	int status, rc;
	pid_t pid;

	snprintf(part, sizeof(part), "%s/part", dir);
	snprintf(path, sizeof(path), "%s/f007", part);
	assert_int_equal(mkdir(part, 0755), 0);
	assert_int_equal(mount(path_of("many"), part, NULL, MS_BIND, NULL), 0);
	assert_below(path, MANY_BELOW); /* by way of the other mount */
	pid = fork();
	if (pid == 0) {
		if (unshare(CLONE_NEWNS) < 0 || umount2(target, MNT_DETACH) < 0)
			_exit(1);
		rc = wd_control_open(path, below, &err);
		_exit(rc == -EXDEV && strstr(err.msg, "/many") && strstr(err.msg, "subPath") ? 0 : 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(umount2(part, 0), 0);
	rmdir(part);
	assert_int_equal(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0);
}

/* ---- a server that knows no control file ---- */

#ifdef WD_FAULTS

static pid_t replace_server(const char *faults)
{
	pid_t old = server_pid();

	restart_with_faults(faults);
	return wait_for_new_server(old);
}

static void an_open_control_file_outlives_a_roll_back(void **state)
{
	static struct wd_control_frame frame;
	char below[PATH_MAX], buf[8];
	struct wd_err err = WD_ERR_INIT;
	int fd = open_control(), second = open_control();
	struct caller caller;

	set_auto();
	start_callers(&caller, fd, 1);
	fake_wait(&fake.calls, 1);
	replace_server("server.no-control=0");
	pthread_join(caller.thread, NULL);
	assert_int_equal(caller.rc, -EOPNOTSUPP);
	assert_int_equal(raw_call(fd, "Echo", 0, &frame), ENOTTY);
	assert_int_equal(read(fd, buf, sizeof(buf)), -1);
	assert_int_equal(errno, ESTALE);
	assert_int_equal(close(second), 0);
	assert_int_equal(open_file(WD_CONTROL_NAME), -1);
	assert_int_equal(errno, ENOENT);
	assert_int_equal(wd_control_open(target, below, &err), -EOPNOTSUPP);
	assert_reads_right(late);
	replace_server("");
	assert_echo(fd, 100);
	assert_below(target, "");
	close(fd);
	assert_reads_right(complete);
	do_umount();
}

#endif

int main(void)
{
	static const struct CMUnitTest tests[] = {
		MOUNTED(it_is_an_empty_file_that_nobody_may_write),
		MOUNTED(touching_a_mapping_of_it_is_sigbus),
		MOUNTED(who_lists_does_not_see_it),
		MOUNTED(a_file_of_the_datasets_with_that_name_is_hidden),
		MOUNTED(a_call_gets_its_answer),
		MOUNTED(what_lies_behind_an_answer_is_as_it_was),
		MOUNTED(what_makes_no_sense_is_refused),
		MOUNTED(whoever_may_look_into_the_root_may_call),
		MOUNTED(a_call_ends_with_its_caller),
		MOUNTED(a_call_that_was_taken_over_ends_with_its_caller),
		MOUNTED(a_call_outlives_the_agent),
		MOUNTED(calls_outlive_servers),
		PLAIN(calls_outlive_servers_without_resend),
		MOUNTED(only_so_many_calls_wait_at_once),
		MOUNTED(a_client_finds_the_root_from_anywhere_below),
		MOUNTED(a_client_that_sees_but_a_part_of_the_volume_says_so),
#ifdef WD_FAULTS
		MOUNTED(an_open_control_file_outlives_a_roll_back),
#endif
	};

	return run_fixture(tests, sizeof(tests) / sizeof(tests[0]));
}
