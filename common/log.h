/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_LOG_H
#define WD_COMMON_LOG_H
/*
 * One line per event on stderr: readable text when stderr is a terminal, a JSON object per line
 * otherwise: {"time":"2026-01-02T03:04:05.678Z","level":"info","component":"agent","msg":"..."}.
 * Each line is one write(2), so that lines of several processes never interleave. Control bytes in
 * a message are escaped: object keys are untrusted. Secrets are never passed in here.
 * Thread-safe. WARPDRIVE_LOG=debug|info|warn|error sets the level, WARPDRIVE_LOG_FORMAT=text|json
 * overrides the form.
 */
#include <stdbool.h>
#include <stdint.h>

enum wd_log_level { WD_LOG_DEBUG, WD_LOG_INFO, WD_LOG_WARN, WD_LOG_ERROR };

/* Names the process ("agent"); borrowed for ever. Call once, before threads. */
void wd_log_init(const char *component);
void wd_log_set_level(enum wd_log_level level);
bool wd_log_enabled(enum wd_log_level level);
void wd_log(enum wd_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* From now on the last warnings and errors are kept for wd_log_recent(). For a program that shows them. */
void wd_log_keep(void);
#define WD_LOG_KEPT 32
struct wd_log_line {
	int64_t at_s; /* Unix time */
	enum wd_log_level level;
	char text[400]; /* cut; not escaped */
};
/* The newest first; how many there are. */
unsigned wd_log_recent(struct wd_log_line ret_lines[WD_LOG_KEPT]);

#define wd_debug(...)                                                                              \
	do {                                                                                       \
		if (wd_log_enabled(WD_LOG_DEBUG))                                                  \
			wd_log(WD_LOG_DEBUG, __VA_ARGS__);                                         \
	} while (0)
#define wd_info(...) wd_log(WD_LOG_INFO, __VA_ARGS__)
#define wd_warn(...) wd_log(WD_LOG_WARN, __VA_ARGS__)
#define wd_error(...) wd_log(WD_LOG_ERROR, __VA_ARGS__)

#endif
