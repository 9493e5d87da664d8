/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_SCRUB_H
#define WD_WARM_JOB_CTL_SCRUB_H
/*
 * Blanks what looks like a secret in a text that leaves the machine. The daemons keep secrets out of
 * their logs and answers already; this is the second line, for what got there through a URL or a
 * setting.
 */
#include <stddef.h>

/*
 * Overwrites in place with '*', the length stays: user info in URLs ("//user:pass@host"), and the
 * value behind a name that holds secret, token, password, passwd, credential, signature,
 * authorization, access-key or api-key (any case, "-" or "_"), written as name: value, name=value
 * or "name": "value". Bytes that are no text are left alone.
 */
void ctl_scrub(char *text, size_t len);

#endif
