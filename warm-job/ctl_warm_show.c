/* SPDX-License-Identifier: Apache-2.0 */
/* See ctl_warm_show.h; what the lines say is ctl_warm_line.c's. */
#include "warm-job/ctl_warm_show.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/cleanup.h"

#define TTY_MS 200
#define JSON_MS 1000
#define LOG_MS 5000
#define LINE_MAX_COLUMNS 500

/* The COLUMNS of whoever knows better, else the terminal's own width. */
static unsigned columns_of(FILE *log)
{
	const char *text = getenv("COLUMNS");
	long n = text ? strtol(text, NULL, 10) : 0;
	struct winsize size;

	if (n <= 0)
		n = ioctl(fileno(log), TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
	return n <= 0 ? 80 : n < LINE_MAX_COLUMNS ? (unsigned)n : LINE_MAX_COLUMNS;
}

static bool is_terminal(FILE *log)
{
	const char *term = getenv("TERM");

	return isatty(fileno(log)) && term && strcmp(term, "dumb") != 0;
}

static void print_json(FILE *out, json_t *object)
{
	json_dumpf(object, out, JSON_COMPACT);
	fputc('\n', out);
	fflush(out);
	json_decref(object);
}

void warm_show_start(struct warm_show *s, enum warm_progress mode, FILE *out, FILE *log, int64_t now_ms)
{
	if (mode == WARM_AUTO)
		mode = is_terminal(log) ? WARM_TTY : WARM_PLAIN;
	*s = (struct warm_show){.mode = mode, .out = out, .log = log, .start_ms = now_ms, .shown_ms = now_ms};
}

static int64_t interval_of(enum warm_progress mode)
{
	return mode == WARM_TTY ? TTY_MS : mode == WARM_JSON ? JSON_MS : LOG_MS;
}

void warm_show_progress(struct warm_show *s, const struct warm_sum *sum, int64_t now_ms)
{
	char line[LINE_MAX_COLUMNS + 1];

	warm_meter_add(&s->meter, now_ms, sum->bytes_fetched);
	if (s->mode == WARM_NONE || now_ms - s->shown_ms < interval_of(s->mode))
		return;
	s->shown_ms = now_ms;
	if (s->mode == WARM_JSON) {
		print_json(s->out, warm_json(sum, s->meter.rate, WARM_END_NONE, now_ms - s->start_ms));
	} else if (s->mode == WARM_TTY) {
		warm_line(sum, s->meter.rate, columns_of(s->log), line, sizeof(line));
		fprintf(s->log, "\r%s\033[K", line);
		s->is_drawn = true;
	} else {
		warm_log_line(sum, s->meter.rate, line, sizeof(line));
		fprintf(s->log, "%s\n", line);
	}
	fflush(s->log);
}

void warm_show_clear(struct warm_show *s)
{
	if (s->is_drawn)
		fputs("\r\033[K", s->log);
	fflush(s->log);
	s->is_drawn = false;
}

void warm_show_failure(struct warm_show *s, const char *path, int code, const char *text)
{
	wd_autofree char *line = NULL;

	if (s->mode == WARM_JSON) {
		print_json(s->out, warm_failure_json(path, code, text));
		return;
	}
	if (s->nfailures == WARM_FAILURES_SHOWN)
		return;
	if (asprintf(&line, "failed: %s: %s", path, *text ? text : strerror(code)) < 0) {
		line = NULL;
		return;
	}
	for (char *p = line; *p; p++) {
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	}
	/* a task that was begun anew tells them again */
	for (size_t i = 0; i < s->nfailures; i++) {
		if (!strcmp(s->failures[i], line))
			return;
	}
	s->failures[s->nfailures++] = wd_steal_ptr(line);
}

void warm_show_end(struct warm_show *s, const struct warm_sum *sum, enum warm_end end, int64_t now_ms)
{
	char line[512];

	warm_show_clear(s);
	if (s->mode == WARM_JSON) {
		print_json(s->out, warm_json(sum, s->meter.rate, end, now_ms - s->start_ms));
		return;
	}
	for (size_t i = 0; i < s->nfailures; i++) {
		fprintf(s->log, "%s\n", s->failures[i]);
		free(s->failures[i]);
	}
	if (sum->files_failed > s->nfailures && s->nfailures > 0)
		fprintf(s->log, "failed: and %llu more\n", (unsigned long long)(sum->files_failed - s->nfailures));
	fflush(s->log);
	s->nfailures = 0;
	warm_result(sum, end, now_ms - s->start_ms, line, sizeof(line));
	fprintf(s->out, "%s\n", line);
	fflush(s->out);
}
