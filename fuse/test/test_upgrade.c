/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs of different releases that meet (mount_fixture.h).
 */
#include "fuse/test/mount_fixture.h"

#include <sys/mman.h>

/* flags of memfd_create since Linux 6.3 */
#define NOEXEC 0x0008U
#define EXEC 0x0010U

static void an_agent_of_the_release_before_is_spoken_to_in_its_protocol(void **state)
{
	wd_lock(&fake.lock);
	fake.version = WD_PROTO_OLDEST;
	wd_unlock(&fake.lock);
	do_mount("{}");
	set_auto();
	assert_reads_right(complete);
	assert_reads_right(late);
	kill(server_pid(), SIGKILL);
	assert_reads_right(bytes);
	do_umount();
}

/* ---- server programs ---- */

/* A sealed memfd with the bytes of a program and `more` bytes behind them, which make it another. */
static int make_program(const char *path, const char *more, unsigned flags)
{
	int in = open(path, O_RDONLY | O_CLOEXEC);
	int fd = memfd_create("program", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
	char buf[65536];
	ssize_t n;

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("program", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_true(in >= 0 && fd >= 0);
	while ((n = read(in, buf, sizeof(buf))) > 0)
		assert_int_equal(write(fd, buf, (size_t)n), n);
	assert_int_equal(write(fd, more, strlen(more)), strlen(more));
	close(in);
	assert_int_equal(
		fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
	return fd;
}

static void offer(const char *id, const char *path, const char *more, int want)
{
	int fd = make_program(path, more, EXEC);

	assert_int_equal(fake_offer(id, fd), want);
	close(fd);
}

static void wait_for_counter(const char *name, long value)
{
	char key[64];

	snprintf(key, sizeof(key), "\"%s\":", name);
	while (status_number(key) < value)
		usleep(1000);
}

static bool runs(const char *program)
{
	char want[64];

	snprintf(want, sizeof(want), "\"program\":\"%s\"", program);
	return strstr(status_text(), want) != NULL;
}

static void an_upgrade_reaches_no_reader(void **state)
{
	struct fake_file *files[] = {complete, cold, direct, late};
	struct reader readers[4], parked;
	char id[32];

	start_reader(&parked, bytes); /* one that holds a request all the time */
	for (int i = 0; i < 6; i++) {
		pid_t before = server_pid();

		if (i == 3)
			set_auto();
		for (int r = 0; r < 4; r++)
			start_reader(&readers[r], i < 3 ? complete : files[r]);
		snprintf(id, sizeof(id), "program-%d", i);
		offer(id, real_server(), id, 0);
		wait_for_counter("upgrades", i + 1);
		assert_int_not_equal(server_pid(), before);
		assert_true(runs(id));
		for (int r = 0; r < 4; r++)
			join_reader(&readers[r]);
	}
	join_reader(&parked);
	/* the same again is nothing new, and what the keeper has itself is its own */
	offer("program-5", real_server(), "program-5", 0);
	offer("own-copy", real_server(), "", 0);
	wait_for_counter("upgrades", 7);
	assert_true(runs("own"));
	assert_int_equal(status_number("\"upgrades_refused\":"), 0);
	assert_reads_right(cold);
	do_umount();
}

static void a_program_that_does_not_run_is_refused(void **state)
{
	pid_t pid = server_pid();
	int fd;

	offer("garbage-1", "/etc/passwd", "x", -ENOEXEC);
	offer("false-123", "/bin/false", "", -ENOEXEC);
	assert_int_equal(fake_offer("nothing-1", -1), -EINVAL);
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_int_equal(fake_offer("device-1", fd), -EINVAL);
	close(fd);
	fd = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(fd, 4096), 0);
	assert_int_equal(fake_offer("unsealed-1", fd), -EINVAL);
	close(fd);
	assert_int_equal(server_pid(), pid);
	assert_true(runs("own"));
	assert_reads_right(complete);
}

/* /bin/true says --version and never READY. */
static void a_program_that_does_not_get_ready_leaves_the_old_one_serving(void **state)
{
	pid_t pid = server_pid();

	offer("true-1234", "/bin/true", "", 0);
	wait_for_counter("upgrades_refused", 1);
	assert_int_equal(server_pid(), pid);
	assert_reads_right(complete);
	/* it is not tried again, not even when the server dies */
	kill(pid, SIGKILL);
	wait_for_new_server(pid);
	assert_reads_right(complete);
	assert_true(runs("own"));
	assert_int_equal(status_number("\"upgrades_refused\":"), 1);
	offer("program-9", real_server(), "9", 0);
	wait_for_counter("upgrades", 1);
	assert_true(runs("program-9"));
}

/* What a release of another format would have made: its server cannot be replaced by this one. */
static void memory_of_another_version_stays_with_its_program(void **state)
{
	const uint32_t newer = WD_MM_VERSION + 1, ours = WD_MM_VERSION;
	const off_t at = offsetof(struct wd_mm_header, version);
	int tables = fake.mounts[0].tables_fd;
	pid_t pid = server_pid();

	assert_int_equal(pwrite(tables, &newer, sizeof(newer), at), sizeof(newer));
	offer("program-old", real_server(), "old", 0);
	wait_for_counter("upgrades_refused", 1);
	assert_int_equal(server_pid(), pid);
	assert_true(runs("own"));
	set_auto();
	assert_reads_right(complete);
	assert_reads_right(late);
	assert_int_equal(pwrite(tables, &ours, sizeof(ours), at), sizeof(ours));
	offer("program-new", real_server(), "new", 0);
	wait_for_counter("upgrades", 1);
	assert_reads_right(cold);
}

/* The minor version, as the release before makes it and as it is made now, under one server after the other. */
static void memory_of_the_minor_version_before_is_served_and_left_alone(void **state)
{
	const uint32_t before = 0, now = WD_MM_MINOR;
	const off_t at = offsetof(struct wd_mm_header, minor);
	uint64_t counts[2][WD_MM_COUNTS];
	pid_t pid = server_pid();
	struct wd_mm mm;

	assert_int_equal(wd_mm_map(fake.mounts[0].tables_fd, &mm, NULL), 0);
	set_auto();
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pwrite(fake.mounts[0].tables_fd, i % 2 ? &now : &before, sizeof(now), at),
			sizeof(now));
		kill(pid, SIGKILL);
		pid = wait_for_new_server(pid);
		assert_reads_right(i % 2 ? bytes : late); /* once it has answered, nobody else counts */
		for (int c = 0; c < WD_MM_COUNTS; c++)
			counts[0][c] = mm.header->counts[c];
		assert_reads_right(complete);
		assert_reads_right(complete);
		for (int c = 0; c < WD_MM_COUNTS; c++)
			counts[1][c] = mm.header->counts[c];
		if (i % 2)
			assert_true(counts[1][WD_MM_PASSTHROUGH_OPENS] + counts[1][WD_MM_READ_BYTES] >
				    counts[0][WD_MM_PASSTHROUGH_OPENS] + counts[0][WD_MM_READ_BYTES]);
		else
			assert_memory_equal(counts[0], counts[1], sizeof(counts[0]));
	}
	wd_mm_unmap(&mm);
	do_umount();
}

/* A new mount is served all the same. */
static void a_new_mount_falls_back_to_the_own_program(void **state)
{
	do_umount();
	offer("true-1234", "/bin/true", "", 0);
	do_mount("{}");
	assert_true(runs("own"));
	assert_reads_right(complete);
	do_umount();
}

static void where_a_memfd_is_forbidden_a_file_does(void **state)
{
	char path[256];
	int fd = make_program(real_server(), "file", NOEXEC);

	if (fcntl(fd, F_GETFD) >= 0 && faccessat(fd, "", X_OK, AT_EMPTY_PATH) == 0) {
		close(fd);
		skip(); /* before Linux 6.3 every memfd can be executed */
	}
	assert_int_equal(fake_offer("program-f", fd), -EACCES);
	close(fd);
	assert_true(runs("own"));
	snprintf(path, sizeof(path), "%s/program", dir);
	copy_program(real_server(), path);
	fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	assert_int_equal(write(fd, "file", 4), 4);
	close(fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	unlink(path);
	assert_int_equal(fake_offer("program-f", fd), 0);
	close(fd);
	wait_for_counter("upgrades", 1);
	assert_true(runs("program-f"));
	assert_reads_right(complete);
}

static void an_old_server_that_dies_while_its_successor_starts_is_no_loss(void **state)
{
	set_auto();
	for (int i = 0; i < 5; i++) {
		char id[32];
		pid_t pid = server_pid();

		snprintf(id, sizeof(id), "program-%d", i);
		offer(id, real_server(), id, 0);
		if (pid > 0)
			kill(pid, SIGKILL);
		assert_reads_right(late);
		assert_reads_right(complete);
		while (!runs(id))
			usleep(1000);
	}
	do_umount();
}

static void an_unmount_ends_an_upgrade(void **state)
{
	for (int i = 0; i < 5; i++) {
		char id[32];

		snprintf(id, sizeof(id), "program-%d", i);
		offer(id, real_server(), id, 0);
		do_umount();
		do_mount("{}");
		assert_reads_right(complete);
	}
}

/* It gets ready, takes over and dies, again and again. */
static void a_program_that_crashes_again_and_again_is_given_up(void **state)
{
	char path[PATH_MAX];

	strcpy(path, keeper_path);
	strcpy(strrchr(path, '/'), "/../test/fuse_crashing_server");
	set_auto();
	offer("crashing-1", path, "", 0);
	assert_reads_right(late);
	wait_for_counter("upgrades_refused", 1);
	assert_reads_right(bytes);
	assert_true(runs("own"));
	/* a mount that never knew another program falls back, too */
	do_umount();
	do_mount("{}");
	assert_reads_right(late);
	wait_for_counter("upgrades_refused", 2);
	assert_reads_right(cold);
	assert_true(runs("own"));
	do_umount();
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		PLAIN(an_agent_of_the_release_before_is_spoken_to_in_its_protocol),
		MOUNTED(an_upgrade_reaches_no_reader),
		MOUNTED(a_program_that_does_not_run_is_refused),
		MOUNTED(a_program_that_does_not_get_ready_leaves_the_old_one_serving),
		MOUNTED(memory_of_another_version_stays_with_its_program),
		MOUNTED(memory_of_the_minor_version_before_is_served_and_left_alone),
		MOUNTED(a_new_mount_falls_back_to_the_own_program),
		MOUNTED(where_a_memfd_is_forbidden_a_file_does),
		MOUNTED(an_old_server_that_dies_while_its_successor_starts_is_no_loss),
		MOUNTED(an_unmount_ends_an_upgrade),
		MOUNTED(a_program_that_crashes_again_and_again_is_given_up),
	};

	return run_fixture(tests, sizeof(tests) / sizeof(tests[0]));
}
