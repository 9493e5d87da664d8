/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See mount_metrics.h. Everything is read into rows first, one mount after the other, and printed from them: a family's
 * samples stand together in the text, and the list of mounts is not locked meanwhile.
 */
#include "agent/mount_metrics.h"

#include <stdlib.h>
#include <string.h>

#include "agent/condition.h"
#include "agent/holder.h"
#include "agent/metrics.h"
#include "agent/mount.h"
#include "common/cleanup.h"
#include "common/lock.h"

struct row {
	struct mount *mount;
	char id[20], pod[MOUNT_POD_MAX];
	bool is_ill;
	unsigned files;
};

struct rows {
	struct row *rows;
	unsigned n, count; /* count: mounts that there are */
	unsigned ill[CONDITION_PARTS_COUNT];
};

void mount_pod_of(const char *target, char ret_pod[MOUNT_POD_MAX])
{
	const char *pod = strstr(target, "/pods/");
	size_t len;

	ret_pod[0] = '\0';
	pod = pod ? pod + strlen("/pods/") : "";
	len = strcspn(pod, "/");
	if (len > 0 && len < MOUNT_POD_MAX && strncmp(pod + len, "/volumes/", strlen("/volumes/")) == 0)
		snprintf(ret_pod, MOUNT_POD_MAX, "%.*s", (int)len, pod);
}

/* ---- reading ---- */

static void collect(struct agent *a, struct rows *r)
{
	*r = (struct rows){0};
	wd_lock(&a->lock);
	for (struct mount *mnt = a->mounts; mnt; mnt = mnt->next)
		r->count++;
	r->rows = calloc(r->count ? r->count : 1, sizeof(*r->rows));
	for (struct mount *mnt = a->mounts; r->rows && mnt; mnt = mnt->next)
		r->rows[r->n++].mount = mount_ref(mnt);
	wd_unlock(&a->lock);
}

static void look(struct agent *a, struct rows *r)
{
	struct condition node;

	condition_of_node(a, &node);
	for (unsigned i = 0; i < r->n; i++) {
		struct row *row = &r->rows[i];
		struct condition c;

		condition_of_mount(row->mount, &node, &c);
		for (int part = 0; part < CONDITION_PARTS_COUNT; part++) {
			r->ill[part] += c.text[part][0] != '\0';
			row->is_ill |= c.text[part][0] != '\0';
		}
		if (i >= MOUNT_SERIES_MAX)
			continue;
		row->files = open_count(row->mount);
		/* two may be on one target: one of them was unmounted there, and is still in use */
		snprintf(row->id, sizeof(row->id), "%llx", (unsigned long long)row->mount->id);
		mount_pod_of(row->mount->target, row->pod);
	}
}

/* ---- printing ---- */

static uint64_t value_of(const struct row *row, enum family family)
{
	const struct mount *mnt = row->mount;

	switch (family) {
	case FAMILY_MOUNT_ILL:
		return row->is_ill;
	case FAMILY_MOUNT_FILES:
		return row->files;
	case FAMILY_MOUNT_OPENS:
		return atomic_load(&mnt->opened) + wd_mm_counted(&mnt->mm, WD_MM_PASSTHROUGH_OPENS) +
		       wd_mm_counted(&mnt->mm, WD_MM_CACHED_OPENS);
	case FAMILY_MOUNT_PASSTHROUGH:
		return atomic_load(&mnt->passthrough_bytes) + wd_mm_counted(&mnt->mm, WD_MM_PASSTHROUGH_BYTES);
	case FAMILY_MOUNT_READ:
		return wd_mm_counted(&mnt->mm, WD_MM_READ_BYTES);
	case FAMILY_MOUNT_MISSED:
		return atomic_load(&mnt->missed_bytes);
	default:
		return (uint64_t)atomic_load(&mnt->expires_s);
	}
}

static void print_own(const struct rows *r, FILE *out)
{
	static const enum family own[] = {FAMILY_MOUNT_ILL, FAMILY_MOUNT_FILES, FAMILY_MOUNT_OPENS,
		FAMILY_MOUNT_PASSTHROUGH, FAMILY_MOUNT_READ, FAMILY_MOUNT_MISSED, FAMILY_MOUNT_EXPIRY};

	for (size_t f = 0; f < sizeof(own) / sizeof(own[0]); f++) {
		wd_family_begin(out, &families[own[f]]);
		for (unsigned i = 0; i < r->n && i < MOUNT_SERIES_MAX; i++) {
			const struct row *row = &r->rows[i];
			const char *labels[] = {row->id, row->mount->target, row->pod};
			uint64_t value = value_of(row, own[f]);

			if (own[f] != FAMILY_MOUNT_EXPIRY || value)
				wd_sample(out, &families[own[f]], labels, value);
		}
	}
}

void mounts_print_metrics(struct agent *a, FILE *out)
{
	struct rows r;

	collect(a, &r);
	look(a, &r);
	wd_family_one(out, &families[FAMILY_MOUNTS], r.count);
	wd_family_one(out, &families[FAMILY_HELD_MOUNTS], holder_count(a->holder));
	wd_family_begin(out, &families[FAMILY_CONDITION]);
	for (int part = 0; part < CONDITION_PARTS_COUNT; part++)
		wd_sample(out, &families[FAMILY_CONDITION],
			(const char *[]){condition_part_name((enum condition_part)part)}, r.ill[part]);
	print_own(&r, out);
	for (unsigned i = 0; i < r.n; i++)
		mount_unref(r.rows[i].mount);
	free(r.rows);
}
