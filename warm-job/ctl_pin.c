/* SPDX-License-Identifier: Apache-2.0 */
/* `warpdrive-ctl pin` and `unpin`: what is to stay in the cache. */
#include "warm-job/ctl_pin.h"

#include <jansson.h>

#include "common/config.h"
#include "common/control.pb-c.h"
#include "warm-job/ctl_args.h"
#include "warm-job/ctl_commands.h"
#include "warm-job/ctl_table.h"

const char ctl_pin_help[] =
	"PATH is a directory or file inside a mount, URL that of a mounted dataset or\n"
	"below it. What of it is in the cache is never evicted for room, and neither is\n"
	"what will be read of it later, until `unpin`: agents and machines may be\n"
	"restarted meanwhile. Pinned files take at most half of the cache; beyond that\n"
	"they are like all others, and the exit code is 3. `warm --pin` fetches as well.\n"
	"For administrators of the node: not through a pod's volume.\n"
	"\n"
	"  --list             what is pinned: by this command, or by the agent's setting\n"
	"                     \"pinned\"\n"
	"  -o, --output KIND  of --list: text or json\n"
	"  --run-dir DIR      where the agent's socket is (WARPDRIVE_RUN_DIR,\n"
	"                     /run/warpdrive)\n"
	"\n"
	"Example: warpdrive-ctl pin s3://training/imagenet/val\n";

const char ctl_unpin_help[] =
	"PATH or URL as it was given to `pin` (`pin --list` shows them). The files stay\n"
	"in the cache, and make room when it is their turn.\n"
	"\n"
	"  --run-dir DIR      where the agent's socket is (WARPDRIVE_RUN_DIR,\n"
	"                     /run/warpdrive)\n"
	"\n"
	"Example: warpdrive-ctl unpin s3://training/imagenet/val\n";

bool ctl_pin_target(const struct ctl_command *self, const struct warm_target *t, bool is_unpinning,
	struct ctl_pinned *sum)
{
	Warpdrive__V1__PinRequest q = WARPDRIVE__V1__PIN_REQUEST__INIT;

	q.target = t->target;
	q.paths = t->paths;
	q.n_paths = t->is_whole ? 0 : t->npaths;
	for (;;) {
		Warpdrive__V1__PinResponse *p = ctl_ask(self, t->control, is_unpinning ? "Unpin" : "Pin", &q.base,
			&warpdrive__v1__pin_response__descriptor);

		if (!p)
			return false;
		q.goes_on = !p->is_done;
		if (p->is_done || is_unpinning) {
			/* what an earlier part pinned is found again, what it unpinned is not */
			sum->files += p->files;
			sum->bytes += p->bytes;
			sum->refused += p->is_done ? p->files_refused : 0;
		}
		warpdrive__v1__pin_response__free_unpacked(p, NULL);
		if (!q.goes_on)
			return true;
	}
}

static enum ctl_exit change(const struct ctl_command *self, const char *run_dir, char *const *what, size_t n,
	bool is_unpinning)
{
	struct ctl_pinned sum = {0};
	struct warm_places places;
	char bytes[32];
	bool is_good = ctl_ask_places(self, run_dir, what, n, &places);

	for (size_t i = 0; is_good && i < places.ntargets; i++)
		is_good = ctl_pin_target(self, &places.targets[i], is_unpinning, &sum);
	ctl_ask_places_done(&places);
	if (!is_good)
		return CTL_FAILED;
	printf("%s: %llu files of it are in the cache, %s\n", is_unpinning ? "unpinned" : "pinned",
		(unsigned long long)sum.files, wd_format_size(sum.bytes, bytes, sizeof(bytes)));
	if (sum.refused == 0)
		return CTL_DONE;
	ctl_error("%s: %llu files are not pinned: half of the cache is, and no more may be", self->name,
		(unsigned long long)sum.refused);
	return CTL_PARTLY;
}

static void print_list(const Warpdrive__V1__ListPinsResponse *pins, bool as_json)
{
	struct ctl_table *t = ctl_table_new("BY,URL");
	json_t *list = json_array();
	char used[32], most[32];

	for (size_t i = 0; i < pins->n_rules; i++) {
		const char *by = pins->rules[i]->is_setting ? "setting" : "pin";

		ctl_table_cell(t, by);
		ctl_table_cell(t, pins->rules[i]->url);
		json_array_append_new(list, json_pack("{s:s, s:s}", "url", pins->rules[i]->url, "by", by));
	}
	if (as_json) {
		json_t *root = json_pack("{s:O, s:I, s:I}", "pins", list, "pinned_bytes", (json_int_t)pins->pinned_bytes,
			"most_bytes", (json_int_t)pins->most_bytes);

		ctl_print_json(root, stdout);
		json_decref(root);
	} else {
		ctl_table_fit(t, CTL_COLUMNS);
		ctl_table_print(t, "nothing is pinned", stdout);
		printf("%s in the cache are pinned, of at most %s\n",
			wd_format_size(pins->pinned_bytes, used, sizeof(used)),
			wd_format_size(pins->most_bytes, most, sizeof(most)));
	}
	json_decref(list);
	ctl_table_free(t);
}

static enum ctl_exit list(const struct ctl_command *self, const char *run_dir, bool as_json)
{
	Warpdrive__V1__ListPinsRequest q = WARPDRIVE__V1__LIST_PINS_REQUEST__INIT;
	struct ctl_control *agent = ctl_ask_agent(self, run_dir);
	Warpdrive__V1__ListPinsResponse *pins =
		agent ? ctl_ask(self, agent, "ListPins", &q.base, &warpdrive__v1__list_pins_response__descriptor) : NULL;

	ctl_control_free(agent);
	if (!pins)
		return CTL_FAILED;
	print_list(pins, as_json);
	warpdrive__v1__list_pins_response__free_unpacked(pins, NULL);
	return CTL_DONE;
}

enum ctl_exit ctl_pin(const struct ctl_command *self, int argc, char **argv)
{
	const char *run_dir = NULL;
	enum ctl_output output = CTL_TEXT;
	bool is_list = false;
	const struct ctl_option options[] = {
		{"list", 0, CTL_FLAG, &is_list, NULL},
		{"output", 'o', CTL_OUTPUT, &output, "text or json"},
		{"run-dir", 0, CTL_STRING, &run_dir, NULL},
	};
	enum ctl_exit code;
	int first;

	if (!ctl_args_parse(self, argc, argv, options, sizeof(options) / sizeof(options[0]), &first, &code))
		return code;
	if (is_list && first < argc)
		return ctl_usage(self, "--list takes no PATH");
	if (is_list)
		return list(self, ctl_run_dir(run_dir), output == CTL_JSON);
	if (first == argc)
		return ctl_usage(self, "needs a PATH or URL, or --list");
	return change(self, ctl_run_dir(run_dir), argv + first, (size_t)(argc - first), false);
}

enum ctl_exit ctl_unpin(const struct ctl_command *self, int argc, char **argv)
{
	const char *run_dir = NULL;
	const struct ctl_option options[] = {{"run-dir", 0, CTL_STRING, &run_dir, NULL}};
	enum ctl_exit code;
	int first;

	if (!ctl_args_parse(self, argc, argv, options, 1, &first, &code))
		return code;
	if (first == argc)
		return ctl_usage(self, "needs a PATH or URL");
	return change(self, ctl_run_dir(run_dir), argv + first, (size_t)(argc - first), true);
}
