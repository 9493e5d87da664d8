/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/test/origin_fixture.h"

#include "agent/retry.h"
#include "agent/s3_sign.h"

#define MS 1000000LL

static void backoff_doubles_up_to_the_cap(void **state)
{
	static const int64_t windows[] = {100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000};
	struct retry r;
	int64_t at;

	(void)state;
	retry_start(&r, 0, 3600000);
	for (size_t i = 0; i < sizeof(windows) / sizeof(windows[0]); i++) {
		struct retry low = r;

		assert_true(retry_again(&low, 0, -1, 0, &at));
		assert_int_equal(at, RETRY_FLOOR_MS * MS);
		assert_true(retry_again(&r, 0, -1, UINT32_MAX, &at));
		assert_int_equal(at, (RETRY_FLOOR_MS + windows[i]) * MS);
	}
}

static void server_may_ask_for_longer_but_not_past_the_deadline(void **state)
{
	struct retry r;
	int64_t at;

	(void)state;
	retry_start(&r, 10 * MS, 1000);
	assert_true(retry_again(&r, 10 * MS, 700, 0, &at));
	assert_int_equal(at, 710 * MS);
	assert_true(retry_again(&r, 10 * MS, 5000, 0, &at));
	assert_int_equal(at, 910 * MS); /* the last try, with time for an answer */
	assert_false(retry_again(&r, 910 * MS, -1, 0, &at));
	assert_int_equal(r.deadline_ns, 1010 * MS);
	retry_start(&r, 0, 60000);
	assert_true(retry_again(&r, 0, 86400000, 0, &at));
	assert_int_equal(at, 58000 * MS);
}

static void deadline_that_is_over_allows_no_other_try(void **state)
{
	struct retry r;
	int64_t at;

	(void)state;
	retry_start_until(&r, 500 * MS, 400 * MS);
	assert_false(retry_again(&r, 500 * MS, -1, 0, &at));
}

static void progress_starts_the_time_afresh(void **state)
{
	struct retry r;
	int64_t at;

	(void)state;
	retry_start(&r, 0, 1000);
	for (int i = 0; i < 6; i++)
		assert_true(retry_again(&r, 0, -1, UINT32_MAX, &at));
	retry_progress(&r, 900 * MS, 1000);
	assert_true(retry_again(&r, 1500 * MS, -1, UINT32_MAX, &at));
	assert_int_equal(at, (1600 + RETRY_FLOOR_MS) * MS);
}

/* The examples of Amazon's documentation of Signature Version 4 for S3, whose keys are public. */
static const struct s3_to_sign example = {
	.method = "GET",
	.path = "/",
	.query = "",
	.region = "us-east-1",
	.service = "s3",
	.access_key = "AKIAIOSFODNN7EXAMPLE",
	.secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
	.payload_hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	.time = 1369353600,
};

static void signatures_match_the_published_examples(void **state)
{
	const struct s3_header list[] = {{"host", "examplebucket.s3.amazonaws.com"},
		{"x-amz-content-sha256", example.payload_hash}, {"x-amz-date", "20130524T000000Z"}};
	const struct s3_header get[] = {list[0], {"range", "bytes=0-9"}, list[1], list[2]};
	struct s3_to_sign r = example;
	char *out;

	(void)state;
	r.headers = list;
	r.nheaders = 3;
	r.query = "max-keys=2&prefix=J";
	out = s3_sign(&r);
	assert_string_equal(out,
		"AWS4-HMAC-SHA256 "
		"Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
		"SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature="
		"34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
	free(out);
	r.headers = get;
	r.nheaders = 4;
	r.query = "";
	r.path = "/test.txt";
	out = s3_sign(&r);
	assert_non_null(strstr(out, "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"));
	assert_non_null(
		strstr(out, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"));
	free(out);
	r.headers = list;
	r.nheaders = 3;
	r.path = "/";
	r.query = "lifecycle=";
	out = s3_sign(&r);
	assert_non_null(
		strstr(out, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"));
	free(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(backoff_doubles_up_to_the_cap),
		cmocka_unit_test(server_may_ask_for_longer_but_not_past_the_deadline),
		cmocka_unit_test(deadline_that_is_over_allows_no_other_try),
		cmocka_unit_test(progress_starts_the_time_afresh),
		cmocka_unit_test(signatures_match_the_published_examples),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
