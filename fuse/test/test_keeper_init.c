/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/proto.h"
#include "fuse/fuse_abi.h"
#include "fuse/keeper_init.h"

struct request {
	struct abi_in_header header;
	struct abi_init_in init;
};

static struct request make(uint64_t flags)
{
	struct request r = {
		.header = {.len = sizeof(r), .opcode = ABI_OP_INIT, .unique = 2},
		.init = {.major = 7,
			.minor = 44,
			.max_readahead = 131072,
			.flags = (uint32_t)flags,
			.flags2 = (uint32_t)(flags >> 32)},
	};

	return r;
}

static struct abi_init_out reply_of(const struct wd_mm_info *info)
{
	struct abi_init_out reply;

	assert_int_equal(info->reply_len, sizeof(struct abi_out_header) + sizeof(reply));
	memcpy(&reply, info->reply + sizeof(struct abi_out_header), sizeof(reply));
	return reply;
}

static uint64_t granted(const struct wd_mm_info *info)
{
	struct abi_init_out reply = reply_of(info);

	return reply.flags | (uint64_t)reply.flags2 << 32;
}

static void a_new_kernel_grants_everything_that_is_wanted(void **state)
{
	struct request r = make(~0ULL);
	struct wd_mm_info info = {0};
	struct abi_init_out reply;
	struct abi_out_header out;

	assert_int_equal(init_answer(&r, sizeof(r), WD_MOUNT_READ_ONLY, &info, NULL), 0);
	reply = reply_of(&info);
	memcpy(&out, info.reply, sizeof(out));
	assert_int_equal(out.unique, 2);
	assert_int_equal(out.len, info.reply_len);
	assert_int_equal(out.error, 0);
	assert_int_equal(info.init_len, sizeof(r));
	assert_memory_equal(info.init, &r, sizeof(r));
	assert_int_equal(info.has_resend, 1);
	assert_int_equal(reply.max_write, 4096);
	assert_int_equal(reply.max_pages * sysconf(_SC_PAGESIZE), 1 << 20);
	assert_int_equal(reply.max_background, 1024);
	assert_int_equal(reply.congestion_threshold, 768);
	assert_int_equal(reply.max_readahead, 131072);
	assert_int_equal(reply.max_stack_depth, 1);
	assert_int_equal(reply.minor, 40);
	assert_true(granted(&info) & ABI_PASSTHROUGH);
	assert_true(granted(&info) & ABI_EXPLICIT_INVAL_DATA);
	assert_true(granted(&info) & ABI_ALLOW_IDMAP);
	/* AUTO_INVAL_DATA, WRITEBACK_CACHE, NO_OPENDIR_SUPPORT, EXPORT_SUPPORT */
	assert_false(granted(&info) & (1ULL << 12 | 1ULL << 16 | 1ULL << 24 | 1ULL << 4));
}

static void nothing_is_taken_that_was_not_offered(void **state)
{
	unsigned seed = 99;

	for (int i = 0; i < 1000; i++) {
		uint64_t flags = (uint64_t)rand_r(&seed) << 33 ^ (uint64_t)rand_r(&seed) << 5 ^
				 (uint64_t)rand_r(&seed);
		struct request r = make(flags);
		uint64_t offered = flags & ABI_INIT_EXT ? flags : (uint32_t)flags;
		struct wd_mm_info info = {0};

		assert_int_equal(init_answer(&r, sizeof(r), 0, &info, NULL), 0);
		assert_int_equal(granted(&info) & ~offered, 0);
		assert_int_equal(info.has_resend, (offered & ABI_HAS_RESEND) != 0);
		assert_int_equal(
			reply_of(&info).max_stack_depth, (granted(&info) & ABI_PASSTHROUGH) != 0);
	}
}

static void passthrough_can_be_refused(void **state)
{
	struct request r = make(~0ULL);
	struct wd_mm_info info = {0};

	assert_int_equal(init_answer(&r, sizeof(r), WD_MOUNT_NO_PASSTHROUGH, &info, NULL), 0);
	assert_false(granted(&info) & ABI_PASSTHROUGH);
	assert_int_equal(reply_of(&info).max_stack_depth, 0);
}

static void an_older_kernels_short_request_is_answered(void **state)
{
	struct request r = make((1ULL << 22) | 1);
	struct wd_mm_info info = {0};
	size_t len = sizeof(r.header) + ABI_INIT_IN_OLD;

	r.header.len = (uint32_t)len;
	r.init.minor = 31;
	assert_int_equal(init_answer(&r, len, 0, &info, NULL), 0);
	assert_int_equal(granted(&info), (1ULL << 22) | 1);
	assert_int_equal(reply_of(&info).minor, 31);
	assert_int_equal(info.has_resend, 0);
}

static void what_is_no_init_is_refused(void **state)
{
	struct request r = make(~0ULL);
	struct wd_mm_info info = {.mount = 5};
	struct wd_err err = WD_ERR_INIT;

	assert_int_equal(init_answer(&r, 20, 0, &info, &err), -EPROTO);
	assert_int_equal(init_answer(&r, 5000, 0, &info, &err), -EPROTO);
	r.header.len--;
	assert_int_equal(init_answer(&r, sizeof(r), 0, &info, &err), -EPROTO);
	r.header.len++;
	r.header.opcode = 3;
	assert_int_equal(init_answer(&r, sizeof(r), 0, &info, &err), -EPROTO);
	r.header.opcode = ABI_OP_INIT;
	r.init.major = 6;
	assert_int_equal(init_answer(&r, sizeof(r), 0, &info, &err), -EPROTONOSUPPORT);
	r.init.major = 7;
	r.init.minor = 12;
	assert_int_equal(init_answer(&r, sizeof(r), 0, &info, &err), -EPROTONOSUPPORT);
	assert_int_equal(info.reply_len, 0);
	assert_int_equal(info.mount, 5);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_new_kernel_grants_everything_that_is_wanted),
		cmocka_unit_test(nothing_is_taken_that_was_not_offered),
		cmocka_unit_test(passthrough_can_be_refused),
		cmocka_unit_test(an_older_kernels_short_request_is_answered),
		cmocka_unit_test(what_is_no_init_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
