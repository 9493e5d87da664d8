/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What people are told of a fault of the cache: one line that names what it is about and why, at the first of
 * many reads, and a counter. That bytes and results are right has tests of its own (test_store*, test_meta*).
 */
#include "agent/test/store_fixture.h"

#include <sys/wait.h>

#include "agent/cache_metrics.h"
#include "agent/store_internal.h"
#include "agent/test/exposition.h"
#include "agent/test/log_capture.h"

#define SMALL (4 * BLOCK + 100)
#define LARGE (40 * BLOCK)
#define NEVER_MS 86400000 /* no probe ends a fault while it is looked at */

struct row {
	char subject[80]; /* the cache, as the log names it */
	struct fixture f;
};

static void row_begin(struct row *r)
{
	fx_begin(&r->f, 1024 * MIB);
	fx_close(&r->f);
	r->f.config.probe_interval_ms = NEVER_MS;
	fx_open(&r->f);
	snprintf(r->subject, sizeof(r->subject), "cache '%s'", r->f.dir);
	log_begin();
}

static void row_end(struct row *r)
{
	log_end();
	fx_end(&r->f);
}

/* A metric, as it is exported. */
static uint64_t shown(struct row *r, const char *name)
{
	uint64_t value = exposed_of_cache(r->f.store, r->f.meta, name);

	assert_int_not_equal(value, UINT64_MAX);
	return value;
}

static const char *object_name(unsigned n)
{
	static char name[48];
	struct object_id id = make_id(n);
	char hex[33];

	object_id_format(&id, hex);
	snprintf(name, sizeof(name), "object %s", hex);
	return name;
}

static void overwrite(struct fixture *f, unsigned n, const char *suffix, uint64_t at, size_t len, int byte)
{
	char path[160], data[4096];
	int fd;

	path_of(f, n, suffix, path);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0 && len <= sizeof(data));
	memset(data, byte, len);
	assert_int_equal(pwrite(fd, data, len, (off_t)at), len);
	close(fd);
}

/* ---- damage ---- */

static void bad_blocks_are_told_once_per_object_and_counted_each(void **state)
{
	struct row r;
	struct object *o;

	row_begin(&r);
	for (unsigned n = 1; n <= 2; n++) {
		uint64_t size = n == 1 ? SMALL : LARGE;

		assert_int_equal(add_object(&r.f, n, size), 0);
		damage(&r.f, n, 1); /* a bit */
		for (uint64_t at = 2 * BLOCK; at < 4 * BLOCK; at += 4096) /* an extent */
			overwrite(&r.f, n, "", at, 4096, 0);
		o = get(&r.f, n, size);
		for (int again = 0; again < 3; again++)
			for (uint32_t i = 0; i < 5; i++)
				assert_int_equal(object_verify(o, i), i == 0 || i == 4 ? 0
					: again == 0				       ? -EILSEQ
										       : -ENOENT);
		assert_true(log_said(1, object_name(n), "does not match its hash"));
		assert_true(log_said(n, r.subject, "does not match its hash"));
		assert_int_equal(shown(&r, "warpdrive_cache_corrupt_blocks_total"), n * 3);
		for (uint32_t i = 1; i < 4; i++)
			assert_true(write_block(o, n, i) == 0 && block_is_right(o, n, i));
		object_unref(o);
	}
	assert_int_equal(shown(&r, "warpdrive_cache_io_errors_total"), 0);
	row_end(&r);
}

static void a_torn_map_is_told_once_though_it_is_loaded_again(void **state)
{
	static const uint32_t lost[] = {3, 5, 8, 9};
	char map[160];
	struct row r;
	struct object *o;

	row_begin(&r);
	o = get(&r.f, 1, LARGE);
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(write_block(o, 1, i), 0);
	object_unref(o);
	fx_close(&r.f);
	overwrite(&r.f, 1, ".map", map_bytes(3) + 2, 1, 0x5a); /* flipped */
	overwrite(&r.f, 1, ".map", map_bytes(5), 16, 0);       /* zeroed */
	path_of(&r.f, 1, ".map", map);
	assert_int_equal(truncate(map, (off_t)map_bytes(8) + 5), 0);
	fx_open(&r.f);
	for (int round = 0; round < 3; round++) {
		unsigned nlost = 0;

		o = get(&r.f, 1, LARGE);
		assert_int_equal(object_present_bytes(o), 6 * BLOCK);
		for (uint32_t i = 0; i < 10; i++) {
			if (nlost < 4 && lost[nlost] == i)
				assert_false(object_has_block(o, lost[nlost++]));
			else
				assert_true(object_has_block(o, i) && block_is_right(o, 1, i));
		}
		object_unref(o);
		assert_true(log_said(1, object_name(1), "its map is torn"));
		assert_true(log_said(1, r.subject, "its map is torn"));
		assert_int_equal(shown(&r, "warpdrive_cache_damaged_objects_total"), round == 0);
		fx_reopen(&r.f);
	}
	row_end(&r);
}

/* A map that lost all that it had, as after a loss of power, or that is another's. */
static void a_map_that_is_empty_or_foreign_is_told_once(void **state)
{
	struct row r;
	struct object *o;

	row_begin(&r);
	for (unsigned n = 1; n <= 2; n++) {
		o = get(&r.f, n, LARGE);
		assert_int_equal(write_block(o, n, 7), 0);
		object_unref(o);
	}
	fx_close(&r.f);
	overwrite(&r.f, 1, ".map", map_bytes(7), 16, 0);
	overwrite(&r.f, 2, ".map", 0, 64, 'x');
	fx_open(&r.f);
	for (int again = 0; again < 3; again++)
		for (unsigned n = 1; n <= 2; n++) {
			o = get(&r.f, n, LARGE);
			assert_false(object_has_block(o, 7));
			object_unref(o);
		}
	assert_true(log_said(1, object_name(1), "its map is torn"));
	assert_true(log_said(1, object_name(2), "missing, cut or damaged"));
	assert_int_equal(shown(&r, "warpdrive_cache_damaged_objects_total"), 2);
	fx_reopen(&r.f);
	o = get(&r.f, 1, LARGE);
	assert_true(write_block(o, 1, 7) == 0 && block_is_right(o, 1, 7));
	object_unref(o);
	assert_true(log_said(2, r.subject, "object ")); /* and nothing more */
	row_end(&r);
}

static void a_file_that_was_cut_or_removed_is_told_once(void **state)
{
	char path[160];
	struct row r;
	struct object *o;

	row_begin(&r);
	for (unsigned n = 1; n <= 4; n++)
		assert_int_equal(add_object(&r.f, n, LARGE), 0);
	fx_close(&r.f);
	for (unsigned n = 1; n <= 4; n++) {
		path_of(&r.f, n, "", path);
		assert_int_equal(n % 2 ? truncate(path, 1000) : unlink(path), 0);
	}
	fx_open(&r.f);
	for (int again = 0; again < 3; again++)
		for (unsigned n = 1; n <= 4; n++) {
			o = get(&r.f, n, LARGE);
			assert_false(object_has_block(o, 0));
			object_unref(o);
			assert_true(log_said(1, object_name(n), "missing, cut or damaged"));
		}
	assert_true(log_said(4, r.subject, "object "));
	assert_int_equal(shown(&r, "warpdrive_cache_damaged_objects_total"), 4);
	o = get(&r.f, 1, LARGE);
	assert_int_equal(put_all(o, 1), 0);
	assert_true(block_is_right(o, 1, 39));
	object_unref(o);
	row_end(&r);
}

static void a_file_that_goes_while_its_object_is_in_memory_is_told_once(void **state)
{
	char path[160];
	struct row r;
	struct object *o;

	row_begin(&r);
	assert_int_equal(add_object(&r.f, 1, LARGE), 0);
	o = get(&r.f, 1, LARGE);
	path_of(&r.f, 1, "", path);
	assert_int_equal(unlink(path), 0);
	for (int again = 0; again < 3; again++)
		if (object_is_complete(o))
			assert_int_equal(object_open_file(o, NULL), -ENOENT);
	assert_false(object_is_complete(o));
	assert_true(log_said(1, object_name(1), "missing or was cut"));
	assert_int_equal(shown(&r, "warpdrive_cache_damaged_objects_total"), 1);
	object_unref(o);
	row_end(&r);
}

/* ---- a disk that gives errors ---- */

static int do_write(struct fixture *f, struct object *o)
{
	return write_block(o, 2, 11);
}

static int do_put(struct fixture *f, struct object *o)
{
	struct object *new = get(f, 3, SMALL);
	int rc = put_all(new, 3);

	object_unref(new);
	return rc;
}

static int do_read(struct fixture *f, struct object *o)
{
	return object_verify(o, 1);
}

static int do_spoil(struct fixture *f, struct object *o)
{
	static uint32_t block;

	block = block % 9 + 1;
	damage(f, 2, block);
	return object_verify(o, block);
}

static const struct disk_fault {
	const char *fault, *says;
	int (*act)(struct fixture *f, struct object *o);
	int rc;
} disk_faults[] = {
	{"store.pwrite=0", "write a cache file: Input/output error", do_write, -EIO},
	{"store.pwrite=0", "write a cache file: Input/output error", do_put, -EIO},
	{"store.rename=0", "write a cache file: Input/output error", do_put, -EIO},
	{"store.create=0", "write a cache file: Read-only file system", do_put, -EROFS},
	{"store.map-write=0", "write a map file: Input/output error", do_write, -EIO},
	{"store.map-clear=0", "write a map file: Read-only file system", do_spoil, -EIO},
	{"store.pread=0", "read a cache file: Input/output error", do_read, -EIO},
};

static void an_ill_disk_is_told_once_and_each_error_counted(void **state)
{
	for (size_t i = 0; i < sizeof(disk_faults) / sizeof(*disk_faults); i++) {
		const struct disk_fault *d = &disk_faults[i];
		struct row r;
		struct object *o;

		row_begin(&r);
		o = get(&r.f, 2, LARGE);
		for (uint32_t b = 0; b < 10; b++)
			assert_int_equal(write_block(o, 2, b), 0);
		wd_fault_arm(d->fault);
		for (int again = 0; again < 4; again++)
			assert_int_equal(d->act(&r.f, o), d->rc);
		wd_fault_arm(NULL);
		assert_true(log_said(1, r.subject, d->says));
		assert_true(log_said(1, r.subject, "nothing is admitted until the disk works again"));
		assert_in_range(shown(&r, "warpdrive_cache_io_errors_total"), 4, 8);
		assert_true(shown(&r, "warpdrive_cache_is_broken"));
		/* what is there is still read, and when the disk is well the rest is written */
		assert_true(block_is_right(o, 2, 0));
		assert_true(write_block(o, 2, 11) == 0 && block_is_right(o, 2, 11));
		object_unref(o);
		row_end(&r);
	}
}

/* ---- the machine, the metadata ---- */

static void a_machine_that_went_down_is_told_at_the_next_start_only(void **state)
{
	uint64_t before;
	struct row r;
	struct object *o;
	int status;
	pid_t pid;

	setenv("WARPDRIVE_BOOT_ID", "first", 1);
	before = exposed("warpdrive_cache_unclean_starts_total");
	row_begin(&r);
	fx_close(&r.f);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		fx_open(&r.f);
		_exit(add_object(&r.f, 1, SMALL) < 0 || meta_flush(r.f.meta) < 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	fx_open(&r.f); /* a kill is none */
	assert_true(log_said(0, r.subject, "without a clean stop"));
	assert_int_equal(exposed("warpdrive_cache_unclean_starts_total"), before);
	fx_close(&r.f);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		fx_open(&r.f);
		_exit(meta_flush(r.f.meta) < 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	setenv("WARPDRIVE_BOOT_ID", "second", 1);
	for (int round = 0; round < 2; round++) {
		fx_open(&r.f);
		assert_true(log_said(1, r.subject, "without a clean stop"));
		assert_int_equal(exposed("warpdrive_cache_unclean_starts_total"), before + 1);
		fx_close(&r.f);
	}
	fx_open(&r.f);
	o = get(&r.f, 1, SMALL);
	assert_int_equal(object_verify(o, 2), 0);
	assert_int_equal(shown(&r, "warpdrive_cache_checked_blocks_total"), 1);
	assert_true(block_is_right(o, 1, 2));
	object_unref(o);
	row_end(&r);
	unsetenv("WARPDRIVE_BOOT_ID");
}

static void metadata_that_cannot_be_committed_is_told_once_and_when_it_can(void **state)
{
	char subject[80], value[4] = "";
	struct row r;
	size_t len;

	row_begin(&r);
	snprintf(subject, sizeof(subject), "metadata '%s/meta'", r.f.dir);
	wd_fault_arm("meta.commit=0");
	for (int again = 0; again < 3; again++) {
		meta_put(r.f.meta, META_PROOFS, "k", 1, "new", 4);
		assert_int_equal(meta_flush(r.f.meta), -EIO);
	}
	assert_true(log_said(1, subject, "commit: Input/output error"));
	assert_true(log_said(0, subject, "commits work again"));
	assert_int_equal(shown(&r, "warpdrive_meta_is_failing"), 1);
	assert_true(shown(&r, "warpdrive_meta_failed_commits_total") >= 3);
	wd_fault_arm(NULL);
	while (meta_flush(r.f.meta) < 0) /* the last of the failures may be under way */
		;
	assert_true(log_said(1, subject, "commit: Input/output error"));
	assert_true(log_said(1, subject, "commits work again"));
	assert_int_equal(meta_get(r.f.meta, META_PROOFS, "k", 1, value, sizeof(value), &len), 0);
	assert_string_equal(value, "new");
	row_end(&r);
}

#define TEST(name) cmocka_unit_test_teardown(name, log_show)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(bad_blocks_are_told_once_per_object_and_counted_each),
		TEST(a_torn_map_is_told_once_though_it_is_loaded_again),
		TEST(a_map_that_is_empty_or_foreign_is_told_once),
		TEST(a_file_that_was_cut_or_removed_is_told_once),
		TEST(a_file_that_goes_while_its_object_is_in_memory_is_told_once),
		TEST(an_ill_disk_is_told_once_and_each_error_counted),
		TEST(a_machine_that_went_down_is_told_at_the_next_start_only),
		TEST(metadata_that_cannot_be_committed_is_told_once_and_when_it_can),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
