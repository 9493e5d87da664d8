/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounting, unmounting, privileges, and peers that misbehave (mount_fixture.h).
 */
#include "fuse/test/mount_fixture.h"

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
	snprintf(line, sizeof(line), "/sys/class/bdi/0:%u/read_ahead_kb", guard->connection);
	f = fopen(line, "re");
	assert_non_null(f);
	assert_non_null(fgets(line, sizeof(line), f));
	assert_string_equal(line, "4096\n");
	fclose(f);
}

static void the_server_has_no_privileges(void **state)
{
	char path[64], ours[64] = "", theirs[64] = "";
	pid_t pid = server_pid();

	assert_int_equal(proc_status(pid, "CapEff", 16), 0);
	assert_int_equal(proc_status(pid, "CapPrm", 16), 0);
	assert_int_equal(proc_status(pid, "CapBnd", 16), 0);
	assert_int_equal(proc_status(pid, "CapAmb", 16), 0);
	assert_int_equal(proc_status(pid, "NoNewPrivs", 10), 1);
	assert_int_equal(proc_status(pid, "Uid", 10), strtoull(SERVER_UID, NULL, 10));
	assert_int_equal(proc_status(pid, "Gid", 10), strtoull(SERVER_UID, NULL, 10));
#if !defined(WD_SANITIZED) && !defined(WD_COVERAGE)
	assert_int_equal(proc_status(pid, "Seccomp", 10), 2);
#endif
	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
	assert_true(readlink(path, theirs, sizeof(theirs) - 1) > 0);
	assert_true(readlink("/proc/self/ns/net", ours, sizeof(ours) - 1) > 0);
	assert_string_not_equal(ours, theirs);
}

static void idle_memory_is_small(void **state)
{
#if !defined(WD_SANITIZED) && !defined(WD_COVERAGE)
	pid_t pid = server_pid();
	unsigned long long rss;

	set_auto();
	for (int i = 0; i < 5; i++) {
		assert_reads_right(cold);
		assert_reads_right(direct);
	}
	for (int i = 0; i < 300 && (rss = proc_status(pid, "VmRSS", 10)) >= 6 * 1024; i++)
		usleep(100000); /* memory goes back a second after the last request */
	print_message(
		"server %llu KiB, keeper %llu KiB\n", rss, proc_status(guard->keeper, "VmRSS", 10));
	assert_in_range(rss, 1, 6 * 1024 - 1);
	assert_in_range(proc_status(guard->keeper, "VmRSS", 10), 1, 5 * 1024 - 1);
#endif
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

#ifdef WD_FAULTS

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

#endif

static void a_mount_undone_by_someone_else_is_forgotten(void **state)
{
	assert_int_equal(umount2(target, 0), 0);
	guard->connection = 0;
	fake_wait(&fake.dels, 1);
	while (strstr(status_text(), "\"id\""))
		usleep(1000);
	do_mount("{}");
	assert_reads_right(complete);
}

static void a_mount_in_another_namespace_is_served_on(void **state)
{
	int up[2], down[2], status;
	char c = 0;
	pid_t pid;

	assert_int_equal(pipe(up), 0);
	assert_int_equal(pipe(down), 0);
	pid = fork();
	if (pid == 0) {
		bool is_right_there;

		if (unshare(CLONE_NEWNS) < 0 || write(up[1], &c, 1) != 1 ||
			read(down[0], &c, 1) != 1)
			_exit(1);
		is_right_there = read_whole(late) == 0;
		_exit(is_right_there ? 0 : 2);
	}
	set_auto();
	assert_int_equal(read(up[0], &c, 1), 1);
	do_umount();
	assert_non_null(strstr(status_text(), "\"lingering\""));
	assert_int_equal(fake_get(&fake.dels), 0);
	do_mount("{}"); /* the target is free */
	assert_int_equal(write(down[1], &c, 1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	fake_wait(&fake.dels, 1);
	while (strstr(status_text(), "\"lingering\""))
		usleep(1000);
	assert_reads_right(late);
	for (int i = 0; i < 2; i++) {
		close(up[i]);
		close(down[i]);
	}
}

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
	assert_int_equal(waitpid(guard->keeper, NULL, WNOHANG), 0);
	assert_true(count_fds(guard->keeper) < 40);
}

/* Junk on the keeper's and the server's connection to the agent: both may drop it and begin anew,
 * and everything works again. */
static void an_agent_that_talks_nonsense_harms_nobody_for_long(void **state)
{
	unsigned seed = 777;

	set_auto();
	for (int round = 0; round < 40; round++) {
		wd_lock(&fake.lock);
		for (int i = 0; i < 10; i++) {
			unsigned type = (unsigned)rand_r(&seed) % 90 |
					(rand_r(&seed) % 2 ? WD_MSG_REPLY : 0);

			wd_msg_start(&fake_out, (uint16_t)type,
				(uint64_t)rand_r(&seed) << (rand_r(&seed) % 33));
			for (int n = rand_r(&seed) % 40; n > 0; n--)
				wd_put_u8(&fake_out, (uint8_t)rand_r(&seed));
			if (i % 3 == 0)
				wd_put_fd(&fake_out, fake.wake);
			if (fake.mounts[0].sock >= 0)
				wd_msg_send(fake.mounts[0].sock, &fake_out, MSG_DONTWAIT);
			if (fake.keeper >= 0)
				wd_msg_send(fake.keeper, &fake_out, MSG_DONTWAIT);
			if (round % 8 == 7 && fake.mounts[0].sock >= 0)
				send(fake.mounts[0].sock, "junk", 4, MSG_DONTWAIT | MSG_NOSIGNAL);
			if (round % 8 == 3 && fake.keeper >= 0)
				send(fake.keeper, "junk", 4, MSG_DONTWAIT | MSG_NOSIGNAL);
		}
		wd_unlock(&fake.lock);
		assert_reads_right(round % 2 ? late : direct);
	}
	assert_int_equal(waitpid(guard->keeper, NULL, WNOHANG), 0);
	assert_true(count_fds(guard->keeper) < 40);
	assert_reads_right(complete);
}

/* For those who may not open keeper.sock. */
static void the_agent_may_ask_for_the_keepers_status(void **state)
{
	wd_lock(&fake.lock);
	wd_msg_start(&fake_out, WD_MSG_KEEPER_STATUS, 4711);
	fake_send(fake.keeper);
	while (!fake.status[0])
		wd_cond_wait(&fake.changed, &fake.lock);
	wd_unlock(&fake.lock);
	assert_non_null(strstr(fake.status, "\"state\":\"serving\""));
	assert_string_equal(fake.status, status_text());
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
		MOUNTED(a_mount_looks_like_one),
		MOUNTED(the_server_has_no_privileges),
		MOUNTED(idle_memory_is_small),
		MOUNTED(a_busy_mount_is_not_unmounted),
		MOUNTED(a_mount_can_be_made_again),
		PLAIN(bad_mounts_are_refused_with_a_reason),
		PLAIN(a_server_that_cannot_start_fails_the_mount),
#ifdef WD_FAULTS
		PLAIN(a_mount_that_fails_half_way_is_undone),
#endif
		MOUNTED(a_mount_undone_by_someone_else_is_forgotten),
		MOUNTED(a_mount_in_another_namespace_is_served_on),
		MOUNTED(hostile_clients_are_dropped),
		MOUNTED(an_agent_that_talks_nonsense_harms_nobody_for_long),
		MOUNTED(the_agent_may_ask_for_the_keepers_status),
		PLAIN(a_client_that_leaves_undoes_its_mount),
	};

	return run_fixture(tests, sizeof(tests) / sizeof(tests[0]));
}
