/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_ARENA_H
#define WD_COMMON_ARENA_H
/*
 * Memory of one call: everything that a request, its handler and its response need is taken from
 * here and freed at once. A response may so point into its request. One thread at a time; what is
 * handed out is zeroed, since requests carry secrets and everything is wiped at the end too.
 */
#include <protobuf-c/protobuf-c.h>
#include <stddef.h>

#define ARENA_MAX (16u << 20) /* bytes of one call; more is refused: the request is at most 4 MiB */

struct arena {
	struct arena_chunk *chunks;
	size_t total; /* bytes in all chunks */
	ProtobufCAllocator allocator; /* for protobuf_c_message_unpack; its free does nothing */
};

void arena_init(struct arena *a);
/* Wipes and frees all of it. */
void arena_done(struct arena *a);
/* NULL when memory or ARENA_MAX is exhausted. */
void *arena_alloc(struct arena *a, size_t size);
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
