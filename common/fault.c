/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which fault points are armed, and how often each was passed.
 *
 * A point is passed from any thread, often on a hot path, and nearly always nothing is armed: that
 * costs one relaxed load. Otherwise a lock guards a small fixed table. The environment is read
 * once, by whichever comes first, a pass or an arming.
 */
#include "common/fault.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/lock.h"
#include "common/log.h"

#define POINTS_MAX 32
#define NAME_MAX_BYTES 48
#define COUNT_MAX 1000000000l

struct point {
	char name[NAME_MAX_BYTES];
	uint64_t passed;
	uint64_t from, to; /* fires while from <= passed <= to; the first pass is 1 */
};

static struct wd_mutex lock = WD_MUTEX_INIT;
static struct point points[POINTS_MAX] WD_GUARDED_BY(lock);
static unsigned npoints WD_GUARDED_BY(lock);
static atomic_bool is_any_armed;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* One "name=count" of len bytes; false when it is none. */
static bool parse_point(const char *text, size_t len, struct point *ret_point)
{
	struct point p = {.passed = 0};
	const char *eq = memchr(text, '=', len), *digits;
	bool is_single;
	char *end;
	long n;

	if (!eq || eq == text || (size_t)(eq - text) >= sizeof(p.name))
		return false;
	memcpy(p.name, text, (size_t)(eq - text));
	is_single = eq[1] == '@';
	digits = eq + 1 + is_single;
	if (*digits < '0' || *digits > '9')
		return false;
	n = strtol(digits, &end, 10);
	if (end != text + len || n > COUNT_MAX || (is_single && n == 0))
		return false;
	p.from = is_single ? (uint64_t)n : 1;
	p.to = n == 0 ? UINT64_MAX : (uint64_t)n;
	*ret_point = p;
	return true;
}

static void replace_points(const char *spec)
{
	struct point fresh[POINTS_MAX];
	unsigned n = 0;

	while (spec && *spec) {
		size_t len = strcspn(spec, ",");

		if (n < POINTS_MAX && parse_point(spec, len, &fresh[n]))
			n++;
		else if (len > 0)
			wd_error("fault point '%.*s' not armed: it must be name=count or "
				 "name=@pass, "
				 "and no more than %d of them",
				(int)len, spec, POINTS_MAX);
		spec += len + (spec[len] == ',');
	}
	wd_lock(&lock);
	memcpy(points, fresh, n * sizeof(*points));
	npoints = n;
	atomic_store(&is_any_armed, n > 0);
	wd_unlock(&lock);
}

static void read_environment(void)
{
	replace_points(getenv("WARPDRIVE_FAULTS"));
}

void wd_fault_arm(const char *spec)
{
	pthread_once(&once, read_environment);
	replace_points(spec);
}

bool wd_fault_hit(const char *name)
{
	bool fires = false;

	pthread_once(&once, read_environment);
	if (!atomic_load_explicit(&is_any_armed, memory_order_relaxed))
		return false;
	wd_lock(&lock);
	for (unsigned i = 0; i < npoints; i++) {
		struct point *p = &points[i];

		if (strcmp(p->name, name) != 0)
			continue;
		p->passed++;
		fires |= p->passed >= p->from && p->passed <= p->to;
	}
	wd_unlock(&lock);
	return fires;
}
