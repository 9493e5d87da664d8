/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_METRICS_H
#define WD_AGENT_METRICS_H
/*
 * Every counter of the agent, declared once: the enum below, the exporter and the docs come from the
 * table WD_METRICS. Counting is one relaxed atomic add. Gauges whose value lives elsewhere
 * (cache use, mounts) are added by the page itself (agent/http.c).
 *
 * Columns: identifier, family name, label set (may be empty), help (of the family's first row).
 */
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

#define WD_METRICS(M)                                                                              \
	M(OPENS_PASSTHROUGH, "warpdrive_opens_total", "mode=\"passthrough\"",                      \
		"Opens of files; reads of passthrough files go through the kernel and are not seen by any daemon") \
	M(OPENS_CACHED, "warpdrive_opens_total", "mode=\"cached\"", "")                            \
	M(OPENS_COLD, "warpdrive_opens_total", "mode=\"cold\"", "")                                \
	M(READ_LOCAL, "warpdrive_read_bytes_total", "tier=\"local\"",                              \
		"Bytes made available to readers by tier: local counts the sizes of passthrough opens") \
	M(READ_PEER, "warpdrive_read_bytes_total", "tier=\"peer\"", "")                            \
	M(READ_ORIGIN, "warpdrive_read_bytes_total", "tier=\"origin\"", "")                        \
	M(SERVER_READ_BYTES, "warpdrive_server_read_bytes_total", "",                              \
		"Bytes with which the mounts' servers answered reads; of passthrough files there are none") \
	M(ENSURES, "warpdrive_agent_ensure_requests_total", "", "Reads that had to wait for bytes")  \
	M(UNCACHED_BYTES, "warpdrive_agent_uncached_bytes_total", "",                              \
		"Bytes read through without being admitted to the cache")                          \
	M(PREFETCH_BYTES, "warpdrive_prefetch_issued_bytes_total", "", "Bytes fetched ahead of readers: in the files that they read, and of files before they are opened") \
	M(PREFETCH_USED, "warpdrive_prefetch_used_bytes_total", "",                                \
		"Bytes asked ahead that a reader came to while the file was streamed, or that were of a file that " \
		"was then opened")               \
	M(PREFETCH_UNUSED, "warpdrive_prefetch_unused_bytes_total", "",                            \
		"Bytes fetched ahead that no reader had come to when the file was closed (later "      \
		"opens, and reads by passthrough, are not seen here)")                             \
	M(PREFETCH_CANCELLED, "warpdrive_prefetch_cancelled_bytes_total", "",                      \
		"Bytes asked ahead that were given up before they were fetched: the file was closed, or " \
		"its reader went elsewhere")                                                       \
	M(AHEAD_DIRECTORY, "warpdrive_ahead_bytes_total", "class=\"directory\"",                   \
		"Bytes fetched of files that nobody read yet")                                     \
	M(AHEAD_WARM, "warpdrive_ahead_bytes_total", "class=\"warm\"", "")                         \
	M(AHEAD_FILES_ISSUED, "warpdrive_prefetch_files_total", "outcome=\"issued\"",                \
		"Files fetched before they were opened (issued), those that were opened then (used), and " \
		"those that nobody had opened when it was no longer expected (unused)")            \
	M(AHEAD_FILES_USED, "warpdrive_prefetch_files_total", "outcome=\"used\"", "")                \
	M(AHEAD_FILES_UNUSED, "warpdrive_prefetch_files_total", "outcome=\"unused\"", "")            \
	M(DIRS_SORTED, "warpdrive_directory_patterns_total", "pattern=\"sorted\"",                   \
		"Patterns found in the opens of a directory: files one after the other by name, by a "   \
		"fixed step, and sets that are read in shuffled order")                            \
	M(DIRS_STRIDED, "warpdrive_directory_patterns_total", "pattern=\"strided\"", "")             \
	M(DIRS_SHUFFLED, "warpdrive_directory_patterns_total", "pattern=\"shuffled\"", "")           \
	M(GETS_SMALL, "warpdrive_gets_total", "size=\"to_256KiB\"", "Ranged reads begun, by the bytes asked for") \
	M(GETS_MEDIUM, "warpdrive_gets_total", "size=\"to_1MiB\"", "")                             \
	M(GETS_LARGE, "warpdrive_gets_total", "size=\"to_4MiB\"", "")                              \
	M(GETS_HUGE, "warpdrive_gets_total", "size=\"larger\"", "")                                \
	M(QUEUED_WARM, "warpdrive_queue_reads_total", "class=\"warm\"",                            \
		"Ranged reads that were given a place to run; the time that they waited for it is in "  \
		"warpdrive_queue_microseconds_total")                                              \
	M(QUEUED_DIRECTORY, "warpdrive_queue_reads_total", "class=\"directory\"", "")              \
	M(QUEUED_STREAM, "warpdrive_queue_reads_total", "class=\"stream\"", "")                    \
	M(QUEUED_DEMAND, "warpdrive_queue_reads_total", "class=\"demand\"", "")                    \
	M(QUEUE_US_WARM, "warpdrive_queue_microseconds_total", "class=\"warm\"",                   \
		"Time that ranged reads waited for a place, for their flow's bandwidth or for their "    \
		"origin; by the class in which they began")                                        \
	M(QUEUE_US_DIRECTORY, "warpdrive_queue_microseconds_total", "class=\"directory\"", "")     \
	M(QUEUE_US_STREAM, "warpdrive_queue_microseconds_total", "class=\"stream\"", "")           \
	M(QUEUE_US_DEMAND, "warpdrive_queue_microseconds_total", "class=\"demand\"", "")           \
	M(STREAMS_SEQUENTIAL, "warpdrive_read_streams_total", "pattern=\"sequential\"",            \
		"Patterns found in reads: streams that were read on in sequence or by a fixed "     \
		"stride, files that were read at the end first, and single reads that belonged to none")                                  \
	M(STREAMS_STRIDED, "warpdrive_read_streams_total", "pattern=\"strided\"", "")              \
	M(STREAMS_TAIL, "warpdrive_read_streams_total", "pattern=\"tail\"", "")                      \
	M(STREAMS_RANDOM, "warpdrive_read_streams_total", "pattern=\"random\"", "")                \
	M(STALE_OBJECTS, "warpdrive_agent_stale_objects_total", "",                                \
		"Objects found changed at the origin while in use")                                \
	M(FETCH_ERRORS, "warpdrive_agent_fetch_errors_total", "",                                  \
		"Transfers that failed for good, after retries")                                   \
	M(LOOKUPS, "warpdrive_agent_lookups_total", "", "Names looked up by the kernels")          \
	M(LOOKUPS_ORIGIN, "warpdrive_agent_lookups_origin_total", "",                              \
		"Lookups that had to ask the origin")                                              \
	M(LISTINGS, "warpdrive_agent_listings_total", "", "Directory listings fetched")            \
	M(NAMES_LEFT_OUT, "warpdrive_agent_names_left_out_total", "",                              \
		"Keys in listings that POSIX cannot name, or that a directory of the same name hides") \
	M(PROOFS, "warpdrive_agent_access_proofs_total", "",                                       \
		"One-byte reads that proved a mount's right to bytes cached for another")          \
	M(BACKING_OPENS, "warpdrive_agent_backing_opens_total", "", "Cache files registered for passthrough") \
	M(BACKING_RECLAIMS, "warpdrive_agent_backing_reclaims_total", "",                          \
		"Idle passthrough registrations taken back before an eviction")                    \
	M(GIVEN_UP, "warpdrive_agent_mounts_given_up_total", "",                                   \
		"Held mounts that no keeper came for in time")                                     \
	M(RENEWALS, "warpdrive_agent_credential_renewals_total", "",                               \
		"Mounts that were given other credentials while they stood")                       \
	M(RENEWALS_FAILED, "warpdrive_agent_credential_renewals_failed_total", "",                 \
		"New credentials that were not taken over: the origin refuses them, or they make no sense") \
	M(UNCLEAN_STARTS, "warpdrive_cache_unclean_starts_total", "",                              \
		"Starts after the machine had stopped uncleanly: the cache is checked before it is believed") \
	M(META_SET_ASIDE, "warpdrive_meta_set_aside_total", "",                                    \
		"Metadata that could not be used and was set aside; another begins")               \
	M(BAD_MESSAGES, "warpdrive_agent_bad_messages_total", "", "Malformed messages; the sender was dropped")

enum metric {
#define M(id, name, labels, help) METRIC_##id,
	WD_METRICS(M)
#undef M
		METRIC_COUNT
};

extern _Atomic uint64_t metric_values[METRIC_COUNT];

static inline void metric_add(enum metric m, uint64_t n)
{
	atomic_fetch_add_explicit(&metric_values[m], n, memory_order_relaxed);
}
#define metric_inc(m) metric_add(m, 1)

/* Prometheus text of all rows. */
void metrics_print(FILE *out);
/* One family with a single sample, for gauges. type: "gauge" or "counter". */
void metrics_print_one(FILE *out, const char *name, const char *type, const char *help, uint64_t value);

#endif
