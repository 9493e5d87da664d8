/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/natural.h"

#include <stddef.h>
#include <string.h>

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Past the number at s; *ret_digits is where it begins without its zeros, *ret_len how long it is then. */
static const char *read_number(const char *s, const char **ret_digits, size_t *ret_len)
{
	while (*s == '0')
		s++;
	*ret_digits = s;
	while (is_digit(*s))
		s++;
	*ret_len = (size_t)(s - *ret_digits);
	return s;
}

int natural_compare(const char *a, const char *b)
{
	const char *x = a, *y = b;

	while (*x && *y) {
		const char *m, *n;
		size_t mlen, nlen;
		int c;

		if (!is_digit(*x) || !is_digit(*y)) {
			if (*x != *y)
				return (unsigned char)*x < (unsigned char)*y ? -1 : 1;
			x++;
			y++;
			continue;
		}
		x = read_number(x, &m, &mlen);
		y = read_number(y, &n, &nlen);
		if (mlen != nlen)
			return mlen < nlen ? -1 : 1;
		c = memcmp(m, n, mlen);
		if (c)
			return c;
	}
	if (*x || *y)
		return *x ? 1 : -1;
	return strcmp(a, b); /* the zeros decide */
}

bool natural_are_alike(const char *a, const char *b)
{
	size_t first = 0, m, n;

	while (a[first] && a[first] == b[first])
		first++;
	while (first > 0 && is_digit(a[first - 1]))
		first--;
	m = n = first;
	while (is_digit(a[m]))
		m++;
	while (is_digit(b[n]))
		n++;
	return m > first && n > first && strcmp(a, b) != 0 && strcmp(a + m, b + n) == 0;
}
