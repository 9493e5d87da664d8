/* SPDX-License-Identifier: Apache-2.0 */
/* Fault points: which pass fires, and what is not armed. */
#include "common/fault.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

/* How the passes of a point went: "X..X" where X fired. */
static const char *passes(const char *name, int count)
{
	static char out[64];

	for (int i = 0; i < count; i++)
		out[i] = wd_fault_hit(name) ? 'X' : '.';
	out[count] = '\0';
	return out;
}

/* The first test: nothing may have read the environment before. */
static void the_environment_arms_points(void **state)
{
	setenv("WARPDRIVE_FAULTS", "a.b=1,c=@2", 1);
	assert_string_equal(passes("a.b", 3), "X..");
	assert_string_equal(passes("c", 3), ".X.");
	wd_fault_arm(NULL);
	assert_string_equal(passes("a.b", 1), ".");
	unsetenv("WARPDRIVE_FAULTS");
}

static void the_first_passes_fire_as_often_as_armed(void **state)
{
	wd_fault_arm("one=1,three=3");
	assert_string_equal(passes("three", 5), "XXX..");
	assert_string_equal(passes("one", 5), "X....");
	assert_string_equal(passes("other", 2), "..");
}

static void zero_fires_always(void **state)
{
	wd_fault_arm("p=0");
	assert_string_equal(passes("p", 8), "XXXXXXXX");
}

static void an_at_sign_picks_one_pass(void **state)
{
	wd_fault_arm("p=@5,p=@2");
	assert_string_equal(passes("p", 7), ".X..X..");
}

static void arming_replaces_what_was_armed_and_counts_anew(void **state)
{
	wd_fault_arm("p=2");
	assert_string_equal(passes("p", 1), "X");
	wd_fault_arm("p=2");
	assert_string_equal(passes("p", 3), "XX.");
	wd_fault_arm("q=1");
	assert_string_equal(passes("p", 1), ".");
	wd_fault_arm("");
	assert_string_equal(passes("q", 1), ".");
}

static void a_name_must_match_as_a_whole(void **state)
{
	wd_fault_arm("store.rename=0");
	assert_string_equal(passes("store", 1), ".");
	assert_string_equal(passes("store.rename2", 1), ".");
	assert_string_equal(passes("store.rename", 1), "X");
}

static void nonsense_is_skipped_and_the_rest_is_armed(void **state)
{
	char spec[2000] = "";

	wd_log_set_level(WD_LOG_ERROR + 1); /* the complaints are not what is tested */
	wd_fault_arm("p,q=,=1,r=x,s=-1,t=1x,u=@0,v=@,,w=99999999999999999999,ok=1");
	for (const char *name = "pqrstuvw"; *name; name++)
		assert_string_equal(passes((char[]){*name, '\0'}, 1), ".");
	assert_string_equal(passes("ok", 2), "X.");
	for (int i = 0; i < 100; i++)
		sprintf(spec + strlen(spec), "n%d=0,", i);
	wd_fault_arm(spec);
	assert_string_equal(passes("n0", 1), "X");
	assert_string_equal(passes("n99", 1), ".");
	wd_log_set_level(WD_LOG_INFO);
}

static atomic_int fired;

static void *pass_often(void *arg)
{
	for (int i = 0; i < 1000; i++)
		if (wd_fault_hit("shared"))
			atomic_fetch_add(&fired, 1);
	return NULL;
}

static void threads_share_one_count(void **state)
{
	pthread_t threads[4];

	wd_fault_arm("shared=1500");
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, pass_often, NULL), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(fired, 1500);
	wd_fault_arm(NULL);
}

static void a_point_is_a_constant_where_faults_are_compiled_out(void **state)
{
	wd_fault_arm("p=0");
#ifdef WD_FAULTS
	assert_true(WD_FAULT("p"));
#else
	_Static_assert(!WD_FAULT("p"), "a release has no fault points");
#endif
	wd_fault_arm(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_environment_arms_points),
		cmocka_unit_test(the_first_passes_fire_as_often_as_armed),
		cmocka_unit_test(zero_fires_always),
		cmocka_unit_test(an_at_sign_picks_one_pass),
		cmocka_unit_test(arming_replaces_what_was_armed_and_counts_anew),
		cmocka_unit_test(a_name_must_match_as_a_whole),
		cmocka_unit_test(nonsense_is_skipped_and_the_rest_is_armed),
		cmocka_unit_test(threads_share_one_count),
		cmocka_unit_test(a_point_is_a_constant_where_faults_are_compiled_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
