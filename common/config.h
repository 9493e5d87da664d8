/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_CONFIG_H
#define WD_COMMON_CONFIG_H
/*
 * Table-driven configuration: one row per key says name, type, unit, range, default, help. The same
 * table reads YAML files (`cache-size: 100GiB`), command-line style pairs (`cache-size=100GiB`) and
 * prints `--print-defaults`. An unknown key is refused by name with the known ones listed.
 *
 * Values land in a plain struct of the caller by offset. Not thread-safe: read before threads
 * start.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/err.h"

enum wd_config_type {
	WD_CONFIG_BOOL,	    /* bool */
	WD_CONFIG_INT,	    /* int64_t */
	WD_CONFIG_SIZE,	    /* int64_t bytes: 512MiB, 10GB, 4096 */
	WD_CONFIG_DURATION, /* int64_t milliseconds: 500ms, 60s, 5m, 1h */
	WD_CONFIG_STRING,   /* char *, owned by the struct */
	WD_CONFIG_LIST, /* char *, one item per line ("\n" between), owned; a YAML sequence or a,b,c
			 */
};

struct wd_config_key {
	const char *name; /* kebab case */
	enum wd_config_type type;
	size_t offset;	  /* into the values struct */
	int64_t min, max; /* for numbers; both 0: no bound */
	const char *default_value;
	const char *help;
};

/* `keys` ends with the row {.name = NULL}. Sets every value of the struct, whatever it held: the
 * first call on a struct, once. */
int wd_config_defaults(const struct wd_config_key *keys, void *values, struct wd_err *err);
int wd_config_set(const struct wd_config_key *keys, void *values, const char *name,
	const char *value, struct wd_err *err);
/* Reads a YAML mapping of keys; the error names file, line, key and value. Values read before the
 * error stay set. */
int wd_config_read_file(
	const struct wd_config_key *keys, void *values, const char *path, struct wd_err *err);
/* The same from memory; `name` stands for the file in errors. */
int wd_config_read_text(const struct wd_config_key *keys, void *values, const char *name,
	const char *text, size_t len, struct wd_err *err);
/* YAML with the help texts as comments. */
void wd_config_print(const struct wd_config_key *keys, const void *values, FILE *out);
void wd_config_free(const struct wd_config_key *keys, void *values);

/* "1.5GiB", "10MB", "64Mi", "4096" -> bytes; any case, never negative; -EINVAL. */
int wd_parse_size(const char *text, int64_t *ret_bytes);
/* "500ms", "60s", "60", "5m", "1h", "2d" -> milliseconds (a bare number is seconds); -EINVAL. */
int wd_parse_duration(const char *text, int64_t *ret_ms);
/* 1536 -> "1.5 KiB"; out holds at least 16 bytes. */
const char *wd_format_size(uint64_t bytes, char *out, size_t cap);

#endif
