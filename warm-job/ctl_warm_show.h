/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_WARM_SHOW_H
#define WD_WARM_JOB_CTL_WARM_SHOW_H
/*
 * What `warm` shows while it waits, and at its end. On a terminal one line that is redrawn; in a log a line every few
 * seconds; as JSON an object a second. Progress and failures go to `log` (JSON: to `out`), the result to `out`.
 */
#include <stdio.h>

#include "warm-job/ctl_warm_args.h"
#include "warm-job/ctl_warm_line.h"

#define WARM_FAILURES_SHOWN 20

struct warm_show {
	enum warm_progress mode;
	FILE *out, *log;
	int64_t start_ms, shown_ms; /* a monotonic clock */
	struct warm_meter meter;
	bool is_drawn; /* a line stands on the terminal */
	char *failures[WARM_FAILURES_SHOWN];
	size_t nfailures;
};

/* Neither stream is closed. WARM_AUTO becomes what `log` is. */
void warm_show_start(struct warm_show *s, enum warm_progress mode, FILE *out, FILE *log, int64_t now_ms);
/* May be called as often as there is news. */
void warm_show_progress(struct warm_show *s, const struct warm_sum *sum, int64_t now_ms);
/* path is where the user finds it. Told at the end, as JSON at once. */
void warm_show_failure(struct warm_show *s, const char *path, int code, const char *text);
/* Takes the line from the terminal, before anything else is printed there. */
void warm_show_clear(struct warm_show *s);
void warm_show_end(struct warm_show *s, const struct warm_sum *sum, enum warm_end end, int64_t now_ms);

#endif
