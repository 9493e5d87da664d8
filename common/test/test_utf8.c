/* SPDX-License-Identifier: Apache-2.0 */
/* The decoder against every code point, and against what only looks like one. */
#include "common/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static unsigned encode(uint32_t c, char *out)
{
	unsigned len = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

	out[len] = '\0';
	for (unsigned i = len; i-- > 1; c >>= 6)
		out[i] = (char)(0x80 | (c & 0x3f));
	out[0] = (char)(len == 1 ? c : ((0xf00u >> len) & 0xff) | c);
	return len;
}

static void every_code_point_but_the_surrogates_comes_back(void **state)
{
	for (uint32_t c = 0; c < 0x110000; c++) {
		uint32_t code = UINT32_MAX;
		char text[5];
		unsigned len = encode(c, text), got = wd_utf8_decode(text, &code);

		if (c >= 0xd800 && c <= 0xdfff) {
			assert_int_equal(got, 0);
		} else {
			assert_int_equal(got, len);
			assert_int_equal(code, c);
		}
	}
}

static void broken_overlong_and_cut_sequences_are_none(void **state)
{
	static const char *const bad[] = {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc3", "\xc3(",
		"\xe0\x80\x80", "\xe0\x9f\xbf", "\xe2\x82", "\xe2", "\xe2(\x82", "\xf0\x80\x80\x80",
		"\xf0\x8f\xbf\xbf", "\xf0\x9f\x98", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xfe",
		"\xff"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		uint32_t code = 77;

		assert_int_equal(wd_utf8_decode(bad[i], &code), 0);
		assert_int_equal(code, 77);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_code_point_but_the_surrogates_comes_back),
		cmocka_unit_test(broken_overlong_and_cut_sequences_are_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
