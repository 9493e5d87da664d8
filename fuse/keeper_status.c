/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper's status as JSON, printed by hand: one object per mount.
 */
#include "fuse/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/utf8.h"

static const char *const state_names[] = {
	[MOUNT_ASKED] = "asked",
	[MOUNT_STARTING] = "starting",
	[MOUNT_SERVING] = "serving",
	[MOUNT_LINGERING] = "lingering",
	[MOUNT_ENDING] = "ending",
	[MOUNT_LOST] = "lost",
};

static void put_string(FILE *f, const char *s)
{
	fputc('"', f);
	while (*s) {
		uint32_t code;
		unsigned len = wd_utf8_decode(s, &code);

		if (*s == '"' || *s == '\\')
			fprintf(f, "\\%c", *s++);
		else if (len == 0 || code < 0x20 || code == 0x7f)
			fprintf(f, "\\u%04x", (unsigned char)*s++); /* no text: U+0080..00FF */
		else
			for (; len > 0; len--)
				fputc(*s++, f);
	}
	fputc('"', f);
}

static void put_mount(FILE *f, const struct keeper *k, const struct mount *m)
{
	fprintf(f, "{\"id\":%llu,\"target\":", (unsigned long long)m->id);
	put_string(f, m->target);
	fprintf(f, ",\"dataset\":");
	put_string(f, m->dataset ? m->dataset : "");
	fprintf(f,
		",\"state\":\"%s\",\"server_pid\":%d,\"server_is_stopped\":%s,\"server_timeout_ms\":%lld,"
		"\"restarts\":%u,\"backing_ids\":%u,\"device\":\"%u:%u\",\"program\":\"%.12s\"}",
		state_names[m->state], (int)m->pid, m->stopped_at_ns ? "true" : "false",
		(long long)(watch_hang_timeout(k, m) / 1000000), m->restarts, m->backings, m->major,
		m->minor, m->program ? m->program->id : "");
}

static void put_counters(FILE *f, const struct keeper *k)
{
	static const char *const names[] = {
#define S(name, metric, unit, help) #name,
		WD_KEEPER_STATS(S)
#undef S
	};

	for (int i = 0; i < WD_KEEPER_STATS_COUNT; i++)
		fprintf(f, "%c\"%s\":%llu", i == 0 ? '{' : ',', names[i],
			(unsigned long long)k->stats[i]);
	fputc('}', f);
}

int status_memfd(const struct keeper *k, struct wd_err *err)
{
	int fd = memfd_create("warpdrive-status", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	FILE *f;
	bool bad;

	if (fd < 0)
		return wd_err_sys(err, errno, "make a memfd for the status");
	f = fdopen(dup(fd), "w");
	if (!f) {
		close(fd);
		return wd_err_sys(err, ENOMEM, "write the status");
	}
	fprintf(f, "{\"version\":");
	put_string(f, WD_VERSION);
	fprintf(f, ",\"pid\":%d,\"agent\":\"%s\",\"counters\":", (int)getpid(),
		k->agent_state == AGENT_CONNECTED ? "connected" : "away");
	put_counters(f, k);
	fprintf(f, ",\"mounts\":[");
	for (const struct mount *m = k->mounts; m; m = m->next) {
		put_mount(f, k, m);
		if (m->next)
			fputc(',', f);
	}
	fprintf(f, "]}\n");
	bad = ferror(f);
	if (fclose(f) != 0 || bad) {
		close(fd);
		return wd_err_sys(err, EIO, "write the status");
	}
	lseek(fd, 0, SEEK_SET);
	fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	return fd;
}
