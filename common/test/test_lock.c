/* SPDX-License-Identifier: Apache-2.0 */
/* The mutex and the condition: exclusion, waking, and deadlines on the monotonic clock. */
#include "common/lock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>

#define MS 1000000ll

static struct wd_mutex lock;
static struct wd_cond cond;
static int64_t count WD_GUARDED_BY(lock);
static bool is_ready WD_GUARDED_BY(lock);

static int set_up(void **state)
{
	wd_mutex_init(&lock);
	wd_cond_init(&cond);
	return 0;
}

static int tear_down(void **state)
{
	wd_cond_done(&cond);
	wd_mutex_done(&lock);
	return 0;
}

static void *add_many(void *arg)
{
	for (int i = 0; i < 20000; i++) {
		wd_lock(&lock);
		count++;
		wd_unlock(&lock);
	}
	return NULL;
}

static void threads_exclude_each_other(void **state)
{
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, add_many, NULL), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	wd_lock(&lock);
	assert_int_equal(count, 80000);
	wd_unlock(&lock);
}

static void *wait_ready(void *arg)
{
	wd_lock(&lock);
	while (!is_ready)
		wd_cond_wait(&cond, &lock);
	wd_unlock(&lock);
	return NULL;
}

static void a_broadcast_wakes_everybody_who_waits(void **state)
{
	pthread_t threads[3];

	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, wait_ready, NULL), 0);
	wd_lock(&lock);
	is_ready = true;
	wd_cond_broadcast(&cond);
	wd_unlock(&lock);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
}

static void *signal_ready(void *arg)
{
	wd_lock(&lock);
	is_ready = true;
	wd_cond_signal(&cond);
	wd_unlock(&lock);
	return NULL;
}

static void a_signal_ends_a_wait_before_its_deadline(void **state)
{
	int64_t deadline_ns = wd_now_ns() + 60000 * MS;
	pthread_t thread;
	int rc = 0;

	wd_lock(&lock);
	is_ready = false;
	assert_int_equal(pthread_create(&thread, NULL, signal_ready, NULL), 0);
	while (!is_ready && rc == 0)
		rc = wd_cond_wait_until(&cond, &lock, deadline_ns);
	assert_int_equal(rc, 0);
	wd_unlock(&lock);
	pthread_join(thread, NULL);
}

static void a_wait_ends_at_its_deadline_and_not_before(void **state)
{
	int64_t deadline_ns = wd_now_ns() + 20 * MS;
	int rc;

	wd_lock(&lock);
	do
		rc = wd_cond_wait_until(&cond, &lock, deadline_ns);
	while (rc == 0);
	assert_int_equal(rc, -ETIMEDOUT);
	assert_true(wd_now_ns() >= deadline_ns);
	assert_int_equal(wd_cond_wait_until(&cond, &lock, 0), -ETIMEDOUT);
	wd_unlock(&lock);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(threads_exclude_each_other),
		cmocka_unit_test(a_broadcast_wakes_everybody_who_waits),
		cmocka_unit_test(a_signal_ends_a_wait_before_its_deadline),
		cmocka_unit_test(a_wait_ends_at_its_deadline_and_not_before),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
