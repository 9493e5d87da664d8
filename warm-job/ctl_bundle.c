/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See ctl_bundle.h. What goes in is a list, not "all that can be found": an archive that somebody
 * mails must not surprise its sender.
 */
#include "warm-job/ctl_bundle.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "warm-job/ctl_scrub.h"
#include "warm-job/ctl_tar.h"

#define LOG_TAIL (1 << 20)

/* Takes text (freed here; NULL: out of memory). */
static int add_text(int tar, const char *name, char *text, size_t len, struct wd_err *err)
{
	char member[100];
	int r;

	if (!text)
		return wd_err_sys(err, ENOMEM, "bundle");
	snprintf(member, sizeof(member), "warpdrive-doctor/%s", name);
	ctl_scrub(text, len);
	r = ctl_tar_add(tar, member, text, len, err);
	free(text);
	return r;
}

static int add_json(int tar, const char *name, const json_t *json, struct wd_err *err)
{
	char *text;

	if (!json)
		return 0;
	text = json_dumps(json, JSON_INDENT(2));
	return add_text(tar, name, text, text ? strlen(text) : 0, err);
}

static int add_report(int tar, const struct doctor *d, struct wd_err *err)
{
	json_t *json = doctor_to_json(d);
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	int r;

	if (out) {
		doctor_print(d, out);
		fclose(out);
	}
	r = add_text(tar, "report.txt", text, len, err);
	if (r == 0)
		r = add_json(tar, "report.json", json, err);
	json_decref(json);
	return r;
}

/* Metrics and settings are texts inside the agent's answer; they become files of their own. */
static int add_agent_check(int tar, const struct doctor *d, struct wd_err *err)
{
	static const char *const keys[][2] = {
		{"metrics", "metrics.txt"}, {"settings", "settings.yaml"}};
	json_t *rest;
	int r = 0;

	if (!d->agent_check.json)
		return 0;
	rest = json_copy(d->agent_check.json);
	for (size_t i = 0; i < 2 && r == 0; i++) {
		const char *text = json_string_value(json_object_get(rest, keys[i][0]));

		if (text)
			r = add_text(tar, keys[i][1], strdup(text), strlen(text), err);
		json_object_del(rest, keys[i][0]);
	}
	if (r == 0)
		r = add_json(tar, "agent-check.json", rest, err);
	json_decref(rest);
	return r;
}

/* The last part of a log, from a line's start; 0 when there is none. */
static int add_log(int tar, const struct doctor *d, const char *name, struct wd_err *err)
{
	char path[PATH_MAX], member[64];
	struct stat st;

	if (snprintf(path, sizeof(path), "%s%s/%s", d->root, d->run_dir, name) >= (int)sizeof(path))
		return 0;

	wd_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return 0;

	off_t from = st.st_size > LOG_TAIL ? st.st_size - LOG_TAIL : 0;
	wd_autofree char *text = malloc(LOG_TAIL);
	ssize_t n = text ? pread(fd, text, LOG_TAIL, from) : 0;
	/* a cut line could show half a URL, whose user info is not seen any more */
	char *line = from > 0 && n > 0 ? memchr(text, '\n', (size_t)n) : NULL;
	size_t skip = line ? (size_t)(line + 1 - text) : 0;

	if (n <= 0 || (from > 0 && !line))
		return 0;
	snprintf(member, sizeof(member), "logs/%s", name);
	memmove(text, text + skip, (size_t)n - skip);
	return add_text(tar, member, wd_steal_ptr(text), (size_t)n - skip, err);
}

static void print_file(FILE *out, const struct doctor *d, const char *path)
{
	char text[4096];

	if (doctor_read(d, path, text, sizeof(text)) > 0)
		fprintf(out, "== %s\n%s\n", path, text);
}

static void print_kernel(FILE *out, const struct doctor *d)
{
	static const char *const files[] = {"/etc/os-release", "/proc/sys/fs/fuse/max_pages_limit",
		"/proc/sys/fs/fuse/default_request_timeout", "/proc/sys/fs/fuse/max_request_timeout",
		"/proc/sys/vm/memfd_noexec", "/proc/sys/user/max_user_namespaces",
		"/proc/sys/user/max_net_namespaces", "/proc/meminfo", "/proc/pressure/io",
		"/proc/pressure/memory", "/proc/loadavg"};
	struct utsname u;

	if (uname(&u) == 0)
		fprintf(out, "== uname\n%s %s %s %s\n\n", u.sysname, u.release, u.version, u.machine);
	fprintf(out, "== INIT\nstatus %d, flags %#llx\n\n", d->probes.init_status,
		(unsigned long long)d->probes.init_flags);
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		print_file(out, d, files[i]);
}

static void print_mountinfo(FILE *out, const struct doctor *d)
{
	size_t cap = 4 << 20;
	wd_autofree char *text = malloc(cap);
	char *rest = text;

	if (!text || doctor_read(d, "/proc/self/mountinfo", text, cap) < 0)
		return;
	for (char *line = strsep(&rest, "\n"); line; line = strsep(&rest, "\n")) {
		if (strstr(line, " - fuse.warpdrive "))
			fprintf(out, "%s\n", line);
	}
}

static int add_printed(int tar, const struct doctor *d, const char *name,
	void (*print)(FILE *out, const struct doctor *d), struct wd_err *err)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	if (out) {
		print(out, d);
		fclose(out);
	}
	return add_text(tar, name, text, len, err);
}

static int add_all(int tar, const struct doctor *d, struct wd_err *err)
{
	static const char *const logs[] = {"agent.log", "keeper.log", "supervisor.log",
		"warpdrive-agent.log", "warpdrive-keeper.log"};
	int r = add_report(tar, d, err);

	if (r == 0)
		r = add_json(tar, "agent-status.json", d->agent.json, err);
	if (r == 0)
		r = add_json(tar, "keeper-status.json", d->keeper.json, err);
	if (r == 0)
		r = add_json(tar, "origins.json", d->origins, err);
	if (r == 0)
		r = add_agent_check(tar, d, err);
	if (r == 0)
		r = add_printed(tar, d, "kernel.txt", print_kernel, err);
	if (r == 0)
		r = add_printed(tar, d, "mountinfo.txt", print_mountinfo, err);
	for (size_t i = 0; i < sizeof(logs) / sizeof(logs[0]) && r == 0; i++)
		r = add_log(tar, d, logs[i], err);
	return r;
}

int ctl_bundle_write(const struct doctor *d, const char *path, struct wd_err *err)
{
	int tar = ctl_tar_create(path, err), r, end;

	if (tar < 0)
		return tar;
	r = add_all(tar, d, err);
	end = ctl_tar_finish(tar, r == 0 ? err : NULL);
	r = r < 0 ? r : end;
	if (r < 0)
		unlink(path);
	return r;
}
