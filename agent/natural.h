/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_NATURAL_H
#define WD_AGENT_NATURAL_H
/* Names with numbers in them, as people count. Pure. */
#include <stdbool.h>

/* strcmp() in natural order: digits in a row count as a number. */
int natural_compare(const char *a, const char *b);
/* The names are the same but for one number. */
bool natural_are_alike(const char *a, const char *b);

#endif
