/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of keys at work: defaults, single settings, and the printed form. The reading of YAML
 * files is in config_yaml.c.
 *
 * A setting is parsed before the old value is touched, so a refused one changes nothing.
 */
#include "common/config.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "common/cleanup.h"
#include "common/config_internal.h"
#include "common/utf8.h"

/* ---- single values ---- */

static bool *bool_at(const struct wd_config_key *key, void *values)
{
	return (bool *)((char *)values + key->offset);
}

static int64_t *number_at(const struct wd_config_key *key, void *values)
{
	return (int64_t *)((char *)values + key->offset);
}

static char **text_at(const struct wd_config_key *key, void *values)
{
	return (char **)((char *)values + key->offset);
}

static bool is_text(const struct wd_config_key *key)
{
	return key->type == WD_CONFIG_STRING || key->type == WD_CONFIG_LIST;
}

static int parse_bool(const char *text, bool *ret_value)
{
	static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};

	for (unsigned i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (strcasecmp(text, words[i]) == 0) {
			*ret_value = i % 2;
			return 0;
		}
	return -EINVAL;
}

static int parse_int(const char *text, int64_t *ret_value)
{
	char *end;
	long long n;

	if (*text != '-' && (*text < '0' || *text > '9'))
		return -EINVAL;
	errno = 0;
	n = strtoll(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0')
		return -EINVAL;
	*ret_value = n;
	return 0;
}

struct step {
	int64_t factor;
	const char *unit;
};

/* The largest unit that says it exactly: "100GiB", "4097", "90s". */
static void print_exact(char *out, size_t cap, int64_t value, enum wd_config_type type)
{
	static const struct step none[] = {{1, ""}};
	static const struct step sizes[] = {
		{1ll << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}, {1, ""}};
	static const struct step durations[] = {
		{3600000, "h"}, {60000, "m"}, {1000, "s"}, {1, "ms"}};
	const struct step *s = none;

	if (value != 0 && type == WD_CONFIG_SIZE)
		s = sizes;
	else if (value != 0 && type == WD_CONFIG_DURATION)
		s = durations;
	while (value % s->factor != 0)
		s++;
	snprintf(out, cap, "%" PRId64 "%s", value / s->factor, s->unit);
}

static int set_number(
	const struct wd_config_key *key, void *values, const char *text, struct wd_err *err)
{
	static const char *const forms[] = {
		[WD_CONFIG_INT] = "a whole number",
		[WD_CONFIG_SIZE] = "a size such as 512MiB, 10GB or 4096",
		[WD_CONFIG_DURATION] = "a duration such as 500ms, 60s, 5m or 1h",
	};
	char least[32], most[32];
	int64_t n = 0;
	int rc;

	if (key->type == WD_CONFIG_INT)
		rc = parse_int(text, &n);
	else
		rc = key->type == WD_CONFIG_SIZE ? wd_parse_size(text, &n)
						 : wd_parse_duration(text, &n);
	if (rc < 0)
		return wd_err_set(
			err, EINVAL, "%s: '%s' is not %s", key->name, text, forms[key->type]);
	if ((key->min != 0 || key->max != 0) && (n < key->min || n > key->max)) {
		print_exact(least, sizeof(least), key->min, key->type);
		print_exact(most, sizeof(most), key->max, key->type);
		return wd_err_set(err, ERANGE, "%s: '%s' is not between %s and %s", key->name, text,
			least, most);
	}
	*number_at(key, values) = n;
	return 0;
}

int wd_config_set_text(
	const struct wd_config_key *key, void *values, char *text, struct wd_err *err)
{
	if (!text)
		return wd_err_set(err, ENOMEM, "%s: out of memory", key->name);
	free(*text_at(key, values));
	*text_at(key, values) = text;
	return 0;
}

/* "a, b,,c" becomes "a\nb\nc". */
static char *split_list(const char *text)
{
	char *list = malloc(strlen(text) + 1), *out = list;

	if (!list)
		return NULL;
	while (*text) {
		size_t len = strcspn(text, ","), from = strspn(text, " \t"), to = len;

		while (to > from && (text[to - 1] == ' ' || text[to - 1] == '\t'))
			to--;
		if (from < to) {
			if (out > list)
				*out++ = '\n';
			memcpy(out, text + from, to - from);
			out += to - from;
		}
		text += len + (text[len] == ',');
	}
	*out = '\0';
	return list;
}

int wd_config_set_key(
	const struct wd_config_key *key, void *values, const char *text, struct wd_err *err)
{
	switch (key->type) {
	case WD_CONFIG_BOOL:
		if (parse_bool(text, bool_at(key, values)) < 0)
			return wd_err_set(
				err, EINVAL, "%s: '%s' is not true or false", key->name, text);
		return 0;
	case WD_CONFIG_INT:
	case WD_CONFIG_SIZE:
	case WD_CONFIG_DURATION:
		return set_number(key, values, text, err);
	case WD_CONFIG_STRING:
		return wd_config_set_text(key, values, strdup(text), err);
	case WD_CONFIG_LIST:
		if (strchr(text, '\n'))
			return wd_err_set(
				err, EINVAL, "%s: an item cannot hold a line break", key->name);
		return wd_config_set_text(key, values, split_list(text), err);
	}
	return wd_err_set(err, EINVAL, "%s: no such type", key->name);
}

const struct wd_config_key *wd_config_find_key(
	const struct wd_config_key *keys, const char *name, struct wd_err *err)
{
	char known[384];
	size_t used = 0;

	for (const struct wd_config_key *key = keys; key->name; key++)
		if (strcmp(key->name, name) == 0)
			return key;
	for (const struct wd_config_key *key = keys; key->name && used < sizeof(known); key++)
		used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s",
			key == keys ? "" : ", ", key->name);
	if (used >= sizeof(known))
		snprintf(known + sizeof(known) - 4, 4, "...");
	wd_err_set(err, EINVAL, "unknown key '%.64s'; known keys: %s", name, used ? known : "none");
	return NULL;
}

int wd_config_defaults(const struct wd_config_key *keys, void *values, struct wd_err *err)
{
	int rc = 0;

	/* what free() will see must be in order even if a default is refused */
	for (const struct wd_config_key *key = keys; key->name; key++) {
		if (is_text(key))
			*text_at(key, values) = NULL;
		else if (key->type == WD_CONFIG_BOOL)
			*bool_at(key, values) = false;
		else
			*number_at(key, values) = 0;
	}
	for (const struct wd_config_key *key = keys; key->name && rc == 0; key++)
		if (key->default_value)
			rc = wd_config_set_key(key, values, key->default_value, err);
	return rc;
}

int wd_config_set(const struct wd_config_key *keys, void *values, const char *name,
	const char *value, struct wd_err *err)
{
	const struct wd_config_key *key = wd_config_find_key(keys, name, err);

	return key ? wd_config_set_key(key, values, value, err) : -EINVAL;
}

void wd_config_free(const struct wd_config_key *keys, void *values)
{
	for (const struct wd_config_key *key = keys; key->name; key++)
		if (is_text(key)) {
			free(*text_at(key, values));
			*text_at(key, values) = NULL;
		}
}

/* ---- YAML out ---- */

/* What YAML would read otherwise than it is written: controls, its own line breaks, byte order
 * marks and what is no character. */
static bool is_safe(uint32_t code)
{
	if (code < 0x20 || (code >= 0x7f && code < 0xa0))
		return false;
	return code != 0x2028 && code != 0x2029 && code != 0xfeff && (code & 0xfffe) != 0xfffe;
}

static void print_quoted(FILE *out, const char *text, size_t len)
{
	const char *end = text + len;

	fputc('"', out);
	while (text < end) {
		uint32_t code = 0;
		unsigned n = wd_utf8_decode(text, &code);

		if (n == 0) { /* YAML cannot say it: a file name of another encoding */
			n = 1;
			fprintf(out, "\\x%02x", (unsigned char)*text);
		} else if (code == '"' || code == '\\') {
			fprintf(out, "\\%c", (int)code);
		} else if (is_safe(code)) {
			fwrite(text, 1, n, out);
		} else {
			fprintf(out, "\\U%08x", code);
		}
		text += n;
	}
	fputc('"', out);
}

static void print_list(FILE *out, const char *list)
{
	const char *between = "";

	fputc('[', out);
	while (*list) {
		size_t len = strcspn(list, "\n");

		fputs(between, out);
		print_quoted(out, list, len);
		between = ", ";
		list += len + (list[len] == '\n');
	}
	fputc(']', out);
}

static void print_help(FILE *out, const struct wd_config_key *key)
{
	char least[32], most[32];
	const char *line = key->help ? key->help : "";

	while (*line) {
		int len = (int)strcspn(line, "\n");

		fprintf(out, "# %.*s\n", len, line);
		line += len + (line[len] == '\n');
	}
	if (is_text(key) || (key->min == 0 && key->max == 0))
		return;
	print_exact(least, sizeof(least), key->min, key->type);
	print_exact(most, sizeof(most), key->max, key->type);
	fprintf(out, "# (%s to %s)\n", least, most);
}

void wd_config_print(const struct wd_config_key *keys, const void *const_values, FILE *out)
{
	void *values =
		(void *)const_values; /* the accessors serve writers too; nothing is written */

	for (const struct wd_config_key *key = keys; key->name; key++) {
		const char *text = is_text(key) ? *text_at(key, values) : NULL;
		char number[32];

		if (key != keys)
			fputc('\n', out);
		print_help(out, key);
		/* what is not set stays a comment, so that reading this back changes nothing */
		fprintf(out, "%s%s: ", is_text(key) && !text ? "# " : "", key->name);
		if (key->type == WD_CONFIG_BOOL) {
			fputs(*bool_at(key, values) ? "true" : "false", out);
		} else if (key->type == WD_CONFIG_LIST) {
			print_list(out, text ? text : "");
		} else if (key->type == WD_CONFIG_STRING) {
			print_quoted(out, text ? text : "", text ? strlen(text) : 0);
		} else {
			print_exact(number, sizeof(number), *number_at(key, values), key->type);
			fputs(number, out);
		}
		fputc('\n', out);
	}
}
