/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates, made here: one that is right, and those that end a request at once with a remedy. */
#include "agent/test/exposition.h"
#include "agent/test/origin_fixture.h"

#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <unistd.h>

#include "agent/http_client.h"
#include "agent/test/http_origin.h"

#define DAY 86400L

struct setup {
	char ca_file[64];
	X509 *ca;
	EVP_PKEY *ca_key;
};

/* names: a subjectAltName. Signed by the setup's CA; the CA itself when names is NULL. */
static X509 *make_certificate(struct setup *s, EVP_PKEY *key, const char *names, long from_s, long to_s)
{
	X509 *x = X509_new();
	X509_EXTENSION *e;
	X509V3_CTX ctx;

	X509_set_version(x, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(x), names ? 2 : 1);
	X509_gmtime_adj(X509_getm_notBefore(x), from_s);
	X509_gmtime_adj(X509_getm_notAfter(x), to_s);
	X509_set_pubkey(x, key);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
		(const unsigned char *)(names ? "server" : "test CA"), -1, -1, 0);
	X509_set_issuer_name(x, X509_get_subject_name(names ? s->ca : x));
	X509V3_set_ctx(&ctx, names ? s->ca : x, x, NULL, NULL, 0);
	e = X509V3_EXT_conf_nid(NULL, &ctx, names ? NID_subject_alt_name : NID_basic_constraints,
		names ? names : "critical,CA:TRUE");
	assert_non_null(e);
	X509_add_ext(x, e, -1);
	X509_EXTENSION_free(e);
	assert_true(X509_sign(x, names ? s->ca_key : key, EVP_sha256()) > 0);
	return x;
}

static int begin(void **state)
{
	struct setup *s = calloc(1, sizeof(*s));
	struct wd_err err = WD_ERR_INIT;
	FILE *out;
	int fd;

	strcpy(s->ca_file, "/tmp/wd-ca-XXXXXX");
	fd = mkstemp(s->ca_file);
	s->ca_key = EVP_EC_gen("P-256");
	s->ca = make_certificate(s, s->ca_key, NULL, -DAY, DAY);
	out = fdopen(fd, "w");
	if (!out || !PEM_write_X509(out, s->ca) || fclose(out) != 0)
		return -1;
	setenv("no_proxy", "*", 1);
	*state = s;
	return origins_start(1, 4, &err);
}

static int end(void **state)
{
	struct setup *s = *state;

	origins_stop();
	unlink(s->ca_file);
	X509_free(s->ca);
	EVP_PKEY_free(s->ca_key);
	free(s);
	return 0;
}

struct server {
	SSL_CTX *ctx;
	int listener;
	unsigned connections;
};

/* Serves one connection after the other, until its listener is shut down. */
static void *serve(void *arg)
{
	static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"t\"\r\n\r\n";
	struct server *server = arg;
	char head[4096];
	int fd;

	while ((fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		SSL *ssl = SSL_new(server->ctx);

		server->connections++;
		SSL_set_fd(ssl, fd);
		if (SSL_accept(ssl) == 1 && SSL_read(ssl, head, sizeof(head)) > 0)
			SSL_write(ssl, answer, sizeof(answer) - 1);
		SSL_free(ssl);
		close(fd);
	}
	return NULL;
}

/* HEAD of an object at a server with such a certificate. */
static int look_up(struct setup *s, const char *names, long from_s, long to_s, bool has_ca,
	unsigned *ret_connections, struct wd_err *err)
{
	struct server server = {.ctx = SSL_CTX_new(TLS_server_method())};
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x = make_certificate(s, key, names, from_s, to_s);
	struct origin_options options = {.deadline_ms = 30000, .ca_cert = has_ca ? s->ca_file : NULL};
	struct version version;
	struct origin *origin;
	pthread_t thread;
	char url[64];
	int port, rc;

	assert_int_equal(SSL_CTX_use_certificate(server.ctx, x), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey(server.ctx, key), 1);
	server.listener = http_origin_bind(&port);
	assert_int_equal(listen(server.listener, 16), 0);
	pthread_create(&thread, NULL, serve, &server);
	snprintf(url, sizeof(url), "https://127.0.0.1:%d/d", port);
	if (origin_open(url, &options, &origin, err) < 0)
		fail_msg("%s", err->msg);
	rc = origin_stat(origin, "f", &version, err);
	if (rc == 0)
		assert_int_equal(version.size, 5);
	origin_close(origin);
	shutdown(server.listener, SHUT_RDWR);
	pthread_join(thread, NULL);
	close(server.listener);
	SSL_CTX_free(server.ctx);
	X509_free(x);
	EVP_PKEY_free(key);
	*ret_connections = server.connections;
	return rc;
}

static void certificate_of_a_private_ca_is_accepted(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	unsigned n;

	assert_ok(look_up(*state, "IP:127.0.0.1", -DAY, DAY, true, &n, &err));
}

static void bad_certificates_end_a_request_at_once_with_a_remedy(void **state)
{
	static const struct {
		const char *names;
		long from_s, to_s;
		bool has_ca;
		const char *remedy;
	} rows[] = {
		{"IP:127.0.0.1", -DAY, DAY, false, "give its file with ca-cert (in Kubernetes caCert)"},
		{"IP:127.0.0.1", -2 * DAY, -DAY, true, "this machine's clock is wrong"},
		{"IP:127.0.0.1", DAY, 2 * DAY, true, "this machine's clock is wrong"},
		{"DNS:other.example", -DAY, DAY, true, "a name that is in the server's certificate"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t before = exposed_faults(ORIGIN_FAULT_TLS);
		struct wd_err err = WD_ERR_INIT;
		unsigned n;

		assert_int_equal(look_up(*state, rows[i].names, rows[i].from_s, rows[i].to_s, rows[i].has_ca,
					 &n, &err),
			-EIO);
		assert_says(err, rows[i].remedy);
		assert_says(err, "/d/f'");
		assert_says(err, "after 1 try");
		assert_int_equal(n, 1);
		assert_int_equal(exposed_faults(ORIGIN_FAULT_TLS), before + 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(certificate_of_a_private_ca_is_accepted),
		cmocka_unit_test(bad_certificates_end_a_request_at_once_with_a_remedy),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, begin, end);
}
