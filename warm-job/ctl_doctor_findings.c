/* SPDX-License-Identifier: Apache-2.0 */
/* The list of findings, how it is shown, and the small readers of the checks. See ctl_doctor.h. */
#include "warm-job/ctl_doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/utf8.h"

static const char *const words[] = {"ok", "warn", "FAIL"};

static char *clean_copy(const char *text)
{
	char *copy = strdup(text ? text : ""), *p = copy;
	uint32_t code;

	/* a path may hold anything; terminals and JSON do not take it */
	while (p && *p) {
		unsigned len = wd_utf8_decode(p, &code);

		if (len == 0 || code < 0x20 || code == 0x7f)
			*p++ = '?';
		else
			p += len;
	}
	return copy;
}

void doctor_note(struct doctor *d, enum doctor_verdict verdict, const char *subject,
	const char *remedy, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (d->nfindings == d->cap) {
		size_t cap = d->cap ? d->cap * 2 : 64;
		struct doctor_finding *bigger = reallocarray(d->findings, cap, sizeof(*bigger));

		if (!bigger)
			abort(); /* a report with holes would be believed */
		d->findings = bigger;
		d->cap = cap;
	}
	d->findings[d->nfindings++] = (struct doctor_finding){
		verdict, clean_copy(subject), clean_copy(text), clean_copy(remedy)};
}

size_t doctor_count(const struct doctor *d, enum doctor_verdict verdict)
{
	size_t n = 0;

	for (size_t i = 0; i < d->nfindings; i++)
		n += d->findings[i].verdict == verdict;
	return n;
}

void doctor_print(const struct doctor *d, FILE *out)
{
	for (size_t i = 0; i < d->nfindings; i++) {
		const struct doctor_finding *f = &d->findings[i];

		fprintf(out, "%-5s %s: %s%s%s\n", words[f->verdict], f->subject, f->text,
			*f->remedy ? "; " : "", f->remedy);
	}
	fprintf(out, "%zu ok, %zu warnings, %zu failed\n", doctor_count(d, DOCTOR_OK),
		doctor_count(d, DOCTOR_WARN), doctor_count(d, DOCTOR_FAIL));
}

json_t *doctor_to_json(const struct doctor *d)
{
	json_t *checks = json_array();

	for (size_t i = 0; i < d->nfindings; i++) {
		const struct doctor_finding *f = &d->findings[i];
		json_t *one = json_object();

		json_object_set_new(one, "verdict", json_string(words[f->verdict]));
		json_object_set_new(one, "subject", json_string(f->subject));
		json_object_set_new(one, "finding", json_string(f->text));
		json_object_set_new(one, "remedy", json_string(f->remedy));
		json_array_append_new(checks, one);
	}
	return json_pack("{s:o, s:I, s:I, s:I}", "checks", checks, "ok",
		(json_int_t)doctor_count(d, DOCTOR_OK), "warn",
		(json_int_t)doctor_count(d, DOCTOR_WARN), "failed",
		(json_int_t)doctor_count(d, DOCTOR_FAIL));
}

void doctor_done(struct doctor *d)
{
	for (size_t i = 0; i < d->nfindings; i++) {
		free(d->findings[i].subject);
		free(d->findings[i].text);
		free(d->findings[i].remedy);
	}
	free(d->findings);
	json_decref(d->agent.json);
	json_decref(d->keeper.json);
	json_decref(d->agent_check.json);
	json_decref(d->origins);
	*d = (struct doctor){0};
}

/* ---- small files ---- */

int doctor_read(const struct doctor *d, const char *path, char *out, size_t cap)
{
	char full[PATH_MAX];
	size_t got = 0;

	*out = '\0';
	if (snprintf(full, sizeof(full), "%s%s", d->root, path) >= (int)sizeof(full))
		return -ENAMETOOLONG;

	wd_autoclose int fd = open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return -errno;
	while (got < cap - 1) {
		ssize_t n = read(fd, out + got, cap - 1 - got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		got += (size_t)n;
	}
	out[got] = '\0';
	return (int)got;
}

bool doctor_read_number(const struct doctor *d, const char *path, int64_t *ret_n)
{
	char text[64], *end;

	if (doctor_read(d, path, text, sizeof(text)) <= 0)
		return false;

	long long n = strtoll(text, &end, 10);

	if (end == text)
		return false;
	*ret_n = n;
	return true;
}

/* ---- processes ---- */

/* The number behind "Name:" in a text of such lines, in the given base; -1 when there is none. */
static int64_t field_of(const char *text, const char *name, int base)
{
	size_t len = strlen(name);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, name, len) && line[len] == ':')
			return (int64_t)strtoull(line + len + 1, NULL, base);
	}
	return -1;
}

int doctor_process(const struct doctor *d, int64_t pid, struct doctor_process *ret_process)
{
	struct doctor_process p = {.state = '?'};
	char path[64], text[4096];

	/* status and stat, never cmdline or environ: those wait for the process's memory lock */
	snprintf(path, sizeof(path), "/proc/%lld/status", (long long)pid);
	if (pid <= 0 || doctor_read(d, path, text, sizeof(text)) <= 0)
		return -ENOENT;

	const char *state = strstr(text, "\nState:");

	if (state)
		sscanf(state + 7, " %c", &p.state);
	sscanf(text, "Name: %15[^\n]", p.name);
	p.parent = (int)field_of(text, "PPid", 10);
	p.uid = field_of(text, "Uid", 10);
	p.caps = (uint64_t)field_of(text, "CapEff", 16);
	p.seccomp = field_of(text, "Seccomp", 10);
	p.no_new_privs = field_of(text, "NoNewPrivs", 10);
	*ret_process = p;
	return 0;
}
