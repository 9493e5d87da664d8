/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs of different releases that meet (mount_fixture.h).
 */
#include "fuse/test/mount_fixture.h"

static void an_agent_of_the_release_before_is_spoken_to_in_its_protocol(void **state)
{
	fake.version = WD_PROTO_OLDEST;
	do_mount("{}");
	set_auto();
	assert_reads_right(complete);
	assert_reads_right(late);
	kill(server_pid(), SIGKILL);
	assert_reads_right(bytes);
	do_umount();
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		PLAIN(an_agent_of_the_release_before_is_spoken_to_in_its_protocol),
	};

	return run_fixture(tests, sizeof(tests) / sizeof(tests[0]));
}
