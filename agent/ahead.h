/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_AHEAD_H
#define WD_AGENT_AHEAD_H
/*
 * Files that are fetched before they are opened: what agent/runs.h says of the opens in a directory, done.
 *
 * A directory is a dataset's; all mounts of the dataset feed it. From the second open on its names are read from the
 * metadata, on a worker; where it was never listed and the names that were opened differ by a number alone, it is
 * listed first. What is to be fetched is bound as an open would bind it and wished for (agent/fetch.h) in the class
 * below the streams: such a file is whole when it is opened, and goes by passthrough. What is in the cache costs
 * nothing; a directory in which all is, is left alone for a while. A file above `small-object-size` is fetched only
 * where the files that were opened before it, and not fetched ahead, were read by half at least, and if it takes no more
 * than a quarter of the cache: files that are opened in order may be read at random.
 *
 * Bounds: AHEAD_DIRS directories and AHEAD_FILES names are known, the least recently used are forgotten;
 * AHEAD_FLIGHT files are under way; of one directory `directory-window` bytes that nobody opened yet, at most an
 * eighth of the cache, and of a set without order nothing unless the cache has room for all. A directory in which nothing was opened for a minute, or whose mounts are gone, gives back
 * what has not begun. After a failure, or where the cache has no room, a directory pauses.
 *
 * Thread-safe. Its lock is a leaf, but for that of its own jobs.
 */
#include <stdbool.h>
#include <stdint.h>

#include "agent/tree.h"

#define AHEAD_DIRS 128
#define AHEAD_FILES (1u << 20)
#define AHEAD_FLIGHT 512

struct agent;
struct ahead;
struct mount;

/* NULL: out of memory. */
struct ahead *ahead_new(struct agent *a);
/* Cancels what is under way and joins the workers; nothing begins any more. */
void ahead_stop(struct ahead *h);
/* No transfer may be under way any more. NULL is fine. */
void ahead_free(struct ahead *h);

/* Somebody opens this file of mnt. Never blocks. */
void ahead_opened(struct mount *mnt, const struct node *node);
/* The last mount of a dataset is gone. */
void ahead_drop(struct ahead *h, const struct dataset *ds);

#endif
