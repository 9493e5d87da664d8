/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer target: records of the metadata, as a disk that lies (or another release) may give them
 * back, with a checksum that holds: nodes, children, objects. What is accepted stays within its
 * bounds; a node that is loaded is written and read back as the same.
 */
#include "agent/node_record.h"
#include "agent/store_internal.h"

#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static char dir[] = "/tmp/wd-records-XXXXXX";
static struct meta *meta;

static void require(bool is_so)
{
	if (!is_so)
		abort();
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void tidy_up(void)
{
	meta_close(meta);
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct wd_err err = WD_ERR_INIT;

	require(mkdtemp(dir) != NULL);
	if (meta_open(dir, &meta, &err) < 0) {
		fprintf(stderr, "%s\n", err.msg);
		abort();
	}
	atexit(tidy_up);
	return 0;
}

static void node(const uint8_t *data, size_t size)
{
	struct node n, again;
	struct node_links links, links_again;
	unsigned char key[8];

	key_u64(key, 77);
	meta_put(meta, META_NODES, key, sizeof(key), data, size);
	if (node_load(meta, 77, &n, &links) < 0)
		return;
	require(n.node == 77 && n.key_len <= ORIGIN_KEY_MAX && n.key[n.key_len] == '\0');
	require(strlen(n.version.etag) < ORIGIN_ETAG_MAX);
	if (strlen(n.key) != n.key_len)
		return; /* holds a NUL, which no listing lets through */
	n.node = 78;
	node_save(meta, &n, &links);
	require(node_load(meta, 78, &again, &links_again) == 0);
	require(again.ino == n.ino && again.version.size == n.version.size);
	require(strcmp(again.key, n.key) == 0 && strcmp(again.version.etag, n.version.etag) == 0);
	require(links_again.parent == links.parent && links_again.dataset == links.dataset);
}

static void child(const uint8_t *data, size_t size)
{
	unsigned char key[CHILD_KEY_MAX];
	struct child c;
	size_t len = child_key(key, 5, "name");

	meta_put(meta, META_CHILDREN, key, len, data, size);
	if (child_load(meta, 5, "name", &c) == 0)
		require(size == sizeof(c));
}

static void object(const uint8_t *data, size_t size)
{
	struct record r;
	struct object_id id;

	object_id_make("x", 1, &id);
	meta_put(meta, META_OBJECTS, &id, sizeof(id), data, size);
	if (record_read(meta, &id, &r) == 0)
		require(r.nhashes <= SMALL_BLOCKS);
	if (record_decode(data, size, &r))
		require(r.nhashes <= SMALL_BLOCKS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1 || size - 1 > META_VALUE_MAX)
		return -1;
	switch (data[0] % 3) {
	case 0:
		node(data + 1, size - 1);
		break;
	case 1:
		child(data + 1, size - 1);
		break;
	default:
		object(data + 1, size - 1);
	}
	return 0;
}
