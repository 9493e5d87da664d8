/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounts that an earlier keeper made. A holder offers what it kept; here it is checked and becomes
 * a mount like any other, for which a server is started and the kernel is asked to send again what
 * it waits for.
 *
 * A holder has fewer rights than the keeper and is not believed: the fuse fd must be one, of the
 * very connection that is mounted (where the kernel tells), the memfds must be sealed and be of
 * this mount. What a lie could still do, it does to the liar's mounts.
 *
 * Two servers must not work on one table. When the keeper alone was killed, its servers live and
 * serve: each has the tables locked, and the kernel says which process that is. Such a server is
 * killed, and the next one is started when its pidfd tells that it is dead: the same as any
 * replacement, which readers do not notice, and simpler than to win over somebody else's child.
 */
#include "fuse/keeper.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/lock.h"
#include "common/log.h"
#include "common/mountmem.h"
#include "fuse/keeper_kernel.h"
#include "common/mountinfo.h"

#define FUSE_MAJOR 10
#define FUSE_MINOR 229
#define LOOKS 16

/* The connection of a fuse fd, as its device number; 0 where the kernel does not say. */
static unsigned connection_of(int fuse_fd)
{
	char path[64], line[128];
	unsigned number = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fuse_fd);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "fuse_connection: %u", &number) == 1)
			break;
	if (f)
		fclose(f);
	return number;
}

static int check_fuse_fd(const struct wd_deposit *d, struct wd_err *err)
{
	int fd = d->fds[WD_DEPOSIT_FUSE];
	unsigned connection;
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode) || major(st.st_rdev) != FUSE_MAJOR ||
		minor(st.st_rdev) != FUSE_MINOR)
		return wd_err_set(err, EPROTO, "the first descriptor is not /dev/fuse");
	if (kernel_is_disconnected(fd))
		return wd_err_set(err, ENOENT, "the mount has ended");
	connection = connection_of(fd);
	if (connection && connection != (d->major << 20 | d->minor))
		return wd_err_set(err, EPROTO, "the fuse fd is of connection %u, not of %u:%u",
			connection, d->major, d->minor);
	return 0;
}

static int check(const struct wd_deposit *d, struct wd_mm_info *ret_info, uint32_t *ret_backings,
	struct wd_err *err)
{
	wd_autofree unsigned char *description = NULL;
	struct wd_mm mm = {.header = NULL};
	uint32_t backings = 0;
	size_t len;
	int rc = check_fuse_fd(d, err);

	if (rc == 0)
		rc = wd_mm_info_read(d->fds[WD_DEPOSIT_INFO], ret_info, err);
	if (rc == 0 && ret_info->mount != d->mount)
		rc = wd_err_set(err, EPROTO, "the info is of another mount");
	if (rc == 0)
		rc = wd_description_read(d->fds[WD_DEPOSIT_DESCRIPTION], &description, &len, err);
	if (description)
		explicit_bzero(description, len);
	if (rc == 0)
		rc = wd_mm_map(d->fds[WD_DEPOSIT_TABLES], &mm, err);
	if (rc < 0)
		return rc;
	for (uint32_t i = 0; i < mm.ninodes; i++)
		backings += mm.inodes[i].backing_id != 0;
	wd_mm_unmap(&mm);
	*ret_backings = backings < KEEPER_BACKINGS_MAX ? backings : KEEPER_BACKINGS_MAX;
	return 0;
}

static void take_fds(struct keeper *k, struct mount *m, struct wd_deposit *d)
{
	struct wd_err err = WD_ERR_INIT;

	m->fuse_fd = wd_steal_fd(&d->fds[WD_DEPOSIT_FUSE]);
	m->info_fd = wd_steal_fd(&d->fds[WD_DEPOSIT_INFO]);
	m->tables_fd = wd_steal_fd(&d->fds[WD_DEPOSIT_TABLES]);
	m->description_fd = wd_steal_fd(&d->fds[WD_DEPOSIT_DESCRIPTION]);
	if (record_is(k, m, d->fds[WD_DEPOSIT_RECORD]))
		m->record_fd = wd_steal_fd(&d->fds[WD_DEPOSIT_RECORD]);
	else
		m->record_fd = record_make(k, m, &err);
	if (m->record_fd < 0) { /* all that is lost is the cleaning up */
		wd_warn("%s", err.msg);
		m->record_fd = wd_steal_fd(&d->fds[WD_DEPOSIT_RECORD]);
	}
}

int adopt(struct keeper *k, struct wd_deposit *d, struct wd_err *err)
{
	struct mountinfo top;
	struct wd_mm_info info;
	uint32_t backings;
	struct mount *m;
	int rc = check(d, &info, &backings, err);

	if (rc < 0) {
		if (rc != -ENOENT)
			wd_error("the mount on '%s' is not taken back: %s", d->target, err->msg);
		return rc;
	}
	if (k->nmounts >= KEEPER_MOUNTS_MAX)
		return wd_err_set(err, ENOSPC, "there are %u mounts already", k->nmounts);
	m = mount_new(d->target);
	if (!m)
		return wd_err_set(err, ENOMEM, "out of memory");
	m->id = d->mount;
	m->flags = d->flags;
	m->major = d->major;
	m->minor = d->minor;
	m->dataset = wd_steal_ptr(d->dataset);
	m->backings = backings;
	take_fds(k, m, d);
	m->is_mounted = mountinfo_find(m->target, &top, NULL) > 0 &&
			(top.major == m->major ? top.minor == m->minor : false);
	/* alive, but not on top there: it lives on in another mount namespace, or under another
	 * mount */
	m->state = m->is_mounted ? MOUNT_SERVING : MOUNT_LINGERING;
	m->down_since_ns = m->stalled_since_ns = wd_now_ns(); /* if not longer */
	mount_enlist(k, m);
	wd_info("took back the mount of '%s' on '%s'", m->dataset, m->target);
	mount_restart(k, m);
	return 0;
}

/* ---- the former server ---- */

static void on_former(struct keeper *k, struct source *source)
{
	struct mount *m = (struct mount *)((char *)source - offsetof(struct mount, former));

	source_close(k, source);
	mount_restart(k, m);
}

/* A pidfd of the process that has the tables locked; -ESRCH when there is none. The pid may be used
 * again between two looks, but not by a process that has the lock. */
static int former_pidfd(int tables_fd, pid_t *ret_pid)
{
	for (int i = 0; i < LOOKS; i++) {
		pid_t pid = wd_deposit_server(tables_fd);
		int pidfd;

		if (pid == 0)
			return -ESRCH;
		if (pid <= 1 || pid == getpid())
			return -EPERM;
		pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
		if (pidfd >= 0 && wd_deposit_server(tables_fd) == pid) {
			*ret_pid = pid;
			return pidfd;
		}
		if (pidfd >= 0)
			close(pidfd);
	}
	return -EAGAIN;
}

bool adopt_former_lives(struct keeper *k, struct mount *m)
{
	wd_autoclose int pidfd = -1;
	struct wd_err err = WD_ERR_INIT;
	pid_t pid = 0;

	if (m->former.fd >= 0)
		return true;
	pidfd = former_pidfd(m->tables_fd, &pid);
	if (pidfd == -EPERM)
		wd_error("somebody whom the keeper cannot see serves '%s'", m->target);
	if (pidfd < 0)
		return false; /* should it live, the next server ends at once and is tried again */
	wd_info("ending the FUSE server %d of '%s', which another keeper started", (int)pid,
		m->target);
	syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
	if (source_watch(k, &m->former, pidfd, on_former, &err) < 0) {
		wd_error("%s", err.msg);
		return false;
	}
	wd_steal_fd(&pidfd);
	return true;
}
