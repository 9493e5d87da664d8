/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `warpdrive-ctl dataset pin DIR NAME`: walks a mount and writes down what it finds. The versions come from the
 * mount's own attribute user.warpdrive.version. The file appears under its name when it is whole.
 */
#include <errno.h>
#include <fts.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "warm-job/ctl_dataset.h"

#define PROGRESS_FILES 1000
#define NAME_LONGEST 128

struct pin {
	FILE *out;
	size_t dir_len; /* of the walked directory's path, with the "/" behind it */
	unsigned long long nfiles, nbytes, nplain; /* plain: without an ETag */
	bool has_progress;
};

static const struct option long_options[] = {
	{"help", no_argument, NULL, 'h'},
	{"output", required_argument, NULL, 'o'},
	{NULL, 0, NULL, 0},
};

static void format_time(const struct timespec *t, char out[40])
{
	struct tm tm;
	size_t len;

	gmtime_r(&t->tv_sec, &tm);
	len = strftime(out, 40, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out + len, 40 - len, ".%09ldZ", t->tv_nsec);
}

/* The ETag, or "" where the origin gave none. -errno. */
static int read_etag(const char *path, char out[256])
{
	ssize_t n = lgetxattr(path, "user.warpdrive.version", out, 255);

	if (n < 0)
		return -errno;
	out[n] = '\0';
	if (out[0] != '"' && strncmp(out, "W/\"", 3) != 0)
		out[0] = '\0'; /* a time */
	return 0;
}

static int write_line(struct pin *pin, const FTSENT *e, const char *etag, struct wd_err *err)
{
	const char *slash = e->fts_info == FTS_D ? "/" : "";
	char key[PATH_MAX + 2], mtime[40];
	json_t *line;
	int rc;

	snprintf(key, sizeof(key), "%s%s", e->fts_path + pin->dir_len, slash);
	format_time(&e->fts_statp->st_mtim, mtime);
	line = json_pack("{s:s, s:I, s:s}", "key", key, "size", (json_int_t)(*slash ? 0 : e->fts_statp->st_size), "mtime",
		mtime);
	if (!line)
		return wd_err_set(err, EILSEQ, "'%s': the name is not UTF-8, and a manifest could not hold it", e->fts_path);
	if (etag[0])
		json_object_set_new(line, "etag", json_string(etag));
	rc = json_dumpf(line, pin->out, JSON_COMPACT | JSON_PRESERVE_ORDER) < 0 || putc('\n', pin->out) == EOF;
	json_decref(line);
	return rc ? wd_err_sys(err, errno, "write the manifest") : 0;
}

static int take_file(struct pin *pin, const FTSENT *e, struct wd_err *err)
{
	char etag[256];
	int rc = read_etag(e->fts_path, etag);

	if (rc < 0)
		return wd_err_sys(err, -rc, "ask for the version of '%s'", e->fts_path);
	pin->nfiles++;
	pin->nbytes += (unsigned long long)e->fts_statp->st_size;
	pin->nplain += etag[0] == '\0';
	if (pin->has_progress && pin->nfiles % PROGRESS_FILES == 0)
		fprintf(stderr, "\r%llu files", pin->nfiles);
	return write_line(pin, e, etag, err);
}

/* A directory that nothing else tells of has a line of its own. */
static bool is_empty(FTS *fts)
{
	errno = 0;
	return !fts_children(fts, FTS_NAMEONLY) && errno == 0;
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int walk(struct pin *pin, char *dir, struct wd_err *err)
{
	char *paths[] = {dir, NULL};
	FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, by_name);
	FTSENT *e;
	int rc = 0;

	if (!fts)
		return wd_err_sys(err, errno, "walk '%s'", dir);
	while (rc == 0 && (e = fts_read(fts))) {
		if (e->fts_info == FTS_F)
			rc = take_file(pin, e, err);
		else if (e->fts_info == FTS_D && e->fts_level > 0 && is_empty(fts))
			rc = write_line(pin, e, "", err);
		else if (e->fts_info == FTS_DNR || e->fts_info == FTS_ERR || e->fts_info == FTS_NS)
			rc = wd_err_sys(err, e->fts_errno, "look at '%s'", e->fts_path);
	}
	if (rc == 0 && errno)
		rc = wd_err_sys(err, errno, "walk '%s'", dir);
	fts_close(fts);
	if (pin->has_progress)
		fputs("\r\033[K", stderr);
	return rc;
}

/* Writes it beside `path` and renames it. */
static int make(struct pin *pin, char *dir, const char *path, struct wd_err *err)
{
	wd_autofree char *temp = NULL;
	int rc;

	if (asprintf(&temp, "%s.part", path) < 0)
		return wd_err_sys(err, ENOMEM, "write '%s'", path);
	pin->out = fopen(temp, "we");
	if (!pin->out)
		return wd_err_sys(err, errno, "write '%s'", temp);
	rc = walk(pin, dir, err);
	if (rc == 0 && (fflush(pin->out) != 0 || fsync(fileno(pin->out)) < 0))
		rc = wd_err_sys(err, errno, "write '%s'", temp);
	if (fclose(pin->out) != 0 && rc == 0)
		rc = wd_err_sys(err, errno, "write '%s'", temp);
	if (rc == 0 && rename(temp, path) < 0)
		rc = wd_err_sys(err, errno, "rename '%s' to '%s'", temp, path);
	if (rc < 0)
		unlink(temp);
	return rc;
}

/* The URL of a mounted directory, ending with "/". */
static int find_url(const char *dir, char out[4096], struct wd_err *err)
{
	ssize_t n = getxattr(dir, "user.warpdrive.origin", out, 4094);

	if (n < 0 && (errno == ENODATA || errno == ENOTSUP))
		return wd_err_set(err, ENOTSUP, "not in a WarpDrive mount: `warpdrive-ctl status` lists them");
	if (n <= 0)
		return wd_err_sys(err, n < 0 ? errno : EPROTO, "ask for its origin");
	out[n] = '\0';
	if (out[n - 1] != '/')
		strcpy(out + n, "/");
	return 0;
}

static bool is_version_name(const char *name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";

	return name[0] && name[0] != '.' && strlen(name) <= NAME_LONGEST && strspn(name, allowed) == strlen(name);
}

static void tell(const struct pin *pin, const char *url, const char *name, const char *path)
{
	printf("%s: %llu files, %llu bytes\n", path, pin->nfiles, pin->nbytes);
	if (pin->nplain)
		ctl_warn("%llu files have no ETag at their origin: what tells their versions apart is size and time",
			pin->nplain);
	printf("Put it to %s.warpdrive/versions/%s.jsonl and mount with\n  -o version=%s\n", url, name, name);
}

static enum ctl_exit pin_dir(const char *given, const char *name, const char *path)
{
	struct pin pin = {.has_progress = isatty(STDERR_FILENO)};
	struct wd_err err = WD_ERR_INIT;
	char url[4096], dir[PATH_MAX];
	int rc = realpath(given, dir) ? 0 : wd_err_sys(&err, errno, "find it");

	if (rc == 0)
		rc = find_url(dir, url, &err);
	pin.dir_len = strlen(dir) + 1;
	if (rc == 0)
		rc = make(&pin, dir, path, &err);
	if (rc < 0) {
		ctl_error("pin '%s': %s", given, err.msg);
		return CTL_FAILED;
	}
	tell(&pin, url, name, path);
	return CTL_DONE;
}

enum ctl_exit ctl_dataset_pin(const struct ctl_command *self, int argc, char **argv)
{
	const char *output = NULL;
	char path[NAME_LONGEST + 16];
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":ho:", long_options, NULL)) != -1) {
		switch (c) {
		case 'h':
			return ctl_print_help(self);
		case 'o':
			output = optarg;
			break;
		case ':':
			return ctl_usage(self, "'%.20s' needs a value", argv[optind - 1]);
		default:
			return ctl_usage(self, "unknown option '%.20s'", argv[optind - 1]);
		}
	}
	if (argc - optind != 2)
		return ctl_usage(self, "pin needs a mounted directory and a name for the version");
	if (!is_version_name(argv[optind + 1]))
		return ctl_usage(self,
			"version '%.64s': a name of letters, digits, '.', '_' and '-' that does not begin with '.'",
			argv[optind + 1]);
	snprintf(path, sizeof(path), "%s.jsonl", argv[optind + 1]);
	return pin_dir(argv[optind], argv[optind + 1], output ? output : path);
}
