/* SPDX-License-Identifier: Apache-2.0 */
/* Objects: blocks, completion, restarts, faults, damage. */
#include "agent/test/store_fixture.h"

#include <sys/mman.h>

#include "agent/store_internal.h"

static unsigned fds_open(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void a_committed_block_is_present_and_survives_a_restart(void **state)
{
	struct fixture f;
	struct object *o;

	fx_begin(&f, 1024 * MIB);
	o = get(&f, 1, 100 * BLOCK + 17);
	assert_false(object_has_block(o, 3));
	assert_false(has_file(&f, 1, ""));
	assert_int_equal(write_block(o, 1, 3), 0);
	assert_int_equal(write_block(o, 1, 100), 0);
	assert_true(object_has_block(o, 3));
	assert_true(object_has(o, 3 * BLOCK + 5, BLOCK - 5));
	assert_false(object_has(o, 3 * BLOCK + 5, BLOCK));
	assert_true(object_has(o, 100 * BLOCK, 4096)); /* beyond the end: nothing to have */
	assert_int_equal(object_present_bytes(o), BLOCK + 17);
	object_unref(o);
	fx_reopen(&f);
	o = get(&f, 1, 100 * BLOCK + 17);
	assert_int_equal(object_present_bytes(o), BLOCK + 17);
	assert_true(object_has_block(o, 3) && object_has_block(o, 100));
	assert_false(object_has_block(o, 4));
	assert_true(block_is_right(o, 1, 3));
	assert_true(block_is_right(o, 1, 100));
	assert_int_equal(object_verify(o, 3), 0);
	assert_int_equal(object_verify(o, 4), -ENOENT);
	object_unref(o);
	fx_end(&f);
}

static void the_last_block_makes_a_plain_file(void **state)
{
	struct fixture f;
	struct object *small, *large;
	struct object_id id = make_id(1);
	unsigned before;

	fx_begin(&f, 1024 * MIB);
	before = fds_open();
	small = get(&f, 1, 5 * BLOCK - 1);
	large = get(&f, 2, 40 * BLOCK);
	write_all(small, 1);
	write_all(large, 2);
	assert_true(object_is_complete(small) && object_is_complete(large));
	assert_int_equal(fds_open(), before); /* complete objects hold no descriptors */
	assert_int_equal(object_verify(small, 4), 0);
	assert_int_equal(object_verify(large, 39), 0);
	object_unref(small);
	object_unref(large);
	fx_reopen(&f);
	assert_false(has_file(&f, 1, ".map"));
	assert_true(has_file(&f, 2, ".map"));
	small = get(&f, 1, 5 * BLOCK - 1);
	large = get(&f, 2, 40 * BLOCK);
	assert_true(object_is_complete(small) && object_is_complete(large));
	for (uint32_t i = 0; i < 5; i++)
		assert_int_equal(object_verify(small, i), 0);
	for (uint32_t i = 0; i < 40; i++)
		assert_int_equal(object_verify(large, i), 0);
	assert_true(block_is_right(large, 2, 39));
	object_unref(small);
	object_unref(large);
	assert_int_equal(store_evict(f.store, &id), 0);
	id = make_id(2);
	assert_int_equal(store_evict(f.store, &id), 0);
	assert_int_equal(stats_of(&f).used_bytes, 0);
	assert_int_equal(stats_of(&f).objects, 0);
	assert_false(has_file(&f, 2, "") || has_file(&f, 2, ".map") || has_file(&f, 1, ""));
	fx_end(&f);
}

static void a_small_object_is_put_whole(void **state)
{
	struct fixture f;
	struct object *o;

	fx_begin(&f, 1024 * MIB);
	o = get(&f, 1, 3 * BLOCK + 100);
	assert_int_equal(admit(&f, o, 3 * BLOCK + 4096), 0);
	assert_int_equal(put_all(o, 1), 0);
	assert_true(object_is_complete(o));
	assert_int_equal(put_all(o, 1), 0); /* again is fine */
	assert_false(has_file(&f, 1, ".map"));
	assert_int_equal(stats_of(&f).used_bytes, 3 * BLOCK + 4096);
	assert_int_equal(stats_of(&f).admitted_bytes, 0);
	object_unref(o);
	fx_reopen(&f);
	assert_int_equal(stats_of(&f).used_bytes, 3 * BLOCK + 4096);
	o = get(&f, 1, 3 * BLOCK + 100);
	assert_true(object_is_complete(o));
	for (uint32_t i = 0; i < 4; i++)
		assert_true(object_verify(o, i) == 0 && block_is_right(o, 1, i));
	object_unref(o);
	fx_end(&f);
}

static void an_object_put_over_some_of_its_blocks_becomes_complete(void **state)
{
	struct fixture f;
	struct object *o;

	fx_begin(&f, 1024 * MIB);
	o = get(&f, 1, 3 * BLOCK);
	assert_int_equal(write_block(o, 1, 1), 0);
	assert_int_equal(put_all(o, 1), 0);
	assert_true(object_is_complete(o));
	object_unref(o);
	o = get(&f, 2, 20 * BLOCK);
	assert_int_equal(put_all(o, 2), 0);
	assert_true(object_is_complete(o));
	assert_true(block_is_right(o, 2, 19));
	object_unref(o);
	fx_end(&f);
}

static void an_empty_object_is_complete_and_can_be_opened(void **state)
{
	struct fixture f;
	struct object *o;
	struct stat st;
	int fd;

	fx_begin(&f, 1024 * MIB);
	for (int round = 0; round < 3; round++) {
		o = get(&f, 1, 0);
		assert_true(object_is_complete(o));
		assert_true(object_has(o, 0, 4096));
		fd = object_open_file(o, NULL);
		assert_true(fd >= 0);
		assert_int_equal(fstat(fd, &st), 0);
		assert_int_equal(st.st_size, 0);
		close(fd);
		assert_int_equal(object_put(o, "", 0), 0);
		object_unref(o);
		if (round == 0)
			fx_reopen(&f);
	}
	assert_int_equal(stats_of(&f).objects, 1);
	fx_end(&f);
}

static void the_live_map_follows_and_is_sealed(void **state)
{
	struct fixture f;
	struct wd_err err = WD_ERR_INIT;
	const struct wd_livemap *map;
	struct object *o;
	size_t len;
	int fd, again;

	fx_begin(&f, 1024 * MIB);
	o = get(&f, 1, 130 * BLOCK);
	assert_int_equal(write_block(o, 1, 65), 0);
	fd = object_open_map(o, &err);
	assert_true(fd >= 0);
	map = wd_livemap_map(fd, &len, &err);
	if (!map)
		fail_msg("%s", err.msg);
	assert_true(wd_livemap_has(map, 65 * BLOCK, BLOCK));
	assert_false(wd_livemap_has(map, 66 * BLOCK, 1));
	assert_int_equal(write_block(o, 1, 129), 0);
	assert_true(wd_livemap_has(map, 129 * BLOCK, BLOCK));
	assert_ptr_equal(mmap(NULL, len, PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
	assert_true(pwrite(fd, "x", 1, 0) < 0);
	assert_true(ftruncate(fd, 0) < 0);
	again = object_open_map(o, &err);
	assert_true(again >= 0);
	close(again);
	write_all(o, 1);
	assert_true(atomic_load(&map->flags) & WD_LIVEMAP_COMPLETE);
	assert_true(wd_livemap_has(map, 0, 130 * BLOCK));
	/* a complete object has one as well, and says so when a block of it turns out bad */
	again = object_open_map(o, &err);
	assert_true(again >= 0);
	close(again);
	damage(&f, 1, 7);
	assert_int_equal(object_verify(o, 7), -EILSEQ);
	assert_false(wd_livemap_has(map, 7 * BLOCK, 1));
	assert_true(wd_livemap_has(map, 8 * BLOCK, BLOCK));
	assert_int_equal(write_block(o, 1, 7), 0);
	assert_true(wd_livemap_has(map, 0, 130 * BLOCK));
	munmap((void *)map, len);
	close(fd);
	object_unref(o);
	fx_end(&f);
}

static void commit_survives_a_crash_before_the_map_is_written(void **state)
{
	struct fixture f;
	struct object *o;

	fx_begin(&f, 1024 * MIB);
	o = get(&f, 1, 20 * BLOCK);
	assert_int_equal(write_block(o, 1, 0), 0);
	wd_fault_arm("store.map-write=1");
	assert_int_equal(write_block(o, 1, 1), -EIO);
	assert_false(object_has_block(o, 1));
	object_unref(o);
	fx_reopen(&f);
	o = get(&f, 1, 20 * BLOCK);
	assert_true(object_has_block(o, 0));
	assert_false(object_has_block(o, 1));
	assert_int_equal(write_block(o, 1, 1), 0);
	assert_true(block_is_right(o, 1, 1));
	object_unref(o);
	fx_end(&f);
}

static void a_failed_write_leaves_the_block_absent_and_the_disk_suspect(void **state)
{
	struct fixture f;
	struct object *o;

	fx_begin(&f, 1024 * MIB);
	o = get(&f, 1, 20 * BLOCK);
	assert_int_equal(admit(&f, o, BLOCK), 0);
	wd_fault_arm("store.pwrite=1");
	assert_int_equal(write_block(o, 1, 0), -EIO);
	assert_false(object_has_block(o, 0));
	assert_int_equal(stats_of(&f).io_errors, 1);
	assert_true(stats_of(&f).is_broken);
	assert_int_equal(admit(&f, o, BLOCK), -ENOSPC);
	store_unadmit(f.store, o, BLOCK);
	assert_int_equal(stats_of(&f).admitted_bytes > BLOCK, false);
	object_unref(o);
	assert_int_equal(stats_of(&f).admitted_bytes, 0);
	fx_end(&f);
}

static void a_failed_rename_leaves_nothing_behind(void **state)
{
	struct fixture f;
	struct object *o;

	fx_begin(&f, 1024 * MIB);
	o = get(&f, 1, BLOCK);
	wd_fault_arm("store.rename=1");
	assert_int_equal(put_all(o, 1), -EIO);
	assert_false(object_is_complete(o));
	assert_false(has_file(&f, 1, ""));
	assert_int_equal(put_all(o, 1), 0);
	assert_true(block_is_right(o, 1, 0));
	object_unref(o);
	fx_end(&f);
}

static void without_unnamed_files_small_objects_are_renamed(void **state)
{
	struct fixture f;
	struct object *o;
	char path[96];
	int fd;

	fx_begin(&f, 1024 * MIB);
	atomic_store(&f.store->has_no_tmpfile, true);
	o = get(&f, 1, 2 * BLOCK);
	wd_fault_arm("store.rename=1");
	assert_int_equal(put_all(o, 1), -EIO);
	assert_false(has_file(&f, 1, ""));
	assert_int_equal(put_all(o, 1), 0);
	assert_true(block_is_right(o, 1, 1));
	object_unref(o);
	snprintf(path, sizeof(path), "%s/objects/tmp/17", f.dir);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	fx_reopen(&f);
	assert_int_equal(access(path, F_OK), -1); /* swept */
	o = get(&f, 1, 2 * BLOCK);
	assert_int_equal(object_verify(o, 1), 0);
	object_unref(o);
	fx_end(&f);
}

static void what_the_metadata_never_heard_of_is_replaced_or_adopted(void **state)
{
	struct fixture f;
	struct object *o;
	char path[160], map[160], kept[200];
	int fd;

	/* a plain file of unknown origin gives way */
	fx_begin(&f, 1024 * MIB);
	assert_int_equal(add_object(&f, 1, 2 * BLOCK), 0);
	path_of(&f, 1, "", path);
	snprintf(kept, sizeof(kept), "%s.kept", f.dir);
	assert_int_equal(rename(path, kept), 0);
	o = get(&f, 1, 2 * BLOCK);
	assert_true(object_is_complete(o));
	assert_true(object_open_file(o, NULL) < 0); /* noticed here, and begun anew */
	assert_false(object_is_complete(o));
	assert_int_equal(stats_of(&f).used_bytes, 0);
	assert_int_equal(rename(kept, path), 0);
	assert_int_equal(write_block(o, 1, 0), 0);
	assert_int_equal(stats_of(&f).objects, 1);
	object_unref(o);
	assert_true(has_file(&f, 1, ".map"));

	/* a map whose record was lost with the batch is taken up, and checked */
	path_of(&f, 1, ".map", map);
	fx_close(&f);
	snprintf(kept, sizeof(kept), "%s/meta", f.dir);
	remove_tree(AT_FDCWD, kept);
	fx_open(&f);
	assert_int_equal(stats_of(&f).objects, 0);
	o = get(&f, 1, 2 * BLOCK);
	assert_false(object_has_block(o, 0));
	assert_int_equal(object_present_bytes(o), BLOCK);
	assert_int_equal(object_verify(o, 0), 0);
	assert_true(object_has_block(o, 0));
	assert_false(object_has_block(o, 1));
	assert_int_equal(stats_of(&f).objects, 1);
	assert_true(stats_of(&f).used_bytes > BLOCK);
	object_unref(o);

	/* but not without its data */
	fx_close(&f);
	remove_tree(AT_FDCWD, kept);
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	assert_true(fd >= 0);
	close(fd);
	fx_open(&f);
	o = get(&f, 1, 2 * BLOCK);
	assert_false(object_has_block(o, 0));
	assert_false(has_file(&f, 1, ".map"));
	object_unref(o);
	fx_end(&f);
}

static void a_record_without_its_file_reads_as_empty(void **state)
{
	struct fixture f;
	struct object *o;
	char path[160];

	fx_begin(&f, 1024 * MIB);
	assert_int_equal(add_object(&f, 1, BLOCK), 0);
	assert_int_equal(add_object(&f, 2, BLOCK), 0);
	path_of(&f, 1, "", path);
	assert_int_equal(unlink(path), 0);
	path_of(&f, 2, "", path);
	assert_int_equal(truncate(path, 100), 0);
	fx_reopen(&f);
	for (unsigned n = 1; n <= 2; n++) {
		o = get(&f, n, BLOCK);
		assert_false(object_is_complete(o));
		assert_int_equal(object_present_bytes(o), 0);
		assert_int_equal(put_all(o, n), 0);
		object_unref(o);
	}
	assert_int_equal(stats_of(&f).used_bytes, 2 * BLOCK);
	assert_int_equal(stats_of(&f).objects, 2);
	fx_end(&f);
}

static void an_object_of_another_size_takes_the_place(void **state)
{
	struct fixture f;
	struct object *o;
	struct object_id id = make_id(1);
	struct object *other;

	fx_begin(&f, 1024 * MIB);
	assert_int_equal(add_object(&f, 1, BLOCK), 0);
	o = get(&f, 1, 3 * BLOCK);
	assert_false(object_is_complete(o));
	assert_false(has_file(&f, 1, ""));
	assert_int_equal(store_get(f.store, &id, BLOCK, &other, NULL), -EBUSY);
	object_unref(o);
	assert_int_equal(stats_of(&f).used_bytes, 0);
	fx_end(&f);
}

static void a_damaged_block_is_found_and_fetched_anew(void **state)
{
	const uint64_t sizes[] = {4 * BLOCK, 40 * BLOCK};
	struct fixture f;

	fx_begin(&f, 1024 * MIB);
	for (unsigned n = 0; n < 2; n++) {
		uint32_t nblocks = wd_nblocks(sizes[n]);
		struct object *o = get(&f, n, sizes[n]);
		uint64_t used;

		write_all(o, n);
		object_unref(o);
		fx_reopen(&f);
		used = stats_of(&f).used_bytes;
		damage(&f, n, 2);
		o = get(&f, n, sizes[n]);
		assert_true(object_is_complete(o));
		assert_int_equal(object_verify(o, 1), 0);
		assert_int_equal(object_verify(o, 2), -EILSEQ);
		assert_false(object_is_complete(o));
		assert_false(object_has_block(o, 2));
		assert_int_equal(object_present_bytes(o), sizes[n] - BLOCK);
		object_unref(o);
		fx_reopen(&f);
		o = get(&f, n, sizes[n]);
		assert_false(object_has_block(o, 2));
		for (uint32_t i = 0; i < nblocks; i++)
			if (i != 2)
				assert_int_equal(object_verify(o, i), 0);
		assert_int_equal(write_block(o, n, 2), 0);
		assert_true(object_is_complete(o));
		object_unref(o);
		fx_reopen(&f);
		o = get(&f, n, sizes[n]);
		assert_true(object_is_complete(o));
		assert_int_equal(object_verify(o, 2), 0);
		object_unref(o);
		assert_int_equal(stats_of(&f).used_bytes, used);
	}
	fx_end(&f);
}

static uint64_t rss_shmem_kib(void)
{
	FILE *file = fopen("/proc/self/status", "re");
	unsigned long kib = 0;
	char line[256];

	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "RssShmem: %lu", &kib) == 1)
			break;
	fclose(file);
	return kib;
}

static void a_thousand_partial_objects_open_at_once_are_cheap(void **state)
{
	enum { N = 1000 };
	struct object **objects = calloc(N, sizeof(*objects));
	int *fds = calloc(N, sizeof(*fds));
	struct fixture f;
	uint64_t before;

	fx_begin(&f, 1024 * MIB);
	before = rss_shmem_kib();
	for (unsigned i = 0; i < N; i++) {
		objects[i] = get(&f, i, 1024 * MIB);
		assert_int_equal(object_pwrite(objects[i], "x", 1, 0), 0);
		fds[i] = object_open_map(objects[i], NULL);
		assert_true(fds[i] >= 0);
	}
	assert_true(rss_shmem_kib() - before <= N * 4 + 256);
	for (unsigned i = 0; i < N; i++) {
		close(fds[i]);
		object_unref(objects[i]);
	}
	assert_true(rss_shmem_kib() - before <= 256);
	free(objects);
	free(fds);
	fx_end(&f);
}

static bool collect_id(void *arg, const struct object_id *id, uint64_t size, uint64_t present)
{
	unsigned *order = arg;

	for (unsigned n = 1; n <= 4; n++) {
		struct object_id want = make_id(n);

		if (memcmp(&want, id, sizeof(want)) == 0)
			order[++order[0]] = n;
	}
	return true;
}

static void the_scan_is_in_the_order_of_last_use(void **state)
{
	unsigned order[8] = {0};
	struct fixture f;

	fx_begin(&f, 1024 * MIB);
	for (unsigned n = 1; n <= 4; n++)
		assert_int_equal(add_object(&f, n, BLOCK), 0);
	object_unref(get(&f, 2, BLOCK));
	object_unref(get(&f, 1, BLOCK));
	assert_int_equal(store_scan(f.store, collect_id, order), 0);
	assert_int_equal(order[0], 4);
	assert_int_equal(order[1] * 1000 + order[2] * 100 + order[3] * 10 + order[4], 3421);
	fx_reopen(&f);
	order[0] = 0;
	assert_int_equal(store_scan(f.store, collect_id, order), 0);
	assert_int_equal(order[1] * 1000 + order[2] * 100 + order[3] * 10 + order[4], 3421);
	fx_end(&f);
}

static void an_unusable_directory_is_named(void **state)
{
	struct store_config config = {.dir = "/proc/warpdrive-no-such"};
	struct wd_err err = WD_ERR_INIT;
	struct store *s;
	struct fixture f;

	fx_begin(&f, 1024 * MIB);
	assert_true(store_open(&config, f.meta, &s, &err) < 0);
	assert_non_null(strstr(err.msg, config.dir));
	wd_fault_arm("store.pwrite=1");
	config.dir = f.dir;
	err = WD_ERR_INIT;
	assert_int_equal(store_open(&config, f.meta, &s, &err), -EIO);
	assert_non_null(strstr(err.msg, f.dir));
	fx_end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_committed_block_is_present_and_survives_a_restart),
		cmocka_unit_test(the_last_block_makes_a_plain_file),
		cmocka_unit_test(a_small_object_is_put_whole),
		cmocka_unit_test(an_object_put_over_some_of_its_blocks_becomes_complete),
		cmocka_unit_test(an_empty_object_is_complete_and_can_be_opened),
		cmocka_unit_test(the_live_map_follows_and_is_sealed),
		cmocka_unit_test(commit_survives_a_crash_before_the_map_is_written),
		cmocka_unit_test(a_failed_write_leaves_the_block_absent_and_the_disk_suspect),
		cmocka_unit_test(a_failed_rename_leaves_nothing_behind),
		cmocka_unit_test(without_unnamed_files_small_objects_are_renamed),
		cmocka_unit_test(what_the_metadata_never_heard_of_is_replaced_or_adopted),
		cmocka_unit_test(a_record_without_its_file_reads_as_empty),
		cmocka_unit_test(an_object_of_another_size_takes_the_place),
		cmocka_unit_test(a_damaged_block_is_found_and_fetched_anew),
		cmocka_unit_test(a_thousand_partial_objects_open_at_once_are_cheap),
		cmocka_unit_test(the_scan_is_in_the_order_of_last_use),
		cmocka_unit_test(an_unusable_directory_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
