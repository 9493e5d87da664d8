/* SPDX-License-Identifier: Apache-2.0 */
/* The page of a whole agent, asked for as a browser does: what is cached is shown where it is in the dataset. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <cmocka.h>

#include "agent/test/agent_fixture.h"

#define BLOCK (256 * 1024)
#define BLOCKS 128

static struct rig rig;
static struct rig_mount mnt;
static struct wd_msg msg;
static int last = -1; /* a connection that is open when the agent ends */
static struct sockaddr_in address = {.sin_family = AF_INET};

static int start(void **state)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(address);
	char listen[64];

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) < 0 ||
		getsockname(fd, (struct sockaddr *)&address, &len) < 0)
		rig_die("find a port");
	close(fd);
	snprintf(listen, sizeof(listen), "http-listen=127.0.0.1:%u", ntohs(address.sin_port));
	rig_start(&rig, listen, "small-object-size=0", "prefetch=off", "metadata-ttl=0", NULL);
	rig_file(&rig, "set/a", BLOCKS * BLOCK - 100);
	rig_mount(&rig, &mnt, 1, "set", "");
	return 0;
}

/* Sends a request and leaves the answer for later. */
static int ask(const char *path)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char text[256];
	int n = snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: localhost:1\r\nConnection: close\r\n\r\n", path);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(write(fd, text, (size_t)n), n);
	return fd;
}

/* All of the answer; the caller frees it. */
static char *answer(int fd)
{
	size_t len = 0, cap = 2 << 20;
	char *text = malloc(cap);
	ssize_t n;

	assert_non_null(text);
	while ((n = read(fd, text + len, cap - 1 - len)) > 0)
		len += (size_t)n;
	text[len] = '\0';
	close(fd);
	return text;
}

static int stop(void **state)
{
	rig_umount(&mnt);
	rig_stop(&rig);
	if (last >= 0)
		free(answer(last));
	return 0;
}

static void ensure(uint64_t node, uint64_t block, uint32_t blocks)
{
	uint64_t position;

	assert_int_equal(rig_ensure(&mnt, &msg, node, block * BLOCK, blocks * BLOCK, 0, &position), WD_ENSURE_PRESENT);
}

static void cached_part_is_shown_where_it_is(void **state)
{
	uint64_t node = 0, size = 0;
	char *text;

	assert_int_equal(rig_lookup(&mnt, &msg, RIG_ROOT, "a", &node), 0);
	assert_int_equal(rig_open(&mnt, &msg, node, 0, &size), WD_OPEN_CACHED);
	wd_msg_close_fds(&msg);
	ensure(node, 32, 32);
	text = answer(ask("/"));
	assert_non_null(strstr(text, "HTTP/1.1 200"));
	assert_non_null(strstr(text, "<b>25.0%</b> cached"));
	assert_non_null(strstr(text, "1 file known so far, 1 mount<"));
	assert_non_null(strstr(text, "viewBox=\"0 0 128 1\""));
	assert_non_null(strstr(text, "<rect class=\"fill\" x=\"32\" width=\"32\" height=\"1\" fill-opacity=\"1.00\"/>"));
	free(text);
}

static void many_who_ask_at_once_are_all_answered(void **state)
{
	int fds[40];
	unsigned good = 0;

	for (int i = 0; i < 40; i++)
		fds[i] = ask(i % 4 ? "/" : "/healthz");
	for (int i = 0; i < 40; i++) {
		char *text = answer(fds[i]);

		good += strstr(text, "HTTP/1.1 200") != NULL;
		free(text);
	}
	/* nobody waits for ever; more than wait at once get the page before, which the first test made */
	assert_int_equal(good, 40);
}

/* The agent ends with it (stop). */
static void one_who_waits_does_not_keep_the_agent(void **state)
{
	last = ask("/");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cached_part_is_shown_where_it_is),
		cmocka_unit_test(many_who_ask_at_once_are_all_answered),
		cmocka_unit_test(one_who_waits_does_not_keep_the_agent),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
