/* SPDX-License-Identifier: Apache-2.0 */
/* From class and claim to a volume: where it lies, what a claim may choose, and its id. */
#include "csi/provision.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "csi/test/maps.h"
#include "csi/url.h"
#include "csi/volume_id.h"

struct state {
	struct arena arena;
	struct rpc_call call;
};

static int set_up(void **state)
{
	static struct state s;

	arena_init(&s.arena);
	s.call = (struct rpc_call){.arena = &s.arena, .cancel_fd = -1};
	*state = &s;
	return 0;
}

static int tear_down(void **state)
{
	arena_done(&((struct state *)*state)->arena);
	return 0;
}

#define PAIRS 6

/* A row of class parameters and the claim's annotations, and the URL that comes of it, or what the error says. */
struct row {
	const char *parameters[PAIRS], *annotations[PAIRS], *url, *says;
};

static void check_rows(struct state *s, const struct row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct claim claim = {"team", "set", "11-22", make_map(&s->arena, rows[i].annotations)};
		struct map context = {0};
		enum rpc_code code;

		s->call.text = "";
		code = provision(&s->call, make_map(&s->arena, rows[i].parameters), &claim, &context);
		if (rows[i].says) {
			assert_int_not_equal(code, RPC_OK);
			if (!strstr(s->call.text, rows[i].says))
				fail_msg("row %zu: '%s' is not in: %s", i, rows[i].says, s->call.text);
		} else {
			if (code != RPC_OK)
				fail_msg("row %zu: %s", i, s->call.text);
			assert_string_equal(map_get(context, "url"), rows[i].url);
		}
	}
}
#define CHECK_ROWS(state, rows) check_rows(state, rows, sizeof(rows) / sizeof((rows)[0]))

static void the_class_says_where_a_volume_lies(void **state)
{
	static const struct row rows[] = {
		{{"url=s3://b/p"}, {NULL}, "s3://b/p", NULL},
		{{"url=s3://b/p/", "subPath=x/y"}, {NULL}, "s3://b/p/x/y", NULL},
		{{"url=s3://b", "pathPattern=${pvc.namespace}/${pvc.name}"}, {NULL}, "s3://b/team/set", NULL},
		{{"url=s3://b", "pathPattern=x-${pvc.annotations['a.b/c']}$"}, {"a.b/c=v 1"}, "s3://b/x-v 1$", NULL},
		{{"url=s3://b", "mode=scratch"}, {NULL}, "s3://b/team-set-11-22", NULL},
		{{"url=s3://b", "mode=scratch", "subPath=tmp", "pathPattern=${pvc.uid}"}, {NULL}, "s3://b/tmp/11-22", NULL},
		{{"url=s3://b", "reclaim=retain"}, {NULL}, "s3://b", NULL},
		{{"subPath=x"}, {NULL}, NULL, "url is missing"},
		{{"url=s3://b", "reclaim=delete"}, {NULL}, NULL, "reclaim 'delete'"},
	};

	CHECK_ROWS(*state, rows);
}

static void a_pattern_gives_no_other_place(void **state)
{
#define PATTERN "pathPattern=a/${pvc.annotations['k']}"
	static const struct row rows[] = {
		{{"url=s3://b", PATTERN}, {"k=x/y"}, NULL, "may not hold '/'"},
		{{"url=s3://b", PATTERN}, {"k=.."}, NULL, "'..'"},
		{{"url=s3://b", PATTERN}, {"k=a..b"}, NULL, "'..'"},
		{{"url=s3://b", PATTERN}, {"k=."}, NULL, "as a part"},
		{{"url=s3://b", PATTERN}, {"k="}, NULL, "empty"},
		{{"url=s3://b", PATTERN}, {"k=a\nb"}, NULL, "control character"},
		{{"url=s3://b", PATTERN}, {"k=%2e%2e"}, NULL, "not taken from a claim"},
		{{"url=https://h", PATTERN}, {"k=x?y"}, NULL, "not taken from a claim"},
		{{"url=s3://b", PATTERN}, {"j=x"}, NULL, "has no annotation 'k'"},
		{{"url=s3://b", "pathPattern=/a"}, {NULL}, NULL, "no relative path"},
		{{"url=s3://b", "pathPattern=a/../${pvc.name}"}, {NULL}, NULL, "no relative path"},
		{{"url=s3://b", "pathPattern=.${pvc.annotations['k']}/x"}, {"k=."}, NULL, "as a part"},
		{{"url=s3://b", "pathPattern=${pvc.owner}"}, {NULL}, NULL, "'${pvc.owner}' is unknown"},
		{{"url=s3://b", "pathPattern=${pvc.annotations['']}"}, {NULL}, NULL, "is unknown"},
		{{"url=s3://b", "pathPattern=${pvc.annotations[']}"}, {NULL}, NULL, "is unknown"},
		{{"url=s3://b", "pathPattern=${pvc.name"}, {NULL}, NULL, "no '}'"},
	};

	CHECK_ROWS(*state, rows);
}

static void a_claim_chooses_within_the_class_alone(void **state)
{
#define CLASS "url=s3://b/sets", "allowedUrls=s3://b/sets/*, s3://other-*/pub https://h.example/*/d"
	static const struct row rows[] = {
		{{CLASS}, {"warpdrive.io/path=imagenet"}, "s3://b/sets/imagenet", NULL},
		{{CLASS, "pathPattern=${pvc.name}"}, {"warpdrive.io/path=a/b"}, "s3://b/sets/a/b", NULL},
		{{CLASS}, {"warpdrive.io/dataset=s3://other-1/pub/x"}, "s3://other-1/pub/x", NULL},
		{{CLASS, "subPath=s"}, {"warpdrive.io/dataset=s3://b/sets/q", "warpdrive.io/path=r"}, "s3://b/sets/q/r", NULL},
		{{"allowedUrls=s3://b"}, {"warpdrive.io/dataset=s3://b/"}, "s3://b/", NULL},
		{{CLASS}, {NULL}, "s3://b/sets", NULL},
		{{CLASS}, {"warpdrive.io/dataset=s3://b/other"}, NULL, "not within the class's allowedUrls"},
		{{CLASS}, {"warpdrive.io/dataset=s3://b/sets"}, NULL, "not within"},
		{{CLASS}, {"warpdrive.io/dataset=s3://b/sets/"}, NULL, "not within"},
		{{CLASS}, {"warpdrive.io/dataset=s3://other-1/x/pub"}, NULL, "not within"},
		{{CLASS}, {"warpdrive.io/dataset=s3://other-/x/pub"}, NULL, "not within"},
		{{CLASS}, {"warpdrive.io/dataset=https://h.example/a/b/d"}, NULL, "not within"},
		{{CLASS}, {"warpdrive.io/dataset=http://h.example/a/d"}, NULL, "not within"},
		{{CLASS}, {"warpdrive.io/dataset=https://h.example@evil/a/d"}, NULL, "'@'"},
		{{CLASS}, {"warpdrive.io/dataset=s3://b/sets//x"}, NULL, "as a part"},
		{{CLASS}, {"warpdrive.io/dataset=s3://b/sets/x/%2e%2e"}, NULL, "not taken"},
		{{CLASS}, {"warpdrive.io/dataset=file:///etc"}, NULL, "not within"},
		{{CLASS}, {"warpdrive.io/dataset=ftp://x/y"}, NULL, "is no URL"},
		{{CLASS}, {"warpdrive.io/path=../x"}, NULL, "as a part"},
		{{CLASS}, {"warpdrive.io/path=/x"}, NULL, "as a part"},
		{{CLASS}, {"warpdrive.io/path=s3://b/sets/x"}, NULL, "a path below"},
		{{CLASS}, {"warpdrive.io/version=v1"}, "s3://b/sets", NULL},
		{{"url=s3://b"}, {"warpdrive.io/path=x"}, NULL, "allowedUrls must name"},
		{{"url=s3://b"}, {"warpdrive.io/dataset=s3://b/x"}, NULL, "allowedUrls must name"},
		{{"url=s3://b", "mode=scratch", "allowedUrls=s3://b"}, {"warpdrive.io/path=x"}, NULL, "scratch volumes"},
		{{"url=s3://b", "allowedUrls="}, {NULL}, NULL, "allowedUrls: empty"},
		{{"url=s3://b", "allowedUrls=*"}, {NULL}, NULL, "no glob of URLs"},
		{{"url=s3://b", "allowedUrls=s3:///x"}, {NULL}, NULL, "names no bucket"},
	};

	CHECK_ROWS(*state, rows);
}

static void a_request_without_a_claim_needs_none_unless_the_pattern_does(void **state)
{
	static const char *const plain[] = {"url=s3://b", "region=eu", "csi.storage.k8s.io/fstype=x", NULL};
	static const char *const pattern[] = {"url=s3://b", "pathPattern=${pvc.name}", NULL};
	struct state *s = *state;
	struct map context;

	assert_int_equal(provision(&s->call, make_map(&s->arena, plain), NULL, &context), RPC_OK);
	assert_int_equal(context.n, 2);
	assert_string_equal(map_get(context, "region"), "eu");
	assert_int_equal(provision(&s->call, make_map(&s->arena, pattern), NULL, &context), RPC_INVALID_ARGUMENT);
	assert_non_null(strstr(s->call.text, "--extra-create-metadata"));
}

static void an_id_says_what_the_volume_is(void **state)
{
	static const char *const one[] = {"url=s3://b", "region=eu", NULL}, *const turned[] = {"region=eu",
		"storage.kubernetes.io/csiProvisionerIdentity=x", "url=s3://b", NULL};
	static const char *const swapped[] = {"url=eu", "region=s3://b", NULL};
	static const char *const scratch[] = {"url=s3://b", "mode=scratch", NULL};
	struct state *s = *state;
	struct volume_id id;
	char name[VOLUME_ID_MAX + 1] = "", other[VOLUME_ID_MAX + 1];
	const char *a = volume_id_make(&s->call, "pvc-1", make_map(&s->arena, one)), *b;

	assert_true(volume_id_parse(a, &id));
	assert_false(id.is_scratch);
	assert_int_equal(id.digest, volume_id_digest(make_map(&s->arena, turned)));
	assert_int_not_equal(id.digest, volume_id_digest(make_map(&s->arena, swapped)));
	assert_string_equal(a, volume_id_make(&s->call, "pvc-1", make_map(&s->arena, turned)));
	assert_true(volume_id_parse(volume_id_make(&s->call, "x", make_map(&s->arena, scratch)), &id));
	assert_true(id.is_scratch);
	/* names of every length that differ at their end */
	for (size_t len = 1; len <= VOLUME_ID_MAX; len++) {
		memset(name, 'n', len);
		memcpy(other, name, sizeof(other));
		other[len - 1] = 'm';
		a = volume_id_make(&s->call, name, make_map(&s->arena, one));
		b = volume_id_make(&s->call, other, make_map(&s->arena, one));
		assert_string_not_equal(a, b);
		assert_true(volume_id_parse(a, &id) && volume_id_parse(b, &id));
		assert_int_equal(volume_check_id(&s->call, "volume_id", a), RPC_OK);
	}
	assert_false(volume_id_parse("pvc-1", &id));
	assert_false(volume_id_parse("wd-d-", &id));
	assert_false(volume_id_parse("wd-x-0123456789abcdef-a", &id));
	assert_false(volume_id_parse("wd-d-0123456789abcdef-", &id));
	assert_false(volume_id_parse("wd-d-0123456789ABCDEF-a", &id));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(the_class_says_where_a_volume_lies),
		T(a_pattern_gives_no_other_place),
		T(a_claim_chooses_within_the_class_alone),
		T(a_request_without_a_claim_needs_none_unless_the_pattern_does),
		T(an_id_says_what_the_volume_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
