/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache directory as the agent sees it, and the origins as each mount's own credentials see
 * them: both from the agent's answers to CHECK.
 */
#include <errno.h>
#include <string.h>

#include "common/config.h"
#include "warm-job/ctl_doctor.h"

#define SKEW_WARN_S 30	/* names and dates get confusing */
#define SKEW_FAIL_S 300 /* signatures are refused from 5 minutes (Azure, tokens) or 15 (S3) on */

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static uint64_t number_of(const json_t *object, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(object, key));

	return n > 0 ? (uint64_t)n : 0;
}

/* A file that the kernel may open under FUSE: not one that is stacked itself. */
static bool takes_passthrough(const char *fs_type)
{
	static const char *const bad[] = {"overlay", "fuse", "ecryptfs"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (!strcmp(fs_type, bad[i]))
			return false;
	}
	return true;
}

static bool is_remote(const char *fs_type)
{
	static const char *const remote[] = {"nfs", "cifs", "smb2", "ceph", "9p", "lustre"};

	for (size_t i = 0; i < sizeof(remote) / sizeof(remote[0]); i++) {
		if (!strcmp(fs_type, remote[i]))
			return true;
	}
	return false;
}

static void check_type(struct doctor *d, const char *dir, const char *fs_type)
{
	if (!takes_passthrough(fs_type))
		doctor_note(d, DOCTOR_FAIL, "cache file system",
			"put the cache on a local disk's own file system (ext4, xfs): cache-dir, "
			"or a hostPath volume",
			"'%s' is on %s: the kernel allows no passthrough from there", dir, fs_type);
	else if (is_remote(fs_type))
		doctor_note(d, DOCTOR_WARN, "cache file system", "choose a local disk: cache-dir",
			"'%s' is on %s: a cache is worth having where it is nearer than the origin",
			dir, fs_type);
	else
		doctor_note(d, DOCTOR_OK, "cache file system", NULL, "%s", fs_type);
}

static void check_room(struct doctor *d, const json_t *cache, const char *dir)
{
	uint64_t free_bytes = number_of(cache, "free_bytes"),
		 floor_bytes = number_of(cache, "floor_bytes"),
		 limit = number_of(cache, "limit_bytes"), used = number_of(cache, "used_bytes");
	char free_text[24], floor_text[24], limit_text[24], used_text[24];

	wd_format_size(free_bytes, free_text, sizeof(free_text));
	wd_format_size(floor_bytes, floor_text, sizeof(floor_text));
	wd_format_size(limit, limit_text, sizeof(limit_text));
	wd_format_size(used, used_text, sizeof(used_text));
	if (free_bytes < floor_bytes || free_bytes == 0)
		doctor_note(d, DOCTOR_FAIL, "cache space",
			"free space on that disk, or lower free-space-floor or cache-size",
			"full: '%s' has %s free, the floor is %s: little or nothing new is cached, "
			"reads go to the origin",
			dir, free_text, floor_text);
	else if (used + (free_bytes - floor_bytes) < limit / 4)
		doctor_note(d, DOCTOR_WARN, "cache space",
			"lower cache-size, or give the cache a disk of its own",
			"%s of %s used, but only %s free: others fill the disk", used_text,
			limit_text, free_text);
	else
		doctor_note(d, DOCTOR_OK, "cache space", NULL, "%s of %s used, %s free", used_text,
			limit_text, free_text);
}

void doctor_check_cache(struct doctor *d)
{
	const json_t *cache = json_object_get(d->agent_check.json, "cache");
	const char *dir = text_of(cache, "dir"), *error = text_of(cache, "error");

	if (!cache)
		return; /* "agent" or "settings" said why */
	if (*error) {
		doctor_note(d, DOCTOR_FAIL, "cache directory",
			"the disk must be mounted there and belong to the agent's user; the agent "
			"serves uncached meanwhile",
			"'%s': %s", dir, error);
		return;
	}
	doctor_note(d, DOCTOR_OK, "cache directory", NULL, "'%s' is writable", dir);
	check_type(d, dir, text_of(cache, "fs_type"));
	check_room(d, cache, dir);
	if (json_is_true(json_object_get(cache, "is_broken")))
		doctor_note(d, DOCTOR_FAIL, "cache disk",
			"look at the kernel's log for the disk; the agent tries again by itself",
			"'%s' gives errors (%llu so far): reads go past the cache", dir,
			(unsigned long long)number_of(cache, "io_errors"));
	else if (number_of(cache, "io_errors"))
		doctor_note(d, DOCTOR_WARN, "cache disk", "look at the kernel's log for the disk",
			"'%s' gave %llu errors since the agent's start", dir,
			(unsigned long long)number_of(cache, "io_errors"));
	else
		doctor_note(d, DOCTOR_OK, "cache disk", NULL, "no errors");
	if (json_is_true(json_object_get(cache, "was_unclean")))
		doctor_note(d, DOCTOR_WARN, "cache state",
			"nothing to do: objects are verified as they are used",
			"the machine went down without a clean end before this start");
	else
		doctor_note(d, DOCTOR_OK, "cache state", NULL, "clean");
}

/* ---- origins ---- */

static const char *remedy_of(int64_t status)
{
	switch (status) {
	case -EACCES:
		return "check the mount's credentials and what they may do; umount and mount again "
		       "with new ones";
	case -ENOENT:
		return "check the URL, the bucket's name and the endpoint";
	case -ETIMEDOUT:
		return "check network, proxy and firewall between this node and the origin";
	default:
		return "check that the origin runs and that this node reaches it; reads of what is "
		       "cached go on";
	}
}

static void check_clock(struct doctor *d, const json_t *origin, const char *target)
{
	const json_t *skew = json_object_get(origin, "clock_skew_s");
	char subject[4200];
	json_int_t n;

	if (!json_is_integer(skew))
		return;
	snprintf(subject, sizeof(subject), "clock against origin of %s", target);
	n = json_integer_value(skew);
	if (n < 0)
		n = -n;
	if (n < SKEW_WARN_S)
		doctor_note(d, DOCTOR_OK, subject, NULL, "within %d s", SKEW_WARN_S);
	else
		doctor_note(d, n < SKEW_FAIL_S ? DOCTOR_WARN : DOCTOR_FAIL, subject,
			"synchronise the clock (`timedatectl`, chrony)",
			"this machine's clock is %lld s %s%s", (long long)n,
			json_integer_value(skew) > 0 ? "behind" : "ahead",
			n < SKEW_FAIL_S ? "" : ": signed requests are refused");
}

void doctor_check_origins(struct doctor *d)
{
	size_t i;
	json_t *origin;

	json_array_foreach(d->origins, i, origin)
	{
		const char *target = text_of(origin, "target"), *text = text_of(origin, "text");
		json_int_t status = json_integer_value(json_object_get(origin, "status"));
		char subject[4200];

		snprintf(subject, sizeof(subject), "origin of %s", target);
		if (status == 0)
			doctor_note(d, DOCTOR_OK, subject, NULL, "'%s' answers, access allowed",
				text_of(origin, "url"));
		else
			doctor_note(d, DOCTOR_FAIL, subject, remedy_of(status), "%s",
				*text ? text : strerror((int)-status));
		check_clock(d, origin, target);
	}
}
