/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_JOBS_H
#define WD_AGENT_JOBS_H
/*
 * Worker threads for what blocks: questions to origins, scans. Threads start as they are needed, up to
 * the limit. The queue is bounded: jobs_run waits for room when it is full, which slows the reader of
 * the sockets, and so the senders. A job must never wait for another job.
 */
struct jobs;

struct jobs *jobs_new(unsigned max_threads, unsigned max_queue);
/* Runs what is queued, then joins. NULL is fine. */
void jobs_stop(struct jobs *j);
void jobs_run(struct jobs *j, void (*fn)(void *arg), void *arg);

#endif
