/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_FAMILIES_H
#define WD_AGENT_FAMILIES_H
/*
 * Every family of metrics that the agent exports, declared once: the exporter, docs/metrics.md and the checks of alerts
 * and dashboards come from this table (the keeper's are in common/keeper_stats.h, those of calls in
 * common/rpc_stats.h). Names end with their unit (_bytes, _seconds), counters with _total; agent/test/test_metrics.c
 * holds the table to it. A label has few values: none of them is ever an object's key.
 *
 * Columns: identifier, name, type, unit, labels, help.
 */
#include "common/metrics.h"

/* What readers do. */
#define WD_FAMILIES_READS(F)                                                                                   \
	F(OPENS, "warpdrive_opens_total", WD_COUNTER, "opens", "mode",                                         \
		"Opens of files; reads of passthrough files go through the kernel and are not seen by any daemon") \
	F(HITS, "warpdrive_cache_hits_total", WD_COUNTER, "opens", "",                                         \
		"Opens of files that were in the cache in whole")                                              \
	F(MISSES, "warpdrive_cache_misses_total", WD_COUNTER, "opens", "",                                     \
		"Opens of files of which something was not in the cache")                                      \
	F(HIT_BYTES, "warpdrive_cache_hit_bytes_total", WD_COUNTER, "bytes", "",                               \
		"Bytes that were in the cache when the file they are of was opened")                           \
	F(MISS_BYTES, "warpdrive_cache_miss_bytes_total", WD_COUNTER, "bytes", "",                             \
		"Bytes that were not in the cache when the file they are of was opened, whether they were read or not") \
	F(READ_BYTES, "warpdrive_read_bytes_total", WD_COUNTER, "bytes", "tier",                               \
		"Bytes made available to readers by tier: local counts the sizes of passthrough opens")        \
	F(SERVER_READ_BYTES, "warpdrive_server_read_bytes_total", WD_COUNTER, "bytes", "",                     \
		"Bytes with which the mounts' servers answered reads; of passthrough files there are none")    \
	F(ENSURES, "warpdrive_agent_ensure_requests_total", WD_COUNTER, "reads", "",                           \
		"Reads that had to wait for bytes")                                                            \
	F(READ_WAIT, "warpdrive_read_wait_seconds", WD_HISTOGRAM, "seconds", "",                               \
		"How long reads had to wait for their bytes, of those that had to")                            \
	F(WAITING_READS, "warpdrive_agent_waiting_reads", WD_GAUGE, "reads", "", "Reads that wait for bytes")  \
	F(UNCACHED_BYTES, "warpdrive_agent_uncached_bytes_total", WD_COUNTER, "bytes", "",                     \
		"Bytes read through without being admitted to the cache")                                      \
	F(STREAMS, "warpdrive_read_streams_total", WD_COUNTER, "patterns", "pattern",                          \
		"Patterns found in reads: streams that were read on in sequence or by a fixed stride, files that were " \
		"read at the end first, and single reads that belonged to none")                               \
	F(DIRS, "warpdrive_directory_patterns_total", WD_COUNTER, "patterns", "pattern",                       \
		"Patterns found in the opens of a directory: files one after the other by name, by a fixed step, and " \
		"sets that are read in shuffled order")                                                        \
	F(LOOKUPS, "warpdrive_agent_lookups_total", WD_COUNTER, "lookups", "", "Names looked up by the kernels") \
	F(LOOKUPS_ORIGIN, "warpdrive_agent_lookups_origin_total", WD_COUNTER, "lookups", "",                   \
		"Lookups that had to ask the origin")                                                          \
	F(LISTINGS, "warpdrive_agent_listings_total", WD_COUNTER, "listings", "", "Directory listings fetched") \
	F(NAMES_LEFT_OUT, "warpdrive_agent_names_left_out_total", WD_COUNTER, "keys", "",                      \
		"Keys in listings that POSIX cannot name, or that a directory of the same name hides")         \
	F(STALE_OBJECTS, "warpdrive_agent_stale_objects_total", WD_COUNTER, "objects", "",                     \
		"Objects found changed at the origin while in use")                                            \
	F(BACKING_OPENS, "warpdrive_agent_backing_opens_total", WD_COUNTER, "files", "",                       \
		"Cache files registered for passthrough")                                                      \
	F(BACKING_RECLAIMS, "warpdrive_agent_backing_reclaims_total", WD_COUNTER, "files", "",                 \
		"Idle passthrough registrations taken back before an eviction")

/* What is fetched before somebody asks for it. */
#define WD_FAMILIES_AHEAD(F)                                                                                   \
	F(PREFETCH_BYTES, "warpdrive_prefetch_issued_bytes_total", WD_COUNTER, "bytes", "",                    \
		"Bytes fetched ahead of readers: in the files that they read, and of files before they are opened") \
	F(PREFETCH_USED, "warpdrive_prefetch_used_bytes_total", WD_COUNTER, "bytes", "",                       \
		"Bytes asked ahead that a reader came to while the file was streamed, or that were of a file that was " \
		"then opened")                                                                                 \
	F(PREFETCH_UNUSED, "warpdrive_prefetch_unused_bytes_total", WD_COUNTER, "bytes", "",                   \
		"Bytes fetched ahead that no reader had come to when the file was closed (later opens, and reads by " \
		"passthrough, are not seen here)")                                                             \
	F(PREFETCH_CANCELLED, "warpdrive_prefetch_cancelled_bytes_total", WD_COUNTER, "bytes", "",             \
		"Bytes asked ahead that were given up before they were fetched: the file was closed, or its reader went " \
		"elsewhere")                                                                                   \
	F(PREFETCHING, "warpdrive_agent_prefetch_bytes", WD_GAUGE, "bytes", "", "Bytes of prefetch under way") \
	F(AHEAD, "warpdrive_ahead_bytes_total", WD_COUNTER, "bytes", "class", "Bytes fetched of files that nobody read yet") \
	F(AHEAD_FILES, "warpdrive_prefetch_files_total", WD_COUNTER, "files", "outcome",                       \
		"Files fetched before they were opened (issued), those that were opened then (used), and those that " \
		"nobody had opened when it was no longer expected (unused)")                                   \
	F(WARM_TASKS, "warpdrive_warm_tasks", WD_GAUGE, "tasks", "state",                                      \
		"Warm tasks by how they are; those that are over are kept for a while")                        \
	F(WARM_FILES, "warpdrive_warm_files", WD_GAUGE, "files", "state",                                      \
		"Files of the warm tasks that run: all that were found so far (found), those that are done, failed or " \
		"skipped")                                                                                     \
	F(WARM_BYTES, "warpdrive_warm_bytes", WD_GAUGE, "bytes", "state",                                      \
		"Bytes of the warm tasks that run: of all files that were found so far (found), and those that the " \
		"tasks have fetched")

/* Requests to origins. */
#define WD_FAMILIES_ORIGIN(F)                                                                                  \
	F(ORIGIN_REQUESTS, "warpdrive_origin_requests_total", WD_COUNTER, "requests", "op",                    \
		"Requests sent to origins, retries included")                                                  \
	F(ORIGIN_ERRORS, "warpdrive_origin_errors_total", WD_COUNTER, "requests", "op",                        \
		"Requests that failed for good, after their retries")                                          \
	F(ORIGIN_FAULTS, "warpdrive_origin_faults_total", WD_COUNTER, "tries", "class",                        \
		"Tries of requests that failed, by what was wrong; most are overcome by a retry")              \
	F(ORIGIN_RETRIES, "warpdrive_origin_retries_total", WD_COUNTER, "requests", "", "Requests tried again") \
	F(ORIGIN_BYTES, "warpdrive_origin_bytes_total", WD_COUNTER, "bytes", "", "Bytes of object data received from origins") \
	F(FETCH_ERRORS, "warpdrive_agent_fetch_errors_total", WD_COUNTER, "transfers", "",                     \
		"Transfers that failed for good, after retries")                                               \
	F(FIRST_BYTE, "warpdrive_origin_first_byte_seconds", WD_HISTOGRAM, "seconds", "origin",                \
		"From a ranged read's request to the first byte of its good answer, by the origin's address; beyond the " \
		"first origins it is other")                                                                   \
	F(FETCH_TIME, "warpdrive_origin_fetch_seconds", WD_HISTOGRAM, "seconds", "origin",                     \
		"From the first request of a ranged read to its last byte, retries included, of those that succeeded") \
	F(BREAKER, "warpdrive_origin_breaker_state", WD_GAUGE, "state", "origin",                              \
		"0: requests go; 1: one tries whether the origin is back; 2: they wait")                       \
	F(BREAKER_MOVES, "warpdrive_origin_breaker_transitions_total", WD_COUNTER, "transitions", "origin,to", \
		"How often an origin went away and came back")                                                 \
	F(CONNECTIONS, "warpdrive_origin_connections", WD_GAUGE, "connections", "origin",                      \
		"Connections that pay, of reads that nobody waits for")                                        \
	F(REQUEST_LIMIT, "warpdrive_origin_request_limit", WD_GAUGE, "requests per second", "origin",          \
		"Requests per second that the origin takes, since it complained; 0: no limit")                 \
	F(LATENCY, "warpdrive_origin_latency_seconds", WD_GAUGE, "seconds", "origin",                          \
		"Time to the first byte of an answer, of late")                                                \
	F(RATE, "warpdrive_origin_bytes_per_second", WD_GAUGE, "bytes per second", "origin",                   \
		"Bytes that came from the origin per second, when they last did")                              \
	F(GETS, "warpdrive_gets_total", WD_COUNTER, "reads", "size", "Ranged reads begun, by the bytes asked for") \
	F(QUEUED, "warpdrive_queue_reads_total", WD_COUNTER, "reads", "class",                                 \
		"Ranged reads that were given a place to run; the time that they waited for it is in "         \
		"warpdrive_queue_seconds_total")                                                               \
	F(QUEUE_TIME, "warpdrive_queue_seconds_total", WD_COUNTER, "seconds", "class",                         \
		"Time that ranged reads waited for a place, for their flow's bandwidth or for their origin; by the class " \
		"in which they began")                                                                         \
	F(PROOFS, "warpdrive_agent_access_proofs_total", WD_COUNTER, "reads", "",                              \
		"One-byte reads that proved a mount's right to bytes cached for another")                      \
	F(RENEWALS, "warpdrive_agent_credential_renewals_total", WD_COUNTER, "renewals", "",                   \
		"Mounts that were given other credentials while they stood")                                   \
	F(RENEWALS_FAILED, "warpdrive_agent_credential_renewals_failed_total", WD_COUNTER, "renewals", "",     \
		"New credentials that were not taken over: the origin refuses them, or they make no sense")

/* The cache and its metadata. */
#define WD_FAMILIES_CACHE(F)                                                                                   \
	F(USED, "warpdrive_cache_used_bytes", WD_GAUGE, "bytes", "", "Bytes charged to the cache")             \
	F(ADMITTED, "warpdrive_cache_admitted_bytes", WD_GAUGE, "bytes", "",                                   \
		"Bytes admitted to the cache and still on their way")                                          \
	F(LIMIT, "warpdrive_cache_limit_bytes", WD_GAUGE, "bytes", "", "Most bytes the cache may hold")        \
	F(FREE, "warpdrive_cache_free_bytes", WD_GAUGE, "bytes", "", "Free bytes of the cache's file system")  \
	F(OBJECTS, "warpdrive_cache_objects", WD_GAUGE, "objects", "", "Objects in the cache")                 \
	F(EVICTED, "warpdrive_cache_evicted_objects_total", WD_COUNTER, "objects", "", "Objects evicted")      \
	F(EVICTED_BYTES, "warpdrive_cache_evicted_bytes_total", WD_COUNTER, "bytes", "", "Bytes evicted")      \
	F(EVICTIONS, "warpdrive_cache_evictions_total", WD_COUNTER, "objects", "policy,reason",                \
		"Objects evicted for room, by the policy in force and why it was this one: oldest, newest, a newcomer, or " \
		"stale (not used for longer than what is used again)")                                         \
	F(EVICTION_BYTES, "warpdrive_cache_eviction_bytes_total", WD_COUNTER, "bytes", "policy,reason",        \
		"Bytes evicted for room, by the policy in force and why it was these")                         \
	F(POLICY, "warpdrive_cache_policy_in_force", WD_GAUGE, "yes or no", "policy", "1 for the eviction policy that rules") \
	F(SHADOW_HITS, "warpdrive_cache_shadow_hit_bytes_total", WD_COUNTER, "bytes", "policy",                \
		"Sizes of the objects that each policy would have had in the cache when they were opened, of those in the " \
		"sample (eviction-policy auto)")                                                               \
	F(SHADOW_BYTES, "warpdrive_cache_shadow_bytes_total", WD_COUNTER, "bytes", "",                         \
		"Sizes of all objects in the sample when they were opened")                                    \
	F(SHADOW_ENTRIES, "warpdrive_cache_shadow_entries", WD_GAUGE, "objects", "", "Objects that the sample remembers") \
	F(POLICY_SWITCHES, "warpdrive_cache_policy_switches_total", WD_COUNTER, "switches", "",                \
		"Times that another policy took over")                                                         \
	F(REFUSED, "warpdrive_cache_refused_admissions_total", WD_COUNTER, "admissions", "",                   \
		"Times that something found no room in the cache")                                             \
	F(REFUSED_BYTES, "warpdrive_cache_refused_bytes_total", WD_COUNTER, "bytes", "",                       \
		"Bytes that found no room in the cache")                                                       \
	F(PINNED, "warpdrive_cache_pinned_bytes", WD_GAUGE, "bytes", "", "Sizes of the pinned objects")        \
	F(REFUSED_PINS, "warpdrive_cache_refused_pins_total", WD_COUNTER, "objects", "",                       \
		"Times that an object was not pinned because pinned ones take too much of the cache")          \
	F(IO_ERRORS, "warpdrive_cache_io_errors_total", WD_COUNTER, "errors", "", "Errors of the cache disk")  \
	F(CHECKED, "warpdrive_cache_checked_blocks_total", WD_COUNTER, "blocks", "",                           \
		"Cached blocks checked against their hashes")                                                  \
	F(CORRUPT, "warpdrive_cache_corrupt_blocks_total", WD_COUNTER, "blocks", "",                           \
		"Cached blocks that did not match their hashes; each is fetched anew")                         \
	F(DAMAGED, "warpdrive_cache_damaged_objects_total", WD_COUNTER, "objects", "",                         \
		"Cached objects whose file or map was missing, cut or torn; what is lost is fetched anew")     \
	F(BROKEN, "warpdrive_cache_is_broken", WD_GAUGE, "yes or no", "",                                      \
		"1 while the cache disk gives errors and nothing is admitted")                                 \
	F(UNCLEAN_STARTS, "warpdrive_cache_unclean_starts_total", WD_COUNTER, "starts", "",                    \
		"Starts after the machine had stopped uncleanly: the cache is checked before it is believed")  \
	F(META_SET_ASIDE, "warpdrive_meta_set_aside_total", WD_COUNTER, "databases", "",                       \
		"Metadata that could not be used and was set aside; another begins")                           \
	F(META_COMMITS, "warpdrive_meta_commits_total", WD_COUNTER, "commits", "", "Commits of the metadata")  \
	F(META_DAMAGED, "warpdrive_meta_damaged_records_total", WD_COUNTER, "records", "",                     \
		"Metadata records whose checksum was wrong; treated as absent")                                \
	F(META_FAILED, "warpdrive_meta_failed_commits_total", WD_COUNTER, "commits", "",                       \
		"Commits of the metadata that failed; each is tried again")                                    \
	F(META_DROPPED, "warpdrive_meta_dropped_changes_total", WD_COUNTER, "changes", "",                     \
		"Changes of the metadata lost because its disk failed for too long")                           \
	F(META_FAILING, "warpdrive_meta_is_failing", WD_GAUGE, "yes or no", "",                                \
		"1 while the metadata cannot be written and is kept in memory")                                \
	F(META_MEMORY, "warpdrive_meta_is_memory_only", WD_GAUGE, "yes or no", "",                             \
		"1 while the metadata on disk cannot even be read")

/* Mounts. A mount's own series end with it; of more than 256 mounts the rest have none. */
#define WD_FAMILIES_MOUNTS(F)                                                                                  \
	F(MOUNTS, "warpdrive_mounts", WD_GAUGE, "mounts", "", "Mounts served")                                 \
	F(HELD_MOUNTS, "warpdrive_agent_held_mounts", WD_GAUGE, "mounts", "",                                  \
		"Mounts whose descriptors are held for the next keeper")                                       \
	F(GIVEN_UP, "warpdrive_agent_mounts_given_up_total", WD_COUNTER, "mounts", "",                         \
		"Held mounts that no keeper came for in time")                                                 \
	F(CONDITION, "warpdrive_volume_condition", WD_GAUGE, "mounts", "part",                                 \
		"Mounts that are ill, by the part that is: `warpdrive-ctl status` says why")                   \
	F(MOUNT_ILL, "warpdrive_mount_is_ill", WD_GAUGE, "yes or no", "mount,target,pod",                            \
		"1 while any part of the mount is ill; pod: its uid, where the target is the kubelet's")       \
	F(MOUNT_FILES, "warpdrive_mount_open_files", WD_GAUGE, "files", "mount,target,pod", "Files that somebody has open") \
	F(MOUNT_OPENS, "warpdrive_mount_opens_total", WD_COUNTER, "opens", "mount,target,pod",                       \
		"Opens of files that the agent was asked for, and those of files that were open or pooled")    \
	F(MOUNT_PASSTHROUGH, "warpdrive_mount_passthrough_bytes_total", WD_COUNTER, "bytes", "mount,target,pod",     \
		"Sizes of the files that were opened by passthrough")                                          \
	F(MOUNT_READ, "warpdrive_mount_read_bytes_total", WD_COUNTER, "bytes", "mount,target,pod",                   \
		"Bytes with which the mount's server answered reads")                                          \
	F(MOUNT_MISSED, "warpdrive_mount_miss_bytes_total", WD_COUNTER, "bytes", "mount,target,pod",                 \
		"Bytes that were not in the cache when the file they are of was opened")                       \
	F(MOUNT_EXPIRY, "warpdrive_mount_credentials_expiry_timestamp_seconds", WD_GAUGE, "seconds", "mount,target,pod", \
		"When the mount's credentials end, in Unix time, where that is known")                         \
	F(ACCESS_LOG, "warpdrive_access_log_lines_total", WD_COUNTER, "lines", "outcome",                      \
		"Lines of the access log: written, and dropped because they came too fast or could not be written") \
	F(TRACE_LOST, "warpdrive_trace_lost_lines_total", WD_COUNTER, "lines", "",                             \
		"Lines that a trace lost because whoever follows it reads too slowly")                         \
	F(BAD_MESSAGES, "warpdrive_agent_bad_messages_total", WD_COUNTER, "messages", "",                      \
		"Malformed messages; the sender was dropped")                                                  \
	F(BUILD, "warpdrive_build_info", WD_GAUGE, "always 1", "version", "The build")

#define WD_FAMILIES(F)                                                                                         \
	WD_FAMILIES_READS(F)                                                                                   \
	WD_FAMILIES_AHEAD(F)                                                                                   \
	WD_FAMILIES_ORIGIN(F)                                                                                  \
	WD_FAMILIES_CACHE(F)                                                                                   \
	WD_FAMILIES_MOUNTS(F)

enum family {
#define F(id, name, type, unit, labels, help) FAMILY_##id,
	WD_FAMILIES(F)
#undef F
		FAMILY_COUNT
};

extern const struct wd_family families[FAMILY_COUNT];

#endif
