/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `warpdrive-ctl ls`: a directory of a mount, with how much of each name is in the cache. It is asked for page by page,
 * and shown in the order of names.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/config.h"
#include "common/control.pb-c.h"
#include "warm-job/ctl_args.h"
#include "warm-job/ctl_ask.h"
#include "warm-job/ctl_commands.h"
#include "warm-job/ctl_table.h"

typedef Warpdrive__V1__ListFilesResponse Page;
typedef Warpdrive__V1__FileEntry Entry;

const char ctl_ls_help[] =
	"PATH is a directory or file inside a mount (the default is this directory),\n"
	"URL that of a mounted dataset or below it. Of each file its size and how much\n"
	"of it is in the node's cache; of a directory the sums of all files below it\n"
	"that are known: with a \"+\" there are directories that were not listed yet.\n"
	"Needs no rights but to see the mount.\n"
	"\n"
	"  -o, --output KIND  text, wide (with files, time, pinned; names in full), json\n"
	"  --run-dir DIR      where the agent's socket is (WARPDRIVE_RUN_DIR,\n"
	"                     /run/warpdrive)\n"
	"\n"
	"Example: warpdrive-ctl ls /mnt/imagenet/train\n";

struct listing {
	Page **pages;
	size_t npages;
	const Entry **entries;
	size_t n;
};

static void listing_done(struct listing *l)
{
	for (size_t i = 0; i < l->npages; i++)
		warpdrive__v1__list_files_response__free_unpacked(l->pages[i], NULL);
	free(l->pages);
	free(l->entries);
}

static bool take(struct listing *l, Page *page)
{
	Page **pages = realloc(l->pages, (l->npages + 1) * sizeof(*pages));
	const Entry **entries;

	if (pages)
		l->pages = pages;
	entries = pages ? realloc(l->entries, (l->n + page->n_entries + 1) * sizeof(*entries)) : NULL;
	if (!entries) {
		warpdrive__v1__list_files_response__free_unpacked(page, NULL);
		return false;
	}
	l->entries = entries;
	l->pages[l->npages++] = page;
	for (size_t i = 0; i < page->n_entries; i++)
		l->entries[l->n++] = page->entries[i];
	return true;
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(const Entry *const *)a)->name, (*(const Entry *const *)b)->name);
}

static bool fetch(const struct ctl_command *self, const struct warm_target *t, struct listing *l)
{
	Warpdrive__V1__ListFilesRequest q = WARPDRIVE__V1__LIST_FILES_REQUEST__INIT;

	q.target = t->target;
	q.path = t->is_whole ? (char *)(uintptr_t)"" : t->paths[0];
	do {
		Page *page = ctl_ask(self, t->control, "ListFiles", &q.base, &warpdrive__v1__list_files_response__descriptor);

		if (!page)
			return false;
		q.after = page->next;
		if (!take(l, page)) {
			ctl_error("ls: out of memory");
			return false;
		}
	} while (q.after);
	if (l->n > 0)
		qsort(l->entries, l->n, sizeof(*l->entries), by_name);
	return true;
}

/* ---- showing ---- */

static void cell_size(struct ctl_table *t, uint64_t bytes, bool is_whole)
{
	char size[32], text[40];

	snprintf(text, sizeof(text), "%s%s", wd_format_size(bytes, size, sizeof(size)), is_whole ? "" : "+");
	ctl_table_cell(t, text);
}

static void row(struct ctl_table *t, const Entry *e, bool is_wide)
{
	char share[16], text[64];
	wd_autofree char *name = NULL;

	cell_size(t, e->size, e->is_whole);
	cell_size(t, e->cached, true);
	ctl_percent(e->cached, e->size, share, sizeof(share));
	ctl_table_cell(t, e->size == 0 && !e->is_directory ? "100%" : share);
	if (is_wide) {
		time_t at = (time_t)e->mtime;
		struct tm tm;

		snprintf(text, sizeof(text), "%llu%s", (unsigned long long)e->files, e->is_whole ? "" : "+");
		ctl_table_cell(t, text);
		ctl_table_cell(t, e->is_pinned ? "yes" : "no");
		if (e->is_directory || !gmtime_r(&at, &tm) || strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
			snprintf(text, sizeof(text), "-");
		ctl_table_cell(t, text);
	}
	if (asprintf(&name, "%s%s", e->name, e->is_directory ? "/" : "") < 0)
		name = NULL;
	ctl_table_cell(t, name ? name : e->name);
}

static void print_text(const struct listing *l, bool is_wide)
{
	struct ctl_table *t = ctl_table_new(is_wide ? "SIZE,CACHED,%,FILES,PINNED,MODIFIED,NAME" : "SIZE,CACHED,%,NAME");

	for (size_t i = 0; i < l->n; i++)
		row(t, l->entries[i], is_wide);
	if (!is_wide)
		ctl_table_fit(t, CTL_COLUMNS);
	ctl_table_print(t, "nothing", stdout);
	ctl_table_free(t);
}

static void print_json(const struct listing *l)
{
	json_t *list = json_array(), *root = json_pack("{s:o}", "entries", list);

	for (size_t i = 0; i < l->n; i++) {
		const Entry *e = l->entries[i];

		json_array_append_new(list, json_pack("{s:s, s:s, s:I, s:I, s:I, s:b, s:b, s:I}", "name", e->name, "type",
			e->is_directory ? "directory" : "file", "size", (json_int_t)e->size, "cached_bytes",
			(json_int_t)e->cached, "files", (json_int_t)e->files, "is_listed", e->is_whole, "is_pinned",
			e->is_pinned, "mtime", (json_int_t)e->mtime));
	}
	ctl_print_json(root, stdout);
	json_decref(root);
}

enum ctl_exit ctl_ls(const struct ctl_command *self, int argc, char **argv)
{
	const char *run_dir = NULL;
	enum ctl_output output = CTL_TEXT;
	const struct ctl_option options[] = {
		{"output", 'o', CTL_OUTPUT, &output, "text, wide or json"},
		{"run-dir", 0, CTL_STRING, &run_dir, NULL},
	};
	char here[] = ".", *place = here;
	struct warm_places places;
	struct listing l = {0};
	enum ctl_exit code = CTL_FAILED;
	int first;

	if (!ctl_args_parse(self, argc, argv, options, sizeof(options) / sizeof(options[0]), &first, &code))
		return code;
	if (argc > first + 1)
		return ctl_usage(self, "takes one PATH or URL");
	if (first < argc)
		place = argv[first];
	code = CTL_FAILED;
	if (ctl_ask_places(self, ctl_run_dir(run_dir), &place, 1, &places) && fetch(self, &places.targets[0], &l)) {
		if (output == CTL_JSON)
			print_json(&l);
		else
			print_text(&l, output == CTL_WIDE);
		code = CTL_DONE;
	}
	listing_done(&l);
	ctl_ask_places_done(&places);
	return code;
}
