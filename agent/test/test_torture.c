/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Torture: the life of a mount (added, looked up, listed, opened in every mode, read from the cache
 * and past it, its server replaced, asked again, removed) is gone through again and again in a
 * whole agent, over every kind of origin, and each time an allocation fails.
 * First the agent is new, and every place that allocates fails when it is passed for the first time,
 * also one that is passed only once in an agent's life. Then all is there already, and each place that
 * such a life passes fails once more, alone. Each time the agent answers: with what was asked
 * for, or with a definite error; and right after it the same life without a failure succeeds. ASan
 * sees what was lost or used after its end.
 */
#include "common/test/torture.h"

#include <setjmp.h>
#include <stddef.h>
#include <cmocka.h>

#include "agent/test/torture_origins.h"

#include "common/log.h"

#define TRIES_MAX 3     /* a site that is not passed again when it is armed is left */
#define NEW_LIVES_MAX 300 /* more lives than there are sites: something never comes to rest */
#define CALM_LIVES 3    /* so many in a row without a failure: all is made that is kept between lives */

static struct rig rig;
static struct place place;
static struct wd_msg msg;
static enum place_kind kind;
static bool origin_stumbles; /* in this life; it costs waits between the tries */
static uint64_t next_mount = 1;
static unsigned lives, refused;

/* For who looks for the place: addr2line -e PROGRAM wants it without where the program lies. */
extern char __executable_start;

static unsigned long failed_at(void)
{
	const struct torture_site *s = atomic_load(&torture_last);

	return s ? s->from - (uintptr_t)&__executable_start : 0;
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
	if (rc == -ENOENT && place.server)
		print_message("last request: %s\n", place.server->last);
	fail_msg("%s: %s is no answer to short memory (allocation at %#lx)", what, strerror(-rc),
		failed_at());
	return rc;
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
	if (origin_stumbles)
		place_stumble(&place);
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

static int life(bool is_tortured, bool stumbles)
{
	uint64_t id = next_mount++;
	struct rig_mount m;
	int rc;

	place_begin(&place, &rig, kind, id);
	if (!rig_is_connected(&rig))
		rig_reconnect_keeper(&rig);
	origin_stumbles = stumbles;
	atomic_store(&torture_is_on, is_tortured);
	rc = definite(rig_try_mount_of(&rig, &m, id, place.description), "mount");
	if (rc == 0)
		rc = live(&m, place.dir);
	rig_umount(&m);
	atomic_store(&torture_is_on, false);
	place_end(&place);
	lives++;
	refused += rc < 0;
	return rc;
}

static void must_have_lived(int rc)
{
	if (rc < 0)
		fail_msg("%s: after the allocation at %#lx failed: %s", place_names[kind], failed_at(),
			strerror(-rc));
}

/* The agent is new, and every site fails when it is passed for the first time. known_passes[]: of each site,
 * before the last life, which nothing disturbed any more. */
static void fail_what_is_new(unsigned known_passes[static TORTURE_SITES])
{
	unsigned calm = 0, n = 0;

	atomic_store(&torture_fails_new, true);
	while (calm < CALM_LIVES) {
		unsigned before = atomic_load(&torture_injected);
		int rc;

		for (size_t i = 0; i < TORTURE_SITES; i++)
			known_passes[i] = atomic_load(&torture_sites[i].passes);
		rc = life(true, calm > 0);
		calm = atomic_load(&torture_injected) == before ? calm + 1 : 0;
		if (calm)
			must_have_lived(rc);
		assert_true(++n < NEW_LIVES_MAX);
	}
}

/* Each site that an undisturbed life passes and that failed as a new one only: alone. Returns how many
 * were not passed again. */
static unsigned fail_what_is_known(const unsigned known_passes[static TORTURE_SITES])
{
	static bool is_known[TORTURE_SITES];
	unsigned missed = 0;

	for (size_t i = 0; i < TORTURE_SITES; i++)
		is_known[i] = atomic_load(&torture_sites[i].passes) != known_passes[i] &&
			      atomic_load(&torture_sites[i].failures) == 1;
	for (size_t i = 0; i < TORTURE_SITES; i++) {
		struct torture_site *s = &torture_sites[i];

		if (!is_known[i])
			continue;
		for (int try = 0; try < TRIES_MAX && atomic_load(&s->failures) == 1; try++) {
			atomic_store(&torture_armed, s);
			life(true, try > 0); /* most are passed without a stumble */
			atomic_store(&torture_armed, NULL);
		}
		missed += atomic_load(&s->failures) == 1;
		must_have_lived(life(false, false));
	}
	return missed;
}

static void every_allocation_fails(void)
{
	static unsigned known_passes[TORTURE_SITES];
	unsigned before = atomic_load(&torture_nsites), injected = atomic_load(&torture_injected);
	unsigned sites, missed;

	lives = refused = 0;
	fail_what_is_new(known_passes);
	missed = fail_what_is_known(known_passes);
	sites = atomic_load(&torture_nsites);
	print_message("%s: %u sites, %u of them new, %u failures, %u lives, %u of them refused something, "
		      "%u sites were not passed again\n",
		place_names[kind], sites, sites - before, atomic_load(&torture_injected) - injected, lives,
		refused, missed);
	for (size_t i = 0; i < TORTURE_SITES; i++)
		if (atomic_load(&torture_sites[i].at))
			assert_true(atomic_load(&torture_sites[i].failures) > 0);
	assert_true(sites - before > 3);
	assert_true(missed * 4 < sites);
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

static void every_allocation_fails_over_files(void **state)
{
	kind = IN_FILES;
	every_allocation_fails();
}

static void every_allocation_fails_over_http_listings(void **state)
{
	kind = IN_LISTINGS;
	every_allocation_fails();
}

static void every_allocation_fails_over_an_http_index(void **state)
{
	kind = IN_INDEX;
	every_allocation_fails();
}

static void every_allocation_fails_over_s3(void **state)
{
	kind = IN_BUCKET;
	every_allocation_fails();
}

static void every_allocation_fails_over_s3_with_a_key(void **state)
{
	kind = IN_BUCKET_WITH_KEY;
	every_allocation_fails();
}

#define TORTURE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TORTURE(every_allocation_fails_over_files),
		TORTURE(every_allocation_fails_over_http_listings),
		TORTURE(every_allocation_fails_over_an_http_index),
		TORTURE(every_allocation_fails_over_s3),
		TORTURE(every_allocation_fails_over_s3_with_a_key),
	};

	setenv("no_proxy", "*", 1); /* before there are threads */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
