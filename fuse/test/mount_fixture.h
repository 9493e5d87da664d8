/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_FUSE_TEST_MOUNT_FIXTURE_H
#define WD_FUSE_TEST_MOUNT_FIXTURE_H
/*
 * Keeper and server, the real programs on the real kernel, with a made-up agent (fake_agent.h) in
 * this process. Each test has a directory, a keeper and mostly a mount of its own, in a mount
 * namespace of the test program.
 *
 * A FUSE test can hang for ever, beyond the reach of signals. A process of its own watches over it:
 * it aborts the connection of a test that takes too long, which lets every reader go, and ends all.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <cmocka.h>

#include "fuse/test/fake_agent.h"

#define SECONDS 60
#ifdef WD_COVERAGE
#define SERVER_UID "0" /* it must be able to write its counts */
#else
#define SERVER_UID "65534"
#endif
#define COLD_SIZE (3 * 1024 * 1024 + 12345)

static char dir[128], target[160], keeper_sock[160], keeper_path[PATH_MAX];
static pid_t watchdog;
static char reports[64] = "/tmp/wd-reports-XXXXXX"; /* of sanitizers */
static const char *keeper_options[9]; /* for the keepers that a test starts; NULL at the end */
static struct fake_file *complete, *cold, *empty, *direct, *late, *bytes;

/* ---- the guard ---- */

/* shared with the watchdog */
static struct {
	_Atomic unsigned connection; /* minor number of the mount's device; 0: none */
	_Atomic pid_t keeper;
	char target[160];
	_Atomic long deadline; /* seconds on CLOCK_MONOTONIC; 0: no test runs */
} *guard;

/* The first thing that a forced unmount does is to abort the connection. */
static inline void abort_connection(void)
{
	if (guard->connection)
		umount2(guard->target, MNT_FORCE);
	guard->connection = 0;
}

static inline void run_watchdog(pid_t test)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (getppid() == test) {
		long deadline;

		usleep(500000);
		deadline = guard->deadline; /* read once: a test may end just now */
		if (deadline == 0 || wd_now_ns() / 1000000000 < deadline)
			continue;
		fprintf(stderr, "a test took too long; its connection is aborted\n");
		abort_connection();
		if (guard->keeper > 0)
			kill(guard->keeper, SIGKILL);
		kill(test, SIGKILL);
		_exit(1);
	}
}

static inline void start_watchdog(void)
{
	pid_t test = getpid();

	guard = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (guard == MAP_FAILED)
		abort();
	watchdog = fork();
	if (watchdog == 0) {
		run_watchdog(test);
		_exit(0);
	}
}

/* ---- the keeper ---- */

static struct wd_msg msg;

/* A keeper that was killed while it forked a server lives on in its child's copies of its sockets, for the moment
 * until that executes: whoever connects to it then is hung up on, and asks again. */
static inline int connect_keeper(void)
{
	struct wd_err err = WD_ERR_INIT;
	int sock;

	while ((sock = wd_client_connect(keeper_sock, WD_ROLE_CTL, &err)) == -ECONNRESET || sock == -ECONNREFUSED)
		usleep(1000);
	if (sock < 0)
		fail_msg("%s", err.msg);
	return sock;
}

/* server NULL: the one beside the keeper. */
static inline void start_keeper(const char *server)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int probe = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	const char *argv[24] = {
		"warpdrive-keeper", "--run-dir", dir, "--server-uid", SERVER_UID};
	int argc = 5;
	pid_t pid;

	if (server) {
		argv[argc++] = "--server";
		argv[argc++] = server;
	}
	for (int i = 0; keeper_options[i]; i++)
		argv[argc++] = keeper_options[i];
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execv(keeper_path, (char *const *)argv);
		_exit(127);
	}
	guard->keeper = pid;
	strcpy(addr.sun_path, keeper_sock);
	while (connect(probe, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
		usleep(1000);
	}
	close(probe);
}

static inline void end_keeper_by(int sig)
{
	pid_t pid = guard->keeper;

	guard->keeper = 0;
	if (pid <= 0)
		return;
	kill(pid, sig);
	waitpid(pid, NULL, 0);
}

static inline void end_keeper(void)
{
#ifdef WD_COVERAGE
	end_keeper_by(SIGTERM); /* it writes its counts when it returns from main */
#else
	end_keeper_by(SIGKILL);
#endif
}

static inline int ask_mount(const char *where, const char *description, struct wd_err *err)
{
	int sock = connect_keeper(), rc;

	wd_msg_start(&msg, WD_MSG_MOUNT, 7);
	wd_put_str(&msg, where);
	wd_put_str(&msg, description);
	wd_put_u32(&msg, 0);
	rc = wd_client_call(sock, &msg, -1, err);
	close(sock);
	return rc;
}

static inline int ask_umount(const char *where, uint32_t flags, struct wd_err *err)
{
	int sock = connect_keeper(), rc;

	wd_msg_start(&msg, WD_MSG_UMOUNT, 8);
	wd_put_str(&msg, where);
	wd_put_u32(&msg, flags);
	rc = wd_client_call(sock, &msg, -1, err);
	close(sock);
	return rc;
}

/* The keeper's status as text; static. */
static inline const char *status_text(void)
{
	static char text[8192];
	struct wd_err err = WD_ERR_INIT;
	int sock = connect_keeper(), fd;
	ssize_t n;

	wd_msg_start(&msg, WD_MSG_KEEPER_STATUS, 9);
	assert_int_equal(wd_client_call(sock, &msg, -1, &err), 0);
	fd = wd_msg_take_fd(&msg, 0);
	n = pread(fd, text, sizeof(text) - 1, 0);
	assert_true(n > 0);
	text[n] = '\0';
	close(fd);
	close(sock);
	return text;
}

static inline long status_number(const char *key)
{
	const char *at = strstr(status_text(), key);

	return at ? strtol(at + strlen(key), NULL, 10) : -1;
}

static inline pid_t server_pid(void)
{
	return (pid_t)status_number("\"server_pid\":");
}

static inline void do_mount(const char *description)
{
	struct wd_err err = WD_ERR_INIT;
	const char *at;
	unsigned major, minor;

	if (ask_mount(target, description, &err) < 0)
		fail_msg("%s", err.msg);
	at = strstr(status_text(), "\"device\":\"");
	assert_non_null(at);
	assert_int_equal(sscanf(at, "\"device\":\"%u:%u", &major, &minor), 2);
	guard->connection = minor;
}

static inline void do_umount(void)
{
	struct wd_err err = WD_ERR_INIT;

	if (ask_umount(target, 0, &err) < 0)
		fail_msg("%s", err.msg);
	guard->connection = 0;
}

static inline int setup(void **state)
{
	memset(&fake, 0, sizeof(fake));
	memset(keeper_options, 0, sizeof(keeper_options));
	guard->deadline = wd_now_ns() / 1000000000 + SECONDS;
	guard->connection = 0;
	snprintf(dir, sizeof(dir), "/tmp/wd-mount-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(target, sizeof(target), "%s/mnt", dir);
	memcpy(guard->target, target, sizeof(target));
	snprintf(keeper_sock, sizeof(keeper_sock), "%s/keeper.sock", dir);
	mkdir(target, 0755);
	fake_init(dir);
	complete = fake_add("complete", 700000, true);
	cold = fake_add("cold", COLD_SIZE, false);
	empty = fake_add("empty", 0, true);
	direct = fake_add("direct", 600000, false);
	direct->is_direct = true;
	late = fake_add("late", 500000, false);
	bytes = fake_add("bytes", 400000, false);
	bytes->is_bytes = true;
	fake_start();
	start_keeper(NULL);
	return 0;
}

static inline int setup_mounted(void **state)
{
	int rc = setup(state);

	if (rc == 0)
		do_mount("{}");
	return rc;
}

/* Waits for all children but the watchdog. */
static inline void end_children(void)
{
	char path[64];
	int pid;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	for (;;) {
		FILE *f = fopen(path, "re");
		int other = 0;

		assert_non_null(f);
		while (fscanf(f, "%d", &pid) == 1)
			if (pid != watchdog)
				other = pid;
		fclose(f);
		if (!other)
			return;
		waitpid(other, NULL, 0);
	}
}

/* What a sanitizer found in keeper or server ends up in files: prints them. */
static inline bool has_reports(void)
{
	bool is_any = false;
	struct dirent *e;
	DIR *d = opendir(reports);

	assert_non_null(d);
	while ((e = readdir(d))) {
		char path[512], line[512];
		FILE *f;

		snprintf(path, sizeof(path), "%s/%s", reports, e->d_name);
		f = e->d_name[0] != '.' ? fopen(path, "re") : NULL;
		while (f && fgets(line, sizeof(line), f)) {
			fputs(line, stderr);
			is_any = true;
		}
		if (f) {
			fclose(f);
			unlink(path);
		}
	}
	closedir(d);
	return is_any;
}

static inline void collect_reports(void)
{
	static const char *const names[] = {"ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"};

	if (!mkdtemp(reports) || chmod(reports, 01777) < 0)
		abort();
	for (int i = 0; i < 3; i++) {
		const char *old = getenv(names[i]);
		char value[512];

		snprintf(value, sizeof(value), "%s%s%slog_path=%s/report", old ? old : "",
			old ? ":" : "", i == 1 ? "atexit_sleep_ms=0:" : "", reports);
		setenv(names[i], value, 1);
	}
}

/* The keeper's records of mounts; those of mounts that it could not end itself are still there. */
static inline void remove_records(void)
{
	char path[600];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "%s/mounts", dir);
	d = opendir(path);
	while (d && (e = readdir(d)) != NULL)
		unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
	rmdir(path);
}

static inline int teardown(void **state)
{
	char path[256];

	abort_connection();
	end_keeper();
	umount2(target, MNT_DETACH);
	fake_stop();
	/* servers that outlive the keeper are our children now: their mount is gone, so they end */
	end_children();
	for (unsigned i = 0; i < fake.nfiles; i++) {
		munmap(fake.files[i].map, wd_livemap_bytes(fake.files[i].map->nblocks));
		close(fake.files[i].map_fd);
		close(fake.files[i].fd);
	}
	unlink(keeper_sock);
	snprintf(path, sizeof(path), "%s/agent.sock", dir);
	unlink(path);
	rmdir(target);
	remove_records();
	if (rmdir(dir) < 0) {
		fprintf(stderr, "something stays behind in '%s': %s\n", dir, strerror(errno));
		return -1;
	}
	if (has_reports())
		return -1;
	guard->deadline = 0;
	return 0;
}

/* ---- helpers ---- */

static inline int open_file(const char *name)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/%s", target, name);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static inline bool is_right(
	const struct fake_file *f, const unsigned char *buf, uint64_t offset, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (buf[i] != fake_byte(f->node, offset + i))
			return false;
	return true;
}

/* Reads a whole file by reads of 128 KiB and compares it; 0, or what went wrong. */
static inline int read_whole(struct fake_file *f)
{
	unsigned char *buf = malloc(131072);
	int fd = open_file(f->name), rc = fd < 0 ? errno : 0;
	uint64_t at = 0;

	while (rc == 0) {
		ssize_t n = read(fd, buf, 131072);

		if (n < 0)
			rc = errno;
		if (n <= 0)
			break;
		if (!is_right(f, buf, at, (size_t)n))
			rc = EILSEQ;
		at += (uint64_t)n;
	}
	if (rc == 0 && at != f->size)
		rc = ENODATA;
	if (fd >= 0)
		close(fd);
	free(buf);
	return rc;
}

static inline void assert_reads_right(struct fake_file *f)
{
	int rc = read_whole(f);

	if (rc)
		fail_msg("read '%s': %s", f->name, strerror(rc));
}

/* From now on absent blocks are filled when they are asked for. */
static inline void set_auto(void)
{
	wd_lock(&fake.lock);
	fake.is_auto = true;
	wd_unlock(&fake.lock);
}

struct reader {
	pthread_t thread;
	struct fake_file *file;
	int rc;
};

static inline void *run_reader(void *arg)
{
	struct reader *r = arg;

	r->rc = read_whole(r->file);
	return NULL;
}

static inline void start_reader(struct reader *r, struct fake_file *f)
{
	r->file = f;
	assert_int_equal(pthread_create(&r->thread, NULL, run_reader, r), 0);
}

static inline void join_reader(struct reader *r)
{
	pthread_join(r->thread, NULL);
	if (r->rc)
		fail_msg("reader of '%s': %s", r->file->name, strerror(r->rc));
}

/* Waits until the server is another one than old and serves. */
static inline pid_t wait_for_new_server(pid_t old)
{
	pid_t pid;

	while ((pid = server_pid()) == old || pid <= 0)
		usleep(1000);
	return pid;
}

/* Value of a line "Key:\tvalue" of /proc/PID/status, as a number in the given base. */
static inline unsigned long long proc_status(pid_t pid, const char *key, int base)
{
	unsigned long long value = ULLONG_MAX;
	char path[64], line[256];
	size_t len = strlen(key);
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (strncmp(line, key, len) == 0 && line[len] == ':')
			value = strtoull(line + len + 1, NULL, base);
	fclose(f);
	return value;
}

static inline void assert_lists_every_child_once(void)
{
	static unsigned seen[FAKE_MANY];
	unsigned dots = 0, others = 0, n;
	struct dirent *e;
	char path[300];
	DIR *d;

	memset(seen, 0, sizeof(seen));
	snprintf(path, sizeof(path), "%s/many", target);
	d = opendir(path);
	assert_non_null(d);
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			dots++;
		else if (sscanf(e->d_name, "f%03u", &n) == 1 && n < FAKE_MANY)
			seen[n]++;
		else
			others++;
	}
	closedir(d);
	assert_int_equal(dots, 2);
	assert_int_equal(others, 0);
	for (n = 0; n < FAKE_MANY; n++)
		assert_int_equal(seen[n], 1);
}

static inline void restart_with_faults(const char *faults)
{
	end_keeper();
	unlink(keeper_sock);
	setenv("WARPDRIVE_FAULTS", faults, 1);
	start_keeper(NULL);
	unsetenv("WARPDRIVE_FAULTS");
}

/* server NULL: as in start_keeper. */
static inline void restart_with(const char *server, const char *option, const char *value)
{
	end_keeper();
	unlink(keeper_sock);
	keeper_options[0] = option;
	keeper_options[1] = value;
	start_keeper(server);
}

/* A copy of program at path, which is no link to it: it can be replaced. */
static inline void copy_program(const char *program, const char *path)
{
	char fresh[320], buf[65536];
	int in = open(program, O_RDONLY | O_CLOEXEC), out;
	ssize_t n;

	snprintf(fresh, sizeof(fresh), "%s.new", path);
	out = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
	assert_true(in >= 0 && out >= 0);
	while ((n = read(in, buf, sizeof(buf))) > 0)
		assert_int_equal(write(out, buf, (size_t)n), n);
	close(in);
	close(out);
	assert_int_equal(rename(fresh, path), 0);
}

static inline const char *real_server(void)
{
	static char path[PATH_MAX];

	strcpy(path, keeper_path);
	strcpy(strrchr(path, '/'), "/warpdrive-fuse");
	return path;
}

static inline unsigned count_fds(pid_t pid)
{
	unsigned n = 0;
	struct dirent *e;
	char path[64];
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = opendir(path);
	assert_non_null(d);
	while ((e = readdir(d)))
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

#define MOUNTED(name) cmocka_unit_test_setup_teardown(name, setup_mounted, teardown)
#define PLAIN(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* Runs the tests: all, or those that match WD_TEST. 77 where there is no FUSE. */
static inline int run_fixture(const struct CMUnitTest *tests, size_t count)
{
	const char *only = getenv("WD_TEST");
	ssize_t n = readlink("/proc/self/exe", keeper_path, sizeof(keeper_path) - 64);
	int rc;

	if (access("/dev/fuse", R_OK | W_OK) < 0 || geteuid() != 0)
		return 77;
	/* EINVAL: in a chroot "/" is no mount point, and there is nothing to make private */
	if (n < 0 || unshare(CLONE_NEWNS) < 0 ||
		(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 && errno != EINVAL))
		return 77;
	keeper_path[n] = '\0';
	strcpy(strrchr(keeper_path, '/'), "/../bin/warpdrive-keeper");
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	start_watchdog();
	collect_reports();
	signal(SIGPIPE, SIG_IGN);
	if (only)
		cmocka_set_test_filter(only);
	rc = _cmocka_run_group_tests(program_invocation_short_name, tests, count, NULL, NULL);
	rmdir(reports);
	return rc;
}

#endif
