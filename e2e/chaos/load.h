/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_E2E_CHAOS_LOAD_H
#define WD_E2E_CHAOS_LOAD_H
/*
 * The load: named kinds of work, each done by some workers (threads) until the run is over. A kind is one
 * function and one row in load.c's table. Every operation on the mount lies between op_begin and op_end, so that
 * it is counted, timed, and seen when it hangs.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "e2e/chaos/content.h"
#include "e2e/chaos/run.h"

struct worker {
	struct chaos *chaos;
	void (*work)(struct worker *w);
	const char *kind;
	pthread_t thread;
	_Atomic pid_t tid;
	uint64_t random;
	_Atomic uint64_t ops;
	_Atomic bool is_done;
	_Atomic pid_t reader; /* the process that a killer of readers waits for */
	char *buf;	      /* LOAD_BUF bytes */

	pthread_mutex_t lock; /* of what follows: the operation under way */
	uint64_t since_us;    /* 0: none */
	const char *what;
	char path[CHAOS_PATH + CONTENT_PATH];
	uint64_t offset;
};

#define LOAD_BUF (1 << 20)

bool load_goes_on(const struct worker *w);
uint64_t load_random(struct worker *w, uint64_t n);
/* The operation on a file of the dataset, or on the path below the mount. */
void op_begin(struct worker *w, const char *what, const char *below, uint64_t offset);
/* error: 0 or a positive errno. */
void op_end(struct worker *w, int error);
/* Compares bytes that were read; counts them. */
void load_check(struct worker *w, uint32_t file, uint64_t offset, const void *data, size_t len);
/* Something is as it must not be, though no call failed. */
void load_wrong(struct worker *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* load_read.c */
void work_hot(struct worker *w);
void work_stream(struct worker *w);
void work_random(struct worker *w);
void work_mmap(struct worker *w);
void work_small(struct worker *w);
/* load_tree.c */
void work_walk(struct worker *w);
void work_stat(struct worker *w);
/* load_killed.c */
void work_killed(struct worker *w);

#endif
