/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A web server that misbehaves on demand: files below a directory, with ranges and ETags, and faults.
 *
 *	e2e-toxic-origin --root DIR --ready FILE [--seed N] [--port N]
 *
 * It listens on a free port of 127.0.0.1, or with --port on that one of every address, and writes the port into
 * FILE. It is told what to do by requests (the answer lists what was injected so far, one "name count" a line):
 *
 *	GET /.toxic?rate=N	N of 1000 requests meet a fault, chosen at random
 *	GET /.toxic?status=N	every request is answered with this status; 0: no longer
 *	GET /.toxic?delay=MS	every answer begins so much later
 *	GET /.toxic?refuse=MS	connections are refused and broken off for so long
 *	GET /.toxic?bucket=NAME,ID:SECRET,...
 *				from now on /NAME/ is a bucket of S3: a request below it must be signed with one of
 *				these keys (none: nobody is let in), and it can be listed. The answers list
 *				"signed-by-ID count"
 *
 * One thread per connection; the faults are the ones that need a hand-made answer.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "e2e/tools/s3_list.h"
#include "e2e/tools/s3_verify.h"

#define KEYS_MAX 4
#define CONNECTIONS_MAX 1024
#define HEAD_MAX 8192

enum fault {
	FAULT_NONE,
	FAULT_500,
	FAULT_503,
	FAULT_RETRY_AFTER,
	FAULT_429,
	FAULT_RESET,
	FAULT_RESET_BODY,
	FAULT_SHORT_BODY,
	FAULT_SHORT_LENGTH,
	FAULT_WRONG_RANGE,
	FAULT_NO_RANGE,
	FAULT_IGNORE_RANGE,
	FAULT_GZIP,
	FAULT_BIG_HEADER,
	FAULT_STALL,
	FAULT_ERROR_200,
	FAULT_COUNT
};

static const char *const fault_names[FAULT_COUNT] = {"none", "500", "503", "retry-after", "429", "reset",
	"reset-body", "short-body", "short-length", "wrong-range", "no-range", "ignore-range", "gzip",
	"big-header", "stall", "error-in-200"};

static const char *root;
static unsigned short port;
static uint32_t address = INADDR_LOOPBACK;
static _Atomic unsigned rate, status_for_all, delay_ms, injected[FAULT_COUNT];
static _Atomic uint64_t random_state;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int connections[CONNECTIONS_MAX]; /* guarded by lock; 0: none */
static int listener = -1;		 /* guarded by lock */
static int64_t refuse_until_ms;		 /* guarded by lock */

static char bucket[64]; /* under lock, as its keys; "": none */
static struct {
	char id[64], secret[64];
	unsigned requests;
} keys[KEYS_MAX];

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void sleep_ms(int64_t ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static unsigned random_below(unsigned n)
{
	uint64_t z = atomic_fetch_add(&random_state, 0x9e3779b97f4a7c15ULL);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return (unsigned)((z ^ (z >> 31)) % n);
}

static bool send_all(int fd, const void *data, size_t len)
{
	while (len > 0) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		data = (const char *)data + n;
		len -= (size_t)n;
	}
	return true;
}

/* Ends the connection by RST; returns false, as all that end it do. */
static bool reset(int fd)
{
	struct linger linger = {.l_onoff = 1};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	return false;
}

static bool send_status(int fd, unsigned status, const char *headers, const char *body, bool is_head)
{
	char out[1024];
	int n = snprintf(out, sizeof(out), "HTTP/1.1 %u x\r\nContent-Length: %zu\r\n%s\r\n%s", status,
		strlen(body), headers, is_head ? "" : body);

	return send_all(fd, out, (size_t)n);
}

/* A whole body of any length. */
static bool send_long(int fd, const char *body)
{
	char head[100];
	int n = snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", strlen(body));

	return send_all(fd, head, (size_t)n) && send_all(fd, body, strlen(body));
}

/* ---- files ---- */

/* Undoes %XX; false for what leads out of the directory. */
static bool decode(const char *from, char *to, size_t cap)
{
	size_t n = 0;

	for (; *from && n + 1 < cap; from++) {
		unsigned v = (unsigned char)*from;

		if (*from == '%' && sscanf(from + 1, "%2x", &v) == 1)
			from += 2;
		to[n++] = (char)v;
	}
	to[n] = '\0';
	return !strstr(to, "/../") && strcmp(to + (n > 3 ? n - 3 : 0), "/..") != 0;
}

static bool send_range(int out, int file, uint64_t first, uint64_t len)
{
	off_t at = (off_t)first;

	while (len > 0) {
		ssize_t n = sendfile(out, file, &at, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		len -= (uint64_t)n;
	}
	return true;
}

static bool serve_file(int fd, const char *path, const char *head, bool is_head, enum fault fault)
{
	const char *range = strcasestr(head, "\r\nRange: bytes=");
	wd_autoclose int file = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t first = 0, last, len, body;
	char out[1024], etag[80], match[100] = "", modified[40];
	struct tm tm;
	const char *want = strcasestr(head, "\r\nIf-Match: ");
	struct stat st;
	bool is_range;
	int n;

	if (file < 0 || fstat(file, &st) < 0 || !S_ISREG(st.st_mode))
		return send_status(fd, 404, "", "", is_head);
	/* as nginx makes them, so that index files fit */
	snprintf(etag, sizeof(etag), "\"%llx-%llx\"", (unsigned long long)st.st_mtim.tv_sec,
		(unsigned long long)st.st_size);
	strftime(modified, sizeof(modified), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&st.st_mtim.tv_sec, &tm));
	if (want && sscanf(want + 12, "%99[^\r\n]", match) == 1 && strcmp(match, etag) != 0)
		return send_status(fd, 412, "", "", is_head);
	last = st.st_size ? (uint64_t)st.st_size - 1 : 0;
	is_range = range && !is_head && fault != FAULT_IGNORE_RANGE && st.st_size > 0 &&
		sscanf(range + 15, "%" SCNu64 "-%" SCNu64, &first, &last) == 2;
	if (is_range && (first > last || last >= (uint64_t)st.st_size))
		return send_status(fd, 416, "", "", is_head);
	len = body = st.st_size ? last - first + 1 : 0;
	if (fault == FAULT_SHORT_LENGTH && is_range) /* else nobody could tell */
		len = body = len / 2;
	n = snprintf(out, sizeof(out), "HTTP/1.1 %s\r\nContent-Length: %" PRIu64 "\r\nETag: %s\r\nLast-Modified: %s\r\n%s",
		is_range ? "206 Partial Content" : "200 OK", len, etag, modified,
		fault == FAULT_GZIP ? "Content-Encoding: gzip\r\n" : "");
	if (is_range && fault != FAULT_NO_RANGE)
		n += snprintf(out + n, sizeof(out) - (size_t)n, "Content-Range: bytes %" PRIu64 "-%" PRIu64 "/%lld\r\n",
			first + (fault == FAULT_WRONG_RANGE), last, (long long)st.st_size);
	n += snprintf(out + n, sizeof(out) - (size_t)n, "\r\n");
	if (!send_all(fd, out, (size_t)n) || is_head)
		return is_head;
	if (fault == FAULT_RESET_BODY || fault == FAULT_SHORT_BODY)
		body /= 2;
	if (fault == FAULT_STALL)
		body = body < 1000 ? body / 2 : 1000;
	if (!send_range(fd, file, first, body))
		return false;
	if (fault == FAULT_RESET_BODY)
		return reset(fd);
	if (fault == FAULT_STALL)
		recv(fd, out, sizeof(out), 0); /* until the other side has had enough */
	return body == len;
}

/* ---- the bucket ---- */

/* text: NAME,ID:SECRET,...; it is cut into its words. */
static void set_bucket(char *text)
{
	char *word;
	int n = 0;

	pthread_mutex_lock(&lock);
	memset(keys, 0, sizeof(keys));
	snprintf(bucket, sizeof(bucket), "%s", strsep(&text, ","));
	while ((word = strsep(&text, ",")) && n < KEYS_MAX)
		if (sscanf(word, "%63[^:]:%63s", keys[n].id, keys[n].secret) == 2)
			n++;
	pthread_mutex_unlock(&lock);
}

static int print_keys(char *text, size_t cap)
{
	int n = 0;

	pthread_mutex_lock(&lock);
	for (int i = 0; i < KEYS_MAX; i++)
		if (keys[i].id[0])
			n += snprintf(text + n, cap - (size_t)n, "signed-by-%s %u\n", keys[i].id, keys[i].requests);
	pthread_mutex_unlock(&lock);
	return n;
}

static bool is_in_bucket(const char *url)
{
	bool is_in;
	size_t len;

	pthread_mutex_lock(&lock);
	len = strlen(bucket);
	is_in = len && url[0] == '/' && strncmp(url + 1, bucket, len) == 0 && strchr("/?", url[1 + len]);
	pthread_mutex_unlock(&lock);
	return is_in;
}

/* S3's word for why it is not let in; NULL: it is. */
static const char *refusal(const char *head)
{
	const char *word = "InvalidAccessKeyId";
	char id[64];

	if (!s3_signer(head, id, sizeof(id)))
		return "AccessDenied";
	pthread_mutex_lock(&lock);
	for (int i = 0; i < KEYS_MAX; i++) {
		if (!id[0] || strcmp(keys[i].id, id) != 0)
			continue;
		word = s3_is_signed(head, keys[i].secret) ? NULL : "SignatureDoesNotMatch";
		keys[i].requests += !word;
	}
	pthread_mutex_unlock(&lock);
	return word;
}

static bool refuse(int fd, const char *word, bool is_head)
{
	char text[200];

	snprintf(text, sizeof(text), "<?xml version='1.0'?><Error><Code>%s</Code></Error>", word);
	return send_status(fd, 403, "", text, is_head);
}

static bool send_listing(int fd, const char *url)
{
	char path[PATH_MAX];
	char *text;
	bool ok;

	snprintf(path, sizeof(path), "%s/%.*s/", root, (int)strcspn(url + 1, "/?"), url + 1);
	text = s3_list(path, strchr(url, '?') + 1);
	ok = send_long(fd, text);
	free(text);
	return ok;
}

/* ---- requests ---- */

static bool control(int fd, char *query)
{
	char text[1024];
	unsigned value;
	int n = 0;

	if (sscanf(query, "rate=%u", &value) == 1)
		atomic_store(&rate, value);
	if (sscanf(query, "status=%u", &value) == 1)
		atomic_store(&status_for_all, value);
	if (sscanf(query, "delay=%u", &value) == 1)
		atomic_store(&delay_ms, value);
	if (strncmp(query, "bucket=", 7) == 0)
		set_bucket(query + 7);
	n = print_keys(text, sizeof(text));
	for (int i = 1; i < FAULT_COUNT; i++)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "%s %u\n", fault_names[i],
			atomic_load(&injected[i]));
	if (!send_status(fd, 200, "", text, false))
		return false;
	if (sscanf(query, "refuse=%u", &value) == 1) {
		pthread_mutex_lock(&lock);
		refuse_until_ms = now_ms() + value;
		if (listener >= 0)
			shutdown(listener, SHUT_RDWR); /* wakes accept() */
		for (int i = 0; i < CONNECTIONS_MAX; i++)
			if (connections[i] && connections[i] != fd)
				shutdown(connections[i], SHUT_RDWR);
		pthread_mutex_unlock(&lock);
	}
	return true;
}

static bool request(int fd, const char *head)
{
	static char big[1 << 20];
	char method[8] = "", url[3000] = "", path[PATH_MAX], decoded[3000];
	unsigned all = atomic_load(&status_for_all);
	enum fault fault = FAULT_NONE;
	bool is_head;

	sscanf(head, "%7s %2999s", method, url);
	is_head = strcmp(method, "HEAD") == 0;
	if (strncmp(url, "/.toxic?", 8) == 0)
		return control(fd, url + 8);
	if (atomic_load(&delay_ms) > 0)
		sleep_ms(atomic_load(&delay_ms));
	if (all)
		return send_status(fd, all, "", "", is_head);
	if (is_in_bucket(url)) {
		const char *word = refusal(head);

		if (word)
			return refuse(fd, word, is_head);
		if (strstr(url, "list-type=2"))
			return send_listing(fd, url);
	}
	if (random_below(1000) < atomic_load(&rate))
		fault = (enum fault)(1 + random_below(FAULT_COUNT - 1));
	atomic_fetch_add(&injected[fault], 1);
	switch (fault) {
	case FAULT_500:
		return send_status(fd, 500, "", "broken", is_head);
	case FAULT_503:
		return send_status(fd, 503, "", "busy", is_head);
	case FAULT_RETRY_AFTER:
		return send_status(fd, 503, "Retry-After: 1\r\n", "busy", is_head);
	case FAULT_429:
		return send_status(fd, 429, "", "too many", is_head);
	case FAULT_RESET:
		return reset(fd);
	case FAULT_BIG_HEADER:
		memset(big, 'x', sizeof(big));
		send_all(fd, "HTTP/1.1 206 x\r\nX-Big: ", 23);
		send_all(fd, big, sizeof(big));
		return false;
	case FAULT_ERROR_200:
		return send_status(fd, 200, "", "<Error><Code>InternalError</Code></Error>", is_head);
	default:
		break;
	}
	if (!decode(url, decoded, sizeof(decoded)) ||
		snprintf(path, sizeof(path), "%s%s", root, decoded) >= (int)sizeof(path))
		return send_status(fd, 404, "", "", is_head);
	return serve_file(fd, path, head, is_head, fault);
}

static void *serve(void *arg)
{
	int *place = arg, fd = *place;
	char head[HEAD_MAX];
	size_t len = 0;
	bool keeps = true;

	while (keeps) {
		ssize_t n = recv(fd, head + len, sizeof(head) - 1 - len, 0);
		char *end;

		if (n <= 0)
			break;
		len += (size_t)n;
		head[len] = '\0';
		end = strstr(head, "\r\n\r\n");
		if (!end && len < sizeof(head) - 1)
			continue;
		keeps = end && request(fd, head);
		len = 0; /* no pipelining */
	}
	pthread_mutex_lock(&lock);
	*place = 0;
	close(fd);
	pthread_mutex_unlock(&lock);
	return NULL;
}

static void start(int fd)
{
	pthread_attr_t attr;
	pthread_t thread;
	int *place = NULL;

	pthread_mutex_lock(&lock);
	for (int i = 0; i < CONNECTIONS_MAX && !place; i++)
		if (!connections[i])
			place = &connections[i];
	if (place)
		*place = fd;
	pthread_mutex_unlock(&lock);
	if (!place) {
		close(fd);
		return;
	}
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, &attr, serve, place) != 0) {
		*place = 0;
		close(fd);
	}
	pthread_attr_destroy(&attr);
}

/* A listening socket, always at the same port once there is one. */
static int start_listening(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(address),
		.sin_port = htons(port)};
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, 512) < 0 ||
		getsockname(fd, (struct sockaddr *)&at, &len) < 0) {
		perror("toxic-origin: listen");
		exit(1);
	}
	port = ntohs(at.sin_port);
	return fd;
}

static void accept_for_ever(void)
{
	for (;;) {
		int64_t wait_ms;
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0) {
			start(fd);
			continue;
		}
		if (errno == EINTR || errno == ECONNABORTED || errno == EMFILE)
			continue;
		/* refuse=: nobody listens for a while */
		pthread_mutex_lock(&lock);
		close(listener);
		listener = -1;
		wait_ms = refuse_until_ms - now_ms();
		pthread_mutex_unlock(&lock);
		if (wait_ms > 0)
			sleep_ms(wait_ms);
		pthread_mutex_lock(&lock);
		listener = start_listening();
		pthread_mutex_unlock(&lock);
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"root", required_argument, NULL, 'r'},
		{"ready", required_argument, NULL, 'y'}, {"seed", required_argument, NULL, 's'},
		{"port", required_argument, NULL, 'p'}, {0}};
	const char *ready = NULL;
	char temporary[PATH_MAX];
	FILE *out;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'r')
			root = optarg;
		else if (c == 'y')
			ready = optarg;
		else if (c == 's')
			random_state = strtoull(optarg, NULL, 10);
		else if (c == 'p') {
			port = (unsigned short)strtoul(optarg, NULL, 10);
			address = INADDR_ANY;
		} else
			return 2;
	}
	if (!root || !ready || optind != argc) {
		fprintf(stderr, "usage: e2e-toxic-origin --root DIR --ready FILE [--seed N] [--port N]\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	listener = start_listening();
	snprintf(temporary, sizeof(temporary), "%s.new", ready);
	out = fopen(temporary, "we");
	if (!out || fprintf(out, "%u\n", port) < 0 || fclose(out) != 0 || rename(temporary, ready) < 0) {
		perror("toxic-origin: --ready");
		return 1;
	}
	accept_for_ever();
}
