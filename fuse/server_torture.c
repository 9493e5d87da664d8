/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests: allocations of the server that fail. Where there are fault points the program is linked
 * with --wrap for these, so that what our objects call lands here (what libfuse allocates for itself
 * does not), and server.malloc=@N lets the N-th allocation of a mount's first two servers fail.
 */
#include "fuse/server.h"

#ifdef WD_FAULTS

#include <errno.h>
#include <stdlib.h>

#include "common/fault.h"
#include "common/log.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);

static bool fails(void *at)
{
	/* the third server of a mount is let alone, or no mount would ever recover */
	if (server.mm.header && atomic_load(&server.mm.header->generation) > 1)
		return false;
	if (!WD_FAULT("server.malloc"))
		return false;
	wd_warn("an allocation fails at %p", at);
	errno = ENOMEM;
	return true;
}

void *__wrap_malloc(size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __real_calloc(n, size);
}

#endif
