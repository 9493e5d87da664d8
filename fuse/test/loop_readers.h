/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_FUSE_TEST_LOOP_READERS_H
#define WD_FUSE_TEST_LOOP_READERS_H
/* Readers that go round and round while a test kills what serves them: files, stat, directories. */
#include "fuse/test/mount_fixture.h"

struct loop_reader {
	pthread_t thread;
	struct fake_file *file;
	_Atomic bool *stop;
	int rc;
	unsigned rounds;
};

static inline void *run_loop_reader(void *arg)
{
	struct loop_reader *r = arg;

	while (!atomic_load(r->stop) && r->rc == 0) {
		char path[300];
		struct stat st;
		DIR *d;

		r->rc = read_whole(r->file);
		snprintf(path, sizeof(path), "%s/many/f%03u", target, r->rounds++ % FAKE_MANY);
		if (r->rc == 0 && stat(path, &st) < 0)
			r->rc = errno;
		snprintf(path, sizeof(path), "%s/many", target);
		d = opendir(path);
		if (!d) {
			r->rc = r->rc ? r->rc : errno;
			break;
		}
		for (int i = 0; i < 50 && readdir(d); i++)
			;
		closedir(d);
	}
	return NULL;
}

static inline void start_loop_readers(
	struct loop_reader *readers, struct fake_file **files, int n, _Atomic bool *stop)
{
	for (int i = 0; i < n; i++) {
		readers[i] = (struct loop_reader){.file = files[i], .stop = stop};
		assert_int_equal(
			pthread_create(&readers[i].thread, NULL, run_loop_reader, &readers[i]), 0);
	}
}

/* Fails when one of them met an error or a wrong byte; returns the rounds that they went. */
static inline unsigned stop_loop_readers(struct loop_reader *readers, int n, _Atomic bool *stop)
{
	unsigned rounds = 0;

	atomic_store(stop, true);
	for (int i = 0; i < n; i++) {
		pthread_join(readers[i].thread, NULL);
		if (readers[i].rc)
			fail_msg("reader of '%s': %s after %u rounds", readers[i].file->name,
				strerror(readers[i].rc), readers[i].rounds);
		rounds += readers[i].rounds;
	}
	return rounds;
}

#endif
