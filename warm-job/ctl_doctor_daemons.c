/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The run directory, the daemons behind its sockets, their versions, and what dead ones left.
 */
#include "warm-job/ctl_doctor.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define SECOND_LOOK_MS 200

static const char *version_of(const struct doctor_answer *answer)
{
	const char *version = json_string_value(json_object_get(answer->json, "version"));

	return version ? version : "unknown";
}

/* lstat below the root. */
static int look(const struct doctor *d, const char *name, char path[PATH_MAX], struct stat *ret_st)
{
	if (snprintf(path, PATH_MAX, "%s%s%s%s", d->root, d->run_dir, *name ? "/" : "", name) >=
		PATH_MAX)
		return -ENAMETOOLONG;
	return lstat(path, ret_st) < 0 ? -errno : 0;
}

static bool check_run_dir(struct doctor *d)
{
	char path[PATH_MAX];
	struct stat st;
	int r = look(d, "", path, &st);

	if (r == -ENOENT)
		doctor_note(d, DOCTOR_FAIL, "run directory",
			"`warpdrive-ctl mount` makes it; --run-dir names another",
			"'%s' does not exist: no daemon ever ran here", d->run_dir);
	else if (r < 0)
		doctor_note(d, DOCTOR_FAIL, "run directory", "run as root", "'%s': %s", d->run_dir,
			strerror(-r));
	else if (S_ISLNK(st.st_mode))
		return true; /* where it points to is the operator's word */
	else if (!S_ISDIR(st.st_mode))
		doctor_note(d, DOCTOR_FAIL, "run directory", "move it away",
			"'%s' is no directory", d->run_dir);
	else if (st.st_mode & (S_IWGRP | S_IWOTH))
		doctor_note(d, DOCTOR_FAIL, "run directory", "`chmod go-w` it",
			"'%s' has mode %04o: others may put a socket of their own there",
			d->run_dir, (unsigned)(st.st_mode & 07777));
	else
		doctor_note(d, DOCTOR_OK, "run directory", NULL, "'%s', mode %04o, owner %u",
			d->run_dir, (unsigned)(st.st_mode & 07777), (unsigned)st.st_uid);
	return r == 0 && S_ISDIR(st.st_mode);
}

static void check_socket_file(
	struct doctor *d, const char *subject, const char *name, bool *ret_is_there)
{
	char path[PATH_MAX];
	struct stat st;

	*ret_is_there = look(d, name, path, &st) == 0;
	if (!*ret_is_there)
		return;
	if (!S_ISSOCK(st.st_mode))
		doctor_note(d, DOCTOR_FAIL, subject, "move it away and restart the daemon",
			"'%s/%s' is no socket", d->run_dir, name);
	else if (st.st_mode & (S_IRWXG | S_IRWXO))
		doctor_note(d, DOCTOR_FAIL, subject, "`chmod 0600` it",
			"'%s/%s' has mode %04o: others may give orders", d->run_dir, name,
			(unsigned)(st.st_mode & 07777));
}

static void check_daemon(struct doctor *d, const char *what, const char *socket_name,
	const char *log_name, const struct doctor_answer *answer)
{
	char remedy[PATH_MAX + 128];
	bool is_there;

	check_socket_file(d, what, socket_name, &is_there);
	if (answer->status == 0) {
		doctor_note(d, DOCTOR_OK, what, NULL, "answers, version %s, pid %lld",
			version_of(answer),
			(long long)json_integer_value(json_object_get(answer->json, "pid")));
		return;
	}
	snprintf(remedy, sizeof(remedy),
		"start it: `warpdrive-ctl mount` does, or the node's DaemonSet or unit; its log is "
		"'%s/%s'",
		d->run_dir, log_name);
	if (answer->status == -ENOENT && !is_there) {
		doctor_note(d, DOCTOR_FAIL, what, remedy, "does not run: there is no '%s/%s'",
			d->run_dir, socket_name);
	} else if (answer->status == -ECONNREFUSED || answer->status == -ENOENT) {
		doctor_note(d, DOCTOR_FAIL, what, remedy,
			"does not run: nobody listens behind '%s/%s', a dead one left it",
			d->run_dir, socket_name);
	} else if (answer->status == -ETIMEDOUT) {
		snprintf(remedy, sizeof(remedy),
			"see whether it is stopped or waits for a disk (`ps -o pid,stat,wchan -C "
			"warpdrive-%s`); its log is '%s/%s'",
			what, d->run_dir, log_name);
		doctor_note(d, DOCTOR_FAIL, what, remedy, "no answer in %d s",
			d->timeout_ms / 1000);
	} else {
		doctor_note(d, DOCTOR_FAIL, what,
			answer->status == -EACCES	      ? "run as root, or as the daemon's user"
			: answer->status == -EPROTONOSUPPORT ? "use programs of one release"
							     : remedy,
			"%s", answer->err.msg);
	}
}

/* Only private daemons have one. */
static void check_supervisor(struct doctor *d)
{
	bool is_there;

	check_socket_file(d, "supervisor", "supervisor.sock", &is_there);
	if (!is_there || d->supervisor_status == -ENOENT)
		doctor_note(d, DOCTOR_OK, "supervisor", NULL, "none: something else looks after the daemons");
	else if (d->supervisor_status == 0)
		doctor_note(d, DOCTOR_OK, "supervisor", NULL, "is there");
	else if (d->supervisor_status == -ECONNREFUSED)
		doctor_note(d, DOCTOR_WARN, "supervisor",
			"`warpdrive-ctl mount` starts another, or `warpdrive-ctl supervise`",
			"dead: nobody starts agent and keeper again when they die");
	else
		doctor_note(d, DOCTOR_WARN, "supervisor", "run as root", "%s",
			strerror(-d->supervisor_status));
}

static void check_versions(struct doctor *d)
{
	const char *agent = version_of(&d->agent), *keeper = version_of(&d->keeper);

	if (!d->agent.json || !d->keeper.json)
		return;
	if (!strcmp(agent, keeper) && !strcmp(agent, WD_VERSION))
		doctor_note(d, DOCTOR_OK, "versions", NULL, "all %s", WD_VERSION);
	else
		doctor_note(d, DOCTOR_WARN, "versions", "finish the upgrade, or take it back",
			"agent %s, keeper %s, this program %s", agent, keeper, WD_VERSION);
}

static void check_link(struct doctor *d)
{
	const char *agent = json_string_value(json_object_get(d->keeper.json, "agent"));

	if (!agent)
		return;
	if (!strcmp(agent, "connected"))
		doctor_note(d, DOCTOR_OK, "keeper to agent", NULL, "connected");
	else
		doctor_note(d, DOCTOR_FAIL, "keeper to agent",
			"start the agent in the same run directory; the keeper connects by itself",
			"not connected: nothing can be mounted, and misses wait");
}

static void check_http(struct doctor *d)
{
	const char *address =
		json_string_value(json_object_get(d->agent_check.json, "http_listen"));

	if (!d->agent_check.json)
		return;
	if (!address || !*address)
		doctor_note(d, DOCTOR_OK, "healthz", NULL, "http-listen is off");
	else if (d->healthz_status == 200)
		doctor_note(d, DOCTOR_OK, "healthz", NULL, "http://%s/healthz answers", address);
	else if (d->healthz_status == -ETIMEDOUT)
		doctor_note(d, DOCTOR_FAIL, "healthz", "look at the agent's log",
			"http://%s/healthz: no answer in %d s", address, d->timeout_ms / 1000);
	else if (d->healthz_status < 0)
		doctor_note(d, DOCTOR_FAIL, "healthz",
			"from another network namespace or host name http-listen's address",
			"http://%s/healthz: %s", address, strerror(-d->healthz_status));
	else
		doctor_note(d, DOCTOR_FAIL, "healthz", "look at the agent's log",
			"http://%s/healthz answers with status %d", address, d->healthz_status);
}

static void check_settings(struct doctor *d)
{
	if (d->agent.status < 0)
		return;
	if (d->agent_check.json)
		doctor_note(d, DOCTOR_OK, "settings", NULL, "readable, the agent tells them");
	else if (d->agent_check.status == -ENOSYS)
		doctor_note(d, DOCTOR_WARN, "settings", "use programs of one release",
			"the agent is older than this program: cache and origins are not checked");
	else if (d->agent_check.status == -ETIMEDOUT)
		doctor_note(d, DOCTOR_FAIL, "settings",
			"its cache disk may hang: look at the kernel's log",
			"the agent's look at itself and its cache disk: no answer in %d s",
			d->timeout_ms / 1000);
	else
		doctor_note(d, DOCTOR_FAIL, "settings", "look at the agent's log", "%s",
			d->agent_check.err.msg);
}

void doctor_check_daemons(struct doctor *d)
{
	check_run_dir(d);
	check_daemon(d, "agent", "agent.sock", "agent.log", &d->agent);
	check_daemon(d, "keeper", "keeper.sock", "keeper.log", &d->keeper);
	check_supervisor(d);
	check_versions(d);
	check_link(d);
	check_settings(d);
	check_http(d);
}

/* ---- leftovers ---- */

/* Who holds start.lock, from /proc/locks: a pid, 0 for nobody. */
static int64_t lock_holder(const struct doctor *d)
{
	char path[PATH_MAX], text[32768], wanted[64];
	struct stat st;

	if (look(d, "start.lock", path, &st) < 0 ||
		doctor_read(d, "/proc/locks", text, sizeof(text)) <= 0)
		return 0;
	snprintf(wanted, sizeof(wanted), "%02x:%02x:%llu", major(st.st_dev), minor(st.st_dev),
		(unsigned long long)st.st_ino);
	/* 1: FLOCK  ADVISORY  WRITE 1234 fe:01:5678 0 EOF */
	for (char *line = text; line; line = strchr(line, '\n')) {
		char where[64];
		long long pid;

		line += *line == '\n';
		if (sscanf(line, "%*s FLOCK %*s %*s %lld %63s", &pid, where) == 2 &&
			!strcmp(where, wanted))
			return pid;
	}
	return 0;
}

static void check_lock(struct doctor *d)
{
	int64_t pid = lock_holder(d);
	struct doctor_process p;

	if (pid <= 0)
		doctor_note(d, DOCTOR_OK, "start.lock", NULL, "nobody holds it");
	else if (doctor_process(d, pid, &p) == 0)
		doctor_note(d, DOCTOR_WARN, "start.lock",
			"fine while a mount is under way; else end that process",
			"held by %s, pid %lld: other mounts wait", p.name, (long long)pid);
	else
		doctor_note(d, DOCTOR_WARN, "start.lock", "fine while a mount is under way",
			"held by pid %lld, which is not seen from here", (long long)pid);
}

static void check_zombies(struct doctor *d)
{
	char path[PATH_MAX];
	unsigned n = 0;

	if (snprintf(path, sizeof(path), "%s/proc", d->root) >= (int)sizeof(path))
		return;

	DIR *dir = opendir(path);
	const struct dirent *e;

	while (dir && (e = readdir(dir))) {
		struct doctor_process p;
		int64_t pid = strtoll(e->d_name, NULL, 10);

		if (pid <= 0 || doctor_process(d, pid, &p) < 0 || p.state != 'Z' ||
			strncmp(p.name, "warpdrive-", 10) != 0)
			continue;
		/* one that ends this moment is a zombie, too: its parent gets a moment */
		poll(NULL, 0, SECOND_LOOK_MS);
		if (doctor_process(d, pid, &p) < 0 || p.state != 'Z')
			continue;
		n++;
		doctor_note(d, DOCTOR_WARN, "zombie", p.parent == 1 ? "harmless; the first process of this container "
					"should reap: give it an init"
				      : "harmless; goes when its parent ends",
			"%s, pid %lld, is dead and not reaped by its parent %d", p.name,
			(long long)pid, p.parent);
	}
	if (dir)
		closedir(dir);
	if (n == 0)
		doctor_note(d, DOCTOR_OK, "zombies", NULL, "none");
}

void doctor_check_leftovers(struct doctor *d)
{
	static const char *const names[] = {"agent.sock.new", "keeper.sock.new"};

	for (size_t i = 0; i < 2; i++) {
		char path[PATH_MAX];
		struct stat st;

		if (look(d, names[i], path, &st) == 0)
			doctor_note(d, DOCTOR_WARN, "leftover",
				"harmless: the daemon's next start removes it",
				"'%s/%s' was left by a start that was killed", d->run_dir, names[i]);
	}
	check_lock(d);
	check_zombies(d);
}
