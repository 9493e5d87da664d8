/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_E2E_S3_LIST_H
#define WD_E2E_S3_LIST_H
/*
 * S3's ListObjectsV2 over a directory: prefix, delimiter "/", pages, and names encoded as in URLs. The whole directory is
 * walked for each page. Left out are symbolic links, and an index.jsonl at the top, which is for readers by HTTP.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

struct s3_object {
	char *key;
	struct stat st;
};

struct s3_keys {
	struct s3_object *list;
	size_t n, room;
};

static inline void s3_walk(struct s3_keys *keys, int parent, const char *name, const char *prefix)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		struct s3_object o = {0};

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
			(!prefix[0] && strcmp(e->d_name, "index.jsonl") == 0) ||
			fstatat(fd, e->d_name, &o.st, AT_SYMLINK_NOFOLLOW) < 0 ||
			asprintf(&o.key, "%s%s%s", prefix, e->d_name, S_ISDIR(o.st.st_mode) ? "/" : "") < 0)
			continue;
		if (S_ISREG(o.st.st_mode)) {
			if (keys->n == keys->room) {
				keys->room = keys->room ? 2 * keys->room : 1024;
				keys->list = realloc(keys->list, keys->room * sizeof(o));
			}
			keys->list[keys->n++] = o;
			continue;
		}
		if (S_ISDIR(o.st.st_mode))
			s3_walk(keys, fd, e->d_name, o.key);
		free(o.key);
	}
	if (dir)
		closedir(dir);
}

static inline int s3_order(const void *a, const void *b)
{
	return strcmp(((const struct s3_object *)a)->key, ((const struct s3_object *)b)->key);
}

/* A parameter of the query, decoded; "" when there is none. */
static inline void s3_parameter(const char *query, const char *name, char *out, size_t cap)
{
	size_t len = strlen(name), n = 0;
	unsigned v;

	for (; query && strncmp(query, name, len) != 0; query = query ? query + 1 : NULL)
		query = strchr(query, '&');
	for (const char *p = query ? query + len : ""; *p && *p != '&' && n + 1 < cap; p++) {
		v = (unsigned char)*p;
		if (*p == '%' && sscanf(p + 1, "%2x", &v) == 1)
			p += 2;
		out[n++] = (char)v;
	}
	out[n] = '\0';
}

static inline void s3_put_name(FILE *out, const char *element, const char *name, size_t len)
{
	fprintf(out, "<%s>", element);
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)name[i];

		if (c > ' ' && c < 0x7f && !strchr("<>&%+\"'", c))
			fputc(c, out);
		else
			fprintf(out, "%%%02X", c);
	}
	fprintf(out, "</%s>", element);
}

static inline void s3_put_object(FILE *out, const struct s3_object *o)
{
	char modified[40];
	struct tm tm;

	strftime(modified, sizeof(modified), "%Y-%m-%dT%H:%M:%S.000Z", gmtime_r(&o->st.st_mtim.tv_sec, &tm));
	fprintf(out, "<Contents>");
	s3_put_name(out, "Key", o->key, strlen(o->key));
	fprintf(out, "<LastModified>%s</LastModified><ETag>&quot;%llx-%llx&quot;</ETag><Size>%lld</Size></Contents>", modified,
		(unsigned long long)o->st.st_mtim.tv_sec, (unsigned long long)o->st.st_size, (long long)o->st.st_size);
}

/* One page of dir for the query of a URL; to be freed. */
static inline char *s3_list(const char *dir, const char *query)
{
	char prefix[1100], hex[2300], token[1200], delimiter[4], most[16], *text = NULL, last[1100] = "";
	struct s3_keys keys = {0};
	unsigned left, n = 0;
	bool is_truncated = false;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	s3_parameter(query, "prefix=", prefix, sizeof(prefix));
	s3_parameter(query, "continuation-token=", hex, sizeof(hex));
	for (n = 0; hex[2 * n] && sscanf(hex + (size_t)2 * n, "%2hhx", &token[n]) == 1; n++)
		;
	token[n] = '\0';
	n = 0;
	s3_parameter(query, "delimiter=", delimiter, sizeof(delimiter));
	s3_parameter(query, "max-keys=", most, sizeof(most));
	left = most[0] ? (unsigned)strtoul(most, NULL, 10) : 1000;
	s3_walk(&keys, AT_FDCWD, dir, "");
	qsort(keys.list, keys.n, sizeof(*keys.list), s3_order);
	fprintf(out, "<?xml version='1.0'?><ListBucketResult><EncodingType>url</EncodingType>");
	for (size_t i = 0; i < keys.n; i++) {
		const struct s3_object *o = &keys.list[i];
		bool is_below = strncmp(o->key, prefix, strlen(prefix)) == 0;
		const char *slash = is_below && delimiter[0] ? strchr(o->key + strlen(prefix), '/') : NULL;
		size_t len = slash ? (size_t)(slash + 1 - o->key) : strlen(o->key);

		/* a directory is named once */
		if (!is_below || strncmp(o->key, token, len) <= 0 ||
			(slash && strlen(last) == len && strncmp(o->key, last, len) == 0))
			continue;
		is_truncated = n == left;
		if (is_truncated)
			break;
		n++;
		snprintf(last, sizeof(last), "%.*s", (int)len, o->key);
		if (!slash) {
			s3_put_object(out, o);
			continue;
		}
		fprintf(out, "<CommonPrefixes>");
		s3_put_name(out, "Prefix", o->key, len);
		fprintf(out, "</CommonPrefixes>");
	}
	fprintf(out, "<IsTruncated>%s</IsTruncated>", is_truncated ? "true" : "false");
	if (is_truncated) {
		fprintf(out, "<NextContinuationToken>");
		for (const char *p = last; *p; p++)
			fprintf(out, "%02x", (unsigned char)*p);
		fprintf(out, "</NextContinuationToken>");
	}
	fprintf(out, "</ListBucketResult>");
	fclose(out);
	for (size_t i = 0; i < keys.n; i++)
		free(keys.list[i].key);
	free(keys.list);
	return text;
}

#endif
