/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What /proc says about our programs. Everything that this program started, directly or not, is its descendant:
 * it is a subreaper, so that even what a daemon left behind stays in sight. No daemon is asked: a stopped or
 * dying one would not answer.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "e2e/chaos/run.h"

/* Reads a small file whole; returns its length, 0 when it cannot be read. */
static size_t slurp(const char *path, char *out, size_t cap)
{
	wd_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t n;

	while (fd >= 0 && len < cap - 1 && (n = read(fd, out + len, cap - 1 - len)) > 0)
		len += (size_t)n;
	out[len] = '\0';
	return len;
}

static enum role role_of(const char *name, const char *second, enum role parent)
{
	if (strcmp(name, "warpdrive-fuse") == 0)
		return ROLE_SERVER;
	if (strcmp(name, "warpdrive-keeper") == 0)
		return parent == ROLE_KEEPER ? ROLE_SERVER : ROLE_KEEPER; /* forked, not yet executed */
	if (strcmp(name, "warpdrive-agent") == 0)
		return ROLE_AGENT;
	if (strcmp(name, "warpdrive-csi") == 0)
		return ROLE_CSI;
	if (strcmp(name, "warpdrive-ctl") == 0 && strcmp(second, "supervise") == 0)
		return ROLE_SUPERVISOR;
	if (strcmp(name, "nginx") == 0 || strcmp(second, "--serve-origin") == 0)
		return ROLE_ORIGIN;
	return ROLE_COUNT;
}

/* False when it is gone. */
static bool describe(pid_t pid, pid_t parent, enum role parent_role, struct process *p)
{
	char path[64], text[4096], *name = text, *second = text, *comm, *end;
	size_t len;

	p->pid = pid;
	p->parent = parent;
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	slurp(path, text, sizeof(text));
	comm = strchr(text, '(');
	end = strrchr(text, ')');
	if (!comm || !end || !end[1])
		return false;
	p->state = end[2];
	*end = '\0';
	snprintf(p->name, sizeof(p->name), "%.60s", comm + 1);
	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	len = slurp(path, text, sizeof(text));
	p->role = ROLE_COUNT;
	if (len == 0)
		return true;
	if (strlen(text) + 1 < len)
		second = text + strlen(text) + 1;
	text[strcspn(text, ":")] = '\0'; /* "nginx: master process" */
	if (strrchr(text, '/'))
		name = strrchr(text, '/') + 1;
	snprintf(p->name, sizeof(p->name), "%.60s", name);
	p->role = role_of(p->name, second, parent_role);
	return true;
}

static size_t children_of(pid_t pid, pid_t *out, size_t max)
{
	char path[300], text[8192], *at, *rest;
	struct dirent *e;
	size_t n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		if (!isdigit((unsigned char)e->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%s/children", (int)pid, e->d_name);
		slurp(path, text, sizeof(text));
		for (rest = text; (at = strsep(&rest, " "));)
			if (*at && n < max)
				out[n++] = (pid_t)atoi(at);
	}
	if (dir)
		closedir(dir);
	return n;
}

static size_t add_below(pid_t pid, enum role role, struct process *out, size_t n, size_t max)
{
	pid_t children[PROCESSES_MAX];
	size_t count = children_of(pid, children, PROCESSES_MAX);

	for (size_t i = 0; i < count && n < max; i++) {
		if (!describe(children[i], pid, role, &out[n]))
			continue;
		n++;
		n = add_below(children[i], out[n - 1].role, out, n, max);
	}
	return n;
}

size_t proc_descendants(struct process *out, size_t max)
{
	return add_below(getpid(), ROLE_COUNT, out, 0, max);
}

uint64_t proc_rss_kib(pid_t pid)
{
	static const char *const fields[] = {"\nRssAnon:", "\nRssShmem:"};
	char path[64], text[8192];
	uint64_t sum = 0;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	slurp(path, text, sizeof(text));
	for (size_t i = 0; i < 2; i++) {
		const char *at = strstr(text, fields[i]);

		sum += at ? strtoull(at + strlen(fields[i]), NULL, 10) : 0;
	}
	return sum;
}

unsigned proc_count_fds(pid_t pid)
{
	char path[64];
	struct dirent *e;
	unsigned n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir && (e = readdir(dir)))
		n += e->d_name[0] != '.';
	if (dir)
		closedir(dir);
	return n;
}

bool proc_has_open(pid_t pid, const char *file)
{
	char path[300], target[300];
	bool is_found = false;
	struct dirent *e;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir && !is_found && (e = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), e->d_name, target, sizeof(target) - 1);

		target[n > 0 ? n : 0] = '\0';
		is_found = strcmp(target, file) == 0;
	}
	if (dir)
		closedir(dir);
	return is_found;
}

void proc_print_stack(pid_t pid, pid_t tid)
{
	static const char *const files[] = {"wchan", "syscall", "stack"};
	char path[96], text[4096];

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", (int)pid, (int)tid, files[i]);
		if (slurp(path, text, sizeof(text)))
			printf("  %s: %s%s", files[i], text, strchr(text, '\n') ? "" : "\n");
	}
}

/* Calls each with the device's minor and the mountpoint of every mount. */
static unsigned for_mounts(const char *dir, bool is_below, unsigned *ret_minor)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[4096], target[2048];
	unsigned minor, count = 0;
	size_t len = strlen(dir);

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%*d %*d %*u:%u %*s %2047s", &minor, target) != 2)
			continue;
		if (strncmp(target, dir, len) != 0 || (target[len] && !(is_below && target[len] == '/')))
			continue;
		count++;
		*ret_minor = minor;
	}
	if (f)
		fclose(f);
	return count;
}

unsigned proc_mount_minor(const char *dir)
{
	unsigned minor = 0;

	for_mounts(dir, false, &minor);
	return minor;
}

unsigned proc_mounts_below(const char *dir)
{
	unsigned minor = 0;

	return for_mounts(dir, true, &minor);
}
