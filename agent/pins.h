/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_PINS_H
#define WD_AGENT_PINS_H
/*
 * What the operator wants kept in the cache (setting `pinned`): URLs, each of which stands for itself and all
 * below it, such as "s3://models/llama, https://data.example.com/small". Constant after it is made.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct pins;

/* -EINVAL names the item that is no URL. */
int pins_new(const char *list, struct pins **ret_pins, struct wd_err *err);
void pins_free(struct pins *p);
/* url: of a mount's root; key: of an object below it. */
bool pins_match(const struct pins *p, const char *url, const char *key);
/* Tells this list from others (store_config.pin_tag); 0: an empty one. */
uint16_t pins_tag(const struct pins *p);

#endif
