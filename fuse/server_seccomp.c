/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a server may still ask of the kernel once it is set up: read and write what it has, memory,
 * locks and time. It can open nothing, connect to nothing and start nothing; memory never becomes
 * code, writing goes to the kernel's connection, the two sockets and the log alone, and a signal
 * can hit nobody but itself. Any other system call, and any in the numbering of another
 * architecture, ends the process, and the keeper starts another.
 *
 * Where a call is needed for one purpose its arguments are fixed to that purpose. A descriptor that
 * the agent sends later gets a number that is not in the rules: it can be read and mapped, no more.
 *
 * Sanitizers and coverage need more than can be listed, so their builds run without.
 */
#include "fuse/server.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/log.h"
#include "fuse/keeper_spawn.h"

#if defined(WD_SANITIZED) || defined(WD_COVERAGE)

int seccomp_install(struct wd_err *err)
{
	wd_warn("no system call filter: this is a build for tests");
	return 0;
}

#else

/* Whatever their arguments. */
static const int allowed[] = {
	SCMP_SYS(read),
	SCMP_SYS(pread64),
	SCMP_SYS(lseek),
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(close),
	SCMP_SYS(munmap),
	SCMP_SYS(mremap),
	SCMP_SYS(madvise),
	SCMP_SYS(brk),
	SCMP_SYS(futex),
	SCMP_SYS(sched_yield),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(timerfd_settime),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(getrandom),
	SCMP_SYS(getpid),
	SCMP_SYS(gettid),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
};

/* Only where argument number `arg`, cut to `mask`, is `value`. */
static const struct rule {
	int call;
	unsigned arg;
	scmp_datum_t mask, value;
} ruled[] = {
	{SCMP_SYS(write), 0, UINT32_MAX, SERVER_FD_FUSE},
	{SCMP_SYS(write), 0, UINT32_MAX, STDERR_FILENO},
	{SCMP_SYS(writev), 0, UINT32_MAX, SERVER_FD_FUSE},
	{SCMP_SYS(writev), 0, UINT32_MAX, STDERR_FILENO}, /* what a failed assertion says */
	{SCMP_SYS(sendmsg), 0, UINT32_MAX, SERVER_FD_AGENT},
	{SCMP_SYS(sendmsg), 0, UINT32_MAX, SERVER_FD_CONTROL},
	{SCMP_SYS(recvmsg), 0, UINT32_MAX, SERVER_FD_AGENT},
	{SCMP_SYS(recvmsg), 0, UINT32_MAX, SERVER_FD_CONTROL},
	{SCMP_SYS(shutdown), 0, UINT32_MAX, SERVER_FD_AGENT},
	{SCMP_SYS(dup3), 1, UINT32_MAX, SERVER_FD_AGENT},
	{SCMP_SYS(fcntl), 1, UINT32_MAX, F_GET_SEALS},
	{SCMP_SYS(fcntl), 1, UINT32_MAX, F_SETLK}, /* says that it serves (common/deposit.h) */
	{SCMP_SYS(mmap), 2, PROT_EXEC, 0},
	{SCMP_SYS(mprotect), 2, PROT_EXEC, 0},
};

static int add_rules(scmp_filter_ctx ctx)
{
	/* abort() */
	int rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
		SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0));

	for (size_t i = 0; rc == 0 && i < sizeof(allowed) / sizeof(allowed[0]); i++)
		rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed[i], 0);
	for (size_t i = 0; rc == 0 && i < sizeof(ruled) / sizeof(ruled[0]); i++) {
		const struct rule *r = &ruled[i];

		rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, r->call, 1,
			SCMP_CMP(r->arg, SCMP_CMP_MASKED_EQ, r->mask, r->value));
	}
	return rc;
}

int seccomp_install(struct wd_err *err)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int rc = ctx ? 0 : -ENOMEM;

	if (rc == 0)
		rc = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (rc == 0)
		rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	if (rc == 0)
		rc = add_rules(ctx);
	if (rc == 0)
		rc = seccomp_load(ctx);
	if (ctx)
		seccomp_release(ctx);
	return rc < 0 ? wd_err_sys(err, -rc, "install the system call filter") : 0;
}

#endif
