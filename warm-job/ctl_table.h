/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_TABLE_H
#define WD_WARM_JOB_CTL_TABLE_H
/* A text table: cells row by row, columns as wide as their widest cell; and what else is shown. One thread. */
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#define CTL_COLUMNS 80

struct ctl_table;

/* `heads` are comma-separated. NULL when memory is out; the rest copes with NULL. */
struct ctl_table *ctl_table_new(const char *heads);
/* Adds the next cell (copied; control bytes become "?"). */
void ctl_table_cell(struct ctl_table *t, const char *text);
/* Shortens the widest cells in the middle, until a row takes no more than so many columns. */
void ctl_table_fit(struct ctl_table *t, size_t columns);
/* Prints heads and rows, or `if_empty` when there are no rows. */
void ctl_table_print(const struct ctl_table *t, const char *if_empty, FILE *out);
void ctl_table_free(struct ctl_table *t);

/* "41.6%": rounded down, so that 100% is said of what is complete, and of nothing else; "-" of nothing. */
void ctl_percent(uint64_t part, uint64_t whole, char *out, size_t cap);
/* With an indent, and a newline behind it. */
void ctl_print_json(const json_t *root, FILE *out);

#endif
