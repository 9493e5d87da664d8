/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What mounts may name and where requests may go. Hostile notations are judged here as text and, with a
 * resolver that lies, as connections: nothing may be sent to an address that is blocked.
 */
#include <arpa/inet.h>

#include "agent/address_set.h"
#include "agent/http_client.h"
#include "agent/origin_policy.h"
#include "agent/settings.h"
#include "agent/test/http_origin.h"
#include "agent/test/origin_fixture.h"

static struct origin_policy *make(const char *kubernetes, const char *origins, const char *allowed)
{
	struct settings s = {.kubernetes = (char *)kubernetes,
		.allowed_origins = (char *)origins,
		.allowed_addresses = (char *)allowed,
		.blocked_addresses = "203.0.113.0/24"};
	struct origin_policy *p;
	struct wd_err err = WD_ERR_INIT;

	assert_ok(origin_policy_new(&s, &p, &err));
	return p;
}

static void hostile_addresses_are_blocked_in_every_notation(void **state)
{
	static const char *const hostile[] = {"127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1",
		"127.255.255.254", "0.0.0.0", "0", "169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376",
		"169.254.43518", "169.254.170.2", "100.100.100.200", "203.0.113.9", "192.0.0.192", "168.63.129.16", "224.0.0.1",
		"255.255.255.255", "[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[fe80::1]", "[febf::1]", "[fec0::1]",
		"[ff02::1]", "[fd00:ec2::254]", "[fd00:ec2::23]", "[fd20:ce::254]", "[::ffff:127.0.0.1]",
		"[::ffff:a9fe:a9fe]", "[::ffff:0:169.254.169.254]", "[::169.254.169.254]", "[64:ff9b::169.254.169.254]",
		"[64:ff9b::7f00:1]", "[64:ff9b:1::a9fe:a9fe]", "[64:ff9b:1:a9fe:a9:fe00::]",
		"[64:ff9b:1:a9:fe:a9fe::]", "[64:ff9b:1:0:a9:fea9:fe00:0]", "[2002:a9fe:a9fe::1]",
		"[2001:0:1:2:3:4:5601:5601]", "[2001:db8::5efe:169.254.169.254]", "[2001:db8::200:5efe:7f00:1]"};
	struct origin_policy *p = make("true", NULL, NULL);

	for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++) {
		struct wd_err err = WD_ERR_INIT;
		char url[128], why[96];
		struct in6_addr a;

		assert_true(address_of_text(hostile[i], &a));
		if (origin_policy_allows(p, &a, false, why, sizeof(why)))
			fail_msg("'%s' is not blocked", hostile[i]);
		snprintf(url, sizeof(url), "http://%s:8080/latest/meta-data/", hostile[i]);
		if (origin_policy_check(p, url, NULL, &err) != -EACCES)
			fail_msg("a mount of '%s' is not refused", url);
		assert_says(err, "blocked-addresses");
		snprintf(url, sizeof(url), "https://user:secret@%s", hostile[i]);
		assert_int_equal(origin_policy_check(p, "s3://bucket", url, &err), -EACCES);
		assert_says(err, "endpoint");
		assert_null(strstr(err.msg, "secret"));
	}
	origin_policy_free(p);
}

static void other_addresses_are_not_blocked(void **state)
{
	static const char *const fine[] = {"10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "169.253.1.1",
		"128.0.0.1", "1.1.1.1", "[2001:db8::1]", "[fd00::1]", "[::ffff:10.0.0.1]", "[64:ff9b::8.8.8.8]",
		"[2002:0808:0808::1]", "[2600:1f18::254]"};
	struct origin_policy *p = make("true", NULL, NULL);
	char why[96];

	for (size_t i = 0; i < sizeof(fine) / sizeof(fine[0]); i++) {
		struct in6_addr a;

		assert_true(address_of_text(fine[i], &a));
		if (!origin_policy_allows(p, &a, true, why, sizeof(why)))
			fail_msg("'%s' is blocked by %s", fine[i], why);
	}
	origin_policy_free(p);
}

static void loopback_is_open_outside_kubernetes_but_not_by_redirect(void **state)
{
	struct origin_policy *host = make("false", NULL, NULL), *opened = make("true", NULL, "127.0.0.0/8\n::1");
	struct in6_addr v4, v6, link;
	char why[96];

	assert_true(address_of_text("127.0.0.1", &v4) && address_of_text("::1", &v6) &&
		    address_of_text("169.254.169.254", &link));
	assert_true(origin_policy_allows(host, &v4, false, why, sizeof(why)));
	assert_true(origin_policy_allows(host, &v6, false, why, sizeof(why)));
	assert_false(origin_policy_allows(host, &v4, true, why, sizeof(why)));
	assert_string_equal(why, "127.0.0.0/8");
	assert_false(origin_policy_allows(host, &link, false, why, sizeof(why)));
	assert_true(origin_policy_allows(opened, &v4, true, why, sizeof(why)));
	assert_true(origin_policy_allows(opened, &v6, true, why, sizeof(why)));
	assert_false(origin_policy_allows(opened, &link, true, why, sizeof(why)));
	origin_policy_free(host);
	origin_policy_free(opened);
}

struct naming {
	const char *patterns, *url, *endpoint;
	int rc;
};

static void only_what_is_listed_may_be_named(void **state)
{
	static const struct naming rows[] = {
		{"s3://data-*", "s3://data-1/x", NULL, 0},
		{"s3://data-*", "s3://data-1", NULL, 0},
		{"s3://data-*", "s3://other/data-1", NULL, -EACCES},
		{"s3://data/train", "s3://data/train/a/b", NULL, 0},
		{"s3://data/train", "s3://data/train2", NULL, -EACCES},
		{"s3://data/train/", "s3://data/train", NULL, 0},
		{"s3://data/team-*/public", "s3://data/team-1/public/x", NULL, 0},
		{"s3://data", "s3://data/x", "https://minio.example.com:9000", -EACCES},
		{"s3://data\nhttps://minio.example.com:9000", "s3://data/x", "https://minio.example.com:9000", 0},
		{"s3://data\nhttps://minio.example.com:9000", "s3://data/x", "http://minio.example.com:9000", -EACCES},
		{"s3://data\nhttps://minio.example.com", "s3://data/x", "https://minio.example.com:9000", -EACCES},
		{"https://*.example.com", "https://a.example.com/x", NULL, 0},
		{"https://*.example.com", "https://A.EXAMPLE.com:443/x", NULL, 0},
		{"https://*.example.com", "https://a.example.com./x", NULL, 0},
		{"https://*.example.com", "http://a.example.com/x", NULL, -EACCES},
		{"https://*.example.com", "https://evil.org/x.example.com", NULL, -EACCES},
		{"https://*.example.com", "https://evil.org?x.example.com", NULL, -EACCES},
		{"https://*.example.com", "https://evil.org#.example.com", NULL, -EACCES},
		{"https://*.example.com", "https://a.example.com@evil.org/", NULL, -EACCES},
		{"https://*.example.com", "https://evil.org\\.example.com/", NULL, -EINVAL},
		{"https://*.example.com", "https://evil.org%2f.example.com/", NULL, -EINVAL},
		{"https://*.example.com:*", "https://a.example.com:8443/", NULL, 0},
		{"https://a/public", "https://a/public/x", NULL, 0},
		{"https://a/public", "https://a/public/../secret", NULL, -EACCES},
		{"https://a/public", "https://a/public/%2e%2E/secret", NULL, -EACCES},
		{"https://a/public", "https://a/public/..%2fsecret", NULL, -EACCES},
		{"https://a/public", "https://a/public/..\\secret", NULL, -EACCES},
		{"https://a/public", "https://a/public/..;x/secret", NULL, -EACCES},
		{"https://a/public", "https://a/publicity", NULL, -EACCES},
		{"file:///srv/data", "file:///srv/data/x", NULL, 0},
		{"file:///srv/data", "file:///srv/data/../../etc", NULL, -EACCES},
		{"s3://data", "file:///", NULL, -EACCES},
		{"http://[2001:db8::1]:80", "http://[2001:DB8::1]/x", NULL, 0},
		{"https://*", "https://169.254.169.254/", NULL, -EACCES},
		{NULL, "file:///", NULL, -EACCES},
		{NULL, "s3://any", "https://minio.example.com", 0},
		{NULL, "https://any.example.com/", NULL, 0},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct origin_policy *p = make("true", rows[i].patterns, NULL);
		struct wd_err err = WD_ERR_INIT;
		int rc = origin_policy_check(p, rows[i].url, rows[i].endpoint, &err);

		if (rc != rows[i].rc)
			fail_msg("'%s' and '%s' under '%s': %d (%s)", rows[i].url,
				rows[i].endpoint ? rows[i].endpoint : "", rows[i].patterns, rc, err.msg);
		if (rc == -EACCES && !strstr(err.msg, "blocked-addresses"))
			assert_says(err, "allowed-origins");
		origin_policy_free(p);
	}
}

static void settings_that_make_no_sense_are_refused_by_name(void **state)
{
	static const struct {
		struct settings s;
		const char *says;
	} rows[] = {
		{{.kubernetes = "yes"}, "kubernetes: 'yes'"},
		{{.allowed_origins = "s3://a\n*"}, "allowed-origins: '*'"},
		{{.allowed_origins = "*://a"}, "allowed-origins: '*://a'"},
		{{.blocked_addresses = "10.0.0.0/33"}, "blocked-addresses: '10.0.0.0/33'"},
		{{.allowed_addresses = "localhost"}, "allowed-addresses: 'localhost'"},
		{{.allowed_addresses = "::1/-1"}, "allowed-addresses: '::1/-1'"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct wd_err err = WD_ERR_INIT;
		struct origin_policy *p;

		assert_int_equal(origin_policy_new(&rows[i].s, &p, &err), -EINVAL);
		assert_says(err, rows[i].says);
	}
}

static void in_a_pod_the_machine_is_taken_for_a_node(void **state)
{
	struct origin_policy *p;

	unsetenv("KUBERNETES_SERVICE_HOST");
	p = make("auto", NULL, NULL);
	assert_false(origin_policy_is_on_kubernetes(p));
	assert_int_equal(origin_policy_check(p, "file:///srv", NULL, NULL), 0);
	origin_policy_free(p);
	setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1", 1);
	p = make("auto", NULL, NULL);
	assert_true(origin_policy_is_on_kubernetes(p));
	unsetenv("KUBERNETES_SERVICE_HOST");
	assert_int_equal(origin_policy_check(p, "file:///srv", NULL, NULL), -EACCES);
	origin_policy_free(p);
}

/* ---- connections ---- */

/* Opens the URL's origin under the policy and checks it; the number of requests that reached the server is in
 * *ret_requests. */
static int check_under(const struct origin_policy *p, struct http_origin *server, const char *url,
	unsigned *ret_requests, struct wd_err *err)
{
	struct origin_options options = {.deadline_ms = 5000};
	struct origin *o;
	int rc;

	origins_set_policy(p);
	assert_int_equal(origin_open(url, &options, &o, err), 0);
	rc = origin_check(o, err);
	origin_close(o);
	origins_set_policy(NULL);
	*ret_requests = http_origin_requests(server);
	return rc;
}

static void a_name_that_resolves_to_a_blocked_address_is_not_connected_to(void **state)
{
	struct http_origin *server = http_origin_start();
	struct origin_policy *node = make("true", NULL, NULL), *open = make("true", NULL, "127.0.0.0/8\n::1");
	struct wd_err err = WD_ERR_INIT;
	unsigned requests;
	char url[128];

	/* the name says nothing: only what it resolves to does */
	snprintf(url, sizeof(url), "http://localhost:%d/d/", server->port);
	http_origin_put(server, "/d/", "[]", 2, NULL, "application/json");
	assert_int_equal(origin_policy_check(node, url, NULL, &err), 0);
	assert_int_equal(check_under(node, server, url, &requests, &err), -EACCES);
	assert_says(err, "blocked-addresses");
	assert_int_equal(requests, 0);
	err = WD_ERR_INIT;
	assert_ok(check_under(open, server, url, &requests, &err));
	assert_int_equal(requests, 1);
	origin_policy_free(node);
	origin_policy_free(open);
	http_origin_stop(server);
}

static void a_redirect_to_a_metadata_service_is_refused(void **state)
{
	static const char *const to[] = {"http://169.254.169.254/latest/", "http://2852039166/", "http://0xa9fea9fe/",
		"http://[::ffff:169.254.169.254]/", "http://[fd00:ec2::254]/", "http://[::1]/", "http://localhost/",
		"http://[64:ff9b::a9fe:a9fe]/"};
	struct origin_policy *host = make("false", NULL, NULL);

	for (size_t i = 0; i < sizeof(to) / sizeof(to[0]); i++) {
		struct http_origin *server = http_origin_start();
		struct wd_err err = WD_ERR_INIT;
		unsigned requests;
		char url[128];

		snprintf(url, sizeof(url), "http://127.0.0.1:%d/d/", server->port);
		http_origin_fail(server, FAULT_REDIRECT, 302, to[i]);
		assert_int_equal(check_under(host, server, url, &requests, &err), -EACCES);
		assert_says(err, "blocked-addresses");
		assert_says(err, "redirect");
		assert_int_equal(requests, 1);
		http_origin_stop(server);
	}
	origin_policy_free(host);
}

static void a_connection_that_another_made_is_looked_at_too(void **state)
{
	struct http_origin *server = http_origin_start();
	struct origin_policy *node = make("true", NULL, NULL);
	struct origin_options options = {.deadline_ms = 5000};
	struct wd_err err = WD_ERR_INIT;
	struct origin *o;
	char url[128];

	snprintf(url, sizeof(url), "http://127.0.0.1:%d/d/", server->port);
	http_origin_put(server, "/d/", "[]", 2, NULL, "application/json");
	assert_ok(origin_open(url, &options, &o, &err));
	assert_ok(origin_check(o, &err)); /* its connection stays open */
	origins_set_policy(node);
	assert_int_equal(origin_check(o, &err), -EACCES);
	assert_says(err, "blocked-addresses");
	origins_set_policy(NULL);
	assert_int_equal(http_origin_requests(server), 1);
	origin_close(o);
	origin_policy_free(node);
	http_origin_stop(server);
}

static int start(void **state)
{
	struct wd_err err = WD_ERR_INIT;

	return origins_start(1, 4, &err);
}

static int stop(void **state)
{
	origins_stop();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hostile_addresses_are_blocked_in_every_notation),
		cmocka_unit_test(other_addresses_are_not_blocked),
		cmocka_unit_test(loopback_is_open_outside_kubernetes_but_not_by_redirect),
		cmocka_unit_test(only_what_is_listed_may_be_named),
		cmocka_unit_test(settings_that_make_no_sense_are_refused_by_name),
		cmocka_unit_test(in_a_pod_the_machine_is_taken_for_a_node),
		cmocka_unit_test(a_name_that_resolves_to_a_blocked_address_is_not_connected_to),
		cmocka_unit_test(a_redirect_to_a_metadata_service_is_refused),
		cmocka_unit_test(a_connection_that_another_made_is_looked_at_too),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
