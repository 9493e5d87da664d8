/* SPDX-License-Identifier: Apache-2.0 */
/* The worker pool: everything runs once, nothing runs after the stop, a full queue waits for room. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdatomic.h>

#include "agent/jobs.h"
#include "common/lock.h"

static _Atomic int ran;

static void count(void *arg)
{
	atomic_fetch_add(&ran, 1);
}

static void every_job_runs_before_stop_returns(void **state)
{
	struct jobs *j = jobs_new(4, 8);

	atomic_store(&ran, 0);
	for (int i = 0; i < 10000; i++)
		jobs_run(j, count, NULL);
	jobs_stop(j);
	assert_int_equal(atomic_load(&ran), 10000);
}

struct gate {
	struct wd_mutex lock;
	struct wd_cond cond;
	int inside, is_open;
};

static void enter(void *arg)
{
	struct gate *g = arg;

	wd_lock(&g->lock);
	g->inside++;
	wd_cond_broadcast(&g->cond);
	while (!g->is_open)
		wd_cond_wait(&g->cond, &g->lock);
	wd_unlock(&g->lock);
}

static void blocked_jobs_do_not_hold_up_the_others(void **state)
{
	struct jobs *j = jobs_new(8, 64);
	struct gate g = {.inside = 0};

	wd_mutex_init(&g.lock);
	wd_cond_init(&g.cond);
	for (int i = 0; i < 8; i++)
		jobs_run(j, enter, &g);
	wd_lock(&g.lock);
	while (g.inside < 8) /* all eight are inside at once, or this never ends */
		wd_cond_wait(&g.cond, &g.lock);
	g.is_open = 1;
	wd_cond_broadcast(&g.cond);
	wd_unlock(&g.lock);
	jobs_stop(j);
	assert_int_equal(g.inside, 8);
	wd_cond_done(&g.cond);
	wd_mutex_done(&g.lock);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_job_runs_before_stop_returns),
		cmocka_unit_test(blocked_jobs_do_not_hold_up_the_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
