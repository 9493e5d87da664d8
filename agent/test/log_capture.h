/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_TEST_LOG_CAPTURE_H
#define WD_AGENT_TEST_LOG_CAPTURE_H
/*
 * What the program says in its log, for tests that look at it. From log_begin() to log_end() stderr is a
 * file in memory; what people are to read meanwhile goes to log_people. A test that captures has log_show as
 * its teardown, so that a claim that failed, and the log, are seen.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LOG_CAPTURE_MAX 32768

static int log_fd = -1, log_people = -1;

static inline void log_begin(void)
{
	log_people = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
	log_fd = memfd_create("log", MFD_CLOEXEC);
	if (log_people < 0 || log_fd < 0 || fcntl(log_fd, F_SETFL, O_APPEND) < 0 ||
		dup2(log_fd, STDERR_FILENO) < 0)
		_exit(99);
}

static inline void log_end(void)
{
	if (log_fd < 0)
		return;
	dup2(log_people, STDERR_FILENO);
	close(log_people);
	close(log_fd);
	log_people = log_fd = -1;
}

/* Forgets what was said so far. */
static inline void log_clear(void)
{
	if (ftruncate(log_fd, 0) < 0)
		_exit(99);
}

static inline const char *log_text(void)
{
	static char text[LOG_CAPTURE_MAX];
	ssize_t n = pread(log_fd, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	return text;
}

/* Lines that hold both. */
static inline unsigned log_count(const char *what, const char *and)
{
	unsigned n = 0;

	for (const char *p = log_text(), *eol; (eol = strchr(p, '\n')); p = eol + 1) {
		size_t len = (size_t)(eol - p);

		n += memmem(p, len, what, strlen(what)) && memmem(p, len, and, strlen(and));
	}
	return n;
}

/* True when so many lines hold both; otherwise people get the log. */
static inline bool log_said(unsigned times, const char *what, const char *and)
{
	unsigned n = log_count(what, and);

	if (n != times)
		dprintf(log_people, "%u lines of the log have '%s' and '%s', not %u:\n%s\n", n, what, and, times,
			log_text());
	return n == times;
}

static inline int log_show(void **state)
{
	char text[LOG_CAPTURE_MAX];

	if (log_fd < 0)
		return 0;
	strcpy(text, log_text());
	log_end();
	fprintf(stderr, "the log of the test:\n%s\n", text);
	return 0;
}

#endif
