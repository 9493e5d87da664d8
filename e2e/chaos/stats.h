/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_E2E_CHAOS_STATS_H
#define WD_E2E_CHAOS_STATS_H
/*
 * What is counted: operations and how long they took, errors, wrong bytes, and for each fault its stall: the
 * longest operation that was under way at some time between this fault and the next one. All thread-safe;
 * counting an operation takes no lock.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#define STATS_BUCKETS 256	/* 4 for each doubling of microseconds */
#define STATS_FAULTS_MAX 200000 /* further faults are injected but not measured one by one */

struct stats {
	_Atomic uint64_t ops, bytes, errors, wrong;
	_Atomic uint64_t buckets[STATS_BUCKETS];
	_Atomic uint64_t longest_us;
	pthread_mutex_t lock; /* of `longest` */
	char longest[400];
	_Atomic uint32_t faults;
	uint64_t *fault_us;		/* when each fault began */
	_Atomic uint32_t *stall_us;
};

uint64_t stats_now_us(void);
int stats_init(struct stats *s);
void stats_done(struct stats *s);
/* A fault begins now. Main thread only. */
void stats_fault(struct stats *s);
/* An operation from start_us to now. */
void stats_op(struct stats *s, uint64_t start_us, const char *what, const char *path, uint64_t offset);
void stats_print(struct stats *s);

#endif
