/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel offers and forbids. Features are tried where that is possible and read from /proc
 * and /sys otherwise; a version number is never looked at.
 */
#include "warm-job/ctl_doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"

/* flags of FUSE's INIT (linux/fuse.h of a new kernel; older headers lack them) */
#define INIT_PASSTHROUGH (1ULL << 37)
#define INIT_HAS_RESEND (1ULL << 39)

/* one partial file takes two descriptors, and every mount and connection some */
#define OPEN_FILES_GOOD 8192
#define OPEN_FILES_LEAST 1024

static void check_device(struct doctor *d)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/dev/fuse", d->root);

	wd_autoclose int fd = open(path, O_RDWR | O_CLOEXEC);
	int code = errno;

	if (fd >= 0)
		doctor_note(d, DOCTOR_OK, "/dev/fuse", NULL, "can be opened");
	else if (code == ENOENT || code == ENXIO || code == ENODEV)
		doctor_note(d, DOCTOR_FAIL, "/dev/fuse",
			"load it with `modprobe fuse`; in a container give it /dev/fuse", "%s",
			strerror(code));
	else
		doctor_note(d, DOCTOR_FAIL, "/dev/fuse",
			d->is_root ? "allow character device 10:229 in the container's device "
				     "cgroup (privileged, or a device plugin)"
				   : "run as root, or make it mode 0666",
			"%s", strerror(code));
}

static void check_filesystem(struct doctor *d)
{
	char text[8192];

	if (doctor_read(d, "/proc/filesystems", text, sizeof(text)) < 0)
		doctor_note(d, DOCTOR_WARN, "fuse", "mount /proc", "/proc/filesystems is missing");
	else if (strstr(text, "\tfuse\n"))
		doctor_note(d, DOCTOR_OK, "fuse", NULL, "the kernel has it");
	else
		doctor_note(d, DOCTOR_FAIL, "fuse", "`modprobe fuse`, or a kernel with CONFIG_FUSE_FS",
			"not among the kernel's file systems");
}

static void check_init(struct doctor *d)
{
	uint64_t flags = d->probes.init_flags;

	if (d->probes.init_status < 0) {
		doctor_note(d, DOCTOR_WARN, "passthrough", "run as root to try it",
			"unknown: what the kernel offers could not be tried: %s",
			strerror(-d->probes.init_status));
		doctor_note(d, DOCTOR_WARN, "resend", "run as root to try it", "unknown, too");
		return;
	}
	if (flags & INIT_PASSTHROUGH)
		doctor_note(d, DOCTOR_OK, "passthrough", NULL, "the kernel offers it");
	else
		doctor_note(d, DOCTOR_WARN, "passthrough",
			"a kernel with CONFIG_FUSE_PASSTHROUGH reads cached files at native speed",
			"the kernel does not offer it: cached files are read through the server");
	if (flags & INIT_HAS_RESEND)
		doctor_note(d, DOCTOR_OK, "resend", NULL, "the kernel offers it");
	else
		doctor_note(d, DOCTOR_OK, "resend", NULL,
			"the kernel does not offer it; not needed: requests are kept in shared "
			"memory until they are answered");
}

static void check_fuse_sysctls(struct doctor *d)
{
	static const char *const timeouts[] = {"default_request_timeout", "max_request_timeout"};
	int64_t n;
	bool is_set = false;

	if (!doctor_read_number(d, "/proc/sys/fs/fuse/max_pages_limit", &n))
		doctor_note(d, DOCTOR_OK, "fs.fuse.max_pages_limit", NULL,
			"not there; the kernel's fixed limit of 256 pages holds");
	else if (n >= 256)
		doctor_note(d, DOCTOR_OK, "fs.fuse.max_pages_limit", NULL, "%lld", (long long)n);
	else
		doctor_note(d, DOCTOR_WARN, "fs.fuse.max_pages_limit",
			"`sysctl fs.fuse.max_pages_limit=256`", "%lld: requests are small and slow",
			(long long)n);
	for (size_t i = 0; i < 2; i++) {
		char path[96], subject[64], remedy[96];

		snprintf(path, sizeof(path), "/proc/sys/fs/fuse/%s", timeouts[i]);
		snprintf(subject, sizeof(subject), "fs.fuse.%s", timeouts[i]);
		snprintf(remedy, sizeof(remedy), "`sysctl %s=0`, then mount again", subject);
		if (!doctor_read_number(d, path, &n) || n == 0)
			continue;
		is_set = true;
		doctor_note(d, DOCTOR_FAIL, subject, remedy,
			"%lld s: the kernel aborts a mount whose origin is slower than that",
			(long long)n);
	}
	if (!is_set)
		doctor_note(d, DOCTOR_OK, "fs.fuse request timeouts", NULL, "none");
}

static void check_memfd(struct doctor *d)
{
	int64_t noexec = 0;
	int status = d->probes.memfd_exec_status;
	bool is_known = doctor_read_number(d, "/proc/sys/vm/memfd_noexec", &noexec);

	if (!is_known)
		doctor_note(d, DOCTOR_OK, "vm.memfd_noexec", NULL, "not there");
	else
		doctor_note(d, DOCTOR_OK, "vm.memfd_noexec", NULL, "%lld%s", (long long)noexec,
			noexec >= 2 ? ": programs travel as files instead" : "");
	if (status == 0)
		doctor_note(d, DOCTOR_OK, "memfd programs", NULL, "a program in memory runs");
	else if (noexec >= 2)
		doctor_note(d, DOCTOR_OK, "memfd programs", NULL,
			"forbidden by vm.memfd_noexec; servers start from files");
	else
		doctor_note(d, DOCTOR_WARN, "memfd programs",
			"look for a security module's denial in the kernel's log",
			"a program in memory does not run (%s): servers start from files",
			strerror(-status));
}

/* "Max open files  SOFT HARD files" of /proc/PID/limits; false when it cannot be read. */
static bool open_files_limit(const struct doctor *d, int64_t pid, long long *ret_hard)
{
	char path[64], text[4096], hard[32];
	const char *line;

	snprintf(path, sizeof(path), "/proc/%lld/limits", (long long)pid);
	if (doctor_read(d, path, text, sizeof(text)) <= 0)
		return false;
	line = strstr(text, "Max open files");
	if (!line || sscanf(line + strlen("Max open files"), " %*s %31s", hard) != 1)
		return false;
	*ret_hard = !strcmp(hard, "unlimited") ? LLONG_MAX : strtoll(hard, NULL, 10);
	return true;
}

static void check_open_files(struct doctor *d)
{
	static const char remedy[] = "raise it: `ulimit -Hn 65536`, LimitNOFILE= of the unit, or the "
				     "container runtime's default";
	json_int_t pid = json_integer_value(json_object_get(d->agent.json, "pid"));
	struct doctor_process p;
	const char *whose = "the agent";
	long long hard;

	if (doctor_process(d, pid, &p) < 0 || strcmp(p.name, "warpdrive-agent") != 0 ||
		!open_files_limit(d, pid, &hard)) {
		whose = "this program";
		if (!open_files_limit(d, getpid(), &hard))
			return;
	}
	if (hard >= OPEN_FILES_GOOD)
		doctor_note(d, DOCTOR_OK, "RLIMIT_NOFILE", NULL, "%s may open %lld files", whose,
			hard);
	else
		doctor_note(d, hard < OPEN_FILES_LEAST ? DOCTOR_FAIL : DOCTOR_WARN, "RLIMIT_NOFILE",
			remedy, "%s may open only %lld files", whose, hard);
}

static void check_namespaces(struct doctor *d)
{
	int64_t n;

	/* the keeper gives its servers an empty network namespace; root needs no user namespace */
	if (doctor_read_number(d, "/proc/sys/user/max_net_namespaces", &n) && n < 1)
		doctor_note(d, DOCTOR_FAIL, "user.max_net_namespaces",
			"`sysctl user.max_net_namespaces=1024`",
			"0: the keeper cannot start: it needs an empty network namespace");
	else
		doctor_note(d, DOCTOR_OK, "user.max_net_namespaces", NULL, "enough");
	if (d->is_root)
		doctor_note(d, DOCTOR_OK, "user.max_user_namespaces", NULL, "not needed by root");
	else if (doctor_read_number(d, "/proc/sys/user/max_user_namespaces", &n) && n < 1)
		doctor_note(d, DOCTOR_WARN, "user.max_user_namespaces",
			"run keeper and agent as root", "0: only root can mount");
	else
		doctor_note(d, DOCTOR_OK, "user.max_user_namespaces", NULL, "enough");
}

void doctor_check_kernel(struct doctor *d)
{
	check_device(d);
	check_filesystem(d);
	check_init(d);
	check_fuse_sysctls(d);
	check_memfd(d);
	check_open_files(d);
	check_namespaces(d);
}
