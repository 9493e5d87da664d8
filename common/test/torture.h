/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_TEST_TORTURE_H
#define WD_COMMON_TEST_TORTURE_H
/*
 * Allocations that fail: one at a time, at every place of our code that allocates.
 *
 * The test's program is linked with --wrap for malloc and its kin (wd_torture in CMakeLists.txt), so
 * that what our objects call lands here, and what libraries call for themselves does not. A site is
 * where the call came from and where that function was called from: the same strdup for two callers
 * is two sites. The table of sites grows while scenarios run. With torture_fails_new a site fails when
 * it is passed for the first time, so that none can be seen and never fail; a site in torture_armed
 * fails the next time it is passed, once. Both on whatever thread it happens.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TORTURE_SITES 4096

struct torture_site {
	_Atomic uintptr_t at; /* 0: free */
	uintptr_t from;
	_Atomic unsigned passes, failures;
};

static struct torture_site torture_sites[TORTURE_SITES];
static _Atomic unsigned torture_nsites, torture_injected;
static _Atomic(struct torture_site *) torture_armed, torture_last; /* the one that failed last */
static _Atomic bool torture_is_on;     /* sites are noted and may fail */
static _Atomic bool torture_fails_new; /* they do when they are passed for the first time */

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
char *__real_strdup(const char *s);
char *__real_strndup(const char *s, size_t max);
int __real_vasprintf(char **ret, const char *fmt, va_list ap);
FILE *__real_open_memstream(char **ret, size_t *ret_len);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t max);
int __wrap_asprintf(char **ret, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int __wrap_vasprintf(char **ret, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
FILE *__wrap_open_memstream(char **ret, size_t *ret_len);

/* Lock-free: the slot of a site is found by probing from a hash of its two addresses. */
static inline struct torture_site *torture_find(uintptr_t at, uintptr_t from)
{
	size_t i = (size_t)((at * 31 + from) * 0x9e3779b97f4a7c15ull >> 40) % TORTURE_SITES;

	for (unsigned n = 0; n < TORTURE_SITES; n++, i = (i + 1) % TORTURE_SITES) {
		struct torture_site *s = &torture_sites[i];
		uintptr_t mark = at ^ (from << 1), old = 0;

		if (atomic_compare_exchange_strong(&s->at, &old, mark)) {
			s->from = at;
			atomic_fetch_add(&torture_nsites, 1);
			return s;
		}
		if (old == mark)
			return s;
	}
	abort();
}

static inline bool torture_fails(void *at, void *from)
{
	struct torture_site *s, *armed;
	unsigned never = 0;

	if (!atomic_load(&torture_is_on))
		return false;
	s = torture_find((uintptr_t)at, (uintptr_t)from);
	atomic_fetch_add(&s->passes, 1);
	armed = s;
	if (atomic_compare_exchange_strong(&torture_armed, &armed, NULL))
		atomic_fetch_add(&s->failures, 1);
	else if (!atomic_load(&torture_fails_new) || !atomic_compare_exchange_strong(&s->failures, &never, 1))
		return false;
	atomic_store(&torture_last, s);
	atomic_fetch_add(&torture_injected, 1);
	errno = ENOMEM;
	return true;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wframe-address"
#define TORTURE_FAILS() torture_fails(__builtin_return_address(0), __builtin_return_address(1))

void *__wrap_malloc(size_t size)
{
	return TORTURE_FAILS() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return TORTURE_FAILS() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t size)
{
	return TORTURE_FAILS() ? NULL : __real_realloc(p, size);
}

char *__wrap_strdup(const char *s)
{
	return TORTURE_FAILS() ? NULL : __real_strdup(s);
}

char *__wrap_strndup(const char *s, size_t max)
{
	return TORTURE_FAILS() ? NULL : __real_strndup(s, max);
}

int __wrap_vasprintf(char **ret, const char *fmt, va_list ap)
{
	return TORTURE_FAILS() ? -1 : __real_vasprintf(ret, fmt, ap);
}

int __wrap_asprintf(char **ret, const char *fmt, ...)
{
	va_list ap;
	int rc;

	if (TORTURE_FAILS())
		return -1;
	va_start(ap, fmt);
	rc = __real_vasprintf(ret, fmt, ap);
	va_end(ap);
	return rc;
}

FILE *__wrap_open_memstream(char **ret, size_t *ret_len)
{
	return TORTURE_FAILS() ? NULL : __real_open_memstream(ret, ret_len);
}
#pragma GCC diagnostic pop

#endif
