/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "fuse/server_inode.h"

static struct wd_mm mm;
static struct inodes t;
static int tables = -1;

static int setup(void **state)
{
	tables = wd_mm_create(NULL);
	if (tables < 0 || wd_mm_map(tables, &mm, NULL) < 0)
		return -1;
	return inodes_init(&t, &mm);
}

static int teardown(void **state)
{
	inodes_done(&t);
	wd_mm_unmap(&mm);
	close(tables);
	return 0;
}

/* As if the server had died and the next one mapped the same tables. */
static void take_over(void (*dropped)(uint64_t), void (*kept)(struct wd_mm_inode *))
{
	inodes_done(&t);
	assert_int_equal(inodes_init(&t, &mm), 0);
	inodes_recover(&t, dropped, kept);
}

static uint64_t dropped_nodes[64], kept_nodes[64];
static unsigned ndropped, nkept;

static void note_dropped(uint64_t node)
{
	dropped_nodes[ndropped++ % 64] = node;
}

static void note_kept(struct wd_mm_inode *inode)
{
	kept_nodes[nkept++ % 64] = inode_node(inode);
}

static void recover(void)
{
	ndropped = nkept = 0;
	take_over(note_dropped, note_kept);
}

/* Opens a node for the first time. */
static struct wd_mm_inode *open_new(
	uint64_t node, enum wd_open_mode mode, uint64_t unique, uint64_t *ret_fh)
{
	struct wd_mm_inode *inode = NULL;

	assert_int_equal(inode_begin(&t, node, &inode), INODE_ASK);
	inode_settle(inode, mode, (uint32_t)node + 100, 1000);
	assert_true(handle_add(&t, inode, unique, ret_fh));
	handle_opened(&t, *ret_fh);
	return inode;
}

static void the_mode_in_force_is_repeated(void **state)
{
	struct wd_mm_inode *inode, *again = NULL;
	uint64_t a, b;

	inode = open_new(7, WD_OPEN_CACHED, 10, &a);
	assert_int_equal(inode_begin(&t, 7, &again), INODE_OPEN);
	assert_ptr_equal(inode, again);
	assert_int_equal(inode_state(inode), WD_INO_CACHED);
	assert_true(handle_add(&t, inode, 12, &b));
	assert_int_not_equal(a, b);
	assert_null(handle_remove(&t, a, 7));
	assert_ptr_equal(handle_remove(&t, b, 7), inode);
	assert_true(inode_drop(&t, inode)); /* the agent is told */
	assert_int_equal(inode_begin(&t, 7, &again), INODE_ASK);
}

static void openers_wait_while_the_agent_is_asked(void **state)
{
	struct wd_mm_inode *inode;

	assert_int_equal(inode_begin(&t, 7, &inode), INODE_ASK);
	assert_int_equal(inode_begin(&t, 7, &inode), INODE_OPENING);
}

static void a_passthrough_inode_is_pooled_and_opened_again(void **state)
{
	struct wd_mm_inode *inode;
	uint64_t fh;

	inode = open_new(7, WD_OPEN_PASSTHROUGH, 10, &fh);
	assert_int_equal(atomic_load(&inode->backing_id), 107);
	assert_ptr_equal(handle_remove(&t, fh, 7), inode);
	assert_false(inode_drop(&t, inode));
	assert_int_equal(inode_state(inode), WD_INO_IDLE);
	assert_int_equal(t.npooled, 1);
	assert_int_equal(inode_begin(&t, 7, &inode), INODE_OPEN);
	assert_int_equal(inode_state(inode), WD_INO_PASSTHROUGH);
	assert_int_equal(atomic_load(&inode->backing_id), 107);
	assert_int_equal(t.npooled, 0);
}

static void what_the_agent_takes_back_must_be_asked_for(void **state)
{
	struct wd_mm_inode *inode;
	uint64_t fh;

	inode = open_new(7, WD_OPEN_PASSTHROUGH, 10, &fh);
	handle_remove(&t, fh, 7);
	inode_drop(&t, inode);
	atomic_store(&inode->state, WD_INO_RECLAIM); /* the agent */
	assert_int_equal(inode_begin(&t, 7, &inode), INODE_RECLAIM);
	atomic_store(&inode->state, WD_INO_GONE);
	assert_int_equal(inode_begin(&t, 7, &inode), INODE_ASK);
	assert_int_equal(t.npooled, 0);
}

static void the_pool_is_bounded_and_drops_the_oldest(void **state)
{
	uint64_t fh, node;

	t.pool_max = 4;
	for (node = 1; node <= 4; node++) {
		struct wd_mm_inode *inode = open_new(node, WD_OPEN_PASSTHROUGH, node * 2, &fh);

		handle_remove(&t, fh, node);
		assert_false(inode_drop(&t, inode));
		assert_int_equal(inode_evict(&t), 0);
	}
	/* 1 is used again, so 2 is the oldest */
	struct wd_mm_inode *inode = NULL;

	assert_int_equal(inode_begin(&t, 1, &inode), INODE_OPEN);
	handle_add(&t, inode, 100, &fh);
	handle_remove(&t, fh, 1);
	inode_drop(&t, inode);
	inode = open_new(5, WD_OPEN_PASSTHROUGH, 102, &fh);
	handle_remove(&t, fh, 5);
	inode_drop(&t, inode);
	assert_int_equal(inode_evict(&t), 2);
	assert_int_equal(inode_evict(&t), 0);
	assert_int_equal(t.npooled, 4);
	assert_null(wd_mm_find(&mm, 2));
	assert_non_null(wd_mm_find(&mm, 1));
}

static void the_pool_copes_with_what_the_agent_took(void **state)
{
	uint64_t fh, node;

	t.pool_max = 2;
	for (node = 1; node <= 3; node++) {
		struct wd_mm_inode *inode = open_new(node, WD_OPEN_PASSTHROUGH, node * 2, &fh);

		handle_remove(&t, fh, node);
		inode_drop(&t, inode);
		atomic_store(&inode->state, WD_INO_GONE); /* the agent took it back at once */
	}
	assert_int_equal(inode_evict(&t), 0);
	assert_in_range(t.npooled, 0, 2);
}

static void an_open_inode_is_never_dropped_from_the_pool(void **state)
{
	struct wd_mm_inode *inode;
	uint64_t fh, node;

	t.pool_max = 1;
	inode = open_new(1, WD_OPEN_PASSTHROUGH, 2, &fh);
	handle_remove(&t, fh, 1);
	inode_drop(&t, inode);
	assert_int_equal(inode_begin(&t, 1, &inode), INODE_OPEN);
	handle_add(&t, inode, 4, &fh);
	for (node = 2; node <= 4; node++) {
		uint64_t other;
		struct wd_mm_inode *i = open_new(node, WD_OPEN_PASSTHROUGH, node * 10, &other);

		handle_remove(&t, other, node);
		inode_drop(&t, i);
		while (inode_evict(&t))
			;
	}
	assert_int_equal(inode_state(inode), WD_INO_PASSTHROUGH);
	assert_ptr_equal(handle_inode(&t, fh, 1), inode);
}

static void a_release_twice_counts_once(void **state)
{
	struct wd_mm_inode *inode;
	uint64_t a, b;

	inode = open_new(7, WD_OPEN_CACHED, 10, &a);
	assert_true(handle_add(&t, inode, 12, &b));
	assert_null(handle_remove(&t, a, 7));
	assert_null(handle_remove(&t, a, 7));
	assert_int_equal(atomic_load(&inode->opens), 1);
	assert_ptr_equal(handle_inode(&t, b, 7), inode);
}

static void an_old_release_does_not_hit_the_handles_next_owner(void **state)
{
	struct wd_mm_inode *inode;
	uint64_t a, b;

	inode = open_new(7, WD_OPEN_CACHED, 10, &a);
	handle_remove(&t, a, 7);
	inode_drop(&t, inode);
	open_new(7, WD_OPEN_CACHED, 14, &b);
	assert_int_equal((uint32_t)a, (uint32_t)b); /* the same entry */
	assert_null(handle_remove(&t, a, 7));
	assert_null(handle_inode(&t, a, 7));
	assert_non_null(handle_inode(&t, b, 7));
	assert_null(handle_inode(&t, b, 8)); /* another node's request */
}

static void a_release_before_open_is_noted_stays_a_release(void **state)
{
	struct wd_mm_inode *inode = NULL;
	uint64_t fh;

	assert_int_equal(inode_begin(&t, 7, &inode), INODE_ASK);
	inode_settle(inode, WD_OPEN_CACHED, 0, 1);
	assert_true(handle_add(&t, inode, 10, &fh));
	assert_ptr_equal(handle_remove(&t, fh, 7), inode); /* RELEASE overtakes */
	handle_opened(&t, fh);
	assert_null(handle_inode(&t, fh, 7));
}

static void an_open_that_went_nowhere_is_taken_back(void **state)
{
	struct wd_mm_inode *inode = NULL;
	uint64_t fh;

	assert_int_equal(inode_begin(&t, 7, &inode), INODE_ASK);
	inode_settle(inode, WD_OPEN_CACHED, 0, 1);
	assert_true(handle_add(&t, inode, 10, &fh));
	assert_ptr_equal(handle_not_opened(&t, fh, 7), inode);
	assert_int_equal(atomic_load(&inode->opens), 0);
}

static void an_adopted_open_stays_though_its_answer_goes_nowhere(void **state)
{
	struct wd_mm_inode *inode = NULL;
	uint64_t fh, adopted;

	assert_int_equal(inode_begin(&t, 7, &inode), INODE_ASK);
	inode_settle(inode, WD_OPEN_CACHED, 0, 1);
	assert_true(handle_add(&t, inode, 10, &fh));
	recover(); /* killed before the answer was noted */
	assert_int_equal(handle_adopt(&t, 7, 12), 0);
	assert_int_equal(handle_adopt(&t, 8, 10), 0);
	adopted = handle_adopt(&t, 7, 10);
	assert_int_equal(adopted, fh);
	assert_null(handle_not_opened(&t, adopted, 7));
	assert_non_null(handle_inode(&t, adopted, 7));
}

static void handles_run_out(void **state)
{
	struct wd_mm_inode *inode;
	uint64_t fh;

	inode = open_new(7, WD_OPEN_CACHED, 10, &fh);
	for (uint32_t i = 1; i < mm.nhandles; i++)
		assert_true(handle_add(&t, inode, 10 + i * 2, &fh));
	assert_false(handle_add(&t, inode, 2, &fh));
	assert_null(handle_remove(&t, fh, 7));
	assert_true(handle_add(&t, inode, 4, &fh));
	assert_int_equal(atomic_load(&inode->opens), mm.nhandles);
}

static void a_successor_counts_the_handles(void **state)
{
	struct wd_mm_inode *inode, *found;
	uint64_t a, b, c;

	inode = open_new(7, WD_OPEN_CACHED, 10, &a);
	assert_true(handle_add(&t, inode, 12, &b));
	assert_true(handle_add(&t, inode, 14, &c));
	handle_remove(&t, b, 7);
	atomic_store(&inode->opens, 99); /* killed between table and count */
	recover();
	assert_int_equal(atomic_load(&inode->opens), 2);
	assert_int_equal(nkept, 1);
	assert_int_equal(ndropped, 0);
	assert_null(handle_remove(&t, a, 7));
	found = handle_remove(&t, c, 7);
	assert_ptr_equal(found, inode);
	/* the freed handles are used again, none twice */
	open_new(8, WD_OPEN_CACHED, 20, &a);
	open_new(9, WD_OPEN_CACHED, 22, &b);
	open_new(10, WD_OPEN_CACHED, 24, &c);
	assert_int_not_equal((uint32_t)a, (uint32_t)b);
	assert_int_not_equal((uint32_t)b, (uint32_t)c);
}

static void a_successor_settles_what_was_half_done(void **state)
{
	struct wd_mm_inode *opening = NULL, *cached, *passthrough, *idle, *claimed;
	uint64_t fh;

	assert_int_equal(inode_begin(&t, 1, &opening), INODE_ASK);
	cached = open_new(2, WD_OPEN_CACHED, 10, &fh);
	atomic_store(&mm.handles[(uint32_t)fh - 1].state, WD_HANDLE_FREE);
	passthrough = open_new(3, WD_OPEN_PASSTHROUGH, 12, &fh);
	atomic_store(&mm.handles[(uint32_t)fh - 1].state, WD_HANDLE_FREE);
	idle = open_new(4, WD_OPEN_PASSTHROUGH, 14, &fh);
	handle_remove(&t, fh, 4);
	inode_drop(&t, idle);
	claimed = open_new(5, WD_OPEN_CACHED, 16, &fh);
	handle_remove(&t, fh, 5);
	atomic_store(&claimed->state, WD_INO_CLAIMED);
	open_new(6, WD_OPEN_DIRECT, 18, &fh);
	recover();
	assert_int_equal(inode_state(opening), WD_INO_GONE);
	assert_int_equal(inode_state(cached), WD_INO_GONE);
	assert_int_equal(inode_state(passthrough), WD_INO_IDLE);
	assert_int_equal(inode_state(idle), WD_INO_IDLE);
	assert_int_equal(inode_state(claimed), WD_INO_GONE);
	assert_int_equal(ndropped, 2);
	assert_int_equal(nkept, 1);
	assert_int_equal(t.npooled, 2);
	assert_ptr_equal(inode_next_unknown(&t), passthrough < idle ? passthrough : idle);
	assert_ptr_equal(inode_next_unknown(&t), passthrough < idle ? idle : passthrough);
	assert_null(inode_next_unknown(&t));
}

/* Opens and closes nodes from 1 to n. */
static void fill_pool(uint64_t n)
{
	uint64_t fh;

	for (uint64_t node = 1; node <= n; node++) {
		struct wd_mm_inode *inode = open_new(node, WD_OPEN_PASSTHROUGH, node * 2, &fh);

		handle_remove(&t, fh, node);
		inode_drop(&t, inode);
	}
}

static void what_the_agent_does_not_know_of_stays_in_the_pool(void **state)
{
	struct wd_mm_inode *inode;
	uint64_t fh;

	fill_pool(3);
	recover();
	t.pool_max = 1;
	assert_int_equal(t.npooled, 3);
	assert_int_equal(inode_evict(&t), 0);
	inode = inode_next_unknown(&t);
	assert_int_equal(inode_evict(&t), 0); /* asked, not answered */
	inode_known(&t, inode);
	assert_int_equal(inode_evict(&t), inode_node(inode));
	/* opened and closed before the answer */
	inode = inode_next_unknown(&t);
	assert_int_equal(inode_begin(&t, inode_node(inode), &inode), INODE_OPEN);
	assert_true(handle_add(&t, inode, 100, &fh));
	assert_int_equal(t.npooled, 1);
	handle_remove(&t, fh, inode_node(inode));
	inode_drop(&t, inode);
	assert_int_equal(t.npooled, 2);
	assert_int_equal(inode_evict(&t), 0);
	inode_known(&t, inode);
	inode_known(&t, inode);
	assert_int_equal(inode_evict(&t), inode_node(inode));
	assert_int_equal(inode_evict(&t), 0);
	assert_non_null(inode_next_unknown(&t));
	assert_null(inode_next_unknown(&t));
}

static void a_new_agent_hears_of_the_oldest_first(void **state)
{
	struct wd_mm_inode *inode = NULL;
	uint64_t fh;

	fill_pool(4);
	inode_begin(&t, 2, &inode);
	handle_add(&t, inode, 100, &fh); /* open */
	nkept = 0;
	inodes_ask_all(&t, note_kept);
	assert_int_equal(nkept, 1);
	assert_int_equal(kept_nodes[0], 2);
	assert_int_equal(inode_node(inode_next_unknown(&t)), 1);
	assert_int_equal(inode_node(inode_next_unknown(&t)), 3);
	/* an agent after that one: the rest of the line goes on, and all is asked for again */
	inodes_ask_all(&t, note_kept);
	assert_int_equal(inode_node(inode_next_unknown(&t)), 4);
	assert_non_null(inode_next_unknown(&t));
	assert_non_null(inode_next_unknown(&t));
	assert_null(inode_next_unknown(&t));
}

static void one_that_the_agent_took_leaves_the_line(void **state)
{
	struct wd_mm_inode *inode = NULL;

	fill_pool(2);
	recover();
	t.pool_max = 0;
	atomic_store(&wd_mm_find(&mm, 1)->state, WD_INO_RECLAIM);
	atomic_store(&wd_mm_find(&mm, 2)->state, WD_INO_GONE);
	assert_int_equal(inode_begin(&t, 2, &inode), INODE_ASK); /* its entry is new */
	assert_null(inode_next_unknown(&t));
	assert_int_equal(inode_evict(&t), 0);
	assert_int_equal(t.npooled, 0);
}

static void the_pool_leaves_room_for_what_is_open(void **state)
{
	struct wd_mm_inode *inode;
	uint64_t fh, nclosed = 0;

	fill_pool(WD_MM_POOL);
	assert_int_equal(inode_evict(&t), 0);
	for (uint64_t node = 100001; node <= 100000 + mm.ninodes - mm.ninodes / 8; node++) {
		assert_int_equal(inode_begin(&t, node, &inode), INODE_ASK);
		while (inode_evict(&t))
			nclosed++;
		inode_settle(inode, WD_OPEN_CACHED, 0, 1);
		assert_true(handle_add(&t, inode, node, &fh));
	}
	assert_int_equal(nclosed, WD_MM_POOL);
	assert_int_equal(t.npooled, 0);
	inode_drop(&t, inode);
	recover();
	assert_int_equal(t.nopen, mm.ninodes - mm.ninodes / 8 - 1);
}

static void a_successor_survives_tables_of_nonsense(void **state)
{
	unsigned seed = 4711;

	for (int round = 0; round < 20; round++) {
		atomic_store(&mm.header->handle_high, (uint32_t)rand_r(&seed));
		for (uint32_t i = 0; i < 4000; i++) {
			struct wd_mm_handle *h = &mm.handles[(uint32_t)rand_r(&seed) % mm.nhandles];
			struct wd_mm_inode *n = &mm.inodes[(uint32_t)rand_r(&seed) % mm.ninodes];

			atomic_store(&h->state, (uint32_t)rand_r(&seed) % 5);
			atomic_store(&h->inode, (uint32_t)rand_r(&seed) % (2 * mm.ninodes));
			atomic_store(&h->node, (uint64_t)rand_r(&seed) % 100);
			atomic_store(&h->unique, (uint64_t)rand_r(&seed) % 1000);
			atomic_store(&n->state, (uint32_t)rand_r(&seed) % 12);
			atomic_store(&n->node, (uint64_t)rand_r(&seed) % 100);
		}
		recover();
		for (uint64_t i = 0; i < 1000; i++) {
			struct wd_mm_inode *inode = NULL;
			uint64_t fh;

			handle_remove(&t, (uint64_t)rand_r(&seed) << 32 | (uint32_t)rand_r(&seed),
				i % 100);
			if (inode_begin(&t, i, &inode) == INODE_OPEN)
				handle_add(&t, inode, i, &fh);
			inode_evict(&t);
			inode = inode_next_unknown(&t);
			if (inode && i % 3)
				inode_known(&t, inode);
			if (i % 100 == 99)
				inodes_ask_all(&t, note_kept);
		}
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	static const struct CMUnitTest tests[] = {
		TEST(the_mode_in_force_is_repeated),
		TEST(openers_wait_while_the_agent_is_asked),
		TEST(a_passthrough_inode_is_pooled_and_opened_again),
		TEST(what_the_agent_takes_back_must_be_asked_for),
		TEST(the_pool_is_bounded_and_drops_the_oldest),
		TEST(the_pool_copes_with_what_the_agent_took),
		TEST(an_open_inode_is_never_dropped_from_the_pool),
		TEST(a_release_twice_counts_once),
		TEST(an_old_release_does_not_hit_the_handles_next_owner),
		TEST(a_release_before_open_is_noted_stays_a_release),
		TEST(an_open_that_went_nowhere_is_taken_back),
		TEST(an_adopted_open_stays_though_its_answer_goes_nowhere),
		TEST(handles_run_out),
		TEST(a_successor_counts_the_handles),
		TEST(a_successor_settles_what_was_half_done),
		TEST(what_the_agent_does_not_know_of_stays_in_the_pool),
		TEST(a_new_agent_hears_of_the_oldest_first),
		TEST(one_that_the_agent_took_leaves_the_line),
		TEST(the_pool_leaves_room_for_what_is_open),
		TEST(a_successor_survives_tables_of_nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
