/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The struct files: nodes about which the agent is being asked, or which are open through the server, and the data
 * that it gave for them. All under server.lock.
 */
#include "fuse/server.h"

#include <stdlib.h>

static struct file **bucket_of(uint64_t node)
{
	return &server.buckets[node & (FILE_BUCKETS - 1)];
}

struct file *file_find_locked(uint64_t node)
{
	struct file *f = *bucket_of(node);

	while (f && f->node != node)
		f = f->next;
	return f;
}

struct file *file_get_locked(uint64_t node)
{
	struct file *f = file_find_locked(node);

	if (f)
		return f;
	f = calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	f->node = node;
	f->hinted = UINT64_MAX;
	link_init(&f->out.link);
	link_init(&f->waiters);
	link_init(&f->unopened);
	f->next = *bucket_of(node);
	*bucket_of(node) = f;
	return f;
}

struct data *file_take_data_locked(struct file *file)
{
	struct data *data = file->data;

	if (data)
		server.nfiles--;
	file->data = NULL;
	file->is_ready = false;
	unopened_forget_locked(file);
	return data;
}

void file_put_locked(struct file *file)
{
	struct file **at = bucket_of(file->node);

	if (file->is_asking || file->is_ready || !link_is_empty(&file->waiters))
		return;
	while (*at != file)
		at = &(*at)->next;
	*at = file->next;
	link_remove(&file->out.link);
	unopened_forget_locked(file);
	free(file);
}

struct data *file_give_data_locked(struct file *file, struct data *data)
{
	struct data *old = file_take_data_locked(file);

	if (data && server.nfiles >= server.files_max) {
		data_unref(old);
		old = data; /* descriptors are short: its reads ask the agent for the bytes */
		data = NULL;
	}
	file->data = data;
	file->is_ready = true;
	if (data)
		server.nfiles++;
	return old;
}
