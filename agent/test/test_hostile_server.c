/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An agent and a FUSE server that has been taken over (agent_fixture.h). Whatever it sends, it can
 * name nothing of another mount, take no more than its share, and the other mount goes on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agent/test/agent_fixture.h"

#include <dirent.h>

#include "agent/mount.h"

#define LARGE (6u << 20)
#define LIMIT "64MiB" /* of memory: a quarter is a mount's share of bytes */
#define SHARE (16u << 20)

static struct rig rig;
static struct rig_mount evil, good;
static struct wd_msg msg;
static uint64_t theirs, large;

static int setup(void **state)
{
	uint64_t size;

	rig_start(&rig, "memory-limit=" LIMIT, "small-object-size=64KiB", "metadata-workers=8", NULL);
	rig_file(&rig, "evil/small", 1000);
	rig_file(&rig, "evil/large", LARGE);
	rig_file(&rig, "good/secret", 5000);
	rig_mount(&rig, &evil, 1, "evil", "");
	rig_mount(&rig, &good, 2, "good", "");
	assert_int_equal(rig_lookup(&good, &msg, RIG_ROOT, "secret", &theirs), 0);
	assert_int_equal(rig_lookup(&evil, &msg, RIG_ROOT, "large", &large), 0);
	/* the other mount's file is open and in the cache: there is something to get at */
	assert_true(rig_open(&good, &msg, theirs, 0, &size) > 0);
	wd_msg_close_fds(&msg);
	return 0;
}

static int teardown(void **state)
{
	rig_drop_mount(&evil);
	rig_drop_mount(&good);
	rig_stop(&rig);
	return 0;
}

static void assert_others_go_on(void)
{
	assert_int_equal(rig_read(&good, &msg, RIG_ROOT, "secret", "good/secret"), 0);
}

static unsigned count_fds(void)
{
	unsigned n = 0;
	DIR *d = opendir("/proc/self/fd");

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void nothing_of_another_mount_can_be_named(void **state)
{
	static const uint32_t flags[] = {0, WD_OPEN_REOPEN, WD_OPEN_REOPEN | WD_OPEN_WAS_PASSTHROUGH};
	uint64_t size, position, node;

	for (int i = 0; i < 3; i++)
		assert_int_equal(rig_open(&evil, &msg, theirs, flags[i], &size), -ESTALE);
	assert_int_equal(rig_ensure(&evil, &msg, theirs, 0, 100, 0, &position), -ESTALE);
	assert_int_equal(
		rig_ensure(&evil, &msg, theirs, 0, 100, WD_ENSURE_BYTES, &position), -ESTALE);
	assert_true(rig_lookup(&evil, &msg, theirs, "x", &node) < 0);
	assert_int_equal(rig_lookup(&evil, &msg, RIG_ROOT, "..", &node), -ENOENT);
	assert_int_equal(rig_lookup(&evil, &msg, RIG_ROOT, "secret", &node), -ENOENT);
	wd_msg_start(&msg, WD_MSG_GETATTR, 0);
	wd_put_u64(&msg, theirs);
	assert_int_equal(rig_call(&evil, &msg), -ESTALE);
	wd_msg_start(&msg, WD_MSG_GETXATTR, 0);
	wd_put_u64(&msg, theirs);
	wd_put_str(&msg, "user.warpdrive.origin");
	assert_true(rig_call(&evil, &msg) < 0);
	wd_msg_start(&msg, WD_MSG_READDIR, 0);
	wd_put_u64(&msg, theirs);
	wd_put_u64(&msg, 0);
	wd_put_u32(&msg, 4096);
	assert_true(rig_call(&evil, &msg) < 0);
	/* closing it here closes nothing there */
	wd_msg_start(&msg, WD_MSG_RELEASE, 0);
	wd_put_u64(&msg, theirs);
	assert_int_equal(wd_msg_send(evil.sock, &msg, 0), 0);
	assert_int_equal(rig_call_empty(&evil, &msg, WD_MSG_STATFS), 0);
	assert_int_equal(rig_ensure(&good, &msg, theirs, 0, 100, 0, &position), WD_ENSURE_PRESENT);
	assert_others_go_on();
}

static void what_only_the_keeper_may_say_is_not_heard(void **state)
{
	uint16_t types[] = {WD_MSG_MOUNT_DEL, WD_MSG_MOUNT_ADD, WD_MSG_MOUNT_SERVER, WD_MSG_STATUS,
		WD_MSG_HELLO, WD_MSG_BACKING_OPEN | WD_MSG_REPLY};

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		wd_msg_start(&msg, types[i], 0);
		wd_put_u64(&msg, good.id);
		if (types[i] & WD_MSG_REPLY)
			wd_msg_send(evil.sock, &msg, 0);
		else
			assert_int_equal(rig_call(&evil, &msg), -ENOSYS);
	}
	assert_int_equal(rig_call_empty(&evil, &msg, WD_MSG_STATFS), 0);
	assert_others_go_on();
}

static void descriptors_that_nobody_asked_for_are_closed(void **state)
{
	int odd[] = {open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), open("/dev/zero", O_RDWR | O_CLOEXEC),
		open("/", O_PATH | O_CLOEXEC), evil.sock};
	unsigned before;

	rig_call_empty(&evil, &msg, WD_MSG_STATFS);
	before = count_fds();
	for (int i = 0; i < 400; i++) {
		wd_msg_start(&msg, i % 2 ? WD_MSG_CANCEL : WD_MSG_STATFS, 5);
		if (i % 2)
			wd_put_u64(&msg, 1);
		for (int k = 0; k < WD_MSG_FDS; k++)
			wd_put_fd(&msg, odd[(i + k) % 4]);
		assert_int_equal(wd_msg_send(evil.sock, &msg, 0), 0);
		if (i % 20 == 0) /* so that what is on its way stays few */
			assert_int_equal(rig_call_empty(&evil, &msg, WD_MSG_STATFS), 0);
	}
	rig_call_empty(&evil, &msg, WD_MSG_STATFS);
	assert_true(count_fds() <= before + 2);
	for (int i = 0; i < 3; i++)
		close(odd[i]);
	assert_others_go_on();
}

static void malformed_messages_cost_the_sender_its_socket_only(void **state)
{
	static const char junk[][40] = {"", "x", "not a message at all, but long enough"};

	for (size_t i = 0; i < sizeof(junk) / sizeof(junk[0]); i++) {
		send(evil.sock, junk[i], i ? sizeof(junk[i]) : 0, MSG_NOSIGNAL);
		wd_msg_start(&msg, WD_MSG_GETATTR, 0);
		wd_put_u32(&msg, 1); /* too short */
		wd_msg_send(evil.sock, &msg, 0);
		while (wd_msg_recv(evil.sock, &msg, 0) > 0)
			wd_msg_close_fds(&msg);
		assert_others_go_on();
		rig_new_server(&evil);
		assert_int_equal(rig_call_empty(&evil, &msg, WD_MSG_STATFS), 0);
	}
}

/* It asks and asks and reads no answer: at the bound it is dropped, and its queue is gone. */
static void a_server_that_reads_no_answers_is_dropped(void **state)
{
	unsigned sent = 0;
	int rc = 0;

	while (rc == 0 && sent < 200000) {
		wd_msg_start(&msg, WD_MSG_READDIR, sent);
		wd_put_u64(&msg, RIG_ROOT);
		wd_put_u64(&msg, 0);
		wd_put_u32(&msg, 65000);
		rc = wd_msg_send(evil.sock, &msg, 0);
		sent += rc == 0;
		if (sent % 1000 == 1)
			assert_others_go_on();
	}
	assert_int_equal(rc, -EPIPE);
	assert_others_go_on();
	rig_new_server(&evil);
	assert_int_equal(rig_read(&evil, &msg, RIG_ROOT, "small", "evil/small"), 0);
}

/* Bytes that it is sent and never gives back: what they hold together stays within its share. */
static void hoarded_bytes_are_taken_back(void **state)
{
	enum { N = 64 };
	int fds[N];
	uint64_t size, position, held = 0;
	struct stat st;

	assert_true(rig_open(&evil, &msg, large, 0, &size) > 0);
	wd_msg_close_fds(&msg);
	for (int i = 0; i < N; i++) {
		assert_int_equal(rig_ensure(&evil, &msg, large, 0, 1 << 20, WD_ENSURE_BYTES, &position),
			WD_ENSURE_FD);
		fds[i] = wd_msg_take_fd(&msg, 0);
		assert_true(fds[i] >= 0);
	}
	for (int i = 0; i < N; i++) {
		assert_int_equal(fstat(fds[i], &st), 0);
		held += (uint64_t)st.st_size;
		close(fds[i]);
	}
	assert_in_range(held, 1 << 20, SHARE);
	assert_others_go_on();
}

/* Bytes that are given back do not count, and are not cut while they are read. */
static void bytes_that_are_given_back_are_left_alone(void **state)
{
	uint64_t size, position, id;
	struct stat st;

	assert_true(rig_open(&evil, &msg, large, 0, &size) > 0);
	wd_msg_close_fds(&msg);
	for (int i = 0; i < 64; i++) {
		int fd;

		assert_int_equal(rig_ensure(&evil, &msg, large, 0, 1 << 20, WD_ENSURE_BYTES, &position),
			WD_ENSURE_FD);
		id = msg.id;
		fd = wd_msg_take_fd(&msg, 0);
		assert_int_equal(fstat(fd, &st), 0);
		assert_int_equal(st.st_size, 1 << 20);
		close(fd);
		wd_msg_start(&msg, WD_MSG_CANCEL, 0);
		wd_put_u64(&msg, id);
		assert_int_equal(wd_msg_send(evil.sock, &msg, 0), 0);
	}
}

/* Tables that lie, while files are opened, released, reopened and the cache is full. */
static void lies_in_the_tables_harm_nobody_else(void **state)
{
	unsigned seed = 4711;
	uint64_t nodes[2] = {large, 0}, size;

	assert_int_equal(rig_lookup(&evil, &msg, RIG_ROOT, "small", &nodes[1]), 0);
	for (int i = 0; i < 600; i++) {
		bool is_new;
		struct wd_mm_inode *e =
			wd_mm_claim(&evil.mm, i % 7 ? nodes[i % 2] : theirs, &is_new);

		if (e) {
			atomic_store(&e->state, (uint32_t)rand_r(&seed) % 12);
			atomic_store(&e->backing_id, (uint32_t)rand_r(&seed));
			atomic_store(&e->node, i % 5 ? nodes[i % 2] : (uint64_t)rand_r(&seed));
		}
		for (int k = 0; k < 50; k++)
			((volatile unsigned char *)evil.mm.header)[(size_t)rand_r(&seed) % evil.mm.size] =
				(unsigned char)rand_r(&seed);
		rig_open(&evil, &msg, nodes[i % 2], (uint32_t)rand_r(&seed) % 4, &size);
		wd_msg_close_fds(&msg);
		if (i % 3 == 0) {
			wd_msg_start(&msg, WD_MSG_RELEASE, 0);
			wd_put_u64(&msg, nodes[i % 2]);
			wd_msg_send(evil.sock, &msg, 0);
		}
		if (i % 50 == 0)
			rig_new_server(&evil);
		if (i % 50 == 25)
			assert_others_go_on();
	}
	assert_others_go_on();
}

/* ---- the share of workers ---- */

struct counting {
	struct mount_job job;
	struct wd_mutex *lock;
	struct wd_cond *changed;
	unsigned *running, *most, *done;
	bool *may_end;
};

static void count_running(void *arg)
{
	struct counting *c = arg;

	wd_lock(c->lock);
	if (++*c->running > *c->most)
		*c->most = *c->running;
	wd_cond_broadcast(c->changed);
	while (!*c->may_end)
		wd_cond_wait(c->changed, c->lock);
	--*c->running;
	++*c->done;
	wd_cond_broadcast(c->changed);
	wd_unlock(c->lock);
}

static void one_mount_takes_no_more_than_half_of_the_workers(void **state)
{
	enum { N = 40, WORKERS = 6 };
	static struct counting jobs[N], other;
	struct settings settings = {.metadata_workers = WORKERS, .memory_limit = 1 << 20};
	struct agent a = {.settings = &settings, .jobs = jobs_new(WORKERS, 100)};
	struct mount m[2];
	struct wd_mutex lock;
	struct wd_cond changed;
	unsigned running = 0, most = 0, done = 0, other_running = 0, other_most = 0;
	bool may_end = false;

	wd_mutex_init(&lock);
	wd_cond_init(&changed);
	for (int i = 0; i < 2; i++) {
		m[i] = (struct mount){.agent = &a, .refs = 1000};
		wd_mutex_init(&m[i].lock);
	}
	for (int i = 0; i < N; i++) {
		jobs[i] = (struct counting){
			{0}, &lock, &changed, &running, &most, &done, &may_end};
		mount_run(&m[0], &jobs[i].job, count_running, &jobs[i]);
	}
	/* all that one mount asked for is stuck; another mount's job runs all the same */
	other = (struct counting){{0}, &lock, &changed, &other_running, &other_most, &done, &may_end};
	mount_run(&m[1], &other.job, count_running, &other);
	wd_lock(&lock);
	while (other_running == 0 || running < WORKERS / 2)
		wd_cond_wait(&changed, &lock);
	may_end = true;
	wd_cond_broadcast(&changed);
	while (done < N + 1)
		wd_cond_wait(&changed, &lock);
	wd_unlock(&lock);
	jobs_stop(a.jobs);
	assert_int_equal(most, WORKERS / 2);
	assert_int_equal(m[0].refs, 1000);
	for (int i = 0; i < 2; i++)
		wd_mutex_done(&m[i].lock);
	wd_cond_done(&changed);
	wd_mutex_done(&lock);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(nothing_of_another_mount_can_be_named),
		T(what_only_the_keeper_may_say_is_not_heard),
		T(descriptors_that_nobody_asked_for_are_closed),
		T(malformed_messages_cost_the_sender_its_socket_only),
		T(a_server_that_reads_no_answers_is_dropped),
		T(hoarded_bytes_are_taken_back),
		T(bytes_that_are_given_back_are_left_alone),
		T(lies_in_the_tables_harm_nobody_else),
		cmocka_unit_test(one_mount_takes_no_more_than_half_of_the_workers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
