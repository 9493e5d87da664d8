/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Death: of servers, agents and the keeper, under readers (mount_fixture.h).
 */
#include "fuse/test/loop_readers.h"

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

static void readers_outlive_many_servers(void **state)
{
	struct fake_file *files[] = {complete, cold, direct, late, bytes, complete};
	struct loop_reader readers[6];
	/* WD_KILLS=1000 for a long run by hand */
	int kills = getenv("WD_KILLS") ? atoi(getenv("WD_KILLS")) : 30;
	_Atomic bool stop = false;
	unsigned rounds = 0;
	pid_t pid = 0;

	set_auto();
	for (int i = 0; i < 6; i++) {
		readers[i] = (struct loop_reader){.file = files[i], .stop = &stop};
		assert_int_equal(
			pthread_create(&readers[i].thread, NULL, run_loop_reader, &readers[i]), 0);
	}
	for (int i = 0; i < kills; i++) {
		pid = wait_for_new_server(pid);
		usleep((useconds_t)(3000 + i % 30 * 3000));
		kill(pid, SIGKILL);
		guard->deadline = wd_now_ns() / 1000000000 + SECONDS;
	}
	wait_for_new_server(pid);
	atomic_store(&stop, true);
	for (int i = 0; i < 6; i++) {
		pthread_join(readers[i].thread, NULL);
		if (readers[i].rc)
			fail_msg("reader of '%s': %s after %u rounds", readers[i].file->name,
				strerror(readers[i].rc), readers[i].rounds);
		rounds += readers[i].rounds;
	}
	print_message("%d kills, %u rounds of readers\n", kills, rounds);
	assert_true(status_number("\"restarts\":") >= kills);
	assert_reads_right(cold);
	do_umount();
}

/* A kernel before 6.9: only the slots know what is owed. */
static void readers_outlive_many_servers_without_resend(void **state)
{
	restart_with(NULL, "--no-resend", NULL);
	do_mount("{}");
	readers_outlive_many_servers(state);
}

static void *run_page_reader(void *arg)
{
	unsigned char page[4096];
	int fd = open_file("cold");

	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM); /* one request, and no read-ahead */
	*(bool *)arg = fd >= 0 && pread(fd, page, sizeof(page), 4096) == (ssize_t)sizeof(page) &&
		       is_right(cold, page, 4096, sizeof(page));
	if (fd >= 0)
		close(fd);
	return NULL;
}

/* Once a request came from its slot and from the kernel as well, each of them was a copy for the next server,
 * and after some kills all slots were full of copies. */
static void what_waits_does_not_multiply_with_each_server(void **state)
{
	const unsigned kills = 8;
	bool is_read_right = false;
	pthread_t thread;
	pid_t pid;

	assert_int_equal(pthread_create(&thread, NULL, run_page_reader, &is_read_right), 0);
	for (unsigned i = 0; i < kills; i++) {
		fake_wait(&cold->ensures, i + 1);
		pid = server_pid();
		kill(pid, SIGKILL);
		wait_for_new_server(pid);
	}
	fake_wait(&cold->ensures, kills + 1);
	assert_lists_every_child_once(); /* what was sent again has been received before this */
	assert_int_equal(fake_get(&cold->ensures), kills + 1);
	set_auto();
	fake_fill(cold, 0, cold->size);
	pthread_join(thread, NULL);
	assert_true(is_read_right);
}

static void what_waits_does_not_multiply_without_resend(void **state)
{
	restart_with(NULL, "--no-resend", NULL);
	do_mount("{}");
	what_waits_does_not_multiply_with_each_server(state);
	do_umount();
}

#ifdef WD_FAULTS

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
	keeper_options[0] = "--no-resend";
	restart_with_faults("server.die=@4");
	do_mount("{}");
	set_auto();
	for (int i = 0; i < 3; i++) {
		assert_reads_right(late);
		assert_lists_every_child_once();
	}
	assert_true(status_number("\"restarts\":") >= 3);
	do_umount();
}

static void open_again(int fd, unsigned times)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	for (unsigned i = 0; i < times; i++) {
		int again = open(path, O_RDONLY | O_CLOEXEC);

		assert_true(again >= 0);
		close(again);
	}
}

static void *read_byte(void *arg)
{
	unsigned char byte;

	return (void *)(intptr_t)pread(*(int *)arg, &byte, 1, 0);
}

/* On few cores one thread receives while nothing blocks; the others must take over from one that does. */
static void a_read_that_is_stuck_holds_up_nobody(void **state)
{
	pthread_t reader;
	void *result;
	int fd, slow;

	restart_with_faults("server.stuck-read=1");
	do_mount("{}");
	set_auto();
	fd = open_file("complete");
	slow = open_file("cold");
	assert_true(fd >= 0 && slow >= 0);
	open_again(fd, 1000); /* nothing blocks, and no name is looked up */
	assert_int_equal(pthread_create(&reader, NULL, read_byte, &slow), 0);
	open_again(fd, 5000);
	kill(server_pid(), SIGKILL);
	pthread_join(reader, &result);
	assert_int_equal((intptr_t)result, 1);
	close(fd);
	close(slow);
	do_umount();
}

#endif

/* Servers that start and end at once, and a server that is not there. */
static void a_mount_that_nobody_can_serve_is_aborted(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	char server[256];
	char path[300];
	struct stat st;
	int fd;

	snprintf(server, sizeof(server), "%s/server", dir);
	copy_program(real_server(), server);
	restart_with(server, "--give-up", "300ms");
	for (int i = 0; i < 2; i++) {
		do_mount("{}");
		fd = open_file("cold");
		assert_true(fd >= 0);
		if (i == 0)
			copy_program("/bin/false", server);
		else
			unlink(server);
		kill(server_pid(), SIGKILL);
		while (!strstr(status_text(), "\"lost\""))
			usleep(1000);
		snprintf(path, sizeof(path), "%s/nowhere", target);
		assert_int_equal(stat(path, &st), -1);
		assert_int_equal(errno, ENOTCONN);
		close(fd);
		assert_int_equal(ask_umount(target, 0, &err), 0);
		assert_int_equal(stat(target, &st), 0);
		copy_program(real_server(), server);
	}
	do_mount("{}");
	assert_reads_right(complete);
	unlink(server);
}

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

#define POOLED 100

static void hold_reopens(bool are_held)
{
	wd_lock(&fake.lock);
	fake.are_reopens_held = are_held;
	wd_unlock(&fake.lock);
}

static unsigned nreopened(struct fake_file *const files[POOLED])
{
	unsigned n = 0;

	for (int i = 0; i < POOLED; i++)
		n += fake_get(&files[i]->reopens) > 0;
	return n;
}

/* A server that took over, and one with a new agent, tell of their pool bit by bit; readers do not wait for it. */
static void the_pool_is_told_of_beside_readers(void **state)
{
	struct fake_file *files[POOLED];
	char name[32];

	for (int i = 0; i < POOLED; i++) {
		snprintf(name, sizeof(name), "pooled-%d", i);
		wd_lock(&fake.lock);
		files[i] = fake_add(name, 5000, true);
		wd_unlock(&fake.lock);
		assert_reads_right(files[i]);
	}
	set_auto();
	hold_reopens(true);
	kill(server_pid(), SIGKILL);
	fake_wait(&fake.held_reopens, 32);
	assert_reads_right(cold);
	for (int i = 0; i < POOLED; i++)
		assert_reads_right(files[i]);
	/* and one whose last RELEASE the killed server had not seen: it counts as open */
	assert_in_range(fake_get(&fake.held_reopens), 32, 33);
	assert_in_range(nreopened(files), 32, 33);
	/* the next agent hears of all, also of those that the one before was asked about */
	fake_stop();
	fake_start();
	assert_reads_right(late);
	while (nreopened(files) < POOLED) {
		assert_in_range(fake_get(&fake.held_reopens), 0, 33);
		fake_answer_reopens();
		usleep(1000); /* until it asks about the next */
	}
	hold_reopens(false);
	fake_answer_reopens();
	for (int i = 0; i < POOLED; i++) {
		assert_reads_right(files[i]);
		assert_int_equal(fake_get(&files[i]->opens) - fake_get(&files[i]->reopens), 1);
	}
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
	end_keeper_by(SIGKILL);
	assert_reads_right(late);
	assert_reads_right(cold);
}

#define MANY_THREADS (WD_MM_SLOTS + 100)

static void *run_stat(void *arg)
{
	char path[300];
	struct stat st;

	snprintf(path, sizeof(path), "%s/nowhere%u", target, *(unsigned *)arg);
	*(unsigned *)arg = stat(path, &st) < 0 ? (unsigned)errno : 0;
	return NULL;
}

/* All slots are parked and more requests wait; then the server dies, and the kernel sends all of
 * them again. */
static void more_requests_than_slots_wait_their_turn(void **state)
{
	static pthread_t threads[MANY_THREADS];
	static unsigned results[MANY_THREADS];
	pthread_attr_t attr;
	pid_t pid = server_pid();

	wd_lock(&fake.lock);
	fake.is_deaf = true;
	wd_unlock(&fake.lock);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 * 1024);
	for (unsigned i = 0; i < MANY_THREADS; i++) {
		results[i] = i;
		assert_int_equal(pthread_create(&threads[i], &attr, run_stat, &results[i]), 0);
	}
	pthread_attr_destroy(&attr);
	fake_wait(&fake.requests, WD_MM_SLOTS);
	wd_lock(&fake.lock);
	fake.is_deaf = false;
	wd_unlock(&fake.lock);
	kill(pid, SIGKILL);
	for (unsigned i = 0; i < MANY_THREADS; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(results[i], ENOENT);
	}
	set_auto();
	assert_reads_right(late);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		MOUNTED(readers_outlive_the_server),
		MOUNTED(open_files_outlive_the_server),
		MOUNTED(readers_outlive_many_servers),
		MOUNTED(what_waits_does_not_multiply_with_each_server),
		PLAIN(what_waits_does_not_multiply_without_resend),
#ifdef WD_FAULTS
		PLAIN(handles_outlive_a_server_that_dies_in_open),
		PLAIN(requests_outlive_a_server_that_dies_reading),
		PLAIN(a_read_that_is_stuck_holds_up_nobody),
#endif
		PLAIN(readers_outlive_many_servers_without_resend),
		PLAIN(a_mount_that_nobody_can_serve_is_aborted),
		MOUNTED(readers_wait_for_a_new_agent),
		MOUNTED(the_pool_is_told_of_beside_readers),
		MOUNTED(agent_and_server_may_die_together),
		MOUNTED(the_server_goes_on_without_the_keeper),
		MOUNTED(more_requests_than_slots_wait_their_turn),
	};

	return run_fixture(tests, sizeof(tests) / sizeof(tests[0]));
}
