/* SPDX-License-Identifier: Apache-2.0 */
/* Batches, restarts, damage, formats, a disk that fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/meta_internal.h"
#include "agent/test/log_capture.h"
#include "agent/test/store_fixture.h"

static char dir[64];

static int make_dir(void **state)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof(dir), "%s/wd-meta-XXXXXX", tmp ? tmp : "/tmp");
	return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state)
{
	log_show(state);
	wd_fault_arm(NULL);
	remove_tree(AT_FDCWD, dir);
	return 0;
}

static struct meta *open_sized(size_t size)
{
	struct wd_err err = WD_ERR_INIT;
	struct meta *m = NULL;

	if (meta_open_sized(dir, size, &m, &err) < 0)
		fail_msg("%s", err.msg);
	return m;
}

static struct meta *open_meta(void)
{
	return open_sized((size_t)1 << 30);
}

static void put(struct meta *m, const char *key, const char *value)
{
	meta_put(m, META_DATASETS, key, strlen(key), value, strlen(value));
}

static void assert_value(struct meta *m, const char *key, const char *want)
{
	char value[64];
	size_t len = 0;
	int rc = meta_get(m, META_DATASETS, key, strlen(key), value, sizeof(value), &len);

	if (!want) {
		assert_int_equal(rc, -ENOENT);
		return;
	}
	assert_int_equal(rc, 0);
	assert_int_equal(len, strlen(want));
	assert_memory_equal(value, want, len);
}

static void a_writer_reads_what_it_wrote_before_and_after_the_commit(void **state)
{
	struct meta *m = open_meta();
	char value[4];
	size_t len;

	assert_value(m, "a", NULL);
	put(m, "a", "one");
	assert_value(m, "a", "one");
	assert_int_equal(meta_get(m, META_DATASETS, "a", 1, value, 2, &len), -E2BIG);
	assert_int_equal(meta_get(m, META_OBJECTS, "a", 1, value, 4, &len), -ENOENT);
	assert_int_equal(meta_flush(m), 0);
	assert_value(m, "a", "one");
	assert_int_equal(meta_get(m, META_DATASETS, "a", 1, value, 2, &len), -E2BIG);
	put(m, "a", "two");
	assert_value(m, "a", "two");
	meta_del(m, META_DATASETS, "a", 1);
	assert_value(m, "a", NULL);
	put(m, "b", "");
	assert_value(m, "b", "");
	assert_int_equal(meta_flush(m), 0);
	assert_value(m, "a", NULL);
	assert_value(m, "b", "");
	assert_int_equal(meta_count(m, META_DATASETS), 1);
	meta_close(m);
	m = open_meta();
	assert_value(m, "a", NULL);
	assert_value(m, "b", "");
	meta_close(m);
}

struct sum {
	unsigned n, stop_at;
	uint32_t last;
};

static bool add(void *arg, const void *key, size_t key_len, const void *value, size_t len)
{
	struct sum *s = arg;
	uint32_t k, v;

	assert_int_equal(key_len, 4);
	assert_int_equal(len, 4);
	memcpy(&k, key, 4);
	memcpy(&v, value, 4);
	k = __builtin_bswap32(k);
	assert_int_equal(v, k * 3);
	assert_true(s->n == 0 || k > s->last);
	s->last = k;
	return ++s->n != s->stop_at;
}

static void put_number(struct meta *m, uint32_t n)
{
	uint32_t key = __builtin_bswap32(n), value = n * 3;

	meta_put(m, META_NODES, &key, 4, &value, 4);
}

static void a_scan_sees_everything_in_order_from_where_it_is_told(void **state)
{
	struct meta *m = open_meta();
	struct sum s = {0};
	uint32_t from = __builtin_bswap32(40000);

	/* more than a batch holds: puts wait for the writer */
	for (uint32_t i = 0; i < 50000; i++)
		put_number(m, i * 7 % 50000);
	assert_int_equal(meta_scan(m, META_NODES, NULL, 0, add, &s), 0);
	assert_int_equal(s.n, 50000);
	s = (struct sum){.stop_at = 10};
	assert_int_equal(meta_scan(m, META_NODES, &from, 4, add, &s), 0);
	assert_int_equal(s.n, 10);
	assert_int_equal(s.last, 40009);
	meta_close(m);
}

static void changes_applied_together_are_lost_or_kept_together(void **state)
{
	int pipe_fds[2];

	assert_int_equal(pipe(pipe_fds), 0);
	for (int round = 0; round < 10; round++) {
		pid_t pid = fork();
		struct meta *m;
		uint64_t a = 0, b = 0;
		size_t len;
		char c;

		assert_true(pid >= 0);
		if (pid == 0) {
			m = open_meta();
			for (uint64_t i = 0;; i++) {
				struct meta_op ops[] = {{META_INFO, "x-a", 3, &i, sizeof(i)},
					{META_INFO, "x-b", 3, &i, sizeof(i)}};

				meta_apply(m, ops, 2);
				meta_throttle(m);
				if (i == 20000 && write(pipe_fds[1], "x", 1) != 1)
					_exit(1);
			}
		}
		assert_int_equal(read(pipe_fds[0], &c, 1), 1);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		m = open_meta();
		(void)meta_get(m, META_INFO, "x-a", 3, &a, sizeof(a), &len);
		(void)meta_get(m, META_INFO, "x-b", 3, &b, sizeof(b), &len);
		assert_int_equal(a, b);
		assert_false(meta_was_unclean(m)); /* the machine went on */
		meta_close(m);
	}
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

static void ids_never_repeat_even_after_a_kill(void **state)
{
	uint64_t last = 0, epoch = 0;
	int pipe_fds[2];

	assert_int_equal(pipe(pipe_fds), 0);
	for (int round = 0; round < 6; round++) {
		pid_t pid = fork();
		uint64_t first_and_last[2];

		assert_true(pid >= 0);
		if (pid == 0) {
			struct meta *m = open_meta();

			first_and_last[0] = meta_next_id(m);
			for (int i = 0; i < 150000; i++)
				first_and_last[1] = meta_next_id(m);
			if (write(pipe_fds[1], first_and_last, 16) != 16)
				_exit(1);
			pause();
		}
		assert_int_equal(read(pipe_fds[0], first_and_last, 16), 16);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		if (round == 0) {
			epoch = first_and_last[0] >> 44;
			assert_true(epoch != 0);
			assert_int_equal(first_and_last[0] & (((uint64_t)1 << 44) - 1), 16);
		}
		assert_int_equal(first_and_last[0] >> 44, epoch);
		assert_true(first_and_last[0] > last);
		assert_true(first_and_last[1] == first_and_last[0] + 150000);
		last = first_and_last[1];
	}
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

/* Opens the environment behind the agent's back. */
static void edit(
	const char *table, const char *key, void (*change)(MDB_val *v, void *arg), void *arg)
{
	char path[80];
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;
	MDB_val k = {strlen(key), (void *)key}, v, copy;

	snprintf(path, sizeof(path), "%s/meta", dir);
	assert_int_equal(mdb_env_create(&env), 0);
	assert_int_equal(mdb_env_set_maxdbs(env, META_TABLES), 0);
	assert_int_equal(mdb_env_open(env, path, 0, 0600), 0);
	assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
	assert_int_equal(mdb_dbi_open(txn, table, 0, &dbi), 0);
	assert_int_equal(mdb_get(txn, dbi, &k, &v), 0);
	copy = (MDB_val){v.mv_size, malloc(v.mv_size)};
	memcpy(copy.mv_data, v.mv_data, v.mv_size);
	change(&copy, arg);
	assert_int_equal(mdb_put(txn, dbi, &k, &copy, 0), 0);
	assert_int_equal(mdb_txn_commit(txn), 0);
	mdb_env_close(env);
	free(copy.mv_data);
}

static void flip(MDB_val *v, void *arg)
{
	((unsigned char *)v->mv_data)[*(size_t *)arg] ^= 4;
}

/* Of the metadata of the test. */
static void assert_said(unsigned times, const char *what)
{
	char subject[96];

	snprintf(subject, sizeof(subject), "metadata '%s/meta'", dir);
	assert_true(log_said(times, subject, what));
}

static void a_damaged_value_reads_as_absent_and_is_counted(void **state)
{
	struct meta_stats st;
	struct meta *m;

	for (size_t i = 0; i < 3 + META_CHECKSUM; i++) {
		m = open_meta();
		put(m, "good", "yes");
		put(m, "bad", "yes");
		meta_close(m);
		edit("datasets", "bad", flip, &i);
		log_begin();
		m = open_meta();
		assert_value(m, "good", "yes");
		for (unsigned reads = 1; reads <= 20; reads++) {
			assert_value(m, "bad", NULL);
			meta_get_stats(m, &st);
			assert_int_equal(st.damaged, reads);
		}
		assert_said(1, "a damaged record in table 'datasets' is ignored");
		assert_said(1, "");
		log_end();
		meta_close(m);
	}
}

static unsigned count_aside(void)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	unsigned n = 0;

	while ((e = readdir(d)) != NULL)
		n += strstr(e->d_name, ".aside") != NULL || strstr(e->d_name, ".format-") != NULL;
	closedir(d);
	return n;
}

static struct meta *open_as(uint32_t format)
{
	struct wd_err err = WD_ERR_INIT;
	struct meta *m = NULL;

	if (meta_open_as(dir, format, &m, &err) < 0)
		fail_msg("%s", err.msg);
	return m;
}

static void a_newer_format_is_set_aside_and_found_again(void **state)
{
	struct meta *m = open_as(2);
	uint64_t epoch = meta_epoch(m), other, era = meta_era(m);

	put(m, "a", "two");
	meta_close(m);
	/* a roll-back */
	log_begin();
	m = open_as(1);
	assert_said(1, "cannot be used (format 2): set aside as");
	assert_value(m, "a", NULL);
	other = meta_epoch(m);
	assert_true(other != epoch);
	assert_int_equal(count_aside(), 1);
	assert_true(meta_has_other_format(m));
	put(m, "a", "one");
	meta_close(m);
	m = open_as(1); /* and a restart of that */
	assert_value(m, "a", "one");
	meta_close(m);
	/* forward again: the first one, which does not know what happened meanwhile */
	m = open_as(2);
	assert_said(1, "cannot be used (format 1): set aside as");
	assert_said(1, "(format 2)"); /* the restart before said nothing */
	assert_true(log_said(1, "/meta.format-2'", "is used again"));
	log_end();
	assert_value(m, "a", "two");
	assert_int_equal(meta_epoch(m), epoch);
	assert_true(meta_era(m) > era);
	assert_int_equal(count_aside(), 1);
	meta_close(m);
	/* and back: the old one is still there, too */
	m = open_as(1);
	assert_value(m, "a", "one");
	assert_int_equal(meta_epoch(m), other);
	meta_close(m);
}

static void an_older_format_is_taken_over_in_place(void **state)
{
	struct meta *m = open_as(1);
	uint64_t epoch = meta_epoch(m), era = meta_era(m);

	put(m, "a", "one");
	meta_close(m);
	m = open_as(2);
	assert_value(m, "a", "one");
	assert_int_equal(meta_epoch(m), epoch);
	assert_int_equal(meta_era(m), era);
	assert_int_equal(count_aside(), 0);
	meta_close(m);
	m = open_as(1);
	assert_value(m, "a", NULL);
	assert_int_equal(count_aside(), 1);
	meta_close(m);
}

static void raise_number(MDB_val *v, void *arg)
{
	uint64_t n, sum;

	memcpy(&n, v->mv_data, 8);
	n += 65536;
	sum = meta_checksum(META_INFO, "next-id", 7, &n, 8);
	memcpy(v->mv_data, &n, 8);
	memcpy((char *)v->mv_data + 8, &sum, 8);
}

static void a_program_that_counts_no_eras_is_noticed(void **state)
{
	struct meta *m = open_meta();
	uint64_t era = meta_era(m);

	meta_close(m);
	m = open_meta();
	assert_int_equal(meta_era(m), era);
	meta_close(m);
	edit("info", "next-id", raise_number, NULL); /* all that such a one leaves */
	m = open_meta();
	assert_true(meta_era(m) > era);
	meta_close(m);
}

static void garbage_and_a_file_cut_short_are_set_aside(void **state)
{
	char path[96];

	for (unsigned round = 0; round < 3; round++) {
		struct meta *m = open_meta();
		struct stat st;
		int fd;

		for (uint32_t i = 0; i < 5000; i++)
			put_number(m, i);
		meta_close(m);
		snprintf(path, sizeof(path), "%s/meta/data.mdb", dir);
		fd = open(path, O_RDWR | O_CLOEXEC);
		assert_true(fd >= 0);
		assert_int_equal(fstat(fd, &st), 0);
		if (round == 0)
			assert_int_equal(ftruncate(fd, st.st_size / 2), 0);
		else if (round == 1)
			assert_int_equal(ftruncate(fd, 100), 0);
		else
			for (off_t at = 0; at < 8192; at += 16)
				assert_int_equal(pwrite(fd, "garbage garbage!", 16, at), 16);
		close(fd);
		log_begin();
		m = open_meta();
		assert_said(1, "cannot be used (");
		assert_said(1, "set aside as");
		log_end();
		assert_int_equal(count_aside(), round + 1);
		put(m, "a", "works");
		assert_int_equal(meta_flush(m), 0);
		meta_close(m);
	}
}

static void set_boot(MDB_val *v, void *arg)
{
	uint64_t sum;

	memset(v->mv_data, 'x', v->mv_size - 8);
	sum = meta_checksum(META_INFO, "boot", 4, v->mv_data, v->mv_size - 8);
	memcpy((char *)v->mv_data + v->mv_size - 8, &sum, 8);
}

static void only_a_restart_without_the_clean_mark_is_unclean(void **state)
{
	struct meta *m = open_meta();
	pid_t pid;

	assert_false(meta_was_unclean(m));
	meta_close(m);
	edit("info", "boot", set_boot, NULL); /* another boot, but closed cleanly */
	m = open_meta();
	assert_false(meta_was_unclean(m));
	meta_close(m);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		open_meta();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	edit("info", "boot", set_boot, NULL);
	m = open_meta();
	assert_true(meta_was_unclean(m));
	meta_close(m);
	m = open_meta();
	assert_false(meta_was_unclean(m));
	meta_close(m);
}

static void a_failing_commit_goes_on_in_memory_and_recovers(void **state)
{
	struct meta *m = open_meta();
	struct meta_stats st;

	put(m, "a", "old");
	assert_int_equal(meta_flush(m), 0);
	wd_fault_arm("meta.commit=0"); /* a flush tries again at once: all of them have to fail */
	put(m, "a", "new");
	assert_int_equal(meta_flush(m), -EIO);
	meta_get_stats(m, &st);
	assert_true(st.is_failing);
	assert_true(st.failed_commits >= 1);
	assert_value(m, "a", "new");
	put(m, "b", "more");
	assert_value(m, "b", "more");
	wd_fault_arm(NULL);
	while (meta_flush(m) < 0) /* the last of the failures may be under way */
		;
	meta_get_stats(m, &st);
	assert_false(st.is_failing);
	meta_close(m);
	m = open_meta();
	assert_value(m, "a", "new");
	assert_value(m, "b", "more");
	meta_close(m);
}

static void a_disk_that_stays_broken_costs_the_oldest_changes_and_nobody_hangs(void **state)
{
	struct meta *m = open_meta();
	struct meta_stats st;

	wd_fault_arm("meta.commit=0");
	for (uint32_t i = 0; i < 120000; i++)
		put_number(m, i);
	meta_get_stats(m, &st);
	assert_true(st.dropped >= 32768);
	assert_true(meta_next_id(m) != 0);
	wd_fault_arm(NULL);
	while (meta_flush(m) < 0) /* the last of the failures may be under way */
		;
	meta_get_stats(m, &st);
	/* among what was lost were also the marks that say so */
	assert_in_range(meta_count(m, META_NODES), 120000 - st.dropped, 120000 - st.dropped + 8);
	assert_true(meta_lost_ms(m) > 0);
	meta_close(m);
}

static void a_full_map_grows(void **state)
{
	struct meta *m = open_sized((size_t)1 << 20);
	unsigned char value[META_VALUE_MAX];
	char back[META_VALUE_MAX];
	size_t len;

	memset(value, 7, sizeof(value));
	for (uint32_t i = 0; i < 2000; i++)
		meta_put(m, META_PROOFS, &i, sizeof(i), value, sizeof(value));
	assert_int_equal(meta_flush(m), 0);
	for (uint32_t i = 0; i < 2000; i++) {
		assert_int_equal(
			meta_get(m, META_PROOFS, &i, sizeof(i), back, sizeof(back), &len), 0);
		assert_int_equal(len, sizeof(value));
	}
	meta_close(m);
}

static void a_second_agent_is_refused(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct meta *m = open_meta(), *other;

	assert_int_equal(meta_open(dir, &other, &err), -EBUSY);
	assert_non_null(strstr(err.msg, dir));
	meta_close(m);
}

struct worker {
	struct meta *m;
	unsigned n;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	char key[32], value[32], back[32];
	size_t len;

	for (unsigned i = 0; i < 3000; i++) {
		snprintf(key, sizeof(key), "%u-%u", w->n, i % 500);
		snprintf(value, sizeof(value), "%u", i);
		meta_put(w->m, META_CHILDREN, key, strlen(key), value, strlen(value));
		if (i % 50 == 0)
			assert_int_equal(meta_flush(w->m), 0);
		if (i % 3 == 0) {
			assert_int_equal(meta_get(w->m, META_CHILDREN, key, strlen(key), back,
						 sizeof(back), &len),
				0);
			assert_true(len == strlen(value) && memcmp(back, value, len) == 0);
		}
		if (i % 100 == 0)
			(void)meta_next_id(w->m);
	}
	return NULL;
}

static void threads_each_read_what_they_wrote_while_the_map_grows(void **state)
{
	struct meta *m = open_sized((size_t)1 << 20);
	struct worker workers[8];
	pthread_t threads[8];

	for (unsigned i = 0; i < 8; i++) {
		workers[i] = (struct worker){m, i};
		assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(meta_flush(m), 0);
	assert_int_equal(meta_count(m, META_CHILDREN), 8 * 500);
	meta_close(m);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, drop_dir)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_writer_reads_what_it_wrote_before_and_after_the_commit),
		TEST(a_scan_sees_everything_in_order_from_where_it_is_told),
		TEST(changes_applied_together_are_lost_or_kept_together),
		TEST(ids_never_repeat_even_after_a_kill),
		TEST(a_damaged_value_reads_as_absent_and_is_counted),
		TEST(a_newer_format_is_set_aside_and_found_again),
		TEST(an_older_format_is_taken_over_in_place),
		TEST(a_program_that_counts_no_eras_is_noticed),
		TEST(garbage_and_a_file_cut_short_are_set_aside),
		TEST(only_a_restart_without_the_clean_mark_is_unclean),
		TEST(a_failing_commit_goes_on_in_memory_and_recovers),
		TEST(a_disk_that_stays_broken_costs_the_oldest_changes_and_nobody_hangs),
		TEST(a_full_map_grows),
		TEST(a_second_agent_is_refused),
		TEST(threads_each_read_what_they_wrote_while_the_map_grows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
