/* SPDX-License-Identifier: Apache-2.0 */
/* A strict decoder (RFC 3629). A continuation byte is never NUL, so it stops at the text's end. */
#include "common/utf8.h"

unsigned wd_utf8_decode(const char *p, uint32_t *ret_code)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	unsigned char first = (unsigned char)*p;
	unsigned len = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
	uint32_t code = first & (0x7fu >> len);

	if (first < 0x80) {
		*ret_code = first;
		return 1;
	}
	if (first < 0xc2 || first > 0xf4)
		return 0;
	for (unsigned i = 1; i < len; i++) {
		unsigned char c = (unsigned char)p[i];

		if ((c & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (c & 0x3f);
	}
	if (code < least[len] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		return 0;
	*ret_code = code;
	return len;
}

void wd_utf8_clean(char *text)
{
	for (char *p = text; *p;) {
		uint32_t c;
		unsigned len = wd_utf8_decode(p, &c);

		if (len == 0)
			*p = '?';
		p += len ? len : 1;
	}
}
