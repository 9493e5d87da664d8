/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_CONTROL_H
#define WD_COMMON_CONTROL_H
/*
 * The control file of a mount: .warpdrive at its root. It is not listed, can be opened for reading by whoever may
 * look into the root, has no bytes, and takes one ioctl: a call of the control API (common/control.proto), limited
 * to what belongs to this mount. So a pod that sees nothing but its volume can warm it.
 *
 * WD_CONTROL_CALL: in: method, len and data of the request. The ioctl returns 0 when there is an answer: status 0,
 * with len and data of the response; or status -errno, with a text that says why (no terminator). Anything else is
 * the mount's own trouble: EINTR, ENOTTY (no such ioctl), EPROTO (the frame makes no sense).
 *
 * A call may be answered twice by the agent when the server was replaced meanwhile: requests that begin something carry
 * a token of the caller's.
 */
#include <stdint.h>
#include <sys/ioctl.h>

#define WD_CONTROL_NAME ".warpdrive"
#define WD_CONTROL_METHOD_MAX 32 /* with its terminator */
#define WD_CONTROL_DATA_MAX 16320

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
