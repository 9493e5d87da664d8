/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keepers that die, and the mounts that outlive them (mount_fixture.h). The made-up agent is a
 * holder; others connect as a supervisor would.
 */
#include "common/mountinfo.h"
#include "fuse/test/loop_readers.h"
#include "fuse/test/other_holder.h"

static int ask_renew(const char *path, const char *description, struct wd_err *err)
{
	int sock = connect_keeper(), rc;

	wd_msg_start(&msg, WD_MSG_RENEW, 1);
	wd_put_str(&msg, path);
	wd_put_str(&msg, description);
	rc = wd_client_call(sock, &msg, -1, err);
	close(sock);
	return rc;
}

static void set_renew_status(int status)
{
	wd_lock(&fake.lock);
	fake.renew_status = status;
	wd_unlock(&fake.lock);
}

static void expect_description(const struct other *o, const char *text)
{
	struct wd_err err = WD_ERR_INIT;
	unsigned char *data;
	size_t len;

	assert_int_equal(wd_description_read(o->description_fd, &data, &len, &err), 0);
	assert_string_equal((const char *)data, text);
	free(data);
}

/* Kills the keeper and, as the end of its container does, all of its servers. */
static void kill_container(void)
{
	pid_t server = server_pid();

	assert_true(server > 0);
	kill(guard->keeper, SIGSTOP); /* it must not start another */
	kill(server, SIGKILL);
	end_keeper_by(SIGKILL);
	while (waitpid(server, NULL, 0) < 0 && errno == EINTR)
		;
}

static bool is_mounted(void)
{
	struct mountinfo info;

	return mountinfo_find(target, &info, NULL) > 0;
}

static void a_new_keeper_takes_back_mounts_and_servers(void **state)
{
	int c = open_file("complete"), p = open_file("cold");
	unsigned char buf[4096];
	struct reader r;

	assert_true(c >= 0 && p >= 0);
	start_reader(&r, cold);
	fake_wait(&fake.parked_ensures, 1);
	kill_container();
	start_keeper(NULL);
	wait_for_new_server(0);
	set_auto();
	fake_fill(cold, 0, cold->size);
	join_reader(&r);
	assert_int_equal(pread(c, buf, sizeof(buf), 5000), sizeof(buf));
	assert_true(is_right(complete, buf, 5000, sizeof(buf)));
	assert_reads_right(complete); /* open by passthrough: the backing id lives on */
	assert_reads_right(late);
	close(c);
	close(p);
	do_umount();
	fake_wait(&fake.unholds, 1);
	assert_int_equal(status_number("\"backing_ids\":"), -1);
}

static void a_new_keeper_replaces_a_server_that_lives(void **state)
{
	int p = open_file("cold");
	pid_t old = server_pid(), now;
	struct reader r;

	start_reader(&r, cold);
	fake_wait(&fake.parked_ensures, 1);
	end_keeper_by(SIGKILL);
	start_keeper(NULL);
	now = wait_for_new_server(old);
	assert_int_not_equal(now, old);
	assert_int_equal(waitpid(old, NULL, 0), old); /* its parent was killed: it became ours */
	set_auto();
	fake_fill(cold, 0, cold->size);
	join_reader(&r);
	close(p);
	assert_reads_right(late);
	do_umount();
}

static void readers_outlive_many_keepers(void **state)
{
	struct fake_file *files[] = {complete, cold, direct, late, bytes, complete};
	struct loop_reader readers[6];
	/* WD_KILLS=300 for a long run by hand */
	int kills = getenv("WD_KILLS") ? atoi(getenv("WD_KILLS")) : 12;
	_Atomic bool stop = false;
	pid_t pid = 0;

	set_auto();
	start_loop_readers(readers, files, 6, &stop);
	for (int i = 0; i < kills; i++) {
		pid = wait_for_new_server(pid);
		usleep((useconds_t)(3000 + i % 10 * 9000));
		if (i % 3 == 2)
			end_keeper_by(SIGKILL);
		else
			kill_container();
		start_keeper(NULL);
		guard->deadline = wd_now_ns() / 1000000000 + SECONDS;
	}
	wait_for_new_server(pid);
	stop_loop_readers(readers, 6, &stop);
	do_umount();
	fake_wait(&fake.unholds, 1);
}

/* Keeper and agent die together: a supervisor has everything, also for the next agent. */
static void a_supervisor_alone_brings_everything_back(void **state)
{
	struct other o;
	int c = open_file("complete");
	struct reader r;

	other_init(&o);
	other_connect(&o);
	other_wait_for_deposit(&o);
	start_reader(&r, cold);
	fake_wait(&fake.parked_ensures, 1);
	kill_container();
	fake_stop();
	while (other_step(&o))
		;
	set_auto();
	fake_start();
	start_keeper(NULL);
	other_connect(&o);
	while (!o.hold.is_reconciled)
		assert_true(other_step(&o));
	join_reader(&r);
	close(c);
	fake_wait(&fake.holds, 1); /* the next agent is a holder again */
	assert_reads_right(complete);
	do_umount();
	while (o.ended == 0)
		assert_true(other_step(&o));
	other_done(&o);
}

/* What the agent keeps in place of the description is what holders, and the next keeper and agent, get. */
static void new_credentials_reach_every_holder(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct other o;

	other_init(&o);
	other_connect(&o);
	other_wait_for_deposit(&o);
	expect_description(&o, "{}");
	assert_int_equal(ask_renew(target, "new", &err), 0);
	assert_true(other_step(&o)); /* HOLD, once more */
	expect_description(&o, "kept new");
	/* nothing has changed, or the agent refuses: nothing follows */
	assert_int_equal(ask_renew(target, "", &err), 0);
	set_renew_status(-EKEYREJECTED);
	assert_int_equal(ask_renew(target, "bad", &err), -EKEYREJECTED);
	assert_string_equal(err.msg, "fake");
	assert_int_equal(ask_renew("/nowhere", "new", &err), -ENOENT);
	set_renew_status(0);
	assert_int_equal(ask_renew(target, "newer", &err), 0);
	assert_true(other_step(&o));
	expect_description(&o, "kept newer");
	/* two before the first deposit is answered: none is lost */
	assert_int_equal(ask_renew(target, "third", &err), 0);
	assert_int_equal(ask_renew(target, "fourth", &err), 0);
	assert_true(other_step(&o));
	expect_description(&o, "kept third");
	assert_true(other_step(&o));
	expect_description(&o, "kept fourth");
	kill_container();
	fake_stop();
	while (other_step(&o))
		;
	set_auto();
	fake_start();
	start_keeper(NULL);
	other_connect(&o);
	while (!o.hold.is_reconciled)
		assert_true(other_step(&o));
	assert_reads_right(complete);
	wd_lock(&fake.lock);
	assert_string_equal(fake.description, "kept fourth");
	wd_unlock(&fake.lock);
	do_umount();
	while (o.ended == 0)
		assert_true(other_step(&o));
	other_done(&o);
}

/* The agent goes while it is asked: who asked is told, and asks again. */
static void a_renewal_without_an_agent_is_refused_at_once(void **state)
{
	struct wd_err err = WD_ERR_INIT;

	fake_stop();
	assert_true(ask_renew(target, "new", &err) < 0);
	assert_non_null(strstr(err.msg, "agent"));
	fake_start();
	do_umount();
}

/* A file that nobody has open, but whose backing id is pooled, is what two agents in a row know nothing of. */
static void an_idle_file_opens_after_two_agents_died(void **state)
{
	unsigned adds;

	assert_reads_right(complete);
	for (int i = 0; i < 2; i++) {
		fake_stop();
		adds = fake_get(&fake.adds);
		fake_start();
		fake_wait(&fake.adds, adds + 1);
	}
	assert_reads_right(complete);
	/* and after a keeper with its servers died, too */
	kill_container();
	start_keeper(NULL);
	wait_for_new_server(0);
	assert_reads_right(complete);
	do_umount();
}

static void a_mount_without_holders_is_cleaned_up(void **state)
{
	int fd = open_file("cold");
	struct stat st;

	assert_true(fd >= 0);
	kill_container();
	fake_stop();
	assert_true(is_mounted());
	assert_int_equal(fstat(fd, &st), 0); /* busy: it is left alone */
	fake_start();
	start_keeper(NULL);
	status_text();
	assert_true(is_mounted());
	close(fd);
	while (is_mounted())
		usleep(1000);
	guard->connection = 0;
	assert_int_equal(stat(target, &st), 0);
	do_mount("{}");
	set_auto();
	assert_reads_right(late);
	do_umount();
}

static void a_holder_gives_up_when_nobody_comes(void **state)
{
	int fd = open_file("cold");
	pid_t server = server_pid();
	unsigned char buf[16];
	struct other o;

	assert_true(fd >= 0);
	other_init(&o);
	o.hold.give_up_ns = 1;
	other_connect(&o);
	other_wait_for_deposit(&o);
	assert_true(wd_hold_tick(&o.hold, INT64_MAX) == INT64_MAX); /* the keeper is there */
	end_keeper_by(SIGKILL);
	fake_stop();
	while (other_step(&o))
		;
	/* the server lives: nothing is given up */
	assert_true(wd_hold_tick(&o.hold, wd_now_ns() + 1) < INT64_MAX);
	assert_int_equal(o.ended, 0);
	kill(server, SIGKILL);
	assert_int_equal(waitpid(server, NULL, 0), server);
	assert_true(wd_hold_tick(&o.hold, wd_now_ns() + 1) == INT64_MAX);
	assert_int_equal(o.ended, 1);
	assert_int_equal(pread(fd, buf, sizeof(buf), 0), -1); /* not a hang */
	close(fd);
	other_done(&o);
	fake_start();
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		MOUNTED(a_new_keeper_takes_back_mounts_and_servers),
		MOUNTED(a_new_keeper_replaces_a_server_that_lives),
		MOUNTED(readers_outlive_many_keepers),
		MOUNTED(a_supervisor_alone_brings_everything_back),
		MOUNTED(new_credentials_reach_every_holder),
		MOUNTED(a_renewal_without_an_agent_is_refused_at_once),
		MOUNTED(an_idle_file_opens_after_two_agents_died),
		MOUNTED(a_mount_without_holders_is_cleaned_up),
		MOUNTED(a_holder_gives_up_when_nobody_comes),
	};

	return run_fixture(tests, sizeof(tests) / sizeof(tests[0]));
}
