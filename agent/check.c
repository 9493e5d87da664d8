/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See check.h. An origin that hangs holds one control worker; a mount whose last check has not come
 * back is not checked again, so that repeated questions do not take them all.
 */
#include "agent/check.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "agent/mount.h"
#include "agent/status.h"
#include "common/cleanup.h"

struct ask {
	struct agent *agent;
	struct conn *conn;
	uint64_t id;
	struct mount *mount; /* NULL: about the agent itself */
};

static void file_system_name(uint64_t magic, char *out, size_t cap)
{
	static const struct {
		uint64_t magic;
		const char *name;
	} known[] = {{0xef53, "ext4"}, {0x58465342, "xfs"}, {0x9123683e, "btrfs"},
		{0x01021994, "tmpfs"}, {0x858458f6, "ramfs"}, {0x2fc12fc1, "zfs"},
		{0xf2f52010, "f2fs"}, {0x794c7630, "overlay"}, {0x65735546, "fuse"}, {0xf15f, "ecryptfs"},
		{0x6969, "nfs"}, {0xff534d42, "cifs"}, {0xfe534d42, "smb2"}, {0x00c36400, "ceph"},
		{0x0bd00bd0, "lustre"}, {0x01021997, "9p"}};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (known[i].magic == magic) {
			snprintf(out, cap, "%s", known[i].name);
			return;
		}
	}
	snprintf(out, cap, "type 0x%llx", (unsigned long long)magic);
}

/* Can a file be made there? "" or the reason. */
static const char *write_error(const char *dir)
{
	wd_autoclose int fd = open(dir, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);

	if (fd >= 0 || errno == ENOSPC || errno == EDQUOT)
		return ""; /* a full disk shows by its numbers */
	if ((errno == EOPNOTSUPP || errno == EISDIR) &&
		faccessat(AT_FDCWD, dir, W_OK | X_OK, AT_EACCESS) == 0)
		return "";
	return strerror(errno);
}

static json_t *cache_json(struct agent *a)
{
	const char *dir = a->settings->cache_dir, *error = write_error(dir);
	struct store_stats s;
	struct statfs fs;
	char type[32] = "unknown";

	store_get_stats(a->store, &s);
	if (statfs(dir, &fs) == 0)
		file_system_name((uint64_t)fs.f_type & 0xffffffff, type, sizeof(type));
	else if (!*error)
		error = strerror(errno);
	return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:b, s:b}", "dir", dir, "error", error,
		"fs_type", type, "free_bytes", (json_int_t)s.free_bytes, "floor_bytes",
		(json_int_t)a->settings->free_space_floor, "limit_bytes", (json_int_t)s.limit_bytes,
		"used_bytes", (json_int_t)s.used_bytes, "io_errors", (json_int_t)s.io_errors, "is_broken",
		s.is_broken, "was_unclean", meta_was_unclean(a->meta));
}

static json_t *agent_json(struct agent *a)
{
	wd_autofree char *settings = NULL, *metrics = NULL;
	size_t len;
	FILE *out = open_memstream(&settings, &len);

	if (out) {
		wd_config_print(settings_keys, a->settings, out);
		fclose(out);
	}
	out = open_memstream(&metrics, &len);
	if (out) {
		status_print_metrics(a, out);
		fclose(out);
	}
	return json_pack("{s:s, s:i, s:s, s:s, s:s, s:o}", "version", WD_VERSION, "uid", (int)geteuid(),
		"http_listen", a->settings->http_listen ? a->settings->http_listen : "", "settings",
		settings ? settings : "", "metrics", metrics ? metrics : "", "cache", cache_json(a));
}

static json_t *origin_json(struct mount *mnt)
{
	struct origin *origin = mnt->origin;
	struct wd_err err = WD_ERR_INIT;
	int64_t skew_s;
	json_t *out;
	int rc;

	if (atomic_exchange(&mnt->is_being_checked, true))
		return json_pack("{s:I, s:s, s:s, s:i, s:s}", "id", (json_int_t)mnt->id, "target", mnt->target,
			"url", mnt->display, "status", -EBUSY, "text",
			"an earlier check of this origin is still without an answer");
	rc = origin_check(origin, &err);
	atomic_store(&mnt->is_being_checked, false);
	out = json_pack("{s:I, s:s, s:s, s:i, s:s}", "id", (json_int_t)mnt->id, "target", mnt->target, "url",
		mnt->display, "status", rc, "text", rc < 0 ? err.msg : "");
	if (out && origin_clock_skew(origin, &skew_s))
		json_object_set_new(out, "clock_skew_s", json_integer(skew_s));
	return out;
}

static void ask_free(struct ask *ask)
{
	mount_unref(ask->mount);
	conn_unref(ask->conn);
	free(ask);
}

static void check_job(void *arg)
{
	struct ask *ask = arg;
	json_t *root = ask->mount ? origin_json(ask->mount) : agent_json(ask->agent);
	wd_autofree char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	wd_autoclose int fd = memfd_create("warpdrive-check", MFD_CLOEXEC);
	struct wd_msg *m = hub_scratch();

	json_decref(root);
	if (!text || fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) {
		conn_reply_error(ask->conn, WD_MSG_CHECK, ask->id, -ENOMEM, "check: out of memory");
	} else {
		wd_msg_start_reply(m, WD_MSG_CHECK, ask->id, 0);
		wd_put_fd(m, fd);
		conn_send(ask->conn, m);
	}
	ask_free(ask);
}

bool check_on_request(struct agent *a, struct conn *c, struct wd_msg *m)
{
	struct wd_rd r = wd_rd_start(m);
	uint64_t id = wd_rd_u64(&r);
	struct ask *ask;

	if (!wd_rd_done(&r))
		return false;
	ask = calloc(1, sizeof(*ask));
	if (!ask) {
		conn_reply_error(c, WD_MSG_CHECK, m->id, -ENOMEM, "check: out of memory");
		return true;
	}
	*ask = (struct ask){a, conn_ref(c), m->id, id ? mount_find(a, id) : NULL};
	if (id && !ask->mount) {
		conn_reply_error(c, WD_MSG_CHECK, m->id, -ENOENT, "no such mount");
		ask_free(ask);
		return true;
	}
	jobs_run(a->control, check_job, ask);
	return true;
}
