/* SPDX-License-Identifier: Apache-2.0 */
/* JSON values as YAML in block style. Scalars are those of JSON, which YAML reads as they are. */
#include <stdint.h>
#include <stdlib.h>

#include "warm-job/ctl_status.h"

static bool is_block(const json_t *value)
{
	return json_object_size(value) > 0 || json_array_size(value) > 0;
}

static void print_scalar(const json_t *value, FILE *out)
{
	char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);

	fprintf(out, "%s\n", text ? text : "null");
	free(text);
}

/* is_begun: the first line has its indent already, behind "- ". */
static void print_block(const json_t *value, int indent, bool is_begun, FILE *out)
{
	const char *key;
	json_t *item;
	size_t i;

	json_object_foreach((json_t *)(uintptr_t)value, key, item)
	{
		fprintf(out, "%*s%s:%s", is_begun ? 0 : indent, "", key, is_block(item) ? "\n" : " ");
		is_begun = false;
		if (is_block(item))
			print_block(item, indent + 2, false, out);
		else
			print_scalar(item, out);
	}
	json_array_foreach(value, i, item)
	{
		fprintf(out, "%*s- ", is_begun ? 0 : indent, "");
		is_begun = false;
		if (is_block(item))
			print_block(item, indent + 2, true, out);
		else
			print_scalar(item, out);
	}
}

void ctl_print_yaml(const json_t *root, FILE *out)
{
	if (is_block(root))
		print_block(root, 0, false, out);
	else
		print_scalar(root, out);
}
