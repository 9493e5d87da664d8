/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control API's view of a directory: names as the mount shows them, and how much of each is in the cache. Answers
 * are pages: as many names as fit into a control file's frame, or as could be summed up in a few seconds.
 */
#include <errno.h>
#include <string.h>

#include "agent/control_internal.h"
#include "agent/pins.h"
#include "common/cleanup.h"
#include "common/lock.h"

#define PAGE_NAMES 64
#define PAGE_BYTES 12000
#define ENTRY_BYTES 64 /* of one in an answer, without its name */
#define PAGE_NS 5000000000LL

typedef Warpdrive__V1__FileEntry Entry;

struct page {
	unsigned n;
	size_t bytes;
	bool is_full;
	struct page_name {
		uint64_t cookie;
		struct node node;
		char name[TREE_NAME_MAX + 1];
	} names[PAGE_NAMES];
};

static bool collect(void *arg, uint64_t cookie, const char *name, const struct node *node)
{
	struct page *page = arg;
	struct page_name *p = &page->names[page->n++];

	p->cookie = cookie;
	p->node = *node;
	snprintf(p->name, sizeof(p->name), "%s", name);
	page->bytes += strlen(name) + ENTRY_BYTES;
	page->is_full = page->n == PAGE_NAMES || page->bytes > PAGE_BYTES;
	return !page->is_full;
}

static void fill_file(struct mount *mnt, const struct node *node, Entry *e)
{
	struct store *store = mnt->agent->store;
	struct object_id id;

	tree_object_id(mnt->dataset, node, &id);
	store_peek(store, &id, node->version.size, &e->cached);
	e->size = node->version.size;
	e->files = 1;
	e->is_whole = true;
	e->mtime = node->version.mtime_s;
	e->is_pinned = store_pin_of(store, &id) != STORE_UNPINNED;
}

static bool fill_directory(struct mount *mnt, const struct node *node, Entry *e)
{
	struct dataset_totals sum;

	if (tree_sum(mnt->dataset, node->node, mnt->agent->store, false, &sum) < 0)
		return false;
	e->is_directory = true;
	e->size = sum.bytes;
	e->cached = sum.cached_bytes;
	e->files = sum.files;
	e->is_whole = sum.is_listed;
	e->is_pinned = pins_match(mnt->agent->pins, mnt->display, node->key) != STORE_UNPINNED;
	return true;
}

static bool add(struct rpc_call *call, struct mount *mnt, const char *name, const struct node *node,
	Warpdrive__V1__ListFilesResponse *out)
{
	Entry *e = arena_alloc(call->arena, sizeof(*e));

	if (!e)
		return false;
	warpdrive__v1__file_entry__init(e);
	e->name = control_text(call, name);
	if (node->is_dir && !fill_directory(mnt, node, e))
		return false;
	if (!node->is_dir)
		fill_file(mnt, node, e);
	out->entries[out->n_entries++] = e;
	return e->name != NULL;
}

static enum rpc_code list_directory(struct rpc_call *call, struct mount *mnt, const struct node *dir, uint64_t after,
	Warpdrive__V1__ListFilesResponse *out)
{
	wd_autofree struct page *page = calloc(1, sizeof(*page));
	int64_t until_ns = wd_now_ns() + PAGE_NS;
	struct wd_err err = WD_ERR_INIT;
	bool is_end = false;
	uint32_t ttl_ms;
	int rc;

	if (!page)
		return control_no_memory(call);
	rc = tree_readdir(mnt->dataset, dir->node, after, mnt->options->metadata_ttl, collect, page, &is_end, &ttl_ms, &err);
	if (rc < 0)
		return rpc_fail(call, rpc_code_of(-rc), "%s", err.msg);
	for (unsigned i = 0; i < page->n; i++) {
		const struct page_name *p = &page->names[i];

		if (!add(call, mnt, p->name, &p->node, out))
			return control_no_memory(call);
		if (rpc_is_cancelled(call))
			return RPC_CANCELLED;
		if ((i + 1 < page->n && wd_now_ns() > until_ns) || (i + 1 == page->n && page->is_full)) {
			out->next = p->cookie;
			break;
		}
	}
	return RPC_OK;
}

enum rpc_code control_list_files(struct rpc_call *call, const void *request, void *response)
{
	const Warpdrive__V1__ListFilesRequest *in = request;
	Warpdrive__V1__ListFilesResponse *out = response;
	struct wd_err err = WD_ERR_INIT;
	struct mount *mnt;
	enum rpc_code code = control_target(call, in->target, &mnt);
	struct node node;
	int rc;

	if (code != RPC_OK)
		return code;
	out->entries = arena_alloc(call->arena, PAGE_NAMES * sizeof(*out->entries));
	rc = out->entries ? tree_find(mnt->dataset, in->path, mnt->options->metadata_ttl, &node, &err) : -ENOMEM;
	if (rc < 0) {
		code = rpc_fail(call, rpc_code_of(-rc), "%s", err.code ? err.msg : strerrordesc_np(-rc));
	} else if (node.is_dir) {
		code = list_directory(call, mnt, &node, in->after, out);
	} else {
		const char *slash = strrchr(in->path, '/');

		code = add(call, mnt, slash ? slash + 1 : in->path, &node, out) ? RPC_OK : control_no_memory(call);
	}
	mount_unref(mnt);
	return code;
}
