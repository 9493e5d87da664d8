/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A text table of UTF-8 cells: widths count code points, which is right for all but wide scripts.
 */
#include "warm-job/ctl_table.h"

#include <stdlib.h>
#include <string.h>

#define COLUMNS_MAX 12

struct ctl_table {
	size_t columns, used, cap;
	char **cells; /* the heads are the first row */
};

struct ctl_table *ctl_table_new(const char *heads)
{
	struct ctl_table *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->columns = COLUMNS_MAX; /* until all heads are in */
	for (const char *p = heads;; p++) {
		size_t len = strcspn(p, ",");
		char head[64];

		snprintf(head, sizeof(head), "%.*s", (int)len, p);
		ctl_table_cell(t, head);
		p += len;
		if (!*p)
			break;
	}
	t->columns = t->used ? t->used : 1;
	return t;
}

void ctl_table_cell(struct ctl_table *t, const char *text)
{
	if (!t)
		return;
	if (t->used == t->cap) {
		size_t cap = t->cap ? t->cap * 2 : 32;
		char **cells = realloc(t->cells, cap * sizeof(*cells));

		if (!cells)
			return;
		t->cells = cells;
		t->cap = cap;
	}
	char *copy = strdup(text);

	if (!copy)
		return;
	for (char *p = copy; *p; p++) {
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	}
	t->cells[t->used++] = copy;
}

static size_t width(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

void ctl_table_print(const struct ctl_table *t, const char *if_empty, FILE *out)
{
	size_t widths[COLUMNS_MAX] = {0};

	if (!t || t->used <= t->columns) {
		fprintf(out, "%s\n", if_empty);
		return;
	}
	for (size_t i = 0; i < t->used; i++) {
		size_t w = width(t->cells[i]);

		if (w > widths[i % t->columns])
			widths[i % t->columns] = w;
	}
	for (size_t i = 0; i < t->used; i++) {
		size_t column = i % t->columns;

		fputs(t->cells[i], out);
		if (column + 1 == t->columns || i + 1 == t->used)
			fputc('\n', out);
		else
			fprintf(out, "%*s", (int)(widths[column] - width(t->cells[i]) + 2), "");
	}
}

void ctl_table_free(struct ctl_table *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->used; i++)
		free(t->cells[i]);
	free(t->cells);
	free(t);
}
