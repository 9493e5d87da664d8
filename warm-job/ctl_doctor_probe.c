/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tries on the real machine. The INIT is taken from a file system that is made and never attached
 * anywhere (fsopen), so there is no mount that could be left or hang; closing the device ends it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "warm-job/ctl_doctor.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

/* FUSE's INIT on the wire: a header of 40 bytes, then u32 major, minor, max_readahead, flags, flags2 */
#define IN_HEADER 40
#define INIT_EXT (1U << 30)
#define READ_BUFFER 16384 /* the kernel refuses smaller ones than 8 KiB */

#define COPY_MARK "WARPDRIVE_DOCTOR_COPY"

static int make_filesystem(int dev)
{
	char number[16];
	wd_autoclose int fs = fsopen("fuse", FSOPEN_CLOEXEC);

	if (fs < 0)
		return -errno;
	snprintf(number, sizeof(number), "%d", dev);
	if (fsconfig(fs, FSCONFIG_SET_STRING, "fd", number, 0) < 0 ||
		fsconfig(fs, FSCONFIG_SET_STRING, "rootmode", "40000", 0) < 0 ||
		fsconfig(fs, FSCONFIG_SET_STRING, "user_id", "0", 0) < 0 ||
		fsconfig(fs, FSCONFIG_SET_STRING, "group_id", "0", 0) < 0 ||
		fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -errno;
	return wd_steal_fd(&fs);
}

static int read_init(int dev, int timeout_ms, uint64_t *ret_flags)
{
	static unsigned char buf[READ_BUFFER];
	struct pollfd p = {.fd = dev, .events = POLLIN};
	uint32_t flags, flags2 = 0;
	ssize_t n;

	if (poll(&p, 1, timeout_ms) <= 0)
		return -ETIMEDOUT;
	n = read(dev, buf, sizeof(buf));
	if (n < IN_HEADER + 16)
		return n < 0 ? -errno : -EPROTO;
	memcpy(&flags, buf + IN_HEADER + 12, sizeof(flags));
	if ((flags & INIT_EXT) && n >= IN_HEADER + 20)
		memcpy(&flags2, buf + IN_HEADER + 16, sizeof(flags2));
	*ret_flags = flags | (uint64_t)flags2 << 32;
	return 0;
}

static int probe_init(int timeout_ms, uint64_t *ret_flags)
{
	int dev = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	if (dev < 0)
		return -errno;

	int fs = make_filesystem(dev), r = fs < 0 ? fs : read_init(dev, timeout_ms, ret_flags);

	/* the device first: that aborts the connection, and ending the file system asks nobody */
	close(dev);
	if (fs >= 0)
		close(fs);
	return r;
}

/* Runs this very program from memory, silently. */
static int probe_memfd_exec(int timeout_ms)
{
	wd_autoclose int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	wd_autoclose int copy = memfd_create("warpdrive-doctor", MFD_CLOEXEC | MFD_EXEC);
	struct stat st;
	int status = 0;

	/* whatever program this is, its copy must not make a copy again */
	if (getenv(COPY_MARK))
		return -ELOOP;
	if (copy < 0 && errno == EINVAL) /* a kernel without the flag allows it always */
		copy = memfd_create("warpdrive-doctor", MFD_CLOEXEC);
	if (self < 0 || copy < 0 || fstat(self, &st) < 0)
		return -errno;
	for (off_t at = 0; at < st.st_size;) {
		if (sendfile(copy, self, &at, (size_t)(st.st_size - at)) <= 0)
			return errno ? -errno : -EIO;
	}

	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		static char *const argv[] = {"warpdrive-ctl", "help", NULL}, *const env[] = {COPY_MARK "=1", NULL};
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		syscall(SYS_execveat, copy, "", argv, env, AT_EMPTY_PATH);
		_exit(errno == ENOEXEC ? 126 : 127);
	}

	wd_autoclose int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd ended = {.fd = pidfd, .events = POLLIN};

	if (pidfd < 0 || poll(&ended, 1, timeout_ms) <= 0)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0
	       : WIFSIGNALED(status)			     ? -ETIMEDOUT
							     : -EACCES;
}

void doctor_probe(struct doctor_probes *ret_probes, int timeout_ms)
{
	ret_probes->init_status = probe_init(timeout_ms, &ret_probes->init_flags);
	ret_probes->memfd_exec_status = probe_memfd_exec(timeout_ms);
}
