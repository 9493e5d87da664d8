/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_LOCK_H
#define WD_COMMON_LOCK_H
/*
 * A mutex and a condition that clang's thread-safety analysis understands. Conditions run on
 * CLOCK_MONOTONIC. Never held over a blocking system call, a callback or a reply.
 */
#include <pthread.h>
#include <stdint.h>

/* For the reader only: clang 19 cannot tie a C struct's member to the lock beside it. */
#define WD_GUARDED_BY(x)

#ifdef __clang__
#define WD_CAPABILITY __attribute__((capability("mutex")))
#define WD_REQUIRES(x) __attribute__((requires_capability(x)))
#define WD_ACQUIRE(...) __attribute__((acquire_capability(__VA_ARGS__)))
#define WD_RELEASE(...) __attribute__((release_capability(__VA_ARGS__)))
#define WD_NO_ANALYSIS __attribute__((no_thread_safety_analysis))
#else
#define WD_CAPABILITY
#define WD_REQUIRES(x)
#define WD_ACQUIRE(...)
#define WD_RELEASE(...)
#define WD_NO_ANALYSIS
#endif

struct WD_CAPABILITY wd_mutex {
	pthread_mutex_t m;
};
struct wd_cond {
	pthread_cond_t c;
};

#define WD_MUTEX_INIT {PTHREAD_MUTEX_INITIALIZER}

void wd_mutex_init(struct wd_mutex *m);
void wd_mutex_done(struct wd_mutex *m);
void wd_lock(struct wd_mutex *m) WD_ACQUIRE(*m);
void wd_unlock(struct wd_mutex *m) WD_RELEASE(*m);

void wd_cond_init(struct wd_cond *c);
void wd_cond_done(struct wd_cond *c);
void wd_cond_wait(struct wd_cond *c, struct wd_mutex *m) WD_REQUIRES(*m);
/* Waits until the monotonic time deadline_ns; returns 0 when woken, -ETIMEDOUT when not. */
int wd_cond_wait_until(struct wd_cond *c, struct wd_mutex *m, int64_t deadline_ns) WD_REQUIRES(*m);
void wd_cond_signal(struct wd_cond *c);
void wd_cond_broadcast(struct wd_cond *c);

/* Nanoseconds on CLOCK_MONOTONIC. */
int64_t wd_now_ns(void);

#endif
