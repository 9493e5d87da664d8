/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_PAGE_H
#define WD_AGENT_PAGE_H
/*
 * The agent's page for people, at "/": datasets with their cached shares, rates, mounts, the last warnings. What is
 * shown is a plain value, bounded, and made to HTML by one function, so that it can be tested without an agent.
 *
 * The page needs no script, refers to nothing outside of itself, and escapes whatever text it is given: URLs, paths and
 * log lines are others' words.
 */
#include <stdio.h>

#include "agent/condition.h"
#include "agent/page_strip.h"
#include "agent/rates.h"
#include "common/log.h"

#define PAGE_DATASETS 50
#define PAGE_MOUNTS 50

struct page_dataset {
	const char *url; /* borrowed */
	uint64_t files, bytes, cached;
	unsigned mounts;
	bool is_listed; /* all of it is known */
	struct page_strip strip;
};

struct page_mount {
	const char *target, *url; /* borrowed */
	bool has_passthrough;
	struct condition condition;
};

struct page {
	int64_t now_s, since_s; /* Unix time: of the page, and when the agent began */
	const char *host, *cache_dir;
	uint64_t used_bytes, limit_bytes, free_bytes, objects;
	const char *cache_trouble; /* NULL: none */
	bool is_counting; /* the datasets' figures are of a part of the files: the first count goes on */

	struct page_dataset datasets[PAGE_DATASETS];
	unsigned ndatasets;
	struct {
		unsigned n;
		uint64_t files, bytes, cached;
	} more_datasets;

	struct page_mount mounts[PAGE_MOUNTS]; /* the ill ones first */
	unsigned nmounts, more_mounts, more_ill;

	struct rates rates;
	struct wd_log_line log[WD_LOG_KEPT]; /* the newest first */
	unsigned nlog;
};

void page_print(const struct page *p, FILE *out);
/* The value of the Content-Security-Policy header: nothing but the page's own style and script. */
#define PAGE_POLICY_MAX 512
void page_policy(char out[PAGE_POLICY_MAX]);

#endif
