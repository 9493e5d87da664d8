/* SPDX-License-Identifier: Apache-2.0 */
/* What a request may say of a volume. */
#include "csi/volume.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "csi/test/maps.h"

struct state {
	struct arena arena;
	struct rpc_call call;
	Csi__V1__VolumeCapability capability;
	Csi__V1__VolumeCapability__MountVolume mount;
	Csi__V1__VolumeCapability__AccessMode mode;
};

static int set_up(void **state)
{
	static struct state s;

	arena_init(&s.arena);
	s.call = (struct rpc_call){.arena = &s.arena, .cancel_fd = -1};
	csi__v1__volume_capability__init(&s.capability);
	csi__v1__volume_capability__mount_volume__init(&s.mount);
	csi__v1__volume_capability__access_mode__init(&s.mode);
	s.mode.mode = CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__MODE__MULTI_NODE_READER_ONLY;
	s.capability.access_type_case = CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE_MOUNT;
	s.capability.mount = &s.mount;
	s.capability.access_mode = &s.mode;
	*state = &s;
	return 0;
}

static int tear_down(void **state)
{
	arena_done(&((struct state *)*state)->arena);
	return 0;
}

static json_t *describe(struct state *s, const char *const *context, const char *const *secrets)
{
	struct volume_mount v = {"/target", make_map(&s->arena, context), make_map(&s->arena, secrets), &s->capability};
	const char *text;

	return volume_describe(&s->call, &v, &text) == RPC_OK ? json_loads(text, 0, NULL) : NULL;
}

static const char *option(json_t *root, const char *name)
{
	return json_string_value(json_object_get(json_object_get(root, "options"), name));
}

static void words_of_kubernetes_become_mount_options(void **state)
{
	static const char *const context[] = {"url=s3://bucket/a/", "subPath=b/c", "pathStyle=true",
		"endpoint=http://minio:9000", "fileMode=0440", "passthrough=false",
		"csi.storage.k8s.io/pod.name=trainer", "storage.kubernetes.io/csiProvisionerIdentity=x", NULL};
	static const char *const secrets[] = {"accessKeyId=AK", "AWS_SECRET_ACCESS_KEY=SK", "other=x", NULL};
	json_t *root = describe(*state, context, secrets), *keys = json_object_get(root, "credentials");

	assert_non_null(root);
	assert_string_equal(json_string_value(json_object_get(root, "url")), "s3://bucket/a/b/c");
	assert_string_equal(option(root, "path-style"), "true");
	assert_string_equal(option(root, "file-mode"), "0440");
	assert_string_equal(option(root, "no-passthrough"), "true");
	assert_int_equal(json_object_size(json_object_get(root, "options")), 4);
	assert_string_equal(json_string_value(json_object_get(keys, "access_key")), "AK");
	assert_string_equal(json_string_value(json_object_get(keys, "secret_key")), "SK");
	assert_int_equal(json_object_size(keys), 2);
	json_decref(root);
}

static void mount_flags_and_the_volume_group_are_options_too(void **state)
{
	static const char *const context[] = {"url=s3://b/", "region=eu", NULL};
	char *flags[] = {(char *)"region=us", (char *)"anonymous", (char *)"uid=7"};
	struct state *s = *state;
	json_t *root;

	s->mount.mount_flags = flags;
	s->mount.n_mount_flags = 3;
	s->mount.volume_mount_group = (char *)"2000";
	root = describe(s, context, NULL);
	assert_non_null(root);
	assert_string_equal(option(root, "region"), "eu"); /* the context is meant */
	assert_string_equal(option(root, "anonymous"), "true");
	assert_string_equal(option(root, "uid"), "7");
	assert_string_equal(option(root, "gid"), "2000");
	json_decref(root);
}

static void a_mistake_is_named(void **state)
{
	static const struct {
		const char *context[4], *says;
	} rows[] = {
		{{"region=x", NULL}, "url is missing"},
		{{"url=s3://b", "regoin=x", NULL}, "'regoin' is unknown: the known ones are url, subPath"},
		{{"url=bucket/prefix", NULL}, "is no URL"},
		{{"url=s4://bucket/prefix", NULL}, "is no URL"},
		{{"url=s3://b/../c", NULL}, "'..'"},
		{{"url=https://h/?list", NULL}, "'?'"},
		{{"url=https://user:pass@h/?list", NULL}, "url 'https://h/?list'"},
		{{"url=ftp://user:pass@h/", NULL}, "url 'ftp://h/'"},
		{{"url=s3://b", "pathPattern=${pvc.name}", NULL}, "'pathPattern' is unknown"},
		{{"url=s3://b", "mode=write", NULL}, "mode 'write'"},
		{{"url=s3://b", "pathStyle=yes", NULL}, "'pathStyle' is 'yes'"},
		{{"url=s3://b", "mode=scratch", NULL}, "cannot write"},
		{{"url=s3://b", "subPath=a/../../c", NULL}, "subPath"},
		{{"url=s3://b", "subPath=/a", NULL}, "subPath"},
		{{"url=s3://b", "writeMode=back", NULL}, "'writeMode' has no effect"},
		{{"url=s3://b", "tenantId=t", NULL}, "'tenantId' has no effect"},
		{{"url=az://container/x", NULL}, "is no URL"},
		{{"url=s3://b", "authenticationSource=pod", NULL}, "tokenRequests"},
		{{"url=s3://b", "evil.example/k8s.io/x=1", NULL}, "unknown"},
		{{"url=s3://b", "notk8s.io/x=1", NULL}, "unknown"},
	};
	struct state *s = *state;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct volume_mount v = {"/t", make_map(&s->arena, rows[i].context), {0}, &s->capability};
		const char *text;

		s->mode.mode = CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__MODE__MULTI_NODE_MULTI_WRITER;
		assert_int_equal(volume_describe(&s->call, &v, &text), RPC_INVALID_ARGUMENT);
		if (!strstr(s->call.text, rows[i].says))
			fail_msg("row %zu: %s", i, s->call.text);
	}
}

#define TOKENS                                                                                                 \
	"csi.storage.k8s.io/serviceAccount.tokens={\"sts.amazonaws.com\":{\"token\":\"CANARY-A\","         \
	"\"expirationTimestamp\":\"2026-01-02T03:04:05Z\"},\"other\":{\"token\":\"CANARY-B\"}}"

static void the_token_of_the_audience_is_passed_on(void **state)
{
	static const char *const s3[] = {"url=s3://b", "authenticationSource=pod", "roleArn=arn:r", TOKENS,
		"csi.storage.k8s.io/serviceAccount.name=sa", "csi.storage.k8s.io/pod.namespace=ns",
		"csi.storage.k8s.io/ephemeral=true", NULL};
	static const char *const http[] = {"url=https://h/", "authenticationSource=pod", "audience=other", NULL};
	static const char *const none[] = {"url=s3://b", TOKENS, NULL}, *const secrets[] = {TOKENS, NULL};
	json_t *root = describe(*state, s3, NULL), *keys = json_object_get(root, "credentials");

	assert_non_null(root);
	assert_string_equal(json_string_value(json_object_get(keys, "token")), "CANARY-A");
	assert_int_equal(json_integer_value(json_object_get(keys, "token_expires")), 1767323045);
	assert_string_equal(json_string_value(json_object_get(keys, "subject")), "ns:sa");
	assert_true(json_is_true(json_object_get(root, "ephemeral")));
	assert_string_equal(option(root, "role-arn"), "arn:r");
	json_decref(root);
	/* in the secrets, where clusters can; and a volume that does not ask gets none */
	root = describe(*state, http, secrets);
	keys = json_object_get(root, "credentials");
	assert_string_equal(json_string_value(json_object_get(keys, "token")), "CANARY-B");
	assert_false(json_is_true(json_object_get(root, "ephemeral")));
	json_decref(root);
	root = describe(*state, none, NULL);
	assert_non_null(root);
	assert_int_equal(json_object_size(json_object_get(root, "credentials")), 0);
	json_decref(root);
}

static void an_audience_without_a_token_is_named(void **state)
{
	static const char *const bad[][5] = {
		{"url=https://h/", "authenticationSource=pod", TOKENS, NULL},
		{"url=https://h/", "authenticationSource=pod", "audience=absent", TOKENS, NULL},
		{"url=s3://b", "authenticationSource=pod", "csi.storage.k8s.io/serviceAccount.tokens={\"x\":{}}", NULL},
	};
	struct state *s = *state;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct volume_mount v = {"/t", make_map(&s->arena, bad[i]), {0}, &s->capability};
		const char *text;

		assert_int_equal(volume_describe(&s->call, &v, &text), RPC_INVALID_ARGUMENT);
		assert_non_null(strstr(s->call.text, "audience"));
		assert_null(strstr(s->call.text, "CANARY"));
	}
}

static void secrets_without_a_known_key_are_refused_without_being_shown(void **state)
{
	static const char *const context[] = {"url=s3://b", NULL}, *const secrets[] = {"acessKey=CANARY", NULL};
	struct state *s = *state;
	struct volume_mount v = {"/t", make_map(&s->arena, context), make_map(&s->arena, secrets), &s->capability};
	const char *text;

	assert_int_equal(volume_describe(&s->call, &v, &text), RPC_INVALID_ARGUMENT);
	assert_non_null(strstr(s->call.text, "accessKeyId"));
	assert_null(strstr(s->call.text, "CANARY"));
}

static void ids_hold_no_paths(void **state)
{
	static const char *const bad[] = {"", "a/b", "..", "a..b", "a b", "a\tb", "\xc3\xa9"};
	struct state *s = *state;
	char longest[VOLUME_ID_MAX + 2];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(volume_check_id(&s->call, "volume_id", bad[i]), RPC_INVALID_ARGUMENT);
	memset(longest, 'a', sizeof(longest));
	longest[VOLUME_ID_MAX + 1] = '\0';
	assert_int_equal(volume_check_id(&s->call, "volume_id", longest), RPC_INVALID_ARGUMENT);
	longest[VOLUME_ID_MAX] = '\0';
	assert_int_equal(volume_check_id(&s->call, "volume_id", longest), RPC_OK);
	assert_int_equal(volume_check_id(&s->call, "volume_id", "pvc-1_2.x"), RPC_OK);
}

static void capabilities_that_mean_nothing_are_refused(void **state)
{
	struct state *s = *state;
	int modes[] = {0, 8, 77, -1};

	assert_int_equal(volume_check_capability(&s->call, &s->capability), RPC_OK);
	assert_int_equal(volume_check_capability(&s->call, NULL), RPC_INVALID_ARGUMENT);
	for (size_t i = 0; i < 4; i++) {
		s->mode.mode = (Csi__V1__VolumeCapability__AccessMode__Mode)modes[i];
		assert_int_equal(volume_check_capability(&s->call, &s->capability), RPC_INVALID_ARGUMENT);
	}
	s->mode.mode = CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__MODE__SINGLE_NODE_WRITER;
	s->capability.access_type_case = CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE_BLOCK;
	assert_int_equal(volume_check_capability(&s->call, &s->capability), RPC_INVALID_ARGUMENT);
	s->capability.access_type_case = CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE__NOT_SET;
	assert_int_equal(volume_check_capability(&s->call, &s->capability), RPC_INVALID_ARGUMENT);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(words_of_kubernetes_become_mount_options),
		T(mount_flags_and_the_volume_group_are_options_too),
		T(a_mistake_is_named),
		T(the_token_of_the_audience_is_passed_on),
		T(an_audience_without_a_token_is_named),
		T(secrets_without_a_known_key_are_refused_without_being_shown),
		T(ids_hold_no_paths),
		T(capabilities_that_mean_nothing_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
