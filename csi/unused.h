/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_CSI_UNUSED_H
#define WD_CSI_UNUSED_H
/*
 * Whether pods have volumes of this driver, asked before it is uninstalled (--check-unused): without it they could not
 * be ended, and their reads would fail.
 */
#include "common/err.h"
#include "csi/kube_api.h"

/* Prints a line for each volume of a pod that is on a node. Returns their number, or -errno. */
int unused_check(const struct kube *k, struct wd_err *err);

#endif
