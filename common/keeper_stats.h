/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_KEEPER_STATS_H
#define WD_COMMON_KEEPER_STATS_H
/*
 * What a keeper counts, since it was started. It has no HTTP of its own: it sends the numbers to the
 * agent (WD_MSG_KEEPER_STATS), which exports each as warpdrive_keeper_<name>_total, and puts them
 * into its status.
 *
 * The order is that of the wire; new ones are added at the end.
 *
 * Columns: name, help.
 */
#define WD_KEEPER_STATS(S)                                                                         \
	S(server_restarts, "FUSE servers started in place of one that had ended")                  \
	S(takeovers, "FUSE servers that took over a mount from another, upgrades included")        \
	S(watchdog_kills, "FUSE servers ended because they answered nothing")                      \
	S(upgrades, "Mounts handed over to another server program")                                \
	S(upgrades_refused, "Server programs that could not take over, or were given up again")    \
	S(give_ups, "Connections aborted because no FUSE server could be brought up")              \
	S(stopped_kills, "FUSE servers ended because they were stopped (SIGSTOP) and not continued")

enum wd_keeper_stat {
#define S(name, help) WD_KEEPER_##name,
	WD_KEEPER_STATS(S)
#undef S
		WD_KEEPER_STATS_COUNT
};

#endif
