/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_WARM_LINE_H
#define WD_WARM_JOB_CTL_WARM_LINE_H
/* How `warm` says how far it is: pure functions from numbers to text. */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All tasks of one call together. */
struct warm_sum {
	uint64_t files, files_done, files_failed, files_skipped;
	uint64_t bytes, bytes_present, bytes_fetched;
	bool is_listed; /* files and bytes are all there is */
};

enum warm_end {
	WARM_END_NONE, /* under way */
	WARM_END_DONE,
	WARM_END_PARTLY,
	WARM_END_NO_ROOM,
	WARM_END_CANCELLED, /* by somebody else */
	WARM_END_STOPPED,   /* by a signal */
	WARM_END_TIMEOUT,
	WARM_END_FAILED, /* the agent refused or is away */
};

/* What was fetched lately, per second: an average that forgets. Zeroed is new. */
struct warm_meter {
	bool is_started;
	int64_t first_ms, last_ms; /* a monotonic clock */
	uint64_t last_bytes;
	double rate;
};

void warm_meter_add(struct warm_meter *m, int64_t now_ms, uint64_t bytes_fetched);
/* Seconds until all is there; -1: not known. */
int64_t warm_left_s(const struct warm_sum *sum, double rate);

/* 75 -> "1:15", 3675 -> "1:01:15", days as "3d 4h"; out holds at least 24 bytes. */
const char *warm_format_time(int64_t seconds, char *out, size_t cap);
/* The line for a terminal: at most `columns` - 1 characters; what fits least is left out. */
void warm_line(const struct warm_sum *sum, double rate, unsigned columns, char *out, size_t cap);
/* The line for a log: all of it. */
void warm_log_line(const struct warm_sum *sum, double rate, char *out, size_t cap);
/* The sentence at the end. */
void warm_result(const struct warm_sum *sum, enum warm_end end, int64_t elapsed_ms, char *out, size_t cap);
/* {"event": "progress", ...}; with an end {"event": "result", "state": ..., ...}. A new reference. */
json_t *warm_json(const struct warm_sum *sum, double rate, enum warm_end end, int64_t elapsed_ms);
/* The same for a failed file: {"event": "failure", "path": ..., "code": "EACCES", "text": ...} */
json_t *warm_failure_json(const char *path, int code, const char *text);

#endif
