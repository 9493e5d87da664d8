/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Readers that are killed and interrupted: each is a process (this program, as --reader) that checks what it
 * reads until a signal ends it. Whatever it waits for, after SIGKILL or SIGINT it must go; one that handles
 * SIGINT may finish the read that it is in.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "e2e/chaos/load.h"

#define NOT_STARTED 127 /* status of a program whose libraries are not there, as while they are being replaced */
#define GONE_MS 60000 /* a reader that has not gone so long after its signal hangs */
#define READ_MS 60    /* for at most so long it reads */

/* ---- the reader ---- */

static volatile sig_atomic_t is_interrupted;

static void interrupted(int sig)
{
	is_interrupted = 1;
}

static int read_once(const char *path, uint64_t seed, uint32_t file)
{
	static char buf[128 * 1024];
	wd_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);

	for (uint64_t at = 0; fd >= 0 && at < content_size(file) && !is_interrupted; at += sizeof(buf)) {
		ssize_t n = pread(fd, buf, sizeof(buf), (off_t)at);
		uint64_t want = content_size(file) - at < sizeof(buf) ? content_size(file) - at : sizeof(buf);

		if (is_interrupted)
			return 0;
		if (n < 0 || (uint64_t)n != want) {
			fprintf(stderr, "reader: '%s' at %llu: %s\n", path, (unsigned long long)at,
				n < 0 ? strerror(errno) : "short");
			return 4;
		}
		if (content_check(seed, file, at, buf, (size_t)n) >= 0) {
			fprintf(stderr, "reader: '%s' at %llu: wrong bytes\n", path,
				(unsigned long long)at);
			return 3;
		}
	}
	if (fd < 0 && !is_interrupted) {
		fprintf(stderr, "reader: open '%s': %s\n", path, strerror(errno));
		return 4;
	}
	return 0;
}

int reader_main(int argc, char **argv)
{
	struct sigaction sa = {.sa_handler = interrupted};
	uint64_t seed;
	int rc = 0, file;

	if (argc != 6)
		return 2;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	seed = strtoull(argv[3], NULL, 10);
	file = atoi(argv[4]);
	if (strcmp(argv[5], "handles") == 0)
		sigaction(SIGINT, &sa, NULL);
	while (rc == 0 && !is_interrupted)
		rc = read_once(argv[2], seed, (uint32_t)file);
	return rc;
}

/* ---- who kills it ---- */

static pid_t start_reader(struct worker *w, uint32_t file, bool handles)
{
	char self[CHAOS_PATH] = "", below[CONTENT_PATH], path[CHAOS_PATH + CONTENT_PATH], seed[32], number[16];
	const char *const argv[] = {
		self, "--reader", path, seed, number, handles ? "handles" : "plain", NULL};
	struct wd_err err = WD_ERR_INIT;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	pid_t pid;

	self[n > 0 ? n : 0] = '\0';
	content_path(file, below);
	snprintf(path, sizeof(path), "%s/%s", w->chaos->mount, below);
	snprintf(seed, sizeof(seed), "%llu", (unsigned long long)w->chaos->options.seed);
	snprintf(number, sizeof(number), "%u", file);
	pid = program_spawn(w->chaos, argv, "readers.txt", false, &err);
	if (pid < 0)
		chaos_error(w->chaos, "%s", err.msg);
	return pid;
}

/* Waits until the reader is gone, however long that takes: the end of the run frees it. */
static int wait_reader(struct worker *w, pid_t pid, const char *signal_name)
{
	wd_autoclose int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int status = 0, rc;

	atomic_store(&w->reader, pid);
	do
		rc = poll(&p, 1, GONE_MS);
	while (rc < 0 && errno == EINTR);
	if (rc == 0) {
		chaos_error(w->chaos, "a reader of '%s' is still there %d s after %s", w->path, GONE_MS / 1000,
			signal_name);
		proc_print_stack(pid, pid);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	atomic_store(&w->reader, 0);
	return status;
}

void work_killed(struct worker *w)
{
	while (load_goes_on(w)) {
		uint32_t file = load_random(w, 4) ? content_cold(load_random(w, CONTENT_COLD))
						  : content_hot(load_random(w, CONTENT_HOT));
		uint64_t choice = load_random(w, 5), ms = load_random(w, READ_MS);
		bool handles = choice == 4;
		int sig = choice < 3 ? SIGKILL : SIGINT, status;
		const char *signal_name = sig == SIGKILL ? "SIGKILL" : "SIGINT";
		char below[CONTENT_PATH];
		pid_t pid = start_reader(w, file, handles);

		if (pid < 0)
			return;
		nanosleep(&(struct timespec){0, (long)ms * 1000000}, NULL); /* it reads for so long */
		content_path(file, below);
		op_begin(w, sig == SIGKILL ? "SIGKILL a reader of" : "SIGINT a reader of", below, 0);
		kill(pid, sig);
		status = wait_reader(w, pid, signal_name);
		op_end(w, 0);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 3)
			load_wrong(w, "a reader of '%s': see readers.txt", w->path);
		else if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_STARTED)
			chaos_error(w->chaos, "this program cannot be started again; see readers.txt");
		else if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
			chaos_error(w->chaos, "a reader of '%s' left with status %d; see readers.txt", w->path,
				WEXITSTATUS(status));
		else if (WIFSIGNALED(status) && WTERMSIG(status) != sig)
			chaos_error(w->chaos, "a reader of '%s' died of signal %d", w->path,
				WTERMSIG(status));
	}
}
