/* SPDX-License-Identifier: Apache-2.0 */
/* See rpc_text.h. The wire format: https://protobuf.dev/programming-guides/encoding/ */
#include "common/rpc_text.h"

#include <stdint.h>
#include <string.h>

#include "common/utf8.h"

#define DEPTH_MAX 16

struct wire {
	const unsigned char *p, *end;
};

static bool take_varint(struct wire *w, uint64_t *ret_value)
{
	*ret_value = 0;
	for (unsigned shift = 0; shift < 64 && w->p < w->end; shift += 7) {
		unsigned char byte = *w->p++;

		*ret_value |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return true;
	}
	return false;
}

static bool skip(struct wire *w, uint64_t n)
{
	if (n > (uint64_t)(w->end - w->p))
		return false;
	w->p += n;
	return true;
}

static bool is_text(const unsigned char *p, size_t len)
{
	char part[5] = "";

	while (len > 0) {
		size_t have = len < 4 ? len : 4;
		uint32_t code;
		unsigned n;

		memcpy(part, p, have);
		part[have] = '\0';
		n = *p ? wd_utf8_decode(part, &code) : 0;
		if (n == 0)
			return false;
		p += n;
		len -= n;
	}
	return true;
}

static const char *find(const ProtobufCMessageDescriptor *d, struct wire w, int depth)
{
	uint64_t tag, n;

	while (depth < DEPTH_MAX && take_varint(&w, &tag)) {
		const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field(d, (unsigned)(tag >> 3));
		const unsigned char *at;
		const char *bad = NULL;

		switch (tag & 7) {
		case 0:
			if (!take_varint(&w, &n))
				return NULL;
			continue;
		case 1:
			if (!skip(&w, 8))
				return NULL;
			continue;
		case 5:
			if (!skip(&w, 4))
				return NULL;
			continue;
		case 2:
			break;
		default:
			return NULL; /* groups: the decoder refuses them */
		}
		if (!take_varint(&w, &n))
			return NULL;
		at = w.p;
		if (!skip(&w, n))
			return NULL;
		if (f && f->type == PROTOBUF_C_TYPE_STRING && !is_text(at, (size_t)n))
			return f->name;
		if (f && f->type == PROTOBUF_C_TYPE_MESSAGE)
			bad = find(f->descriptor, (struct wire){at, at + n}, depth + 1);
		if (bad) /* of a map the map's name says more than "key" or "value" */
			return strcmp(bad, "key") == 0 || strcmp(bad, "value") == 0 ? f->name : bad;
	}
	return NULL;
}

const char *rpc_find_bad_text(const ProtobufCMessageDescriptor *d, const unsigned char *bytes, size_t len)
{
	return find(d, (struct wire){bytes, bytes + len}, 0);
}
