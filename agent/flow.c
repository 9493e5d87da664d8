/* SPDX-License-Identifier: Apache-2.0 */
/* See flow.h. The lock of the limit of all is a leaf below the queues'. */
#include "agent/flow.h"

#include <pthread.h>
#include <stdlib.h>

#include "common/lock.h"

static struct {
	struct wd_mutex lock;
	struct bucket bucket WD_GUARDED_BY(lock);
	_Atomic uint64_t rate;
} all = {.lock = WD_MUTEX_INIT};

struct flow *flow_new(uint64_t bytes_per_s)
{
	struct flow *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->refs = 1;
	f->rate = bytes_per_s;
	return f;
}

struct flow *flow_ref(struct flow *f)
{
	if (f)
		atomic_fetch_add(&f->refs, 1);
	return f;
}

void flow_unref(struct flow *f)
{
	if (f && atomic_fetch_sub(&f->refs, 1) == 1)
		free(f);
}

void flows_set_limit(uint64_t bytes_per_s)
{
	wd_lock(&all.lock);
	bucket_init(&all.bucket, bytes_per_s, wd_now_ns());
	atomic_store(&all.rate, bytes_per_s);
	wd_unlock(&all.lock);
}

uint64_t flows_limit(void)
{
	return atomic_load(&all.rate);
}

bool flows_allow(int64_t now_ns, int64_t *ret_at_ns)
{
	bool is_allowed;

	if (flows_limit() == 0)
		return true;
	wd_lock(&all.lock);
	is_allowed = bucket_allows(&all.bucket, now_ns, ret_at_ns);
	wd_unlock(&all.lock);
	return is_allowed;
}

void flows_take(uint64_t bytes)
{
	if (flows_limit() == 0)
		return;
	wd_lock(&all.lock);
	bucket_take(&all.bucket, bytes);
	wd_unlock(&all.lock);
}

void flows_return(uint64_t bytes)
{
	if (flows_limit() == 0)
		return;
	wd_lock(&all.lock);
	bucket_return(&all.bucket, bytes);
	wd_unlock(&all.lock);
}
