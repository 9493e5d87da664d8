/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_CSI_TEST_MAPS_H
#define WD_CSI_TEST_MAPS_H
/* Maps of strings as requests have them. */
#include <string.h>

#include "csi/volume.h"

/* "key=value" pairs, NULL at the end. */
static inline struct map make_map(struct arena *arena, const char *const *pairs)
{
	struct map_entry **list;
	size_t n = 0;

	while (pairs && pairs[n])
		n++;
	list = arena_alloc(arena, (n + 1) * sizeof(*list));
	for (size_t i = 0; i < n; i++) {
		const char *eq = strchr(pairs[i], '=');

		list[i] = arena_alloc(arena, sizeof(**list));
		list[i]->key = arena_printf(arena, "%.*s", (int)(eq - pairs[i]), pairs[i]);
		list[i]->value = arena_printf(arena, "%s", eq + 1);
	}
	return (struct map){n, list};
}

#endif
