/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_RECEIVE_WINDOW_H
#define WD_AGENT_RECEIVE_WINDOW_H
/*
 * How many bytes of one TCP connection may be on their way at once, as far as the receiver has a say: the kernel
 * lets a server have megabytes on the line, or in line before it, and what another connection brings comes behind them.
 */
#include <stdint.h>

#define RECEIVE_WINDOW_ANY UINT64_MAX /* as the kernel thinks */

/* What the server was told already stays true: it becomes less as bytes come. No less than a few segments. Where the
 * machine does not allow so much (net.core.rmem_max), or cannot take it back (before Linux 5.14), and where fd is no
 * TCP, the kernel goes on by itself. */
void receive_window_set(int fd, uint64_t bytes);
/* The shortest time that a segment and its acknowledgement took; 0: not known. */
int64_t receive_window_rtt_ns(int fd);

#endif
