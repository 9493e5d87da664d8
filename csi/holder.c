/* SPDX-License-Identifier: Apache-2.0 */
/* See holder.h. One poll of two descriptors: the signals', and the hold client's. */
#include "csi/holder.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/hold_client.h"
#include "common/log.h"

#define GIVE_UP_NS 300000000000 /* as keeper and agent do by default */

static void on_end(void *arg, const struct wd_deposit *d, enum wd_hold_end why)
{
	if (why == WD_HOLD_GIVEN_UP)
		wd_error("no keeper came back for '%s': it is held no longer, and whoever uses it gets errors",
			d->target);
}

static int watch_signals(struct wd_err *err)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? wd_err_sys(err, errno, "signalfd") : fd;
}

static void wait_and_hold(struct wd_hold_client *c, int signals, void (*stop)(void *arg), void *arg)
{
	struct pollfd fds[2] = {{.fd = signals, .events = POLLIN},
		{.fd = c ? wd_hold_client_fd(c) : -1, .events = POLLIN}};
	struct signalfd_siginfo info;

	for (;;) {
		if (poll(fds, 2, -1) < 0)
			continue;
		if (c)
			wd_hold_client_run(c);
		if (fds[0].revents && read(signals, &info, sizeof(info)) == sizeof(info)) {
			wd_info("ending: signal %u", info.ssi_signo);
			stop(arg);
			fds[0].fd = -1;
			if (c) {
				wd_hold_leave(&c->hold);
				wd_hold_client_run(c);
			}
		}
		if (fds[0].fd < 0 && (!c || wd_hold_may_leave(&c->hold)))
			return;
	}
}

int holder_run(const char *run_dir, void (*stop)(void *arg), void *arg, struct wd_err *err)
{
	struct wd_hold_client client = {.hold = {.on_end = on_end, .give_up_ns = GIVE_UP_NS}};
	wd_autoclose int signals = watch_signals(err);
	int rc = signals < 0 ? signals : 0;

	if (rc == 0 && run_dir)
		rc = wd_hold_client_start(&client, run_dir, WD_ROLE_CSI, err);
	if (rc == 0)
		wait_and_hold(run_dir ? &client : NULL, signals, stop, arg);
	else
		stop(arg);
	if (run_dir)
		wd_hold_client_stop(&client);
	return rc;
}
