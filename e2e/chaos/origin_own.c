/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The own origin: an HTTP server whose bytes are computed, with listings in nginx's JSON form, ranges, strong
 * ETags, and faults on demand. It is a process of its own so that it can be stopped, and because the chaos
 * program's threads hang in page faults of the mount that waits for it.
 */
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <arpa/inet.h>
#include <time.h>
#include <unistd.h>

#include "e2e/chaos/content.h"
#include "e2e/chaos/origin.h"
#include "e2e/chaos/run.h"

#define MTIME "Mon, 05 Jan 2026 10:00:00 GMT"
#define CHUNK (256 * 1024)

static struct origin_control *control;

struct body {
	uint32_t file;
	uint64_t offset;
	uint64_t cut_at; /* the connection breaks here; UINT64_MAX: never */
};

static bool happens(_Atomic unsigned *per_thousand)
{
	return (unsigned)(random() % 1000) < atomic_load(per_thousand);
}

static ssize_t give(void *arg, uint64_t pos, char *out, size_t max)
{
	struct body *b = arg;
	uint64_t at = b->offset + pos, start = at / 8 * 8;
	char words[4096 + 8];
	size_t len = max < 4096 ? max : 4096;

	if (pos >= b->cut_at)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (len > 4096 - (at - start))
		len = 4096 - (at - start);
	content_fill(control->seed, b->file, start, words, 4096);
	memcpy(out, words + (at - start), len);
	atomic_fetch_add(&control->bytes, len);
	return (ssize_t)len;
}

/* "bytes=A-B" or "bytes=A-". False: not a range that can be met. */
static bool parse_range(const char *text, uint64_t size, uint64_t *first, uint64_t *last)
{
	char *end;

	if (strncmp(text, "bytes=", 6) != 0)
		return false;
	*first = strtoull(text + 6, &end, 10);
	if (*end != '-')
		return false;
	*last = end[1] ? strtoull(end + 1, NULL, 10) : size - 1;
	if (*last >= size)
		*last = size - 1;
	return *first <= *last && *first < size;
}

static enum MHD_Result answer(struct MHD_Connection *conn, unsigned status, struct MHD_Response *r)
{
	enum MHD_Result rc = MHD_queue_response(conn, status, r);

	MHD_destroy_response(r);
	return rc;
}

static enum MHD_Result answer_text(struct MHD_Connection *conn, unsigned status, const char *type, char *text)
{
	struct MHD_Response *r =
		MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);

	MHD_add_response_header(r, "Content-Type", type);
	return answer(conn, status, r);
}

static enum MHD_Result serve_file(struct MHD_Connection *conn, uint32_t file)
{
	const char *range = MHD_lookup_connection_value(conn, MHD_HEADER_KIND, "Range");
	uint64_t size = content_size(file), first = 0, last = size - 1;
	struct body *b = malloc(sizeof(*b));
	struct MHD_Response *r;
	char text[96];

	if (!b || (range && !parse_range(range, size, &first, &last))) {
		free(b);
		return answer_text(conn, 416, "text/plain", strdup("bad range\n"));
	}
	*b = (struct body){file, first, UINT64_MAX};
	if (happens(&control->reset))
		b->cut_at = 0;
	else if (happens(&control->cut_short))
		b->cut_at = (last - first + 1) / 2;
	r = MHD_create_response_from_callback(last - first + 1, CHUNK, give, b, free);
	snprintf(text, sizeof(text), "\"%x-%llx\"", file, (unsigned long long)control->seed);
	MHD_add_response_header(r, "ETag", text);
	MHD_add_response_header(r, "Last-Modified", MTIME);
	MHD_add_response_header(r, "Accept-Ranges", "bytes");
	if (range) {
		snprintf(text, sizeof(text), "bytes %llu-%llu/%llu", (unsigned long long)first,
			(unsigned long long)last, (unsigned long long)size);
		MHD_add_response_header(r, "Content-Range", text);
	}
	return answer(conn, range ? 206 : 200, r);
}

/* "" is the root. NULL when there is no such directory. */
static char *list(const char *dir)
{
	char *text = NULL, last[CONTENT_PATH] = "";
	size_t len = 0, n = strlen(dir);
	FILE *f = open_memstream(&text, &len);
	unsigned count = 0;

	fputc('[', f);
	for (uint32_t file = 0; file < CONTENT_FILES; file++) {
		char path[CONTENT_PATH], *slash;

		content_path(file, path);
		slash = strchr(path, '/');
		*slash = '\0';
		/* the directories of small files come round again and again */
		if (n == 0 && strcmp(path, last) != 0 &&
			file < content_small(0) + CONTENT_DIRS) {
			fprintf(f, "%s{\"name\":\"%s\",\"type\":\"directory\",\"mtime\":\"" MTIME "\"}",
				count++ ? "," : "", path);
			snprintf(last, sizeof(last), "%s", path);
		} else if (n > 0 && strncmp(path, dir, n - 1) == 0 && path[n - 1] == '\0') {
			fprintf(f,
				"%s{\"name\":\"%s\",\"type\":\"file\",\"mtime\":\"" MTIME
				"\",\"size\":%llu}",
				count++ ? "," : "", slash + 1, (unsigned long long)content_size(file));
		}
	}
	fputs("]\n", f);
	fclose(f);
	if (count == 0) {
		free(text);
		return NULL;
	}
	return text;
}

/* As web servers do for a directory that is asked for without "/". Takes the path. */
static enum MHD_Result redirect(struct MHD_Connection *conn, char *path)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(0, "", MHD_RESPMEM_PERSISTENT);

	MHD_add_response_header(r, "Location", path);
	free(path);
	return answer(conn, 301, r);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *conn, const char *url,
	const char *method, const char *version, const char *data, size_t *data_len, void **state)
{
	unsigned stall = atomic_load(&control->stall_ms);
	size_t len = strlen(url);
	char *listing, *slashed = NULL;
	int file;

	atomic_fetch_add(&control->requests, 1);
	if (stall)
		nanosleep(&(struct timespec){stall / 1000, stall % 1000 * 1000000L}, NULL); /* the fault */
	if (happens(&control->status_503))
		return answer_text(conn, 503, "text/plain", strdup("slow down\n"));
	if (len > 0 && url[len - 1] == '/') {
		listing = list(url + 1);
		return listing ? answer_text(conn, 200, "application/json", listing)
			       : answer_text(conn, 404, "text/plain", strdup("no such directory\n"));
	}
	file = content_find(url + 1);
	if (file < 0 && asprintf(&slashed, "%s/", url) > 0 && (listing = list(slashed + 1))) {
		free(listing);
		return redirect(conn, slashed);
	}
	free(slashed);
	return file < 0 ? answer_text(conn, 404, "text/plain", strdup("no such file\n"))
			: serve_file(conn, (uint32_t)file);
}

static void leave(int sig)
{
	_exit(0);
}

int origin_serve(int argc, char **argv)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct MHD_Daemon *d;
	int fd;

	if (argc != 4)
		return 2;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	at.sin_port = htons((uint16_t)atoi(argv[2]));
	fd = open(argv[3], O_RDWR | O_CLOEXEC);
	control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd < 0 || control == MAP_FAILED)
		return 1;
	signal(SIGTERM, leave);
	signal(SIGPIPE, SIG_IGN);
	d = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL,
		0, NULL, NULL, on_request, NULL, MHD_OPTION_SOCK_ADDR, &at,
		MHD_OPTION_LISTENING_ADDRESS_REUSE, 1U, MHD_OPTION_END);
	if (!d) {
		fprintf(stderr, "chaos: the origin cannot listen on port %s\n", argv[2]);
		return 1;
	}
	for (;;)
		pause();
}
