/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_OPTIONS_H
#define WD_WARM_JOB_CTL_OPTIONS_H
/*
 * The options of `mount -o`: a table of what is known, and the parser of "key=value,flag,...".
 * What a value means is checked by the agent; here only the names and the shape are.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "common/err.h"

/* Adds what `text` says to the JSON object `options` (key -> string; a flag is "true"). A backslash
 * takes the meaning from the comma behind it. -EINVAL names the key; an unknown one lists the
 * known. */
int ctl_options_parse(const char *text, json_t *options, struct wd_err *err);
/* True when the flag `key` is set in `options`. */
bool ctl_options_flag(const json_t *options, const char *key);
/* The table, for --help. */
void ctl_options_print(FILE *out);

#endif
