/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_PINS_INTERNAL_H
#define WD_AGENT_PINS_INTERNAL_H
/* What pins.c (rules) and pins_file.c (where they are kept) share. */
#include <stdatomic.h>
#include <stddef.h>

#include "agent/pins.h"
#include "common/lock.h"

struct pin_list {
	uint16_t tag;
	unsigned n, cap;
	struct pin {
		char *url; /* without "/" at its end */
		size_t len;
	} items[];
};

struct pins {
	struct pin_list *setting; /* constant */
	char *dir;		  /* NULL: what is asked for is kept in memory alone */
	_Atomic unsigned nasked;
	struct wd_mutex lock;
	struct wd_cond changed;
	struct pin_list *asked WD_GUARDED_BY(lock); /* replaced as a whole */
	bool is_changing WD_GUARDED_BY(lock);
};

void pin_list_free(struct pin_list *l);
uint16_t pins_new_tag(uint16_t not_this);

/* ---- pins_file.c ---- */
int pins_write(struct pins *p, const struct pin_list *list, struct wd_err *err);

#endif
