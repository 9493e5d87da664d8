/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metadata: batches in memory in front of an LMDB environment (meta_env.c).
 *
 *	meta_put -> pending --(50 ms, 4096 changes, a flush)--> committing --> LMDB
 *	meta_get <- pending, else committing, else LMDB
 *
 * Both batches are hash tables under `lock`; the writer thread alone moves pending to committing
 *and reads committing without the lock, while nobody changes it. A commit is synced.
 *
 * When a commit fails the batch stays where it is, is read from there and tried again once a second
 * (at once for a flush). When pending reaches its bound meanwhile, the older batch is given up:
 *memory stays bounded, and it is said once.
 */
#include "agent/meta_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/fault.h"
#include "common/lock.h"
#include "common/log.h"

#define BATCH_AGE_NS (50 * 1000000LL)
#define BATCH_OPS 4096 /* committed without waiting longer */
#define BATCH_BYTES ((size_t)2 << 20)
#define BOUND_OPS 32768 /* meta_put waits */
#define BOUND_BYTES ((size_t)16 << 20)
#define RETRY_NS 1000000000LL

static bool is_full(const struct meta_batch *b, unsigned part)
{
	return b->ops >= BOUND_OPS / part || b->bytes >= BOUND_BYTES / part;
}

void meta_batch_free(struct meta_batch *b)
{
	struct meta_entry *x = b->entries, *next;

	HASH_CLEAR(hh, b->entries);
	for (; x; x = next) {
		next = x->hh.next;
		free(x);
	}
	*b = (struct meta_batch){0};
}

/* key: with the table byte */
static struct meta_entry *find(const struct meta_batch *b, const unsigned char *key, size_t key_len)
{
	struct meta_entry *x;

	HASH_FIND(hh, b->entries, key, key_len, x);
	return x;
}

struct meta_entry *meta_entry_new(const struct meta_op *op)
{
	struct meta_entry *x;

	assert(op->table < META_TABLES && op->key_len > 0 && op->key_len <= META_KEY_MAX);
	assert(op->len <= META_VALUE_MAX);
	x = alloc_patiently(sizeof(*x) + 1 + op->key_len + op->len);
	x->is_delete = !op->value;
	x->key_len = (uint16_t)(op->key_len + 1);
	x->len = op->value ? (uint32_t)op->len : 0;
	x->data[0] = (unsigned char)op->table;
	memcpy(x->data + 1, op->key, op->key_len);
	if (x->len)
		memcpy(x->data + x->key_len, op->value, x->len);
	return x;
}

void meta_queue_locked(struct meta *m, struct meta_entry *x) WD_REQUIRES(m->lock)
{
	struct meta_batch *b = &m->pending;
	struct meta_entry *old = find(b, x->data, x->key_len);

	if (old) {
		b->bytes -= sizeof(*old) + old->key_len + old->len;
		b->ops--;
		HASH_DELETE(hh, b->entries, old);
		free(old);
	}
	if (b->ops == 0) {
		b->since_ns = wd_now_ns();
		wd_cond_signal(&m->wake);
	}
	HASH_ADD_KEYPTR(hh, b->entries, x->data, x->key_len, x);
	b->bytes += sizeof(*x) + x->key_len + x->len;
	if (++b->ops == BATCH_OPS || is_full(b, 1))
		wd_cond_signal(&m->wake);
	x->seq = b->last_seq = ++m->seq;
}

void meta_apply(struct meta *m, const struct meta_op *ops, size_t nops)
{
	struct meta_entry *entries[16];

	assert(nops <= 16);
	for (size_t i = 0; i < nops; i++)
		entries[i] = meta_entry_new(&ops[i]);
	wd_lock(&m->lock);
	for (size_t i = 0; i < nops; i++)
		meta_queue_locked(m, entries[i]);
	wd_unlock(&m->lock);
}

void meta_throttle(struct meta *m)
{
	wd_lock(&m->lock);
	while (is_full(&m->pending, 1))
		wd_cond_wait(&m->done, &m->lock);
	wd_unlock(&m->lock);
}

bool meta_is_busy(struct meta *m)
{
	bool is_busy;

	wd_lock(&m->lock);
	is_busy = is_full(&m->pending, 2);
	wd_unlock(&m->lock);
	return is_busy;
}

void meta_put(struct meta *m, enum meta_table table, const void *key, size_t key_len,
	const void *value, size_t len)
{
	struct meta_op op = {table, key, key_len, value ? value : "", len};

	meta_throttle(m);
	meta_apply(m, &op, 1);
}

void meta_del(struct meta *m, enum meta_table table, const void *key, size_t key_len)
{
	struct meta_op op = {table, key, key_len, NULL, 0};

	meta_throttle(m);
	meta_apply(m, &op, 1);
}

const struct meta_entry *meta_find_locked(
	struct meta *m, enum meta_table table, const void *key, size_t key_len)
{
	unsigned char full[META_KEY_MAX + 1];
	const struct meta_entry *x;

	assert(key_len > 0 && key_len <= META_KEY_MAX);
	full[0] = (unsigned char)table;
	memcpy(full + 1, key, key_len);
	x = find(&m->pending, full, key_len + 1);
	return x ? x : find(&m->committing, full, key_len + 1);
}

bool meta_is_pending(struct meta *m, enum meta_table table, const void *key, size_t key_len)
{
	bool is_pending;

	wd_lock(&m->lock);
	is_pending = meta_find_locked(m, table, key, key_len) != NULL;
	wd_unlock(&m->lock);
	return is_pending;
}

int meta_get(struct meta *m, enum meta_table table, const void *key, size_t key_len, void *value,
	size_t cap, size_t *ret_len)
{
	const struct meta_entry *x;
	int rc = 1;

	wd_lock(&m->lock);
	x = meta_find_locked(m, table, key, key_len);
	if (x) {
		rc = x->is_delete ? -ENOENT : x->len > cap ? -E2BIG : 0;
		if (rc == 0) {
			if (x->len)
				memcpy(value, x->data + x->key_len, x->len);
			*ret_len = x->len;
		}
	}
	wd_unlock(&m->lock);
	if (rc > 0)
		rc = meta_env_get(&m->env, table, key, key_len, value, cap, ret_len);
	if (rc == -EIO)
		meta_wake(m);
	return rc;
}

void meta_wake(struct meta *m)
{
	wd_lock(&m->lock);
	wd_cond_signal(&m->wake);
	wd_unlock(&m->lock);
}

int meta_flush(struct meta *m)
{
	uint64_t target, failed;
	int rc;

	wd_lock(&m->lock);
	target = m->seq;
	failed = m->stats.failed_commits;
	m->flushers++;
	if (m->done_seq < target)
		wd_cond_signal(&m->wake);
	while (m->done_seq < target && m->stats.failed_commits == failed)
		wd_cond_wait(&m->done, &m->lock);
	m->flushers--;
	rc = m->done_seq < target ? m->error : 0;
	wd_unlock(&m->lock);
	return rc;
}

int meta_scan(struct meta *m, enum meta_table table, const void *from, size_t from_len,
	meta_visit visit, void *arg)
{
	/* on a failing disk the scan sees what was committed: better than nothing */
	(void)meta_flush(m);
	return meta_env_scan(&m->env, table, from, from_len, visit, arg);
}

int64_t meta_lost_ms(const struct meta *m)
{
	int64_t lost = atomic_load(&m->lost_ms), died = atomic_load(&m->env.died_ms);

	return died > lost ? died : lost;
}

uint64_t meta_count(struct meta *m, enum meta_table table)
{
	return meta_env_count(&m->env, table);
}

void meta_get_stats(struct meta *m, struct meta_stats *ret_stats)
{
	wd_lock(&m->lock);
	*ret_stats = m->stats;
	wd_unlock(&m->lock);
	ret_stats->damaged = atomic_load(&m->env.damaged);
	ret_stats->is_memory_only = atomic_load(&m->env.is_dead);
}

/* ---- the writer thread ---- */

/* When the next commit is due on CLOCK_MONOTONIC; 0: now, INT64_MAX: there is nothing. */
static int64_t due_ns(struct meta *m) WD_REQUIRES(m->lock)
{
	bool is_failing = m->committing.ops > 0;

	if (m->pending.ops == 0 && !is_failing) /* a dead database is opened again even so */
		return atomic_load(&m->env.is_dead) && !m->is_stopping ? m->retry_ns : INT64_MAX;
	if (m->is_stopping || m->flushers > 0 || is_full(&m->pending, 1))
		return 0;
	if (is_failing)
		return m->retry_ns;
	if (m->pending.ops >= BATCH_OPS || m->pending.bytes >= BATCH_BYTES)
		return 0;
	return m->pending.since_ns + BATCH_AGE_NS;
}

static void succeed_locked(struct meta *m, uint64_t ns) WD_REQUIRES(m->lock)
{
	if (m->committing.ops > 0)
		m->done_seq = m->committing.last_seq;
	if (m->asked != m->reserved && m->done_seq >= m->asked_seq)
		m->reserved = m->asked;
	m->stats.commits++;
	m->stats.commit_ns += ns;
	if (m->error < 0)
		wd_info("metadata '%s/meta': commits work again", m->dir);
	m->error = 0;
	m->stats.is_failing = false;
}

static void fail_locked(struct meta *m, int error, struct meta_batch *ret_dropped)
	WD_REQUIRES(m->lock)
{
	int64_t lost;

	if (m->error == 0)
		wd_error("metadata '%s/meta': commit: %s; going on in memory", m->dir,
			strerror(-error));
	m->error = error;
	m->stats.failed_commits++;
	m->stats.is_failing = true;
	m->retry_ns = wd_now_ns() + RETRY_NS;
	if (!is_full(&m->pending, 1))
		return;
	if (m->stats.dropped == 0)
		wd_error("metadata '%s/meta': the batch is at its bound: the oldest changes are "
			 "lost",
			m->dir);
	m->stats.dropped += m->committing.ops;
	lost = meta_unix_ms();
	atomic_store(&m->lost_ms, lost);
	*ret_dropped = m->committing;
	m->committing = m->pending;
	m->pending = (struct meta_batch){0};
	meta_journal_lost_locked(m);
	meta_queue_locked(m, meta_entry_new(&(struct meta_op){META_INFO, "lost", 4, &lost, sizeof(lost)}));
}

/* Commits what is in `committing`. A dead environment is opened again first. */
static int commit(struct meta *m)
{
	struct wd_err err = WD_ERR_INIT;

	if (WD_FAULT("meta.commit"))
		return -EIO;
	if (atomic_load(&m->env.is_dead)) {
		int rc = WD_FAULT("meta.revive") ? -EIO : meta_env_revive(&m->env, m->dir, &err);

		if (rc < 0)
			return rc;
		meta_introduce(m);
		wd_info("metadata '%s/meta' was opened again", m->dir);
	}
	return meta_env_commit(&m->env, &m->committing);
}

void *meta_run_writer(void *arg)
{
	struct meta *m = arg;

	wd_lock(&m->lock);
	for (;;) {
		int64_t due = due_ns(m), start;
		struct meta_batch old = {0};
		int rc;

		if (due == INT64_MAX) {
			if (m->is_stopping)
				break;
			wd_cond_wait(&m->wake, &m->lock);
			continue;
		}
		if (due > wd_now_ns()) {
			(void)wd_cond_wait_until(&m->wake, &m->lock, due);
			continue;
		}
		if (m->committing.ops == 0) {
			m->committing = m->pending;
			m->pending = (struct meta_batch){0};
			meta_journal_swap_locked(m);
		}
		wd_cond_broadcast(&m->done); /* there is room again */
		wd_unlock(&m->lock);
		start = wd_now_ns();
		rc = commit(m);
		wd_lock(&m->lock);
		if (rc == 0) {
			succeed_locked(m, (uint64_t)(wd_now_ns() - start));
			old = m->committing;
			m->committing = (struct meta_batch){0};
			meta_journal_committed_locked(m);
		} else {
			fail_locked(m, rc, &old);
		}
		wd_cond_broadcast(&m->done);
		if (rc < 0 && m->is_stopping)
			break;
		wd_unlock(&m->lock);
		meta_batch_free(&old);
		wd_lock(&m->lock);
	}
	wd_unlock(&m->lock);
	return NULL;
}
