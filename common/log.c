/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines: formatted on the stack, escaped, written with one write(2). No lock and no allocation,
 * so any thread may log at any time, also with locks of its own held by mistake. (Where the last warnings are
 * kept there is a lock, for as long as a line is copied.) The name, the form and the level are set before threads
 * start; the level may change later.
 */
#include "common/log.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/lock.h"
#include "common/utf8.h"

/* A pipe takes so much at once without mixing it with the lines of others. */
#define LINE_MAX_BYTES PIPE_BUF

static const char *component = "warpdrive";
static _Atomic int threshold = WD_LOG_INFO;
static bool as_json = true;
static const char *const level_names[] = {"debug", "info", "warn", "error"};

static _Atomic bool is_keeping;
static struct wd_mutex kept_lock = WD_MUTEX_INIT; /* a leaf */
static struct wd_log_line kept[WD_LOG_KEPT] WD_GUARDED_BY(kept_lock);
static unsigned long kept_count WD_GUARDED_BY(kept_lock); /* so far */

void wd_log_init(const char *name)
{
	const char *level = getenv("WARPDRIVE_LOG");
	const char *format = getenv("WARPDRIVE_LOG_FORMAT");

	component = name;
	as_json = format ? strcmp(format, "json") == 0 : !isatty(STDERR_FILENO);
	for (int i = 0; level && i <= WD_LOG_ERROR; i++)
		if (strcmp(level, level_names[i]) == 0)
			wd_log_set_level((enum wd_log_level)i);
}

void wd_log_set_level(enum wd_log_level level)
{
	atomic_store_explicit(&threshold, (int)level, memory_order_relaxed);
}

bool wd_log_enabled(enum wd_log_level level)
{
	return (int)level >= atomic_load_explicit(&threshold, memory_order_relaxed);
}

/* Copies text with everything escaped that JSON (or a terminal) must not see raw. */
static void escape(char *out, size_t cap, const char *text)
{
	size_t n = 0;

	for (const char *p = text; *p && n + 8 < cap;) {
		uint32_t code = 0;
		unsigned len = wd_utf8_decode(p, &code);

		if (len == 0 || (code >= 0x80 && code < 0xa0)) { /* terminals obey C1 controls */
			n += (size_t)snprintf(out + n, cap - n, as_json ? "\\\\x%02x" : "\\x%02x",
				(unsigned char)*p);
			len = 1;
		} else if (code < 0x20 || code == 0x7f) {
			n += (size_t)snprintf(
				out + n, cap - n, as_json ? "\\u%04x" : "\\x%02x", code);
		} else {
			if (as_json && (*p == '"' || *p == '\\'))
				out[n++] = '\\';
			memcpy(out + n, p, len);
			n += len;
		}
		p += len;
	}
	out[n] = '\0';
}

static void format_time(char *out, size_t cap)
{
	struct timespec now;
	struct tm tm;
	size_t n;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	n = strftime(out, cap, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out + n, cap - n, ".%03ldZ", now.tv_nsec / 1000000);
}

void wd_log_keep(void)
{
	atomic_store(&is_keeping, true);
}

static void keep(enum wd_log_level level, const char *text)
{
	struct wd_log_line *line;
	struct timespec now;

	if (level < WD_LOG_WARN || !atomic_load_explicit(&is_keeping, memory_order_relaxed))
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	wd_lock(&kept_lock);
	line = &kept[kept_count++ % WD_LOG_KEPT];
	line->at_s = now.tv_sec;
	line->level = level;
	snprintf(line->text, sizeof(line->text), "%.399s", text);
	wd_unlock(&kept_lock);
}

unsigned wd_log_recent(struct wd_log_line ret_lines[WD_LOG_KEPT])
{
	unsigned n;

	wd_lock(&kept_lock);
	n = kept_count < WD_LOG_KEPT ? (unsigned)kept_count : WD_LOG_KEPT;
	for (unsigned i = 0; i < n; i++)
		ret_lines[i] = kept[(kept_count - 1 - i) % WD_LOG_KEPT];
	wd_unlock(&kept_lock);
	return n;
}

void wd_log(enum wd_log_level level, const char *fmt, ...)
{
	char text[1536], escaped[LINE_MAX_BYTES - 256], line[LINE_MAX_BYTES], stamp[64];
	int n, saved_errno = errno;
	va_list ap;

	if (!wd_log_enabled(level))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	keep(level, text);
	escape(escaped, sizeof(escaped), text);
	format_time(stamp, sizeof(stamp));
	if (as_json)
		n = snprintf(line, sizeof(line),
			"{\"time\":\"%s\",\"level\":\"%s\",\"component\":\"%.64s\",\"msg\":\"%s\"}"
			"\n",
			stamp, level_names[level], component, escaped);
	else
		n = snprintf(line, sizeof(line), "%s %-5s %.64s: %s\n", stamp, level_names[level],
			component, escaped);
	/* When it cannot be written nobody is left to tell. */
	while (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0 && errno == EINTR)
		;
	errno = saved_errno;
}
