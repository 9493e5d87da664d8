/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks the daemons, each on a thread of its own, so that a stopped one costs one time-out and no
 * more: whoever has not answered by then is left behind, and its thread ends with the process.
 * The origins of all mounts are asked over one connection at once; answers that come are kept even
 * when others do not.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/lock.h"
#include "common/proto.h"
#include "warm-job/ctl.h"
#include "warm-job/ctl_doctor.h"

#define ASK_MOUNTS_MAX 1024

/* Shared by the asker and its thread; whoever is second to leave frees it. */
struct question {
	pthread_mutex_t lock;
	pthread_cond_t answered;
	bool is_done, is_abandoned;

	char path[108];
	uint16_t type;
	json_t *mounts; /* of the agent's status; NULL: a plain question */
	int timeout_ms;

	struct doctor_answer answer; /* json: an array for a question about mounts */
};

static void question_free(struct question *q)
{
	pthread_mutex_destroy(&q->lock);
	pthread_cond_destroy(&q->answered);
	json_decref(q->mounts);
	json_decref(q->answer.json);
	free(q);
}

/* The JSON of a reply that carries it in a memfd. */
static int take_json(struct wd_msg *m, json_t **ret_json, struct wd_err *err)
{
	wd_autoclose int fd = wd_msg_take_fd(m, 0);
	json_error_t bad;
	FILE *in;

	wd_msg_close_fds(m);
	if (fd < 0)
		return wd_err_set(err, EPROTO, "the answer came without its text");
	in = fdopen(dup(fd), "r");
	if (!in)
		return wd_err_sys(err, ENOMEM, "read the answer");
	rewind(in);
	*ret_json = json_loadf(in, 0, &bad);
	fclose(in);
	return *ret_json ? 0 : wd_err_set(err, EPROTO, "the answer is not JSON: %s", bad.text);
}

static int ask_plain(struct question *q, int sock, struct wd_msg *m, struct wd_err *err)
{
	wd_msg_start(m, q->type, 1);
	if (q->type == WD_MSG_CHECK)
		wd_put_u64(m, 0);

	int r = wd_client_call(sock, m, -1, err);

	return r < 0 ? r : take_json(m, &q->answer.json, err);
}

static json_t *origin_entry(const json_t *mount, int status, const char *text)
{
	const char *target = json_string_value(json_object_get(mount, "target"));
	const char *url = json_string_value(json_object_get(mount, "url"));

	return json_pack("{s:s, s:s, s:i, s:s}", "target", target ? target : "?", "url",
		url ? url : "?", "status", status, "text", text);
}

/* One reply, to the mount whose index is the id. */
static void take_origin(struct question *q, struct wd_msg *m, size_t count)
{
	struct wd_err err = WD_ERR_INIT;
	json_t *one = NULL;

	if (m->id < 1 || m->id > count || m->type != (WD_MSG_CHECK | WD_MSG_REPLY)) {
		wd_msg_close_fds(m);
		return;
	}
	if (m->status < 0) {
		wd_msg_close_fds(m);
		one = origin_entry(json_array_get(q->mounts, m->id - 1), m->status,
			"the agent does not know the mount any longer");
	} else if (take_json(m, &one, &err) < 0) {
		one = origin_entry(json_array_get(q->mounts, m->id - 1), -err.code, err.msg);
	}
	json_array_set_new(q->answer.json, m->id - 1, one);
}

static int ask_origins(struct question *q, int sock, struct wd_msg *m, struct wd_err *err)
{
	int64_t deadline_ns = wd_now_ns() + (int64_t)q->timeout_ms * 1000000;
	size_t count = json_array_size(q->mounts), left = count;
	char late[64];

	if (count > ASK_MOUNTS_MAX)
		count = left = ASK_MOUNTS_MAX;
	snprintf(late, sizeof(late), "no answer in %d s", q->timeout_ms / 1000);
	q->answer.json = json_array();
	for (size_t i = 0; i < count; i++) {
		const json_t *mount = json_array_get(q->mounts, i);
		int r;

		json_array_append_new(q->answer.json, origin_entry(mount, -ETIMEDOUT, late));
		wd_msg_start(m, WD_MSG_CHECK, i + 1);
		wd_put_u64(m, (uint64_t)json_integer_value(json_object_get(mount, "id")));
		r = wd_msg_send(sock, m, 0);
		if (r < 0)
			return wd_err_sys(err, -r, "ask about origins");
	}
	while (left > 0) {
		int64_t left_ms = (deadline_ns - wd_now_ns()) / 1000000;
		struct pollfd p = {.fd = sock, .events = POLLIN};

		if (left_ms <= 0 || poll(&p, 1, (int)left_ms) <= 0 || wd_msg_recv(sock, m, 0) <= 0)
			break;
		take_origin(q, m, count);
		left--;
	}
	return 0;
}

static void *ask_thread(void *arg)
{
	struct question *q = arg;
	struct wd_err err = WD_ERR_INIT;
	struct wd_msg *m = calloc(1, sizeof(*m));
	wd_autoclose int sock = ctl_connect(q->path, q->type, &err);
	int r = sock;
	bool is_abandoned;

	if (!m)
		r = wd_err_sys(&err, ENOMEM, "ask");
	if (r >= 0)
		r = q->mounts ? ask_origins(q, sock, m, &err) : ask_plain(q, sock, m, &err);
	free(m);
	pthread_mutex_lock(&q->lock);
	q->answer.status = r < 0 ? r : 0;
	q->answer.err = err;
	q->is_done = true;
	is_abandoned = q->is_abandoned;
	pthread_cond_signal(&q->answered);
	pthread_mutex_unlock(&q->lock);
	if (is_abandoned)
		question_free(q);
	return NULL;
}

static struct question *ask(
	const struct doctor *d, const char *socket_name, uint16_t type, json_t *mounts)
{
	struct question *q = calloc(1, sizeof(*q));
	struct wd_err err = WD_ERR_INIT;
	pthread_condattr_t attr;
	pthread_attr_t detached;
	pthread_t thread;

	if (!q)
		return NULL;
	pthread_mutex_init(&q->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&q->answered, &attr);
	pthread_condattr_destroy(&attr);
	q->type = type;
	q->mounts = json_incref(mounts);
	q->timeout_ms = d->timeout_ms;
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	if (ctl_run_path(d->run_dir, socket_name, q->path, &err) < 0 ||
		pthread_create(&thread, &detached, ask_thread, q) != 0) {
		q->answer.status = err.code ? -err.code : -EAGAIN;
		q->answer.err = err;
		q->is_done = true;
	}
	pthread_attr_destroy(&detached);
	return q;
}

/* Waits for the answer, extra_ms longer than for others; takes the question. */
static void take_answer(struct question *q, int extra_ms, struct doctor_answer *ret_answer)
{
	struct timespec until;
	bool is_done;

	*ret_answer = (struct doctor_answer){.status = -ENOMEM};
	if (!q)
		return;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (q->timeout_ms + extra_ms) / 1000;
	until.tv_nsec += (long)((q->timeout_ms + extra_ms) % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&q->lock);
	while (!q->is_done && pthread_cond_timedwait(&q->answered, &q->lock, &until) == 0)
		;
	is_done = q->is_done;
	q->is_abandoned = !is_done;
	if (is_done) {
		*ret_answer = q->answer;
		q->answer.json = NULL;
	}
	pthread_mutex_unlock(&q->lock);
	if (is_done)
		question_free(q);
	else
		ret_answer->status = -ETIMEDOUT;
}

/* GET /healthz over plain HTTP, which is all that it takes. The status, or -errno. */
static int ask_healthz(const char *address, int timeout_ms)
{
	struct timeval patience = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
	struct sockaddr_in to = {.sin_family = AF_INET};
	static const char request[] = "GET /healthz HTTP/1.0\r\n\r\n";
	char host[64], answer[64] = "";
	unsigned port;
	int status;

	if (sscanf(address, ":%u", &port) == 1)
		snprintf(host, sizeof(host), "127.0.0.1");
	else if (sscanf(address, "%63[^:]:%u", host, &port) != 2)
		return -EINVAL;
	if (inet_pton(AF_INET, host, &to.sin_addr) != 1)
		return -EINVAL;
	to.sin_port = htons((uint16_t)port);
	if (to.sin_addr.s_addr == INADDR_ANY)
		to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);

	wd_autoclose int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (sock < 0)
		return -errno;
	setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (connect(sock, (const struct sockaddr *)&to, sizeof(to)) < 0)
		return errno == EINPROGRESS ? -ETIMEDOUT : -errno;
	if (send(sock, request, sizeof(request) - 1, MSG_NOSIGNAL) < 0 ||
		recv(sock, answer, sizeof(answer) - 1, 0) < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	return sscanf(answer, "HTTP/%*s %d", &status) == 1 ? status : -EPROTO;
}

/* Does somebody listen there? */
static int knock(const struct doctor *d, const char *socket_name)
{
	wd_autoclose int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct wd_err err;

	if (sock < 0 || ctl_run_path(d->run_dir, socket_name, to.sun_path, &err) < 0)
		return -EINVAL;
	/* EAGAIN: its queue is full, so it is there */
	return connect(sock, (const struct sockaddr *)&to, sizeof(to)) == 0 || errno == EAGAIN ? 0 : -errno;
}

void doctor_ask(struct doctor *d)
{
	struct question *agent = ask(d, "agent.sock", WD_MSG_STATUS, NULL);
	struct question *keeper = ask(d, "keeper.sock", WD_MSG_KEEPER_STATUS, NULL);
	struct question *check = ask(d, "agent.sock", WD_MSG_CHECK, NULL);
	const char *address;
	json_t *mounts;

	d->supervisor_status = knock(d, "supervisor.sock");
	doctor_probe(&d->probes, d->timeout_ms);
	take_answer(agent, 0, &d->agent);
	take_answer(keeper, 0, &d->keeper);
	take_answer(check, 0, &d->agent_check);

	mounts = json_object_get(d->agent.json, "mounts");
	if (json_array_size(mounts) > 0 && d->agent_check.json) {
		struct doctor_answer origins;

		/* it ends by itself at the time-out, with the answers so far */
		take_answer(ask(d, "agent.sock", WD_MSG_CHECK, mounts), 2000, &origins);
		d->origins = origins.json;
	}
	address = json_string_value(json_object_get(d->agent_check.json, "http_listen"));
	if (address && *address)
		d->healthz_status = ask_healthz(address, d->timeout_ms);
}
