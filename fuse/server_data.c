/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What reads are answered from: cache files with their live maps, and buffers.
 *
 * Answers go out only from anonymous memory that was touched before: a page fault inside the
 * kernel's copy, with SIGKILL pending, would turn the answer into EIO. There are as many buffers as
 * threads that use them, the most recently used first, so an idle mount warms few; all of their
 * memory goes back to the system when nothing was read for a while.
 */
#include "fuse/server.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/cleanup.h"

#define BUFFERS (LOOP_THREADS + REPLY_THREADS + 1) /* one per thread that answers */

/* ---- data ---- */

struct data *data_new(int fd, int map_fd, struct wd_err *err)
{
	wd_autoclose int file = fd, map = map_fd;
	struct data *data;

	if (file < 0 || map < 0) {
		wd_err_set(err, EPROTO, "the agent sent no cache file or no live map");
		return NULL;
	}
	data = calloc(1, sizeof(*data));
	if (!data) {
		wd_err_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	data->map = wd_livemap_map(map, &data->map_len, err);
	if (!data->map) {
		free(data);
		return NULL;
	}
	data->fd = wd_steal_fd(&file);
	data->refs = 1;
	return data;
}

struct data *data_ref(struct data *data)
{
	if (data)
		atomic_fetch_add_explicit(&data->refs, 1, memory_order_relaxed);
	return data;
}

void data_unref(struct data *data)
{
	if (!data || atomic_fetch_sub_explicit(&data->refs, 1, memory_order_acq_rel) != 1)
		return;
	munmap((void *)(uintptr_t)data->map, data->map_len);
	close(data->fd);
	free(data);
}

/* ---- buffers ---- */

static struct wd_mutex lock = WD_MUTEX_INIT;
static unsigned char *base; /* of BUFFERS buffers of READ_MAX bytes */
static struct buffer {
	size_t touched;
	bool is_used; /* then touched is the user's, else guarded by lock */
} buffers[BUFFERS];

int buffers_init(struct wd_err *err)
{
	/* address space, not memory */
	base = mmap(NULL, (size_t)BUFFERS * READ_MAX, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return base == MAP_FAILED ? wd_err_sys(err, errno, "map the read buffers") : 0;
}

static bool take(int i, bool is_cold_good)
{
	bool is_mine;

	wd_lock(&lock);
	is_mine = !buffers[i].is_used && (is_cold_good || buffers[i].touched > 0);
	if (is_mine)
		buffers[i].is_used = true;
	wd_unlock(&lock);
	return is_mine;
}

static void give_back(int i)
{
	wd_lock(&lock);
	buffers[i].is_used = false;
	wd_unlock(&lock);
}

void *buffer_get(size_t size)
{
	unsigned char *mem;
	int i = 0;

	assert(size <= READ_MAX);
	while (!take(i, true))
		i = (i + 1) % BUFFERS; /* there is one per thread: another try finds it */
	mem = base + (size_t)i * READ_MAX;
	if (size > buffers[i].touched) {
		memset(mem + buffers[i].touched, 0, size - buffers[i].touched);
		buffers[i].touched = size;
	}
	return mem;
}

void buffer_put(void *buffer)
{
	give_back((int)((size_t)((unsigned char *)buffer - base) / READ_MAX));
}

void buffers_trim(void)
{
	for (int i = 0; i < BUFFERS; i++) {
		if (!take(i, false))
			continue;
		madvise(base + (size_t)i * READ_MAX, READ_MAX, MADV_DONTNEED);
		buffers[i].touched = 0;
		give_back(i);
	}
}
