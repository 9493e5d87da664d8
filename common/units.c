/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes and durations as people write them; declared in common/config.h, but apart from the YAML
 * reader, so that a program without a configuration file does not carry it.
 *
 * Decimal fractions are computed exactly in integers: strtod(3) depends on the locale and rounds.
 */
#include "common/config.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

struct unit {
	const char *name;
	int64_t factor;
};

static const struct unit size_units[] = {
	{"", 1},
	{"B", 1},
	{"K", 1000},
	{"KB", 1000},
	{"Ki", 1ll << 10},
	{"KiB", 1ll << 10},
	{"M", 1000000},
	{"MB", 1000000},
	{"Mi", 1ll << 20},
	{"MiB", 1ll << 20},
	{"G", 1000000000ll},
	{"GB", 1000000000ll},
	{"Gi", 1ll << 30},
	{"GiB", 1ll << 30},
	{"T", 1000000000000ll},
	{"TB", 1000000000000ll},
	{"Ti", 1ll << 40},
	{"TiB", 1ll << 40},
	{"P", 1000000000000000ll},
	{"PB", 1000000000000000ll},
	{"Pi", 1ll << 50},
	{"PiB", 1ll << 50},
	{NULL, 0},
};
static const struct unit duration_units[] = {
	{"", 1000},
	{"ms", 1},
	{"s", 1000},
	{"m", 60000},
	{"h", 3600000},
	{"d", 24 * 3600000},
	{NULL, 0},
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* "12.5 unit": value = 12.5 * the unit's factor, rounded down. A fraction needs a unit that has
 * one. */
static int parse(const char *text, const struct unit *units, int64_t *ret_value)
{
	__int128 whole = 0, fraction = 0, scale = 1;
	const char *p = text;

	if (!is_digit(*p))
		return -EINVAL;
	for (; is_digit(*p); p++) {
		whole = whole * 10 + (*p - '0');
		if (whole > INT64_MAX)
			return -EINVAL;
	}
	if (*p == '.') {
		if (!is_digit(*++p))
			return -EINVAL;
		for (; is_digit(*p) && scale < 1000000000; p++) {
			fraction = fraction * 10 + (*p - '0');
			scale *= 10;
		}
		while (is_digit(*p))
			p++;
	}
	while (*p == ' ')
		p++;
	for (const struct unit *u = units; u->name; u++) {
		__int128 value = whole * u->factor + fraction * u->factor / scale;

		if (strcasecmp(p, u->name) != 0)
			continue;
		if (value > INT64_MAX || (u->factor == 1 && scale > 1))
			return -EINVAL;
		*ret_value = (int64_t)value;
		return 0;
	}
	return -EINVAL;
}

int wd_parse_size(const char *text, int64_t *ret_bytes)
{
	return parse(text, size_units, ret_bytes);
}

int wd_parse_duration(const char *text, int64_t *ret_ms)
{
	return parse(text, duration_units, ret_ms);
}

const char *wd_format_size(uint64_t bytes, char *out, size_t cap)
{
	static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	unsigned __int128 tenths = (unsigned __int128)bytes * 10, unit = 1;
	unsigned i = 0, n;

	/* to the next unit as soon as rounding would show 1024.0 */
	while (i < 6 && tenths + unit / 2 >= 10240 * unit) {
		unit *= 1024;
		i++;
	}
	n = (unsigned)((tenths + unit / 2) / unit);
	if (n % 10 == 0)
		snprintf(out, cap, "%u %s", n / 10, names[i]);
	else
		snprintf(out, cap, "%u.%u %s", n / 10, n % 10, names[i]);
	return out;
}
