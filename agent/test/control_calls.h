/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_TEST_CONTROL_CALLS_H
#define WD_AGENT_TEST_CONTROL_CALLS_H
/* Calls of the control API of a rig's agent, as warpdrive-ctl makes them (CONTROL on agent.sock), or as a pod does (on the
 * socket of its mount's server). */
#include "agent/test/agent_fixture.h"
#include "common/control.pb-c.h"

static struct wd_msg call_msg;

/* As a server of a mount, or (m NULL) as warpdrive-ctl; the answer is in call_msg. 0 or -errno. */
static inline int control_call(struct rig *rig, struct rig_mount *m, const char *method, const ProtobufCMessage *request)
{
	static unsigned char bytes[65536];
	struct wd_err err = WD_ERR_INIT;
	size_t len = protobuf_c_message_pack(request, bytes);
	char path[128];
	int sock, rc;

	wd_msg_start(&call_msg, WD_MSG_CONTROL, 1);
	wd_put_str(&call_msg, method);
	wd_put_bytes(&call_msg, bytes, len);
	if (m)
		return rig_call(m, &call_msg);
	snprintf(path, sizeof(path), "%s/run/agent.sock", rig->dir);
	sock = wd_client_connect(path, WD_ROLE_CTL, &err);
	if (sock < 0)
		rig_die(path);
	rc = wd_client_call(sock, &call_msg, -1, &err);
	close(sock);
	return rc;
}

/* Unpacks it, also where it is too long for a message and came in a memfd. */
static inline void *control_answer(const ProtobufCMessageDescriptor *type)
{
	static unsigned char long_bytes[1 << 20];
	struct wd_rd r = wd_rd_start(&call_msg);
	size_t len;
	const void *bytes = wd_rd_bytes(&r, &len);
	int fd = wd_msg_take_fd(&call_msg, 0);
	void *out = NULL;

	if (fd >= 0) {
		ssize_t n = pread(fd, long_bytes, sizeof(long_bytes), 0);

		if (n < 0)
			rig_die("read the answer");
		len = (size_t)n;
		bytes = long_bytes;
		close(fd);
	}
	if (wd_rd_done(&r))
		out = protobuf_c_message_unpack(type, NULL, len, bytes);
	if (!out)
		rig_die("the answer makes no sense");
	return out;
}

#endif
