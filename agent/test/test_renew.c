/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Identities: bytes that one has fetched are no other's, and a mount may become another while it is read. By a whole
 * agent, with an HTTP origin that looks at tokens: "good" and "other" may read all, "names" only what is no object.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "agent/test/agent_fixture.h"
#include "agent/test/http_origin.h"

#define BLOCK (256 * 1024)
#define BIG (4 * BLOCK)

static struct rig rig;
static struct http_origin *server;
static struct wd_msg msg;
static unsigned char content[BIG];
static const char *_Atomic revoked; /* a token that is known no longer */

static const char *guard(const char *head)
{
	char line[200];
	const char *token;
	bool is_object = strstr(head, " /d/big ") || strstr(head, " /d/small ");

	if (!http_origin_header(head, "Authorization", line, sizeof(line)) || strncmp(line, "Bearer ", 7) != 0)
		return "AccessDenied";
	token = line + 7;
	if (revoked && strcmp(token, revoked) == 0)
		return "InvalidToken";
	if (strcmp(token, "good") == 0 || strcmp(token, "other") == 0)
		return NULL;
	/* HEAD tells that there is something, not what is in it */
	return strcmp(token, "names") == 0 && !(is_object && strncmp(head, "GET", 3) == 0) ? NULL : "AccessDenied";
}

static int start(void **state)
{
	for (size_t i = 0; i < sizeof(content); i++)
		content[i] = (unsigned char)(i * 7 + (i >> 10));
	rig_start(&rig, "request-deadline=10s", "prefetch-window=0", "max-get-size=256KiB", "small-object-size=64KiB",
		NULL);
	return 0;
}

static int stop(void **state)
{
	rig_stop(&rig);
	return 0;
}

static int begin(void **state)
{
	static unsigned version;
	char etag[32];

	revoked = NULL;
	server = http_origin_start();
	server->is_prompt = true;
	snprintf(etag, sizeof(etag), "\"v%u\"", ++version);
	http_origin_put(server, "/d/", "[]", 2, NULL, "application/json");
	http_origin_put(server, "/d/big", content, BIG, etag, NULL);
	http_origin_put(server, "/d/small", content, 1000, etag, NULL);
	http_origin_guard(server, guard);
	return 0;
}

static int end(void **state)
{
	http_origin_stop(server);
	return 0;
}

static const char *describe(const char *token)
{
	static char text[400];

	snprintf(text, sizeof(text),
		"{\"url\":\"http://127.0.0.1:%d/d/\",\"options\":{},\"credentials\":{\"bearer_token\":\"%s\"}}",
		server->port, token);
	return text;
}

static void mount_as(struct rig_mount *m, const char *token)
{
	static uint64_t next_id = 100;

	if (rig_try_mount_of(&rig, m, next_id++, describe(token)) < 0)
		fail_msg("mount as '%s': %s", token, rig.call_text);
}

/* Opens name; the mode, or -errno. */
static int open_name(struct rig_mount *m, const char *name, uint64_t *ret_node)
{
	uint64_t size;
	int rc = rig_lookup(m, &msg, RIG_ROOT, name, ret_node);

	if (rc == 0)
		rc = rig_open(m, &msg, *ret_node, 0, &size);
	wd_msg_close_fds(&msg);
	return rc;
}

/* Closes it as a server does, which leaves it pooled. */
static void close_pooled(struct rig_mount *m, uint64_t node)
{
	bool is_new;
	struct wd_mm_inode *e = wd_mm_claim(&m->mm, node, &is_new);

	atomic_store(&e->backing_id, 7);
	atomic_store(&e->state, WD_INO_IDLE);
}

static int read_block(struct rig_mount *m, uint64_t node, unsigned block)
{
	uint64_t position;
	int rc = rig_ensure(m, &msg, node, (uint64_t)block * BLOCK, BLOCK, 0, &position);

	wd_msg_close_fds(&msg);
	return rc;
}

static void what_one_identity_has_fetched_is_no_others(void **state)
{
	struct rig_mount owner, stranger, friend;
	uint64_t node;

	mount_as(&owner, "good");
	mount_as(&stranger, "names");
	mount_as(&friend, "other");
	assert_true(open_name(&owner, "small", &node) > 0);
	assert_true(open_name(&owner, "big", &node) > 0);
	for (unsigned b = 0; b < 4; b++)
		assert_int_equal(read_block(&owner, node, b), WD_ENSURE_PRESENT);
	/* all is in the cache; who may not read it at the origin may not read it here */
	assert_int_equal(open_name(&stranger, "small", &node), -EACCES);
	assert_int_equal(open_name(&stranger, "big", &node), -EACCES);
	/* who may, does, for a byte of each */
	assert_true(open_name(&friend, "small", &node) > 0);
	assert_true(open_name(&friend, "big", &node) > 0);
	/* and the stranger is none the wiser for it */
	assert_int_equal(open_name(&stranger, "big", &node), -EACCES);
	rig_umount(&owner);
	rig_umount(&stranger);
	rig_umount(&friend);
}

static void a_mount_that_is_renewed_reads_on(void **state)
{
	struct rig_mount m;
	uint64_t node;

	mount_as(&m, "good");
	assert_true(open_name(&m, "big", &node) > 0);
	assert_int_equal(read_block(&m, node, 0), WD_ENSURE_PRESENT);
	revoked = "good";
	assert_int_equal(rig_renew(&m, describe("other")), 0);
	assert_int_equal(read_block(&m, node, 1), WD_ENSURE_PRESENT);
	assert_true(open_name(&m, "small", &node) > 0);
	/* what the next agent gets: the new token, and the name of the dataset as it was */
	assert_non_null(strstr(rig.call_text, "\"bearer_token\":\"other\""));
	assert_non_null(strstr(rig.call_text, "\"identity\":\"token "));
	rig_umount(&m);
}

static void the_same_credentials_again_ask_nobody(void **state)
{
	struct rig_mount m;
	unsigned requests;

	mount_as(&m, "good");
	requests = http_origin_requests(server);
	assert_int_equal(rig_renew(&m, describe("good")), 0);
	assert_string_equal(rig.call_text, "");
	assert_int_equal(http_origin_requests(server), requests);
	rig_umount(&m);
}

static void credentials_that_the_origin_refuses_are_not_taken_over(void **state)
{
	struct rig_mount m;
	uint64_t node;

	mount_as(&m, "good");
	assert_true(open_name(&m, "big", &node) > 0);
	assert_int_equal(rig_renew(&m, describe("unknown")), -EACCES);
	assert_int_equal(rig_renew(&m, describe("a b")), -EINVAL);
	assert_int_equal(rig_renew(&m, "nonsense"), -EINVAL);
	assert_int_equal(rig_renew(&m, "{\"url\":\"http://127.0.0.1:1/d/\"}"), -EINVAL);
	assert_non_null(strstr(rig.call_text, "unmounted"));
	assert_int_equal(read_block(&m, node, 2), WD_ENSURE_PRESENT);
	rig_umount(&m);
}

static void a_renewed_mount_has_to_prove_itself_anew(void **state)
{
	struct rig_mount m;
	uint64_t node;

	mount_as(&m, "good");
	assert_int_equal(open_name(&m, "small", &node), WD_OPEN_PASSTHROUGH);
	close_pooled(&m, node);
	assert_int_equal(rig_renew(&m, describe("names")), 0);
	/* what was pooled is so no longer: a server has to ask */
	assert_null(wd_mm_find(&m.mm, node));
	assert_int_equal(open_name(&m, "small", &node), -EACCES);
	assert_int_equal(rig_renew(&m, describe("other")), 0);
	assert_true(open_name(&m, "small", &node) > 0);
	rig_umount(&m);
}

/* Two mounts of one identity share the dataset, and its requests; each opens with its own credentials. */
static void a_mount_that_stays_behind_is_not_carried_along(void **state)
{
	struct rig_mount first, second;
	uint64_t node;

	mount_as(&first, "good");
	mount_as(&second, "good");
	assert_int_equal(rig_renew(&first, describe("other")), 0);
	revoked = "good";
	assert_true(open_name(&first, "big", &node) > 0);
	assert_int_equal(read_block(&first, node, 0), WD_ENSURE_PRESENT);
	assert_int_equal(open_name(&second, "big", &node), -EACCES);
	assert_int_equal(rig_renew(&second, describe("good")), 0); /* nothing new: nothing gained */
	assert_int_equal(open_name(&second, "big", &node), -EACCES);
	assert_int_equal(rig_renew(&second, describe("other")), 0);
	assert_true(open_name(&second, "big", &node) > 0);
	rig_umount(&first);
	rig_umount(&second);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_one_identity_has_fetched_is_no_others),
		TEST(a_mount_that_is_renewed_reads_on),
		TEST(the_same_credentials_again_ask_nobody),
		TEST(credentials_that_the_origin_refuses_are_not_taken_over),
		TEST(a_renewed_mount_has_to_prove_itself_anew),
		TEST(a_mount_that_stays_behind_is_not_carried_along),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
