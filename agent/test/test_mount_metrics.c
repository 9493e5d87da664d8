/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a whole agent says of its mounts, and of what their readers found in the cache.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <jansson.h>

#include "agent/test/agent_fixture.h"
#include "agent/test/exposition.h"

static struct rig rig;
static struct wd_msg msg;

static int start(void **state)
{
	rig_start(&rig, "small-object-size=0", "prefetch=off", NULL);
	rig_file(&rig, "a/one", 600000);
	return 0;
}

static int stop(void **state)
{
	rig_stop(&rig);
	return 0;
}

/* The whole text; the caller frees it. */
static char *scrape(void)
{
	struct wd_err err = WD_ERR_INIT;
	char path[128];
	json_t *root;
	char *text;
	int sock, fd;

	snprintf(path, sizeof(path), "%s/run/agent.sock", rig.dir);
	sock = wd_client_connect(path, WD_ROLE_CTL, &err);
	assert_true(sock >= 0);
	wd_msg_start(&msg, WD_MSG_CHECK, 1);
	wd_put_u64(&msg, 0);
	assert_int_equal(wd_client_call(sock, &msg, -1, &err), 0);
	fd = wd_msg_take_fd(&msg, 0);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	root = json_loadfd(fd, 0, NULL);
	text = strdup(json_string_value(json_object_get(root, "metrics")));
	json_decref(root);
	close(fd);
	close(sock);
	return text;
}

static uint64_t value(const char *sample)
{
	char *text = scrape();
	uint64_t v = exposed_in(text, sample);

	free(text);
	return v;
}

static void a_mounts_series_come_and_go_with_it(void **state)
{
	struct rig_mount m, other;
	char *text;

	rig_mount(&rig, &m, 0x1a, "a", "");
	rig_mount(&rig, &other, 0x1b, "a", ""); /* on the same target: series of its own */
	assert_int_equal(value("warpdrive_mounts"), 2);
	assert_int_equal(value("warpdrive_mount_open_files{mount=\"1a\",target=\"/nowhere\",pod=\"\"}"), 0);
	assert_int_equal(value("warpdrive_mount_is_ill{mount=\"1b\",target=\"/nowhere\",pod=\"\"}"), 0);
	rig_umount(&m);
	text = scrape();
	assert_null(strstr(text, "mount=\"1a\""));
	assert_non_null(strstr(text, "mount=\"1b\""));
	free(text);
	rig_umount(&other);
	text = scrape();
	assert_null(strstr(text, "mount=\"1b\""));
	free(text);
}

static void an_open_misses_what_is_not_cached_and_hits_what_is(void **state)
{
	struct rig_mount m, again;

	rig_mount(&rig, &m, 0x2a, "a", "");
	assert_int_equal(rig_read(&m, &msg, RIG_ROOT, "one", "a/one"), 0);
	assert_int_equal(value("warpdrive_cache_misses_total"), 1);
	assert_int_equal(value("warpdrive_cache_miss_bytes_total"), 600000);
	assert_int_equal(value("warpdrive_cache_hits_total"), 0);
	assert_int_equal(value("warpdrive_mount_opens_total{mount=\"2a\",target=\"/nowhere\",pod=\"\"}"), 1);
	assert_int_equal(value("warpdrive_mount_miss_bytes_total{mount=\"2a\",target=\"/nowhere\",pod=\"\"}"), 600000);
	/* one read of 256 KiB and more was waited for, by whoever came first to each block */
	assert_true(value("warpdrive_read_wait_seconds_count") >= 3);
	assert_true(value("warpdrive_origin_fetch_seconds_count{origin=\"file\"}") >= 1);

	rig_mount(&rig, &again, 0x2b, "a", "");
	assert_int_equal(rig_read(&again, &msg, RIG_ROOT, "one", "a/one"), 0);
	assert_int_equal(value("warpdrive_cache_hits_total"), 1);
	assert_int_equal(value("warpdrive_cache_hit_bytes_total"), 600000);
	assert_int_equal(value("warpdrive_cache_misses_total"), 1);
	assert_int_equal(
		value("warpdrive_mount_passthrough_bytes_total{mount=\"2b\",target=\"/nowhere\",pod=\"\"}"), 600000);
	rig_umount(&m);
	rig_umount(&again);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_mounts_series_come_and_go_with_it),
		cmocka_unit_test(an_open_misses_what_is_not_cached_and_hits_what_is),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
