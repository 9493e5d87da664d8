/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_SETTINGS_H
#define WD_AGENT_SETTINGS_H
/*
 * The agent's settings, from defaults, /etc/warpdrive/agent.yaml and --set, in this order. Sizes are
 * bytes, times milliseconds. The table in settings.c has names, ranges and help.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"

struct settings {
	char *run_dir, *cache_dir, *http_listen, *server_program;
	int64_t cache_size, free_space_floor, memory_limit, scrub_rate, scrub_interval;
	int64_t metadata_ttl, negative_ttl, request_deadline, stall_timeout, proof_ttl, give_up;
	int64_t small_object_size, prefetch_window, directory_window, prefetch_budget, max_get_size, bandwidth_limit;
	int64_t transfer_threads, max_transfers, metadata_workers, list_after_lookups, pooled_files;
	bool socket_for_group;
	char *kubernetes, *allowed_origins, *blocked_addresses, *allowed_addresses; /* origin_policy.h */
	char *eviction_policy; /* evict.h */
	char *pinned;	       /* pins.h */
	char *prefetch;	       /* mount_options.h */
	char *profile;	       /* profile.h */
	char *status_page;     /* http.h */
	char *access_log;     /* access_log.h */
	int64_t access_log_one_in, access_log_size;
	char *node_identity, *sts_endpoint; /* credentials.h */
};

extern const struct wd_config_key settings_keys[];

#endif
