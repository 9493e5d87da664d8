/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See ctl_spawn.h. Nothing is inherited but the standard descriptors and the ready pipe, and of the
 * environment not what may hold the user's credentials.
 */
#include "warm-job/ctl_spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "warm-job/ctl.h"

#define READY_FD 3
#define LOG_KEEP_BYTES (8 << 20)

extern char **environ;

/* "<directory of this program>/<name>" when it is there, else the bare name for PATH. */
static void find_program(const char *name, char out[PATH_MAX])
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n > 0) {
		self[n] = '\0';
		*strrchr(self, '/') = '\0';
		if (snprintf(out, PATH_MAX, "%s/%s", self, name) < PATH_MAX && !access(out, X_OK))
			return;
	}
	snprintf(out, PATH_MAX, "%s", name);
}

static int open_log(const char *path, off_t *ret_offset, struct wd_err *err)
{
	struct stat st;

	if (!stat(path, &st) && st.st_size > LOG_KEEP_BYTES) {
		char old[PATH_MAX];

		snprintf(old, sizeof(old), "%s.old", path);
		rename(path, old);
	}
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	if (fd < 0 || fstat(fd, &st) < 0) {
		int code = errno;

		if (fd >= 0)
			close(fd);
		return wd_err_sys(err, code, "open log '%s'", path);
	}
	*ret_offset = st.st_size;
	return fd;
}

/* The environment without AWS_*: a daemon gets credentials with the mount that they are for, and
 * lives longer than the shell that it was started from. NULL when out of memory. */
static char **clean_environment(void)
{
	size_t n = 0, kept = 0;
	char **clean;

	while (environ && environ[n])
		n++;
	clean = calloc(n + 1, sizeof(*clean));
	for (size_t i = 0; clean && i < n; i++)
		if (strncmp(environ[i], "AWS_", 4) != 0)
			clean[kept++] = environ[i];
	return clean;
}

static int spawn(const char *program, char *const argv[], int log_fd, int ready_fd, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none, all;

	posix_spawn_file_actions_init(&actions);
	/* a daemon must not hold on to the directory that it was started from */
	posix_spawn_file_actions_addchdir_np(&actions, "/");
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, log_fd, 1);
	posix_spawn_file_actions_adddup2(&actions, log_fd, 2);
	posix_spawn_file_actions_adddup2(&actions, ready_fd, READY_FD);
	/* nor on to what the caller's shell has open, on a mount perhaps */
	posix_spawn_file_actions_addclosefrom_np(&actions, READY_FD + 1);

	posix_spawnattr_init(&attr);
	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	posix_spawnattr_setflags(
		&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

	char **clean = clean_environment();
	int code = clean ? posix_spawnp(ret_pid, program, &actions, &attr, argv, clean) : ENOMEM;

	free(clean);

	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return -code;
}

void ctl_spawn_last_words(const char *log_path, off_t offset, char *out, size_t cap)
{
	char tail[8192];
	wd_autoclose int fd = open(log_path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	*out = '\0';
	if (fd < 0 || fstat(fd, &st) < 0)
		return;
	if (st.st_size - offset > (off_t)sizeof(tail) - 1)
		offset = st.st_size - ((off_t)sizeof(tail) - 1);

	ssize_t n = pread(fd, tail, sizeof(tail) - 1, offset);

	if (n <= 0)
		return;
	tail[n] = '\0';

	bool is_error = false;
	char *rest = tail;

	for (char *line = strsep(&rest, "\n"); line; line = strsep(&rest, "\n")) {
		if (!*line)
			continue;

		json_t *object = json_loads(line, 0, NULL);
		const char *level = json_string_value(json_object_get(object, "level"));
		const char *msg = json_string_value(json_object_get(object, "msg"));
		bool is_worse = level && !strcmp(level, "error");

		if (is_worse || !is_error)
			snprintf(out, cap, "%s", msg ? msg : line);
		is_error = is_error || is_worse;
		json_decref(object);
	}
}

int ctl_spawn_describe_death(
	const char *name, const struct ctl_spawned *spawned, int status, struct wd_err *err)
{
	char words[400];
	size_t len = strlen(name);

	ctl_spawn_last_words(spawned->log_path, spawned->log_offset, words, sizeof(words));
	/* "warpdrive-agent: ..." need not be said twice */
	bool is_named = !strncmp(words, name, len) && !strncmp(words + len, ": ", 2);

	if (*words)
		return wd_err_set(err, ECHILD, "%s did not start: %s", name,
			is_named ? words + len + 2 : words);
	if (WIFSIGNALED(status))
		return wd_err_set(err, ECHILD,
			"%s did not start: ended by signal %d: its log is '%s'", name,
			WTERMSIG(status), spawned->log_path);
	return wd_err_set(err, ECHILD,
		"%s did not start: it left with exit code %d: its log is '%s'", name,
		WEXITSTATUS(status), spawned->log_path);
}

int ctl_spawn(const char *const *argv, const char *run_dir, const char *log_name,
	struct ctl_spawned *ret_spawned, struct wd_err *err)
{
	struct ctl_spawned spawned = {.ready_fd = -1};
	char program[PATH_MAX], number[16];
	const char *all[CTL_SPAWN_ARGS_MAX];
	int n = 0, pipe_fds[2];
	int r = ctl_run_path(run_dir, log_name, spawned.log_path, err);

	if (r < 0)
		return r;
	for (; argv[n] && n < CTL_SPAWN_ARGS_MAX - 3; n++)
		all[n] = argv[n];
	if (argv[n])
		return wd_err_set(err, E2BIG, "start %s: too many arguments", argv[0]);
	find_program(argv[0], program);
	snprintf(number, sizeof(number), "%d", READY_FD);
	all[n++] = "--ready-fd";
	all[n++] = number;
	all[n] = NULL;

	wd_autoclose int log_fd = open_log(spawned.log_path, &spawned.log_offset, err);

	if (log_fd < 0)
		return log_fd;
	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return wd_err_sys(err, errno, "start %s", argv[0]);
	r = spawn(program, (char *const *)all, log_fd, pipe_fds[1], &spawned.pid);
	close(pipe_fds[1]);
	if (r < 0) {
		close(pipe_fds[0]);
		return wd_err_sys(
			err, -r, "start '%s' (looked beside this program and in PATH)", argv[0]);
	}
	spawned.ready_fd = pipe_fds[0];
	*ret_spawned = spawned;
	return 0;
}
