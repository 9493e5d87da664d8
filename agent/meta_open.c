/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of the metadata: opening and closing, the epoch, node ids, the clean mark.
 *
 * The clean mark (META_INFO "clean") is written at the very end, after syncfs, and removed at the
 * next start. When it is missing and the machine was restarted since ("boot" differs), the cache
 * files may lack what the records promise: unclean, and another era begins. A killed process loses
 * nothing that the kernel has.
 */
#include "agent/meta_internal.h"
#include "agent/metrics.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"

#define MAP_SIZE ((size_t)64 << 30)
#define ID_RANGE 65536 /* ids reserved at a time */
#define ID_FIRST 16
#define ID_NEXT "next-id"
#define ID_CHECK "next-id-check" /* the same number: written with it */
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
	x = meta_entry_new(&(struct meta_op){
		META_INFO, ID_NEXT, strlen(ID_NEXT), &m->asked, sizeof(m->asked)});
	meta_queue_locked(m, x);
	if (META_KEEPS_ERAS) {
		x = meta_entry_new(&(struct meta_op){
			META_INFO, ID_CHECK, strlen(ID_CHECK), &m->asked, sizeof(m->asked)});
		meta_queue_locked(m, x);
	}
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

static int open_dir(const char *dir, struct wd_err *err)
{
	int fd;

	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return wd_err_sys(err, errno, "create cache directory '%s'", dir);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? wd_err_sys(err, errno, "open cache directory '%s'", dir) : fd;
}

/* One agent per directory. The predecessor may still be dying: give it a moment. */
static int lock_dir(struct meta *m, struct wd_err *err)
{
	const struct timespec pause = {0, 20 * 1000000};

	if (m->lock_fd >= 0)
		return 0;
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

int meta_wait_for_lock(const char *dir, struct wd_err *err)
{
	wd_autoclose int dir_fd = open_dir(dir, err), fd = -1;

	if (dir_fd < 0)
		return dir_fd;
	fd = openat(dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return wd_err_sys(err, errno, "open '%s/lock'", dir);
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return wd_steal_fd(&fd);
	wd_info("another agent has the cache directory '%s': waiting for its end", dir);
	while (flock(fd, LOCK_EX) < 0)
		if (errno != EINTR)
			return wd_err_sys(err, errno, "lock '%s/lock'", dir);
	return wd_steal_fd(&fd);
}

static void read_boot_id(char *ret_id, size_t cap)
{
	wd_autoclose int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, ret_id, cap - 1);

#ifdef WD_FAULTS
	const char *fake = getenv("WARPDRIVE_BOOT_ID"); /* for tests: the machine was restarted */

	if (fake)
		n = snprintf(ret_id, cap, "%.*s", (int)cap - 1, fake) > 0 ? (ssize_t)strlen(ret_id) : -1;
#endif
	/* without it every start looks like one in the same boot */
	ret_id[n > 0 ? n : 0] = '\0';
	ret_id[strcspn(ret_id, "\n")] = '\0';
}

static int get_info(struct meta *m, const char *name, void *value, size_t cap, size_t *ret_len)
{
	return meta_env_get(&m->env, META_INFO, name, strlen(name), value, cap, ret_len);
}

/* Queues a change of META_INFO. */
static void put_info(struct meta *m, const char *name, const void *value, size_t len)
{
	struct meta_op op = {META_INFO, name, strlen(name), value, len};

	wd_lock(&m->lock);
	meta_queue_locked(m, meta_entry_new(&op));
	wd_unlock(&m->lock);
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
	put_info(m, "epoch", &m->epoch, sizeof(m->epoch));
	return 0;
}

/* *ret_is_foreign: a program that knows nothing of eras gave out ids since. It leaves ID_CHECK alone. */
static void load_ids(struct meta *m, bool *ret_is_foreign)
{
	size_t len;
	uint64_t next = 0, check = 0;
	int rc = get_info(m, ID_NEXT, &next, sizeof(next), &len);

	if (rc < 0 || len != sizeof(next) || next < ID_FIRST)
		next = ID_FIRST;
	*ret_is_foreign = get_info(m, ID_CHECK, &check, sizeof(check), &len) == 0 && check != next;
	m->next_id = next;
	m->reserved = m->asked = m->next_id + ID_RANGE;
	put_info(m, ID_NEXT, &m->reserved, sizeof(m->reserved));
	if (META_KEEPS_ERAS)
		put_info(m, ID_CHECK, &m->reserved, sizeof(m->reserved));
}

static void load_boot(struct meta *m, bool is_foreign)
{
	const uint32_t minor = META_FORMAT_MINOR;
	char boot[sizeof(m->boot_id)], clean[sizeof(m->boot_id)];
	size_t len = 0, clean_len = 0;
	int64_t lost;
	int rc;

	if (get_info(m, "lost", &lost, sizeof(lost), &len) == 0)
		atomic_store(&m->lost_ms, lost);
	read_boot_id(m->boot_id, sizeof(m->boot_id));
	m->was_closed = get_info(m, "clean", clean, sizeof(clean), &clean_len) == 0;
	rc = get_info(m, "boot", boot, sizeof(boot), &len);
	if (rc == 0 && !m->was_closed)
		m->was_unclean = len != strlen(m->boot_id) || memcmp(boot, m->boot_id, len) != 0;
	if (m->was_unclean) {
		metric_inc(METRIC_UNCLEAN_STARTS);
		wd_warn("cache '%s': the machine ended without a clean stop: what is cached is checked before "
			"it is used",
			m->dir);
	}
	if (META_KEEPS_ERAS && get_info(m, "era", &m->era, sizeof(m->era), &len) < 0)
		m->era = 0;
	if (META_KEEPS_ERAS && (m->was_unclean || is_foreign || m->env.is_taken_back)) {
		m->era++;
		put_info(m, "era", &m->era, sizeof(m->era));
	}
	put_info(m, "clean", NULL, 0);
	put_info(m, "boot", m->boot_id, strlen(m->boot_id));
	put_info(m, "format-minor", &minor, sizeof(minor));
}

void meta_introduce(struct meta *m)
{
	int64_t lost = meta_lost_ms(m);
	uint64_t reserved;

	wd_lock(&m->lock);
	reserved = m->asked;
	wd_unlock(&m->lock);
	put_info(m, "epoch", &m->epoch, sizeof(m->epoch));
	put_info(m, ID_NEXT, &reserved, sizeof(reserved));
	put_info(m, "boot", m->boot_id, strlen(m->boot_id));
	put_info(m, "clean", NULL, 0);
	put_info(m, "lost", &lost, sizeof(lost));
	if (!META_KEEPS_ERAS)
		return;
	put_info(m, ID_CHECK, &reserved, sizeof(reserved));
	put_info(m, "era", &m->era, sizeof(m->era));
	put_info(m, "journal", &m->journal.token, sizeof(m->journal.token));
}

/* Reads what the last agent left, and says in one transaction that we are here. */
static int load_state(struct meta *m, const char *journal_dir)
{
	bool is_foreign;
	int rc = load_epoch(m);

	if (rc < 0)
		return rc;
	load_ids(m, &is_foreign);
	load_boot(m, is_foreign);
	m->journal.is_off = true;
	if (META_KEEPS_ERAS) {
		meta_journal_open(m, journal_dir, !is_foreign && !m->was_closed && !m->was_unclean &&
							  !m->env.is_taken_back);
		put_info(m, "journal", &m->journal.token, sizeof(m->journal.token));
	}
	rc = meta_env_commit(&m->env, &m->pending);
	wd_lock(&m->lock);
	meta_batch_free(&m->pending);
	m->done_seq = m->journal.saved_seq = m->seq;
	wd_unlock(&m->lock);
	if (rc == 0)
		meta_journal_begin(m);
	return rc;
}

static void free_meta(struct meta *m)
{
	if (m->env.env)
		meta_env_close(&m->env);
	meta_journal_close(m);
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

static int open_all(struct meta *m, const char *dir, const char *journal_dir, size_t map_size,
	uint32_t format, struct wd_err *err)
{
	int rc;

	m->dir_fd = open_dir(dir, err);
	if (m->dir_fd < 0)
		return m->dir_fd;
	rc = lock_dir(m, err);
	if (rc == 0)
		rc = meta_env_open(&m->env, m->dir, map_size, format, err);
	if (rc < 0)
		return rc;
	m->has_other_format = meta_env_has_other(dir);
	rc = load_state(m, journal_dir);
	/* it could be opened, and is of no use all the same: after META_DEATHS_MAX times it is set aside */
	for (int i = 0; rc < 0 && atomic_load(&m->env.is_dead) && i < META_DEATHS_MAX; i++) {
		rc = meta_env_revive(&m->env, dir, err);
		if (rc < 0)
			return rc;
		rc = load_state(m, journal_dir);
	}
	if (rc == 0)
		rc = -pthread_create(&m->writer, NULL, meta_run_writer, m);
	return rc < 0 ? wd_err_sys(err, -rc, "start metadata '%s/meta'", dir) : 0;
}

/* lock_fd: see meta_open_with */
static int open_new(const char *dir, const char *journal_dir, int lock_fd, size_t map_size, uint32_t format,
	struct meta **ret_meta, struct wd_err *err)
{
	struct meta *m = calloc(1, sizeof(*m));
	int rc;

	if (!m && lock_fd >= 0)
		close(lock_fd);
	if (!m)
		return wd_err_sys(err, ENOMEM, "open metadata of '%s'", dir);
	m->dir_fd = m->journal.fd[0] = m->journal.fd[1] = -1;
	m->lock_fd = lock_fd;
	m->dir = strdup(dir);
	wd_mutex_init(&m->lock);
	wd_cond_init(&m->wake);
	wd_cond_init(&m->done);
	rc = m->dir ? open_all(m, dir, journal_dir, map_size, format, err)
		    : wd_err_sys(err, ENOMEM, "open metadata of '%s'", dir);
	if (rc < 0) {
		free_meta(m);
		return rc;
	}
	*ret_meta = m;
	return 0;
}

/* WARPDRIVE_CACHE_FORMAT plays another release in tests. */
static uint32_t own_format(void)
{
#ifdef WD_FAULTS
	const char *other = getenv("WARPDRIVE_CACHE_FORMAT");

	if (other)
		return (uint32_t)strtoul(other, NULL, 10);
#endif
	return META_FORMAT;
}

int meta_open_sized(const char *dir, size_t map_size, struct meta **ret_meta, struct wd_err *err)
{
	return open_new(dir, dir, -1, map_size, own_format(), ret_meta, err);
}

int meta_open_as(const char *dir, uint32_t format, struct meta **ret_meta, struct wd_err *err)
{
	return open_new(dir, dir, -1, MAP_SIZE, format, ret_meta, err);
}

int meta_open_with(
	const char *dir, const char *journal_dir, int lock_fd, struct meta **ret_meta, struct wd_err *err)
{
	return open_new(dir, journal_dir, lock_fd, MAP_SIZE, own_format(), ret_meta, err);
}

int meta_open(const char *dir, struct meta **ret_meta, struct wd_err *err)
{
	return meta_open_sized(dir, MAP_SIZE, ret_meta, err);
}

bool meta_has_other_format(const struct meta *m)
{
	return m->has_other_format;
}

bool meta_was_unclean(const struct meta *m)
{
	return m->was_unclean;
}

uint64_t meta_era(const struct meta *m)
{
	return m->era;
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
