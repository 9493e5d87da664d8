/* SPDX-License-Identifier: Apache-2.0 */
/* The table of the agent's settings. */
#include "agent/settings.h"

#include <stddef.h>

#include "agent/origin_policy.h"

#define KIB 1024LL
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define TIB (1024 * GIB)
#define AT(field) offsetof(struct settings, field)

const struct wd_config_key settings_keys[] = {
	{"run-dir", WD_CONFIG_STRING, AT(run_dir), 0, 0, "/run/warpdrive",
		"directory of the sockets agent.sock and keeper.sock"},
	{"socket-for-group", WD_CONFIG_BOOL, AT(socket_for_group), 0, 0, "false",
		"whether the agent's group may connect to agent.sock, too: for a CSI plugin under another uid"},
	{"cache-dir", WD_CONFIG_STRING, AT(cache_dir), 0, 0, "/var/cache/warpdrive",
		"directory of the cache; created when missing"},
	{"cache-size", WD_CONFIG_SIZE, AT(cache_size), 0, 1024 * TIB, "0",
		"most bytes the cache may hold; 0: 90% of its file system"},
	{"free-space-floor", WD_CONFIG_SIZE, AT(free_space_floor), 0, 1024 * TIB, "1GiB",
		"file system space that the cache never takes"},
	{"eviction-policy", WD_CONFIG_STRING, AT(eviction_policy), 0, 0, "auto",
		"what goes when the cache is full: lru, s3fifo (resists scans), uniform (for epochs), or auto: what "
		"would have found most of late"},
	{"pinned", WD_CONFIG_LIST, AT(pinned), 0, 0, "",
		"URLs, such as s3://models/llama: what is read of these and all below them stays in the cache while "
		"they are listed here, as far as it takes no more than half of it"},
	{"scrub-rate", WD_CONFIG_SIZE, AT(scrub_rate), 0, TIB, "16MiB",
		"bytes per second at which cached blocks are checked against their hashes, slowly and for ever; "
		"0: never"},
	{"scrub-interval", WD_CONFIG_DURATION, AT(scrub_interval), 1, 365LL * 86400000, "24h",
		"least time from the beginning of one check of the whole cache to that of the next"},
	{"memory-limit", WD_CONFIG_SIZE, AT(memory_limit), 64 * MIB, TIB, "512MiB",
		"most memory the agent uses for buffers and queues, whatever the load"},
	{"http-listen", WD_CONFIG_STRING, AT(http_listen), 0, 0, "127.0.0.1:9842",
		"address and port of /metrics, /healthz and a page for people, e.g. [::]:9842; empty: none"},
	{"access-log", WD_CONFIG_STRING, AT(access_log), 0, 0, "",
		"file for a JSON line about each open and read that the agent sees: what is read by passthrough, or by a "
		"mount's server from what is cached already, it does not see; empty: none"},
	{"access-log-one-in", WD_CONFIG_INT, AT(access_log_one_in), 1, 1000000000, "1",
		"one of so many opens and reads is logged there, by chance; 1: all"},
	{"access-log-size", WD_CONFIG_SIZE, AT(access_log_size), 64 * KIB, TIB, "64MiB",
		"most bytes of that file; a full one is renamed to have .1 at its end, in place of the one before"},
	{"status-page", WD_CONFIG_STRING, AT(status_page), 0, 0, "local",
		"who is shown the page about datasets, mounts and errors at http-listen, which names them: local (who "
		"connects from this machine), all, or off"},
	{"metadata-ttl", WD_CONFIG_DURATION, AT(metadata_ttl), 0, 365LL * 86400000, "60s",
		"how long names and attributes are believed without asking the origin"},
	{"negative-ttl", WD_CONFIG_DURATION, AT(negative_ttl), 0, 86400000, "5s",
		"how long the kernel believes that a name does not exist"},
	{"list-after-lookups", WD_CONFIG_INT, AT(list_after_lookups), 0, 1000000, "8",
		"unknown names asked one by one before a directory is listed instead"},
	{"request-deadline", WD_CONFIG_DURATION, AT(request_deadline), 100, 86400000, "60s",
		"how long a reader waits for an origin that is away or fails, with all retries, until it gets an error"},
	{"stall-timeout", WD_CONFIG_DURATION, AT(stall_timeout), 1000, 3600000, "15s",
		"how long an answer may trickle (below 1 KiB/s) before it is broken off and asked again"},
	{"proof-ttl", WD_CONFIG_DURATION, AT(proof_ttl), 0, 365LL * 86400000, "24h",
		"how long the origin's permission to read an object is remembered for an identity"},
	{"give-up", WD_CONFIG_DURATION, AT(give_up), 100, 365LL * 86400000, "5m",
		"how long a mount is held for a keeper to come while no server answers; then its users get errors"},
	{"small-object-size", WD_CONFIG_SIZE, AT(small_object_size), 0, 16 * MIB, "1MiB",
		"objects up to this size are fetched whole when opened"},
	{"profile", WD_CONFIG_STRING, AT(profile), 0, 0, "",
		"a bundle of other defaults: images, shards, checkpoints or inference (--print-profiles shows them); "
		"empty: none"},
	{"prefetch", WD_CONFIG_STRING, AT(prefetch), 0, 0, "auto",
		"what is fetched before somebody asks for it, unless a mount says otherwise: auto (the rest of files that "
		"are read, and files that are expected to be opened next), file (the former), or off"},
	{"prefetch-window", WD_CONFIG_SIZE, AT(prefetch_window), 0, 4 * GIB, "256MiB",
		"most bytes asked ahead of one sequential reader; as a rule there are fewer: what fills the line to the "
		"origin, by its latency and speed"},
	{"directory-window", WD_CONFIG_SIZE, AT(directory_window), 0, 1024 * GIB, "1GiB",
		"most bytes fetched of the next files of one directory that nobody has opened yet, at most an eighth of "
		"the cache; one file may always be; 0: no file is fetched before it is opened"},
	{"prefetch-budget", WD_CONFIG_SIZE, AT(prefetch_budget), 0, 64 * GIB, "256MiB",
		"most bytes of prefetch under way in all"},
	{"max-get-size", WD_CONFIG_SIZE, AT(max_get_size), 256 * KIB, 64 * MIB, "16MiB",
		"most bytes asked by one ranged GET; fewer, down to 1 MiB, where one takes longer than half a second"},
	{"bandwidth-limit", WD_CONFIG_SIZE, AT(bandwidth_limit), 0, TIB, "0",
		"bytes per second that all mounts together may fetch from origins, on average; 0: no limit. The mount "
		"option of the same name limits one mount"},
	{"transfer-threads", WD_CONFIG_INT, AT(transfer_threads), 1, 64, "2",
		"threads that move object data"},
	{"max-transfers", WD_CONFIG_INT, AT(max_transfers), 2, 1024, "32",
		"transfers under way at once; more wait, readers first; a quarter is for readers alone"},
	{"pooled-files", WD_CONFIG_INT, AT(pooled_files), 0, 1048576, "32768",
		"files of all mounts that stay registered with the kernel when nobody has them open, so that opening them "
		"again needs no question to the agent; at most 16384 of one mount. One costs about 2 KiB in the agent and "
		"as much in the kernel; all together take at most an eighth of memory-limit"},
	{"metadata-workers", WD_CONFIG_INT, AT(metadata_workers), 1, 256, "32",
		"listings and lookups under way at the origins at once"},
	{"kubernetes", WD_CONFIG_STRING, AT(kubernetes), 0, 0, "auto",
		"whether mounts here come from people who do not own the machine: true, false, or auto (in a pod). "
		"If so, file: URLs must be listed in allowed-origins, and loopback addresses are blocked"},
	{"allowed-origins", WD_CONFIG_LIST, AT(allowed_origins), 0, 0, "",
		"the origins that mounts may name: globs such as s3://data-*, https://*.example.com/public, "
		"file:///srv, each with what is below it; an endpoint must be listed, too. Empty: all, but see "
		"kubernetes for file: URLs"},
	{"blocked-addresses", WD_CONFIG_LIST, AT(blocked_addresses), 0, 0, "",
		"ranges of addresses that no request is sent to, whatever name or redirect leads there, besides those "
		"that always count:\n" ORIGIN_BLOCKED_ADDRESSES "\n"
		"Addresses that are embedded in IPv6 ones (mapped, NAT64, 6to4) count as well"},
	{"allowed-addresses", WD_CONFIG_LIST, AT(allowed_addresses), 0, 0, "",
		"ranges of addresses to which requests are sent although they are blocked"},
	{"node-identity", WD_CONFIG_STRING, AT(node_identity), 0, 0, "none",
		"which mounts may ask with the credentials in the agent's own environment "
		"(authentication-source=node): none, volumes (all but inline ones), or all"},
	{"sts-endpoint", WD_CONFIG_STRING, AT(sts_endpoint), 0, 0, "",
		"where tokens of pods are exchanged for keys of a role; empty: Amazon's, by region"},
	{"server-program", WD_CONFIG_STRING, AT(server_program), 0, 0, "",
		"the warpdrive-fuse that this agent's keeper is to run; empty: the one beside the agent; "
		"none: the keeper's own"},
	{0},
};
