/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_PAGE_WALK_H
#define WD_AGENT_PAGE_WALK_H
/*
 * Counting what is known of the mounted datasets and what of it is cached, for the page: a walk over all files that
 * goes on where it stood, for a bounded time at each step. What is shown is the last walk that came to its end.
 */
#include "agent/mount.h"
#include "agent/page.h"

#define PAGE_SETS 1024 /* datasets that are counted at all */

struct page_walk;

struct page_walk *page_walk_new(struct tree *tree, struct store *store);
void page_walk_free(struct page_walk *w);
/* Goes on for about budget_ms; sets are the mounted datasets (n <= PAGE_SETS), each once. True when a walk ended. */
bool page_walk_step(struct page_walk *w, struct dataset *const *sets, unsigned n, int64_t budget_ms);
/* Whether the figures are of a whole walk. */
bool page_walk_is_whole(const struct page_walk *w);
/* Files, bytes and cached of the dataset; with its strip, if it was among the first PAGE_DATASETS. */
void page_walk_look(const struct page_walk *w, const struct dataset *ds, struct page_dataset *ret_d);

#endif
