/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_ACCESS_LOG_H
#define WD_AGENT_ACCESS_LOG_H
/*
 * The access log: a JSON line for each open and read that the agent sees, or for a sample of them (settings access-log,
 * access-log-one-in, access-log-size). A thread of its own writes; who sees something copies it into a bounded ring and
 * goes on, and what finds no room there, or cannot be written, is counted (warpdrive_access_log_lines_total). At its
 * size the file becomes PATH.1, and another begins; one that was moved or removed is begun anew.
 */
#include "agent/settings.h"
#include "agent/trace_ring.h"
#include "common/err.h"

struct access_log;

/* *ret_log is NULL when the settings have none. A file that cannot be written is an error that names it. */
int access_log_start(const struct settings *s, struct access_log **ret_log, struct wd_err *err);
/* Writes what is in the ring. NULL is fine. */
void access_log_stop(struct access_log *l);
/* Any thread; never waits. */
void access_log_put(struct access_log *l, const struct trace_event *e);

#endif
