/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backing ids for passthrough: only who may mount may register them with the kernel, so the agent sends its cache files
 * here. What it sends is checked, and it can only reach mounts.
 */
#include "fuse/keeper.h"

#include <errno.h>

#include "common/cleanup.h"
#include "fuse/keeper_kernel.h"

/* The mount that a brokering request means, or NULL after an error reply. */
static struct mount *brokered_mount(
	struct keeper *k, uint64_t mount, bool is_well_formed, struct wd_err *err)
{
	struct mount *m = is_well_formed ? mount_by_id(k, mount) : NULL;

	if (!is_well_formed)
		wd_err_set(err, EPROTO, "malformed request for a backing id");
	else if (!m || m->info_fd < 0 || m->state == MOUNT_ENDING)
		wd_err_set(err, ENOENT, "no mount %llu", (unsigned long long)mount);
	else
		return m;
	return NULL;
}

void backing_on_open(struct keeper *k)
{
	wd_autoclose int fd = wd_msg_take_fd(&k->in, 0);
	struct wd_err err = WD_ERR_INIT;
	struct wd_rd r = wd_rd_start(&k->in);
	uint64_t mount = wd_rd_u64(&r);
	struct mount *m = brokered_mount(k, mount, wd_rd_done(&r), &err);
	int id = -1;

	if (m && m->backings >= KEEPER_BACKINGS_MAX)
		wd_err_set(&err, ENFILE, "mount %llu has %u backing ids, the most there may be",
			(unsigned long long)mount, m->backings);
	else if (m)
		id = kernel_backing_open(m->fuse_fd, fd, &err);
	if (id < 0) {
		agent_send_error(k, WD_MSG_BACKING_OPEN, k->in.id, &err);
		return;
	}
	m->backings++;
	wd_msg_start_reply(&k->out, WD_MSG_BACKING_OPEN, k->in.id, 0);
	wd_put_u32(&k->out, (uint32_t)id);
	agent_send(k);
}

void backing_on_close(struct keeper *k)
{
	struct wd_err err = WD_ERR_INIT;
	struct wd_rd r = wd_rd_start(&k->in);
	uint64_t mount = wd_rd_u64(&r);
	uint32_t id = wd_rd_u32(&r);
	struct mount *m = brokered_mount(k, mount, wd_rd_done(&r), &err);

	if (!m || kernel_backing_close(m->fuse_fd, id, &err) < 0) {
		agent_send_error(k, WD_MSG_BACKING_CLOSE, k->in.id, &err);
		return;
	}
	if (m->backings > 0)
		m->backings--;
	wd_msg_start_reply(&k->out, WD_MSG_BACKING_CLOSE, k->in.id, 0);
	agent_send(k);
}
