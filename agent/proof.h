/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_PROOF_H
#define WD_AGENT_PROOF_H
/*
 * Cached bytes are given to an identity only after the origin gave that identity a byte of that very
 * object: bytes one fetched oneself are proof, bytes that another identity fetched are not. A proof
 * is remembered for the proof TTL, across restarts. In an outage a lapsed proof is extended; a
 * refusal revokes it at once.
 */
#include "agent/agent.h"
#include "agent/mount.h"

/* cb(arg, 0, NULL) when the mount's identity may read the object, maybe at once; else -EACCES, or
 * what the origin said. is_again: a server says that the file is open already, and files that are open go on:
 * then a lapsed proof does. The server's word alone does not. */
void proof_check(struct mount *mnt, const struct node *node, const struct object *object, bool is_again,
	void (*cb)(void *arg, int status, const struct wd_err *err), void *arg);
/* Whoever that is got bytes of the object from the origin. */
void proof_record(struct meta *meta, const struct identity *who, const struct object_id *object,
	const struct settings *settings);

#endif
