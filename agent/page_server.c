/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See page_server.h. Whoever asks is put in line and the thread is woken; when the page is there, all in the line are
 * told. While nobody asks, counters are sampled and nothing else is done.
 */
#include "agent/page_server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/metrics.h"
#include "agent/page.h"
#include "agent/page_walk.h"
#include "common/cleanup.h"

#define FRESH_NS 1000000000LL
#define WALK_MS 300
#define MOUNTS_MAX 1024

/* Who asked for a page, and how he is told. */
struct waiting {
	void (*ready)(void *arg);
	void *arg;
};

struct page_server {
	struct agent *agent;
	pthread_t thread;
	struct wd_mutex lock;
	struct wd_cond wake;
	bool is_stopping WD_GUARDED_BY(lock);
	struct waiting waiting[PAGE_WAITING] WD_GUARDED_BY(lock);
	unsigned nwaiting WD_GUARDED_BY(lock);
	char *text WD_GUARDED_BY(lock); /* the last page; NULL: none yet */
	size_t len WD_GUARDED_BY(lock);
	int64_t made_ns WD_GUARDED_BY(lock);
	/* the thread's own */
	int64_t since_s;
	struct rates rates;
	struct page_walk *walk;
	struct page page;
	char host[256];
};

/* ---- what is shown ---- */

static void look_at_cache(struct page_server *s, struct page *p)
{
	struct store_stats stats;
	struct meta_stats meta;

	store_get_stats(s->agent->store, &stats);
	meta_get_stats(s->agent->meta, &meta);
	p->cache_dir = s->agent->settings->cache_dir;
	p->used_bytes = stats.used_bytes;
	p->limit_bytes = stats.limit_bytes;
	p->free_bytes = stats.free_bytes;
	p->objects = stats.objects;
	p->cache_trouble = stats.is_broken	 ? "the disk gives errors; reads go past the cache"
			   : meta.is_memory_only ? "metadata cannot be read; it goes on in memory"
			   : meta.is_failing	 ? "metadata cannot be written; it goes on in memory"
						 : NULL;
}

static void count_datasets(struct page_server *s, struct mount *const *mounts, unsigned n, struct page *p)
{
	struct dataset *sets[PAGE_SETS];
	unsigned nsets = 0;

	for (unsigned i = 0; i < n; i++) {
		unsigned k = 0;

		while (k < nsets && sets[k] != mounts[i]->dataset)
			k++;
		if (k == nsets) {
			sets[nsets++] = mounts[i]->dataset;
			if (k < PAGE_DATASETS)
				p->datasets[p->ndatasets++] = (struct page_dataset){.url = mounts[i]->display};
		}
		if (k < PAGE_DATASETS)
			p->datasets[k].mounts++;
	}
	page_walk_step(s->walk, sets, nsets, WALK_MS);
	p->is_counting = !page_walk_is_whole(s->walk);
	for (unsigned k = 0; k < nsets; k++) {
		struct page_dataset d;

		if (k < PAGE_DATASETS) {
			page_walk_look(s->walk, sets[k], &p->datasets[k]);
			p->datasets[k].is_listed = tree_is_listed(sets[k]);
			continue;
		}
		page_walk_look(s->walk, sets[k], &d);
		p->more_datasets.n++;
		p->more_datasets.files += d.files;
		p->more_datasets.bytes += d.bytes;
		p->more_datasets.cached += d.cached;
	}
}

static bool is_ill(const struct condition *c)
{
	for (int part = 0; part < CONDITION_PARTS_COUNT; part++)
		if (c->text[part][0])
			return true;
	return false;
}

/* The ill ones first, as far as there is room. */
static void look_at_mounts(struct mount *const *mounts, unsigned n, struct page *p)
{
	wd_autofree struct condition *conditions = calloc(n ? n : 1, sizeof(*conditions));

	for (unsigned i = 0; conditions && i < n; i++)
		condition_look(mounts[i], &conditions[i]);
	for (int well = 0; conditions && well < 2; well++) {
		for (unsigned i = 0; i < n; i++) {
			if (is_ill(&conditions[i]) == (well == 1))
				continue;
			if (p->nmounts < PAGE_MOUNTS) {
				p->mounts[p->nmounts++] = (struct page_mount){.target = mounts[i]->target,
					.url = mounts[i]->display,
					.has_passthrough = !atomic_load(&mounts[i]->has_no_passthrough),
					.condition = conditions[i]};
			} else {
				p->more_mounts++;
				p->more_ill += well == 0;
			}
		}
	}
}

/* A page of this moment; NULL: out of memory. */
static char *make(struct page_server *s, size_t *ret_len)
{
	wd_autofree struct mount **mounts = calloc(MOUNTS_MAX, sizeof(*mounts));
	struct page *p = &s->page;
	unsigned n = 0, left = 0;
	char *text = NULL;
	FILE *out;

	if (!mounts)
		return NULL;
	wd_lock(&s->agent->lock);
	for (struct mount *mnt = s->agent->mounts; mnt; mnt = mnt->next) {
		if (n < MOUNTS_MAX)
			mounts[n++] = mount_ref(mnt);
		else
			left++;
	}
	wd_unlock(&s->agent->lock);
	*p = (struct page){.now_s = time(NULL), .since_s = s->since_s, .host = s->host, .rates = s->rates};
	look_at_cache(s, p);
	count_datasets(s, mounts, n, p);
	look_at_mounts(mounts, n, p);
	p->more_mounts += left;
	p->nlog = wd_log_recent(p->log);
	out = open_memstream(&text, ret_len);
	if (out) {
		page_print(p, out);
		fclose(out);
	}
	for (unsigned i = 0; i < n; i++)
		mount_unref(mounts[i]);
	return text;
}

static void sample(struct page_server *s)
{
	static const enum metric metrics[RATES] = {[RATE_LOCAL] = METRIC_READ_LOCAL,
		[RATE_SERVERS] = METRIC_SERVER_READ_BYTES, [RATE_PEER] = METRIC_READ_PEER,
		[RATE_ORIGIN] = METRIC_READ_ORIGIN};
	uint64_t values[RATES];

	mounts_counts_take(s->agent);
	for (int i = 0; i < RATES; i++)
		values[i] = atomic_load_explicit(&metric_values[metrics[i]], memory_order_relaxed);
	rates_sample(&s->rates, values, wd_now_ns());
}

/* ---- the thread ---- */

static void answer(struct page_server *s)
{
	size_t len = 0;
	char *text = make(s, &len), *old;
	struct waiting waiting[PAGE_WAITING];
	unsigned n;

	wd_lock(&s->lock);
	old = text ? s->text : NULL;
	if (text) {
		s->text = text;
		s->len = len;
		s->made_ns = wd_now_ns();
	}
	memcpy(waiting, s->waiting, sizeof(waiting));
	n = s->nwaiting;
	s->nwaiting = 0;
	wd_unlock(&s->lock);
	free(old);
	for (unsigned i = 0; i < n; i++)
		waiting[i].ready(waiting[i].arg);
}

static void *run(void *arg)
{
	struct page_server *s = arg;
	int64_t due_ns = 0;

	wd_lock(&s->lock);
	while (!s->is_stopping) {
		bool is_asked = s->nwaiting > 0;

		if (!is_asked && wd_now_ns() < due_ns) {
			wd_cond_wait_until(&s->wake, &s->lock, due_ns);
			continue;
		}
		wd_unlock(&s->lock);
		if (wd_now_ns() >= due_ns) {
			sample(s);
			due_ns = wd_now_ns() + RATES_EVERY_S * 1000000000LL;
		}
		if (is_asked)
			answer(s);
		wd_lock(&s->lock);
	}
	wd_unlock(&s->lock);
	return NULL;
}

int page_server_start(struct agent *a, struct page_server **ret_server, struct wd_err *err)
{
	struct page_server *s = calloc(1, sizeof(*s));
	int rc = -ENOMEM;

	if (s)
		s->walk = page_walk_new(a->tree, a->store);
	if (s && s->walk) {
		s->agent = a;
		s->since_s = time(NULL);
		if (gethostname(s->host, sizeof(s->host) - 1) < 0)
			strcpy(s->host, "this node");
		wd_mutex_init(&s->lock);
		wd_cond_init(&s->wake);
		rc = -pthread_create(&s->thread, NULL, run, s);
	}
	if (rc < 0) {
		if (s)
			page_walk_free(s->walk);
		free(s);
		return wd_err_sys(err, -rc, "start the status page");
	}
	*ret_server = s;
	return 0;
}

void page_server_stop(struct page_server *s)
{
	if (!s)
		return;
	wd_lock(&s->lock);
	s->is_stopping = true;
	wd_cond_signal(&s->wake);
	wd_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	for (unsigned i = 0; i < s->nwaiting; i++)
		s->waiting[i].ready(s->waiting[i].arg);
	s->nwaiting = 0;
}

void page_server_free(struct page_server *s)
{
	if (!s)
		return;
	page_walk_free(s->walk);
	wd_cond_done(&s->wake);
	wd_mutex_done(&s->lock);
	free(s->text);
	free(s);
}

/* ---- who asks ---- */

char *page_server_text(struct page_server *s, bool any_age, size_t *ret_len)
{
	char *copy = NULL;

	wd_lock(&s->lock);
	if (s->text && (any_age || wd_now_ns() - s->made_ns < FRESH_NS)) {
		copy = malloc(s->len + 1);
		if (copy) {
			memcpy(copy, s->text, s->len + 1);
			*ret_len = s->len;
		}
	}
	wd_unlock(&s->lock);
	return copy;
}

int page_server_ask(struct page_server *s, void (*ready)(void *arg), void *arg)
{
	int rc = 0;

	wd_lock(&s->lock);
	if (s->is_stopping) {
		rc = -ESHUTDOWN;
	} else if (s->nwaiting == PAGE_WAITING) {
		rc = -EBUSY;
	} else {
		s->waiting[s->nwaiting++] = (struct waiting){ready, arg};
		wd_cond_signal(&s->wake);
	}
	wd_unlock(&s->lock);
	return rc;
}
