/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every fault that an origin may show, one row each: the bytes are right or the error is definite, one log
 * line names object, fault and tries, the fault is counted by its class, and after its end the next read
 * is right.
 *
 * Reads go through the real cache (fetch, store), HEAD and LIST through the origin's own calls. Each row
 * has a server of its own. Time is only ever compared with what a server asked for at least.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "agent/fetch.h"
#include "agent/http_client.h"
#include "agent/metrics.h"
#include "agent/test/exposition.h"
#include "agent/test/http_origin.h"
#include "common/lock.h"

#define KIB 1024
#define BLOCK (256 * KIB)
#define SIZE (2 * BLOCK + 777)
#define PATIENCE_MS 30000 /* for what ends well */
#define SHORT_MS 800	  /* for what never does */
#define PAGE "/bkt/?delimiter=%2F&encoding-type=url&list-type=2&max-keys=1000&prefix="
#define XML_HEAD "<?xml version='1.0'?><ListBucketResult>"
#define LISTED                                                                                                \
	"<Contents><Key>f</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"v1\"</ETag>"      \
	"<Size>525065</Size></Contents>"
#define AUTOINDEX "[{\"name\":\"f\",\"type\":\"file\",\"mtime\":\"Thu, 01 Jan 2026 00:00:00 GMT\",\"size\":525065}]"

enum kind { HTTP = 1, S3 = 2, BOTH = 3 };

struct row {
	const char *name;
	enum kind kinds;
	enum http_fault fault;
	int number;
	const char *text;
	int rc;			 /* 0: the fault happens once and is overcome */
	enum origin_fault class; /* ORIGIN_FAULT_COUNT: it is none */
	const char *says;
	bool lasts;   /* rc < 0: only the deadline ends it */
	int least_ms; /* what the server asked for between two tries */
	uint32_t from; /* first block read; the read is up to the end */
};

struct fixture {
	char dir[64];
	struct settings settings;
	struct meta *meta;
	struct store *store;
	struct tree *tree;
	struct fetcher *fetcher;
	int log_fd;
	/* of a row */
	struct http_origin *server;
	struct dataset *ds;
	struct version version;
	enum kind kind;
	unsigned nrows, nversions;
	bool is_open;
};

static unsigned char *content;
static int real_stderr = -1;

/* Failures are told to people, not to the log that is looked at. */
#define fail_row(...)                                                                                        \
	do {                                                                                                 \
		dup2(real_stderr, STDERR_FILENO);                                                            \
		fail_msg(__VA_ARGS__);                                                                       \
	} while (0)

/* ---- the fixture ---- */

static int begin(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct store_config config = {.dir = f->dir, .limit_bytes = 1 << 30};
	struct wd_err err = WD_ERR_INIT;

	strcpy(f->dir, "/tmp/wd-faults-XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	f->settings = (struct settings){.metadata_ttl = 3600000,
		.list_after_lookups = 8,
		.memory_limit = 64 * KIB * KIB,
		.small_object_size = 64 * KIB,
		.prefetch_budget = 0,
		.max_get_size = 8 * KIB * KIB,
		.max_transfers = 8,
		.request_deadline = PATIENCE_MS,
		.proof_ttl = 60000};
	if (origins_start(2, 8, &err) < 0 || meta_open(f->dir, &f->meta, &err) < 0 ||
		store_open(&config, f->meta, &f->store, &err) < 0)
		return -1;
	f->tree = tree_new(f->meta, &f->settings);
	f->fetcher = fetcher_new(f->store, f->meta, &f->settings);
	f->log_fd = memfd_create("log", MFD_CLOEXEC);
	*state = f;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static int end(void **state)
{
	struct fixture *f = *state;

	origins_stop();
	store_close(f->store);
	fetcher_free(f->fetcher);
	tree_free(f->tree);
	meta_close(f->meta);
	nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	http_limits = (struct http_limits){.connect_ms = 5000, .low_speed_s = 15};
	close(f->log_fd);
	free(f);
	return 0;
}

/* Puts a version that nothing is cached of. */
static void put_version(struct fixture *f)
{
	snprintf(f->version.etag, sizeof(f->version.etag), "\"v%u\"", ++f->nversions);
	http_origin_put(f->server, "/d/f", content, SIZE, f->version.etag, NULL);
	http_origin_put(f->server, "/bkt/f", content, SIZE, f->version.etag, NULL);
}

static void row_open(struct fixture *f, enum kind kind, const char *url_or_null)
{
	char url[128], endpoint[64], place[64];
	struct origin_options options = {.deadline_ms = f->settings.request_deadline};
	struct origin *origin;
	struct wd_err err = WD_ERR_INIT;

	f->kind = kind;
	f->nrows++;
	f->server = http_origin_start();
	f->version = (struct version){.size = SIZE, .mtime_s = 1767225600, .is_bound = true};
	put_version(f);
	http_origin_text(f->server, "/d/", AUTOINDEX, "application/json");
	http_origin_text(f->server, PAGE, XML_HEAD LISTED "</ListBucketResult>", "application/xml");
	snprintf(url, sizeof(url), "http://127.0.0.1:%d/d", f->server->port);
	if (kind == S3) {
		snprintf(endpoint, sizeof(endpoint), "http://127.0.0.1:%d", f->server->port);
		options.endpoint = endpoint;
		options.access_key = "KEY";
		options.secret_key = "SECRETKEY";
		snprintf(url, sizeof(url), "s3://bkt");
	}
	if (origin_open(url_or_null ? url_or_null : url, &options, &origin, &err) < 0)
		fail_row("%s", err.msg);
	snprintf(place, sizeof(place), "row %u", f->nrows);
	assert_int_equal(tree_dataset(f->tree, origin, place, "me", &(struct identity){0}, false, &f->ds, &err), 0);
	/* from here on the log is the row's */
	assert_int_equal(ftruncate(f->log_fd, 0), 0);
	lseek(f->log_fd, 0, SEEK_SET);
	dup2(f->log_fd, STDERR_FILENO);
	f->is_open = true;
}

static void row_log(struct fixture *f, char *log, size_t cap)
{
	ssize_t n = pread(f->log_fd, log, cap - 1, 0);

	log[n > 0 ? n : 0] = 0;
}

static void row_close(struct fixture *f)
{
	dup2(real_stderr, STDERR_FILENO);
	f->is_open = false;
	dataset_unref(f->ds);
	tree_reap(f->tree);
	http_origin_stop(f->server);
}

/* A test that failed within a row: what it said is in the log. */
static int show_log(void **state)
{
	struct fixture *f = *state;
	char log[16384];

	dup2(real_stderr, STDERR_FILENO);
	if (!f->is_open)
		return 0;
	row_log(f, log, sizeof(log));
	fprintf(stderr, "the log of the row:\n%s\n", log);
	f->is_open = false;
	return 0;
}

/* ---- reads through the cache ---- */

struct sleeper {
	struct fetch_wait wait;
	struct wd_mutex lock;
	struct wd_cond cond;
	int status, answers;
};

static void answered(struct fetch_wait *w, int status, int fd, const struct wd_err *err)
{
	struct sleeper *s = (struct sleeper *)w;

	(void)err;
	assert_int_equal(fd, -1);
	wd_lock(&s->lock);
	s->status = status;
	s->answers++;
	wd_cond_broadcast(&s->cond);
	wd_unlock(&s->lock);
}

static void sleeper_start(struct sleeper *s, struct fetch *fetch, uint64_t offset, uint64_t len)
{
	*s = (struct sleeper){.wait = {.offset = offset, .len = len, .cb = answered}};
	wd_mutex_init(&s->lock);
	wd_cond_init(&s->cond);
	fetch_ensure(fetch, &s->wait);
}

/* Returns the status; the bytes are checked when there are some. */
static int sleeper_wait(struct sleeper *s, struct fetch *fetch)
{
	uint64_t len = s->wait.len, offset = s->wait.offset;
	unsigned char *data = malloc(len);
	int fd;

	wd_lock(&s->lock);
	while (!s->answers)
		wd_cond_wait(&s->cond, &s->lock);
	wd_unlock(&s->lock);
	assert_int_equal(s->answers, 1);
	wd_cond_done(&s->cond);
	wd_mutex_done(&s->lock);
	if (s->status == 0) {
		fd = object_open_file(fetch_object(fetch), NULL);
		assert_int_equal(pread(fd, data, len, (off_t)offset), len);
		assert_memory_equal(data, content + offset, len);
		close(fd);
	}
	free(data);
	return s->status;
}

static struct fetch *open_fetch(struct fixture *f)
{
	struct node node = {.node = 1, .ino = 1, .version = f->version, .key = "f", .key_len = 1};
	struct object *object;
	struct fetch *fetch;
	struct object_id id;
	struct wd_err err = WD_ERR_INIT;

	tree_object_id(f->ds, &node, &id);
	assert_int_equal(store_get(f->store, &id, SIZE, &object, &err), 0);
	assert_int_equal(fetch_open(f->fetcher, f->ds, &node, object, &fetch), 0);
	object_unref(object);
	return fetch;
}

/* Opens, reads from a block to the end, closes. */
static int read_from(struct fixture *f, uint32_t block)
{
	struct fetch *fetch = open_fetch(f);
	struct sleeper s;
	int rc;

	sleeper_start(&s, fetch, (uint64_t)block * BLOCK, SIZE - (uint64_t)block * BLOCK);
	rc = sleeper_wait(&s, fetch);
	fetch_unref(fetch);
	return rc;
}

/* ---- HEAD and LIST ---- */

static bool count_key(void *arg, const struct origin_entry *entry)
{
	/* a page that is asked again may give its entries again */
	assert_string_equal(entry->key, "f");
	assert_int_equal(entry->version.size, SIZE);
	*(bool *)arg = true;
	return true;
}

static int head_or_list(struct fixture *f, bool is_list, struct wd_err *err)
{
	bool is_complete = false, has_key = false;
	struct version version;
	int rc;

	if (is_list) {
		rc = origin_list(dataset_origin(f->ds), "", false, 0, count_key, &has_key, &is_complete, err);
		if (rc == 0)
			assert_true(has_key && is_complete);
		return rc;
	}
	rc = origin_stat(dataset_origin(f->ds), "f", &version, err);
	if (rc == 0)
		assert_true(version_equal(&version, &f->version));
	return rc;
}

/* ---- the rows ---- */

enum request { GET, HEAD, LIST };

/* Reads that failed for good. */
static uint64_t exposed_failures(void)
{
	return exposed("warpdrive_agent_fetch_errors_total") + exposed("warpdrive_agent_stale_objects_total");
}

static void count_lines(const struct row *r, const char *log, const char *doing, const char *tries)
{
	char line[2048];
	unsigned n = 0;

	for (const char *p = log, *eol; (eol = strchr(p, '\n')); p = eol + 1) {
		snprintf(line, sizeof(line), "%.*s", (int)(eol - p), p);
		/* on a busy machine the deadline may cut the last try off */
		n += strstr(line, doing) && strstr(line, tries) &&
			(strstr(line, r->says) || (r->lasts && strstr(line, "in time")));
	}
	if (n != 1)
		fail_row("%s: %u lines of the log say '%s' and '%s':\n%s", r->name, n, r->says, tries, log);
}

static void check_log(struct fixture *f, const struct row *r, enum request request, const struct wd_err *err)
{
	static const char *const doing[] = {"fetch '", "look up '", "list '"};
	char log[16384];

	/* a line about what was overcome may come after the bytes */
	for (int i = 0; i < 30000; i++) {
		row_log(f, log, sizeof(log));
		if (r->rc < 0 || r->class == ORIGIN_FAULT_COUNT || strstr(log, "right at try"))
			break;
		usleep(1000);
	}
	if (strstr(log, "SECRETKEY"))
		fail_row("%s: a secret is in the log", r->name);
	if (r->rc < 0 && request != GET) /* logged by who asked */
		snprintf(log, sizeof(log), "%s\n", err->msg);
	if (r->class == ORIGIN_FAULT_COUNT) {
		assert_string_equal(log, "");
		return;
	}
	if (!strstr(log, doing[request]) || (request != LIST && !strstr(log, "/f'")))
		fail_row("%s: the log does not name the object:\n%s", r->name, log);
	if (r->rc == 0)
		count_lines(r, log, doing[request], "right at try 2 ");
	else
		count_lines(r, log, doing[request], r->lasts ? " after " : " after 1 try");
}

static void run_row(struct fixture *f, const struct row *r, enum kind kind, enum request request)
{
	uint64_t before = r->class < ORIGIN_FAULT_COUNT ? exposed_faults(r->class) : 0;
	uint64_t failed = exposed_failures();
	struct wd_err err = WD_ERR_INIT;
	int64_t start_ns;
	int rc;

	f->settings.request_deadline = r->lasts ? SHORT_MS : PATIENCE_MS;
	http_limits.low_speed_s = r->fault == FAULT_STALL ? 1 : 15;
	row_open(f, kind, NULL);
	if (r->rc == 0)
		http_origin_fail(f->server, r->fault, r->number, r->text);
	else
		http_origin_fail_always(f->server, r->fault, r->number, r->text);
	start_ns = wd_now_ns();
	rc = request == GET ? read_from(f, r->from) : head_or_list(f, request == LIST, &err);
	if (rc != r->rc)
		fail_row("%s: %d instead of %d: %s", r->name, rc, r->rc, err.msg);
	if (wd_now_ns() - start_ns < r->least_ms * 1000000LL)
		fail_row("%s: tried again before the server wanted it", r->name);
	check_log(f, r, request, &err);
	if (r->class < ORIGIN_FAULT_COUNT && exposed_faults(r->class) == before)
		fail_row("%s: not counted in its class", r->name);
	if (request == GET && r->rc < 0 && exposed_failures() != failed + 1)
		fail_row("%s: not counted as failed", r->name);
	/* the fault ends; another version is there, so that the origin is asked */
	http_origin_heal(f->server);
	if (request == GET)
		put_version(f);
	f->settings.request_deadline = PATIENCE_MS;
	rc = request == GET ? read_from(f, 0) : r->lasts ? 0 : head_or_list(f, request == LIST, &err);
	if (rc < 0)
		fail_row("%s: %d after the end of the fault: %s", r->name, rc, err.msg);
	row_close(f);
}

static void run_rows(struct fixture *f, const struct row *rows, size_t n, enum request request)
{
	for (size_t i = 0; i < n; i++) {
		if (rows[i].kinds & HTTP)
			run_row(f, &rows[i], HTTP, request);
		if (rows[i].kinds & S3)
			run_row(f, &rows[i], S3, request);
	}
}
#define RUN(rows, request) run_rows(*state, rows, sizeof(rows) / sizeof((rows)[0]), request)

#define R(name_, kinds_, fault_, number_, text_, rc_, class_, says_, ...)                                      \
	{.name = name_, .kinds = kinds_, .fault = fault_, .number = number_, .text = text_, .rc = rc_,        \
		.class = class_, .says = says_, __VA_ARGS__}
#define STATUS(line, headers) "HTTP/1.1 " line "\r\nContent-Length: 0\r\n" headers "\r\n"
#define DATE "Date: Sat, 03 Jan 2026 00:00:00 GMT\r\n"
#define OK_206 "HTTP/1.1 206 x\r\nContent-Range: bytes 0-525064/525065\r\n"

static void transient_faults_of_reads_are_overcome(void **state)
{
	static const struct row rows[] = {
		R("500", BOTH, FAULT_RAW, 0, STATUS("500 x", ""), 0, ORIGIN_FAULT_SERVER, "HTTP 500"),
		R("503", BOTH, FAULT_RAW, 0, STATUS("503 x", ""), 0, ORIGIN_FAULT_SERVER, "HTTP 503"),
		R("429", BOTH, FAULT_RAW, 0, STATUS("429 x", ""), 0, ORIGIN_FAULT_THROTTLED, "HTTP 429"),
		R("503 Retry-After", S3, FAULT_RAW, 0, STATUS("503 x", "Retry-After: 1\r\n"), 0,
			ORIGIN_FAULT_SERVER, "HTTP 503", .least_ms = 1000),
		R("429 Retry-After a date", HTTP, FAULT_RAW, 0,
			STATUS("429 x", "Retry-After: Sat, 03 Jan 2026 00:00:01 GMT\r\n" DATE), 0,
			ORIGIN_FAULT_THROTTLED, "HTTP 429", .least_ms = 1000),
		R("500 Retry-After of the past", HTTP, FAULT_RAW, 0,
			STATUS("500 x", "Retry-After: Sat, 03 Jan 2015 00:00:01 GMT\r\n"), 0,
			ORIGIN_FAULT_SERVER, "HTTP 500"),
		R("503 Retry-After nonsense", HTTP, FAULT_RAW, 0, STATUS("503 x", "Retry-After: soon\r\n"), 0,
			ORIGIN_FAULT_SERVER, "HTTP 503"),
		R("SlowDown", S3, FAULT_STATUS, 503, "<Error><Code>SlowDown</Code></Error>", 0,
			ORIGIN_FAULT_THROTTLED, "HTTP 503 SlowDown"),
		R("InternalError", S3, FAULT_STATUS, 500, "<Error><Code>InternalError</Code></Error>", 0,
			ORIGIN_FAULT_SERVER, "HTTP 500 InternalError"),
		R("error in a 200", BOTH, FAULT_STATUS, 200, "<Error><Code>InternalError</Code></Error>", 0,
			ORIGIN_FAULT_WRONG, "Content-Length 41 instead of 525065"),
		R("request timeout", S3, FAULT_STATUS, 400, "<Error><Code>RequestTimeout</Code></Error>", 0,
			ORIGIN_FAULT_OTHER, "RequestTimeout"),
		R("reset before the answer", BOTH, FAULT_RESET, 0, NULL, 0, ORIGIN_FAULT_RESET, "eset"),
		R("closed before the answer", BOTH, FAULT_RAW, 0, "", 0, ORIGIN_FAULT_RESET, "mpty reply"),
		R("end in the headers", HTTP, FAULT_RAW, 0, "HTTP/1.1 206 x\r\nContent-Le", 0,
			ORIGIN_FAULT_WRONG, ""),
		R("reset in the body", BOTH, FAULT_RESET_HALF, 0, NULL, 0, ORIGIN_FAULT_RESET, ""),
		R("truncated body", BOTH, FAULT_SHORT_BODY, 0, NULL, 0, ORIGIN_FAULT_RESET,
			"the answer ended early"),
		R("length of half the range", BOTH, FAULT_SHORT_LENGTH, 0, NULL, 0, ORIGIN_FAULT_WRONG,
			"Content-Length 262532 instead of 525065"),
		R("too long without length", BOTH, FAULT_LONG_BODY, 0, NULL, 0, ORIGIN_FAULT_WRONG,
			"without Content-Length"),
		R("206 for another range", BOTH, FAULT_RAW, 0,
			"HTTP/1.1 206 x\r\nContent-Length: 262921\r\n"
			"Content-Range: bytes 0-262920/525065\r\n\r\nx",
			0, ORIGIN_FAULT_WRONG, "Content-Range is bytes 0-262920", .from = 1),
		R("no Content-Range", BOTH, FAULT_NO_RANGE_HEADER, 0, NULL, 0, ORIGIN_FAULT_WRONG,
			"206 without Content-Range"),
		R("garbled Content-Range", HTTP, FAULT_RAW, 0,
			"HTTP/1.1 206 x\r\nContent-Length: 525065\r\nContent-Range: bytes 0-x/y\r\n\r\nx", 0,
			ORIGIN_FAULT_WRONG, "garbled"),
		R("200 for the whole", BOTH, FAULT_IGNORE_RANGE, 0, NULL, 0, ORIGIN_FAULT_COUNT, ""),
		R("200 for a part", BOTH, FAULT_IGNORE_RANGE, 0, NULL, 0, ORIGIN_FAULT_WRONG,
			"200 instead of 206", .from = 1),
		R("gzip", BOTH, FAULT_COMPRESSED, 0, NULL, 0, ORIGIN_FAULT_WRONG, "compressed"),
		R("negative length", HTTP, FAULT_RAW, 0, OK_206 "Content-Length: -5\r\n\r\nxxxxx", 0,
			ORIGIN_FAULT_WRONG, ""),
		R("huge length", HTTP, FAULT_RAW, 0, OK_206 "Content-Length: 99999999999999999999999\r\n\r\nxxxxx",
			0, ORIGIN_FAULT_WRONG, ""),
		R("two lengths", HTTP, FAULT_RAW, 0,
			OK_206 "Content-Length: 525065\r\nContent-Length: 5\r\n\r\nxxxxx", 0,
			ORIGIN_FAULT_WRONG, ""),
		R("chunked and short", HTTP, FAULT_RAW, 0,
			OK_206 "Transfer-Encoding: chunked\r\n\r\n5\r\nxxxxx\r\n0\r\n\r\n", 0,
			ORIGIN_FAULT_WRONG, "without Content-Length"),
		R("a header of 1 MiB", HTTP, FAULT_BIG_HEADER, 0, NULL, 0, ORIGIN_FAULT_WRONG, ""),
		R("stalled", HTTP, FAULT_STALL, 0, NULL, 0, ORIGIN_FAULT_STALL, "too slow"),
	};

	RUN(rows, GET);
}

static void definite_faults_of_reads_end_at_once(void **state)
{
	static const struct row rows[] = {
		R("403", BOTH, FAULT_RAW, 0, STATUS("403 x", ""), -EACCES, ORIGIN_FAULT_DENIED, "HTTP 403"),
		R("401", HTTP, FAULT_RAW, 0, STATUS("401 x", ""), -EACCES, ORIGIN_FAULT_DENIED, "password"),
		R("ExpiredToken", S3, FAULT_STATUS, 400, "<Error><Code>ExpiredToken</Code></Error>", -EACCES,
			ORIGIN_FAULT_DENIED, "HTTP 400 ExpiredToken: the session token has expired: renew it"),
		R("clock", S3, FAULT_STATUS, 403, "<Error><Code>RequestTimeTooSkewed</Code></Error>", -EACCES,
			ORIGIN_FAULT_DENIED, "RequestTimeTooSkewed: this machine's clock"),
		R("404", BOTH, FAULT_RAW, 0, STATUS("404 x", ""), -ENOENT, ORIGIN_FAULT_GONE, "HTTP 404"),
		R("412", BOTH, FAULT_RAW, 0, STATUS("412 x", ""), -ESTALE, ORIGIN_FAULT_CHANGED, "HTTP 412"),
		R("another ETag", BOTH, FAULT_OTHER_ETAG, 0, NULL, -ESTALE, ORIGIN_FAULT_CHANGED,
			"the object changed: ETag \\\"other\\\""),
		R("another size", BOTH, FAULT_OTHER_TOTAL, 0, NULL, -ESTALE, ORIGIN_FAULT_CHANGED,
			"the object changed: size 525066"),
		R("400", BOTH, FAULT_RAW, 0, STATUS("400 x", ""), -EIO, ORIGIN_FAULT_OTHER, "HTTP 400"),
		R("redirect to ftp", HTTP, FAULT_REDIRECT, 302, "ftp://127.0.0.1/x", -EIO,
			ORIGIN_FAULT_REDIRECT, "refused"),
		R("redirect without end", HTTP, FAULT_REDIRECT, 302, "/d/f", -EIO, ORIGIN_FAULT_REDIRECT,
			"more than 4 redirects"),
		R("redirect of a signed request", S3, FAULT_REDIRECT, 302, "http://127.0.0.2/bkt/f", -EIO,
			ORIGIN_FAULT_REDIRECT, "HTTP 302"),
		R("region unknown", S3, FAULT_STATUS, 301, "<Error><Code>PermanentRedirect</Code></Error>",
			-EIO, ORIGIN_FAULT_REDIRECT, "another region"),
	};

	RUN(rows, GET);
}

static void lasting_faults_of_reads_end_with_the_deadline(void **state)
{
	static const struct row rows[] = {
		R("503 for ever", S3, FAULT_RAW, 0, STATUS("503 x", ""), -EIO, ORIGIN_FAULT_SERVER,
			"HTTP 503", .lasts = true),
		R("Retry-After past the deadline", HTTP, FAULT_RAW, 0,
			STATUS("429 x", "Retry-After: 3600\r\n"), -EIO, ORIGIN_FAULT_THROTTLED, "HTTP 429",
			.lasts = true),
		R("reset for ever", HTTP, FAULT_RESET, 0, NULL, -EIO, ORIGIN_FAULT_RESET, "eset", .lasts = true),
		R("range ignored for ever", HTTP, FAULT_IGNORE_RANGE, 0, NULL, -EIO, ORIGIN_FAULT_WRONG,
			"the server ignored the range", .lasts = true, .from = 1),
		R("no answer at all", S3, FAULT_HANG, 0, NULL, -EIO, ORIGIN_FAULT_STALL, "too slow", .lasts = true),
	};

	RUN(rows, GET);
}

static void faults_of_looking_up_and_listing(void **state)
{
	static const struct row both[] = {
		R("500", BOTH, FAULT_RAW, 0, STATUS("500 x", ""), 0, ORIGIN_FAULT_SERVER, "HTTP 500"),
		R("503 Retry-After", HTTP, FAULT_RAW, 0, STATUS("503 x", "Retry-After: 1\r\n"), 0,
			ORIGIN_FAULT_SERVER, "HTTP 503", .least_ms = 1000),
		R("429", BOTH, FAULT_RAW, 0, STATUS("429 x", ""), 0, ORIGIN_FAULT_THROTTLED, "HTTP 429"),
		R("reset", BOTH, FAULT_RESET, 0, NULL, 0, ORIGIN_FAULT_RESET, "eset"),
		R("gzip", BOTH, FAULT_COMPRESSED, 0, NULL, 0, ORIGIN_FAULT_WRONG, "compressed"),
		R("two lengths", HTTP, FAULT_RAW, 0,
			"HTTP/1.1 200 x\r\nContent-Type: application/json\r\nContent-Length: 7\r\n"
			"Content-Length: 5\r\n\r\nxxxxx", 0,
			ORIGIN_FAULT_WRONG, ""),
		R("a header of 1 MiB", HTTP, FAULT_BIG_HEADER, 0, NULL, 0, ORIGIN_FAULT_WRONG, ""),
		R("403", BOTH, FAULT_RAW, 0, STATUS("403 x", ""), -EACCES, ORIGIN_FAULT_DENIED, "HTTP 403"),
		R("503 for ever", S3, FAULT_RAW, 0, STATUS("503 x", ""), -EIO, ORIGIN_FAULT_SERVER,
			"HTTP 503", .lasts = true),
		R("no answer at all", HTTP, FAULT_HANG, 0, NULL, -EIO, ORIGIN_FAULT_STALL, "", .lasts = true),
	};
	static const struct row list[] = {
		R("truncated body", BOTH, FAULT_SHORT_BODY, 0, NULL, 0, ORIGIN_FAULT_RESET,
			"the answer ended early"),
		R("cut off in the document", S3, FAULT_STATUS, 200, XML_HEAD "<Contents><Key>f", 0,
			ORIGIN_FAULT_WRONG, "not XML"),
		R("error in a 200", S3, FAULT_STATUS, 200, "<Error><Code>InternalError</Code></Error>", 0,
			ORIGIN_FAULT_WRONG, "HTTP 200 with an error in its body: InternalError"),
		R("cut off in the JSON", HTTP, FAULT_RAW, 0,
			"HTTP/1.1 200 x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n[{\"name\":",
			0, ORIGIN_FAULT_WRONG, ""),
		R("stalled", S3, FAULT_STALL, 0, NULL, 0, ORIGIN_FAULT_STALL, "too slow"),
	};

	RUN(both, HEAD);
	RUN(both, LIST);
	RUN(list, LIST);
}

static void host_that_is_not_there_is_waited_for_until_the_deadline(void **state)
{
	static const struct row dns = {.name = "no such host", .rc = -EIO, .class = ORIGIN_FAULT_DNS,
		.says = "Could not resolve host: no-such-host.invalid", .lasts = true};
	static const struct row connect = {.name = "refused", .rc = -EIO, .class = ORIGIN_FAULT_CONNECT,
		.says = "onnect", .lasts = true};
	struct fixture *f = *state;
	char url[64];
	int port, fd = http_origin_bind(&port);

	f->settings.request_deadline = SHORT_MS;
	for (int i = 0; i < 2; i++) {
		const struct row *r = i ? &connect : &dns;
		uint64_t before = exposed_faults(r->class);

		snprintf(url, sizeof(url), "http://127.0.0.1:%d/d", port);
		row_open(f, HTTP, i ? url : "http://no-such-host.invalid/d");
		assert_int_equal(read_from(f, 0), -EIO);
		check_log(f, r, GET, NULL);
		assert_true(exposed_faults(r->class) > before);
		row_close(f);
	}
	close(fd);
}

/* ---- outages ---- */

static void outage_is_a_stall_and_the_breaker_opens_once(void **state)
{
	struct fixture *f = *state;
	struct fetch *fetch;
	struct sleeper s[3];
	char url[64], log[16384];
	const char *away = NULL;
	struct http_origin *back;
	int port, fd = http_origin_bind(&port);

	f->settings.request_deadline = PATIENCE_MS;
	snprintf(url, sizeof(url), "http://127.0.0.1:%d/d", port);
	row_open(f, HTTP, url);
	fetch = open_fetch(f);
	for (int i = 0; i < 3; i++)
		sleeper_start(&s[i], fetch, (uint64_t)i * BLOCK, i < 2 ? BLOCK : 777);
	/* the server comes when the breaker is open */
	for (int i = 0; i < 30000 && !away; i++) {
		usleep(1000);
		row_log(f, log, sizeof(log));
		away = strstr(log, "is away (");
	}
	back = http_origin_start_on(fd, port);
	http_origin_put(back, "/d/f", content, SIZE, f->version.etag, NULL);
	for (int i = 0; i < 3; i++)
		assert_int_equal(sleeper_wait(&s[i], fetch), 0);
	fetch_unref(fetch);
	row_log(f, log, sizeof(log));
	away = strstr(log, "is away (");
	assert_non_null(away);
	assert_null(strstr(away + 1, "is away ("));
	assert_non_null(strstr(log, "answers again after"));
	row_close(f);
	http_origin_stop(back);
}

static void reader_that_joins_late_gets_its_whole_time(void **state)
{
	struct fixture *f = *state;
	struct fetch *fetch;
	struct sleeper first, late;

	f->settings.request_deadline = SHORT_MS;
	row_open(f, HTTP, NULL);
	http_origin_fail(f->server, FAULT_HANG, 0, NULL);
	fetch = open_fetch(f);
	sleeper_start(&first, fetch, 0, BLOCK);
	http_origin_wait_requests(f->server, 1);
	f->settings.request_deadline = PATIENCE_MS;
	sleeper_start(&late, fetch, 0, BLOCK); /* joins the transfer that hangs */
	assert_int_equal(sleeper_wait(&first, fetch), -EIO);
	assert_int_equal(sleeper_wait(&late, fetch), 0);
	fetch_unref(fetch);
	row_close(f);
}

static void what_is_in_the_cache_is_not_paid_twice(void **state)
{
	struct fixture *f = *state;
	uint64_t before, first;
	char range[100];
	int rc, fast = 0;

	f->settings.request_deadline = SHORT_MS;
	row_open(f, HTTP, NULL);
	/* one block and a bit, and then nothing more until the reader's time is over */
	http_origin_fail(f->server, FAULT_SHORT_BODY, 0, NULL);
	http_origin_fail_always(f->server, FAULT_STATUS, 503, "");
	assert_int_equal(read_from(f, 0), -EIO);
	http_origin_heal(f->server);
	f->settings.request_deadline = PATIENCE_MS;
	before = exposed("warpdrive_origin_bytes_total");
	/* for a moment, what has just failed fails again without a wait */
	while ((rc = read_from(f, 0)) == -EIO && ++fast < 3000)
		usleep(10000);
	assert_int_equal(rc, 0);
	assert_true(http_origin_header(f->server->last, "Range", range, sizeof(range)));
	assert_int_equal(sscanf(range, "bytes=%" SCNu64, &first), 1);
	assert_int_equal(first, BLOCK);
	assert_int_equal(exposed("warpdrive_origin_bytes_total") - before, SIZE - BLOCK);
	row_close(f);
}

static void bucket_in_another_region_is_followed_and_remembered(void **state)
{
	struct fixture *f = *state;
	char head[400];
	struct wd_err err = WD_ERR_INIT;

	f->settings.request_deadline = PATIENCE_MS;
	row_open(f, S3, NULL);
	http_origin_fail(f->server, FAULT_RAW, 0,
		STATUS("301 x", "x-amz-bucket-region: eu-west-1\r\nLocation: http://127.0.0.2/bkt/f\r\n"));
	assert_int_equal(read_from(f, 0), 0);
	assert_int_equal(http_origin_requests(f->server), 2);
	assert_true(http_origin_header(f->server->last, "Authorization", head, sizeof(head)));
	assert_non_null(strstr(head, "/eu-west-1/s3/"));
	assert_int_equal(head_or_list(f, true, &err), 0);
	assert_int_equal(http_origin_requests(f->server), 3);
	/* and another time by the error's body; but not for ever */
	http_origin_fail(f->server, FAULT_STATUS, 400,
		"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-2</Region></Error>");
	assert_int_equal(head_or_list(f, true, &err), 0);
	assert_true(http_origin_header(f->server->last, "Authorization", head, sizeof(head)));
	assert_non_null(strstr(head, "/eu-west-2/s3/"));
	http_origin_fail_always(f->server, FAULT_RAW, 0, STATUS("301 x", "x-amz-bucket-region: eu-west-2\r\n"));
	assert_int_equal(head_or_list(f, false, &err), -EIO);
	if (!strstr(err.msg, "round in circles"))
		fail_row("%s", err.msg);
	/* a region is a word, and never becomes a host of somebody's choice */
	http_origin_heal(f->server);
	http_origin_fail_always(
		f->server, FAULT_RAW, 0, STATUS("301 x", "x-amz-bucket-region: evil.example/x\r\n"));
	assert_int_equal(head_or_list(f, false, &err), -EIO);
	row_close(f);
}

#define TEST(name) cmocka_unit_test_teardown(name, show_log)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(transient_faults_of_reads_are_overcome),
		TEST(definite_faults_of_reads_end_at_once),
		TEST(lasting_faults_of_reads_end_with_the_deadline),
		TEST(faults_of_looking_up_and_listing),
		TEST(host_that_is_not_there_is_waited_for_until_the_deadline),
		TEST(outage_is_a_stall_and_the_breaker_opens_once),
		TEST(reader_that_joins_late_gets_its_whole_time),
		TEST(what_is_in_the_cache_is_not_paid_twice),
		TEST(bucket_in_another_region_is_followed_and_remembered),
	};
	int rc;

	real_stderr = dup(STDERR_FILENO);
	content = malloc(SIZE);
	for (uint64_t i = 0; i < SIZE; i++)
		content[i] = (unsigned char)(i * 2654435761u >> 13 ^ i >> 18);
	rc = cmocka_run_group_tests(tests, begin, end);
	free(content);
	close(real_stderr);
	return rc;
}
