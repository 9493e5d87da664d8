/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_MEMORY_H
#define WD_AGENT_MEMORY_H
/* Memory for what has nowhere to send an error to. */
#include <stddef.h>

/* For small things (bytes to some hundred KiB): where there is no memory it is asked for again for
 * some seconds; then the process ends, which its mounts survive. Freed by free(). */
void *alloc_patiently(size_t size);

#endif
