/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_FUSE_ABI_H
#define WD_FUSE_ABI_H
/*
 * The kernel's side of /dev/fuse as far as keeper and server speak it without libfuse: the numbers
 * and layouts of the FUSE protocol, version 7. The system's <linux/fuse.h> may be years older than
 * the running kernel, so what we need stands here.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

#define ABI_MAJOR 7
#define ABI_MINOR 40	 /* the newest minor whose rules we follow */
#define ABI_MINOR_MIN 23 /* Linux 3.15; older ones answer INIT in another layout */

/* INIT flags; the upper 32 travel in flags2 when ABI_INIT_EXT is set */
#define ABI_ASYNC_READ (1ULL << 0)
#define ABI_BIG_WRITES (1ULL << 5)
#define ABI_DO_READDIRPLUS (1ULL << 13)
#define ABI_READDIRPLUS_AUTO (1ULL << 14)
#define ABI_PARALLEL_DIROPS (1ULL << 18)
#define ABI_MAX_PAGES (1ULL << 22)
#define ABI_CACHE_SYMLINKS (1ULL << 23)
#define ABI_EXPLICIT_INVAL_DATA (1ULL << 25)
#define ABI_INIT_EXT (1ULL << 30)
#define ABI_DIRECT_IO_ALLOW_MMAP (1ULL << 36)
#define ABI_PASSTHROUGH (1ULL << 37)
#define ABI_HAS_RESEND (1ULL << 39)
#define ABI_ALLOW_IDMAP (1ULL << 40)

#define ABI_OP_FORGET 2
#define ABI_OP_OPEN 14
#define ABI_OP_READ 15
#define ABI_OP_RELEASE 18
#define ABI_OP_INIT 26
#define ABI_OP_INTERRUPT 36
#define ABI_OP_DESTROY 38
#define ABI_OP_BATCH_FORGET 42

#define ABI_NOTIFY_RESEND 7
#define ABI_UNIQUE_RESEND (1ULL << 63) /* set in the unique of a request that is sent again */

struct abi_in_header {
	uint32_t len, opcode;
	uint64_t unique, nodeid;
	uint32_t uid, gid, pid;
	uint16_t total_extlen, padding;
};

struct abi_out_header {
	uint32_t len;
	int32_t error;
	uint64_t unique;
};

struct abi_init_in {
	uint32_t major, minor, max_readahead, flags;
	uint32_t flags2, unused[11]; /* since 7.36 */
};
#define ABI_INIT_IN_OLD 16 /* bytes before 7.36 */

struct abi_init_out {
	uint32_t major, minor, max_readahead, flags;
	uint16_t max_background, congestion_threshold;
	uint32_t max_write, time_gran;
	uint16_t max_pages, map_alignment;
	uint32_t flags2, max_stack_depth;
	uint16_t request_timeout, unused[11];
};

struct abi_interrupt_in {
	uint64_t unique;
};

#define ABI_IOCTL_IN 32 /* bytes of fuse_ioctl_in, before what the kernel copied in */

struct abi_backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};
#define ABI_IOC_BACKING_OPEN _IOW(229, 1, struct abi_backing_map)
#define ABI_IOC_BACKING_CLOSE _IOW(229, 2, uint32_t)

_Static_assert(sizeof(struct abi_in_header) == 40, "layout of fuse_in_header");
_Static_assert(sizeof(struct abi_out_header) == 16, "layout of fuse_out_header");
_Static_assert(sizeof(struct abi_init_in) == 64, "layout of fuse_init_in");
_Static_assert(sizeof(struct abi_init_out) == 64, "layout of fuse_init_out");

#endif
