/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server that has been taken over, for tests: with the fault point server.misbehave armed, whoever
 * asks for the extended attribute "user.misbehave.CALL" makes the server do that system call. What
 * stops it is the filter (server_seccomp.c); one that comes back was not stopped.
 *
 * Beside these it lies: to the keeper, and in the tables that it shares with keeper and agent.
 *
 * Arguments are such that the call would do harm, or at least something, were it let through.
 * Compiled only where there are fault points.
 */
#include "fuse/server.h"

#ifdef WD_FAULTS

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/log.h"
#include "fuse/keeper_spawn.h"

#define PREFIX "user.misbehave."
#define A(x) ((long)(intptr_t)(x))

static char space[256];
static struct iovec vec = {space, sizeof(space)};
static struct open_how how = {.flags = O_RDONLY};
static char *no_strings[] = {NULL};
static const char path[] = "/etc/passwd";

static const struct attempt {
	const char *name;
	long number;
	long args[6];
} attempts[] = {
#ifdef SYS_open
	{"open", SYS_open, {A(path), O_RDONLY}},
	{"creat", SYS_creat, {A("/tmp/misbehave"), 0600}},
	{"stat", SYS_stat, {A(path), A(space)}},
	{"readlink", SYS_readlink, {A("/proc/self/exe"), A(space), sizeof(space)}},
	{"unlink", SYS_unlink, {A("/tmp/misbehave")}},
	{"fork", SYS_fork, {0}},
	{"vfork", SYS_vfork, {0}},
	{"dup2", SYS_dup2, {SERVER_FD_FUSE, STDERR_FILENO}},
	{"pipe", SYS_pipe, {A(space)}},
	{"modify-ldt", SYS_modify_ldt, {0, A(space), 16}},
#endif
	{"openat", SYS_openat, {AT_FDCWD, A(path), O_RDONLY}},
	{"openat2", SYS_openat2, {AT_FDCWD, A(path), A(&how), sizeof(how)}},
	{"open-by-handle-at", SYS_open_by_handle_at, {AT_FDCWD, A(space), O_RDONLY}},
	{"fstatat", SYS_newfstatat, {AT_FDCWD, A(path), A(space), 0}},
	{"statx", SYS_statx, {AT_FDCWD, A(path), 0, 0, A(space)}},
	{"getdents64", SYS_getdents64, {STDIN_FILENO, A(space), sizeof(space)}},
	{"unlinkat", SYS_unlinkat, {AT_FDCWD, A("/tmp/misbehave"), 0}},
	{"fchmod", SYS_fchmod, {STDIN_FILENO, 0666}},
	{"socket", SYS_socket, {AF_INET, SOCK_STREAM, 0}},
	{"socketpair", SYS_socketpair, {AF_UNIX, SOCK_STREAM, 0, A(space)}},
	{"connect", SYS_connect, {SERVER_FD_AGENT, A(space), 16}},
	{"sendto", SYS_sendto, {SERVER_FD_AGENT, A(space), 1, 0, 0, 0}},
	{"sendmsg-elsewhere", SYS_sendmsg, {STDIN_FILENO, A(space), 0}},
	{"write-elsewhere", SYS_write, {SERVER_FD_TABLES, A(space), 1}},
	{"pwrite64", SYS_pwrite64, {SERVER_FD_TABLES, A(space), 1, 0}},
	{"ftruncate", SYS_ftruncate, {SERVER_FD_TABLES, 0}},
	{"fallocate", SYS_fallocate, {SERVER_FD_TABLES, 0, 0, 4096}},
	{"ioctl", SYS_ioctl, {SERVER_FD_FUSE, 0x4010e501, A(space)}}, /* BACKING_OPEN */
	{"fcntl-owner", SYS_fcntl, {SERVER_FD_AGENT, F_SETOWN, 1}},
	{"fcntl-dup", SYS_fcntl, {SERVER_FD_FUSE, F_DUPFD, 20}},
	{"dup", SYS_dup, {SERVER_FD_FUSE}},
	{"dup3-elsewhere", SYS_dup3, {SERVER_FD_FUSE, STDERR_FILENO, 0}},
	{"memfd-create", SYS_memfd_create, {A("misbehave"), 0}},
	{"mmap-code", SYS_mmap,
		{0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0}},
	{"mprotect-code", SYS_mprotect, {0, 0, PROT_READ | PROT_EXEC}},
	{"pkey-mprotect", SYS_pkey_mprotect, {0, 0, PROT_READ | PROT_EXEC, -1}},
	{"ptrace", SYS_ptrace, {PTRACE_TRACEME, 0, 0, 0}},
	{"process-vm-readv", SYS_process_vm_readv, {1, A(&vec), 1, A(&vec), 1, 0}},
	{"process-vm-writev", SYS_process_vm_writev, {1, A(&vec), 1, A(&vec), 1, 0}},
	{"process-madvise", SYS_process_madvise, {0, A(&vec), 1, MADV_COLD, 0}},
	{"kcmp", SYS_kcmp, {1, 1, 0, 0, 0}},
	{"pidfd-open", SYS_pidfd_open, {1, 0}},
	{"pidfd-getfd", SYS_pidfd_getfd, {SERVER_FD_CONTROL, 0, 0}},
	{"pidfd-send-signal", SYS_pidfd_send_signal, {SERVER_FD_CONTROL, 0, 0, 0}},
	{"kill", SYS_kill, {-1, 0}},
	{"tkill", SYS_tkill, {1, 0}},
	{"tgkill-other", SYS_tgkill, {1, 1, 0}},
	{"rt-sigqueueinfo", SYS_rt_sigqueueinfo, {1, 0, A(space)}},
	{"rt-sigaction", SYS_rt_sigaction, {SIGSYS, 0, A(space), 8}},
	{"clone", SYS_clone, {SIGCHLD, 0, 0, 0, 0}},
	{"clone-thread", SYS_clone, {CLONE_VM | CLONE_SIGHAND | CLONE_THREAD, 0, 0, 0, 0}},
	{"clone3", SYS_clone3, {A(space), 88}},
	{"execve", SYS_execve, {A("/bin/sh"), A(no_strings), A(no_strings)}},
	{"execveat", SYS_execveat, {AT_FDCWD, A("/bin/sh"), A(no_strings), A(no_strings), 0}},
	{"mount", SYS_mount, {A("none"), A("/"), A("tmpfs"), 0, 0}},
	{"umount2", SYS_umount2, {A("/"), 2}},
	{"fsopen", SYS_fsopen, {A("tmpfs"), 0}},
	{"open-tree", SYS_open_tree, {AT_FDCWD, A("/"), 0}},
	{"move-mount", SYS_move_mount, {AT_FDCWD, A("/"), AT_FDCWD, A("/"), 0}},
	{"pivot-root", SYS_pivot_root, {A("/"), A("/")}},
	{"chroot", SYS_chroot, {A("/tmp")}},
	{"unshare", SYS_unshare, {CLONE_NEWUSER}},
	{"setns", SYS_setns, {SERVER_FD_CONTROL, 0}},
	{"setuid", SYS_setuid, {0}},
	{"setgroups", SYS_setgroups, {0, 0}},
	{"capset", SYS_capset, {A(space), 0}},
	{"prctl", SYS_prctl, {PR_SET_DUMPABLE, 1, 0, 0, 0}},
	{"prlimit64", SYS_prlimit64, {0, 7, 0, A(space)}},
	{"seccomp", SYS_seccomp, {0, 0, 0}},
	{"personality", SYS_personality, {0}},
	{"bpf", SYS_bpf, {0, A(space), sizeof(space)}},
	{"perf-event-open", SYS_perf_event_open, {A(space), 0, -1, -1, 0}},
	{"io-uring-setup", SYS_io_uring_setup, {8, A(space)}},
	{"io-uring-enter", SYS_io_uring_enter, {SERVER_FD_FUSE, 1, 0, 0, 0, 0}},
	{"userfaultfd", SYS_userfaultfd, {1}},
	{"keyctl", SYS_keyctl, {0, -3, 1}},
	{"add-key", SYS_add_key, {A("user"), A("misbehave"), A(space), 1, -3}},
	{"request-key", SYS_request_key, {A("user"), A("misbehave"), 0, -3}},
	{"inotify-init1", SYS_inotify_init1, {0}},
	{"fanotify-init", SYS_fanotify_init, {0, 0}},
	{"shmget", SYS_shmget, {0, 4096, 0600}},
	{"msgget", SYS_msgget, {0, 0600}},
	{"semget", SYS_semget, {0, 1, 0600}},
	{"mq-open", SYS_mq_open, {A("misbehave"), O_RDONLY, 0, 0}},
	{"vmsplice", SYS_vmsplice, {SERVER_FD_FUSE, A(&vec), 1, 0}},
	{"splice", SYS_splice, {SERVER_FD_FUSE, 0, SERVER_FD_FUSE, 0, 1, 0}},
	{"sendfile", SYS_sendfile, {SERVER_FD_FUSE, SERVER_FD_INFO, 0, 1}},
	{"init-module", SYS_init_module, {A(space), 1, A("")}},
	{"kexec-load", SYS_kexec_load, {0, 0, 0, 0}},
	{"reboot", SYS_reboot, {0, 0, 0, 0}},
	{"clock-settime", SYS_clock_settime, {0, A(space)}},
	{"sethostname", SYS_sethostname, {A("x"), 1}},
	{"landlock", SYS_landlock_create_ruleset, {0, 0, 1}},
	{"no-such-call", 2000, {0}},
#ifdef __x86_64__
	{"x32-getpid", 0x40000000 + SYS_getpid, {0}},
#endif
};

#ifdef __x86_64__
/* getpid by the 32-bit entry, whose numbers mean other calls */
static long by_another_entry(void)
{
	long result;

	__asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory");
	return result;
}
#endif

/* ---- what no filter can stop: lies ---- */

/* All of the tables but the numbers that say where things are, over and over for a while. */
static void scribble(void)
{
	unsigned seed = 4711;
	unsigned char *base = (unsigned char *)server.mm.slots;
	size_t len = server.mm.size - (size_t)(base - (unsigned char *)server.mm.header);

	for (int i = 0; i < 2000000; i++)
		((volatile unsigned char *)base)[((size_t)rand_r(&seed) << 16 ^ (size_t)rand_r(&seed)) %
						 len] = (unsigned char)rand_r(&seed);
	memset(base, 0xff, server.mm.nslots * sizeof(struct wd_mm_slot));
}

static void say(int sock, uint16_t type, bool has_fds)
{
	static struct wd_msg m;

	wd_msg_start(&m, type, 1);
	for (int fd = SERVER_FD_FUSE; has_fds && fd < SERVER_FD_FUSE + WD_MSG_FDS; fd++)
		wd_put_fd(&m, fd);
	wd_msg_send(sock, &m, MSG_DONTWAIT);
}

/* True when name was one of these. */
static bool lie(const char *name)
{
	struct iovec junk = {space, sizeof(space)};
	struct msghdr packet = {.msg_iov = &junk, .msg_iovlen = 1};

	if (strcmp(name, "ready-again") == 0)
		say(SERVER_FD_CONTROL, WD_MSG_READY, false);
	else if (strcmp(name, "ready-with-fds") == 0)
		say(SERVER_FD_CONTROL, WD_MSG_READY, true);
	else if (strcmp(name, "mount-please") == 0)
		say(SERVER_FD_CONTROL, WD_MSG_MOUNT, true);
	else if (strcmp(name, "junk-to-keeper") == 0)
		sendmsg(SERVER_FD_CONTROL, &packet, MSG_DONTWAIT);
	else if (strcmp(name, "scribble") == 0)
		scribble();
	else
		return false;
	return true;
}

void misbehave(const char *xattr)
{
	const char *name = xattr + strlen(PREFIX);

	if (strncmp(xattr, PREFIX, strlen(PREFIX)) != 0)
		return;
	wd_info("about to misbehave: %s", name);
	if (strcmp(name, "nothing") == 0 || lie(name))
		return;
#ifdef __x86_64__
	if (strcmp(name, "int80") == 0) {
		wd_error("not stopped: %s", by_another_entry() ? name : "");
		return;
	}
#endif
	for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++) {
		const long *a = attempts[i].args;
		long rc;

		if (strcmp(attempts[i].name, name) != 0)
			continue;
		rc = syscall(attempts[i].number, a[0], a[1], a[2], a[3], a[4], a[5]);
		wd_error("not stopped: %s gave %ld", name, rc);
		return;
	}
	wd_error("no such misdeed: %s", name);
}

const char *misbehave_name(unsigned i)
{
	static const unsigned n = sizeof(attempts) / sizeof(attempts[0]);

#ifdef __x86_64__
	if (i == n)
		return "int80";
#endif
	return i < n ? attempts[i].name : NULL;
}

#endif
