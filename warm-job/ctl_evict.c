/* SPDX-License-Identifier: Apache-2.0 */
/* `warpdrive-ctl evict`: takes data out of the cache. */
#include <jansson.h>
#include <string.h>

#include "common/config.h"
#include "common/control.pb-c.h"
#include "warm-job/ctl_args.h"
#include "warm-job/ctl_ask.h"
#include "warm-job/ctl_commands.h"
#include "warm-job/ctl_table.h"

typedef Warpdrive__V1__EvictResponse Evicted;

const char ctl_evict_help[] =
	"PATH is a directory or file inside a mount, URL that of a mounted dataset or\n"
	"below it. What is in the cache of it goes, but for files that somebody has\n"
	"open or that are being fetched, and for pinned ones (see `unpin`): these are\n"
	"named, up to 100. What went is fetched again when it is read. Versions that\n"
	"were replaced at the origin go by themselves when the cache needs room.\n"
	"For administrators of the node: not through a pod's volume.\n"
	"\n"
	"  -o, --output KIND  text or json\n"
	"  --run-dir DIR      where the agent's socket is (WARPDRIVE_RUN_DIR,\n"
	"                     /run/warpdrive)\n"
	"\n"
	"Exit codes: 0 all of it is gone; 1 failed; 2 wrong usage; 3 something stayed.\n"
	"\n"
	"Example: warpdrive-ctl evict /mnt/imagenet/val\n";

struct sum {
	uint64_t files, bytes, in_use, in_use_bytes, pinned, pinned_bytes, failed;
	json_t *kept; /* of the first 100 of each mount */
};

static void take_kept(struct sum *s, const struct warm_target *t, const Evicted *e)
{
	s->in_use += e->files_in_use;
	s->in_use_bytes += e->bytes_in_use;
	s->pinned += e->files_pinned;
	s->pinned_bytes += e->bytes_pinned;
	s->failed += e->files_failed;
	for (size_t i = 0; i < e->n_kept; i++) {
		json_t *path = json_sprintf("%s%s%s", t->name, strcmp(t->name, "/") ? "/" : "", e->kept[i]->path);

		json_array_append_new(s->kept, json_pack("{s:o?, s:s}", "path", path, "reason", e->kept[i]->text));
	}
}

/* Slice by slice, until the agent is through. */
static bool evict(const struct ctl_command *self, const struct warm_target *t, struct sum *s)
{
	Warpdrive__V1__EvictRequest q = WARPDRIVE__V1__EVICT_REQUEST__INIT;
	bool is_done = false;

	q.target = t->target;
	q.paths = t->paths;
	q.n_paths = t->is_whole ? 0 : t->npaths;
	while (!is_done) {
		Evicted *e = ctl_ask(self, t->control, "Evict", &q.base, &warpdrive__v1__evict_response__descriptor);

		if (!e)
			return false;
		s->files += e->files;
		s->bytes += e->bytes;
		is_done = e->is_done;
		if (is_done)
			take_kept(s, t, e);
		warpdrive__v1__evict_response__free_unpacked(e, NULL);
	}
	return true;
}

static void print_text(const struct sum *s)
{
	char bytes[32], in_use[32], pinned[32];
	json_t *kept;
	size_t i;

	json_array_foreach(s->kept, i, kept)
		ctl_error("kept: %s: %s", json_string_value(json_object_get(kept, "path")),
			json_string_value(json_object_get(kept, "reason")));
	printf("evicted %llu files, %s\n", (unsigned long long)s->files, wd_format_size(s->bytes, bytes, sizeof(bytes)));
	if (s->in_use || s->pinned || s->failed)
		printf("kept %llu in use (%s), %llu pinned (%s), %llu failed\n", (unsigned long long)s->in_use,
			wd_format_size(s->in_use_bytes, in_use, sizeof(in_use)), (unsigned long long)s->pinned,
			wd_format_size(s->pinned_bytes, pinned, sizeof(pinned)), (unsigned long long)s->failed);
}

static void print_json(const struct sum *s)
{
	json_t *root = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:O}", "files", (json_int_t)s->files, "bytes",
		(json_int_t)s->bytes, "files_in_use", (json_int_t)s->in_use, "bytes_in_use", (json_int_t)s->in_use_bytes,
		"files_pinned", (json_int_t)s->pinned, "bytes_pinned", (json_int_t)s->pinned_bytes, "files_failed",
		(json_int_t)s->failed, "kept", s->kept);

	ctl_print_json(root, stdout);
	json_decref(root);
}

enum ctl_exit ctl_evict(const struct ctl_command *self, int argc, char **argv)
{
	const char *run_dir = NULL;
	enum ctl_output output = CTL_TEXT;
	const struct ctl_option options[] = {
		{"output", 'o', CTL_OUTPUT, &output, "text or json"},
		{"run-dir", 0, CTL_STRING, &run_dir, NULL},
	};
	struct warm_places places;
	struct sum s = {0};
	enum ctl_exit code;
	bool is_good;
	int first;

	if (!ctl_args_parse(self, argc, argv, options, sizeof(options) / sizeof(options[0]), &first, &code))
		return code;
	if (first == argc)
		return ctl_usage(self, "needs a PATH or URL");
	s.kept = json_array();
	is_good = ctl_ask_places(self, ctl_run_dir(run_dir), argv + first, (size_t)(argc - first), &places);
	for (size_t i = 0; is_good && i < places.ntargets; i++)
		is_good = evict(self, &places.targets[i], &s);
	if (is_good && output == CTL_JSON)
		print_json(&s);
	else if (is_good)
		print_text(&s);
	code = !is_good ? CTL_FAILED : s.in_use || s.pinned || s.failed ? CTL_PARTLY : CTL_DONE;
	json_decref(s.kept);
	ctl_ask_places_done(&places);
	return code;
}
