/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the dataset comes from: a directory, an nginx that serves the directory, or this program once more in a
 * process of its own that makes up the bytes as they are asked for. The two servers can be stopped and started
 * again on the same port.
 */
#include "e2e/chaos/origin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "e2e/chaos/content.h"
#include "e2e/chaos/run.h"

static int write_nginx_conf(struct chaos *c, struct wd_err *err)
{
	char path[CHAOS_PATH + 32];
	FILE *f;

	snprintf(path, sizeof(path), "%s/nginx", c->dir);
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "%s/nginx/nginx.conf", c->dir);
	f = fopen(path, "we");
	if (!f)
		return wd_err_sys(err, errno, "write '%s'", path);
	fprintf(f,
		"worker_processes 2; worker_rlimit_nofile 20000; daemon off; user root;\n"
		"pid %s/nginx/pid; error_log %s/nginx/error.txt;\n"
		"events { worker_connections 4096; }\n"
		"http {\n"
		"	access_log off; sendfile on; keepalive_requests 1000000;\n"
		"	client_body_temp_path %s/nginx/b; proxy_temp_path %s/nginx/p;\n"
		"	fastcgi_temp_path %s/nginx/f; uwsgi_temp_path %s/nginx/u; scgi_temp_path %s/nginx/s;\n"
		"	server { listen 127.0.0.1:%u; root %s; index no-index-file;\n"
		"		location / { autoindex on; autoindex_format json; } }\n"
		"}\n",
		c->dir, c->dir, c->dir, c->dir, c->dir, c->dir, c->dir, c->origin_port, c->data);
	return fclose(f) == 0 ? 0 : wd_err_sys(err, EIO, "write '%s'", path);
}

/* A port that nobody listens on, below those that the kernel gives to outgoing connections. */
static unsigned free_port(struct chaos *c)
{
	for (int i = 0; i < 1000; i++) {
		wd_autoclose int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		/* another run may have the same seed */
		unsigned port = 11000 + (unsigned)((chaos_random(c, 20000) + (unsigned)getpid()) % 20000);

		at.sin_port = htons((uint16_t)port);
		if (fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0)
			return port;
	}
	return 0;
}

static int make_control(struct chaos *c, struct wd_err *err)
{
	c->origin_fd = memfd_create("chaos-origin", MFD_CLOEXEC);
	if (c->origin_fd < 0 || ftruncate(c->origin_fd, sizeof(*c->origin)) < 0)
		return wd_err_sys(err, errno, "make the origin's shared memory");
	c->origin = mmap(NULL, sizeof(*c->origin), PROT_READ | PROT_WRITE, MAP_SHARED, c->origin_fd, 0);
	if (c->origin == MAP_FAILED)
		return wd_err_sys(err, errno, "map the origin's shared memory");
	c->origin->seed = c->options.seed;
	return 0;
}

int origin_prepare(struct chaos *c, struct wd_err *err)
{
	int rc = 0;

	if (c->options.origin == ORIGIN_OWN)
		rc = make_control(c, err);
	else
		rc = content_write(c->options.seed, c->data, err);
	if (rc == 0 && c->options.has_no_open)
		rc = content_pin(c->data, err);
	snprintf(c->url, sizeof(c->url), "file://%.500s", c->data);
	if (rc < 0 || c->options.origin == ORIGIN_FILE)
		return rc;
	c->origin_port = free_port(c);
	if (!c->origin_port)
		return wd_err_set(err, EADDRINUSE, "find a free port");
	snprintf(c->url, sizeof(c->url), "http://127.0.0.1:%u/", c->origin_port);
	if (c->options.origin == ORIGIN_NGINX)
		rc = write_nginx_conf(c, err);
	return rc < 0 ? rc : origin_start(c, err);
}

static bool is_listening(unsigned port)
{
	wd_autoclose int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in at = {.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		.sin_port = htons((uint16_t)port)};

	return fd >= 0 && connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0;
}

int origin_start(struct chaos *c, struct wd_err *err)
{
	uint64_t end = stats_now_us() + CHAOS_WAIT_SECONDS * 1000000ULL;
	char prefix[CHAOS_PATH + 32], conf[CHAOS_PATH + 32], errors[CHAOS_PATH + 32];
	char self[CHAOS_PATH], port[16], memory[64];
	const char *const nginx[] = {"nginx", "-p", prefix, "-c", conf, "-e", errors, NULL};
	const char *const own[] = {self, "--serve-origin", port, memory, NULL};
	bool is_nginx = c->options.origin == ORIGIN_NGINX;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	pid_t pid;

	if (c->options.origin == ORIGIN_FILE || atomic_load(&c->programs[ROLE_ORIGIN].pid))
		return 0;
	self[n > 0 ? n : 0] = '\0';
	snprintf(prefix, sizeof(prefix), "%s/nginx", c->dir);
	snprintf(conf, sizeof(conf), "%s/nginx/nginx.conf", c->dir);
	snprintf(errors, sizeof(errors), "%s/nginx/error.txt", c->dir);
	snprintf(port, sizeof(port), "%u", c->origin_port);
	snprintf(memory, sizeof(memory), "/proc/%d/fd/%d", (int)getpid(), c->origin_fd);
	pid = program_spawn(c, is_nginx ? nginx : own, "origin.log", false, err);
	if (pid < 0)
		return pid;
	atomic_store(&c->programs[ROLE_ORIGIN].pid, pid);
	while (!is_listening(c->origin_port) && stats_now_us() < end)
		nanosleep(&(struct timespec){0, 5000000}, NULL);
	return stats_now_us() < end ? 0 : wd_err_set(err, ETIMEDOUT, "the origin does not listen");
}

int chaos_origin_stop(struct chaos *c, struct wd_err *err)
{
	if (c->options.origin == ORIGIN_FILE)
		return wd_err_set(err, ENOTSUP, "a file origin cannot be stopped; see --origin");
	return chaos_kill(c, ROLE_ORIGIN, SIGTERM, err);
}

void chaos_origin_faults(struct chaos *c, struct origin_faults f)
{
	if (!c->origin)
		return;
	atomic_store(&c->origin->status_503, f.status_503);
	atomic_store(&c->origin->cut_short, f.cut_short);
	atomic_store(&c->origin->reset, f.reset);
	atomic_store(&c->origin->stall_ms, f.stall_ms);
}
