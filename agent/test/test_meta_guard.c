/* SPDX-License-Identifier: Apache-2.0 */
/* The database's file is cut, or its disk dies, while it is mapped: an error, never a SIGBUS. */
#include "agent/test/exposition.h"
#include "agent/test/store_fixture.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "agent/meta_guard.h"
#include "agent/meta_internal.h"
#include "agent/test/log_capture.h"

#define KEYS 20000

static char dir[64];

static int make_dir(void **state)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof(dir), "%s/wd-guard-XXXXXX", tmp ? tmp : "/tmp");
	return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state)
{
	log_show(state);
	wd_fault_arm(NULL);
	remove_tree(AT_FDCWD, dir);
	return 0;
}

static struct meta *open_meta(void)
{
	struct wd_err err = WD_ERR_INIT;
	struct meta *m = NULL;

	if (meta_open(dir, &m, &err) < 0)
		fail_msg("%s", err.msg);
	return m;
}

static void put(struct meta *m, uint32_t key, uint32_t value)
{
	meta_put(m, META_NODES, &key, sizeof(key), &value, sizeof(value));
}

static int get_value(struct meta *m, uint32_t key, uint32_t *ret_value)
{
	size_t len;

	return meta_get(m, META_NODES, &key, sizeof(key), ret_value, sizeof(*ret_value), &len);
}

static struct meta *open_full(void)
{
	struct meta *m = open_meta();

	for (uint32_t i = 0; i < KEYS; i++)
		put(m, i, i + 1);
	assert_int_equal(meta_flush(m), 0);
	return m;
}

static void cut(void)
{
	char path[96];

	snprintf(path, sizeof(path), "%s/meta/data.mdb", dir);
	assert_int_equal(truncate(path, 8192), 0);
}

static bool is_memory_only(struct meta *m)
{
	struct meta_stats st;

	meta_get_stats(m, &st);
	return st.is_memory_only;
}

static void wait_until_it_works(struct meta *m)
{
	while (meta_flush(m) < 0 || is_memory_only(m))
		sched_yield(); /* ctest's time-out guards */
}

static unsigned count_aside(void)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	unsigned n = 0;

	while ((e = readdir(d)) != NULL)
		n += strstr(e->d_name, ".aside") != NULL;
	closedir(d);
	return n;
}

static bool count_one(void *arg, const void *key, size_t key_len, const void *value, size_t len)
{
	++*(unsigned *)arg;
	return true;
}

static void a_file_cut_under_the_agent_is_an_error_and_memory_goes_on(void **state)
{
	struct meta *m = open_full();
	uint64_t epoch = meta_epoch(m), id = meta_next_id(m);
	char subject[96];
	uint32_t value;
	unsigned n = 0;

	snprintf(subject, sizeof(subject), "metadata '%s/meta'", dir);
	log_begin();
	wd_fault_arm("meta.revive=0");
	cut();
	assert_int_equal(get_value(m, 12345, &value), -EIO);
	for (uint32_t i = 0; i < 100; i++)
		assert_true(get_value(m, i * 10, &value) < 0);
	assert_true(log_said(1, subject, "its file was cut, or its disk is dead"));
	assert_true(is_memory_only(m));
	assert_int_equal(meta_scan(m, META_NODES, NULL, 0, count_one, &n), -EIO);
	assert_int_equal(meta_count(m, META_NODES), 0);
	put(m, 12345, 77);
	assert_int_equal(get_value(m, 12345, &value), 0);
	assert_int_equal(value, 77);
	assert_int_equal(meta_flush(m), -EIO);
	assert_int_equal(meta_flush(m), -EIO);
	assert_true(log_said(1, subject, "commit: Input/output error; going on in memory"));
	assert_true(meta_next_id(m) > id);
	/* what can be opened again is, and the rest is set aside */
	wd_fault_arm(NULL);
	wait_until_it_works(m);
	assert_true(log_said(1, subject, "its file was cut, or its disk is dead"));
	assert_true(log_said(1, subject, "set aside as"));
	assert_int_equal(exposed("warpdrive_meta_set_aside_total"), 1);
	assert_true(log_said(1, subject, "was opened again"));
	log_end();
	assert_int_equal(count_aside(), 1);
	assert_int_equal(get_value(m, 12345, &value), 0);
	assert_int_equal(get_value(m, 1, &value), -ENOENT);
	assert_int_equal(meta_epoch(m), epoch);
	id = meta_next_id(m);
	meta_close(m);
	m = open_meta();
	assert_int_equal(get_value(m, 12345, &value), 0);
	assert_int_equal(value, 77);
	assert_int_equal(meta_epoch(m), epoch);
	assert_true(meta_next_id(m) > id);
	meta_close(m);
}

static void pages_that_can_be_read_again_are_all_there(void **state)
{
	struct meta *m = open_full();
	uint32_t value;
	unsigned n = 0;

	wd_fault_arm("meta.page=1");
	assert_int_equal(get_value(m, 1, &value), -EIO);
	put(m, KEYS, KEYS + 1);
	wait_until_it_works(m);
	wd_fault_arm("meta.page=1");
	assert_int_equal(meta_scan(m, META_NODES, NULL, 0, count_one, &n), -EIO);
	put(m, KEYS + 1, KEYS + 2);
	wait_until_it_works(m);
	for (uint32_t i = 0; i <= KEYS + 1; i++) {
		assert_int_equal(get_value(m, i, &value), 0);
		assert_int_equal(value, i + 1);
	}
	assert_int_equal(count_aside(), 0);
	meta_close(m);
	m = open_meta();
	assert_int_equal(meta_count(m, META_NODES), KEYS + 2);
	meta_close(m);
}

struct reader {
	struct meta *m;
	unsigned seed, errors;
};

static void *read_on(void *arg)
{
	struct reader *r = arg;

	for (int i = 0; i < 20000; i++) {
		uint32_t key = (uint32_t)rand_r(&r->seed) % KEYS, value = 0;
		int rc = get_value(r->m, key, &value);

		r->errors += rc == -EIO;
		if (rc == 0 ? value != key + 1 : rc != -EIO && rc != -ENOENT)
			_exit(1);
	}
	return NULL;
}

static void many_readers_of_a_cut_file_all_get_an_answer(void **state)
{
	struct meta *m = open_full();
	struct reader readers[6];
	pthread_t threads[6];
	unsigned errors = 0;

	wd_fault_arm("meta.revive=0");
	for (unsigned i = 0; i < 6; i++) {
		readers[i] = (struct reader){m, i, 0};
		assert_int_equal(pthread_create(&threads[i], NULL, read_on, &readers[i]), 0);
	}
	cut();
	for (unsigned i = 0; i < 6; i++) {
		pthread_join(threads[i], NULL);
		errors += readers[i].errors;
	}
	assert_true(errors > 0 || !is_memory_only(m)); /* all may have been done before */
	meta_close(m);
}

static void a_commit_into_a_cut_file_fails_and_is_tried_again(void **state)
{
	struct meta *m = open_full();
	uint32_t value;

	cut();
	for (uint32_t i = 0; i < 100; i++)
		put(m, i * 100, 5);
	wait_until_it_works(m);
	for (uint32_t i = 0; i < 100; i++) {
		assert_int_equal(get_value(m, i * 100, &value), 0);
		assert_int_equal(value, 5);
	}
	meta_close(m);
}

static void garbage_in_the_lock_file_harms_nobody(void **state)
{
	struct meta *m = open_full();
	char path[96];
	uint32_t value;

	meta_close(m);
	snprintf(path, sizeof(path), "%s/meta/lock.mdb", dir);
	for (int round = 0; round < 3; round++) {
		int fd = open(path, O_WRONLY | O_TRUNC | O_CREAT | O_CLOEXEC, 0600);

		assert_true(fd >= 0);
		for (int i = 0; i < (round + 1) * 50; i++)
			assert_int_equal(write(fd, "garbage garbage!", 16), 16);
		close(fd);
		m = open_meta();
		assert_int_equal(get_value(m, 77, &value), 0);
		assert_int_equal(value, 78);
		put(m, 77, 78);
		assert_int_equal(meta_flush(m), 0);
		meta_close(m);
	}
	assert_int_equal(count_aside(), 0);
}

/* What can be opened but not read: the start goes on, with the same file, and in the end with another. */
static void a_start_outlives_pages_that_cannot_be_read(void **state)
{
	static const char *const faults[] = {"meta.page=@2", "meta.page=@2,meta.page=@4",
		"meta.page=@2,meta.page=@4,meta.page=@6"};
	uint32_t value;

	for (unsigned i = 0; i < 3; i++) {
		struct meta *m = open_full();

		meta_close(m);
		wd_fault_arm(faults[i]);
		m = open_meta();
		wd_fault_arm(NULL);
		assert_int_equal(count_aside(), i == 2);
		assert_int_equal(get_value(m, 1, &value), i == 2 ? -ENOENT : 0);
		put(m, 12345, 77);
		assert_int_equal(meta_flush(m), 0);
		meta_close(m);
		remove_tree(AT_FDCWD, dir);
		assert_int_equal(mkdir(dir, 0700), 0);
	}
}

static void pages_overwritten_at_random_never_crash(void **state)
{
	unsigned seed = 7;
	char path[96];

	snprintf(path, sizeof(path), "%s/meta/data.mdb", dir);
	for (int round = 0; round < 12; round++) {
		struct meta *m = open_full();
		struct stat st;
		uint32_t value = 0;
		int fd;

		meta_close(m);
		fd = open(path, O_RDWR | O_CLOEXEC);
		assert_true(fd >= 0);
		assert_int_equal(fstat(fd, &st), 0);
		/* values and keys, and now and then a whole page of zeros: what disks do. LMDB believes
		 * its page headers, which a flipped bit there would turn into anything; see meta_env.c */
		for (int i = 0; i < 40; i++) {
			off_t page = 2 + rand_r(&seed) % (st.st_size / 4096 - 2);

			if (i % 8 == 0)
				assert_int_equal(pwrite(fd, (char[4096]){0}, 4096, page * 4096), 4096);
			else
				assert_int_equal(pwrite(fd, "\377", 1,
							 page * 4096 + 2048 + rand_r(&seed) % 2048),
					1);
		}
		close(fd);
		m = open_meta();
		for (uint32_t i = 0; i < KEYS; i += 7) {
			int rc = get_value(m, i, &value);

			assert_true(rc < 0 || value == i + 1);
		}
		meta_close(m);
		remove_tree(AT_FDCWD, dir);
		assert_int_equal(mkdir(dir, 0700), 0);
	}
}

static void a_fault_that_is_nobodys_ends_the_process_as_ever(void **state)
{
	int status;
	pid_t pid;

	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int fd = memfd_create("empty", MFD_CLOEXEC);
		volatile char *p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);

		signal(SIGBUS, SIG_DFL); /* the test's own */
		if (guard_install() < 0)
			_exit(1);
		_exit(p[0]);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, drop_dir)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_file_cut_under_the_agent_is_an_error_and_memory_goes_on),
		TEST(pages_that_can_be_read_again_are_all_there),
		TEST(many_readers_of_a_cut_file_all_get_an_answer),
		TEST(a_commit_into_a_cut_file_fails_and_is_tried_again),
		TEST(garbage_in_the_lock_file_harms_nobody),
		TEST(a_start_outlives_pages_that_cannot_be_read),
		TEST(pages_overwritten_at_random_never_crash),
		TEST(a_fault_that_is_nobodys_ends_the_process_as_ever),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
