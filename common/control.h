/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_CONTROL_H
#define WD_COMMON_CONTROL_H
/*
 * The control file of a mount: .warpdrive at its root. It is not listed, can be opened for reading by whoever may
 * look into the root, has no bytes, and takes one ioctl: a call of the control API (common/control.proto), limited
 * to what belongs to this mount. So a pod that sees nothing but its volume can warm it. It hides what the dataset
 * may have under that name at its root.
 *
 * WD_CONTROL_CALL: in: method, len and data of the request. The ioctl returns 0 when there is an answer: status 0,
 * with len and data of the response (what lies behind them is as it was); or status -errno, with a text that says
 * why (no terminator). Anything else is the mount's own trouble:
 *   EINTR   a signal came first; the agent may or may not have done what was asked
 *   EBUSY   as many calls as may wait at once do wait
 *   ENOTTY  no such ioctl, or a server that has no control file
 *   EPROTO  the frame makes no sense, or the agent's answer
 *   EIO     the mount was made by a release whose servers cannot receive so much at once
 * Programs use common/control_client.h.
 *
 * A call may be answered twice by the agent when the server was replaced meanwhile: requests that begin something carry
 * a token of the caller's.
 */
#include <stdint.h>
#include <sys/ioctl.h>

#define WD_CONTROL_NAME ".warpdrive"
#define WD_CONTROL_METHOD_MAX 32 /* with its terminator */
#define WD_CONTROL_DATA_MAX 16320
/* Its node id and inode number. Agents give out numbers from 16 on, below an epoch; 1 is the root. */
#define WD_CONTROL_NODE 15

struct wd_control_frame {
	char method[WD_CONTROL_METHOD_MAX]; /* "StartWarm" */
	uint32_t len;			    /* of data */
	int32_t status;
	uint8_t data[WD_CONTROL_DATA_MAX];
};

/* the size of an ioctl's argument has 14 bits */
_Static_assert(sizeof(struct wd_control_frame) < (1 << 14), "a frame fits into an ioctl");

#define WD_CONTROL_CALL _IOWR('W', 1, struct wd_control_frame)

#endif
