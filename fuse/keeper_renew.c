/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other credentials for a mount that stands: csi brings a description, the agent says what is to be kept in place of
 * the one before, and every holder gets it in a deposit. The keeper reads neither. One at a time for each mount; who
 * asks asks again, so nothing is kept for an agent that is away.
 */
#include "fuse/keeper.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"

static struct mount *standing_mount(struct keeper *k, const char *target)
{
	struct mount *m = k->mounts;

	while (m && (strcmp(m->target, target) != 0 || m->state != MOUNT_SERVING))
		m = m->next;
	return m;
}

int renew_request(struct keeper *k, uint64_t client, uint64_t request, const char *target,
	const void *description, size_t len, struct wd_err *err)
{
	struct mount *m = standing_mount(k, target);
	int rc;

	if (!m)
		return wd_err_set(err, ENOENT, "renew '%s': no mount stands there", target);
	if (len > WD_DESCRIPTION_MAX)
		return wd_err_set(err, E2BIG, "renew '%s': the description has %zu bytes, at most %d are possible",
			target, len, WD_DESCRIPTION_MAX);
	if (m->renew_id)
		return wd_err_set(err, EBUSY, "renew '%s': that is under way", target);
	if (k->agent_state != AGENT_CONNECTED || m->link != LINK_ADDED)
		return wd_err_set(err, ECONNREFUSED, "renew '%s': the agent is away", target);
	m->renew_id = ++k->next_id;
	wd_msg_start(&k->out, WD_MSG_MOUNT_RENEW, m->renew_id);
	wd_put_u64(&k->out, m->id);
	wd_put_bytes(&k->out, description, len);
	rc = agent_send(k);
	explicit_bzero(wd_msg_body(&k->out), k->out.len);
	if (rc < 0) {
		m->renew_id = 0;
		return wd_err_sys(err, -rc, "renew '%s': tell the agent", target);
	}
	m->renew_client = client;
	m->renew_request = request;
	return 0;
}

static void answer(struct keeper *k, struct mount *m, struct wd_err *err)
{
	m->renew_id = 0;
	if (!m->renew_client)
		return;
	if (!err)
		wd_msg_start_reply(&k->out, WD_MSG_RENEW, m->renew_request, 0);
	client_reply(k, m->renew_client, err, WD_MSG_RENEW, m->renew_request);
	m->renew_client = 0;
}

void renew_lost(struct keeper *k, struct mount *m)
{
	struct wd_err err = WD_ERR_INIT;

	if (!m->renew_id)
		return;
	wd_err_set(&err, ECONNRESET, "renew '%s': the agent went away", m->target);
	answer(k, m, &err);
}

void renew_client_gone(struct keeper *k, uint64_t client)
{
	for (struct mount *m = k->mounts; m; m = m->next)
		if (m->renew_client == client)
			m->renew_client = 0; /* the agent's answer counts all the same */
}

/* What the agent gave back takes the place of the description. */
static int keep(struct keeper *k, struct mount *m, const void *description, size_t len, struct wd_err *err)
{
	int fd = wd_description_make(description, len, err);

	if (fd < 0)
		return fd;
	close(m->description_fd);
	m->description_fd = fd;
	holders_deposit_again(k, m);
	return 0;
}

void renew_answered(struct keeper *k)
{
	struct wd_rd r = wd_rd_start(&k->in);
	struct wd_err err = WD_ERR_INIT;
	struct mount *m = k->mounts;
	const void *description;
	size_t len;
	int rc = 0;

	while (m && m->renew_id != k->in.id)
		m = m->next;
	if (!m)
		return; /* it has ended */
	if (k->in.status < 0) {
		agent_take_reason(&k->in, &err);
		answer(k, m, &err);
		return;
	}
	description = wd_rd_bytes(&r, &len);
	if (!wd_rd_done(&r))
		rc = wd_err_set(&err, EPROTO, "renew '%s': the agent's answer makes no sense", m->target);
	else if (len > 0)
		rc = keep(k, m, description, len, &err);
	explicit_bzero(wd_msg_body(&k->in), k->in.len);
	if (rc < 0)
		wd_error("%s", err.msg);
	answer(k, m, rc < 0 ? &err : NULL);
}
