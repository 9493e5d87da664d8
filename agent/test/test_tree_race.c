/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lookups beside a listing of the same directory. Each of these once made a name that exists vanish for
 * a whole TTL.
 */
#include "agent/test/origin_fixture.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/test/http_origin.h"
#include "agent/tree.h"
#include "agent/tree_internal.h"
#include "common/fault.h"

#define FOREVER 3600000
#define PAGE "/bkt/?encoding-type=url&list-type=2&max-keys=1000&prefix="
#define LEVEL "/bkt/?delimiter=%2F&encoding-type=url&list-type=2&max-keys=1000&prefix="
#define LEVEL_2 "/bkt/?continuation-token=t&delimiter=%2F&encoding-type=url&list-type=2&max-keys=1000&prefix="
#define BELOW(name) "/bkt/?encoding-type=url&list-type=2&max-keys=1&prefix=" name "%2F"
#define XML(body) "<?xml version='1.0'?><ListBucketResult>" body "</ListBucketResult>"
#define MORE "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
#define KEY(name)                                                                                            \
	"<Contents><Key>" name "</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"                 \
	"<ETag>\"t\"</ETag><Size>2</Size></Contents>"

struct setup {
	char dir[64];
	struct settings settings;
	struct http_origin *server;
	struct meta *meta;
	struct tree *tree;
	struct dataset *ds;
};

static int begin(void **state)
{
	struct setup *s = calloc(1, sizeof(*s));
	struct origin_options options = {.is_anonymous = true, .is_path_style = true};
	struct origin *origin;
	struct wd_err err = WD_ERR_INIT;
	char endpoint[64];

	strcpy(s->dir, "/tmp/wd-tree-race-XXXXXX");
	if (!mkdtemp(s->dir) || origins_start(1, 4, &err) < 0)
		return -1;
	s->settings = (struct settings){.metadata_ttl = FOREVER, .list_after_lookups = 8};
	s->server = http_origin_start();
	snprintf(endpoint, sizeof(endpoint), "http://127.0.0.1:%d", s->server->port);
	options.endpoint = endpoint;
	http_origin_text(s->server, PAGE, XML(MORE KEY("a")), "application/xml");
	http_origin_text(s->server, LEVEL, XML(MORE KEY("a")), "application/xml");
	http_origin_text(s->server, LEVEL_2, XML(KEY("z")), "application/xml");
	http_origin_text(s->server, BELOW("a"), XML(""), "application/xml");
	http_origin_text(s->server, BELOW("b"), XML(""), "application/xml");
	http_origin_text(s->server, "/bkt/a", "aa", NULL);
	if (meta_open(s->dir, &s->meta, &err) < 0 || origin_open("s3://bkt", &options, &origin, &err) < 0)
		return -1;
	s->tree = tree_new(s->meta, &s->settings);
	if (tree_dataset(s->tree, origin, "s3://bkt", "me", &(struct identity){0}, false, &s->ds, &err) < 0)
		return -1;
	*state = s;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static int end(void **state)
{
	struct setup *s = *state;

	dataset_unref(s->ds);
	tree_free(s->tree);
	meta_close(s->meta);
	origins_stop();
	http_origin_stop(s->server);
	nftw(s->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(s);
	return 0;
}

static int lookup(struct setup *s, const char *name, int64_t ttl_ms)
{
	struct node node;
	uint32_t left_ms;
	struct wd_err err = WD_ERR_INIT;

	return tree_lookup(s->ds, TREE_ROOT, name, ttl_ms, true, &node, &left_ms, &err);
}

static bool count(void *arg, uint64_t cookie, const char *name, const struct node *node)
{
	(void)cookie, (void)name, (void)node;
	++*(unsigned *)arg;
	return true;
}

static void *list_root(void *arg)
{
	struct setup *s = arg;
	struct wd_err err = WD_ERR_INIT;
	unsigned n = 0;
	bool is_end;
	uint32_t ttl_ms;

	assert_ok(tree_readdir(s->ds, TREE_ROOT, 0, FOREVER, count, &n, &is_end, &ttl_ms, &err));
	return (void *)(uintptr_t)n;
}

static void *look_up_b(void *arg)
{
	return (void *)(intptr_t)lookup(arg, "b", FOREVER);
}

static void name_probed_while_its_directory_is_listed_stays(void **state)
{
	struct setup *s = *state;
	pthread_t lister;
	void *seen;

	http_origin_fail(s->server, FAULT_NONE, 0, NULL);
	http_origin_fail(s->server, FAULT_NONE, 0, NULL);
	http_origin_fail(s->server, FAULT_HOLD, 0, NULL); /* the second page */
	pthread_create(&lister, NULL, list_root, s);
	http_origin_wait_requests(s->server, 3);
	assert_int_equal(lookup(s, "a", 0), 0); /* asks by itself */
	assert_int_equal(http_origin_requests(s->server), 5);
	http_origin_release(s->server);
	pthread_join(lister, &seen);
	assert_int_equal((uintptr_t)seen, 2);
	assert_int_equal(lookup(s, "a", FOREVER), 0);
	assert_int_equal(http_origin_requests(s->server), 5);
}

static void name_that_appears_during_a_listing_stays(void **state)
{
	struct setup *s = *state;
	pthread_t lister;
	void *seen;

	http_origin_fail(s->server, FAULT_NONE, 0, NULL);
	http_origin_fail(s->server, FAULT_NONE, 0, NULL);
	http_origin_fail(s->server, FAULT_HOLD, 0, NULL);
	pthread_create(&lister, NULL, list_root, s);
	http_origin_wait_requests(s->server, 3);
	http_origin_text(s->server, "/bkt/b", "bb", NULL); /* its page has gone by */
	assert_int_equal(lookup(s, "b", FOREVER), 0);
	http_origin_release(s->server);
	pthread_join(lister, &seen);
	assert_int_equal(lookup(s, "b", FOREVER), 0);
}

static void late_no_does_not_remove_what_a_listing_has_seen_since(void **state)
{
	struct setup *s = *state;
	pthread_t prober;
	void *rc;

	http_origin_fail(s->server, FAULT_NONE, 0, NULL);
	http_origin_fail(s->server, FAULT_HOLD, 0, NULL); /* HEAD b: the server says no, but late */
	pthread_create(&prober, NULL, look_up_b, s);
	http_origin_wait_requests(s->server, 2);
	http_origin_text(s->server, "/bkt/b", "bb", NULL);
	http_origin_text(s->server, LEVEL, XML(MORE KEY("a") KEY("b")), "application/xml");
	assert_int_equal((uintptr_t)list_root(s), 3);
	http_origin_release(s->server);
	pthread_join(prober, &rc);
	assert_int_equal((intptr_t)rc, 0);
	assert_int_equal(lookup(s, "b", FOREVER), 0);
}

static void listing_that_fails_in_the_middle_removes_nothing(void **state)
{
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	unsigned n = 0;
	bool is_end;
	uint32_t ttl_ms;

	assert_int_equal((uintptr_t)list_root(s), 2);
	http_origin_fail(s->server, FAULT_NONE, 0, NULL);
	http_origin_fail(s->server, FAULT_NONE, 0, NULL);
	http_origin_fail(s->server, FAULT_STATUS, 403, ""); /* the second page */
	assert_int_equal(
		tree_readdir(s->ds, TREE_ROOT, 0, 0, count, &n, &is_end, &ttl_ms, &err), -EACCES);
	assert_int_equal(lookup(s, "z", FOREVER), 0);
	assert_int_equal(lookup(s, "a", FOREVER), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

#define UPSERTS 2000

/* Each draws an id, writes the name down with it, and must find it with that one or a later. */
static void *stamp(void *arg)
{
	struct setup *s = arg;
	uintptr_t lost = 0;

	for (int i = 0; i < UPSERTS; i++) {
		uint64_t id = meta_next_id(s->meta);
		struct child child;

		tree_upsert(s->ds, s->ds->root, "d", "d/", 2, true, NULL, id, tree_now_ms(), &child);
		usleep(1); /* the others finish what they began */
		lost += child_load(s->meta, s->ds->root, "d", &child) < 0 || child.list_id < id;
	}
	return (void *)lost;
}

/* A stamp that goes down makes a listing that saw the name remove it. */
static void no_stamp_goes_down(void **state)
{
	struct setup *s = *state;
	pthread_t threads[4];
	void *lost;

	wd_fault_arm("tree.slow-upsert=0");
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, stamp, s);
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], &lost);
		assert_int_equal((uintptr_t)lost, 0);
	}
	wd_fault_arm(NULL);
}

#ifdef WD_FAULTS

/* Between "there is no such child" and "this directory was just listed" the listing may have ended. */
static void name_that_a_listing_brings_between_two_looks_is_there(void **state)
{
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	struct node node;
	uint32_t left_ms;
	unsigned listed;

	wd_fault_arm("tree.between-looks=1");
	assert_int_equal(tree_lookup(s->ds, TREE_ROOT, "a", FOREVER, false, &node, &left_ms, &err), -EAGAIN);
	wd_fault_arm(NULL);
	listed = http_origin_requests(s->server);
	assert_int_equal(lookup(s, "a", FOREVER), 0);
	assert_int_equal(lookup(s, "b", FOREVER), -ENOENT);
	assert_int_equal(http_origin_requests(s->server), listed); /* the listing knew both */
}

#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(name_probed_while_its_directory_is_listed_stays),
		TEST(name_that_appears_during_a_listing_stays),
		TEST(late_no_does_not_remove_what_a_listing_has_seen_since),
		TEST(listing_that_fails_in_the_middle_removes_nothing),
		TEST(no_stamp_goes_down),
#ifdef WD_FAULTS
		TEST(name_that_a_listing_brings_between_two_looks_is_there),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
