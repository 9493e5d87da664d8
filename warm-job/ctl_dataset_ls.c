/* SPDX-License-Identifier: Apache-2.0 */
/* `warpdrive-ctl dataset ls`: what is in the cache of a node, by datasets. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/config.h"
#include "common/control.pb-c.h"
#include "warm-job/ctl_args.h"
#include "warm-job/ctl_ask.h"
#include "warm-job/ctl_dataset.h"
#include "warm-job/ctl_table.h"

typedef Warpdrive__V1__ListDatasetsResponse Datasets;

static int by_use(const void *a, const void *b)
{
	const Warpdrive__V1__DatasetInfo *x = *(Warpdrive__V1__DatasetInfo *const *)a;
	const Warpdrive__V1__DatasetInfo *y = *(Warpdrive__V1__DatasetInfo *const *)b;

	return x->last_used != y->last_used ? (x->last_used < y->last_used ? 1 : -1) : strcmp(x->url, y->url);
}

static void format_time(int64_t seconds, char out[32])
{
	time_t at = (time_t)seconds;
	struct tm tm;

	if (seconds <= 0 || !gmtime_r(&at, &tm) || strftime(out, 32, "%Y-%m-%dT%H:%MZ", &tm) == 0)
		snprintf(out, 32, "-");
}

static void print_datasets(const Datasets *all, bool is_wide)
{
	struct ctl_table *t = ctl_table_new("DATASET,SIZE,CACHED,%,MOUNTS,USED");
	char text[40], size[32];

	for (size_t i = 0; i < all->n_datasets; i++) {
		const Warpdrive__V1__DatasetInfo *d = all->datasets[i];

		ctl_table_cell(t, d->url);
		snprintf(text, sizeof(text), "%s%s", wd_format_size(d->size, size, sizeof(size)), d->is_whole ? "" : "+");
		ctl_table_cell(t, text);
		ctl_table_cell(t, wd_format_size(d->cached, size, sizeof(size)));
		ctl_percent(d->cached, d->size, text, sizeof(text));
		ctl_table_cell(t, text);
		snprintf(text, sizeof(text), "%u", d->mounts);
		ctl_table_cell(t, text);
		format_time(d->last_used, text);
		ctl_table_cell(t, text);
	}
	if (!is_wide)
		ctl_table_fit(t, CTL_COLUMNS);
	ctl_table_print(t, "nothing is in the cache", stdout);
	ctl_table_free(t);
}

static void print_datasets_json(const Datasets *all)
{
	json_t *list = json_array(), *root = json_pack("{s:o, s:I}", "datasets", list, "used_bytes",
						(json_int_t)all->cache_used);

	for (size_t i = 0; i < all->n_datasets; i++) {
		const Warpdrive__V1__DatasetInfo *d = all->datasets[i];

		json_array_append_new(list,
			json_pack("{s:s, s:I, s:I, s:I, s:b, s:I, s:I}", "url", d->url, "objects", (json_int_t)d->files,
				"bytes", (json_int_t)d->size, "cached_bytes", (json_int_t)d->cached, "is_listed",
				d->is_whole, "mounts", (json_int_t)d->mounts, "last_used", (json_int_t)d->last_used));
	}
	ctl_print_json(root, stdout);
	json_decref(root);
}

enum ctl_exit ctl_dataset_ls(const struct ctl_command *self, int argc, char **argv)
{
	Warpdrive__V1__ListDatasetsRequest q = WARPDRIVE__V1__LIST_DATASETS_REQUEST__INIT;
	const char *run_dir = NULL;
	enum ctl_output output = CTL_TEXT;
	const struct ctl_option options[] = {
		{"output", 'o', CTL_OUTPUT, &output, "text, wide or json"},
		{"run-dir", 0, CTL_STRING, &run_dir, NULL},
	};
	struct ctl_control *agent;
	enum ctl_exit code;
	Datasets *all;
	int first;

	if (!ctl_args_parse(self, argc, argv, options, sizeof(options) / sizeof(options[0]), &first, &code))
		return code;
	if (first < argc)
		return ctl_usage(self, "ls takes no argument, not '%.20s'", argv[first]);
	agent = ctl_ask_agent(self, ctl_run_dir(run_dir));
	all = agent ? ctl_ask(self, agent, "ListDatasets", &q.base, &warpdrive__v1__list_datasets_response__descriptor) : NULL;
	ctl_control_free(agent);
	if (!all)
		return CTL_FAILED;
	if (all->n_datasets > 0)
		qsort(all->datasets, all->n_datasets, sizeof(*all->datasets), by_use);
	if (output == CTL_JSON)
		print_datasets_json(all);
	else
		print_datasets(all, output == CTL_WIDE);
	warpdrive__v1__list_datasets_response__free_unpacked(all, NULL);
	return CTL_DONE;
}
