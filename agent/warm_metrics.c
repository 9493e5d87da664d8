/* SPDX-License-Identifier: Apache-2.0 */
/* How far warm tasks have come, as Prometheus text. Nothing is counted anew for it. */
#include "agent/metrics.h"
#include "agent/warm.h"

struct sums {
	uint64_t tasks[WARM_NO_ROOM + 1];
	uint64_t found, done, failed, skipped, bytes, fetched; /* of those that run */
};

static void add(struct sums *s, const struct warm_progress *p)
{
	s->tasks[p->state]++;
	if (p->state != WARM_RUNNING)
		return;
	s->found += p->files;
	s->done += p->files_done;
	s->failed += p->files_failed;
	s->skipped += p->files_skipped;
	s->bytes += p->bytes;
	s->fetched += p->bytes_fetched;
}

static void sample(FILE *out, enum family family, const char *state, uint64_t value)
{
	wd_sample(out, &families[family], &state, value);
}

void warms_print_metrics(struct warms *ws, FILE *out)
{
	static const char *const states[WARM_NO_ROOM + 1] = {[WARM_RUNNING] = "running",
		[WARM_DONE] = "done",
		[WARM_PARTLY] = "partly",
		[WARM_CANCELLED] = "cancelled",
		[WARM_NO_ROOM] = "no_room"};
	uint64_t ids[WARM_KEPT_MAX + WARM_RUNNING_MAX];
	size_t n = warm_list(ws, NULL, ids, sizeof(ids) / sizeof(ids[0]));
	struct sums s = {0};

	for (size_t i = 0; i < n; i++) {
		struct warm *w = warm_find(ws, NULL, ids[i]);
		struct warm_progress p;

		if (!w)
			continue;
		warm_peek(w, &p);
		add(&s, &p);
		warm_unref(w);
	}
	wd_family_begin(out, &families[FAMILY_WARM_TASKS]);
	for (int i = 0; i <= WARM_NO_ROOM; i++)
		sample(out, FAMILY_WARM_TASKS, states[i], s.tasks[i]);
	wd_family_begin(out, &families[FAMILY_WARM_FILES]);
	sample(out, FAMILY_WARM_FILES, "found", s.found);
	sample(out, FAMILY_WARM_FILES, "done", s.done);
	sample(out, FAMILY_WARM_FILES, "failed", s.failed);
	sample(out, FAMILY_WARM_FILES, "skipped", s.skipped);
	wd_family_begin(out, &families[FAMILY_WARM_BYTES]);
	sample(out, FAMILY_WARM_BYTES, "found", s.bytes);
	sample(out, FAMILY_WARM_BYTES, "fetched", s.fetched);
}
