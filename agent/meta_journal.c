/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal in front of the metadata: names and ids are given to a kernel only when the agent finds them
 * again after it was killed, and that must not take a synced commit on a busy disk.
 *
 *	meta_put ─► pending ─► LMDB, synced, some time later
 *	meta_save      └─► appended to a file, not synced: survives the process, not the machine
 *
 * There are two files, one for each batch: that of a batch is emptied when the batch is committed, so
 * that what a start finds is no older than what LMDB has, and doing it twice changes nothing. A record:
 *
 *	magic, length, sequence, checksum (seeded by the run's token), then entries: flags, key, value
 *
 * The token is made at each start and committed with it (META_INFO "journal"): records of other runs or
 * other environments are not believed. Reading stops at the first record that is torn, or whose sequence
 * does not rise (what a file that could not be emptied still has). Full, or on an error, the journal is
 * off until the batches are committed: then meta_save waits for commits.
 */
#include "agent/meta_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/log.h"

#define RECORD_MAGIC 0x314a4457u /* "WDJ1" */
#define TOKEN "journal"

struct record_head {
	uint32_t magic, len; /* of what follows */
	uint64_t seq;	     /* of the newest change in it */
	uint64_t checksum;   /* of the rest of the head and of what follows */
};

struct entry_head {
	uint16_t is_delete, key_len;
	uint32_t len;
};

static uint64_t checksum(uint64_t token, const struct record_head *h, const void *data)
{
	uint64_t seed = XXH3_64bits_withSeed(h, offsetof(struct record_head, checksum), token);

	return XXH3_64bits_withSeed(data, h->len, seed);
}

static int write_all(int fd, const unsigned char *data, size_t len, uint64_t offset)
{
	if (WD_FAULT("meta.journal"))
		return -ENOSPC;
	while (len > 0) {
		ssize_t n = pwrite(fd, data, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		data += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* ---- opening, and what the last run left ---- */

static void open_file(struct meta *m, const char *dir, int i)
{
	char path[4096];

	if (m->journal.fd[i] >= 0)
		return;
	if ((size_t)snprintf(path, sizeof(path), "%s/meta-journal.%d", dir, i) >= sizeof(path))
		return;
	m->journal.fd[i] = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (m->journal.fd[i] < 0)
		wd_warn("journal '%s': %s; names wait for the disk instead", path, strerror(errno));
}

/* False at the first one that makes no sense. */
static bool replay_entry(struct meta *m, const unsigned char **p, size_t *left)
{
	struct entry_head e;
	struct meta_op op;

	if (*left < sizeof(e))
		return false;
	memcpy(&e, *p, sizeof(e));
	*p += sizeof(e);
	*left -= sizeof(e);
	if (e.key_len < 2 || e.key_len > META_KEY_MAX + 1 || e.len > META_VALUE_MAX ||
		*left < (size_t)e.key_len + e.len || **p >= META_TABLES)
		return false;
	op = (struct meta_op){**p, *p + 1, e.key_len - 1u, e.is_delete ? NULL : *p + e.key_len, e.len};
	wd_lock(&m->lock);
	meta_queue_locked(m, meta_entry_new(&op));
	wd_unlock(&m->lock);
	*p += e.key_len + e.len;
	*left -= e.key_len + e.len;
	return true;
}

/* The first record at p, when it is whole and newer than `after`. */
static bool read_head(uint64_t token, const unsigned char *p, size_t left, uint64_t after,
	struct record_head *ret_head)
{
	if (left < sizeof(*ret_head))
		return false;
	memcpy(ret_head, p, sizeof(*ret_head));
	return ret_head->magic == RECORD_MAGIC && ret_head->len <= left - sizeof(*ret_head) &&
	       ret_head->seq > after &&
	       ret_head->checksum == checksum(token, ret_head, p + sizeof(*ret_head));
}

static unsigned replay_file(struct meta *m, uint64_t token, const unsigned char *p, size_t left)
{
	struct record_head h = {.seq = 0};
	unsigned n = 0;

	while (read_head(token, p, left, h.seq, &h)) {
		const unsigned char *entry = p + sizeof(h);
		size_t entries_left = h.len;

		while (entries_left > 0 && replay_entry(m, &entry, &entries_left))
			n++;
		p += sizeof(h) + h.len;
		left -= sizeof(h) + h.len;
	}
	return n;
}

static unsigned char *read_file(int fd, size_t *ret_len)
{
	struct stat st;
	unsigned char *data;
	ssize_t n;

	*ret_len = 0;
	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size <= 0 || st.st_size > 2 * JOURNAL_MAX)
		return NULL;
	data = malloc((size_t)st.st_size);
	n = data ? pread(fd, data, (size_t)st.st_size, 0) : -1;
	*ret_len = n > 0 ? (size_t)n : 0;
	return data;
}

void meta_journal_replay(struct meta *m, uint64_t token)
{
	wd_autofree unsigned char *a = NULL, *b = NULL;
	size_t a_len, b_len;
	struct record_head ha = {0}, hb = {0};
	bool is_b_first;
	unsigned n;

	a = read_file(m->journal.fd[0], &a_len);
	b = read_file(m->journal.fd[1], &b_len);
	/* the older batch first */
	is_b_first = read_head(token, b, b_len, 0, &hb) &&
		     (!read_head(token, a, a_len, 0, &ha) || hb.seq < ha.seq);
	n = is_b_first ? replay_file(m, token, b, b_len) : replay_file(m, token, a, a_len);
	n += is_b_first ? replay_file(m, token, a, a_len) : replay_file(m, token, b, b_len);
	if (n > 0)
		wd_info("metadata '%s/meta': %u changes taken from the journal", m->dir, n);
}

void meta_journal_open(struct meta *m, const char *dir, bool is_believed)
{
	struct meta_journal *j = &m->journal;
	uint64_t token = 0;
	size_t len;

	for (int i = 0; i < 2; i++)
		open_file(m, dir, i);
	j->is_off = j->fd[0] < 0 || j->fd[1] < 0;
	if (is_believed &&
		meta_env_get(&m->env, META_INFO, TOKEN, strlen(TOKEN), &token, sizeof(token), &len) == 0 &&
		len == sizeof(token))
		meta_journal_replay(m, token);
	if (getrandom(&j->token, sizeof(j->token), 0) != sizeof(j->token))
		j->is_off = true;
}

/* Empties a file whose batch is committed. Its content does no harm should that fail. */
static void empty(struct meta *m, int i)
{
	if (m->journal.fd[i] >= 0 && ftruncate(m->journal.fd[i], 0) < 0)
		wd_warn("metadata '%s/meta': empty the journal: %s", m->dir, strerror(errno));
}

void meta_journal_begin(struct meta *m)
{
	empty(m, 0);
	empty(m, 1);
}

void meta_journal_close(struct meta *m)
{
	for (int i = 0; i < 2; i++)
		if (m->journal.fd[i] >= 0)
			close(m->journal.fd[i]);
}

/* ---- saving ---- */

/* What a kernel is told about. The store finds its objects again by their maps. */
static bool is_wanted(const struct meta_entry *x)
{
	return x->data[0] == META_NODES || x->data[0] == META_CHILDREN || x->data[0] == META_COOKIES ||
	       x->data[0] == META_DATASETS;
}

/* The oldest change of b that is newer than seq: they are in the order in which they came. */
static struct meta_entry *first_after(const struct meta_batch *b, uint64_t seq)
{
	struct meta_entry *x = NULL, *at;

	if (!b->entries)
		return NULL;
	for (at = ELMT_FROM_HH(b->entries->hh.tbl, b->entries->hh.tbl->tail); at && at->seq > seq;
		at = at->hh.prev)
		x = at;
	return x;
}

static size_t size_of(const struct meta_entry *x)
{
	size_t n = 0;

	for (; x; x = x->hh.next)
		n += is_wanted(x) ? sizeof(struct entry_head) + x->key_len + x->len : 0;
	return n;
}

static unsigned char *append(unsigned char *p, const struct meta_entry *x)
{
	for (; x; x = x->hh.next) {
		struct entry_head e = {x->is_delete, x->key_len, x->len};

		if (!is_wanted(x))
			continue;
		memcpy(p, &e, sizeof(e));
		memcpy(p + sizeof(e), x->data, (size_t)x->key_len + x->len);
		p += sizeof(e) + x->key_len + x->len;
	}
	return p;
}

/* One record with all that was not saved yet; NULL when there is no room for it. */
static unsigned char *make_record_locked(struct meta *m, size_t *ret_len) WD_REQUIRES(m->lock)
{
	const struct meta_journal *j = &m->journal;
	const struct meta_entry *older = first_after(&m->committing, j->saved_seq);
	const struct meta_entry *newer = first_after(&m->pending, j->saved_seq);
	struct record_head h = {.magic = RECORD_MAGIC, .seq = m->seq};
	size_t len = size_of(older) + size_of(newer);
	unsigned char *record;

	if (len > JOURNAL_MAX - sizeof(h) || j->bytes[j->active] + sizeof(h) + len > JOURNAL_MAX)
		return NULL;
	record = malloc(sizeof(h) + len);
	if (!record)
		return NULL;
	h.len = (uint32_t)len;
	append(append(record + sizeof(h), older), newer);
	h.checksum = checksum(j->token, &h, record + sizeof(h));
	memcpy(record, &h, sizeof(h));
	*ret_len = sizeof(h) + len;
	return record;
}

/* Appends what is not saved. -ENOSPC, or the error of writing: the journal is of no help. */
static int save_locked(struct meta *m) WD_REQUIRES(m->lock)
{
	struct meta_journal *j = &m->journal;
	wd_autofree unsigned char *record = NULL;
	uint64_t seq = m->seq, at = j->bytes[j->active];
	int fd = j->fd[j->active], file = j->active, rc;
	size_t len;

	record = make_record_locked(m, &len);
	if (!record)
		return -ENOSPC;
	j->is_saving = true;
	wd_unlock(&m->lock);
	rc = write_all(fd, record, len, at);
	wd_lock(&m->lock);
	j->is_saving = false;
	if (rc == 0) {
		j->bytes[file] = at + len;
		if (seq > j->saved_seq)
			j->saved_seq = seq;
	} else {
		if (!j->is_told)
			wd_warn("metadata '%s/meta': journal: %s; names wait for the disk instead",
				m->dir, strerror(-rc));
		j->is_told = j->is_off = true;
	}
	wd_cond_broadcast(&m->done);
	return rc;
}

bool meta_is_saved(struct meta *m, enum meta_table table, const void *key, size_t key_len)
{
	const struct meta_entry *x;
	bool is_saved;

	wd_lock(&m->lock);
	x = meta_find_locked(m, table, key, key_len);
	is_saved = !x || x->seq <= m->journal.saved_seq;
	wd_unlock(&m->lock);
	return is_saved;
}

int meta_save(struct meta *m, enum meta_table table, const void *key, size_t key_len)
{
	struct meta_journal *j = &m->journal;
	const struct meta_entry *x;
	uint64_t target;
	int rc = 0;

	wd_lock(&m->lock);
	x = meta_find_locked(m, table, key, key_len);
	target = x ? x->seq : 0;
	while (rc == 0 && target > j->saved_seq && target > m->done_seq) {
		if (j->is_off)
			rc = -ENOSPC;
		else if (j->is_saving)
			wd_cond_wait(&m->done, &m->lock);
		else
			rc = save_locked(m);
	}
	wd_unlock(&m->lock);
	return rc < 0 ? meta_flush(m) : 0;
}

/* ---- the writer's part ---- */

void meta_journal_swap_locked(struct meta *m)
{
	m->journal.active ^= 1;
}

void meta_journal_committed_locked(struct meta *m)
{
	struct meta_journal *j = &m->journal;
	bool is_lost = j->is_off;
	int old = j->active ^ 1;

	while (j->is_saving)
		wd_cond_wait(&m->done, &m->lock);
	if (j->bytes[old] == 0 && !is_lost)
		return;
	/* nobody appends to this one before the next swap, nor to any while it is off */
	wd_unlock(&m->lock);
	empty(m, old);
	if (is_lost)
		empty(m, old ^ 1);
	wd_lock(&m->lock);
	j->bytes[old] = 0;
	if (!is_lost || j->fd[0] < 0 || j->fd[1] < 0)
		return;
	/* what is pending is not in it: from here on it is again, all of it */
	j->bytes[old ^ 1] = 0;
	j->saved_seq = m->done_seq;
	j->is_off = false;
}

void meta_journal_lost_locked(struct meta *m)
{
	m->journal.is_off = true;
}
