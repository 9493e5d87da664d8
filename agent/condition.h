/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_CONDITION_H
#define WD_AGENT_CONDITION_H
/*
 * How a mount is, part by part: what NodeGetVolumeStats, `warpdrive-ctl status` and the metric
 * warpdrive_volume_condition say. The agent's own absence is for those who ask it to notice.
 */
#include <stdio.h>

#include "agent/mount.h"

/* Identifier, the word for it, the metric's help. */
#define CONDITION_PARTS(P)                                                                                     \
	P(ORIGIN, "origin")	      /* away, or no longer allowed */                                         \
	P(CREDENTIALS, "credentials") /* refused, expired or about to, or new ones not taken over */           \
	P(CACHE, "cache")	      /* its disk gives errors, or its metadata cannot be written */           \
	P(SERVER, "server")	      /* no FUSE server is connected */                                        \
	P(KEEPER, "keeper")	      /* not connected */

enum condition_part {
#define P(id, word) CONDITION_##id,
	CONDITION_PARTS(P)
#undef P
		CONDITION_PARTS_COUNT
};

/* Credentials that end so soon and were not renewed: the refresh is overdue. */
#define CONDITION_EXPIRY_S 300

struct condition {
	char text[CONDITION_PARTS_COUNT][320]; /* "": well */
};

/* Nothing is asked of anybody here; but an origin that seems ill is asked in the background whether it still is, at
 * most every ten seconds, so that a mount which nobody reads gets well as well. */
void condition_look(struct mount *mnt, struct condition *ret_condition);
/* The same for many mounts: what is the node's is looked at once. */
void condition_of_node(struct agent *a, struct condition *ret_node);
void condition_of_mount(struct mount *mnt, const struct condition *node, struct condition *ret_condition);
const char *condition_part_name(enum condition_part part);

#endif
