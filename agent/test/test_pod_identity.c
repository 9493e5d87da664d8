/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credentials from a pod's token and from the node: by a whole agent, with a server that is the token service
 * (/sts), an S3 that takes the keys which the service gave out last, and an HTTP origin that wants the token itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <time.h>

#include "agent/credentials.h"
#include "agent/test/agent_fixture.h"
#include "agent/test/http_origin.h"

#define LIST "/bkt/?encoding-type=url&list-type=2&max-keys=1&prefix="
#define EMPTY "<?xml version='1.0'?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"

static struct rig rig;
static struct http_origin *server;
static struct wd_msg msg;
static char document[700];
static char key[32];	     /* that S3 takes, guarded by the server's lock */
static const char *_Atomic good_token;
static _Atomic unsigned exchanges;

static void give_out(const char *access_key, int seconds)
{
	time_t at = time(NULL) + seconds;
	char when[40];
	struct tm tm;

	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&at, &tm));
	snprintf(document, sizeof(document),
		"<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">"
		"<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>secret"
		"</SecretAccessKey><SessionToken>session-%s</SessionToken><Expiration>%s</Expiration></Credentials>"
		"</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
		access_key, access_key, when);
	http_origin_put(server, "/sts", document, strlen(document), NULL, "text/xml");
}

/* Whose keys were given out last is in. */
static const char *guard(const char *head)
{
	char line[400], wanted[64];

	if (strncmp(head, "POST /sts", 9) == 0) {
		snprintf(wanted, sizeof(wanted), "&WebIdentityToken=%s", good_token);
		exchanges++;
		if (!strstr(server->form, "Action=AssumeRoleWithWebIdentity") ||
			!strstr(server->form, "RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Freader"))
			return "ValidationError";
		return strstr(server->form, wanted) ? NULL : "InvalidIdentityToken";
	}
	if (!http_origin_header(head, "Authorization", line, sizeof(line)))
		return "AccessDenied";
	if (strncmp(line, "Bearer ", 7) == 0)
		return strcmp(line + 7, good_token) == 0 ? NULL : "AccessDenied";
	snprintf(wanted, sizeof(wanted), "Credential=%s/", key);
	return strstr(line, wanted) ? NULL : "InvalidAccessKeyId";
}

static void take_only(const char *access_key)
{
	pthread_mutex_lock(&server->lock);
	snprintf(key, sizeof(key), "%s", access_key);
	pthread_mutex_unlock(&server->lock);
}

static int start(void **state)
{
	char sts[80];
	sigset_t set;

	/* before there is a thread: SIGTERM is how the rig ends its agent */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	server = http_origin_start();
	server->is_prompt = true;
	http_origin_put(server, LIST, EMPTY, strlen(EMPTY), NULL, "application/xml");
	http_origin_put(server, "/bkt/f", "hello", 5, "\"v\"", NULL);
	http_origin_put(server, "/d/", "[]", 2, NULL, "application/json");
	http_origin_guard(server, guard);
	snprintf(sts, sizeof(sts), "sts-endpoint=http://127.0.0.1:%d/sts", server->port);
	setenv("AWS_ACCESS_KEY_ID", "NODEKEY", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "nodesecret", 1);
	rig_start(&rig, sts, "node-identity=volumes", "request-deadline=5s", NULL);
	return 0;
}

static int stop(void **state)
{
	rig_stop(&rig);
	http_origin_stop(server);
	return 0;
}

static int begin(void **state)
{
	good_token = "token-1";
	exchanges = 0;
	give_out("KEY1", 3600);
	take_only("KEY1");
	return 0;
}

static const char *describe(bool is_s3, const char *more, const char *options, const char *token)
{
	static char text[700];
	char url[80], endpoint[100] = "";

	snprintf(url, sizeof(url), is_s3 ? "s3://bkt" : "http://127.0.0.1:%d/d/", server->port);
	if (is_s3)
		snprintf(endpoint, sizeof(endpoint), "\"endpoint\":\"http://127.0.0.1:%d\",\"path-style\":\"\",",
			server->port);
	snprintf(text, sizeof(text),
		"{\"url\":\"%s\"%s,\"options\":{%s%s},\"credentials\":{\"token\":\"%s\",\"subject\":\"ns:sa\"}}", url,
		more, endpoint, options, token);
	return text;
}

#define POD "\"authentication-source\":\"pod\""
#define ROLE POD ",\"role-arn\":\"arn:aws:iam::1:role/reader\""

static int try_mount(struct rig_mount *m, const char *description)
{
	static uint64_t next_id = 100;

	return rig_try_mount_of(&rig, m, next_id++, description);
}

static void mount_it(struct rig_mount *m, const char *description)
{
	if (try_mount(m, description) < 0)
		fail_msg("%s", rig.call_text);
}

static void expect_refused(const char *description, int rc, const char *says)
{
	struct rig_mount m;

	if (try_mount(&m, description) != rc || !strstr(rig.call_text, says))
		fail_msg("%s: '%s' is not %d, '%s'", description, rig.call_text, rc, says);
	rig_drop_mount(&m);
}

/* The origin is asked anew: one-key listings are not remembered for names that are not there. */
static int ask_origin(struct rig_mount *m)
{
	static unsigned n;
	char name[32];
	uint64_t node;

	snprintf(name, sizeof(name), "absent-%u", n++);
	return rig_lookup(m, &msg, RIG_ROOT, name, &node);
}

static void a_token_is_exchanged_for_keys_of_the_role(void **state)
{
	struct rig_mount m;

	mount_it(&m, describe(true, "", ROLE, "token-1"));
	assert_int_equal(exchanges, 1);
	assert_int_equal(rig_renew(&m, describe(true, "", ROLE, "token-1")), 0);
	assert_int_equal(exchanges, 1); /* the same token says nothing new */
	good_token = "token-2";
	give_out("KEY2", 3600);
	take_only("KEY2");
	assert_int_equal(ask_origin(&m), -EACCES);
	assert_int_equal(rig_renew(&m, describe(true, "", ROLE, "token-2")), 0);
	assert_non_null(strstr(rig.call_text, "\"identity\":\"pod arn:aws:iam::1:role/reader ns:sa\""));
	assert_int_equal(ask_origin(&m), -ENOENT);
	rig_umount(&m);
}

static void keys_are_made_anew_before_they_end(void **state)
{
	struct rig_mount m;

	give_out("KEY1", 3);
	mount_it(&m, describe(true, "", ROLE, "token-1"));
	give_out("KEY2", 3600);
	take_only("KEY2");
	pthread_mutex_lock(&server->lock);
	while (exchanges < 2) /* two or three seconds: the refresher's time */
		pthread_cond_wait(&server->arrived, &server->lock);
	pthread_mutex_unlock(&server->lock);
	while (ask_origin(&m) == -EACCES) /* the new keys are being tried out */
		;
	assert_int_equal(ask_origin(&m), -ENOENT);
	rig_umount(&m);
}

static void what_is_missing_or_refused_is_named(void **state)
{
	expect_refused(describe(true, "", POD, "token-1"), -EINVAL, "role-arn");
	expect_refused(describe(true, "", ROLE, ""), -EINVAL, "tokenRequests");
	expect_refused(describe(true, "", ROLE, "token-0"), -EKEYREJECTED, "InvalidIdentityToken");
	expect_refused(describe(true, "", "\"authentication-source\":\"magic\"", "t"), -EINVAL, "secret, pod or node");
	assert_null(strstr(rig.call_text, "token-0"));
}

static void an_http_origin_gets_the_token_itself(void **state)
{
	struct rig_mount m;

	mount_it(&m, describe(false, "", POD, "token-1"));
	assert_int_equal(exchanges, 0);
	good_token = "token-2";
	assert_int_equal(rig_renew(&m, describe(false, "", POD, "token-2")), 0);
	assert_int_equal(ask_origin(&m), -ENOENT);
	rig_umount(&m);
	expect_refused(describe(false, "", POD, "token-0"), -EACCES, "403");
}

static void the_node_is_lent_to_nobody_who_may_not(void **state)
{
	static const char node[] = "\"authentication-source\":\"node\"", inline_volume[] = ",\"ephemeral\":true";
	struct rig_mount m;

	take_only("NODEKEY");
	mount_it(&m, describe(true, "", node, ""));
	rig_umount(&m);
	expect_refused(describe(true, inline_volume, node, ""), -EACCES, "node-identity");
	expect_refused(describe(false, "", node, ""), -EINVAL, "authentication-source=node");
	wd_config_set(settings_keys, &rig.settings, "node-identity", "none", NULL);
	expect_refused(describe(true, "", node, ""), -EACCES, "node-identity (none)");
	wd_config_set(settings_keys, &rig.settings, "node-identity", "all", NULL);
	mount_it(&m, describe(true, inline_volume, node, ""));
	rig_umount(&m);
}

static void keys_are_refreshed_well_before_their_end(void **state)
{
	assert_int_equal(credentials_refresh_at(1000, 4600, 0), 1000 + 2520);
	assert_int_equal(credentials_refresh_at(1000, 4600, UINT32_MAX), 1000 + 2520 + 720);
	assert_int_equal(credentials_refresh_at(1000, 900, UINT32_MAX), 1000);
}

static void answers_that_make_no_sense_give_no_keys(void **state)
{
	static const char entity[] =
		"<!DOCTYPE x [<!ENTITY a 'b'>]><C><Credentials><AccessKeyId>A</AccessKeyId><SecretAccessKey>B"
		"</SecretAccessKey><SessionToken>C</SessionToken></Credentials></C>";
	static const char *const bad[] = {
		"", "<a>", "<Credentials><AccessKeyId>A</AccessKeyId></Credentials>", entity};
	struct sts_keys k;
	struct wd_err err = WD_ERR_INIT;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(sts_parse(bad[i], strlen(bad[i]), &k, &err), -EPROTO);
	for (size_t len = 0; len < strlen(document); len++)
		if (sts_parse(document, len, &k, &err) == 0)
			fail_msg("%zu bytes of the document are taken for all", len);
	assert_int_equal(sts_parse(document, strlen(document), &k, &err), 0);
	assert_string_equal(k.access_key, "KEY1");
	assert_string_equal(k.session_token, "session-KEY1");
	assert_true(k.expires_s > time(NULL) + 3000);
	sts_keys_done(&k);
}

#define TEST(name) cmocka_unit_test_setup(name, begin)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_token_is_exchanged_for_keys_of_the_role),
		TEST(keys_are_made_anew_before_they_end),
		TEST(what_is_missing_or_refused_is_named),
		TEST(an_http_origin_gets_the_token_itself),
		TEST(the_node_is_lent_to_nobody_who_may_not),
		TEST(keys_are_refreshed_well_before_their_end),
		TEST(answers_that_make_no_sense_give_no_keys),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
