/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_CSI_DRIVER_H
#define WD_CSI_DRIVER_H
/*
 * What the handlers share. The driver keeps no state of volumes: what is mounted the kernel knows,
 * what a mount is the keeper knows. Set up before the server starts and constant from then on, but
 * for the set of targets at work.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/lock.h"
#include "csi/claim.h"
#include "common/rpc.h"

#define DRIVER_NAME "csi.warpdrive.io"
#define DRIVER_NODE_ID_MAX 192 /* bytes, as published */
#define DRIVER_MARGIN_NS 5000000000 /* an answer is given so long before the call's deadline */

struct driver {
	const char *run_dir;	 /* of keeper.sock and agent.sock */
	const char *kubelet_dir; /* targets lie below it; no slash at its end */
	int kubelet_fd;
	const char *node_id;
	int64_t max_volumes; /* 0: no limit of ours */
	struct kube kube; /* the controller's; set after driver_init() */

	struct wd_mutex lock;
	struct busy *busy WD_GUARDED_BY(lock); /* targets at work */
};

/* Makes an open kubelet directory of `kubelet_dir` (NULL: none, for a controller); run_dir and node_id are
 * borrowed. */
int driver_init(struct driver *d, const char *run_dir, const char *kubelet_dir, const char *node_id,
	struct wd_err *err);
void driver_done(struct driver *d);

/* One call at a time works on a target: false when another does. */
bool driver_claim(struct driver *d, const char *target);
void driver_release(struct driver *d, const char *target);

/* The tables of methods. */
extern const struct rpc_method identity_methods[], node_methods[], controller_methods[];
extern const size_t identity_nmethods, node_nmethods, controller_nmethods;

#endif
