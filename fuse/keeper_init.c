/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers INIT in place of a server, so that the mount exists before any server does and every
 * server of its life meets the same terms.
 *
 * What we ask for and why: reads of up to 1 MiB (max_pages), while max_write stays at one page of
 * 4 KiB: nothing is written through a read-only mount, and the kernel insists that every receive
 * buffer has room for the largest write. max_background is far above libfuse's 12, because readers
 * of absent data hold their requests for as long as the origin takes and must not stop the others.
 * The kernel keeps pages across opens and never drops them on its own (EXPLICIT_INVAL_DATA): a node
 * id stands for one version of an object. Mounts may be idmapped (pods with hostUsers: false): the kernel
 * checks permissions (default_permissions), and servers do not look at who asks.
 */
#include "fuse/keeper_init.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/proto.h"
#include "fuse/fuse_abi.h"

#define MAX_READ_BYTES (1u << 20)
#define MAX_WRITE_BYTES 4096
#define MAX_BACKGROUND 1024
#define CONGESTION_THRESHOLD 768

static uint64_t wanted_flags(uint32_t mount_flags)
{
	uint64_t want = ABI_ASYNC_READ | ABI_BIG_WRITES | ABI_DO_READDIRPLUS |
			ABI_READDIRPLUS_AUTO | ABI_PARALLEL_DIROPS | ABI_MAX_PAGES |
			ABI_CACHE_SYMLINKS | ABI_EXPLICIT_INVAL_DATA | ABI_INIT_EXT |
			ABI_DIRECT_IO_ALLOW_MMAP | ABI_HAS_RESEND | ABI_ALLOW_IDMAP;

	if (!(mount_flags & WD_MOUNT_NO_PASSTHROUGH))
		want |= ABI_PASSTHROUGH;
	return want;
}

static void fill_reply(
	const struct abi_init_in *in, uint64_t flags, uint64_t unique, struct wd_mm_info *info)
{
	uint32_t pages = MAX_READ_BYTES / (uint32_t)sysconf(_SC_PAGESIZE);
	struct abi_out_header out = {
		.len = sizeof(out) + sizeof(struct abi_init_out), .unique = unique};
	struct abi_init_out reply = {
		.major = ABI_MAJOR,
		.minor = in->minor < ABI_MINOR ? in->minor : ABI_MINOR,
		.max_readahead = in->max_readahead,
		.flags = (uint32_t)flags,
		.flags2 = (uint32_t)(flags >> 32),
		.max_background = MAX_BACKGROUND,
		.congestion_threshold = CONGESTION_THRESHOLD,
		.max_write = MAX_WRITE_BYTES,
		.time_gran = 1,
		.max_pages = (uint16_t)(pages > 0 ? pages : 1),
		/* backing files lie on a plain file system; an overlay may lie above the mount */
		.max_stack_depth = flags & ABI_PASSTHROUGH ? 1 : 0,
	};

	memcpy(info->reply, &out, sizeof(out));
	memcpy(info->reply + sizeof(out), &reply, sizeof(reply));
	info->reply_len = out.len;
}

int init_answer(const void *request, size_t len, uint32_t mount_flags, struct wd_mm_info *ret_info,
	struct wd_err *err)
{
	struct abi_in_header header;
	struct abi_init_in in = {0};
	struct wd_mm_info info = *ret_info;
	uint64_t offered, granted;

	if (len < sizeof(header) + ABI_INIT_IN_OLD || len > sizeof(info.init))
		return wd_err_set(err, EPROTO, "answer the kernel's INIT: it has %zu bytes", len);
	memcpy(&header, request, sizeof(header));
	if (header.opcode != ABI_OP_INIT || header.len != len)
		return wd_err_set(err, EPROTO,
			"answer the kernel's INIT: the first request has opcode %u", header.opcode);
	len -= sizeof(header);
	memcpy(&in, (const char *)request + sizeof(header), len < sizeof(in) ? len : sizeof(in));
	if (in.major != ABI_MAJOR || in.minor < ABI_MINOR_MIN)
		return wd_err_set(err, EPROTONOSUPPORT,
			"the kernel speaks FUSE %u.%u; 7.%d or a later 7.x is needed", in.major,
			in.minor, ABI_MINOR_MIN);
	offered = in.flags;
	if (in.flags & ABI_INIT_EXT)
		offered |= (uint64_t)in.flags2 << 32;
	granted = offered & wanted_flags(mount_flags);
	memset(info.init, 0, sizeof(info.init));
	memcpy(info.init, request, header.len);
	info.init_len = header.len;
	info.mount_flags = mount_flags;
	info.has_resend = (granted & ABI_HAS_RESEND) != 0;
	fill_reply(&in, granted, header.unique, &info);
	*ret_info = info;
	return 0;
}
