/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk under the cache fills up, becomes read-only, gives errors, or the directory vanishes: on small
 * file systems of the test's own, in a mount namespace of its own. What is counted is looked up in the metrics.
 */
#include "agent/test/store_fixture.h"

#include <linux/loop.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "agent/store_internal.h"
#include "agent/test/exposition.h"
#include "agent/test/log_capture.h"

typedef bool (*mount_fn)(const char *dir, const char *options);

/* Runs fn on a fresh file system, in a process of its own, so that the mount goes with it. */
static void on_disk(mount_fn mount_it, const char *options, void (*fn)(struct fixture *f))
{
	struct fixture f = {.config = {.limit_bytes = 1024 * MIB, .probe_interval_ms = 20}};
	int status;
	pid_t pid;

	strcpy(f.dir, "/tmp/wd-disk-XXXXXX");
	assert_non_null(mkdtemp(f.dir));
	log_begin();
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (unshare(CLONE_NEWNS) < 0 ||
			mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || !mount_it(f.dir, options))
			_exit(77);
		fx_open(&f);
		fn(&f);
		fx_close(&f);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	remove_tree(AT_FDCWD, f.dir);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		log_end();
		skip();
	}
	assert_int_equal(status, 0);
	log_end();
}

static bool mount_tmpfs(const char *dir, const char *options)
{
	return mount("small", dir, "tmpfs", 0, options) == 0;
}

static void on_small_disk(const char *options, void (*fn)(struct fixture *f))
{
	on_disk(mount_tmpfs, options, fn);
}

/* In the child a failed assertion must end it. */
#define must(claim)                                                                                \
	do {                                                                                       \
		if (!(claim)) {                                                                    \
			dprintf(log_people, "%s:%d: %s\n", __FILE__, __LINE__, #claim);             \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

static uint64_t shown(struct fixture *f, const char *name)
{
	uint64_t value = exposed_of_cache(f->store, f->meta, name);

	must(value != UINT64_MAX);
	return value;
}

#define io_errors(f) shown(f, "warpdrive_cache_io_errors_total")
#define is_broken(f) (shown(f, "warpdrive_cache_is_broken") == 1)

static bool is_said(struct fixture *f, unsigned times, const char *what)
{
	char subject[80];

	snprintf(subject, sizeof(subject), "cache '%s'", f->dir);
	return log_said(times, subject, what);
}

static void wait_until_it_works(struct fixture *f)
{
	while (is_broken(f))
		sched_yield(); /* ctest's time-out guards */
}

/* What is said when a lock was given back. */
static void wait_until_said(struct fixture *f, unsigned times, const char *what)
{
	char subject[80];

	snprintf(subject, sizeof(subject), "cache '%s'", f->dir);
	while (log_count(subject, what) < times)
		sched_yield();
	must(is_said(f, times, what));
}

static void fill_up(struct fixture *f)
{
	struct object *o = get(f, 1, 100 * BLOCK), *other;
	uint32_t n = 0;
	int rc;

	must(add_object(f, 2, 4 * BLOCK) == 0); /* something that may go */
	while ((rc = write_block(o, 1, n)) == 0)
		n++;
	must(rc == -ENOSPC);
	must(n > 0 && !object_has_block(o, n));
	must(!is_broken(f));
	must(io_errors(f) > 0);
	must(is_said(f, 1, "No space left on device; the oldest of the cache makes room"));
	for (uint32_t i = 0; i < n; i++)
		must(object_verify(o, i) == 0 && block_is_right(o, 1, i));
	/* the disk said full: some room is made, and the cache goes on */
	while (shown(f, "warpdrive_cache_evicted_objects_total") == 0)
		sched_yield();
	must(!is_cached(f, 2, 4 * BLOCK));
	must(write_block(o, 1, n) == 0 && block_is_right(o, 1, n));
	other = get(f, 3, BLOCK);
	must(admit(f, other, 512 * MIB) == -ENOSPC); /* more than there can be */
	/* and full again, several times: counted, and said no more */
	for (int again = 0; again < 3;) {
		rc = write_block(o, 1, ++n % 100);
		must(rc == 0 || rc == -ENOSPC);
		again += rc < 0;
	}
	must(io_errors(f) >= 4);
	must(is_said(f, 1, "No space left on device"));
	object_unref(other);
	object_unref(o);
}

static void a_full_disk_costs_the_block_and_makes_room(void **state)
{
	on_small_disk("size=8m", fill_up);
}

static void fill_under_metadata(struct fixture *f)
{
	static char value[META_VALUE_MAX], big[65536];
	char subject[80], path[80];
	size_t len;
	int fd;

	snprintf(subject, sizeof(subject), "metadata '%s/meta'", f->dir);
	snprintf(path, sizeof(path), "%s/filler", f->dir);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	must(fd >= 0);
	while (write(fd, big, sizeof(big)) > 0)
		;
	must(errno == ENOSPC);
	for (uint32_t i = 0; i < 1000; i++)
		meta_put(f->meta, META_PROOFS, &i, sizeof(i), value, sizeof(value));
	for (int again = 0; again < 3; again++)
		must(meta_flush(f->meta) == -ENOSPC);
	must(log_said(1, subject, "commit: No space left on device; going on in memory"));
	must(shown(f, "warpdrive_meta_is_failing") == 1 && shown(f, "warpdrive_meta_failed_commits_total") >= 3);
	for (uint32_t i = 0; i < 1000; i++)
		must(meta_get(f->meta, META_PROOFS, &i, sizeof(i), value, sizeof(value), &len) == 0);
	must(unlink(path) == 0 && close(fd) == 0);
	while (meta_flush(f->meta) < 0) /* the last of the failures may be under way */
		;
	must(log_said(1, subject, "commit: No space left on device"));
	must(log_said(1, subject, "commits work again"));
	must(shown(f, "warpdrive_meta_is_failing") == 0);
}

static void metadata_on_a_full_disk_go_on_in_memory(void **state)
{
	on_small_disk("size=8m", fill_under_metadata);
}

static void run_out_of_inodes(struct fixture *f)
{
	unsigned n = 1;
	int rc;

	while ((rc = add_object(f, n, 1000)) == 0)
		n++;
	must(rc == -ENOSPC);
	must(!is_broken(f));
	must(is_said(f, 1, "No space left on device"));
	while (shown(f, "warpdrive_cache_evicted_objects_total") == 0)
		sched_yield();
	for (unsigned i = 1; i < n; i++) {
		struct object *o = get(f, i, 1000); /* from here on it is not evicted */

		must(!object_is_complete(o) || block_is_right(o, i, 0));
		object_unref(o);
	}
}

static void a_disk_without_inodes_is_a_full_disk(void **state)
{
	on_small_disk("size=64m,nr_inodes=300", run_out_of_inodes);
}

static void remount_read_only(struct fixture *f)
{
	struct object *o;
	int rc;

	must(add_object(f, 1, 3 * BLOCK) == 0);
	must(add_object(f, 2, 40 * BLOCK) == 0);
	must(meta_flush(f->meta) == 0);
	/* a file system with files open for writing cannot be remounted: what it would answer */
	wd_fault_arm("store.create=0");
	o = get(f, 3, 2 * BLOCK);
	rc = put_all(o, 3);
	must(rc == -EROFS);
	must(!object_is_complete(o));
	must(is_broken(f));
	must(admit(f, o, BLOCK) == -ENOSPC);
	object_unref(o);
	o = get(f, 3, 40 * BLOCK);
	must(write_block(o, 3, 0) == -EROFS);
	object_unref(o);
	must(is_said(f, 1, "Read-only file system; nothing is admitted until the disk works again"));
	must(io_errors(f) == 2);
	for (unsigned n = 1; n <= 2; n++) {
		o = get(f, n, n == 1 ? 3 * BLOCK : 40 * BLOCK);
		must(object_is_complete(o) && block_is_right(o, n, 2));
		object_unref(o);
	}
	wd_fault_arm(NULL);
	wait_until_it_works(f); /* without a restart, and though nobody asks */
	wait_until_said(f, 1, ": the disk works again"); /* after the flag */
	o = get(f, 3, 2 * BLOCK);
	must(admit(f, o, 2 * BLOCK) == 0);
	must(put_all(o, 3) == 0 && block_is_right(o, 3, 1));
	object_unref(o);
}

static void a_read_only_disk_serves_what_it_has_and_comes_back(void **state)
{
	on_small_disk("size=64m", remount_read_only);
}

static void remove_objects(struct fixture *f)
{
	struct object *complete, *partial, *o;
	struct wd_err err = WD_ERR_INIT;
	const struct wd_livemap *map;
	int fd, map_fd;
	size_t len;

	must(add_object(f, 1, 3 * BLOCK) == 0);
	complete = get(f, 1, 3 * BLOCK);
	partial = get(f, 2, 40 * BLOCK);
	must(write_block(partial, 2, 7) == 0);
	fd = object_open_file(partial, &err);
	map_fd = object_open_map(partial, &err);
	map = wd_livemap_map(map_fd, &len, &err);
	must(fd >= 0 && map && wd_livemap_has(map, 7 * BLOCK, 1));
	remove_tree(AT_FDCWD, f->dir); /* all but the mount point itself */

	/* who has a partial file open goes on with it */
	must(write_block(partial, 2, 8) == 0);
	o = get(f, 3, BLOCK);
	must(put_all(o, 3) == -ENOENT);
	must(io_errors(f) > 0); /* broken, unless a probe was faster */
	must(is_said(f, 1, "No such file or directory; nothing is admitted until the disk works again"));
	must(admit(f, o, BLOCK) == -ENOSPC || !is_broken(f));
	wait_until_it_works(f);
	must(admit(f, o, BLOCK) == 0);
	must(put_all(o, 3) == 0 && block_is_right(o, 3, 0));
	object_unref(o);

	/* what was complete is noticed when it is opened next, and fetched anew */
	must(object_open_file(complete, &err) == -ENOENT);
	must(!object_is_complete(complete));
	must(is_said(f, 1, "its file is missing or was cut"));
	must(shown(f, "warpdrive_cache_damaged_objects_total") == 1);
	must(put_all(complete, 1) == 0 && block_is_right(complete, 1, 2));
	object_unref(complete);

	/* the partial one begins anew in another file when it is opened for writing again */
	object_unref(partial);
	partial = get(f, 2, 40 * BLOCK);
	must(write_block(partial, 2, 20) == -ENOENT);
	must(!object_has_block(partial, 7));
	must(write_block(partial, 2, 20) == 0 && block_is_right(partial, 2, 20));
	must(!object_has_block(partial, 7));
	object_unref(partial);
	close(fd);
	close(map_fd);
}

static void a_directory_that_vanishes_is_made_anew(void **state)
{
	on_small_disk("size=64m", remove_objects);
}

static void lose_the_disk(struct fixture *f)
{
	struct object *o = get(f, 1, 40 * BLOCK);

	must(write_block(o, 1, 0) == 0);
	remove_tree(AT_FDCWD, f->dir);
	/* another file system in its place: an empty mount point must not be filled */
	must(mount("other", f->dir, "tmpfs", 0, "size=64m") == 0);
	struct object *new = get(f, 2, BLOCK);

	must(put_all(new, 2) == -ENOENT && is_broken(f));
	must(put_all(new, 2) == -ENOENT && io_errors(f) >= 2);
	must(is_said(f, 1, "No such file or directory"));
	must(file_reattach(f->store) == -ENODEV);
	must(is_broken(f));
	char path[128];

	snprintf(path, sizeof(path), "%s/objects", f->dir);
	must(access(path, F_OK) < 0);
	while (umount(f->dir) < 0) /* a probe may be looking */
		must(errno == EBUSY);
	wait_until_it_works(f);
	must(put_all(new, 2) == 0 && block_is_right(new, 2, 0));
	object_unref(new);
	object_unref(o);
}

static void another_file_system_in_its_place_is_not_used(void **state)
{
	on_small_disk("size=64m", lose_the_disk);
}

/* ---- a disk that the kernel itself makes read-only, under open files ---- */

static unsigned loop_number;

/* A loop device over a file without a name; it goes when it is unmounted. */
static int attach_loop(int image)
{
	struct loop_config config = {.fd = (unsigned)image, .info.lo_flags = LO_FLAGS_AUTOCLEAR};
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), number, fd;
	char path[32];

	number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
	close(control);
	if (number < 0)
		return -1;
	loop_number = (unsigned)number;
	snprintf(path, sizeof(path), "/dev/loop%d", number);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &config) == 0)
		return fd;
	close(fd);
	return -1;
}

static bool mount_ext4(const char *dir, const char *options)
{
	char image[80], device[32], command[160];
	int fd, loop = -1;
	bool is_mounted = false;

	snprintf(image, sizeof(image), "%s.image", dir);
	snprintf(command, sizeof(command), "mkfs.ext4 -q -F %s 64m 2>/dev/null", image);
	fd = open(image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0 && system(command) == 0)
		loop = attach_loop(fd);
	if (loop >= 0) {
		snprintf(device, sizeof(device), "/dev/loop%u", loop_number);
		is_mounted = mount(device, dir, "ext4", 0, options) == 0;
		close(loop);
	}
	unlink(image);
	close(fd);
	return is_mounted;
}

/* What ext4 does when it finds its own structures damaged. */
static void let_ext4_find_an_error(void)
{
	char path[80];
	int fd;

	snprintf(path, sizeof(path), "/sys/fs/ext4/loop%u/trigger_fs_error", loop_number);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	must(fd >= 0 && write(fd, "a test", 6) == 6 && close(fd) == 0);
}

static void go_read_only(struct fixture *f)
{
	static char value[META_VALUE_MAX];
	char subject[80];
	struct object *partial = get(f, 2, 40 * BLOCK), *o;
	size_t len;

	must(add_object(f, 1, 3 * BLOCK) == 0);
	must(write_block(partial, 2, 7) == 0);
	must(meta_flush(f->meta) == 0);
	let_ext4_find_an_error();

	for (uint32_t i = 0; i < 100; i++)
		meta_put(f->meta, META_PROOFS, &i, sizeof(i), value, sizeof(value));
	for (int again = 0; again < 3; again++)
		must(meta_flush(f->meta) == -EROFS);
	snprintf(subject, sizeof(subject), "metadata '%s/meta'", f->dir);
	must(log_said(1, subject, "commit: Read-only file system; going on in memory"));
	must(shown(f, "warpdrive_meta_is_failing") == 1 && shown(f, "warpdrive_meta_failed_commits_total") >= 3);
	for (uint32_t i = 0; i < 100; i++)
		must(meta_get(f->meta, META_PROOFS, &i, sizeof(i), value, sizeof(value), &len) == 0);

	must(write_block(partial, 2, 8) == -EROFS && write_block(partial, 2, 9) == -EROFS);
	must(!object_has_block(partial, 8));
	o = get(f, 3, 2 * BLOCK);
	must(put_all(o, 3) == -EROFS && !object_is_complete(o));
	must(is_broken(f) && io_errors(f) >= 3);
	must(admit(f, o, BLOCK) == -ENOSPC);
	object_unref(o);
	must(is_said(f, 1, "Read-only file system; nothing is admitted until the disk works again"));

	/* what is there is read as before */
	must(block_is_right(partial, 2, 7));
	object_unref(partial);
	o = get(f, 1, 3 * BLOCK);
	must(object_is_complete(o) && block_is_right(o, 1, 2));
	object_unref(o);
}

static void cache_and_metadata_outlive_a_file_system_gone_read_only(void **state)
{
	on_disk(mount_ext4, "errors=remount-ro", go_read_only);
}

#define TEST(name) cmocka_unit_test_teardown(name, log_show)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_full_disk_costs_the_block_and_makes_room),
		TEST(metadata_on_a_full_disk_go_on_in_memory),
		TEST(a_disk_without_inodes_is_a_full_disk),
		TEST(a_read_only_disk_serves_what_it_has_and_comes_back),
		TEST(a_directory_that_vanishes_is_made_anew),
		TEST(another_file_system_in_its_place_is_not_used),
		TEST(cache_and_metadata_outlive_a_file_system_gone_read_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
