/* SPDX-License-Identifier: Apache-2.0 */
/* `warm` against an agent in a thread (fake_agent.h): what it asks for, what it says, how it ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "warm-job/test/fake_agent.h"
#include "warm-job/ctl.h"
#include "warm-job/ctl_warm_run.h"

#define STATE(word) WARPDRIVE__V1__WARM_STATE__WARM_##word
#define PROGRESS(...)                                                                                                  \
	{                                                                                                              \
		.base = PROTOBUF_C_MESSAGE_INIT(&warpdrive__v1__warm_progress__descriptor), .target = "/data",          \
		.is_listed = true, .files = 10, .bytes = 1000, __VA_ARGS__                                              \
	}

static const struct ctl_command command = {.name = "warm", .arguments = "", .summary = "", .help = ""};

/* What one call said. */
struct said {
	enum ctl_exit code;
	char *out, *log;
};

static void said_done(struct said *s)
{
	free(s->out);
	free(s->log);
}

/* Runs `warm` with arguments (NULL-terminated) against the agent. */
static struct said run(struct fake_agent *a, char **argv)
{
	struct wd_err err = WD_ERR_INIT;
	struct said said = {0};
	struct warm_args args;
	struct warm_places places;
	struct warm_run *r = NULL;
	struct warm_show show;
	size_t out_len, log_len;
	FILE *out = open_memstream(&said.out, &out_len), *log = tmpfile();
	int argc = 0;

	while (argv[argc])
		argc++;
	assert_true(warm_args_parse(&command, argc, argv, &args, &said.code));
	assert_int_equal(warm_places_open(&places, a->dir, "/dev/null", &err), 0);
	for (size_t i = 0; i < args.nplaces; i++)
		assert_int_equal(warm_places_add(&places, args.places[i], &err), 0);
	assert_int_equal(warm_run_new(&places, &args, &r, &err), 0);
	if (args.detach) {
		said.code = warm_run_detach(r, args.progress == WARM_JSON, out);
	} else {
		warm_show_start(&show, args.progress, out, log, 0);
		said.code = warm_run_wait(r, &show);
	}
	warm_run_free(r);
	warm_places_close(&places);
	warm_args_done(&args);
	fclose(out);
	said.log = calloc(1, 65536);
	rewind(log);
	log_len = fread(said.log, 1, 65535, log);
	said.log[log_len] = '\0';
	fclose(log);
	return said;
}

#define RUN(a, ...) run(a, (char *[]){"warm", "--progress=none", __VA_ARGS__, NULL})

static struct fake_step done[] = {{FAKE_ANSWER, PROGRESS(.state = STATE(RUNNING))},
	{FAKE_ANSWER, PROGRESS(.state = STATE(DONE), .files_done = 10, .bytes_present = 1000, .bytes_fetched = 600)}};

static void the_request_says_what_was_asked(void **state)
{
	struct fake_agent a = {.steps = done, .nsteps = 2};
	char *argv[] = {"warm", "--progress=none", "s3://b/d/train/", "--max-size=4MiB", "--workers", "7", "--bandwidth=10MiB/s",
		"--include", "*.tar", "--include=*.idx", "--exclude", "tmp/*", "--verify", "--recursive", "--resume", "--wait", NULL};

	fake_start(&a);

	struct said s = run(&a, argv);

	fake_stop(&a);
	const Warpdrive__V1__WarmRequest *q = a.requests[0];

	assert_int_equal(s.code, CTL_DONE);
	assert_string_equal(s.log, "");
	assert_non_null(strstr(s.out, "done: 10 files, 1000 B are in the cache; 600 B fetched in "));
	assert_int_equal(a.nrequests, 1);
	assert_string_equal(q->target, "/data");
	assert_int_equal(q->n_paths, 1);
	assert_string_equal(q->paths[0], "train");
	assert_int_equal(q->max_file_size, 4 << 20);
	assert_int_equal(q->workers, 7);
	assert_int_equal(q->bandwidth, 10 << 20);
	assert_int_equal(q->n_includes, 2);
	assert_string_equal(q->includes[1], "*.idx");
	assert_int_equal(q->n_excludes, 1);
	assert_string_equal(q->excludes[0], "tmp/*");
	assert_true(q->verify);
	assert_int_equal(q->token.len, 16);
	said_done(&s);
	fake_free(&a);
}

static void nothing_that_was_not_asked_is_in_the_request(void **state)
{
	struct fake_agent a = {.steps = done, .nsteps = 2};

	fake_start(&a);

	struct said s = RUN(&a, "/data");

	fake_stop(&a);
	const Warpdrive__V1__WarmRequest *q = a.requests[0];

	assert_int_equal(q->n_paths + q->n_includes + q->n_excludes + q->workers + q->bandwidth + q->max_file_size, 0);
	assert_false(q->verify);
	said_done(&s);
	fake_free(&a);
}

static void failed_files_are_named_and_the_exit_code_is_3(void **state)
{
	Warpdrive__V1__WarmFailure denied = WARPDRIVE__V1__WARM_FAILURE__INIT, gone = denied;
	Warpdrive__V1__WarmFailure *list[] = {&denied, &gone};
	struct fake_step steps[] = {{FAKE_ANSWER, PROGRESS(.state = STATE(PARTLY), .files_done = 8, .files_failed = 2,
							  .bytes_present = 800, .n_failures = 2, .failures = list)}};
	struct fake_agent a = {.steps = steps, .nsteps = 1};

	denied.path = "secret\n.tar", denied.code = EACCES, denied.text = "HTTP 403";
	gone.path = "gone", gone.code = ENOENT, gone.text = "";
	fake_start(&a);

	struct said s = RUN(&a, "/data"), j = run(&a, (char *[]){"warm", "--progress=json", "/data", NULL});

	fake_stop(&a);

	assert_int_equal(s.code, CTL_PARTLY);
	assert_string_equal(s.log, "failed: /data/secret?.tar: HTTP 403\nfailed: /data/gone: No such file or directory\n");
	assert_string_equal(s.out, "partly done: 8 of 10 files, 800 of 1000 B are in the cache; 2 failed\n");
	assert_int_equal(j.code, CTL_PARTLY);
	assert_string_equal(j.log, "");
	assert_non_null(strstr(j.out, "{\"event\":\"failure\",\"path\":\"/data/secret\\n.tar\",\"code\":\"EACCES\""));
	assert_non_null(strstr(j.out, "{\"event\":\"result\",\"state\":\"partly\""));
	said_done(&s);
	said_done(&j);
	fake_free(&a);
}

static void of_many_failures_the_first_are_listed(void **state)
{
	static Warpdrive__V1__WarmFailure failures[30];
	static char names[30][8];
	Warpdrive__V1__WarmFailure *list[30];
	struct fake_step steps[] = {{FAKE_ANSWER,
		PROGRESS(.state = STATE(PARTLY), .files_failed = 1234, .n_failures = 30, .failures = list)},
		{FAKE_ANSWER, PROGRESS(.state = STATE(PARTLY), .files_failed = 1234)}};
	struct fake_agent a = {.steps = steps, .nsteps = 2};

	for (size_t i = 0; i < 30; i++) {
		warpdrive__v1__warm_failure__init(&failures[i]);
		snprintf(names[i], sizeof(names[i]), "f%zu", i);
		failures[i].path = names[i];
		failures[i].text = "HTTP 403";
		list[i] = &failures[i];
	}
	fake_start(&a);

	struct said s = RUN(&a, "/data");

	fake_stop(&a);

	assert_int_equal(s.code, CTL_PARTLY);
	assert_non_null(strstr(s.log, "failed: /data/f19: HTTP 403\nfailed: and 1214 more\n"));
	assert_null(strstr(s.log, "/data/f20"));
	said_done(&s);
	fake_free(&a);
}

static void each_end_has_its_exit_code(void **state)
{
	static const struct {
		Warpdrive__V1__WarmState end;
		enum ctl_exit code;
		const char *word;
	} rows[] = {{STATE(DONE), CTL_DONE, "done: "}, {STATE(PARTLY), CTL_PARTLY, "partly done: "},
		{STATE(NO_ROOM), CTL_PARTLY, "no room in the cache: "}, {STATE(CANCELLED), CTL_FAILED, "cancelled: "}};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct fake_step steps[] = {{FAKE_ANSWER, PROGRESS(.state = rows[i].end)}};
		struct fake_agent a = {.steps = steps, .nsteps = 1};

		fake_start(&a);

		struct said s = RUN(&a, "/data");

		fake_stop(&a);

		assert_int_equal(s.code, rows[i].code);
		assert_int_equal(strncmp(s.out, rows[i].word, strlen(rows[i].word)), 0);
		said_done(&s);
		fake_free(&a);
	}
}

static void a_signal_cancels_and_says_what_remains(void **state)
{
	struct fake_step steps[] = {
		{FAKE_INTERRUPT, PROGRESS(.state = STATE(RUNNING), .files_done = 2, .bytes_present = 200)}};
	struct fake_agent a = {.steps = steps, .nsteps = 1};

	fake_start(&a);

	struct said s = RUN(&a, "/data");

	fake_stop(&a);

	assert_int_equal((int)s.code, 128 + SIGINT);
	assert_int_equal(a.cancelled_id, 1);
	assert_string_equal(s.out, "stopped: 2 of 10 files, 200 of 1000 B are in the cache; run it again to go on\n");
	said_done(&s);
	fake_free(&a);
}

static void time_that_is_up_cancels_too(void **state)
{
	struct fake_step steps[] = {{FAKE_ANSWER, PROGRESS(.state = STATE(RUNNING))}};
	struct fake_agent a = {.steps = steps, .nsteps = 1};

	fake_start(&a);

	struct said s = RUN(&a, "/data", "--timeout=50ms");

	fake_stop(&a);

	assert_int_equal(s.code, CTL_PARTLY);
	assert_int_equal(a.cancelled_id, 1);
	assert_int_equal(strncmp(s.out, "time is up: ", 12), 0);
	said_done(&s);
	fake_free(&a);
}

/* Both begin the task again with its token, and what both agents fetched is what was fetched. */
static void goes_on_in_the_next_agent(enum fake_act act)
{
	struct fake_step steps[] = {
		{FAKE_ANSWER, PROGRESS(.state = STATE(RUNNING), .bytes_fetched = 500, .elapsed_ms = 900)},
		{act, PROGRESS(.state = act == FAKE_END ? STATE(CANCELLED) : STATE(RUNNING), .bytes_fetched = 500,
			      .elapsed_ms = 950)},
		{FAKE_ANSWER, PROGRESS(.state = STATE(DONE), .files_done = 10, .bytes_present = 1000, .bytes_fetched = 100,
				     .elapsed_ms = 10)}};
	struct fake_agent a = {.steps = steps, .nsteps = 3};

	fake_start(&a);

	struct said s = RUN(&a, "/data");

	fake_stop(&a);

	assert_int_equal(s.code, CTL_DONE);
	assert_int_equal(a.restarts, 1);
	assert_int_equal(a.nrequests, 2);
	assert_memory_equal(a.requests[0]->token.data, a.requests[1]->token.data, 16);
	assert_non_null(strstr(s.out, "; 600 B fetched in "));
	said_done(&s);
	fake_free(&a);
}

static void an_agent_that_is_restarted_is_waited_for(void **state)
{
	goes_on_in_the_next_agent(FAKE_RESTART);
}

static void an_agent_that_has_forgotten_the_task_is_asked_again(void **state)
{
	goes_on_in_the_next_agent(FAKE_FORGET);
}

static void an_agent_that_ends_has_cancelled_nothing_of_ours(void **state)
{
	goes_on_in_the_next_agent(FAKE_END);
}

static void another_task_under_the_same_id_is_noticed(void **state)
{
	struct fake_step steps[] = {
		{FAKE_ANSWER, PROGRESS(.state = STATE(RUNNING), .bytes_fetched = 500, .elapsed_ms = 900)},
		{FAKE_ANSWER, PROGRESS(.state = STATE(DONE), .elapsed_ms = 10)}, /* somebody else's */
		{FAKE_ANSWER, PROGRESS(.state = STATE(DONE), .files_done = 10, .bytes_present = 1000, .elapsed_ms = 20)}};
	struct fake_agent a = {.steps = steps, .nsteps = 3};

	fake_start(&a);

	struct said s = RUN(&a, "/data");

	fake_stop(&a);

	assert_int_equal(s.code, CTL_DONE);
	assert_int_equal(a.nrequests, 2);
	assert_int_equal(strncmp(s.out, "done: 10 files", 14), 0);
	said_done(&s);
	fake_free(&a);
}

static void a_refusal_is_told_and_nothing_is_tried_again(void **state)
{
	struct fake_agent refuses = {.steps = done, .nsteps = 2, .start_status = -EACCES};
	struct fake_agent old = {.steps = done, .nsteps = 2, .is_old = true};

	fake_start(&refuses);
	fake_start(&old);

	struct said s[] = {RUN(&refuses, "/data"), RUN(&old, "/data")};

	fake_stop(&refuses);
	fake_stop(&old);

	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(s[i].code, CTL_FAILED);
		assert_string_equal(s[i].out, "");
		said_done(&s[i]);
	}
	assert_int_equal(refuses.nrequests, 1);
	assert_int_equal(old.nrequests, 0);
	fake_free(&refuses);
	fake_free(&old);
}

static void a_task_is_left_to_the_agent(void **state)
{
	struct fake_agent a = {.steps = done, .nsteps = 2};

	fake_start(&a);

	struct said s = RUN(&a, "/data", "--detach"), j = run(&a, (char *[]){"warm", "/data", "--detach", "--progress=json", NULL});

	fake_stop(&a);

	assert_int_equal(s.code, CTL_DONE);
	assert_string_equal(s.out, "1\n");
	assert_string_equal(j.out, "{\"event\":\"started\",\"id\":2}\n");
	assert_memory_not_equal(a.requests[0]->token.data, a.requests[1]->token.data, 16);
	assert_int_equal(a.at, 0); /* nobody has asked for news */
	said_done(&s);
	said_done(&j);
	fake_free(&a);
}

static void a_long_list_becomes_several_requests_and_one_result(void **state)
{
	struct fake_step steps[] = {{FAKE_ANSWER, PROGRESS(.state = STATE(DONE), .files_done = 10, .bytes_present = 1000)}};
	struct fake_agent a = {.steps = steps, .nsteps = 1};
	struct wd_err err = WD_ERR_INIT;
	struct warm_args args = {0};
	struct warm_places places;
	struct warm_run *r;
	struct warm_show show;
	char *text = NULL, *said = NULL;
	size_t len, n = 5000, seen = 0;
	FILE *list = open_memstream(&text, &len), *in, *out = open_memstream(&said, &len);

	for (size_t i = 0; i < n; i++)
		fprintf(list, "a directory/%032zu\n", i);
	fclose(list);
	fake_start(&a);
	in = fmemopen(text, strlen(text), "r");
	assert_int_equal(warm_places_open(&places, a.dir, "/dev/null", &err), 0);
	assert_int_equal(warm_places_add_lines(&places, "/data", in, &err), 0);
	assert_int_equal(warm_run_new(&places, &args, &r, &err), 0);
	warm_show_start(&show, WARM_NONE, out, out, 0);
	assert_int_equal(warm_run_wait(r, &show), CTL_DONE);
	fclose(out);
	fclose(in);
	fake_stop(&a);
	assert_true(a.nrequests >= 3 && a.nrequests <= 6);
	for (size_t i = 0; i < a.nrequests; i++) {
		for (size_t k = 0; k < a.requests[i]->n_paths; k++) {
			char want[64];

			snprintf(want, sizeof(want), "a directory/%032zu", seen++);
			assert_string_equal(a.requests[i]->paths[k], want);
		}
	}
	assert_int_equal(seen, n);
	snprintf(text, 16, "done: %zu files", 10 * a.nrequests);
	assert_int_equal(strncmp(said, text, strlen(text)), 0);
	warm_run_free(r);
	warm_places_close(&places);
	free(text);
	free(said);
	fake_free(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_request_says_what_was_asked),
		cmocka_unit_test(nothing_that_was_not_asked_is_in_the_request),
		cmocka_unit_test(failed_files_are_named_and_the_exit_code_is_3),
		cmocka_unit_test(of_many_failures_the_first_are_listed),
		cmocka_unit_test(each_end_has_its_exit_code),
		cmocka_unit_test(a_signal_cancels_and_says_what_remains),
		cmocka_unit_test(time_that_is_up_cancels_too),
		cmocka_unit_test(an_agent_that_is_restarted_is_waited_for),
		cmocka_unit_test(an_agent_that_has_forgotten_the_task_is_asked_again),
		cmocka_unit_test(an_agent_that_ends_has_cancelled_nothing_of_ours),
		cmocka_unit_test(another_task_under_the_same_id_is_noticed),
		cmocka_unit_test(a_refusal_is_told_and_nothing_is_tried_again),
		cmocka_unit_test(a_task_is_left_to_the_agent),
		cmocka_unit_test(a_long_list_becomes_several_requests_and_one_result),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
