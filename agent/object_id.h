/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_OBJECT_ID_H
#define WD_AGENT_OBJECT_ID_H
/* The name of a cached object: a hash of origin URL, key and version (object_id_make, agent/store.h), so that
 * any part of it is as good as a random number. */
struct object_id {
	unsigned char b[16];
};

#endif
