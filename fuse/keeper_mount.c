/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a mount.
 *
 *	request -> ASKED -- agreed --> STARTING -- server ready --> SERVING
 *	             |                     |                           | umount
 *	             +-- refused, failed --+--> undone, answered       v
 *	                                    forgotten <-- reaped -- ENDING
 *
 * The keeper holds the fuse fd and both memfds for as long as the mount lives, so that servers may
 * die (keeper_death.c).
 */
#include "fuse/keeper.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/lock.h"
#include "common/log.h"
#include "common/mountmem.h"
#include "fuse/keeper_kernel.h"

#define MS 1000000LL
#define UNDO_NS (100 * MS)
#define UNDO_TRIES 100
#define END_PATIENCE_NS (2000 * MS) /* from SIGTERM to SIGKILL */

struct mount *mount_by_id(struct keeper *k, uint64_t id)
{
	struct mount *m = k->mounts;

	while (m && m->id != id)
		m = m->next;
	return m;
}

static struct mount *mount_by_target(struct keeper *k, const char *target)
{
	struct mount *m = k->mounts;

	while (m && (strcmp(m->target, target) != 0 || m->state == MOUNT_LINGERING))
		m = m->next;
	return m;
}

/* The mount that target lies in or on: resolving such a path might wait for our own server. */
static struct mount *mount_above(struct keeper *k, const char *target)
{
	for (struct mount *m = k->mounts; m; m = m->next) {
		size_t len = strlen(m->target);

		if (m->state != MOUNT_LINGERING && strncmp(m->target, target, len) == 0 &&
			(target[len] == '\0' || target[len] == '/'))
			return m;
	}
	return NULL;
}

void mount_free(struct mount *m)
{
	int fds[] = {m->fuse_fd, m->info_fd, m->tables_fd, m->description_fd, m->record_fd,
		m->first_end};

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	program_forget(m);
	free(m->target);
	free(m->dataset);
	free(m);
}

/* Takes the mount out of everything; its server is dead. */
static void forget(struct keeper *k, struct mount *m)
{
	struct mount **at = &k->mounts;

	holders_unhold(k, m);
	renew_lost(k, m);
	agent_mount_gone(k, m);
	record_remove(k, m);
	standby_cancel(k, m);
	source_close(k, &m->process);
	source_close(k, &m->control);
	source_close(k, &m->former);
	while (*at != m)
		at = &(*at)->next;
	*at = m->next;
	k->nmounts--;
	mount_free(m);
}

static void answer(struct keeper *k, struct mount *m, struct wd_err *err)
{
	uint64_t client = m->client;

	m->client = 0;
	if (client)
		client_reply(k, client, err, m->request_type, m->request);
}

static void answer_good(struct keeper *k, struct mount *m)
{
	if (!m->client)
		return;
	wd_msg_start_reply(&k->out, m->request_type, m->request, 0);
	if (m->request_type == WD_MSG_MOUNT) {
		wd_put_u64(&k->out, m->id);
		wd_put_str(&k->out, m->dataset);
	}
	answer(k, m, NULL);
}

void mount_over(struct keeper *k, struct mount *m)
{
	answer_good(k, m);
	forget(k, m);
}

/* ---- mounting ---- */

struct mount *mount_new(const char *target)
{
	struct mount *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->fuse_fd = m->info_fd = m->tables_fd = m->description_fd = m->record_fd = -1;
	m->first_end = m->control.fd = m->process.fd = m->former.fd = -1;
	standby_init(m);
	m->target = strdup(target);
	if (!m->target) {
		mount_free(m);
		return NULL;
	}
	return m;
}

void mount_enlist(struct keeper *k, struct mount *m)
{
	m->next = k->mounts;
	k->mounts = m;
	k->nmounts++;
	k->had_mounts = true;
}

bool mount_stands(const struct mount *m)
{
	return m->state == MOUNT_SERVING || m->state == MOUNT_LINGERING;
}

int mount_request(struct keeper *k, uint64_t client, uint64_t request, const char *target,
	const void *description, size_t len, struct wd_err *err)
{
	struct mount *m = mount_above(k, target);
	int rc;

	if (m)
		return wd_err_set(err, EBUSY, "mount on '%s': '%s' is a WarpDrive mount already",
			target, m->target);
	if (len > WD_DESCRIPTION_MAX)
		return wd_err_set(err, E2BIG,
			"mount on '%s': the description has %zu bytes, at most %d "
			"are possible",
			target, len, WD_DESCRIPTION_MAX);
	if (k->nmounts >= KEEPER_MOUNTS_MAX)
		return wd_err_set(err, ENOSPC, "mount on '%s': there are %u mounts already", target,
			k->nmounts);
	rc = kernel_open_target(target, err);
	if (rc == -EBUSY) { /* by a mount that was lost, perhaps */
		records_sweep(k);
		rc = kernel_open_target(target, err);
	}
	if (rc < 0)
		return rc;
	close(rc); /* opened again when the agent has agreed: that may take long */
	rc = agent_connect(k, err);
	if (rc < 0) {
		wd_err_wrap(err, "mount on '%s'", target);
		return rc;
	}
	m = mount_new(target);
	if (!m)
		return wd_err_set(err, ENOMEM, "mount on '%s': out of memory", target);
	rc = m->fuse_fd = kernel_open_fuse(err);
	if (rc >= 0)
		rc = m->tables_fd = wd_mm_create(err);
	if (rc >= 0)
		rc = m->description_fd = wd_description_make(description, len, err);
	if (rc < 0) {
		mount_free(m);
		return rc;
	}
	/* ids are not reused by the next keeper: the agent may still know the last one's */
	m->id = ((uint64_t)wd_now_ns() << 8 | (++k->next_id & 0xff)) >> 1;
	m->client = client;
	m->request = request;
	m->request_type = WD_MSG_MOUNT;
	mount_enlist(k, m);
	agent_pump(k);
	return 0;
}

static int mount_in_kernel(struct keeper *k, struct mount *m, struct wd_err *err)
{
	struct wd_mm_info info = {.mount = m->id};
	wd_autoclose int target_fd = -1;
	struct wd_err soft = WD_ERR_INIT;
	int rc;

	target_fd = kernel_open_target(m->target, err);
	if (target_fd < 0)
		return target_fd;
	rc = kernel_mount(m->fuse_fd, target_fd, m->target, m->dataset, m->flags, err);
	if (rc < 0)
		return rc;
	m->is_mounted = true;
	rc = kernel_device(m->target, &m->major, &m->minor, err);
	if (rc == 0)
		rc = kernel_init(m->fuse_fd, m->flags, &info, err);
	if (rc == 0 && WD_FAULT("keeper.mount"))
		rc = wd_err_set(err, EIO, "fault point keeper.mount");
	if (rc < 0)
		return rc;
	if (k->is_resend_off)
		info.has_resend = 0;
	m->info_fd = wd_mm_info_create(&info, err);
	if (m->info_fd < 0)
		return m->info_fd;
	m->record_fd = record_make(k, m, err);
	if (m->record_fd < 0)
		return m->record_fd;
	if (k->read_ahead > 0 &&
		kernel_set_read_ahead(m->major, m->minor, k->read_ahead, &soft) < 0)
		wd_warn("read-ahead of '%s' stays at its default: %s", m->target, soft.msg);
	return 0;
}

void mount_agreed(struct keeper *k, struct mount *m)
{
	struct wd_err err = WD_ERR_INIT;
	int rc = m->dataset ? 0 : wd_err_set(&err, ENOMEM, "out of memory");

	if (rc == 0)
		rc = mount_in_kernel(k, m, &err);
	if (rc == 0) {
		m->state = MOUNT_STARTING;
		m->down_since_ns = wd_now_ns();
		rc = server_start(k, m, &err);
	}
	if (rc < 0)
		mount_fail(k, m, &err);
}

void mount_server_ready(struct keeper *k, struct mount *m)
{
	server_go(k, m);
	if (m->state != MOUNT_STARTING)
		return;
	m->state = MOUNT_SERVING;
	wd_info("mounted '%s' on '%s'", m->dataset, m->target);
	holders_pump(k); /* who asked may count on it: the deposits are on their way */
	answer_good(k, m);
}

/* ---- unmounting ---- */

/* The kernel's part is done: ends the server, and forgets the mount once it is reaped. */
static void end(struct keeper *k, struct mount *m)
{
	m->is_mounted = false;
	m->restart_at_ns = 0;
	standby_cancel(k, m);
	if (m->pid == 0) {
		mount_over(k, m);
		return;
	}
	if (!kernel_is_disconnected(m->fuse_fd)) {
		wd_info("'%s' is still mounted in another mount namespace; its server goes on",
			m->target);
		m->state = MOUNT_LINGERING;
		answer_good(k, m);
		return;
	}
	m->state = MOUNT_ENDING;
	kill(m->pid, SIGTERM);
	m->kill_at_ns = wd_now_ns() + END_PATIENCE_NS;
}

static int unmount(struct keeper *k, struct mount *m, struct wd_err *err)
{
	int rc = kernel_umount(m->target, m->major, m->minor, err);

	if (rc < 0 && rc != -EINVAL)
		return rc;
	if (rc == 0)
		wd_info("unmounted '%s'", m->target);
	end(k, m);
	return 0;
}

/* Unmounts what failed. Somebody may have come in meanwhile and wait for a server that will not be:
 * they are sent away first, and may take a moment to leave. */
static bool undo(struct mount *m)
{
	struct wd_err err = WD_ERR_INIT;
	int rc = kernel_umount(m->target, m->major, m->minor, &err);

	m->undo_at_ns = 0;
	if (rc == -EBUSY && m->undo_tries == 0 && kernel_abort(m->major, m->minor, NULL) == 0)
		rc = kernel_umount(m->target, m->major, m->minor, &err);
	if (rc == 0 || rc == -EINVAL) {
		m->is_mounted = false;
		return true;
	}
	if (++m->undo_tries < UNDO_TRIES)
		m->undo_at_ns = wd_now_ns() + UNDO_NS;
	else
		wd_error("%s", err.msg);
	return false;
}

void mount_fail(struct keeper *k, struct mount *m, struct wd_err *err)
{
	m->restart_at_ns = 0;
	standby_cancel(k, m);
	if (m->pid > 0)
		kill(m->pid, SIGKILL);
	m->state = m->is_mounted && !undo(m) ? MOUNT_LOST : MOUNT_ENDING;
	answer(k, m, err);
	if (m->state == MOUNT_ENDING && m->pid == 0)
		forget(k, m);
}

int mount_request_umount(struct keeper *k, uint64_t client, uint64_t request, const char *target,
	uint32_t flags, struct wd_err *err)
{
	struct mount *m = mount_by_target(k, target);
	int rc;

	if (!m)
		return wd_err_set(
			err, ENOENT, "umount '%s': it is no mount of this keeper", target);
	if (flags & WD_UMOUNT_FORCE)
		return wd_err_set(err, ENOTSUP,
			"umount '%s': forcing is not supported; end the processes "
			"that use it ('fuser -vm %s' lists them)",
			target, target);
	if (m->client || m->state == MOUNT_ASKED || m->state == MOUNT_ENDING)
		return wd_err_set(err, EALREADY,
			"umount '%s': it is being mounted or unmounted just now", target);
	m->client = client;
	m->request = request;
	m->request_type = WD_MSG_UMOUNT;
	rc = unmount(k, m, err);
	if (rc < 0)
		m->client = 0;
	return rc;
}

/* ---- what else happens ---- */

void mount_client_gone(struct keeper *k, uint64_t client)
{
	for (struct mount *m = k->mounts, *next; m; m = next) {
		struct wd_err err = WD_ERR_INIT;

		next = m->next;
		if (m->client != client)
			continue;
		m->client = 0;
		if (m->state == MOUNT_ASKED || m->state == MOUNT_STARTING) {
			wd_info("who asked for the mount on '%s' is gone; it is undone", m->target);
			wd_err_set(&err, ECANCELED, "cancelled");
			mount_fail(k, m, &err);
		}
	}
}

static void note_deadline(int64_t deadline, int64_t *next)
{
	if (deadline && deadline < *next)
		*next = deadline;
}

void mount_timers(struct keeper *k, int64_t now_ns, int64_t *ret_next)
{
	for (struct mount *m = k->mounts, *next; m; m = next) {
		next = m->next;
		if (m->undo_at_ns && now_ns >= m->undo_at_ns && undo(m)) {
			m->state = MOUNT_ENDING;
			if (m->pid == 0) {
				forget(k, m);
				continue;
			}
		}
		if (mount_give_up_at(k, m) && now_ns >= mount_give_up_at(k, m)) {
			mount_give_up(k, m); /* may forget it */
			*ret_next = now_ns;
			continue;
		}
		if (m->restart_at_ns && now_ns >= m->restart_at_ns)
			mount_restart(k, m);
		if (m->kill_at_ns && now_ns >= m->kill_at_ns) {
			m->kill_at_ns = 0;
			if (m->pid > 0)
				kill(m->pid, SIGKILL);
		}
		note_deadline(mount_give_up_at(k, m), ret_next);
		note_deadline(m->restart_at_ns, ret_next);
		note_deadline(m->kill_at_ns, ret_next);
		note_deadline(m->undo_at_ns, ret_next);
	}
}

void mounts_stop(struct keeper *k, bool is_all)
{
	for (struct mount *m = k->mounts, *next; m; m = next) {
		struct wd_err err = WD_ERR_INIT;

		next = m->next;
		switch (m->state) {
		case MOUNT_ASKED:
		case MOUNT_STARTING:
			wd_err_set(&err, ECANCELED, "mount on '%s': the keeper is stopping",
				m->target);
			mount_fail(k, m, &err);
			break;
		case MOUNT_SERVING:
			if (!is_all)
				break;
			/* fall through */
		case MOUNT_LOST:
			if (unmount(k, m, &err) < 0)
				wd_debug("%s", err.msg);
			break;
		case MOUNT_LINGERING:
		case MOUNT_ENDING:
			break;
		}
	}
}
