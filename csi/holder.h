/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_CSI_HOLDER_H
#define WD_CSI_HOLDER_H
/*
 * The node plugin is a holder of the node's mounts (common/hold.h): should keeper and agent die
 * together, the descriptors live here and the next keeper takes the mounts back.
 */
#include "common/err.h"

/* Holds what keepers deposit until SIGTERM or SIGINT, which the caller has blocked in every thread; then
 * calls stop(arg), and returns when the keeper has agreed that this holder may go. Blocks; main thread.
 * run_dir NULL: holds nothing, only waits for the signal. */
int holder_run(const char *run_dir, void (*stop)(void *arg), void *arg, struct wd_err *err);

#endif
