/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See ctl_warm_places.h. Which mount a path is in is read from mountinfo. A mount may be seen at several places (bind
 * mounts, and a pod's volumes on its node), and at some of them only a part of it: they have the device in common,
 * and the agent's target is one of them, or is in another mount namespace and not to be seen.
 */
#include "warm-job/ctl_warm_places.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/mountinfo.h"
#include "common/proto.h"
#include "warm-job/ctl.h"

#define FS_TYPE "fuse.warpdrive"

struct seen_mount {
	unsigned major, minor;
	char *target, *root, *source;
};

/* ---- texts ---- */

bool warm_normalise(const char *from, const char *path, char *ret_path)
{
	const char *parts[2] = {*path == '/' ? "" : from, path};
	size_t len = 0;

	for (size_t i = 0; i < 2; i++) {
		for (const char *p = parts[i]; *p;) {
			size_t n = strcspn(p, "/");

			if (n == 2 && !memcmp(p, "..", 2)) {
				while (len > 0 && ret_path[--len] != '/')
					;
			} else if (n > 0 && !(n == 1 && *p == '.')) {
				if (len + 1 + n >= PATH_MAX)
					return false;
				ret_path[len++] = '/';
				memcpy(ret_path + len, p, n);
				len += n;
			}
			p += n + (p[n] == '/');
		}
	}
	if (len == 0)
		ret_path[len++] = '/';
	ret_path[len] = '\0';
	return true;
}

/* What of path is behind prefix, without "/" in front; NULL when it is not below. Trailing "/" of prefix are nothing. */
static const char *below(const char *path, const char *prefix)
{
	size_t n = strlen(prefix);

	while (n > 0 && prefix[n - 1] == '/')
		n--;
	if (strncmp(path, prefix, n) != 0 || (path[n] && path[n] != '/'))
		return NULL;
	for (path += n; *path == '/'; path++)
		;
	return path;
}

static bool is_url(const char *what)
{
	const char *colon = strstr(what, "://");

	return colon && colon > what && !memchr(what, '/', (size_t)(colon - what));
}

/* ---- what is mounted ---- */

static int add_mount(struct warm_places *p, const struct mountinfo *info, const char *target, const char *source)
{
	struct seen_mount *more = realloc(p->mounts, (p->nmounts + 1) * sizeof(*more)), *m;

	if (!more)
		return -ENOMEM;
	p->mounts = more;
	m = &more[p->nmounts++];
	*m = (struct seen_mount){info->major, info->minor, strdup(target), strdup(info->root), strdup(source)};
	return m->target && m->root && m->source ? 0 : -ENOMEM;
}

static int read_mounts(struct warm_places *p, const char *mountinfo, struct wd_err *err)
{
	FILE *f = fopen(mountinfo, "re");
	wd_autofree char *line = NULL;
	char target[PATH_MAX], source[PATH_MAX];
	struct mountinfo info;
	size_t cap = 0;
	int r = 0;

	if (!f)
		return wd_err_sys(err, errno, "read '%s'", mountinfo);
	while (r == 0 && getline(&line, &cap, f) >= 0) {
		if (mountinfo_parse(line, &info, target) && !strcmp(info.type, FS_TYPE) &&
			mountinfo_source(line, source))
			r = add_mount(p, &info, target, source);
	}
	fclose(f);
	return r < 0 ? wd_err_sys(err, -r, "read '%s'", mountinfo) : 0;
}

static void ask_agent(struct warm_places *p, const char *run_dir)
{
	wd_autofree char *text = NULL;
	char path[108];

	if (ctl_control_open_agent(run_dir, &p->agent, &p->agent_err) < 0)
		return;
	if (ctl_run_path(run_dir, "agent.sock", path, &p->agent_err) < 0 ||
		ctl_fetch_status(path, WD_MSG_STATUS, &text, &p->agent_err) < 0)
		return;
	p->status = json_loads(text, 0, NULL);
}

int warm_places_open(struct warm_places *p, const char *run_dir, const char *mountinfo, struct wd_err *err)
{
	*p = (struct warm_places){.agent_err = WD_ERR_INIT};
	ask_agent(p, run_dir);
	return read_mounts(p, mountinfo, err);
}

void warm_places_close(struct warm_places *p)
{
	for (size_t i = 0; i < p->ntargets; i++) {
		struct warm_target *t = &p->targets[i];

		if (t->control != p->agent)
			ctl_control_free(t->control);
		for (size_t k = 0; k < t->npaths; k++)
			free(t->paths[k]);
		free(t->paths);
		free(t->name);
		free(t->target);
	}
	for (size_t i = 0; i < p->nmounts; i++) {
		free(p->mounts[i].target);
		free(p->mounts[i].root);
		free(p->mounts[i].source);
	}
	free(p->targets);
	free(p->mounts);
	ctl_control_free(p->agent);
	json_decref(p->status);
	*p = (struct warm_places){0};
}

/* The mount at or above path: the nearest, and of those at one place the last, which is on top. */
static const struct seen_mount *mount_above(const struct warm_places *p, const char *path)
{
	const struct seen_mount *best = NULL;

	for (size_t i = 0; i < p->nmounts; i++) {
		if (below(path, p->mounts[i].target) &&
			(!best || strlen(p->mounts[i].target) >= strlen(best->target)))
			best = &p->mounts[i];
	}
	return best;
}

/* Whether the agent knows one mount by that name, and no other: one that was unmounted lives on while it is mounted
 * in another mount namespace, and another may have come to its place. */
static bool agent_has_one(const struct warm_places *p, const char *target)
{
	size_t i, n = 0;
	json_t *mount;

	json_array_foreach(json_object_get(p->status, "mounts"), i, mount)
	{
		const char *text = json_string_value(json_object_get(mount, "target"));

		n += text && !strcmp(text, target);
	}
	return n == 1;
}

/* The agent's mount whose `key` (target or url) is nearest above what. NULL: none. */
static const char *agents_mount(const struct warm_places *p, const char *key, const char *what, const char **ret_rest)
{
	const char *best = NULL;
	size_t i, best_len = 0;
	json_t *mount;

	json_array_foreach(json_object_get(p->status, "mounts"), i, mount)
	{
		const char *text = json_string_value(json_object_get(mount, key));
		const char *target = json_string_value(json_object_get(mount, "target"));
		const char *rest = text && target ? below(what, text) : NULL;

		if (!rest || (best && strlen(text) <= best_len) || !agent_has_one(p, target))
			continue;
		best = target;
		best_len = strlen(text);
		*ret_rest = rest;
	}
	return best;
}

/* ---- targets ---- */

static int new_target(struct warm_places *p, const char *name, const char *target, struct ctl_control *control,
	struct warm_target **ret_target, struct wd_err *err)
{
	struct warm_target *more = realloc(p->targets, (p->ntargets + 1) * sizeof(*more)), *t;

	if (more)
		p->targets = more;
	t = more ? &more[p->ntargets] : NULL;
	if (t) {
		*t = (struct warm_target){.name = strdup(name), .target = strdup(target), .control = control};
		p->ntargets++;
		if (t->name && t->target) {
			*ret_target = t;
			return 0;
		}
	} else if (control != p->agent) {
		ctl_control_free(control);
	}
	return wd_err_sys(err, ENOMEM, "warm '%s'", name);
}

static int target_of_agent(struct warm_places *p, const char *target, struct warm_target **ret_target, struct wd_err *err)
{
	for (size_t i = 0; i < p->ntargets; i++) {
		if (p->targets[i].control == p->agent && !strcmp(p->targets[i].target, target)) {
			*ret_target = &p->targets[i];
			return 0;
		}
	}
	return new_target(p, target, target, p->agent, ret_target, err);
}

/* Adds what there is to say of the agent's socket to the failure of a control file. */
static int also_agent(const struct warm_places *p, struct wd_err *err)
{
	int code = err->code;
	char text[sizeof(err->msg)];

	if (p->agent || (p->agent_err.code != EACCES && p->agent_err.code != EPERM))
		return -code;
	snprintf(text, sizeof(text), "%s", err->msg);
	return wd_err_set(err, code, "%.380s; the agent's own socket is not for this user: run it as root", text);
}

static int target_of_mount(
	struct warm_places *p, const char *mountpoint, struct warm_target **ret_target, struct wd_err *err)
{
	struct ctl_control *control;

	for (size_t i = 0; i < p->ntargets; i++) {
		if (p->targets[i].control != p->agent && !strcmp(p->targets[i].name, mountpoint)) {
			*ret_target = &p->targets[i];
			return 0;
		}
	}
	if (ctl_control_open_mount(mountpoint, &control, err) < 0)
		return also_agent(p, err);
	return new_target(p, mountpoint, "", control, ret_target, err);
}

/* How to ask for the mount that is seen at m: as the agent's, else through the control file at its root. */
static int target_of_seen(
	struct warm_places *p, const struct seen_mount *m, struct warm_target **ret_target, struct wd_err *err)
{
	const struct seen_mount *root = NULL;

	for (size_t i = 0; i < p->nmounts; i++) {
		const struct seen_mount *other = &p->mounts[i];

		if (other->major != m->major || other->minor != m->minor || strcmp(other->root, "/") != 0)
			continue;
		root = other;
		if (p->agent && agent_has_one(p, other->target))
			return target_of_agent(p, other->target, ret_target, err);
	}
	if (root && !strcmp(m->root, "/"))
		root = m;
	if (root)
		return target_of_mount(p, root->target, ret_target, err);
	return wd_err_set(err, EOPNOTSUPP,
		"'%s' is a part of its volume (a subPath), and the volume's root, where it is controlled, is not to be "
		"seen here: mount the whole volume, or warm it on the node",
		m->target);
}

static int add_path(struct warm_target *t, const char *path, struct wd_err *err)
{
	if (!*path) {
		t->is_whole = true;
		return 0;
	}
	if (t->npaths == t->cap) {
		size_t cap = t->cap ? 2 * t->cap : 16;
		char **more = realloc(t->paths, cap * sizeof(*more));

		if (!more)
			return wd_err_sys(err, ENOMEM, "warm '%s'", path);
		t->paths = more;
		t->cap = cap;
	}
	t->paths[t->npaths] = strdup(path);
	if (!t->paths[t->npaths])
		return wd_err_sys(err, ENOMEM, "warm '%s'", path);
	t->npaths++;
	return 0;
}

/* ---- from texts to targets ---- */

static int refuse_path(const struct warm_places *p, const char *path, struct wd_err *err)
{
	if (p->agent || p->nmounts > 0)
		return wd_err_set(err, ENOENT, "not inside a WarpDrive mount");
	return wd_err_set(err, ENOENT, "not inside a WarpDrive mount, and no agent can be asked: %.300s",
		p->agent_err.msg);
}

/* *ret_rest is the path below the target's root, with room for PATH_MAX bytes. */
static int find_path(struct warm_places *p, const char *path, struct warm_target **ret_target, char *ret_rest,
	struct wd_err *err)
{
	const struct seen_mount *m = mount_above(p, path);
	const char *rest, *target;

	if (m) {
		char inside[PATH_MAX];

		if (!warm_normalise(m->root, below(path, m->target), inside))
			return wd_err_sys(err, ENAMETOOLONG, "its path");
		memcpy(ret_rest, inside + 1, strlen(inside));
		return target_of_seen(p, m, ret_target, err);
	}
	target = p->agent ? agents_mount(p, "target", path, &rest) : NULL;
	if (!target)
		return refuse_path(p, path, err);
	snprintf(ret_rest, PATH_MAX, "%s", rest);
	return target_of_agent(p, target, ret_target, err);
}

static int find_url(struct warm_places *p, const char *url, struct warm_target **ret_target, char *ret_rest,
	struct wd_err *err)
{
	const char *rest = NULL, *target = p->agent ? agents_mount(p, "url", url, &rest) : NULL;

	if (target && snprintf(ret_rest, PATH_MAX, "%s", rest) < PATH_MAX)
		return target_of_agent(p, target, ret_target, err);
	for (size_t i = 0; i < p->nmounts; i++) {
		rest = below(url, p->mounts[i].source);
		/* of a part it is not known whether the rest lies in it: its root is what counts */
		if (rest && snprintf(ret_rest, PATH_MAX, "%s", rest) < PATH_MAX)
			return target_of_seen(p, &p->mounts[i], ret_target, err);
	}
	return wd_err_set(err, ENOENT, "not mounted on this node: mount it first%s%.200s",
		p->agent ? "" : "; no agent can be asked: ", p->agent ? "" : p->agent_err.msg);
}

/* With is_looked_at links are followed, and what is not there is an error. */
static int find(struct warm_places *p, const char *what, bool is_looked_at, struct warm_target **ret_target,
	char *ret_rest, struct wd_err *err)
{
	char path[PATH_MAX], resolved[PATH_MAX], cwd[PATH_MAX] = "/";

	if (is_url(what)) {
		size_t len = strlen(what);

		if (len >= sizeof(path))
			return wd_err_sys(err, ENAMETOOLONG, "its URL");
		while (len > 0 && what[len - 1] == '/')
			len--;
		memcpy(path, what, len);
		path[len] = '\0';
		return find_url(p, path, ret_target, ret_rest, err);
	}
	if (*what != '/' && !getcwd(cwd, sizeof(cwd)))
		return wd_err_sys(err, errno, "where this process stands");
	if (!warm_normalise(cwd, what, path))
		return wd_err_sys(err, ENAMETOOLONG, "its path");
	/* of a list only what is in no mount by its text may be a link into one */
	if ((is_looked_at || !mount_above(p, path)) && realpath(path, resolved)) {
		snprintf(path, sizeof(path), "%s", resolved);
	} else if (is_looked_at && errno != EACCES && (mount_above(p, path) || !p->status)) {
		/* one that only the agent sees is left to it, and so is one that the origin denies */
		return wd_err_sys(err, errno, "look for it");
	}
	return find_path(p, path, ret_target, ret_rest, err);
}

int warm_places_add(struct warm_places *p, const char *what, struct wd_err *err)
{
	struct warm_target *t;
	char rest[PATH_MAX];
	int r = find(p, what, true, &t, rest, err);

	if (r == 0)
		r = add_path(t, rest, err);
	return r < 0 ? wd_err_wrap(err, "'%s'", what) : 0;
}

/* base is the target's index and the path below its root ("/..."), or NULL */
static int add_line(struct warm_places *p, const char *line, const size_t *base, const char *base_path, struct wd_err *err)
{
	struct warm_target *t;
	char path[PATH_MAX];
	int r;

	if (!base || *line == '/' || is_url(line)) {
		r = find(p, line, false, &t, path, err);
		return r < 0 ? r : add_path(t, path, err);
	}
	if (!warm_normalise(base_path, line, path))
		return wd_err_sys(err, ENAMETOOLONG, "its path");
	return add_path(&p->targets[*base], path + 1, err);
}

int warm_places_add_lines(struct warm_places *p, const char *base, FILE *in, struct wd_err *err)
{
	wd_autofree char *line = NULL;
	struct warm_target *t;
	char rest[PATH_MAX], base_path[PATH_MAX];
	size_t cap = 0, at = 0;
	ssize_t n;
	int r = base ? find(p, base, true, &t, rest, err) : 0;

	if (r < 0)
		return wd_err_wrap(err, "'%s'", base);
	if (base) {
		at = (size_t)(t - p->targets);
		if (!warm_normalise("/", rest, base_path))
			return wd_err_sys(err, ENAMETOOLONG, "'%s'", base);
	}
	while (r == 0 && (n = getline(&line, &cap, in)) >= 0) {
		if (n > 0 && line[n - 1] == '\n')
			line[--n] = '\0';
		if (n > 0)
			r = add_line(p, line, base ? &at : NULL, base_path, err);
	}
	if (r < 0)
		return wd_err_wrap(err, "'%.200s'", line);
	return ferror(in) ? wd_err_sys(err, EIO, "read the list of paths") : 0;
}
