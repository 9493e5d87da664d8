/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_META_GUARD_H
#define WD_AGENT_META_GUARD_H
/*
 * LMDB reads its file through a mapping and believes what it reads: where the file was cut, or its disk is
 * dead, that is SIGBUS; where a page holds garbage it may be SIGSEGV or a failed assertion. Code between
 * guard_enter and guard_leave gets an answer instead:
 *
 *	struct guard g;
 *	if (guard_enter(&g))
 *		... LMDB ...
 *	else
 *		... see g.why: never call LMDB on this environment again ...
 *	guard_leave(&g);
 *
 * What the thread held inside LMDB when it was thrown out (its mutexes, a transaction) is lost: that is
 * why the environment is dead from then on. Guards nest; each thread has its own. A fault outside of any
 * guard is what it always was.
 */
#include <setjmp.h>
#include <stdbool.h>

enum guard_why { GUARD_PAGE = 1, GUARD_GARBAGE }; /* a page that cannot be read; one that makes no sense */

struct guard {
	sigjmp_buf at;
	volatile enum guard_why why;
	struct guard *outer;
};

/* For the whole process; again is fine, and takes back what somebody else has set since. -errno */
int guard_install(void);

/* A macro, since the frame that calls sigsetjmp must live on. */
#define guard_enter(g) (guard_push(g), sigsetjmp((g)->at, 1) == 0)
void guard_push(struct guard *g);
void guard_leave(struct guard *g);
/* Leaves the innermost guard as a fault does; returns when there is none. */
void guard_throw(enum guard_why why);

#endif
