/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes are copied when the agent starts, so that a package upgrade which replaces the file on
 * disk changes nothing before the agent is restarted, too. The id is their SHA-256: a keeper that has
 * the same program already has nothing to do.
 *
 * Whether a memfd can be executed is known for certain only where it is tried. vm.memfd_noexec=2 shows
 * here; where something else forbids it, the keeper says EACCES and gets the file instead. The file
 * is closed for writing and its name removed before anybody gets it.
 */
#include "agent/server_program.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/log.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

#define SIZE_MAX_BYTES (64 << 20)
#define SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

struct server_program {
	char run_dir[PATH_MAX];
	char id[2 * EVP_MAX_MD_SIZE + 1];
	int fd;
	bool is_file;
	struct keeper_link *link; /* of the offer under way */
};

static int copy(int from, int to, char *ret_id, struct wd_err *err)
{
	wd_autofree unsigned char *buf = malloc(1 << 16);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned len = 0;
	off_t at = 0;
	ssize_t n = 0;
	bool is_good = buf && ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1;

	while (is_good && (n = pread(from, buf, 1 << 16, at)) > 0) {
		is_good = EVP_DigestUpdate(ctx, buf, (size_t)n) == 1 &&
			  pwrite(to, buf, (size_t)n, at) == n && at < SIZE_MAX_BYTES;
		at += n;
	}
	is_good = is_good && n == 0 && at > 0 && EVP_DigestFinal_ex(ctx, digest, &len) == 1;
	EVP_MD_CTX_free(ctx);
	if (!is_good)
		return wd_err_set(err, EIO, "copy the server program (at byte %lld): %s",
			(long long)at, errno ? strerror(errno) : "it is empty or too large");
	for (unsigned i = 0; i < len; i++)
		sprintf(ret_id + 2 * (size_t)i, "%02x", digest[i]);
	return 0;
}

static int make_memfd(void)
{
	int fd = memfd_create("warpdrive-fuse", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);

	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create("warpdrive-fuse", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (WD_FAULT("server-program.memfd")) {
		if (fd >= 0)
			close(fd);
		errno = EACCES;
		return -EACCES;
	}
	return fd < 0 ? -errno : fd;
}

static int as_memfd(struct server_program *p, int from, struct wd_err *err)
{
	wd_autoclose int fd = make_memfd();
	int rc;

	if (fd < 0)
		return wd_err_sys(err, -fd, "make a memfd that can be executed");
	rc = copy(from, fd, p->id, err);
	if (rc < 0)
		return rc;
	if (fcntl(fd, F_ADD_SEALS, SEALS) < 0)
		return wd_err_sys(err, errno, "seal the server program");
	p->fd = wd_steal_fd(&fd);
	return 0;
}

static int as_file(struct server_program *p, int from, struct wd_err *err)
{
	char path[PATH_MAX + 32];
	int writer, reader, rc;

	snprintf(path, sizeof(path), "%s/.server-program-XXXXXX", p->run_dir);
	writer = mkostemp(path, O_CLOEXEC);
	if (writer < 0)
		return wd_err_sys(err, errno, "make a file in '%s'", p->run_dir);
	rc = copy(from, writer, p->id, err);
	if (rc == 0 && fchmod(writer, 0755) < 0)
		rc = wd_err_sys(err, errno, "make '%s' a program", path);
	reader = rc == 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (rc == 0 && reader < 0)
		rc = wd_err_sys(err, errno, "open '%s'", path);
	close(writer); /* what is open for writing cannot be executed */
	unlink(path);
	if (rc < 0)
		return rc;
	if (p->fd >= 0)
		close(p->fd);
	p->fd = reader;
	p->is_file = true;
	return 0;
}

/* Beside this program; false when it cannot be told. */
static bool find_beside(char *path)
{
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 32);
	char *slash;

	if (n <= 0)
		return false;
	path[n] = '\0';
	slash = strrchr(path, '/');
	strcpy(slash ? slash + 1 : path, "warpdrive-fuse");
	return true;
}

int server_program_load(const struct settings *s, struct server_program **ret, struct wd_err *err)
{
	bool is_set = s->server_program && s->server_program[0];
	struct server_program *p;
	char path[PATH_MAX];
	wd_autoclose int from = -1;
	int rc;

	*ret = NULL;
	if (is_set && strcmp(s->server_program, "none") == 0)
		return 0;
	if (is_set)
		snprintf(path, sizeof(path), "%s", s->server_program);
	else if (!find_beside(path))
		return 0;
	from = open(path, O_RDONLY | O_CLOEXEC);
	if (from < 0 && !is_set && errno == ENOENT)
		return 0;
	if (from < 0)
		return wd_err_sys(err, errno,
			"open the server program '%s' (server-program names another, or none)",
			path);
	p = calloc(1, sizeof(*p));
	if (!p)
		return wd_err_set(err, ENOMEM, "out of memory");
	p->fd = -1;
	snprintf(p->run_dir, sizeof(p->run_dir), "%s", s->run_dir);
	rc = as_memfd(p, from, err);
	if (rc == -EACCES || rc == -EPERM) {
		wd_info("memfds cannot be executed here: the server program goes as a file");
		rc = as_file(p, from, err);
	}
	if (rc < 0) {
		server_program_free(p);
		return rc;
	}
	*ret = p;
	return 0;
}

void server_program_free(struct server_program *p)
{
	if (!p)
		return;
	if (p->fd >= 0)
		close(p->fd);
	free(p);
}

static void on_answer(void *arg, int status, uint32_t unused, const char *reason)
{
	struct server_program *p = arg;
	struct wd_err err = WD_ERR_INIT;

	if (status == 0) {
		wd_info("the keeper has server program %.12s", p->id);
	} else if (status == -EACCES && !p->is_file) {
		wd_info("the keeper cannot execute a memfd: the server program goes as a file");
		if (as_file(p, p->fd, &err) == 0)
			server_program_offer(p, p->link);
		else
			wd_warn("%s; the servers are not upgraded", err.msg);
	} else if (status != -EPIPE) {
		wd_warn("the keeper does not take server program %.12s: %s; the servers are not "
			"upgraded",
			p->id, reason && reason[0] ? reason : strerror(-status));
	}
}

void server_program_offer(struct server_program *p, struct keeper_link *link)
{
	if (!p)
		return;
	p->link = link;
	keeper_offer_program(link, p->id, p->fd, on_answer, p);
}

int server_program_fd(const struct server_program *p)
{
	return p->fd;
}

const char *server_program_id(const struct server_program *p)
{
	return p->id;
}

bool server_program_is_file(const struct server_program *p)
{
	return p->is_file;
}
