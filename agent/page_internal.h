/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_PAGE_INTERNAL_H
#define WD_AGENT_PAGE_INTERNAL_H
#include "agent/page.h"

/* page_text.c; neither holds "</". */
extern const char page_style[], page_script[];

#endif
