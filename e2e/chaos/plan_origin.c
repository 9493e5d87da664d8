/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The origin goes away for a while, or answers badly for a while: an outage refuses connections, the own
 * origin can also fail some of its answers and be slow. Each fault is over when inject returns.
 */
#include "e2e/chaos/chaos.h"

#define OUTAGE_MIN_MS 200
#define OUTAGE_MAX_MS 3000
#define BAD_MIN_MS 300
#define BAD_MAX_MS 1500

static int outage(struct chaos *c, struct wd_err *err)
{
	int rc = chaos_origin_stop(c, err);

	if (rc < 0)
		return rc;
	chaos_pause(c, OUTAGE_MIN_MS, OUTAGE_MAX_MS);
	return chaos_start(c, ROLE_ORIGIN, err);
}

static int bad_answers(struct chaos *c)
{
	struct origin_faults faults = {0};

	if (chaos_random(c, 4) == 0)
		faults.stall_ms = 200;
	else
		faults = (struct origin_faults){.status_503 = (unsigned)chaos_random(c, 200),
			.cut_short = (unsigned)chaos_random(c, 100),
			.reset = (unsigned)chaos_random(c, 100)};
	chaos_origin_faults(c, faults);
	chaos_pause(c, BAD_MIN_MS, BAD_MAX_MS);
	chaos_origin_faults(c, (struct origin_faults){0});
	return 0;
}

static int inject(struct chaos *c, struct wd_err *err)
{
	if (chaos_options(c)->origin == ORIGIN_OWN && chaos_random(c, 2))
		return bad_answers(c);
	return outage(c, err);
}

const struct plan plan_origin = {
	.name = "origin",
	.help = "the origin refuses connections for 0.2-3 s; the own one also fails and cuts answers",
	.flags = PLAN_IS_MIXABLE | PLAN_NEEDS_HTTP,
	.min_ms = 100,
	.max_ms = 700,
	.faults = 10,
	.inject = inject,
};
