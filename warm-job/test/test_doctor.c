/* SPDX-License-Identifier: Apache-2.0 */
/* The doctor's checks of kernel, daemons, cache, origins and leftovers, on machines made of files. */
#include "warm-job/test/doctor_fixture.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#define CHECK(part)                                                                                \
	struct machine *m = *state;                                                                \
	struct doctor *d = &m->d;                                                                  \
	void (*const check)(struct doctor *) = doctor_check_##part

static void a_healthy_node_has_nothing_to_complain_of(void **state)
{
	CHECK(kernel);
	json_t *json;

	check(d);
	doctor_check_daemons(d);
	doctor_check_mounts(d);
	doctor_check_cache(d);
	doctor_check_origins(d);
	doctor_check_leftovers(d);
	if (doctor_count(d, DOCTOR_OK) != d->nfindings)
		doctor_print(d, stderr);
	assert_int_equal(doctor_count(d, DOCTOR_OK), d->nfindings);
	assert_true(d->nfindings > 20);

	json = doctor_to_json(d);
	assert_int_equal(json_integer_value(json_object_get(json, "ok")), d->nfindings);
	assert_int_equal(json_integer_value(json_object_get(json, "failed")), 0);
	assert_int_equal(json_array_size(json_object_get(json, "checks")), d->nfindings);
	json_decref(json);
}

static void texts_of_any_bytes_become_printable(void **state)
{
	CHECK(kernel);
	json_t *json, *first;

	(void)check;
	doctor_note(d, DOCTOR_WARN, "a\nb", NULL, "caf\xc3\xa9 %s", "\xff\x1b[31m");
	json = doctor_to_json(d);
	first = json_array_get(json_object_get(json, "checks"), 0);
	assert_string_equal(json_string_value(json_object_get(first, "subject")), "a?b");
	assert_string_equal(
		json_string_value(json_object_get(first, "finding")), "caf\xc3\xa9 ??[31m");
	json_decref(json);
}

/* ---- kernel ---- */

static void a_missing_device_is_named(void **state)
{
	CHECK(kernel);
	take_away(m, "/dev/fuse");
	check(d);
	assert_only_failure(d, "/dev/fuse", "No such file", "modprobe fuse");
}

static void a_kernel_without_fuse_is_named(void **state)
{
	CHECK(kernel);
	put(m, "/proc/filesystems", "nodev\tproc\nnodev\tfusectl\n\text4\n");
	check(d);
	assert_only_failure(d, "fuse", "not among", "CONFIG_FUSE_FS");
}

static void features_are_what_the_init_offers(void **state)
{
	CHECK(kernel);
	d->probes.init_flags = 0;
	check(d);
	assert_only_warning(d, "passthrough", "does not offer", "CONFIG_FUSE_PASSTHROUGH");
	assert_found(d, DOCTOR_OK, "resend", "not needed", "");
}

static void features_that_cannot_be_tried_are_unknown(void **state)
{
	CHECK(kernel);
	d->probes.init_status = -EPERM;
	check(d);
	assert_found(d, DOCTOR_WARN, "passthrough", "unknown", "as root");
	assert_found(d, DOCTOR_WARN, "resend", "unknown", "as root");
	assert_int_equal(doctor_count(d, DOCTOR_FAIL), 0);
}

static void request_timeouts_of_the_kernel_are_named(void **state)
{
	CHECK(kernel);
	put(m, "/proc/sys/fs/fuse/max_request_timeout", "120\n");
	check(d);
	assert_only_failure(d, "fs.fuse.max_request_timeout", "120 s", "sysctl fs.fuse.max_request_timeout=0");
}

static void older_kernels_without_the_sysctls_are_fine(void **state)
{
	CHECK(kernel);
	take_away(m, "/proc/sys/fs/fuse");
	take_away(m, "/proc/sys/vm");
	check(d);
	assert_int_equal(doctor_count(d, DOCTOR_OK), d->nfindings);
}

static void small_requests_are_a_warning(void **state)
{
	CHECK(kernel);
	put(m, "/proc/sys/fs/fuse/max_pages_limit", "32\n");
	check(d);
	assert_only_warning(d, "fs.fuse.max_pages_limit", "32", "max_pages_limit=256");
}

static void forbidden_memfd_programs_are_no_fault(void **state)
{
	CHECK(kernel);
	put(m, "/proc/sys/vm/memfd_noexec", "2\n");
	d->probes.memfd_exec_status = -EACCES;
	check(d);
	assert_int_equal(doctor_count(d, DOCTOR_OK), d->nfindings);
	assert_found(d, DOCTOR_OK, "memfd programs", "start from files", "");
}

static void a_security_module_that_forbids_memfd_programs_is_a_warning(void **state)
{
	CHECK(kernel);
	d->probes.memfd_exec_status = -EACCES;
	check(d);
	assert_only_warning(d, "memfd programs", "Permission denied", "kernel's log");
}

static void few_open_files_are_named(void **state)
{
	CHECK(kernel);
	put(m, "/proc/100/limits", "Max open files            1024                 4096                files\n");
	check(d);
	assert_only_warning(d, "RLIMIT_NOFILE", "the agent may open only 4096", "LimitNOFILE");
}

static void far_too_few_open_files_fail(void **state)
{
	CHECK(kernel);
	put(m, "/proc/100/limits", "Max open files            256                 256                files\n");
	check(d);
	assert_only_failure(d, "RLIMIT_NOFILE", "only 256", "ulimit");
}

static void no_network_namespaces_means_no_keeper(void **state)
{
	CHECK(kernel);
	put(m, "/proc/sys/user/max_net_namespaces", "0\n");
	check(d);
	assert_only_failure(d, "user.max_net_namespaces", "keeper cannot start", "sysctl");
}

/* ---- daemons ---- */

static void no_answer(struct doctor_answer *answer, int status)
{
	json_decref(answer->json);
	answer->json = NULL;
	answer->status = status;
}

static void a_missing_run_directory_is_named(void **state)
{
	CHECK(daemons);
	take_away(m, "/run/wd");
	no_answer(&d->agent, -ENOENT);
	no_answer(&d->keeper, -ENOENT);
	no_answer(&d->agent_check, -ENOENT);
	check(d);
	assert_found(d, DOCTOR_FAIL, "run directory", "does not exist", "--run-dir");
	assert_found(d, DOCTOR_FAIL, "agent", "does not run: there is no '/run/wd/agent.sock'", "start it");
	assert_found(d, DOCTOR_FAIL, "keeper", "does not run: there is no '/run/wd/keeper.sock'",
		"/run/wd/keeper.log");
}

static void a_run_directory_that_others_may_write_is_named(void **state)
{
	CHECK(daemons);
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/run/wd", m->root);
	assert_int_equal(chmod(path, 0777), 0);
	check(d);
	assert_only_failure(d, "run directory", "mode 0777", "chmod go-w");
}

/* What a dead daemon leaves. */
static void put_socket(const struct machine *m, const char *name, mode_t mode)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/run/wd/%s", m->root, name);
	assert_int_equal(bind(sock, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(chmod(addr.sun_path, mode), 0);
	close(sock);
}

static void a_dead_supervisor_is_a_warning(void **state)
{
	CHECK(daemons);
	put_socket(m, "supervisor.sock", 0600);
	d->supervisor_status = -ECONNREFUSED;
	check(d);
	assert_only_warning(d, "supervisor", "nobody starts agent and keeper", "warpdrive-ctl supervise");
	d->supervisor_status = 0;
	check(d);
	assert_found(d, DOCTOR_OK, "supervisor", "is there", "");
}

static void a_stale_socket_is_told_from_a_missing_one(void **state)
{
	CHECK(daemons);
	put_socket(m, "keeper.sock", 0600);
	no_answer(&d->keeper, -ECONNREFUSED);
	check(d);
	assert_only_failure(d, "keeper", "a dead one left it", "start it");
}

static void a_socket_that_others_may_use_is_named(void **state)
{
	CHECK(daemons);
	put_socket(m, "agent.sock", 0666);
	check(d);
	assert_only_failure(d, "agent", "mode 0666", "chmod 0600");
}

static void something_else_in_a_socket_s_place_is_named(void **state)
{
	CHECK(daemons);
	put(m, "/run/wd/agent.sock", "%s", "");
	check(d);
	assert_only_failure(d, "agent", "is no socket", "move it away");
}

static void a_daemon_that_says_nothing_is_named(void **state)
{
	CHECK(daemons);
	no_answer(&d->agent, -ETIMEDOUT);
	no_answer(&d->agent_check, -ETIMEDOUT);
	check(d);
	assert_only_failure(d, "agent", "no answer in 5 s", "stopped");
}

static void another_release_is_a_warning_and_another_protocol_a_failure(void **state)
{
	CHECK(daemons);
	json_object_set_new(d->keeper.json, "version", json_string("9.9.9"));
	check(d);
	assert_only_warning(d, "versions", "keeper 9.9.9", "upgrade");
	no_answer(&d->keeper, -EPROTONOSUPPORT);
	snprintf(d->keeper.err.msg, sizeof(d->keeper.err.msg), "speaks protocol version 7");
	check(d);
	assert_found(d, DOCTOR_FAIL, "keeper", "protocol version 7", "programs of one release");
}

static void a_keeper_without_its_agent_is_named(void **state)
{
	CHECK(daemons);
	json_object_set_new(d->keeper.json, "agent", json_string("away"));
	check(d);
	assert_only_failure(d, "keeper to agent", "not connected", "start the agent");
}

static void healthz_is_judged_by_its_answer(void **state)
{
	CHECK(daemons);
	d->healthz_status = -ECONNREFUSED;
	check(d);
	assert_only_failure(d, "healthz", "refused", "http-listen");
	d->healthz_status = 503;
	check(d);
	assert_found(d, DOCTOR_FAIL, "healthz", "status 503", "log");
	json_object_set_new(d->agent_check.json, "http_listen", json_string(""));
	check(d);
	assert_found(d, DOCTOR_OK, "healthz", "off", "");
}

static void an_older_agent_that_knows_no_check_is_a_warning(void **state)
{
	CHECK(daemons);
	no_answer(&d->agent_check, -ENOSYS);
	check(d);
	doctor_check_cache(d);
	assert_only_warning(d, "settings", "older", "one release");
}

static void an_agent_whose_disk_hangs_is_named(void **state)
{
	CHECK(daemons);
	no_answer(&d->agent_check, -ETIMEDOUT);
	check(d);
	assert_only_failure(d, "settings", "no answer in 5 s", "disk may hang");
}

/* ---- cache ---- */

static void set_cache(struct doctor *d, const char *key, json_t *value)
{
	json_object_set_new(json_object_get(d->agent_check.json, "cache"), key, value);
}

static void a_cache_that_cannot_be_written_is_named(void **state)
{
	CHECK(cache);
	set_cache(d, "error", json_string("Read-only file system"));
	check(d);
	assert_only_failure(d, "cache directory", "'/cache': Read-only file system", "disk");
}

static void file_systems_that_take_no_passthrough_are_named(void **state)
{
	CHECK(cache);
	set_cache(d, "fs_type", json_string("overlay"));
	check(d);
	assert_only_failure(d, "cache file system", "overlay", "local disk");
}

static void a_cache_behind_the_network_is_a_warning(void **state)
{
	CHECK(cache);
	set_cache(d, "fs_type", json_string("nfs"));
	check(d);
	assert_only_warning(d, "cache file system", "nfs", "local disk");
}

static void a_full_disk_is_named(void **state)
{
	CHECK(cache);
	set_cache(d, "free_bytes", json_integer(900000000));
	check(d);
	assert_only_failure(d, "cache space", "full", "free-space-floor");
}

static void a_disk_that_others_fill_is_a_warning(void **state)
{
	CHECK(cache);
	set_cache(d, "free_bytes", json_integer(2000000000));
	check(d);
	assert_only_warning(d, "cache space", "others fill", "cache-size");
}

static void a_broken_disk_is_named(void **state)
{
	CHECK(cache);
	set_cache(d, "io_errors", json_integer(17));
	check(d);
	assert_only_warning(d, "cache disk", "17 errors", "kernel's log");
	set_cache(d, "is_broken", json_true());
	check(d);
	assert_found(d, DOCTOR_FAIL, "cache disk", "17 so far", "kernel's log");
}

static void an_unclean_restart_is_a_warning(void **state)
{
	CHECK(cache);
	set_cache(d, "was_unclean", json_true());
	check(d);
	assert_only_warning(d, "cache state", "without a clean end", "verified");
}

/* ---- origins ---- */

static void origin_says(struct doctor *d, int status, const char *text)
{
	json_t *origin = json_array_get(d->origins, 0);

	json_object_set_new(origin, "status", json_integer(status));
	json_object_set_new(origin, "text", json_string(text));
}

static void a_refusal_names_the_credentials(void **state)
{
	CHECK(origins);
	origin_says(d, -EACCES, "check 's3://b/d/': HTTP 403 InvalidAccessKeyId");
	check(d);
	assert_only_failure(d, "origin of /data", "HTTP 403", "credentials");
}

static void an_origin_that_is_down_is_named(void **state)
{
	CHECK(origins);
	origin_says(d, -EIO, "check 's3://b/d/': connection refused");
	check(d);
	assert_only_failure(d, "origin of /data", "refused", "that the origin runs");
}

static void an_origin_that_says_nothing_is_named(void **state)
{
	CHECK(origins);
	origin_says(d, -ETIMEDOUT, "no answer in 5 s");
	check(d);
	assert_only_failure(d, "origin of /data", "no answer in 5 s", "firewall");
}

static void a_clock_that_is_off_is_named(void **state)
{
	CHECK(origins);
	json_t *origin = json_array_get(d->origins, 0);

	json_object_set_new(origin, "clock_skew_s", json_integer(45));
	check(d);
	assert_only_warning(d, "clock against origin of /data", "45 s behind", "timedatectl");
	json_object_set_new(origin, "clock_skew_s", json_integer(-1000));
	check(d);
	assert_found(d, DOCTOR_FAIL, "clock against origin of /data", "1000 s ahead", "chrony");
}

/* ---- leftovers ---- */

static void whoever_holds_the_start_lock_is_named(void **state)
{
	CHECK(leftovers);
	char path[PATH_MAX];
	struct stat st;

	snprintf(path, sizeof(path), "%s/run/wd/start.lock", m->root);
	assert_int_equal(stat(path, &st), 0);
	put(m, "/proc/locks",
		"1: POSIX  ADVISORY  WRITE 9 00:01:2 0 EOF\n"
		"2: FLOCK  ADVISORY  WRITE 555 %02x:%02x:%llu 0 EOF\n",
		major(st.st_dev), minor(st.st_dev), (unsigned long long)st.st_ino);
	put_process(m, 555, "warpdrive-ctl", 'S', 0, "0", 0);
	check(d);
	assert_only_warning(d, "start.lock", "warpdrive-ctl, pid 555", "end that process");
}

static void zombies_and_half_made_sockets_are_named(void **state)
{
	CHECK(leftovers);
	put_process(m, 301, "warpdrive-fuse", 'Z', 65534, "0000000000000000", 2);
	put(m, "/run/wd/agent.sock.new", "%s", "");
	check(d);
	assert_found(d, DOCTOR_WARN, "zombie", "pid 301", "harmless");
	assert_found(d, DOCTOR_WARN, "leftover", "agent.sock.new", "harmless");
	assert_int_equal(doctor_count(d, DOCTOR_WARN), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		MACHINE_TEST(a_healthy_node_has_nothing_to_complain_of),
		MACHINE_TEST(texts_of_any_bytes_become_printable),
		MACHINE_TEST(a_missing_device_is_named),
		MACHINE_TEST(a_kernel_without_fuse_is_named),
		MACHINE_TEST(features_are_what_the_init_offers),
		MACHINE_TEST(features_that_cannot_be_tried_are_unknown),
		MACHINE_TEST(request_timeouts_of_the_kernel_are_named),
		MACHINE_TEST(older_kernels_without_the_sysctls_are_fine),
		MACHINE_TEST(small_requests_are_a_warning),
		MACHINE_TEST(forbidden_memfd_programs_are_no_fault),
		MACHINE_TEST(a_security_module_that_forbids_memfd_programs_is_a_warning),
		MACHINE_TEST(few_open_files_are_named),
		MACHINE_TEST(far_too_few_open_files_fail),
		MACHINE_TEST(no_network_namespaces_means_no_keeper),
		MACHINE_TEST(a_missing_run_directory_is_named),
		MACHINE_TEST(a_run_directory_that_others_may_write_is_named),
		MACHINE_TEST(a_dead_supervisor_is_a_warning),
		MACHINE_TEST(a_stale_socket_is_told_from_a_missing_one),
		MACHINE_TEST(a_socket_that_others_may_use_is_named),
		MACHINE_TEST(something_else_in_a_socket_s_place_is_named),
		MACHINE_TEST(a_daemon_that_says_nothing_is_named),
		MACHINE_TEST(another_release_is_a_warning_and_another_protocol_a_failure),
		MACHINE_TEST(a_keeper_without_its_agent_is_named),
		MACHINE_TEST(healthz_is_judged_by_its_answer),
		MACHINE_TEST(an_older_agent_that_knows_no_check_is_a_warning),
		MACHINE_TEST(an_agent_whose_disk_hangs_is_named),
		MACHINE_TEST(a_cache_that_cannot_be_written_is_named),
		MACHINE_TEST(file_systems_that_take_no_passthrough_are_named),
		MACHINE_TEST(a_cache_behind_the_network_is_a_warning),
		MACHINE_TEST(a_full_disk_is_named),
		MACHINE_TEST(a_disk_that_others_fill_is_a_warning),
		MACHINE_TEST(a_broken_disk_is_named),
		MACHINE_TEST(an_unclean_restart_is_a_warning),
		MACHINE_TEST(a_refusal_names_the_credentials),
		MACHINE_TEST(an_origin_that_is_down_is_named),
		MACHINE_TEST(an_origin_that_says_nothing_is_named),
		MACHINE_TEST(a_clock_that_is_off_is_named),
		MACHINE_TEST(whoever_holds_the_start_lock_is_named),
		MACHINE_TEST(zombies_and_half_made_sockets_are_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
