/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See ctl_warm_task.h. Ids are an agent's own, and one that was restarted may give the same id to another task; the
 * token is what tells them apart. So a task is begun again, with its token, whenever the agent may be another: in the
 * same agent that finds the task, in another it begins anew, and what is in the cache is not fetched again.
 */
#include "warm-job/ctl_warm_task.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>

#include "common/control.pb-c.h"

typedef Warpdrive__V1__WarmProgress WarmProgress;

static void fill_request(const struct warm_task *t, const struct warm_args *args, Warpdrive__V1__WarmRequest *q)
{
	warpdrive__v1__warm_request__init(q);
	q->target = t->where->target;
	q->max_file_size = args->max_size;
	q->workers = args->workers;
	q->bandwidth = args->bandwidth;
	q->includes = args->includes;
	q->n_includes = args->nincludes;
	q->excludes = args->excludes;
	q->n_excludes = args->nexcludes;
	q->verify = args->verify;
	q->token.data = (uint8_t *)(uintptr_t)t->token;
	q->token.len = sizeof(t->token);
	if (t->count > 0) {
		q->paths = t->where->paths + t->first;
		q->n_paths = t->count;
	}
}

size_t warm_task_size(const struct warm_task *t, const struct warm_args *args)
{
	struct warm_task without = *t;
	Warpdrive__V1__WarmRequest q;

	without.count = 0;
	fill_request(&without, args, &q);
	return warpdrive__v1__warm_request__get_packed_size(&q);
}

int warm_task_begin(struct warm_task *t, const struct warm_args *args, struct wd_err *err)
{
	Warpdrive__V1__WarmRequest q;
	ProtobufCMessage *reply;
	int r;

	fill_request(t, args, &q);
	r = ctl_control_call(t->where->control, "StartWarm", &q.base, &warpdrive__v1__start_warm_response__descriptor,
		&reply, err);
	if (r < 0)
		return r;
	if (t->is_begun) {
		t->fetched_before = t->sum.bytes_fetched;
		t->version = t->failures_seen = 0;
	}
	t->id = ((Warpdrive__V1__StartWarmResponse *)reply)->id;
	t->is_begun = true;
	t->is_stale = false;
	protobuf_c_message_free_unpacked(reply, NULL);
	return 0;
}

static enum warm_end end_of(Warpdrive__V1__WarmState state)
{
	switch (state) {
	case WARPDRIVE__V1__WARM_STATE__WARM_RUNNING:
		return WARM_END_NONE;
	case WARPDRIVE__V1__WARM_STATE__WARM_DONE:
		return WARM_END_DONE;
	case WARPDRIVE__V1__WARM_STATE__WARM_PARTLY:
		return WARM_END_PARTLY;
	case WARPDRIVE__V1__WARM_STATE__WARM_CANCELLED:
		return WARM_END_CANCELLED;
	case WARPDRIVE__V1__WARM_STATE__WARM_NO_ROOM:
		return WARM_END_NO_ROOM;
	default: /* of a later release */
		return WARM_END_FAILED;
	}
}

static void show_failures(const struct warm_task *t, const WarmProgress *p, struct warm_show *show)
{
	char path[2 * PATH_MAX];

	for (size_t i = 0; i < p->n_failures; i++) {
		snprintf(path, sizeof(path), "%s%s%s", t->where->name, *p->failures[i]->path ? "/" : "",
			p->failures[i]->path);
		warm_show_failure(show, path, p->failures[i]->code, p->failures[i]->text);
	}
}

static void take(struct warm_task *t, const WarmProgress *p, struct warm_show *show)
{
	uint64_t fetched = p->bytes_fetched + t->fetched_before;

	/* begun again, and found to be the same task */
	if (t->fetched_before > 0 && p->elapsed_ms >= t->elapsed_ms && p->bytes_fetched >= t->fetched_before) {
		fetched = p->bytes_fetched;
		t->fetched_before = 0;
	}
	t->sum = (struct warm_sum){
		.files = p->files,
		.files_done = p->files_done,
		.files_failed = p->files_failed,
		.files_skipped = p->files_skipped,
		.bytes = p->bytes,
		.bytes_present = p->bytes_present,
		.bytes_fetched = fetched,
		.is_listed = p->is_listed,
	};
	t->end = end_of(p->state);
	t->version = p->version;
	t->elapsed_ms = p->elapsed_ms;
	t->failures_seen += p->n_failures;
	show_failures(t, p, show);
}

int warm_task_poll(struct warm_task *t, uint32_t wait_ms, struct warm_show *show, struct wd_err *err)
{
	Warpdrive__V1__GetWarmRequest q = WARPDRIVE__V1__GET_WARM_REQUEST__INIT;
	bool is_first = t->version == 0, is_all_told;
	ProtobufCMessage *reply;
	const WarmProgress *p;
	int r;

	do {
		q.id = t->id;
		q.version = t->version;
		q.wait_ms = t->end == WARM_END_NONE ? wait_ms : 0;
		q.failures_seen = t->failures_seen;
		r = ctl_control_call(t->where->control, "GetWarm", &q.base, &warpdrive__v1__warm_progress__descriptor,
			&reply, err);
		if (r < 0)
			return r;
		p = (const WarmProgress *)reply;
		if (!is_first && p->elapsed_ms < t->elapsed_ms) {
			t->is_stale = true;
			protobuf_c_message_free_unpacked(reply, NULL);
			return wd_err_set(err, ESTALE, "the agent was restarted");
		}
		take(t, p, show);
		is_all_told = t->end == WARM_END_NONE || p->n_failures == 0 || t->failures_seen >= p->files_failed;
		is_first = false;
		protobuf_c_message_free_unpacked(reply, NULL);
	} while (!is_all_told);
	return 0;
}

int warm_task_cancel(struct ctl_control *control, uint64_t id, struct wd_err *err)
{
	Warpdrive__V1__CancelWarmRequest q = WARPDRIVE__V1__CANCEL_WARM_REQUEST__INIT;
	ProtobufCMessage *reply;
	int r;

	q.id = id;
	r = ctl_control_call(
		control, "CancelWarm", &q.base, &warpdrive__v1__cancel_warm_response__descriptor, &reply, err);
	if (r == 0)
		protobuf_c_message_free_unpacked(reply, NULL);
	return r;
}
