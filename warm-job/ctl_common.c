/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every subcommand needs: messages for the user, the paths of the sockets, and the status
 * call.
 */
#include "warm-job/ctl.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "common/cleanup.h"
#include "common/proto.h"

#define STATUS_TIMEOUT_MS 10000
#define STATUS_MAX (64 << 20)

__attribute__((format(printf, 2, 0))) static void say(const char *kind, const char *fmt, va_list ap)
{
	char line[2048];

	vsnprintf(line, sizeof(line), fmt, ap);
	for (char *p = line; *p; p++) {
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	}
	fprintf(stderr, "warpdrive-ctl: %s%s\n", kind, line);
}

void ctl_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say("", fmt, ap);
	va_end(ap);
}

void ctl_warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say("warning: ", fmt, ap);
	va_end(ap);
}

enum ctl_exit ctl_usage(const struct ctl_command *self, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	ctl_error("%s: %s (see --help)", self->name, text);
	return CTL_USAGE;
}

enum ctl_exit ctl_print_help(const struct ctl_command *self)
{
	printf("usage: warpdrive-ctl %s%s%s\n\n%s\n%s%s", self->name, *self->arguments ? " " : "",
		self->arguments, self->summary, *self->help ? "\n" : "", self->help);
	if (self->print_more)
		self->print_more(stdout);
	return CTL_DONE;
}

const char *ctl_run_dir(const char *given)
{
	if (given)
		return given;
	const char *from_env = getenv("WARPDRIVE_RUN_DIR");

	return from_env && *from_env ? from_env : "/run/warpdrive";
}

int ctl_run_path(const char *run_dir, const char *name, char out[108], struct wd_err *err)
{
	_Static_assert(sizeof(((struct sockaddr_un *)NULL)->sun_path) == 108, "size of sun_path");
	if (snprintf(out, 108, "%s/%s", run_dir, name) >= 108)
		return wd_err_set(err, ENAMETOOLONG,
			"run directory '%s': too long for a socket's address: choose one of at "
			"most %zu bytes",
			run_dir, 106 - strlen(name));
	return 0;
}

int ctl_read_answer(int fd, char **ret_text, size_t *ret_len, struct wd_err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return wd_err_sys(err, errno, "read the answer");
	if (st.st_size < 0 || st.st_size > STATUS_MAX)
		return wd_err_set(err, EPROTO, "the answer has an impossible size");

	size_t size = (size_t)st.st_size, got = 0;
	wd_autofree char *text = malloc(size + 1);

	if (!text)
		return wd_err_sys(err, ENOMEM, "read the answer");
	while (got < size) {
		ssize_t n = pread(fd, text + got, size - got, (off_t)got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return wd_err_sys(err, n < 0 ? errno : EPROTO, "read the answer");
		got += (size_t)n;
	}
	text[got] = '\0';
	*ret_text = wd_steal_ptr(text);
	*ret_len = size;
	return 0;
}

int ctl_explain(const char *daemon, const char *run_dir, struct wd_err *err)
{
	switch (err->code) {
	case ENOENT:
	case ENOTDIR:
	case ECONNREFUSED:
		return wd_err_set(err, err->code, "no %s in '%s' (see --run-dir)", daemon, run_dir);
	case EACCES:
	case EPERM:
		return wd_err_set(err, err->code, "the %s's socket is not for this user: run it as root", daemon);
	case EPROTO:
	case EPROTONOSUPPORT:
		return wd_err_set(err, err->code, "the %s is of another release: use programs of one", daemon);
	default:
		return -err->code;
	}
}

int ctl_connect(const char *socket_path, unsigned type, struct wd_err *err)
{
	const char *slash = strrchr(socket_path, '/');
	struct wd_err ignored = WD_ERR_INIT;
	char agent[108];
	int sock = wd_client_connect(socket_path, WD_ROLE_CTL, err), other;

	if (sock != -EACCES || type != WD_MSG_KEEPER_STATUS || !slash ||
		snprintf(agent, sizeof(agent), "%.*s/agent.sock", (int)(slash - socket_path), socket_path) >= (int)sizeof(agent))
		return sock;
	other = wd_client_connect(agent, WD_ROLE_CTL, &ignored);
	if (other >= 0 && err)
		*err = WD_ERR_INIT;
	return other >= 0 ? other : sock;
}

int ctl_fetch_status(const char *socket_path, unsigned type, char **ret_text, struct wd_err *err)
{
	wd_autoclose int sock = ctl_connect(socket_path, type, err);

	if (sock < 0)
		return sock;

	wd_autofree struct wd_msg *m = calloc(1, sizeof(*m));
	size_t len;

	if (!m)
		return wd_err_sys(err, ENOMEM, "status");
	wd_msg_start(m, (uint16_t)type, 1);

	int r = wd_client_call(sock, m, STATUS_TIMEOUT_MS, err);

	if (r < 0)
		return r;

	wd_autoclose int fd = wd_msg_take_fd(m, 0);

	wd_msg_close_fds(m);
	if (fd < 0)
		return wd_err_set(err, EPROTO, "'%s' answered without its status", socket_path);
	return ctl_read_answer(fd, ret_text, &len, err);
}

int ctl_absolute(const char *dir, char *out, struct wd_err *err)
{
	char copy[PATH_MAX], parent[PATH_MAX];
	size_t len = strlen(dir);

	while (len > 1 && dir[len - 1] == '/')
		len--;
	if (len == 0 || len >= sizeof(copy))
		return wd_err_sys(err, len ? ENAMETOOLONG : ENOENT, "its path");
	memcpy(copy, dir, len);
	copy[len] = '\0';

	char *slash = strrchr(copy, '/');
	const char *name = slash ? slash + 1 : copy;

	if (!*name || !strcmp(name, ".") || !strcmp(name, "..")) {
		if (!realpath(copy, out))
			return wd_err_sys(err, errno, "its path");
		return 0;
	}
	if (slash)
		*slash = '\0';
	if (!realpath(!slash ? "." : *copy ? copy : "/", parent))
		return wd_err_sys(err, errno, "its parent directory");
	if (snprintf(out, PATH_MAX, "%s/%s", strcmp(parent, "/") ? parent : "", name) >= PATH_MAX)
		return wd_err_sys(err, ENAMETOOLONG, "its path");
	return 0;
}
