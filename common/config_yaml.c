/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration files; the only user of libyaml.
 *
 * Only what a flat table can mean is taken from YAML: one document, one mapping, scalars and
 * sequences of scalars. Aliases, nesting and repeated keys are refused by line rather than guessed
 * at. The event interface is used: nothing is built that could grow beyond the text.
 *
 * Reading replaces values one by one: after an error the earlier ones have changed, and the struct
 * is still good for wd_config_free().
 */
#include "common/config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

#include "common/cleanup.h"
#include "common/config_internal.h"

#define FILE_MAX_BYTES (1 << 20)
#define KEYS_MAX 256

/* One reading of one text. */
struct reader {
	const struct wd_config_key *keys;
	void *values;
	const char *name; /* of the file */
	yaml_parser_t parser;
	yaml_event_t event; /* the current one; deleted before the next is fetched */
	bool has_event;
	bool seen[KEYS_MAX];
	struct wd_err *err;
};

static int at_line(struct reader *r, int rc)
{
	if (rc < 0)
		wd_err_wrap(r->err, "%s:%zu", r->name, r->event.start_mark.line + 1);
	return rc;
}

static int refuse(struct reader *r, const char *what)
{
	return at_line(r, wd_err_set(r->err, EINVAL, "%s", what));
}

/* Fetches the next event into r->event. */
static int next(struct reader *r)
{
	if (r->has_event)
		yaml_event_delete(&r->event);
	r->has_event = yaml_parser_parse(&r->parser, &r->event) != 0;
	if (r->has_event)
		return 0;
	if (r->parser.error == YAML_MEMORY_ERROR)
		return wd_err_set(r->err, ENOMEM, "%s: out of memory", r->name);
	if (r->parser.error == YAML_READER_ERROR)
		return wd_err_set(r->err, EINVAL, "%s: byte %zu: %s", r->name,
			r->parser.problem_offset, r->parser.problem);
	return wd_err_set(r->err, EINVAL, "%s:%zu: not YAML: %s", r->name,
		r->parser.problem_mark.line + 1,
		r->parser.problem ? r->parser.problem : "broken off");
}

/* The current event's text, which lives as long as the event. */
static int scalar(struct reader *r, const char **ret_text)
{
	const char *text = (const char *)r->event.data.scalar.value;
	bool is_plain;

	if (r->event.type == YAML_ALIAS_EVENT)
		return refuse(r, "aliases are not supported");
	if (r->event.type != YAML_SCALAR_EVENT)
		return refuse(r, "a plain value was expected, not a nested one");
	if (strlen(text) != r->event.data.scalar.length)
		return refuse(r, "a value cannot hold a NUL byte");
	is_plain = r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	if (is_plain && (*text == '\0' || strcmp(text, "~") == 0 || strcasecmp(text, "null") == 0))
		return refuse(r, "a value is missing (an empty one is \"\")");
	*ret_text = text;
	return 0;
}

static int read_sequence(struct reader *r, const struct wd_config_key *key)
{
	wd_autofree char *list = strdup("");
	size_t len = 0;
	int rc = 0;

	if (key->type != WD_CONFIG_LIST)
		return at_line(r, wd_err_set(r->err, EINVAL,
					  "%s: one value was expected, not a list", key->name));
	while (list && (rc = next(r)) == 0 && r->event.type != YAML_SEQUENCE_END_EVENT) {
		const char *item;
		char *grown;

		rc = scalar(r, &item);
		if (rc < 0)
			return rc;
		if (*item == '\0' || strchr(item, '\n'))
			return refuse(r, "an item must not be empty or hold a line break");
		grown = realloc(list, len + strlen(item) + 2);
		if (!grown)
			return refuse(r, "out of memory");
		list = grown;
		len += (size_t)sprintf(list + len, "%s%s", len ? "\n" : "", item);
	}
	return rc < 0 ? rc : wd_config_set_text(key, r->values, wd_steal_ptr(list), r->err);
}

static int read_value(struct reader *r, const struct wd_config_key *key)
{
	const char *text;
	int rc = next(r);

	if (rc < 0)
		return rc;
	if (r->event.type == YAML_SEQUENCE_START_EVENT)
		return read_sequence(r, key);
	rc = scalar(r, &text);
	return rc < 0 ? rc : at_line(r, wd_config_set_key(key, r->values, text, r->err));
}

static int read_mapping(struct reader *r)
{
	int rc;

	while ((rc = next(r)) == 0 && r->event.type != YAML_MAPPING_END_EVENT) {
		const struct wd_config_key *key;
		const char *name;

		rc = scalar(r, &name);
		if (rc < 0)
			return rc;
		key = wd_config_find_key(r->keys, name, r->err);
		if (!key)
			return at_line(r, -EINVAL);
		if (key - r->keys < KEYS_MAX) {
			if (r->seen[key - r->keys])
				return at_line(r,
					wd_err_set(r->err, EINVAL, "%s: given twice", key->name));
			r->seen[key - r->keys] = true;
		}
		rc = read_value(r, key);
		if (rc < 0)
			return rc;
	}
	return rc;
}

/* A document that is empty but for comments and markers says nothing, which is fine. */
static bool is_nothing(const yaml_event_t *event)
{
	return event->type == YAML_SCALAR_EVENT && event->data.scalar.length == 0 &&
	       event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

static int read_stream(struct reader *r)
{
	bool is_first = true;
	int rc;

	while ((rc = next(r)) == 0 && r->event.type != YAML_STREAM_END_EVENT) {
		if (r->event.type != YAML_DOCUMENT_START_EVENT)
			continue; /* the stream's start, a document's end */
		if (!is_first)
			return refuse(r, "a second document; one is expected");
		is_first = false;
		rc = next(r);
		if (rc == 0 && r->event.type == YAML_MAPPING_START_EVENT)
			rc = read_mapping(r);
		else if (rc == 0 && !is_nothing(&r->event))
			rc = refuse(r, "lines of 'key: value' were expected");
		if (rc < 0)
			return rc;
	}
	return rc;
}

int wd_config_read_text(const struct wd_config_key *keys, void *values, const char *name,
	const char *text, size_t len, struct wd_err *err)
{
	struct wd_err local = WD_ERR_INIT;
	struct reader r = {.keys = keys, .values = values, .name = name, .err = err ? err : &local};
	int rc;

	if (!yaml_parser_initialize(&r.parser))
		return wd_err_set(err, ENOMEM, "%s: out of memory", name);
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
	rc = read_stream(&r);
	if (r.has_event)
		yaml_event_delete(&r.event);
	yaml_parser_delete(&r.parser);
	return rc;
}

int wd_config_read_file(
	const struct wd_config_key *keys, void *values, const char *path, struct wd_err *err)
{
	wd_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
	wd_autofree char *text = malloc(FILE_MAX_BYTES + 1);
	size_t len = 0;

	if (fd < 0)
		return wd_err_sys(err, errno, "configuration '%s'", path);
	if (!text)
		return wd_err_set(err, ENOMEM, "configuration '%s': out of memory", path);
	while (len <= FILE_MAX_BYTES) {
		ssize_t n = read(fd, text + len, FILE_MAX_BYTES + 1 - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return wd_err_sys(err, errno, "configuration '%s'", path);
		if (n == 0)
			return wd_config_read_text(keys, values, path, text, len, err);
		len += (size_t)n;
	}
	return wd_err_set(err, EFBIG,
		"configuration '%s': longer than %d bytes; is it the right file?", path,
		FILE_MAX_BYTES);
}
