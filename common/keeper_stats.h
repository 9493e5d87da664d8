/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_KEEPER_STATS_H
#define WD_COMMON_KEEPER_STATS_H
/*
 * What a keeper counts, since it was started. It has no HTTP of its own: it sends the numbers to the agent
 * (WD_MSG_KEEPER_STATS), which exports them, and puts them into its status.
 *
 * The order is that of the wire; new ones are added at the end. One in seconds is in microseconds until it is printed.
 *
 * Columns: name, name of the metric, unit, help.
 */
#include "common/metrics.h"

#define WD_KEEPER_STATS(S)                                                                                     \
	S(server_restarts, "warpdrive_keeper_server_restarts_total", "servers",                                \
		"FUSE servers started in place of one that had ended")                                         \
	S(takeovers, "warpdrive_keeper_takeovers_total", "servers",                                            \
		"FUSE servers that took over a mount from another, upgrades included")                         \
	S(watchdog_kills, "warpdrive_keeper_watchdog_kills_total", "servers",                                  \
		"FUSE servers ended because they answered nothing")                                            \
	S(upgrades, "warpdrive_keeper_upgrades_total", "mounts", "Mounts handed over to another server program") \
	S(upgrades_refused, "warpdrive_keeper_upgrades_refused_total", "programs",                             \
		"Server programs that could not take over, or were given up again")                            \
	S(give_ups, "warpdrive_keeper_give_ups_total", "mounts",                                               \
		"Connections aborted because no FUSE server could be brought up")                              \
	S(stopped_kills, "warpdrive_keeper_stopped_kills_total", "servers",                                    \
		"FUSE servers ended because they were stopped (SIGSTOP) and not continued")                    \
	S(takeover_stall_us, "warpdrive_keeper_takeover_stall_seconds_total", "seconds",                       \
		"Time that mounts were without a server until another took over; divided by the takeovers, how long "  \
		"readers stalled")

enum wd_keeper_stat {
#define S(name, metric, unit, help) WD_KEEPER_##name,
	WD_KEEPER_STATS(S)
#undef S
		WD_KEEPER_STATS_COUNT
};

extern const struct wd_family wd_keeper_families[WD_KEEPER_STATS_COUNT];

#endif
