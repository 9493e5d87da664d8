/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a mount shows and how it is read, through the real kernel (mount_fixture.h).
 */
#include "fuse/test/mount_fixture.h"

static void a_directory_lists_every_child_once(void **state)
{
	assert_lists_every_child_once();
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
	static const char names[] =
		"user.warpdrive.origin\0user.warpdrive.version\0user.warpdrive.cached";
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

static void a_complete_file_is_read_without_the_server(void **state)
{
	assert_reads_right(complete);
	assert_int_equal(fake_get(&complete->ensures), 0);
	assert_int_not_equal(fake_get(&complete->backing_id), 0);
	/* stopped, the server could not answer a READ; the open is another matter, so it comes
	 * first */
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

/* The agent, which is not asked, would not know of them. */
static void opens_and_reads_are_counted_in_the_tables(void **state)
{
	struct wd_mm mm;

	assert_int_equal(wd_mm_map(fake.mounts[0].tables_fd, &mm, NULL), 0);
	assert_reads_right(complete);
	assert_int_equal(wd_mm_counted(&mm, WD_MM_PASSTHROUGH_OPENS), 0);
	for (int i = 1; i <= 5; i++) {
		assert_reads_right(complete);
		assert_int_equal(wd_mm_counted(&mm, WD_MM_PASSTHROUGH_OPENS), i);
		assert_int_equal(wd_mm_counted(&mm, WD_MM_PASSTHROUGH_BYTES), i * complete->size);
	}
	assert_int_equal(wd_mm_counted(&mm, WD_MM_READ_BYTES), 0);
	set_auto();
	assert_reads_right(late);
	assert_true(wd_mm_counted(&mm, WD_MM_READ_BYTES) >= late->size);
	assert_int_equal(wd_mm_counted(&mm, WD_MM_PASSTHROUGH_OPENS), 5);
	wd_mm_unmap(&mm);
}

/* As soon as a file is open through the server, further opens are its own to answer. */
static void further_opens_of_a_cached_file_are_counted(void **state)
{
	struct wd_mm mm;
	int fds[4];

	assert_int_equal(wd_mm_map(fake.mounts[0].tables_fd, &mm, NULL), 0);
	for (int i = 0; i < 4; i++) {
		fds[i] = open_file("cold");
		assert_true(fds[i] >= 0);
		assert_int_equal(wd_mm_counted(&mm, WD_MM_CACHED_OPENS), i);
	}
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	wd_mm_unmap(&mm);
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
	direct->is_direct =
		false; /* the agent parks what it is asked for, and knows no more of bytes */
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

static void an_invalidated_name_is_looked_up_again(void **state)
{
	char path[300];
	unsigned before;
	struct stat st;

	snprintf(path, sizeof(path), "%s/negative", target);
	assert_int_equal(stat(path, &st), -1);
	before = fake_get(&fake.lookups);
	wd_lock(&fake.lock);
	wd_msg_start(&fake_out, WD_MSG_INVAL_ENTRY, 0);
	wd_put_u64(&fake_out, FAKE_ROOT);
	wd_put_str(&fake_out, "negative");
	fake_send(fake.mounts[0].sock);
	wd_unlock(&fake.lock);
	while (fake_get(&fake.lookups) == before)
		assert_int_equal(stat(path, &st), -1); /* until the notice has arrived */
}

#ifdef WD_FAULTS

static void a_cache_file_that_fails_is_read_through(void **state)
{
	restart_with_faults("server.pread=0");
	do_mount("{}");
	fake_fill(late, 0, late->size);
	assert_reads_right(late);
	assert_true(fake_get(&late->ensures) > 0);
}

#endif

int main(void)
{
	static const struct CMUnitTest tests[] = {
		MOUNTED(a_directory_lists_every_child_once),
		MOUNTED(stat_shows_what_the_agent_says),
		MOUNTED(a_missing_name_is_remembered_for_its_ttl),
		MOUNTED(extended_attributes_come_from_the_agent),
		MOUNTED(everything_that_writes_is_erofs),
		MOUNTED(a_complete_file_is_read_without_the_server),
		MOUNTED(a_pooled_file_opens_without_the_agent),
		MOUNTED(opens_and_reads_are_counted_in_the_tables),
		MOUNTED(further_opens_of_a_cached_file_are_counted),
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
		MOUNTED(descriptors_are_given_back),
		MOUNTED(an_invalidated_name_is_looked_up_again),
#ifdef WD_FAULTS
		PLAIN(a_cache_file_that_fails_is_read_through),
#endif
	};

	return run_fixture(tests, sizeof(tests) / sizeof(tests[0]));
}
