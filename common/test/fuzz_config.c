/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer target: a configuration file. What is accepted must print, read back and print the
 * same; what is refused must say why and leave values that can be freed.
 */
#include "common/config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct values {
	bool b;
	int64_t i, s, d;
	char *t, *l;
};

static const struct wd_config_key keys[] = {
	{"b", WD_CONFIG_BOOL, offsetof(struct values, b), 0, 0, "true", "help"},
	{"i", WD_CONFIG_INT, offsetof(struct values, i), 0, 0, NULL, "help"},
	{"s", WD_CONFIG_SIZE, offsetof(struct values, s), 0, 0, "1GiB", NULL},
	{"d", WD_CONFIG_DURATION, offsetof(struct values, d), 0, 3600000, "1s", "help"},
	{"t", WD_CONFIG_STRING, offsetof(struct values, t), 0, 0, NULL, "help"},
	{"l", WD_CONFIG_LIST, offsetof(struct values, l), 0, 0, "a,b", "help"},
	{.name = NULL},
};

static void require(bool is_so)
{
	if (!is_so)
		abort();
}

static char *print(const struct values *v)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	require(out != NULL);
	wd_config_print(keys, v, out);
	fclose(out);
	return text;
}

static void read_back(const struct values *v)
{
	struct values w;
	char *text = print(v), *again;

	require(wd_config_defaults(keys, &w, NULL) == 0);
	require(wd_config_read_text(keys, &w, "again", text, strlen(text), NULL) == 0);
	again = print(&w);
	require(strcmp(text, again) == 0);
	wd_config_free(keys, &w);
	free(text);
	free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wd_err err = WD_ERR_INIT;
	char *text = malloc(size + 1), out[16];
	struct values v;
	int64_t n;

	require(text && wd_config_defaults(keys, &v, &err) == 0);
	memcpy(text, data, size);
	text[size] = '\0';
	if (wd_config_read_text(keys, &v, "fuzz", text, size, &err) == 0)
		read_back(&v);
	else
		require(err.code > 0 && strncmp(err.msg, "fuzz:", 5) == 0);
	if (wd_parse_size(text, &n) == 0)
		require(n >= 0 && wd_format_size((uint64_t)n, out, sizeof(out)) == out);
	if (wd_parse_duration(text, &n) == 0)
		require(n >= 0);
	wd_config_set(keys, &v, "l", text, &err);
	wd_config_free(keys, &v);
	free(text);
	return 0;
}
