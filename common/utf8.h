/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_UTF8_H
#define WD_COMMON_UTF8_H
/* Text of unknown origin, one character at a time. */
#include <stdint.h>

/* The bytes (1 to 4) of the well-formed UTF-8 character at p, its code point in *ret_code; 0 when
 * there is none: a broken or overlong sequence or a surrogate. `p` is NUL-terminated, and the NUL
 * itself is a character of one byte. */
unsigned wd_utf8_decode(const char *p, uint32_t *ret_code);

/* Puts a question mark in place of each byte that belongs to no character. */
void wd_utf8_clean(char *text);

#endif
