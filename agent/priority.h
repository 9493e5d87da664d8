/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_PRIORITY_H
#define WD_AGENT_PRIORITY_H
/*
 * What a read of an origin is for, the least urgent first. A read of a higher class goes before all that
 * wait in the lower ones, and some places are kept free for demand at all times (agent/get_queue.h).
 */
enum get_priority {
	GET_UNWANTED = -1, /* nobody wants it any more: it ends if it has not begun */
	GET_WARM,	   /* somebody wants it in the cache one day */
	GET_DIRECTORY,	   /* a file that is expected to be opened */
	GET_STREAM,	   /* ahead of a reader, in the file that it reads */
	GET_DEMAND,	   /* a reader waits for it */
	GET_PRIORITIES
};

#endif
