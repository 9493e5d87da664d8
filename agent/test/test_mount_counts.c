/* SPDX-License-Identifier: Apache-2.0 */
/* What servers count in the tables of a mount becomes the agent's metrics, each event once. */
#include "agent/mount.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/metrics.h"

static struct mount *make_mount(void)
{
	struct mount *mnt = calloc(1, sizeof(*mnt));
	int fd = wd_mm_create(NULL);

	assert_non_null(mnt);
	assert_int_equal(wd_mm_map(fd, &mnt->mm, NULL), 0);
	close(fd);
	return mnt;
}

static void free_mount(struct mount *mnt)
{
	wd_mm_unmap(&mnt->mm);
	free(mnt);
}

static uint64_t printed(const char *line)
{
	char *text = NULL, *at;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	uint64_t value;

	metrics_print(out);
	fclose(out);
	at = strstr(text, line);
	assert_non_null(at);
	value = strtoull(at + strlen(line), NULL, 10);
	free(text);
	return value;
}

static void every_open_and_byte_is_exported_once(void **state)
{
	uint64_t opens = printed("\nwarpdrive_opens_total{mode=\"passthrough\"} ");
	uint64_t cached = printed("\nwarpdrive_opens_total{mode=\"cached\"} ");
	uint64_t local = printed("\nwarpdrive_read_bytes_total{tier=\"local\"} ");
	uint64_t read = printed("\nwarpdrive_server_read_bytes_total ");
	uint64_t hits = printed("\nwarpdrive_cache_hits_total "), hit = printed("\nwarpdrive_cache_hit_bytes_total ");
	struct mount *mnt = make_mount();

	mount_counts_begin(mnt);
	for (int i = 1; i <= 3; i++) {
		wd_mm_add(&mnt->mm, WD_MM_PASSTHROUGH_OPENS, 1);
		wd_mm_add(&mnt->mm, WD_MM_PASSTHROUGH_BYTES, 700000);
		wd_mm_add(&mnt->mm, WD_MM_CACHED_OPENS, 2);
		wd_mm_add(&mnt->mm, WD_MM_READ_BYTES, 4096);
		mount_counts_take(mnt);
		mount_counts_take(mnt);
		assert_int_equal(printed("\nwarpdrive_opens_total{mode=\"passthrough\"} "), opens + i);
		assert_int_equal(printed("\nwarpdrive_opens_total{mode=\"cached\"} "), cached + 2 * i);
		assert_int_equal(printed("\nwarpdrive_read_bytes_total{tier=\"local\"} "), local + 700000 * i);
		assert_int_equal(printed("\nwarpdrive_server_read_bytes_total "), read + 4096 * i);
		assert_int_equal(printed("\nwarpdrive_cache_hits_total "), hits + i);
		assert_int_equal(printed("\nwarpdrive_cache_hit_bytes_total "), hit + 700000 * i);
	}
	free_mount(mnt);
}

static void what_was_before_this_agent_and_what_runs_backwards_is_not_counted(void **state)
{
	uint64_t read = printed("\nwarpdrive_server_read_bytes_total ");
	struct mount *mnt = make_mount();

	wd_mm_add(&mnt->mm, WD_MM_READ_BYTES, 1000);
	mount_counts_begin(mnt);
	mount_counts_take(mnt);
	assert_int_equal(printed("\nwarpdrive_server_read_bytes_total "), read);
	wd_mm_add(&mnt->mm, WD_MM_READ_BYTES, 5);
	mount_counts_take(mnt);
	mnt->mm.header->counts[WD_MM_READ_BYTES] = 3; /* a server that lies */
	mount_counts_take(mnt);
	mnt->mm.header->counts[WD_MM_READ_BYTES] = 1006;
	mount_counts_take(mnt);
	assert_int_equal(printed("\nwarpdrive_server_read_bytes_total "), read + 6);
	free_mount(mnt);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_open_and_byte_is_exported_once),
		cmocka_unit_test(what_was_before_this_agent_and_what_runs_backwards_is_not_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
