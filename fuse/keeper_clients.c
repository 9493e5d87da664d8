/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keeper.sock: clients say hello, ask, and get one answer per request. The socket is root's alone
 * (mode 0600); a client that breaks the protocol or does not read its answers is dropped.
 */
#include "fuse/keeper.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"

static void client_drop(struct keeper *k, struct client *c)
{
	struct client **at = &k->clients;
	uint64_t id = c->id;

	if (holder_of(k, id) >= 0)
		holder_gone(k, holder_of(k, id));
	source_close(k, &c->source);
	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	k->nclients--;
	free(c);
	mount_client_gone(k, id);
	renew_client_gone(k, id);
}

void client_send(struct keeper *k, uint64_t client)
{
	struct client *c = k->clients;

	while (c && c->id != client)
		c = c->next;
	if (c && wd_msg_send(c->source.fd, &k->out, MSG_DONTWAIT) < 0)
		shutdown(c->source.fd, SHUT_RDWR); /* dropped when its end of file is read */
}

void client_reply(struct keeper *k, uint64_t client, struct wd_err *err, uint16_t type, uint64_t id)
{
	if (err) {
		wd_msg_start_reply(&k->out, type, id, err->code > 0 ? -err->code : -EIO);
		wd_put_str(&k->out, err->msg);
	}
	client_send(k, client);
}

static int on_hello(struct keeper *k, struct client *c, struct wd_err *err)
{
	struct wd_rd r = wd_rd_start(&k->in);
	uint32_t theirs = wd_rd_u32(&r), role = wd_rd_u32(&r), version = wd_proto_common(theirs);
	char build[64];

	if (!wd_rd_str(&r, build, sizeof(build)) || !wd_rd_done(&r))
		return wd_err_set(err, EPROTO, "malformed hello");
	if (role != WD_ROLE_CTL && role != WD_ROLE_CSI && role != WD_ROLE_SUPERVISOR)
		return wd_err_set(err, EPERM, "role %u has no business with the keeper", role);
	if (version == 0)
		return wd_err_set(err, EPROTONOSUPPORT,
			"the keeper (%s) speaks protocol version %d, not "
			"%u; use programs of one release",
			WD_VERSION, WD_PROTO_VERSION, theirs);
	c->role = role;
	c->version = version;
	wd_msg_start_reply(&k->out, WD_MSG_HELLO, k->in.id, 0);
	wd_put_u32(&k->out, version);
	wd_put_str(&k->out, WD_VERSION);
	client_reply(k, c->id, NULL, WD_MSG_HELLO, k->in.id);
	return 0;
}

static int on_mount(struct keeper *k, struct client *c, struct wd_err *err)
{
	struct wd_rd r = wd_rd_start(&k->in);
	char target[PATH_MAX];
	const void *description;
	uint32_t flags;
	size_t len;

	wd_rd_str(&r, target, sizeof(target));
	description = wd_rd_bytes(&r, &len);
	flags = wd_rd_u32(&r);
	if (!wd_rd_done(&r) || flags != 0)
		return wd_err_set(err, EPROTO, "malformed mount request");
	k->had_mounts = true; /* also when it fails: who started us for it has had an answer */
	if (k->is_stopping)
		return wd_err_set(err, ESHUTDOWN, "mount on '%s': the keeper is stopping", target);
	return mount_request(k, c->id, k->in.id, target, description, len, err);
}

static int on_renew(struct keeper *k, struct client *c, struct wd_err *err)
{
	struct wd_rd r = wd_rd_start(&k->in);
	char target[PATH_MAX];
	const void *description;
	size_t len;

	wd_rd_str(&r, target, sizeof(target));
	description = wd_rd_bytes(&r, &len);
	if (!wd_rd_done(&r))
		return wd_err_set(err, EPROTO, "malformed renew request");
	return renew_request(k, c->id, k->in.id, target, description, len, err);
}

static int on_umount(struct keeper *k, struct client *c, struct wd_err *err)
{
	struct wd_rd r = wd_rd_start(&k->in);
	char target[PATH_MAX];
	uint32_t flags;

	wd_rd_str(&r, target, sizeof(target));
	flags = wd_rd_u32(&r);
	if (!wd_rd_done(&r) || (flags & ~(uint32_t)WD_UMOUNT_FORCE))
		return wd_err_set(err, EPROTO, "malformed umount request");
	return mount_request_umount(k, c->id, k->in.id, target, flags, err);
}

static int on_status(struct keeper *k, struct client *c, struct wd_err *err)
{
	wd_autoclose int fd = -1;

	if (k->in.len != 0)
		return wd_err_set(err, EPROTO, "malformed status request");
	fd = status_memfd(k, err);
	if (fd < 0)
		return fd;
	wd_msg_start_reply(&k->out, WD_MSG_KEEPER_STATUS, k->in.id, 0);
	wd_put_fd(&k->out, fd);
	client_reply(k, c->id, NULL, WD_MSG_KEEPER_STATUS, k->in.id);
	return 0;
}

static int dispatch(struct keeper *k, struct client *c, struct wd_err *err)
{
	if (!c->role)
		return k->in.type == WD_MSG_HELLO ? on_hello(k, c, err)
						  : wd_err_set(err, EPROTO, "say hello first");
	switch (k->in.type) {
	case WD_MSG_MOUNT:
		return on_mount(k, c, err);
	case WD_MSG_RENEW:
		return on_renew(k, c, err);
	case WD_MSG_UMOUNT:
		return on_umount(k, c, err);
	case WD_MSG_KEEPER_STATUS:
		return on_status(k, c, err);
	default:
		return wd_err_set(
			err, EPROTO, "message type %u means nothing to the keeper", k->in.type);
	}
}

/* What only holders send: an offer begins it. False for other messages. */
static bool on_holder(struct keeper *k, struct client *c, int *ret_rc)
{
	int holder = holder_of(k, c->id);

	if (holder < 0 && c->version >= WD_PROTO_HOLDERS && (c->role == WD_ROLE_CSI || c->role == WD_ROLE_SUPERVISOR) &&
		(k->in.type == WD_MSG_OFFER || k->in.type == WD_MSG_OFFERED)) {
		holder = holder_begin(k, c->id);
		if (holder < 0) {
			wd_warn("more than %d holders at once; one is turned away",
				KEEPER_HOLDERS_MAX);
			*ret_rc = holder;
			return true;
		}
	}
	return holder >= 0 && holder_message(k, holder, ret_rc);
}

/* One message; -errno when the client is to be dropped. */
static int on_message(struct keeper *k, struct client *c)
{
	struct wd_err err = WD_ERR_INIT;
	uint16_t type = k->in.type;
	uint64_t id = k->in.id;
	int rc = 0;

	if (on_holder(k, c, &rc))
		return rc;
	if (type & WD_MSG_REPLY)
		return -EPROTO;
	if (dispatch(k, c, &err) == 0)
		return 0;
	client_reply(k, c->id, &err, type, id);
	return c->role ? 0 : -EPROTO;
}

static void on_client(struct keeper *k, struct source *source)
{
	struct client *c = (struct client *)((char *)source - offsetof(struct client, source));
	int rc = wd_msg_recv(source->fd, &k->in, MSG_DONTWAIT);

	if (rc == -EAGAIN)
		return;
	if (rc > 0) {
		rc = on_message(k, c);
		wd_msg_close_fds(&k->in); /* those that nobody wanted */
	} else {
		rc = -EPIPE;
	}
	if (rc < 0)
		client_drop(k, c);
}

void clients_accept(struct keeper *k, struct source *source)
{
	wd_autoclose int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct wd_err err = WD_ERR_INIT;
	struct client *c;

	if (fd < 0)
		return;
	if (k->nclients >= KEEPER_CLIENTS_MAX) {
		wd_warn("more than %d clients at once; one is turned away", KEEPER_CLIENTS_MAX);
		return;
	}
	c = calloc(1, sizeof(*c));
	if (!c)
		return;
	c->source.fd = -1;
	c->id = ++k->next_id;
	if (source_watch(k, &c->source, fd, on_client, &err) < 0) {
		wd_error("%s", err.msg);
		free(c);
		return;
	}
	wd_steal_fd(&fd);
	c->next = k->clients;
	k->clients = c;
	k->nclients++;
}

void clients_close(struct keeper *k)
{
	while (k->clients)
		client_drop(k, k->clients);
}
