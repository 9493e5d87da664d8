/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_PINS_H
#define WD_AGENT_PINS_H
/*
 * What the operator wants kept in the cache: rules, each a URL that stands for itself and all below it. Those of the
 * setting `pinned`, such as "s3://models/llama, https://data.example.com/small", are constant. Others are asked for
 * while the agent runs (`warpdrive-ctl pin`), and are a file in the cache directory, so that they outlive it.
 *
 * Thread-safe; its lock is a leaf.
 */
#include <stdbool.h>
#include <stdint.h>

#include "agent/store.h"
#include "common/err.h"

#define PINS_ASKED_MAX 1024

struct pins;

/* The rules of the setting. -EINVAL names the item that is no URL. */
int pins_new(const char *list, struct pins **ret_pins, struct wd_err *err);
/* Reads those that were asked for from dir/pins, where they are kept from now on. A file that makes no sense is an
 * error of its own line alone: it is left out, and told. */
int pins_open(struct pins *p, const char *dir, struct wd_err *err);
void pins_free(struct pins *p);
/* How an object is pinned; url: of a mount's root; key: of the object below it. */
enum store_pin pins_match(struct pins *p, const char *url, const char *key);
/* Tells rules of this kind from others (store_config.pin_tags); 0: the setting has none. The other one stays while
 * there are rules that were asked for. */
uint16_t pins_tag(struct pins *p, enum store_pin kind);

/* Asks for a rule, of a mount's root and a path below it ("": all of it), and returns when it is on disk. One that is
 * there is no error. -ENOSPC: PINS_ASKED_MAX are. */
int pins_add(struct pins *p, const char *url, const char *path, struct wd_err *err);
/* Ends one. -ENOENT: there is none of just this; err says which one covers it. */
int pins_remove(struct pins *p, const char *url, const char *path, struct wd_err *err);
/* A copy (the caller's) of the rule with this number, those of the setting first; NULL: there is none. */
char *pins_rule(struct pins *p, unsigned number, enum store_pin *ret_kind);

#endif
