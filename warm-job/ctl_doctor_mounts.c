/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every WarpDrive mount that this mount namespace shows: who looks after it, whether its server
 * lives and is locked in, whether its connection still stands.
 *
 * Whether a mount is dead must be found out without touching it. Its connection lives as long as
 * some process holds the device; /proc/PID/fdinfo names the connection of a /dev/fuse descriptor on
 * newer kernels, and on older ones any such descriptor counts for any mount.
 */
#include "warm-job/ctl_doctor.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FSTYPE "fuse.warpdrive"
#define HOLDERS_MAX 4096

struct holder {
	int64_t connection; /* -1: the kernel does not tell */
	int64_t pid;
	bool is_keeper;
};

struct holders {
	size_t n;
	struct holder list[HOLDERS_MAX];
};

struct seen_mount {
	char target[PATH_MAX];
	char device[32];    /* "0:45" */
	int64_t connection; /* its minor number */
};

/* ---- mountinfo ---- */

/* "\040" is how the kernel writes a space. */
static void unescape(const char *from, char *out, size_t cap)
{
	size_t n = 0;
	unsigned value;

	while (*from && n + 1 < cap) {
		if (*from == '\\' && sscanf(from + 1, "%3o", &value) == 1) {
			out[n++] = (char)value;
			from += 4;
		} else {
			out[n++] = *from++;
		}
	}
	out[n] = '\0';
}

/* One line of mountinfo; false when it is no mount of ours. */
static bool parse_line(char *line, struct seen_mount *ret_mount)
{
	char *fields[6], *rest = line, *type = strstr(line, " - ");
	unsigned major, minor;

	if (!type || strncmp(type + 3, FSTYPE " ", sizeof(FSTYPE)) != 0)
		return false;
	for (int i = 0; i < 6; i++) {
		fields[i] = strsep(&rest, " ");
		if (!fields[i])
			return false;
	}
	if (sscanf(fields[2], "%u:%u", &major, &minor) != 2)
		return false;
	unescape(fields[4], ret_mount->target, sizeof(ret_mount->target));
	snprintf(ret_mount->device, sizeof(ret_mount->device), "%u:%u", major, minor);
	ret_mount->connection = minor;
	return true;
}

/* ---- who holds which connection ---- */

static void add_holders_of(const struct doctor *d, int64_t pid, bool is_keeper, struct holders *h)
{
	char path[PATH_MAX], link[64], text[1024];

	snprintf(path, sizeof(path), "%s/proc/%lld/fd", d->root, (long long)pid);

	DIR *dir = opendir(path);
	const struct dirent *e;

	while (dir && (e = readdir(dir)) && h->n < HOLDERS_MAX) {
		ssize_t n = readlinkat(dirfd(dir), e->d_name, link, sizeof(link) - 1);
		const char *tells;

		if (n <= 0)
			continue;
		link[n] = '\0';
		if (strcmp(link, "/dev/fuse") != 0)
			continue;
		snprintf(path, sizeof(path), "/proc/%lld/fdinfo/%.20s", (long long)pid, e->d_name);
		doctor_read(d, path, text, sizeof(text));
		tells = strstr(text, "fuse_connection:");
		h->list[h->n++] = (struct holder){
			tells ? strtoll(tells + strlen("fuse_connection:"), NULL, 10) : -1, pid,
			is_keeper};
	}
	if (dir)
		closedir(dir);
}

static void find_holders(const struct doctor *d, struct holders *h)
{
	char path[PATH_MAX];

	h->n = 0;
	if (snprintf(path, sizeof(path), "%s/proc", d->root) >= (int)sizeof(path))
		return;

	DIR *dir = opendir(path);
	const struct dirent *e;

	while (dir && (e = readdir(dir))) {
		struct doctor_process p;
		int64_t pid = strtoll(e->d_name, NULL, 10);

		/* our programs alone: nobody else is given these descriptors */
		if (pid > 0 && doctor_process(d, pid, &p) == 0 &&
			!strncmp(p.name, "warpdrive", 9))
			add_holders_of(d, pid, !strcmp(p.name, DOCTOR_KEEPER_COMM), h);
	}
	if (dir)
		closedir(dir);
}

static const struct holder *holder_of(const struct holders *h, int64_t connection)
{
	const struct holder *found = NULL;

	for (size_t i = 0; i < h->n; i++) {
		const struct holder *one = &h->list[i];

		if (one->connection != connection && one->connection != -1)
			continue;
		if (!found || (one->is_keeper && !found->is_keeper))
			found = one;
	}
	return found;
}

/* ---- one mount ---- */

static const json_t *mount_in(const json_t *daemon, const char *key, const char *value)
{
	size_t i;
	json_t *mount;

	json_array_foreach(json_object_get(daemon, "mounts"), i, mount)
	{
		const char *text = json_string_value(json_object_get(mount, key));

		if (text && !strcmp(text, value))
			return mount;
	}
	return NULL;
}

/* Server's pid seems to be of this pid namespace. */
static bool sees_processes(const struct doctor *d)
{
	struct doctor_process p;
	int64_t pid = json_integer_value(json_object_get(d->keeper.json, "pid"));

	return doctor_process(d, pid, &p) == 0 && !strcmp(p.name, DOCTOR_KEEPER_COMM);
}

static void check_jail(struct doctor *d, const char *subject, int64_t pid,
	const struct doctor_process *p)
{
	static const char remedy[] =
		"do not start servers by hand; the keeper takes their privileges away";

	if (p->uid == 0)
		doctor_note(d, DOCTOR_FAIL, subject, remedy, "its server %lld runs as root",
			(long long)pid);
	if (p->caps != 0)
		doctor_note(d, DOCTOR_FAIL, subject, remedy,
			"its server %lld has capabilities (CapEff %llx)", (long long)pid,
			(unsigned long long)p->caps);
	if (p->no_new_privs != 1)
		doctor_note(d, DOCTOR_FAIL, subject, remedy, "its server %lld lacks no_new_privs",
			(long long)pid);
#ifndef WD_SANITIZED /* sanitizers need system calls that the filter forbids, so it is off there */
	if (p->seccomp != 2)
		doctor_note(d, DOCTOR_FAIL, subject, remedy,
			"its server %lld has no seccomp filter", (long long)pid);
#endif
}

/* True when the server is there and runs. */
static bool check_server(struct doctor *d, const char *subject, const json_t *mount)
{
	int64_t pid = json_integer_value(json_object_get(mount, "server_pid"));
	char remedy[PATH_MAX];
	struct doctor_process p;

	snprintf(remedy, sizeof(remedy),
		"the keeper starts another; if that goes on, its log says why: '%s/keeper.log'",
		d->run_dir);
	if (pid <= 0) {
		doctor_note(d, DOCTOR_FAIL, subject, remedy,
			"has no server at the moment, %lld were started after the first",
			(long long)json_integer_value(json_object_get(mount, "restarts")));
		return false;
	}
	if (!sees_processes(d))
		return true;
	if (doctor_process(d, pid, &p) < 0 || p.state == 'Z') {
		doctor_note(d, DOCTOR_FAIL, subject, remedy, "its server %lld is dead",
			(long long)pid);
		return false;
	}
	if (p.state == 'T' || p.state == 't') {
		snprintf(remedy, sizeof(remedy),
			"`kill -CONT %lld`, or `kill -KILL %lld`: the keeper starts another",
			(long long)pid, (long long)pid);
		doctor_note(d, DOCTOR_FAIL, subject, remedy,
			"its server %lld is stopped: all but passthrough reads wait",
			(long long)pid);
		return false;
	}
	check_jail(d, subject, pid, &p);
	return true;
}

/* Its connection as fusectl shows it: waiting requests, -1 where fusectl is not mounted, -2 gone. */
static int64_t requests_waiting(const struct doctor *d, const struct seen_mount *m)
{
	char path[96], full[PATH_MAX];
	struct stat st;
	int64_t n;

	snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%lld/waiting",
		(long long)m->connection);
	if (doctor_read_number(d, path, &n))
		return n;
	/* fusectl has at least this mount's directory when it is mounted */
	snprintf(full, sizeof(full), "%s/sys/fs/fuse/connections/%lld", d->root,
		(long long)m->connection);
	if (stat(full, &st) == 0)
		return -1;

	char list[65536];

	doctor_read(d, "/proc/self/mountinfo", list, sizeof(list));
	return strstr(list, " - fusectl ") ? -2 : -1;
}

static void check_known(struct doctor *d, const struct seen_mount *m, const char *subject,
	const json_t *by_keeper)
{
	const char *state = json_string_value(json_object_get(by_keeper, "state"));
	const json_t *by_agent = mount_in(d->agent.json, "target", m->target);
	int64_t waiting = requests_waiting(d, m);
	size_t before = doctor_count(d, DOCTOR_FAIL);
	char remedy[PATH_MAX + 64], load[64] = "";

	if ((state && !strcmp(state, "lost")) || waiting == -2) {
		snprintf(remedy, sizeof(remedy), "`warpdrive-ctl umount '%s'`, then mount again",
			m->target);
		doctor_note(d, DOCTOR_FAIL, subject, remedy,
			"dead: its connection was aborted, every access fails");
		return;
	}
	check_server(d, subject, by_keeper);
	if (d->agent.json && !by_agent)
		doctor_note(d, DOCTOR_FAIL, subject,
			"the keeper tells it again by itself; its log and the agent's say why not",
			"the agent does not know it: misses wait");
	if (doctor_count(d, DOCTOR_FAIL) != before)
		return;
	if (waiting >= 0)
		snprintf(load, sizeof(load), ", %lld requests under way", (long long)waiting);
	doctor_note(d, DOCTOR_OK, subject, NULL, "%s, server %lld%s%s", state ? state : "known",
		(long long)json_integer_value(json_object_get(by_keeper, "server_pid")),
		json_is_false(json_object_get(by_agent, "passthrough")) ? ", no passthrough" : "",
		load);
}

static void check_unknown(struct doctor *d, const struct seen_mount *m, const char *subject,
	const struct holder *holder)
{
	char remedy[PATH_MAX + 160];

	if (holder && holder->is_keeper) {
		doctor_note(d, DOCTOR_OK, subject, NULL,
			"another keeper's, pid %lld (of another run directory)",
			(long long)holder->pid);
		return;
	}
	if (holder) {
		doctor_note(d, DOCTOR_FAIL, subject,
			"start a keeper in the mount's run directory; it takes the mount over",
			"no keeper looks after it; process %lld still holds it",
			(long long)holder->pid);
		return;
	}
	snprintf(remedy, sizeof(remedy),
		"end what uses it (`grep -l '%s' /proc/*/mountinfo` finds its namespaces), then "
		"`umount '%s'`",
		m->device, m->target);
	if (d->is_root)
		doctor_note(d, DOCTOR_FAIL, subject, remedy,
			"dead: no process holds its connection any more, every access fails");
	else
		doctor_note(d, DOCTOR_WARN, subject, "run as root to see who holds it",
			"not known to the keeper of this run directory");
}

void doctor_check_mounts(struct doctor *d)
{
	struct holders *holders = calloc(1, sizeof(*holders));
	struct seen_mount *m = calloc(1, sizeof(*m));
	size_t cap = 4 << 20, n = 0;
	char *text = malloc(cap), *rest = text;

	if (!holders || !m || !text || doctor_read(d, "/proc/self/mountinfo", text, cap) < 0) {
		doctor_note(d, DOCTOR_WARN, "mounts", "mount /proc",
			"/proc/self/mountinfo cannot be read");
		rest = NULL;
	} else {
		find_holders(d, holders);
	}
	for (char *line = strsep(&rest, "\n"); line; line = strsep(&rest, "\n")) {
		const json_t *by_keeper;
		const char *device;
		char subject[PATH_MAX + 16];

		if (!parse_line(line, m))
			continue;
		n++;
		snprintf(subject, sizeof(subject), "mount %s", m->target);
		by_keeper = mount_in(d->keeper.json, "target", m->target);
		device = json_string_value(json_object_get(by_keeper, "device"));
		if (by_keeper && (!device || !strcmp(device, m->device)))
			check_known(d, m, subject, by_keeper);
		else
			check_unknown(d, m, subject, holder_of(holders, m->connection));
	}
	if (rest == NULL && n == 0 && text)
		doctor_note(d, DOCTOR_OK, "mounts", NULL, "none");
	free(text);
	free(holders);
	free(m);
}
