/* SPDX-License-Identifier: Apache-2.0 */
/* See meta_guard.h. The handler jumps only for a fault of the thread itself, and only when it is guarded. */
#include "agent/meta_guard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>

static _Thread_local struct guard *innermost;
static struct sigaction former_bus, former_segv;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void guard_throw(enum guard_why why)
{
	struct guard *g = innermost;

	if (!g)
		return;
	g->why = why;
	siglongjmp(g->at, 1);
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
	/* raised by the kernel for what this thread did (or by a test in it), not sent by somebody */
	if (info->si_code > 0 || info->si_code == SI_TKILL)
		guard_throw(sig == SIGBUS ? GUARD_PAGE : GUARD_GARBAGE);
	/* as it would have been: the faulting instruction runs again, without us */
	sigaction(sig, sig == SIGBUS ? &former_bus : &former_segv, NULL);
	if (info->si_code <= 0)
		raise(sig);
}

static int install(int sig, struct sigaction *former)
{
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
	struct sigaction old;

	sigemptyset(&action.sa_mask);
	if (sigaction(sig, &action, &old) < 0)
		return -errno;
	if (!(old.sa_flags & SA_SIGINFO) || old.sa_sigaction != on_fault)
		*former = old;
	return 0;
}

int guard_install(void)
{
	int rc;

	pthread_mutex_lock(&lock);
	rc = install(SIGBUS, &former_bus);
	if (rc == 0)
		rc = install(SIGSEGV, &former_segv);
	pthread_mutex_unlock(&lock);
	return rc;
}

void guard_push(struct guard *g)
{
	g->outer = innermost;
	innermost = g;
}

void guard_leave(struct guard *g)
{
	innermost = g->outer;
}
