/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The faults of all other plans at random: of those that allow it and have here what they need. A plan is done
 * with its fault when its inject returns; one that leaves something broken until a later inject heals it in its
 * finish, too.
 */
#include "e2e/chaos/chaos.h"

#include <errno.h>

extern const struct plan plan_mixed;

static bool is_in(const struct chaos *c, const struct plan *plan)
{
	return plan != &plan_mixed && (plan->flags & PLAN_IS_MIXABLE) && chaos_suits(c, plan);
}

static int configure(struct chaos *c, struct wd_err *err)
{
	int rc = 0;

	for (const struct plan *const *p = chaos_plans; *p && rc == 0; p++)
		if (is_in(c, *p) && (*p)->configure)
			rc = (*p)->configure(c, err);
	return rc;
}

static int prepare(struct chaos *c, struct wd_err *err)
{
	int rc = 0;

	for (const struct plan *const *p = chaos_plans; *p && rc == 0; p++)
		if (is_in(c, *p) && (*p)->prepare)
			rc = (*p)->prepare(c, err);
	return rc;
}

static int inject(struct chaos *c, struct wd_err *err)
{
	const struct plan *plan = NULL;
	uint64_t seen = 0;
	int rc;

	for (const struct plan *const *p = chaos_plans; *p; p++)
		if (is_in(c, *p) && chaos_random(c, ++seen) == 0)
			plan = *p;
	if (!plan)
		return wd_err_set(err, ENOENT, "no other plan suits this run");
	rc = plan->inject(c, err);
	if (rc < 0)
		wd_err_wrap(err, "%s", plan->name);
	return rc;
}

static int finish(struct chaos *c, struct wd_err *err)
{
	int rc = 0;

	for (const struct plan *const *p = chaos_plans; *p; p++)
		if (is_in(c, *p) && (*p)->finish && (*p)->finish(c, err) < 0)
			rc = wd_err_wrap(err, "%s", (*p)->name);
	return rc;
}

const struct plan plan_mixed = {
	.name = "mixed",
	.help = "the faults of all plans, of those that suit the run",
	.min_ms = 20,
	.max_ms = 550,
	.faults = 40,
	.configure = configure,
	.prepare = prepare,
	.inject = inject,
	.finish = finish,
};
