/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Torture: the life of a mount (added, looked up, listed, opened in every mode, read from the cache
 * and past it, its server replaced, asked again, removed) is gone through again and again in a
 * whole agent, and each time one allocation fails, until every place that allocates has failed once.
 * Each time the agent answers: with what was asked for, or with a definite error; and right after
 * it the same life without a failure succeeds. ASan sees what was lost or used after its end.
 */
#include "common/test/torture.h"

#include <setjmp.h>
#include <stddef.h>
#include <cmocka.h>

#include "agent/test/agent_fixture.h"

#include "common/log.h"

#define SMALL 1000
#define LARGE 300000 /* two blocks */
#define TRIES_MAX 3  /* a site that is not passed again when it is armed is left */

static struct rig rig;
static struct wd_msg msg;
static uint64_t next_mount = 1;
static struct torture_site *target; /* what fails in this life */

/* For who looks for the place: addr2line -e PROGRAM wants it without where the program lies. */
extern char __executable_start;

static uintptr_t place(void)
{
	return target ? target->from - (uintptr_t)&__executable_start : 0;
}

/* What may be the answer when memory is short: that, or the end of the connection, upon which a
 * server is replaced and asks again. */
static int definite(int rc, const char *what)
{
	static const int known[] = {ENOMEM, EIO, EPIPE, ESTALE};

	if (rc >= 0)
		return rc;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (rc == -known[i])
			return rc;
	fail_msg("%s: %s is no answer to short memory (allocation at %#lx)", what, strerror(-rc),
		(unsigned long)place());
	return rc;
}

static void make_data(uint64_t n)
{
	char path[64];

	snprintf(path, sizeof(path), "d%llu/small", (unsigned long long)n);
	rig_file(&rig, path, SMALL);
	snprintf(path, sizeof(path), "d%llu/large", (unsigned long long)n);
	rig_file(&rig, path, LARGE);
	snprintf(path, sizeof(path), "d%llu/bytes", (unsigned long long)n);
	rig_file(&rig, path, LARGE);
	snprintf(path, sizeof(path), "d%llu/sub/empty", (unsigned long long)n);
	rig_file(&rig, path, 0);
}

static int readdir_all(struct rig_mount *m, uint64_t node)
{
	wd_msg_start(&msg, WD_MSG_READDIR, 0);
	wd_put_u64(&msg, node);
	wd_put_u64(&msg, 0);
	wd_put_u32(&msg, 65000);
	return rig_call(m, &msg);
}

static int getxattr_of(struct rig_mount *m, uint64_t node, const char *name)
{
	wd_msg_start(&msg, WD_MSG_GETXATTR, 0);
	wd_put_u64(&msg, node);
	wd_put_str(&msg, name);
	return rig_call(m, &msg);
}

static int getattr_of(struct rig_mount *m, uint64_t node)
{
	wd_msg_start(&msg, WD_MSG_GETATTR, 0);
	wd_put_u64(&msg, node);
	return rig_call(m, &msg);
}

/* Opened, read past the cache, its server replaced, opened again. */
static int read_bytes(struct rig_mount *m, uint64_t node)
{
	uint64_t size, position;
	int rc = rig_open(m, &msg, node, 0, &size);

	if (rc < 0)
		return rc;
	wd_msg_close_fds(&msg);
	rc = rig_ensure(m, &msg, node, 4096, 8192, WD_ENSURE_BYTES, &position);
	wd_msg_close_fds(&msg);
	if (rc >= 0)
		rc = rig_try_new_server(m);
	if (rc >= 0)
		rc = rig_open(m, &msg, node, WD_OPEN_REOPEN, &size);
	if (rc >= 0)
		wd_msg_close_fds(&msg);
	return rc < 0 ? rc : 0;
}

/* 0, or the first thing that did not succeed. */
static int live(struct rig_mount *m, const char *dir)
{
	uint64_t node = 0, sub = 0;
	char path[64];
	int rc;

	if ((rc = definite(rig_lookup(m, &msg, RIG_ROOT, "large", &node), "lookup")) < 0)
		return rc;
	if ((rc = definite(getattr_of(m, node), "getattr")) < 0)
		return rc;
	if ((rc = definite(rig_lookup(m, &msg, RIG_ROOT, "sub", &sub), "lookup")) < 0)
		return rc;
	if ((rc = definite(readdir_all(m, RIG_ROOT), "readdir")) < 0 ||
		(rc = definite(readdir_all(m, sub), "readdir")) < 0)
		return rc;
	if ((rc = definite(getxattr_of(m, node, "user.warpdrive.origin"), "getxattr")) < 0 ||
		(rc = definite(getxattr_of(m, node, "user.warpdrive.cached"), "getxattr")) < 0)
		return rc;
	if ((rc = definite(rig_call_empty(m, &msg, WD_MSG_STATFS), "statfs")) < 0)
		return rc;
	snprintf(path, sizeof(path), "%s/small", dir);
	if ((rc = definite(rig_read(m, &msg, RIG_ROOT, "small", path), "read small")) < 0)
		return rc;
	snprintf(path, sizeof(path), "%s/large", dir);
	if ((rc = definite(rig_read(m, &msg, RIG_ROOT, "large", path), "read large")) < 0)
		return rc;
	if ((rc = definite(rig_lookup(m, &msg, RIG_ROOT, "bytes", &node), "lookup")) < 0)
		return rc;
	return definite(read_bytes(m, node), "read past the cache");
}

static int life(void)
{
	uint64_t id = next_mount++;
	struct rig_mount m;
	char dir[32];
	int rc;

	snprintf(dir, sizeof(dir), "d%llu", (unsigned long long)id);
	make_data(id);
	if (!rig_is_connected(&rig))
		rig_reconnect_keeper(&rig);
	atomic_store(&torture_is_on, true);
	atomic_store(&torture_armed, target);
	rc = definite(rig_try_mount(&rig, &m, id, dir, ""), "mount");
	if (rc == 0)
		rc = live(&m, dir);
	rig_umount(&m);
	atomic_store(&torture_is_on, false);
	atomic_store(&torture_armed, NULL);
	return rc;
}

static void every_allocation_may_fail(void **state)
{
	unsigned lives = 0, missed = 0, refused = 0;
	int rc;

	target = NULL;
	for (int i = 0; i < 3; i++) /* what is kept between lives is made */
		assert_int_equal(life(), 0);
	while ((target = torture_next())) {
		unsigned before = atomic_load(&torture_injected);
		uintptr_t failed;

		for (int try = 0; try < TRIES_MAX && atomic_load(&torture_injected) == before; try++) {
			rc = life();
			lives++;
			refused += rc < 0;
		}
		if (atomic_load(&torture_injected) == before) {
			missed++;
			atomic_fetch_add(&target->failures, 1); /* passed once only */
		}
		failed = place();
		target = NULL;
		rc = life();
		lives++;
		if (rc < 0)
			fail_msg("after the allocation at %#lx failed: %s", (unsigned long)failed,
				strerror(-rc));
	}
	print_message("%u sites, %u failures injected, %u lives, %u of them refused something, %u sites "
		      "passed once only\n",
		atomic_load(&torture_nsites), atomic_load(&torture_injected), lives, refused, missed);
	assert_true(atomic_load(&torture_injected) > 30);
	assert_true(missed * 4 < atomic_load(&torture_nsites));
}

static int setup(void **state)
{
	wd_log_set_level(WD_LOG_ERROR + 1);
	rig_start(&rig, "small-object-size=64KiB", "metadata-workers=2", "request-deadline=10s", NULL);
	return 0;
}

static int teardown(void **state)
{
	rig_stop(&rig);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_allocation_may_fail, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
