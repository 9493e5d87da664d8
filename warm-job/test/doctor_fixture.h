/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_TEST_DOCTOR_FIXTURE_H
#define WD_WARM_JOB_TEST_DOCTOR_FIXTURE_H
/*
 * A machine made of files: a healthy node below a temporary directory, which a test then breaks in
 * one place. Processes: agent 100, keeper 200, server 300; one mount, /data, connection 41.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "warm-job/ctl_doctor.h"

#define INIT_GOOD (1ULL << 37 | 1ULL << 39)

struct machine {
	char root[64];
	struct doctor d;
};

__attribute__((format(printf, 3, 4))) static inline void put(
	const struct machine *m, const char *path, const char *fmt, ...)
{
	char full[PATH_MAX];
	va_list ap;
	FILE *out;

	snprintf(full, sizeof(full), "%s%s", m->root, path);
	for (char *p = full + strlen(m->root) + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		mkdir(full, 0755);
		*p = '/';
	}
	out = fopen(full, "we");
	assert_non_null(out);
	va_start(ap, fmt);
	vfprintf(out, fmt, ap);
	va_end(ap);
	assert_int_equal(fclose(out), 0);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static inline void take_away(const struct machine *m, const char *path)
{
	char full[PATH_MAX];

	snprintf(full, sizeof(full), "%s%s", m->root, path);
	assert_int_equal(nftw(full, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* A process as /proc shows it. */
static inline void put_process(const struct machine *m, int pid, const char *name, char state, int uid,
	const char *caps, int seccomp)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	put(m, path,
		"Name:\t%.15s\nUmask:\t0022\nState:\t%c (whatever)\nTgid:\t%d\nPPid:\t1\n"
		"Uid:\t%d\t%d\t%d\t%d\nCapEff:\t%s\nNoNewPrivs:\t%d\nSeccomp:\t%d\n",
		name, state, pid, uid, uid, uid, uid, caps, seccomp ? 1 : 0, seccomp);
}

/* A /dev/fuse descriptor of that process. */
static inline void put_fuse_fd(const struct machine *m, int pid, int fd, int connection)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", pid, fd);
	put(m, path, "pos:\t0\nflags:\t02100002\nfuse_connection:\t%d\n", connection);
	snprintf(path, sizeof(path), "/proc/%d/fd/x", pid);
	put(m, path, "%s", "");
	snprintf(path, sizeof(path), "%s/proc/%d/fd/%d", m->root, pid, fd);
	assert_int_equal(symlink("/dev/fuse", path), 0);
}

static inline void put_machine(const struct machine *m)
{
	put(m, "/dev/fuse", "%s", "");
	put(m, "/proc/filesystems", "nodev\tproc\n\text4\nnodev\tfuse\n");
	put(m, "/proc/sys/fs/fuse/max_pages_limit", "256\n");
	put(m, "/proc/sys/fs/fuse/default_request_timeout", "0\n");
	put(m, "/proc/sys/fs/fuse/max_request_timeout", "0\n");
	put(m, "/proc/sys/vm/memfd_noexec", "0\n");
	put(m, "/proc/sys/user/max_net_namespaces", "96365\n");
	put(m, "/proc/sys/user/max_user_namespaces", "96365\n");
	put(m, "/proc/locks", "%s", "");
	put(m, "/proc/self/mountinfo",
		"20 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
		"21 20 0:30 / /sys/fs/fuse/connections rw - fusectl fusectl rw\n"
		"22 20 0:41 / /data ro,nosuid,nodev - fuse.warpdrive s3://b/d/ ro,user_id=0\n");
	put(m, "/sys/fs/fuse/connections/41/waiting", "3\n");
	put_process(m, 100, "warpdrive-agent", 'S', 0, "000001ffffffffff", 0);
	put(m, "/proc/100/limits",
		"Limit                     Soft Limit           Hard Limit           Units     \n"
		"Max open files            1024                 65536                files     \n");
	put_process(m, 200, "warpdrive-keeper", 'S', 0, "000001ffffffffff", 0);
	put_process(m, 300, "warpdrive-fuse", 'S', 65534, "0000000000000000", 2);
	put_fuse_fd(m, 200, 7, 41);
	put_fuse_fd(m, 300, 3, 41);
	put(m, "/run/wd/start.lock", "%s", "");
}

static inline json_t *parsed(const char *text)
{
	json_error_t bad;
	json_t *json = json_loads(text, 0, &bad);

	if (!json)
		fail_msg("%s: %s", bad.text, text);
	return json;
}

static inline void replace(json_t **json, const char *text)
{
	json_decref(*json);
	*json = parsed(text);
}

static inline int machine_setup(void **state)
{
	struct machine *m = calloc(1, sizeof(*m));

	snprintf(m->root, sizeof(m->root), "/tmp/wd-doctor-XXXXXX");
	assert_non_null(mkdtemp(m->root));
	m->d = (struct doctor){
		.root = m->root, .run_dir = "/run/wd", .timeout_ms = 5000, .is_root = true};
	m->d.probes.init_flags = INIT_GOOD;
	m->d.healthz_status = 200;
	m->d.supervisor_status = -ENOENT;
	m->d.agent.json = parsed("{\"version\": \"" WD_VERSION "\", \"pid\": 100, \"mounts\": [{\"id\": 5, "
				 "\"target\": \"/data\", \"passthrough\": true, \"state\": \"ready\"}]}");
	m->d.keeper.json = parsed("{\"version\": \"" WD_VERSION "\", \"pid\": 200, \"agent\": \"connected\", "
				  "\"mounts\": [{\"id\": 5, \"target\": \"/data\", \"state\": \"serving\", "
				  "\"server_pid\": 300, \"restarts\": 0, \"device\": \"0:41\"}]}");
	m->d.agent_check.json = parsed(
		"{\"http_listen\": \"127.0.0.1:9842\", \"settings\": \"cache-dir: /cache\\n\", "
		"\"metrics\": \"warpdrive_mounts 1\\n\", \"cache\": {\"dir\": \"/cache\", \"error\": \"\", "
		"\"fs_type\": \"ext4\", \"free_bytes\": 50000000000, \"floor_bytes\": 1000000000, "
		"\"limit_bytes\": 40000000000, \"used_bytes\": 1000, \"io_errors\": 0, "
		"\"is_broken\": false, \"was_unclean\": false}}");
	m->d.origins = parsed("[{\"target\": \"/data\", \"url\": \"s3://b/d/\", \"status\": 0, "
			      "\"text\": \"\", \"clock_skew_s\": 1}]");
	put_machine(m);
	*state = m;
	return 0;
}

static inline int machine_teardown(void **state)
{
	struct machine *m = *state;

	doctor_done(&m->d);
	take_away(m, "");
	free(m);
	return 0;
}

/* There is such a finding; text and remedy are parts of it. */
static inline void assert_found(const struct doctor *d, enum doctor_verdict verdict, const char *subject,
	const char *text, const char *remedy)
{
	for (size_t i = 0; i < d->nfindings; i++) {
		const struct doctor_finding *f = &d->findings[i];

		if (f->verdict == verdict && !strcmp(f->subject, subject) && strstr(f->text, text) &&
			strstr(f->remedy, remedy))
			return;
	}
	doctor_print(d, stderr);
	fail_msg("no finding %d '%s' that says '%s' and '%s'", verdict, subject, text, remedy);
}

/* Nothing but this failed. */
static inline void assert_only_failure(
	const struct doctor *d, const char *subject, const char *text, const char *remedy)
{
	assert_found(d, DOCTOR_FAIL, subject, text, remedy);
	if (doctor_count(d, DOCTOR_FAIL) != 1 || doctor_count(d, DOCTOR_WARN) != 0) {
		doctor_print(d, stderr);
		fail_msg("more is wrong than '%s'", subject);
	}
}

static inline void assert_only_warning(
	const struct doctor *d, const char *subject, const char *text, const char *remedy)
{
	assert_found(d, DOCTOR_WARN, subject, text, remedy);
	if (doctor_count(d, DOCTOR_FAIL) != 0 || doctor_count(d, DOCTOR_WARN) != 1) {
		doctor_print(d, stderr);
		fail_msg("more is wrong than '%s'", subject);
	}
}

#define MACHINE_TEST(name) cmocka_unit_test_setup_teardown(name, machine_setup, machine_teardown)

#endif
