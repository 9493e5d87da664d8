/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Readers. Files are opened again and again, some descriptors are kept open and idle over many faults, and what
 * was streamed is dropped from the page cache, so that the server is asked again.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "e2e/chaos/load.h"

#define HELD 3 /* descriptors that a hot reader keeps open */

static int open_file(struct worker *w, uint32_t file, char below[CONTENT_PATH])
{
	int fd;

	content_path(file, below);
	op_begin(w, "open", below, 0);
	fd = open(w->path, O_RDONLY | O_CLOEXEC);
	op_end(w, fd < 0 ? errno : 0);
	return fd;
}

static void read_piece(
	struct worker *w, int fd, uint32_t file, const char *below, uint64_t offset, size_t len)
{
	ssize_t n;

	op_begin(w, "read", below, offset);
	n = pread(fd, w->buf, len, (off_t)offset);
	op_end(w, n < 0 ? errno : (size_t)n != len ? ENODATA : 0);
	if (n > 0)
		load_check(w, file, offset, w->buf, (size_t)n / 8 * 8);
}

/* A random piece of up to 64 KiB. */
static void read_anywhere(struct worker *w, int fd, uint32_t file, const char *below)
{
	size_t len = (load_random(w, 65536) + 8) / 8 * 8;
	uint64_t offset = load_random(w, content_size(file) - len) / 8 * 8;

	read_piece(w, fd, file, below, offset, len);
}

void work_hot(struct worker *w)
{
	struct held {
		int fd;
		uint32_t file;
		char below[CONTENT_PATH];
	} held[HELD] = {{.fd = -1}, {.fd = -1}, {.fd = -1}};

	while (load_goes_on(w)) {
		struct held *h = &held[load_random(w, HELD)];

		if (h->fd < 0) {
			h->file = content_hot(load_random(w, CONTENT_HOT));
			h->fd = open_file(w, h->file, h->below);
		}
		for (int i = 0; i < 32 && h->fd >= 0 && load_goes_on(w); i++)
			read_anywhere(w, h->fd, h->file, h->below);
		if (h->fd >= 0 && load_random(w, 4) == 0) {
			close(h->fd);
			h->fd = -1;
		}
	}
	for (int i = 0; i < HELD; i++)
		if (held[i].fd >= 0)
			close(held[i].fd);
}

void work_stream(struct worker *w)
{
	while (load_goes_on(w)) {
		uint32_t file = content_cold(load_random(w, CONTENT_COLD));
		char below[CONTENT_PATH];
		int fd = open_file(w, file, below);

		for (uint64_t at = 0; fd >= 0 && at < content_size(file) && load_goes_on(w); at += LOAD_BUF)
			read_piece(w, fd, file, below, at, LOAD_BUF);
		if (fd < 0)
			continue;
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		close(fd);
	}
}

void work_random(struct worker *w)
{
	while (load_goes_on(w)) {
		uint32_t file = content_cold(load_random(w, CONTENT_COLD));
		char below[CONTENT_PATH];
		int fd = open_file(w, file, below);

		for (int i = 0; i < 64 && fd >= 0 && load_goes_on(w); i++)
			read_anywhere(w, fd, file, below);
		if (fd < 0)
			continue;
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		close(fd);
	}
}

/* ---- mappings: an error there is a SIGBUS ---- */

static _Thread_local sigjmp_buf on_bus_error;
static _Thread_local volatile sig_atomic_t is_guarded;

static void bus_error(int sig)
{
	if (is_guarded)
		siglongjmp(on_bus_error, 1);
	signal(SIGBUS, SIG_DFL);
	raise(SIGBUS);
}

static void copy_mapped(struct worker *w, const char *map, const char *below, uint64_t offset, size_t len)
{
	op_begin(w, "mapped read", below, offset);
	if (sigsetjmp(on_bus_error, 1) == 0) {
		is_guarded = 1;
		memcpy(w->buf, map + offset, len);
		is_guarded = 0;
		op_end(w, 0);
	} else {
		is_guarded = 0;
		memset(w->buf, 0, len);
		op_end(w, EIO);
	}
}

void work_mmap(struct worker *w)
{
	const size_t len = 65536;

	signal(SIGBUS, bus_error);
	while (load_goes_on(w)) {
		uint32_t file = load_random(w, 2) ? content_hot(load_random(w, CONTENT_HOT))
						  : content_cold(load_random(w, CONTENT_COLD));
		uint64_t size = content_size(file);
		char below[CONTENT_PATH];
		int fd = open_file(w, file, below);
		char *map = fd < 0 ? MAP_FAILED : mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);

		if (fd >= 0 && map == MAP_FAILED)
			chaos_error(w->chaos, "mmap '%s': %s", w->path, strerror(errno));
		if (fd >= 0)
			close(fd);
		for (int i = 0; i < 64 && map != MAP_FAILED && load_goes_on(w); i++) {
			uint64_t offset = load_random(w, size - len) / 8 * 8;

			copy_mapped(w, map, below, offset, len);
			load_check(w, file, offset, w->buf, len);
		}
		if (map != MAP_FAILED)
			munmap(map, size);
	}
}

void work_small(struct worker *w)
{
	while (load_goes_on(w)) {
		uint32_t file = content_small(load_random(w, CONTENT_SMALL));
		char below[CONTENT_PATH];
		int fd = open_file(w, file, below);

		if (fd < 0)
			continue;
		read_piece(w, fd, file, below, 0, content_size(file));
		close(fd);
	}
}
