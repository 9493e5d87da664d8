/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_RPC_TEXT_H
#define WD_COMMON_RPC_TEXT_H
/*
 * The strings of an encoded protobuf message, checked on the wire. protobuf-c hands out whatever
 * bytes arrive, and a NUL in the middle cuts a string short without a word: an id that was checked
 * would not be the id that was sent. Pure; any thread.
 */
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

/* The name of the first string field, at any depth, whose bytes are not UTF-8 or hold a NUL; NULL
 * when there is none. A message that is malformed otherwise is left for the decoder to refuse. */
const char *rpc_find_bad_text(const ProtobufCMessageDescriptor *d, const unsigned char *bytes, size_t len);

#endif
