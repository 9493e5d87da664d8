/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_CLEANUP_H
#define WD_COMMON_CLEANUP_H
/*
 * Scope-exit cleanup: `wd_autofree char *s`, `wd_autoclose int fd = -1`. Hand a value over with
 * wd_steal_ptr / wd_steal_fd. A module that owns a type ships the macro beside its destructor.
 */
#include <stdlib.h>
#include <unistd.h>

static inline void wd_cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void wd_cleanup_close(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline int wd_steal_fd(int *fd)
{
	int stolen = *fd;

	*fd = -1;
	return stolen;
}

#define wd_autofree __attribute__((cleanup(wd_cleanup_free)))
#define wd_autoclose __attribute__((cleanup(wd_cleanup_close)))
#define wd_steal_ptr(p)                                                                            \
	({                                                                                         \
		__typeof__(p) stolen_ = (p);                                                       \
		(p) = NULL;                                                                        \
		stolen_;                                                                           \
	})

#endif
