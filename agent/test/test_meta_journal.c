/* SPDX-License-Identifier: Apache-2.0 */
/* What was saved survives a kill though no commit ever ended; what is torn or foreign is not believed. */
#include "agent/test/store_fixture.h"

#include <signal.h>
#include <sys/wait.h>

#include "agent/meta_internal.h"
#include "agent/test/log_capture.h"

static char dir[64];

static int make_dir(void **state)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof(dir), "%s/wd-journal-XXXXXX", tmp ? tmp : "/tmp");
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

static void put(struct meta *m, unsigned key, unsigned value)
{
	meta_put(m, META_NODES, &key, sizeof(key), &value, sizeof(value));
}

static int save(struct meta *m, unsigned key)
{
	return meta_save(m, META_NODES, &key, sizeof(key));
}

/* 0: absent */
static unsigned value_of(struct meta *m, unsigned key)
{
	unsigned value = 0;
	size_t len;

	(void)meta_get(m, META_NODES, &key, sizeof(key), &value, sizeof(value), &len);
	return value;
}

/* Runs fill in a process that is killed when fill has returned. */
static void in_a_process_that_dies(void (*fill)(struct meta *m))
{
	int ready[2], status;
	pid_t pid;
	char c;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		fill(open_meta());
		if (write(ready[1], "x", 1) != 1)
			_exit(1);
		pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	close(ready[0]);
}

static void save_without_commits(struct meta *m)
{
	unsigned gone = 7;

	put(m, 7, 70);
	if (meta_flush(m) < 0)
		_exit(1);
	wd_fault_arm("meta.commit=0");
	for (unsigned i = 1; i <= 3; i++) {
		put(m, i, i * 10);
		if (save(m, i) < 0)
			_exit(1);
	}
	put(m, 2, 21); /* newer than what is saved of it */
	put(m, 4, 40);
	if (save(m, 4) < 0)
		_exit(1);
	meta_del(m, META_NODES, &gone, sizeof(gone));
	if (meta_save(m, META_NODES, &gone, sizeof(gone)) < 0)
		_exit(1);
	put(m, 5, 50); /* never saved */
}

static void what_was_saved_survives_a_kill_without_any_commit(void **state)
{
	struct meta *m;

	in_a_process_that_dies(save_without_commits);
	m = open_meta();
	assert_int_equal(value_of(m, 1), 10);
	assert_int_equal(value_of(m, 2), 21);
	assert_int_equal(value_of(m, 3), 30);
	assert_int_equal(value_of(m, 4), 40);
	assert_int_equal(value_of(m, 5), 0);
	assert_int_equal(value_of(m, 7), 0); /* its removal was saved */
	meta_close(m);
	m = open_meta();
	assert_int_equal(value_of(m, 2), 21);
	meta_close(m);
}

static void save_between_commits(struct meta *m)
{
	for (unsigned i = 1; i <= 2000; i++) {
		put(m, i % 50 + 1, i);
		if (save(m, i % 50 + 1) < 0)
			_exit(1);
		if (i % 97 == 0)
			meta_flush(m);
	}
}

static void of_two_values_the_newer_one_is_found(void **state)
{
	struct meta *m;

	for (int round = 0; round < 5; round++) {
		in_a_process_that_dies(save_between_commits);
		m = open_meta();
		for (unsigned k = 1; k <= 50; k++)
			assert_int_equal(value_of(m, k), k == 1 ? 2000 : 1950 + k - 1);
		meta_close(m);
	}
}

static void journal_path(int i, char out[96])
{
	snprintf(out, 96, "%s/meta-journal.%d", dir, i);
}

static off_t journal_size(int i)
{
	struct stat st;
	char path[96];

	journal_path(i, path);
	return stat(path, &st) < 0 ? -1 : st.st_size;
}

static void save_three(struct meta *m)
{
	wd_fault_arm("meta.commit=0");
	for (unsigned i = 1; i <= 3; i++) {
		put(m, i, i);
		if (save(m, i) < 0)
			_exit(1);
	}
}

/* The file that has records. */
static int used_file(void)
{
	return journal_size(0) > 0 ? 0 : 1;
}

static void a_torn_or_flipped_record_ends_the_journal(void **state)
{
	for (unsigned cut = 1; cut < 60; cut += 7) {
		char path[96];
		struct meta *m;
		bool is_flip = cut % 2;
		off_t size;

		in_a_process_that_dies(save_three);
		journal_path(used_file(), path);
		size = journal_size(used_file());
		assert_true(size > 60);
		if (is_flip) {
			int fd = open(path, O_RDWR | O_CLOEXEC);
			unsigned char c;

			assert_true(fd >= 0);
			assert_int_equal(pread(fd, &c, 1, size - (off_t)cut % 36 - 1), 1);
			c ^= 8;
			assert_int_equal(pwrite(fd, &c, 1, size - (off_t)cut % 36 - 1), 1);
			close(fd);
		} else {
			assert_int_equal(truncate(path, size - (off_t)cut % 36 - 1), 0);
		}
		m = open_meta();
		assert_int_equal(value_of(m, 1), 1);
		assert_int_equal(value_of(m, 2), 2);
		assert_int_equal(value_of(m, 3), 0);
		for (unsigned i = 1; i <= 3; i++)
			meta_del(m, META_NODES, &i, sizeof(i));
		meta_close(m);
	}
}

static void a_journal_of_another_run_is_not_believed(void **state)
{
	char path[96], kept[128];
	struct meta *m;
	int file;

	in_a_process_that_dies(save_three);
	file = used_file();
	journal_path(file, path);
	snprintf(kept, sizeof(kept), "%s.kept", path);
	assert_int_equal(rename(path, kept), 0);
	m = open_meta();
	put(m, 1, 100);
	meta_close(m);
	assert_int_equal(rename(kept, path), 0);
	m = open_meta();
	assert_int_equal(value_of(m, 1), 100);
	assert_int_equal(value_of(m, 2), 0);
	meta_close(m);
}

static void garbage_in_a_journal_harms_nobody(void **state)
{
	unsigned seed = 1;

	for (int round = 0; round < 20; round++) {
		char path[96];
		struct meta *m;
		int fd;

		in_a_process_that_dies(save_three);
		journal_path(round % 2, path);
		fd = open(path, O_RDWR | O_CLOEXEC);
		assert_true(fd >= 0);
		for (int i = 0; i < 20; i++) {
			unsigned char c = (unsigned char)rand_r(&seed);

			assert_int_equal(pwrite(fd, &c, 1, rand_r(&seed) % 200), 1);
		}
		close(fd);
		m = open_meta();
		for (unsigned i = 1; i <= 3; i++)
			assert_true(value_of(m, i) == 0 || value_of(m, i) == i);
		meta_close(m);
	}
}

static void a_journal_that_cannot_be_written_makes_names_wait_for_the_commit(void **state)
{
	struct meta_stats st;
	struct meta *m = open_meta();
	char subject[96];

	snprintf(subject, sizeof(subject), "metadata '%s/meta'", dir);
	log_begin();
	wd_fault_arm("meta.journal=1");
	put(m, 1, 1);
	assert_int_equal(save(m, 1), 0);
	assert_true(log_said(1, subject, "journal: "));
	assert_true(log_said(1, subject, "names wait for the disk instead"));
	log_end();
	meta_get_stats(m, &st);
	assert_true(st.commits > 0);
	/* that commit has emptied it: it works again */
	wd_fault_arm("meta.commit=0");
	put(m, 2, 2);
	assert_int_equal(save(m, 2), 0);
	assert_true(journal_size(0) > 0 || journal_size(1) > 0);
	wd_fault_arm(NULL);
	meta_close(m);
}

static void the_journal_is_emptied_by_commits_and_bounded_without(void **state)
{
	static unsigned char value[META_VALUE_MAX];
	struct meta *m = open_meta();

	for (unsigned i = 0; i < 100; i++) {
		put(m, i, i + 1);
		assert_int_equal(save(m, i), 0);
	}
	assert_int_equal(meta_flush(m), 0);
	put(m, 1, 1); /* emptied after the commit, by the same thread: when the next one ended it is */
	assert_int_equal(meta_flush(m), 0);
	assert_int_equal(journal_size(0) > 0 ? journal_size(1) : 0, 0);
	wd_fault_arm("meta.commit=0");
	for (unsigned i = 0; i < 20000; i++) {
		unsigned key = i % 100;

		meta_put(m, META_NODES, &key, sizeof(key), value, sizeof(value));
		if (meta_save(m, META_NODES, &key, sizeof(key)) < 0)
			break; /* full: it waits for a commit, which fails */
	}
	assert_true(journal_size(0) <= JOURNAL_MAX && journal_size(1) <= JOURNAL_MAX);
	wd_fault_arm(NULL);
	meta_close(m);
	m = open_meta();
	assert_int_equal(journal_size(0) + journal_size(1), 0);
	meta_close(m);
}

struct worker {
	struct meta *m;
	unsigned n;
};

static void *work(void *arg)
{
	struct worker *w = arg;

	for (unsigned i = 0; i < 500; i++) {
		put(w->m, w->n * 1000 + i, i + 1);
		if (save(w->m, w->n * 1000 + i) < 0)
			_exit(1);
		if (!meta_is_saved(w->m, META_NODES, &(unsigned){w->n * 1000 + i}, sizeof(unsigned)))
			_exit(1);
	}
	return NULL;
}

static void save_by_many(struct meta *m)
{
	struct worker workers[6];
	pthread_t threads[6];

	for (unsigned i = 0; i < 6; i++) {
		workers[i] = (struct worker){m, i};
		pthread_create(&threads[i], NULL, work, &workers[i]);
	}
	for (unsigned i = 0; i < 6; i++)
		pthread_join(threads[i], NULL);
}

static void many_threads_save_while_the_writer_commits(void **state)
{
	struct meta *m;

	in_a_process_that_dies(save_by_many);
	m = open_meta();
	for (unsigned n = 0; n < 6; n++)
		for (unsigned i = 0; i < 500; i++)
			assert_int_equal(value_of(m, n * 1000 + i), i + 1);
	meta_close(m);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, drop_dir)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_was_saved_survives_a_kill_without_any_commit),
		TEST(of_two_values_the_newer_one_is_found),
		TEST(a_torn_or_flipped_record_ends_the_journal),
		TEST(a_journal_of_another_run_is_not_believed),
		TEST(garbage_in_a_journal_harms_nobody),
		TEST(a_journal_that_cannot_be_written_makes_names_wait_for_the_commit),
		TEST(the_journal_is_emptied_by_commits_and_bounded_without),
		TEST(many_threads_save_while_the_writer_commits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
