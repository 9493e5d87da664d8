/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_TEST_FAKE_AGENT_H
#define WD_WARM_JOB_TEST_FAKE_AGENT_H
/*
 * An agent for tests of `warm`: a thread that listens in a directory of its own, has one mount, and plays a list of
 * progresses, one for each GetWarm. What it was asked is kept, to be read when it is stopped.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/control.pb-c.h"
#include "common/proto.h"

#define FAKE_CONNECTIONS 8
#define FAKE_REQUESTS 64

typedef Warpdrive__V1__WarmProgress FakeProgress;

enum fake_act {
	FAKE_ANSWER,
	FAKE_INTERRUPT, /* SIGINT to this process, then the answer */
	FAKE_RESTART,	/* connections and socket go, and another agent comes, whose ids begin anew */
	FAKE_FORGET,	/* only the tasks go, as seen through a mount: -ENOENT */
	FAKE_END,	/* an agent that ends: cancelled, and then the same */
};

struct fake_step {
	enum fake_act act;
	FakeProgress progress;
};

struct fake_agent {
	char dir[64], path[96];
	const char *status; /* JSON */
	struct fake_step *steps;
	size_t nsteps, at; /* of the last step there is no end */
	int start_status;  /* what StartWarm answers, 0 or -errno */
	bool is_old;	   /* knows no control API */

	Warpdrive__V1__WarmRequest *requests[FAKE_REQUESTS];
	size_t nrequests;
	uint64_t next_id, cancelled_id;
	unsigned restarts;

	pthread_t thread;
	int listener, stop, connections[FAKE_CONNECTIONS];
	struct wd_msg m, reply;
};

static void fake_pack(struct fake_agent *a, const ProtobufCMessage *message)
{
	uint8_t buf[32768];

	assert(protobuf_c_message_get_packed_size(message) <= sizeof(buf));
	wd_msg_start_reply(&a->reply, WD_MSG_CONTROL, a->m.id, 0);
	wd_put_bytes(&a->reply, buf, protobuf_c_message_pack(message, buf));
}

static void fake_refuse(struct fake_agent *a, int status, const char *text)
{
	wd_msg_start_reply(&a->reply, a->m.type, a->m.id, status);
	wd_put_str(&a->reply, text);
}

/* Its last step's figures with another state, once it was cancelled. */
static void fake_progress(struct fake_agent *a, uint64_t id, struct fake_step *step)
{
	FakeProgress p = step->progress;

	p.id = id;
	p.version = a->at + 1;
	if (a->cancelled_id)
		p.state = WARPDRIVE__V1__WARM_STATE__WARM_CANCELLED;
	fake_pack(a, &p.base);
}

static void fake_hang_up(struct fake_agent *a)
{
	for (size_t i = 0; i < FAKE_CONNECTIONS; i++) {
		if (a->connections[i] >= 0)
			close(a->connections[i]);
		a->connections[i] = -1;
	}
}

/* False when there is no answer, since the connection is gone. */
static bool fake_get(struct fake_agent *a, uint64_t id)
{
	struct fake_step *step = &a->steps[a->at];

	if (id >= a->next_id || id == 0) {
		fake_refuse(a, -ENOENT, "no such task");
		return true;
	}
	if (a->at + 1 < a->nsteps && !a->cancelled_id)
		a->at++;
	switch (step->act) {
	case FAKE_INTERRUPT:
		step->act = FAKE_ANSWER;
		kill(getpid(), SIGINT);
		break;
	case FAKE_RESTART:
		a->next_id = 1;
		a->restarts++;
		fake_hang_up(a);
		close(a->listener);
		unlink(a->path);
		a->listener = wd_listen(a->path, NULL);
		return false;
	case FAKE_FORGET:
		a->next_id = 1;
		a->restarts++;
		fake_refuse(a, -ENOENT, "no such task");
		return true;
	case FAKE_END:
		a->next_id = 1;
		a->restarts++;
		break;
	case FAKE_ANSWER:
		break;
	}
	fake_progress(a, id, step);
	return true;
}

static void fake_start_warm(struct fake_agent *a, const uint8_t *data, size_t len)
{
	Warpdrive__V1__StartWarmResponse response = WARPDRIVE__V1__START_WARM_RESPONSE__INIT;

	assert(a->nrequests < FAKE_REQUESTS);
	a->requests[a->nrequests] = warpdrive__v1__warm_request__unpack(NULL, len, data);
	assert(a->requests[a->nrequests]);
	a->nrequests++;
	response.id = a->next_id++;
	if (a->start_status)
		fake_refuse(a, a->start_status, "the mount is not to be warmed");
	else
		fake_pack(a, &response.base);
}

static bool fake_control(struct fake_agent *a)
{
	struct wd_rd r = wd_rd_start(&a->m);
	char method[64];
	size_t len;
	bool is_method = wd_rd_str(&r, method, sizeof(method));
	const uint8_t *data = wd_rd_bytes(&r, &len);

	assert(is_method && wd_rd_done(&r));
	if (!strcmp(method, "StartWarm")) {
		fake_start_warm(a, data, len);
	} else if (!strcmp(method, "GetWarm")) {
		Warpdrive__V1__GetWarmRequest *q = warpdrive__v1__get_warm_request__unpack(NULL, len, data);
		uint64_t id = q->id;

		warpdrive__v1__get_warm_request__free_unpacked(q, NULL);
		return fake_get(a, id);
	} else if (!strcmp(method, "CancelWarm")) {
		Warpdrive__V1__CancelWarmRequest *q = warpdrive__v1__cancel_warm_request__unpack(NULL, len, data);
		Warpdrive__V1__CancelWarmResponse response = WARPDRIVE__V1__CANCEL_WARM_RESPONSE__INIT;

		a->cancelled_id = q->id;
		warpdrive__v1__cancel_warm_request__free_unpacked(q, NULL);
		fake_pack(a, &response.base);
	} else {
		fake_refuse(a, -ENOSYS, "unknown method");
	}
	return true;
}

static void fake_status(struct fake_agent *a)
{
	int fd = memfd_create("status", MFD_CLOEXEC);

	assert(fd >= 0 && write(fd, a->status, strlen(a->status)) == (ssize_t)strlen(a->status));
	wd_msg_start_reply(&a->reply, WD_MSG_STATUS, a->m.id, 0);
	wd_put_fd(&a->reply, fd);
}

static void fake_answer(struct fake_agent *a, int *sock)
{
	if (wd_msg_recv(*sock, &a->m, 0) != 1) {
		close(*sock);
		*sock = -1;
		return;
	}
	if (a->m.type == WD_MSG_HELLO) {
		wd_msg_start_reply(&a->reply, WD_MSG_HELLO, a->m.id, 0);
		wd_put_u32(&a->reply, WD_PROTO_VERSION);
		wd_put_str(&a->reply, "test");
	} else if (a->m.type == WD_MSG_STATUS) {
		fake_status(a);
	} else if (a->m.type == WD_MSG_CONTROL && !a->is_old) {
		if (!fake_control(a))
			return;
	} else {
		fake_refuse(a, -ENOSYS, "unknown message");
	}
	wd_msg_send(*sock, &a->reply, 0);
	wd_msg_close_fds(&a->reply);
}

static void fake_accept(struct fake_agent *a)
{
	int sock = accept(a->listener, NULL, NULL);

	for (size_t i = 0; i < FAKE_CONNECTIONS && sock >= 0; i++) {
		if (a->connections[i] < 0) {
			a->connections[i] = sock;
			return;
		}
	}
	assert(sock < 0);
}

static void *fake_serve(void *arg)
{
	struct fake_agent *a = arg;

	for (;;) {
		struct pollfd fds[2 + FAKE_CONNECTIONS] = {{a->stop, POLLIN, 0}, {a->listener, POLLIN, 0}};

		for (size_t i = 0; i < FAKE_CONNECTIONS; i++)
			fds[2 + i] = (struct pollfd){a->connections[i], POLLIN, 0};
		if (poll(fds, 2 + FAKE_CONNECTIONS, -1) < 0)
			continue;
		if (fds[0].revents)
			return NULL;
		if (fds[1].revents)
			fake_accept(a);
		for (size_t i = 0; i < FAKE_CONNECTIONS; i++) {
			if (fds[2 + i].revents && a->connections[i] == fds[2 + i].fd)
				fake_answer(a, &a->connections[i]);
		}
	}
}

/* status, steps and the rest may be set before; the mount is /data of s3://b/d by default */
static void fake_start(struct fake_agent *a)
{
	strcpy(a->dir, "/tmp/wd-warm-XXXXXX");
	assert(mkdtemp(a->dir));
	snprintf(a->path, sizeof(a->path), "%s/agent.sock", a->dir);
	if (!a->status)
		a->status = "{\"version\":\"1\",\"pid\":1,\"mounts\":[{\"id\":1,\"target\":\"/data\",\"url\":\"s3://b/d/\"}]}";
	memset(a->connections, 0xff, sizeof(a->connections));
	a->next_id = 1;
	a->listener = wd_listen(a->path, NULL);
	a->stop = eventfd(0, EFD_CLOEXEC);
	assert(a->listener >= 0 && a->stop >= 0);
	assert(pthread_create(&a->thread, NULL, fake_serve, a) == 0);
}

/* From then on what it has noted may be read. */
static void fake_stop(struct fake_agent *a)
{
	eventfd_write(a->stop, 1);
	pthread_join(a->thread, NULL);
	fake_hang_up(a);
	close(a->listener);
	close(a->stop);
}

static void fake_free(struct fake_agent *a)
{
	for (size_t i = 0; i < a->nrequests; i++)
		warpdrive__v1__warm_request__free_unpacked(a->requests[i], NULL);
	unlink(a->path);
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", a->dir);
	if (system(command) != 0)
		abort();
}

#endif
