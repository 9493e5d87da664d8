/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that stay registered with the kernel, and when their ids are given back: the bound over all mounts, an
 * eviction's object, a renewal. By a whole agent whose keeper and servers are the test.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "agent/mount.h"
#include "agent/test/agent_fixture.h"

#define MANY 100

static struct rig rig;
static struct wd_msg msg;

static int start(void **state)
{
	rig_start(&rig, "pooled-files=4", "prefetch=off", NULL);
	for (int i = 0; i < 9; i++) {
		char name[32];

		snprintf(name, sizeof(name), "a/%d", i);
		rig_file(&rig, name, 1000);
		name[0] = 'b';
		rig_file(&rig, name, 1000);
	}
	for (int i = 0; i < MANY; i++) {
		char name[32];

		snprintf(name, sizeof(name), "many/%d", i);
		rig_file(&rig, name, 100);
	}
	return 0;
}

static int stop(void **state)
{
	rig_stop(&rig);
	return 0;
}

/* What the agent's hub had begun is done. */
static void settle(struct rig_mount *m)
{
	wd_msg_start(&msg, WD_MSG_STATFS, 0);
	assert_int_equal(rig_call(m, &msg), 0);
}

/* Opens the file by passthrough as a server does. */
static struct wd_mm_inode *open_file(struct rig_mount *m, int number, uint64_t *ret_node)
{
	char name[32];
	uint64_t size;
	bool is_new;
	struct wd_mm_inode *e;

	snprintf(name, sizeof(name), "%d", number);
	assert_int_equal(rig_lookup(m, &msg, RIG_ROOT, name, ret_node), 0);
	e = wd_mm_claim(&m->mm, *ret_node, &is_new);
	assert_true(is_new);
	assert_int_equal(rig_open(m, &msg, *ret_node, 0, &size), WD_OPEN_PASSTHROUGH);
	wd_lock(&rig.lock);
	atomic_store(&e->backing_id, rig.next_backing);
	wd_unlock(&rig.lock);
	atomic_store(&e->state, WD_INO_PASSTHROUGH);
	settle(m);
	return e;
}

/* Opens and closes it. */
static struct wd_mm_inode *pool_file(struct rig_mount *m, int number)
{
	uint64_t node;
	struct wd_mm_inode *e = open_file(m, number, &node);

	atomic_store(&e->state, WD_INO_IDLE);
	return e;
}

static void expect_gone(struct wd_mm_inode *e)
{
	while (atomic_load(&e->state) == WD_INO_RECLAIM)
		usleep(1000); /* until the keeper's answer was read */
	assert_int_equal(atomic_load(&e->state), WD_INO_GONE);
}

static unsigned closes(void)
{
	unsigned n;

	wd_lock(&rig.lock);
	n = rig.backing_closes;
	wd_unlock(&rig.lock);
	return n;
}

static void the_oldest_of_all_mounts_goes(void **state)
{
	struct rig_mount a, b;
	struct wd_mm_inode *e[6];

	rig_mount(&rig, &a, 1, "a", "");
	rig_mount(&rig, &b, 2, "b", "");
	for (int i = 0; i < 5; i++)
		e[i] = pool_file(i % 2 ? &b : &a, i);
	expect_gone(e[0]);
	assert_int_equal(atomic_load(&e[1]->state), WD_INO_IDLE);
	e[5] = pool_file(&b, 5);
	expect_gone(e[1]);
	for (int i = 2; i < 6; i++)
		assert_int_equal(atomic_load(&e[i]->state), WD_INO_IDLE);
	rig_umount(&a);
	rig_umount(&b);
}

static void what_is_open_or_was_used_stays(void **state)
{
	struct rig_mount a;
	struct wd_mm_inode *e[6];
	uint64_t node;

	rig_mount(&rig, &a, 3, "a", "");
	e[0] = open_file(&a, 0, &node);
	for (int i = 1; i < 4; i++)
		e[i] = pool_file(&a, i);
	atomic_fetch_add(&e[1]->uses, 1); /* opened and closed without a word */
	e[4] = pool_file(&a, 4);
	expect_gone(e[2]);
	e[5] = pool_file(&a, 5);
	expect_gone(e[3]);
	assert_int_equal(atomic_load(&e[0]->state), WD_INO_PASSTHROUGH);
	assert_int_equal(atomic_load(&e[1]->state), WD_INO_IDLE);
	rig_umount(&a);
}

static void more_may_be_open_than_stay(void **state)
{
	struct rig_mount a;
	struct wd_mm_inode *e[9];
	uint64_t nodes[9];
	unsigned before, ngone = 0;

	rig_mount(&rig, &a, 4, "a", "");
	before = closes();
	for (int i = 0; i < 8; i++)
		e[i] = open_file(&a, i, &nodes[i]);
	for (int i = 0; i < 8; i++)
		atomic_store(&e[i]->state, WD_INO_IDLE);
	assert_int_equal(closes(), before);
	e[8] = pool_file(&a, 8); /* two go for one that comes */
	for (int i = 0; i < 8; i++) {
		while (atomic_load(&e[i]->state) == WD_INO_RECLAIM)
			usleep(1000); /* until the keeper's answer was read */
		ngone += atomic_load(&e[i]->state) == WD_INO_GONE;
	}
	assert_int_equal(ngone, 2);
	assert_int_equal(closes(), before + 2);
	rig_umount(&a);
}

static void an_id_that_the_keeper_does_not_close_stays(void **state)
{
	struct rig_mount a;
	struct wd_mm_inode *e[5];
	uint64_t size;
	uint64_t node;

	rig_mount(&rig, &a, 5, "a", "");
	for (int i = 0; i < 4; i++)
		e[i] = pool_file(&a, i);
	node = atomic_load(&e[0]->node);
	rig_set_close(&rig, -EIO);
	e[4] = pool_file(&a, 4);
	while (atomic_load(&e[0]->state) == WD_INO_RECLAIM)
		usleep(1000); /* until the keeper's answer was read */
	assert_int_equal(atomic_load(&e[0]->state), WD_INO_IDLE);
	assert_int_equal(rig_open(&a, &msg, node, 0, &size), WD_OPEN_PASSTHROUGH);
	rig_set_close(&rig, 0);
	atomic_store(&e[0]->state, WD_INO_PASSTHROUGH);
	(void)pool_file(&a, 5); /* the bound is kept all the same */
	expect_gone(e[1]);
	expect_gone(e[2]);
	rig_umount(&a);
}

/* The keeper drops who does not read its answers, and it is the hub that does. */
static void the_keeper_is_asked_to_close_a_few_at_a_time(void **state)
{
	struct rig_mount a;
	uint64_t nodes[MANY];
	unsigned before;

	rig_mount(&rig, &a, 6, "many", "");
	for (int i = 0; i < MANY; i++)
		open_file(&a, i, &nodes[i]);
	before = closes();
	rig_set_close(&rig, 1);
	for (int i = 0; i < MANY; i++) {
		atomic_store(&wd_mm_find(&a.mm, nodes[i])->state, WD_INO_GONE);
		wd_msg_start(&msg, WD_MSG_RELEASE, 0);
		wd_put_u64(&msg, nodes[i]);
		assert_int_equal(wd_msg_send(a.sock, &msg, 0), 0);
	}
	settle(&a);
	while (closes() < before + 64)
		usleep(1000); /* until the keeper has read them */
	settle(&a);
	assert_int_equal(closes(), before + 64);
	rig_set_close(&rig, 0);
	while (closes() < before + MANY)
		usleep(1000); /* the others follow the answers */
	rig_umount(&a);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_oldest_of_all_mounts_goes),
		cmocka_unit_test(what_is_open_or_was_used_stays),
		cmocka_unit_test(more_may_be_open_than_stay),
		cmocka_unit_test(the_keeper_is_asked_to_close_a_few_at_a_time),
		cmocka_unit_test(an_id_that_the_keeper_does_not_close_stays),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
