/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A text table of UTF-8 cells: widths count code points, which is right for all but wide scripts.
 */
#include "warm-job/ctl_table.h"

#include <stdlib.h>
#include <string.h>

#define COLUMNS_MAX 12
#define NARROWEST 12 /* a cell is not made narrower */

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

static void measure(const struct ctl_table *t, size_t widths[COLUMNS_MAX])
{
	for (size_t i = 0; i < t->used; i++) {
		size_t w = width(t->cells[i]);

		if (w > widths[i % t->columns])
			widths[i % t->columns] = w;
	}
}

/* Where the nth character begins. */
static char *character(char *text, size_t n)
{
	for (; *text; text++)
		if (((unsigned char)*text & 0xc0) != 0x80 && n-- == 0)
			break;
	return text;
}

/* "s3://training/im...et/train"; the end says more than the beginning. */
static void shorten(char *text, size_t to)
{
	size_t have = width(text), head = (to - 3) / 3, tail = to - 3 - head;
	char *from, *end;

	if (have <= to)
		return;
	from = character(text, head);
	end = character(text, have - tail);
	memmove(from + 3, end, strlen(end) + 1);
	memcpy(from, "...", 3);
}

void ctl_table_fit(struct ctl_table *t, size_t columns)
{
	size_t widths[COLUMNS_MAX] = {0}, sum, widest;

	if (!t)
		return;
	measure(t, widths);
	for (;;) {
		sum = 2 * (t->columns - 1);
		widest = 0;
		for (size_t i = 0; i < t->columns; i++) {
			sum += widths[i];
			widest = widths[i] > widths[widest] ? i : widest;
		}
		if (sum <= columns || widths[widest] <= NARROWEST)
			break;
		widths[widest]--;
	}
	for (size_t i = t->columns; i < t->used; i++)
		shorten(t->cells[i], widths[i % t->columns]);
}

void ctl_table_print(const struct ctl_table *t, const char *if_empty, FILE *out)
{
	size_t widths[COLUMNS_MAX] = {0};

	if (!t || t->used <= t->columns) {
		fprintf(out, "%s\n", if_empty);
		return;
	}
	measure(t, widths);
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

void ctl_percent(uint64_t part, uint64_t whole, char *out, size_t cap)
{
	if (whole == 0)
		snprintf(out, cap, "-");
	else if (part >= whole)
		snprintf(out, cap, "100%%");
	else
		snprintf(out, cap, "%.1f%%", (double)(part * 1000 / whole) / 10.0);
}

void ctl_print_json(const json_t *root, FILE *out)
{
	json_dumpf(root, out, JSON_INDENT(2));
	fputc('\n', out);
}
