/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_TABLE_H
#define WD_WARM_JOB_CTL_TABLE_H
/* A text table: cells row by row, columns as wide as their widest cell. One thread. */
#include <stdio.h>

struct ctl_table;

/* `heads` are comma-separated. NULL when memory is out; the rest copes with NULL. */
struct ctl_table *ctl_table_new(const char *heads);
/* Adds the next cell (copied; control bytes become "?"). */
void ctl_table_cell(struct ctl_table *t, const char *text);
/* Prints heads and rows, or `if_empty` when there are no rows. */
void ctl_table_print(const struct ctl_table *t, const char *if_empty, FILE *out);
void ctl_table_free(struct ctl_table *t);

#endif
