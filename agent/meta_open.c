/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of the metadata: opening and closing, the epoch, node ids, the clean mark.
 *
 * The clean mark (META_INFO "clean") is written at the very end, after syncfs, and removed at the
 * next start. When it is missing and the machine was restarted since ("boot" differs), the cache
 * files may lack what the records promise: unclean. A killed process loses nothing that the kernel
 * has.
 */
#include "agent/meta_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"

#define MAP_SIZE ((size_t)64 << 30)
#define ID_RANGE 65536 /* ids reserved at a time */
#define ID_FIRST 16
#define EPOCH_SHIFT 44
#define LOCK_WAIT_MS 3000

/* ---- ids ---- */

/* Asks for the next range while half of the present one is left, so that nobody waits. */
static void reserve_ids_locked(struct meta *m) WD_REQUIRES(m->lock)
{
	struct meta_entry *x;

	if (m->asked != m->reserved || m->reserved - m->next_id > ID_RANGE / 2)
		return;
	m->asked = m->reserved + ID_RANGE;
	x = meta_entry_new(&(struct meta_op){META_INFO, "next-id", 7, &m->asked, sizeof(m->asked)});
	meta_queue_locked(m, x);
	m->asked_seq = m->seq;
}

uint64_t meta_next_id(struct meta *m)
{
	uint64_t id;

	wd_lock(&m->lock);
	for (;;) {
		reserve_ids_locked(m);
		/* while commits fail, going on is better than stopping; ids stay unique until the
		 * restart */
		if (m->next_id < m->reserved || m->error < 0)
			break;
		wd_cond_wait(&m->done, &m->lock);
	}
	id = m->next_id++;
	if (m->reserved < m->next_id)
		m->reserved = m->asked = m->next_id;
	wd_unlock(&m->lock);
	assert(id >> EPOCH_SHIFT == 0);
	return m->epoch << EPOCH_SHIFT | id;
}

uint64_t meta_epoch(const struct meta *m)
{
	return m->epoch << EPOCH_SHIFT;
}

/* ---- opening and closing ---- */

/* One agent per directory. The predecessor may still be dying: give it a moment. */
static int lock_dir(struct meta *m, struct wd_err *err)
{
	const struct timespec pause = {0, 20 * 1000000};

	m->lock_fd = openat(m->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (m->lock_fd < 0)
		return wd_err_sys(err, errno, "open '%s/lock'", m->dir);
	for (int waited = 0; flock(m->lock_fd, LOCK_EX | LOCK_NB) < 0; waited += 20) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return wd_err_sys(err, errno, "lock '%s/lock'", m->dir);
		if (waited >= LOCK_WAIT_MS)
			return wd_err_set(err, EBUSY,
				"cache directory '%s' is in use by another agent: stop it or take "
				"another "
				"directory",
				m->dir);
		nanosleep(&pause, NULL);
	}
	return 0;
}

static void read_boot_id(char *ret_id, size_t cap)
{
	wd_autoclose int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, ret_id, cap - 1);

	/* without it every start looks like one in the same boot */
	ret_id[n > 0 ? n : 0] = '\0';
	ret_id[strcspn(ret_id, "\n")] = '\0';
}

static int get_info(struct meta *m, const char *name, void *value, size_t cap, size_t *ret_len)
{
	return meta_env_get(&m->env, META_INFO, name, strlen(name), value, cap, ret_len);
}

static int load_epoch(struct meta *m)
{
	size_t len;
	int rc = get_info(m, "epoch", &m->epoch, sizeof(m->epoch), &len);

	if (rc == 0 && len == sizeof(m->epoch) && m->epoch != 0 && m->epoch >> 20 == 0)
		return 0;
	do {
		if (getrandom(&m->epoch, sizeof(m->epoch), 0) != sizeof(m->epoch))
			return -errno;
		m->epoch &= (1 << 20) - 1;
	} while (m->epoch == 0);
	return meta_env_put_info(&m->env, "epoch", &m->epoch, sizeof(m->epoch));
}

static int load_ids(struct meta *m)
{
	size_t len;
	uint64_t next;
	int rc = get_info(m, "next-id", &next, sizeof(next), &len);

	m->next_id = rc == 0 && len == sizeof(next) && next >= ID_FIRST ? next : ID_FIRST;
	m->reserved = m->asked = m->next_id + ID_RANGE;
	return meta_env_put_info(&m->env, "next-id", &m->reserved, sizeof(m->reserved));
}

static int load_boot(struct meta *m)
{
	char boot[sizeof(m->boot_id)], clean[sizeof(m->boot_id)];
	size_t len = 0, clean_len = 0;
	int rc;

	read_boot_id(m->boot_id, sizeof(m->boot_id));
	m->was_closed = get_info(m, "clean", clean, sizeof(clean), &clean_len) == 0;
	rc = get_info(m, "boot", boot, sizeof(boot), &len);
	if (rc == 0 && !m->was_closed)
		m->was_unclean = len != strlen(m->boot_id) || memcmp(boot, m->boot_id, len) != 0;
	rc = meta_env_put_info(&m->env, "clean", NULL, 0);
	if (rc == 0)
		rc = meta_env_put_info(&m->env, "boot", m->boot_id, strlen(m->boot_id));
	return rc;
}

static void free_meta(struct meta *m)
{
	if (m->env.env)
		meta_env_close(&m->env);
	if (m->lock_fd >= 0)
		close(m->lock_fd);
	if (m->dir_fd >= 0)
		close(m->dir_fd);
	meta_batch_free(&m->pending);
	meta_batch_free(&m->committing);
	wd_cond_done(&m->wake);
	wd_cond_done(&m->done);
	wd_mutex_done(&m->lock);
	free(m->dir);
	free(m);
}

static int open_all(struct meta *m, const char *dir, size_t map_size, struct wd_err *err)
{
	int rc;

	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return wd_err_sys(err, errno, "create cache directory '%s'", dir);
	m->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (m->dir_fd < 0)
		return wd_err_sys(err, errno, "open cache directory '%s'", dir);
	rc = lock_dir(m, err);
	if (rc == 0)
		rc = meta_env_open(&m->env, dir, map_size, err);
	if (rc < 0)
		return rc;
	rc = load_epoch(m);
	if (rc == 0)
		rc = load_ids(m);
	if (rc == 0)
		rc = load_boot(m);
	if (rc == 0)
		rc = -pthread_create(&m->writer, NULL, meta_run_writer, m);
	return rc < 0 ? wd_err_sys(err, -rc, "start metadata '%s/meta'", dir) : 0;
}

int meta_open_sized(const char *dir, size_t map_size, struct meta **ret_meta, struct wd_err *err)
{
	struct meta *m = calloc(1, sizeof(*m));
	int rc;

	if (!m)
		return wd_err_sys(err, ENOMEM, "open metadata of '%s'", dir);
	m->dir_fd = m->lock_fd = -1;
	m->dir = strdup(dir);
	wd_mutex_init(&m->lock);
	wd_cond_init(&m->wake);
	wd_cond_init(&m->done);
	rc = m->dir ? open_all(m, dir, map_size, err)
		    : wd_err_sys(err, ENOMEM, "open metadata of '%s'", dir);
	if (rc < 0) {
		free_meta(m);
		return rc;
	}
	*ret_meta = m;
	return 0;
}

int meta_open(const char *dir, struct meta **ret_meta, struct wd_err *err)
{
	return meta_open_sized(dir, MAP_SIZE, ret_meta, err);
}

bool meta_was_unclean(const struct meta *m)
{
	return m->was_unclean;
}

bool meta_was_closed(const struct meta *m)
{
	return m->was_closed;
}

void meta_close(struct meta *m)
{
	if (!m)
		return;
	wd_lock(&m->lock);
	m->is_stopping = true;
	wd_cond_signal(&m->wake);
	wd_unlock(&m->lock);
	pthread_join(m->writer, NULL);
	/* the mark says that all data below records reached the disk: data first */
	if (m->error == 0 && syncfs(m->dir_fd) == 0)
		(void)meta_env_put_info(&m->env, "clean", m->boot_id, strlen(m->boot_id));
	free_meta(m);
}
