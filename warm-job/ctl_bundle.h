/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_BUNDLE_H
#define WD_WARM_JOB_CTL_BUNDLE_H
/* The support archive of `doctor --bundle`. */
#include "warm-job/ctl_doctor.h"

/* Makes FILE (a tar archive, see ctl_tar.h) from a finished report. Every member passes through
 * ctl_scrub(); no environment, no command line, no credentials go in. On failure no file is left. */
int ctl_bundle_write(const struct doctor *d, const char *path, struct wd_err *err);

#endif
