/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeper and server, the real programs on the real kernel, with a made-up agent (fake_agent.h) in
 * this process. Runs in a mount namespace of its own.
 *
 * A FUSE test can hang for ever, beyond the reach of signals. A process of its own watches over it: it
 * aborts the connection of a test that takes too long, which lets every reader go, and ends all.
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

#include "fake_agent.h"

#define SECONDS 60
#define COLD_SIZE (3 * 1024 * 1024 + 12345)

static char dir[128], target[160], keeper_sock[160], keeper_path[PATH_MAX];
static pid_t watchdog;
static char reports[64] = "/tmp/wd-reports-XXXXXX"; /* of sanitizers */
static struct fake_file *complete, *cold, *empty, *direct, *late, *bytes;

/* ---- the guard ---- */

/* shared with the watchdog */
static struct {
	_Atomic unsigned connection; /* minor number of the mount's device; 0: none */
	_Atomic pid_t keeper;
	_Atomic long deadline; /* seconds on CLOCK_MONOTONIC; 0: no test runs */
} *guard;
#define keeper (guard->keeper)
#define connection (guard->connection)

static void abort_connection(void)
{
	char path[64];
	int fd;

	if (!connection)
		return;
	snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%u/abort", connection);
	fd = open(path, O_WRONLY);
	if (fd >= 0 && write(fd, "1", 1) == 1)
		connection = 0;
	if (fd >= 0)
		close(fd);
}

static void run_watchdog(pid_t test)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (getppid() == test) {
		usleep(500000);
		if (guard->deadline == 0 || wd_now_ns() / 1000000000 < guard->deadline)
			continue;
		fprintf(stderr, "test_mount: a test took too long; its connection is aborted\n");
		abort_connection();
		if (keeper > 0)
			kill(keeper, SIGKILL);
		kill(test, SIGKILL);
		_exit(1);
	}
}

static void start_watchdog(void)
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

static int connect_keeper(void)
{
	struct wd_err err = WD_ERR_INIT;
	int sock = wd_client_connect(keeper_sock, WD_ROLE_CTL, &err);

	if (sock < 0)
		fail_msg("%s", err.msg);
	return sock;
}

/* server NULL: the one beside the keeper. */
static void start_keeper(const char *server)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int probe = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl(keeper_path, "warpdrive-keeper", "--run-dir", dir,
			server ? "--server" : NULL, server, NULL);
		_exit(127);
	}
	keeper = pid;
	strcpy(addr.sun_path, keeper_sock);
	while (connect(probe, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		assert_int_equal(waitpid(keeper, NULL, WNOHANG), 0);
		usleep(1000);
	}
	close(probe);
}

static void end_keeper(void)
{
	pid_t pid = keeper;

	keeper = 0;
	if (pid <= 0)
		return;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static int ask_mount(const char *where, const char *description, struct wd_err *err)
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

static int ask_umount(const char *where, uint32_t flags, struct wd_err *err)
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
static const char *status_text(void)
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

static long status_number(const char *key)
{
	const char *at = strstr(status_text(), key);

	return at ? strtol(at + strlen(key), NULL, 10) : -1;
}

static pid_t server_pid(void)
{
	return (pid_t)status_number("\"server_pid\":");
}

static void do_mount(const char *description)
{
	struct wd_err err = WD_ERR_INIT;
	const char *at;
	unsigned major, minor;

	if (ask_mount(target, description, &err) < 0)
		fail_msg("%s", err.msg);
	at = strstr(status_text(), "\"device\":\"");
	assert_non_null(at);
	assert_int_equal(sscanf(at, "\"device\":\"%u:%u", &major, &minor), 2);
	connection = minor;
}

static void do_umount(void)
{
	struct wd_err err = WD_ERR_INIT;

	if (ask_umount(target, 0, &err) < 0)
		fail_msg("%s", err.msg);
	connection = 0;
}

static int setup(void **state)
{
	memset(&fake, 0, sizeof(fake));
	guard->deadline = wd_now_ns() / 1000000000 + SECONDS;
	connection = 0;
	snprintf(dir, sizeof(dir), "/tmp/wd-mount-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(target, sizeof(target), "%s/mnt", dir);
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

static int setup_mounted(void **state)
{
	int rc = setup(state);

	if (rc == 0)
		do_mount("{}");
	return rc;
}

/* Waits for all children but the watchdog. */
static void end_children(void)
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
static bool has_reports(void)
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

static void collect_reports(void)
{
	static const char *const names[] = {"ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"};

	if (!mkdtemp(reports) || chmod(reports, 01777) < 0)
		abort();
	for (int i = 0; i < 3; i++) {
		const char *old = getenv(names[i]);
		char value[512];

		snprintf(value, sizeof(value), "%s%slog_path=%s/report", old ? old : "", old ? ":" : "",
			reports);
		setenv(names[i], value, 1);
	}
}

static int teardown(void **state)
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
	rmdir(dir);
	if (has_reports())
		return -1;
	guard->deadline = 0;
	return 0;
}

/* ---- helpers ---- */

static int open_file(const char *name)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/%s", target, name);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static bool is_right(const struct fake_file *f, const unsigned char *buf, uint64_t offset, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (buf[i] != fake_byte(f->node, offset + i))
			return false;
	return true;
}

/* Reads a whole file by reads of 128 KiB and compares it; 0, or what went wrong. */
static int read_whole(struct fake_file *f)
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

static void assert_reads_right(struct fake_file *f)
{
	int rc = read_whole(f);

	if (rc)
		fail_msg("read '%s': %s", f->name, strerror(rc));
}

/* From now on absent blocks are filled when they are asked for. */
static void set_auto(void)
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

static void *run_reader(void *arg)
{
	struct reader *r = arg;

	r->rc = read_whole(r->file);
	return NULL;
}

static void start_reader(struct reader *r, struct fake_file *f)
{
	r->file = f;
	assert_int_equal(pthread_create(&r->thread, NULL, run_reader, r), 0);
}

static void join_reader(struct reader *r)
{
	pthread_join(r->thread, NULL);
	if (r->rc)
		fail_msg("reader of '%s': %s", r->file->name, strerror(r->rc));
}

/* Waits until the server is another one than old and serves. */
static pid_t wait_for_new_server(pid_t old)
{
	pid_t pid;

	while ((pid = server_pid()) == old || pid <= 0)
		usleep(1000);
	return pid;
}

/* Value of a line "Key:\tvalue" of /proc/PID/status, as a number in the given base. */
static unsigned long long proc_status(pid_t pid, const char *key, int base)
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

/* ---- names and attributes ---- */

static void a_directory_lists_every_child_once(void **state)
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

static void stat_shows_what_the_agent_says(void **state)
{
	struct statvfs vfs;
	char path[300];
	struct stat st;

	snprintf(path, sizeof(path), "%s/cold", target);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, COLD_SIZE);
	assert_int_equal(st.st_ino, cold->node + 7000000);
	assert_int_equal(st.st_mode, S_IFREG | 0444);
	assert_int_equal(st.st_nlink, 1);
	assert_int_equal(st.st_mtim.tv_sec, 1700000000);
	assert_int_equal(st.st_mtim.tv_nsec, 5);
	assert_int_equal(st.st_blocks, (COLD_SIZE + 511) / 512);
	assert_int_equal(statvfs(target, &vfs), 0);
	assert_int_equal(vfs.f_blocks * vfs.f_frsize, 1ULL << 40);
	assert_int_equal(vfs.f_bavail * vfs.f_frsize, 1ULL << 39);
	assert_int_equal(vfs.f_files, 1234);
}

static void a_missing_name_is_remembered_for_its_ttl(void **state)
{
	unsigned before;
	char path[300];
	struct stat st;

	snprintf(path, sizeof(path), "%s/negative", target);
	assert_int_equal(stat(path, &st), -1);
	assert_int_equal(errno, ENOENT);
	before = fake_get(&fake.lookups);
	assert_int_equal(stat(path, &st), -1);
	assert_int_equal(fake_get(&fake.lookups), before);
	snprintf(path, sizeof(path), "%s/nowhere", target);
	assert_int_equal(stat(path, &st), -1);
	before = fake_get(&fake.lookups);
	assert_int_equal(stat(path, &st), -1);
	assert_int_equal(fake_get(&fake.lookups), before + 1);
}

static void extended_attributes_come_from_the_agent(void **state)
{
	static const char names[] = "user.warpdrive.origin\0user.warpdrive.version\0user.warpdrive.cached";
	char path[300], value[128];

	snprintf(path, sizeof(path), "%s/cold", target);
	assert_int_equal(getxattr(path, "user.warpdrive.cached", value, sizeof(value)), 2);
	assert_memory_equal(value, "42", 2);
	assert_int_equal(getxattr(path, "user.warpdrive.cached", value, 1), -1);
	assert_int_equal(errno, ERANGE);
	assert_int_equal(getxattr(path, "user.warpdrive.none", value, sizeof(value)), -1);
	assert_int_equal(errno, ENODATA);
	assert_int_equal(getxattr(path, "user.other", value, sizeof(value)), -1);
	assert_int_equal(errno, ENODATA);
	assert_int_equal(listxattr(path, value, sizeof(value)), sizeof(names));
	assert_memory_equal(value, names, sizeof(names));
	assert_int_equal(listxattr(target, value, sizeof(value)), 0);
}

static void everything_that_writes_is_erofs(void **state)
{
	char path[300], other[300];

	snprintf(path, sizeof(path), "%s/cold", target);
	snprintf(other, sizeof(other), "%s/other", target);
	assert_int_equal(open(path, O_RDWR), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(open(other, O_CREAT | O_WRONLY, 0600), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(unlink(path), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(mkdir(other, 0700), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(rename(path, other), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(chmod(path, 0600), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(setxattr(path, "user.x", "1", 1, 0), -1);
	assert_int_equal(errno, EROFS);
}

/* ---- reading ---- */

static void a_complete_file_is_read_without_the_server(void **state)
{
	assert_reads_right(complete);
	assert_int_equal(fake_get(&complete->ensures), 0);
	assert_int_not_equal(fake_get(&complete->backing_id), 0);
	/* stopped, the server could not answer a READ; the open is another matter, so it comes first */
	int fd = open_file("complete");
	pid_t pid = server_pid();
	unsigned char buf[4096];

	assert_true(fd >= 0);
	kill(pid, SIGSTOP);
	assert_int_equal(pread(fd, buf, sizeof(buf), 8192), sizeof(buf));
	assert_true(is_right(complete, buf, 8192, sizeof(buf)));
	kill(pid, SIGCONT);
	close(fd);
}

static void a_pooled_file_opens_without_the_agent(void **state)
{
	unsigned before;
	int fd;

	assert_reads_right(complete);
	before = fake_get(&complete->opens);
	assert_int_equal(before, 1);
	for (int i = 0; i < 20; i++)
		assert_reads_right(complete);
	fd = open_file("complete");
	assert_true(fd >= 0);
	assert_reads_right(complete);
	close(fd);
	assert_int_equal(fake_get(&complete->opens), before);
	assert_int_equal(fake_get(&complete->releases), 0);
}

static void an_empty_file_reads_as_empty(void **state)
{
	assert_reads_right(empty);
}

static void a_cold_read_waits_for_its_blocks(void **state)
{
	struct reader r;

	start_reader(&r, cold);
	fake_wait(&fake.parked_ensures, 1);
	for (uint64_t at = 0; at < cold->size; at += WD_BLOCK_SIZE)
		fake_fill(cold, at, WD_BLOCK_SIZE);
	join_reader(&r);
	assert_true(fake_get(&cold->ensures) >= 1);
	assert_int_equal(fake_get(&fake.parked_ensures), 0);
	fake_wait(&cold->releases, 1);
}

static void present_blocks_are_read_without_asking(void **state)
{
	unsigned char buf[4096];
	unsigned before;
	int fd = open_file("cold");

	assert_true(fd >= 0);
	fake_fill(cold, 0, WD_BLOCK_SIZE);
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	before = fake_get(&cold->ensures);
	for (int i = 0; i < 8; i++) {
		assert_int_equal(pread(fd, buf, sizeof(buf), i * 20000), sizeof(buf));
		assert_true(is_right(cold, buf, (uint64_t)i * 20000, sizeof(buf)));
	}
	assert_int_equal(fake_get(&cold->ensures), before);
	fake_wait(&cold->hints, 1);
	close(fd);
}

static void bytes_that_the_cache_does_not_take_come_from_the_agent(void **state)
{
	assert_reads_right(bytes);
	assert_true(fake_get(&bytes->ensures) > 0);
}

static void a_direct_file_is_read_through_the_agent(void **state)
{
	assert_reads_right(direct);
	assert_true(fake_get(&direct->ensures) > 0);
	fake_wait(&direct->releases, 1);
}

static void a_cold_file_can_be_mapped(void **state)
{
	int fd = open_file("cold");
	unsigned char *map;

	set_auto();
	assert_true(fd >= 0);
	map = mmap(NULL, COLD_SIZE, PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	assert_true(is_right(cold, map, 0, COLD_SIZE));
	munmap(map, COLD_SIZE);
	close(fd);
}

static void many_readers_of_many_files_get_their_bytes(void **state)
{
	struct reader readers[24];
	struct fake_file *files[] = {complete, cold, direct, late, bytes, empty};

	set_auto();
	for (int i = 0; i < 24; i++)
		start_reader(&readers[i], files[i % 6]);
	for (int i = 0; i < 24; i++)
		join_reader(&readers[i]);
}

static void an_unreadable_cache_file_is_asked_for_as_bytes(void **state)
{
	/* present by its map, but cut off on disk */
	fake_fill(late, 0, late->size);
	assert_int_equal(ftruncate(late->fd, 300000), 0);
	assert_reads_right(late);
	assert_true(fake_get(&late->ensures) > 0);
}

/* ---- the per-inode rule ---- */

static void the_mode_of_an_open_file_stays_until_its_last_close(void **state)
{
	unsigned char buf[1000];
	int first, second;

	fake_fill(late, 0, late->size);
	first = open_file("late");
	assert_true(first >= 0);
	assert_int_equal(pread(first, buf, sizeof(buf), 100), sizeof(buf));
	wd_lock(&fake.lock);
	late->is_complete = true;
	wd_unlock(&fake.lock);
	second = open_file("late");
	assert_true(second >= 0);
	assert_int_equal(pread(second, buf, sizeof(buf), 400000), sizeof(buf));
	assert_true(is_right(late, buf, 400000, sizeof(buf)));
	assert_int_equal(fake_get(&late->opens), 1);
	assert_int_equal(fake_get(&late->backing_id), 0);
	close(first);
	close(second);
	fake_wait(&late->releases, 1);
	assert_reads_right(late);
	assert_int_equal(fake_get(&late->opens), 2);
	assert_int_not_equal(fake_get(&late->backing_id), 0);
}

static void a_mount_without_passthrough_reads_complete_files_too(void **state)
{
	do_mount("cached");
	assert_reads_right(complete);
	assert_int_equal(fake_get(&complete->backing_id), 0);
	assert_int_equal(fake_get(&complete->ensures), 0);
}

/* ---- interrupts ---- */

static pid_t fork_reader(struct fake_file *f)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(read_whole(f) == 0 ? 0 : 1);
	return pid;
}

static void a_killed_reader_of_absent_data_dies(void **state)
{
	pid_t pid = fork_reader(cold);
	int status;

	fake_wait(&fake.parked_ensures, 1);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
}

static void on_nothing(int sig)
{
}

static void a_signal_ends_a_parked_request_with_eintr(void **state)
{
	struct sigaction sa = {.sa_handler = on_nothing};
	int fd = open_file("direct"), status;
	unsigned char buf[4096];
	pid_t pid;

	assert_true(fd >= 0);
	wd_lock(&fake.lock);
	direct->is_direct = false; /* the agent parks what it is asked for, and knows no more of bytes */
	wd_unlock(&fake.lock);
	sigaction(SIGUSR1, &sa, NULL);
	wd_lock(&fake.lock);
	fake.is_deaf = true;
	wd_unlock(&fake.lock);
	pid = fork();
	if (pid == 0) {
		char path[300];
		struct stat st;

		snprintf(path, sizeof(path), "%s/nobody-answers", target);
		_exit(stat(path, &st) < 0 && errno == EINTR ? 0 : 1);
	}
	fake_wait(&fake.requests, 1);
	/* the request may not be parked yet: the kernel keeps the interrupt until it is answered */
	usleep(50000);
	kill(pid, SIGUSR1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	wd_lock(&fake.lock);
	fake.is_deaf = false;
	wd_unlock(&fake.lock);
	assert_int_equal(pread(fd, buf, sizeof(buf), 0), sizeof(buf));
	close(fd);
}

/* ---- death ---- */

static void readers_outlive_the_server(void **state)
{
	struct reader r, p;
	pid_t pid = server_pid();

	start_reader(&r, cold);
	fake_wait(&fake.parked_ensures, 1);
	kill(pid, SIGKILL);
	wait_for_new_server(pid);
	start_reader(&p, complete);
	join_reader(&p);
	set_auto();
	fake_fill(cold, 0, cold->size);
	join_reader(&r);
	assert_true(fake_get(&fake.servers) >= 1);
	fake_wait(&cold->releases, 1);
}

static void open_files_outlive_the_server(void **state)
{
	int c = open_file("complete"), p = open_file("cold"), again;
	unsigned char buf[4096];
	pid_t pid = server_pid();

	assert_true(c >= 0 && p >= 0);
	fake_fill(cold, 0, WD_BLOCK_SIZE);
	kill(pid, SIGKILL);
	wait_for_new_server(pid);
	assert_int_equal(pread(c, buf, sizeof(buf), 1000), sizeof(buf));
	assert_true(is_right(complete, buf, 1000, sizeof(buf)));
	assert_int_equal(pread(p, buf, sizeof(buf), 2000), sizeof(buf));
	assert_true(is_right(cold, buf, 2000, sizeof(buf)));
	again = open_file("complete");
	assert_true(again >= 0);
	assert_int_equal(pread(again, buf, sizeof(buf), 3000), sizeof(buf));
	close(again);
	close(c);
	assert_reads_right(complete);
	close(p);
	fake_wait(&cold->releases, 1);
	wd_lock(&fake.lock);
	assert_int_equal(complete->releases, 0);
	wd_unlock(&fake.lock);
}

struct loop_reader {
	pthread_t thread;
	struct fake_file *file;
	_Atomic bool *stop;
	int rc;
	unsigned rounds;
};

static void *run_loop_reader(void *arg)
{
	struct loop_reader *r = arg;

	while (!atomic_load(r->stop) && r->rc == 0) {
		char path[300];
		struct stat st;
		DIR *d;

		r->rc = read_whole(r->file);
		snprintf(path, sizeof(path), "%s/many/f%03u", target, r->rounds++ % FAKE_MANY);
		if (r->rc == 0 && stat(path, &st) < 0)
			r->rc = errno;
		snprintf(path, sizeof(path), "%s/many", target);
		d = opendir(path);
		if (!d) {
			r->rc = r->rc ? r->rc : errno;
			break;
		}
		for (int i = 0; i < 50 && readdir(d); i++)
			;
		closedir(d);
	}
	return NULL;
}

static void readers_outlive_many_servers(void **state)
{
	struct fake_file *files[] = {complete, cold, direct, late, bytes, complete};
	struct loop_reader readers[6];
	_Atomic bool stop = false;
	pid_t pid = 0;

	set_auto();
	for (int i = 0; i < 6; i++) {
		readers[i] = (struct loop_reader){.file = files[i], .stop = &stop};
		assert_int_equal(pthread_create(&readers[i].thread, NULL, run_loop_reader, &readers[i]), 0);
	}
	for (int i = 0; i < 30; i++) {
		pid = wait_for_new_server(pid);
		usleep((useconds_t)(5000 + i * 3000));
		kill(pid, SIGKILL);
	}
	wait_for_new_server(pid);
	atomic_store(&stop, true);
	for (int i = 0; i < 6; i++) {
		pthread_join(readers[i].thread, NULL);
		if (readers[i].rc)
			fail_msg("reader of '%s': %s after %u rounds", readers[i].file->name,
				strerror(readers[i].rc), readers[i].rounds);
	}
	assert_true(status_number("\"restarts\":") >= 30);
	assert_reads_right(cold);
	do_umount();
}

#ifdef WD_FAULTS
static void restart_with_faults(const char *faults)
{
	end_keeper();
	unlink(keeper_sock);
	setenv("WARPDRIVE_FAULTS", faults, 1);
	start_keeper(NULL);
	unsetenv("WARPDRIVE_FAULTS");
}

/* A kernel before 6.9: only the slots know what is owed. */
static void readers_outlive_many_servers_without_resend(void **state)
{
	restart_with_faults("keeper.resend=0");
	do_mount("{}");
	readers_outlive_many_servers(state);
}

/* Each server dies in the window between an answer to OPEN and the note that it was given. */
static void handles_outlive_a_server_that_dies_in_open(void **state)
{
	struct fake_file *files[] = {complete, late, bytes, direct};

	restart_with_faults("server.die-opened=@2");
	do_mount("{}");
	set_auto();
	for (int i = 0; i < 12; i++)
		assert_reads_right(files[i % 4]);
	assert_true(status_number("\"restarts\":") >= 3);
	do_umount();
}

/* Each server dies with a request in its slot that it has not looked at. */
static void requests_outlive_a_server_that_dies_reading(void **state)
{
	restart_with_faults("server.die=@9,keeper.resend=0");
	do_mount("{}");
	set_auto();
	for (int i = 0; i < 3; i++) {
		assert_reads_right(late);
		a_directory_lists_every_child_once(state);
	}
	assert_true(status_number("\"restarts\":") >= 3);
	do_umount();
}

static void a_mount_that_fails_half_way_is_undone(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct stat before, after;

	restart_with_faults("keeper.mount=1");
	assert_int_equal(stat(target, &before), 0);
	assert_int_equal(ask_mount(target, "{}", &err), -EIO);
	assert_int_equal(stat(target, &after), 0);
	assert_int_equal(before.st_dev, after.st_dev);
	do_mount("{}");
	assert_reads_right(complete);
}

static void a_cache_file_that_fails_is_read_through(void **state)
{
	restart_with_faults("server.pread=0");
	do_mount("{}");
	fake_fill(late, 0, late->size);
	assert_reads_right(late);
	assert_true(fake_get(&late->ensures) > 0);
}
#endif

static void readers_wait_for_a_new_agent(void **state)
{
	int c = open_file("complete"), p = open_file("late");
	unsigned char buf[4096];
	struct reader r;

	assert_true(c >= 0 && p >= 0);
	posix_fadvise(p, 0, 0, POSIX_FADV_RANDOM); /* read-ahead would want what is absent */
	fake_fill(late, 0, WD_BLOCK_SIZE);
	start_reader(&r, cold);
	fake_wait(&fake.parked_ensures, 1);
	fake_stop();
	/* without an agent: what is present, and what is pooled */
	assert_int_equal(pread(p, buf, sizeof(buf), 2000), sizeof(buf));
	assert_true(is_right(late, buf, 2000, sizeof(buf)));
	assert_int_equal(pread(c, buf, sizeof(buf), 2000), sizeof(buf));
	set_auto();
	fake_start();
	join_reader(&r);
	fake_wait(&cold->reopens, 1);
	fake_wait(&late->reopens, 1);
	fake_wait(&complete->reopens, 1);
	assert_reads_right(bytes);
	close(c);
	close(p);
	do_umount();
}

static void agent_and_server_may_die_together(void **state)
{
	pid_t pid = server_pid();
	struct reader r, q;

	start_reader(&r, cold);
	fake_wait(&fake.parked_ensures, 1);
	fake_stop();
	kill(pid, SIGKILL);
	pid = wait_for_new_server(pid);
	start_reader(&q, late);
	kill(pid, SIGKILL);
	wait_for_new_server(pid);
	set_auto();
	fake_start();
	join_reader(&r);
	join_reader(&q);
}

static void the_server_goes_on_without_the_keeper(void **state)
{
	set_auto();
	end_keeper();
	assert_reads_right(late);
	assert_reads_right(cold);
}

/* ---- privileges and memory ---- */

static void the_server_has_no_privileges(void **state)
{
	char path[64], ours[64] = "", theirs[64] = "";
	pid_t pid = server_pid();

	assert_int_equal(proc_status(pid, "CapEff", 16), 0);
	assert_int_equal(proc_status(pid, "CapPrm", 16), 0);
	assert_int_equal(proc_status(pid, "CapBnd", 16), 0);
	assert_int_equal(proc_status(pid, "CapAmb", 16), 0);
	assert_int_equal(proc_status(pid, "NoNewPrivs", 10), 1);
	assert_int_equal(proc_status(pid, "Uid", 10), 65534);
	assert_int_equal(proc_status(pid, "Gid", 10), 65534);
#ifndef WD_SANITIZED
	assert_int_equal(proc_status(pid, "Seccomp", 10), 2);
#endif
	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
	assert_true(readlink(path, theirs, sizeof(theirs) - 1) > 0);
	assert_true(readlink("/proc/self/ns/net", ours, sizeof(ours) - 1) > 0);
	assert_string_not_equal(ours, theirs);
}

static unsigned count_fds(pid_t pid)
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

static void descriptors_are_given_back(void **state)
{
	unsigned before, after;
	pid_t pid = server_pid();

	set_auto();
	before = count_fds(pid);
	for (int i = 0; i < 30; i++) {
		assert_reads_right(late);
		assert_reads_right(bytes);
		assert_reads_right(complete);
	}
	/* RELEASE is not waited for by close(2) */
	fake_wait(&late->releases, 30);
	fake_wait(&bytes->releases, 30);
	after = count_fds(pid);
	assert_int_equal(before, after);
}

static void idle_memory_is_small(void **state)
{
#ifndef WD_SANITIZED
	pid_t pid = server_pid();
	unsigned long long rss;

	set_auto();
	for (int i = 0; i < 5; i++) {
		assert_reads_right(cold);
		assert_reads_right(direct);
	}
	for (int i = 0; i < 40 && (rss = proc_status(pid, "VmRSS", 10)) >= 6 * 1024; i++)
		usleep(100000); /* memory goes back a second after the last request */
	print_message("server %llu KiB, keeper %llu KiB\n", rss, proc_status(keeper, "VmRSS", 10));
	assert_in_range(rss, 1, 6 * 1024 - 1);
	assert_in_range(proc_status(keeper, "VmRSS", 10), 1, 5 * 1024 - 1);
#endif
}

/* ---- mounting and unmounting ---- */

static void a_mount_looks_like_one(void **state)
{
	char line[1024], want[512];
	bool is_found = false;
	FILE *f = fopen("/proc/mounts", "re");

	snprintf(want, sizeof(want), "fake://data %s fuse.warpdrive ro,nosuid,nodev", target);
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		is_found |= strncmp(line, want, strlen(want)) == 0;
	fclose(f);
	assert_true(is_found);
	assert_int_equal(status_number("\"restarts\":"), 0);
	assert_non_null(strstr(status_text(), "\"state\":\"serving\""));
	f = NULL;
	snprintf(line, sizeof(line), "/sys/class/bdi/0:%u/read_ahead_kb", connection);
	f = fopen(line, "re");
	assert_non_null(f);
	assert_non_null(fgets(line, sizeof(line), f));
	assert_string_equal(line, "4096\n");
	fclose(f);
}

static void a_busy_mount_is_not_unmounted(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	int fd = open_file("complete");

	assert_true(fd >= 0);
	assert_int_equal(ask_umount(target, 0, &err), -EBUSY);
	assert_non_null(strstr(err.msg, "busy"));
	assert_int_equal(ask_umount(target, WD_UMOUNT_FORCE, &err), -ENOTSUP);
	close(fd);
	assert_reads_right(complete);
	do_umount();
	fake_wait(&fake.dels, 1);
	assert_null(strstr(status_text(), "\"id\""));
	assert_int_equal(ask_umount(target, 0, &err), -ENOENT);
}

static void a_mount_can_be_made_again(void **state)
{
	for (int i = 0; i < 3; i++) {
		do_umount();
		do_mount("{}");
		assert_reads_right(complete);
	}
}

static void bad_mounts_are_refused_with_a_reason(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	char path[300];

	snprintf(path, sizeof(path), "%s/missing", dir);
	assert_int_equal(ask_mount(path, "{}", &err), -ENOENT);
	assert_non_null(strstr(err.msg, path));
	assert_int_equal(ask_mount("relative", "{}", &err), -EINVAL);
	snprintf(path, sizeof(path), "%s/../x", dir);
	assert_int_equal(ask_mount(path, "{}", &err), -EINVAL);
	snprintf(path, sizeof(path), "%s/agent.sock", dir);
	assert_int_equal(ask_mount(path, "{}", &err), -ENOTDIR);
	assert_int_equal(ask_mount("/proc", "{}", &err), -EBUSY);
	assert_int_equal(ask_mount(target, "refuse", &err), -EACCES);
	assert_string_equal(err.msg, "fake");
	snprintf(path, sizeof(path), "%s/link", dir);
	assert_int_equal(symlink(target, path), 0);
	assert_int_equal(ask_mount(path, "{}", &err), -ELOOP);
	unlink(path);
	do_mount("{}");
	assert_int_equal(ask_mount(target, "{}", &err), -EBUSY);
	snprintf(path, sizeof(path), "%s/many", target);
	assert_int_equal(ask_mount(path, "{}", &err), -EBUSY);
	fake_stop();
	snprintf(path, sizeof(path), "%s/other", dir);
	mkdir(path, 0700);
	assert_true(ask_mount(path, "{}", &err) < 0);
	assert_non_null(strstr(err.msg, "agent.sock"));
	rmdir(path);
}

static void a_server_that_cannot_start_fails_the_mount(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct stat before, after;

	end_keeper();
	unlink(keeper_sock);
	start_keeper("/bin/false");
	assert_int_equal(stat(target, &before), 0);
	assert_int_equal(ask_mount(target, "{}", &err), -EIO);
	assert_non_null(strstr(err.msg, "/bin/false"));
	assert_int_equal(stat(target, &after), 0);
	assert_int_equal(before.st_dev, after.st_dev);
	fake_wait(&fake.dels, 1);
}

static void a_mount_undone_by_someone_else_is_forgotten(void **state)
{
	assert_int_equal(umount2(target, 0), 0);
	connection = 0;
	fake_wait(&fake.dels, 1);
	while (strstr(status_text(), "\"id\""))
		usleep(1000);
	do_mount("{}");
	assert_reads_right(complete);
}

static void a_stopping_keeper_unmounts(void **state)
{
	struct stat before, after;
	int status;

	assert_int_equal(stat(target, &before), 0);
	kill(keeper, SIGTERM);
	assert_int_equal(waitpid(keeper, &status, 0), keeper);
	keeper = 0;
	assert_int_equal(status, 0);
	connection = 0;
	assert_int_equal(stat(target, &after), 0);
	assert_int_not_equal(before.st_dev, after.st_dev);
	assert_int_equal(access(keeper_sock, F_OK), -1);
	start_keeper(NULL);
}

/* ---- hostile clients ---- */

static void hostile_clients_are_dropped(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	unsigned seed = 12345;

	strcpy(addr.sun_path, keeper_sock);
	for (int i = 0; i < 300; i++) {
		int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
		bool is_greeted = i % 3 != 0;

		if (is_greeted) {
			close(sock);
			sock = connect_keeper();
		} else {
			assert_int_equal(connect(sock, (struct sockaddr *)&addr, sizeof(addr)), 0);
		}
		for (int k = 0; k < 4; k++) {
			wd_msg_start(&msg, (uint16_t)(rand_r(&seed) % 90), (uint64_t)rand_r(&seed));
			for (int n = rand_r(&seed) % 40; n > 0; n--)
				wd_put_u8(&msg, (uint8_t)rand_r(&seed));
			if (i % 5 == 0)
				wd_put_fd(&msg, STDERR_FILENO);
			if (i % 7 == 0) {
				unsigned char junk[64];

				for (size_t n = 0; n < sizeof(junk); n++)
					junk[n] = (unsigned char)rand_r(&seed);
				send(sock, junk, sizeof(junk), MSG_NOSIGNAL | MSG_DONTWAIT);
			} else {
				wd_msg_send(sock, &msg, MSG_DONTWAIT);
			}
		}
		close(sock);
	}
	assert_reads_right(complete);
	assert_int_equal(waitpid(keeper, NULL, WNOHANG), 0);
	assert_true(count_fds(keeper) < 40);
}

static void a_client_that_leaves_undoes_its_mount(void **state)
{
	int sock = connect_keeper();

	/* the agent does not answer: it is stopped in the middle */
	wd_lock(&fake.lock);
	wd_msg_start(&msg, WD_MSG_MOUNT, 7);
	wd_put_str(&msg, target);
	wd_put_str(&msg, "{}");
	wd_put_u32(&msg, 0);
	assert_int_equal(wd_msg_send(sock, &msg, 0), 0);
	while (!strstr(status_text(), "\"asked\""))
		usleep(1000);
	close(sock);
	while (strstr(status_text(), "\"id\""))
		usleep(1000);
	wd_unlock(&fake.lock);
	do_mount("{}");
	assert_reads_right(complete);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define MOUNTED(name) cmocka_unit_test_setup_teardown(name, setup_mounted, teardown)
#define PLAIN(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		MOUNTED(a_mount_looks_like_one),
		MOUNTED(a_directory_lists_every_child_once),
		MOUNTED(stat_shows_what_the_agent_says),
		MOUNTED(a_missing_name_is_remembered_for_its_ttl),
		MOUNTED(extended_attributes_come_from_the_agent),
		MOUNTED(everything_that_writes_is_erofs),
		MOUNTED(a_complete_file_is_read_without_the_server),
		MOUNTED(a_pooled_file_opens_without_the_agent),
		MOUNTED(an_empty_file_reads_as_empty),
		MOUNTED(a_cold_read_waits_for_its_blocks),
		MOUNTED(present_blocks_are_read_without_asking),
		MOUNTED(bytes_that_the_cache_does_not_take_come_from_the_agent),
		MOUNTED(a_direct_file_is_read_through_the_agent),
		MOUNTED(a_cold_file_can_be_mapped),
		MOUNTED(many_readers_of_many_files_get_their_bytes),
		MOUNTED(an_unreadable_cache_file_is_asked_for_as_bytes),
		MOUNTED(the_mode_of_an_open_file_stays_until_its_last_close),
		PLAIN(a_mount_without_passthrough_reads_complete_files_too),
		MOUNTED(a_killed_reader_of_absent_data_dies),
		MOUNTED(a_signal_ends_a_parked_request_with_eintr),
		MOUNTED(readers_outlive_the_server),
		MOUNTED(open_files_outlive_the_server),
		MOUNTED(readers_outlive_many_servers),
#ifdef WD_FAULTS
		PLAIN(readers_outlive_many_servers_without_resend),
		PLAIN(handles_outlive_a_server_that_dies_in_open),
		PLAIN(requests_outlive_a_server_that_dies_reading),
		PLAIN(a_mount_that_fails_half_way_is_undone),
		PLAIN(a_cache_file_that_fails_is_read_through),
#endif
		MOUNTED(readers_wait_for_a_new_agent),
		MOUNTED(agent_and_server_may_die_together),
		MOUNTED(the_server_goes_on_without_the_keeper),
		MOUNTED(the_server_has_no_privileges),
		MOUNTED(descriptors_are_given_back),
		MOUNTED(idle_memory_is_small),
		MOUNTED(a_busy_mount_is_not_unmounted),
		MOUNTED(a_mount_can_be_made_again),
		PLAIN(bad_mounts_are_refused_with_a_reason),
		PLAIN(a_server_that_cannot_start_fails_the_mount),
		MOUNTED(a_mount_undone_by_someone_else_is_forgotten),
		MOUNTED(a_stopping_keeper_unmounts),
		MOUNTED(hostile_clients_are_dropped),
		PLAIN(a_client_that_leaves_undoes_its_mount),
	};
	const char *only = getenv("WD_TEST");
	ssize_t n = readlink("/proc/self/exe", keeper_path, sizeof(keeper_path) - 64);
	char *slash;

	if (access("/dev/fuse", R_OK | W_OK) < 0 || geteuid() != 0)
		return 77;
	if (n < 0 || unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return 77;
	keeper_path[n] = '\0';
	slash = strrchr(keeper_path, '/');
	strcpy(slash, "/../bin/warpdrive-keeper");
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	start_watchdog();
	collect_reports();
	signal(SIGPIPE, SIG_IGN);
	if (only)
		cmocka_set_test_filter(only);
	n = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(reports);
	return (int)n;
}
