/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_CONFIG_INTERNAL_H
#define WD_COMMON_CONFIG_INTERNAL_H
/* What config.c and config_yaml.c share. */
#include "common/config.h"

/* The row of a name, or NULL with the known names in err. */
const struct wd_config_key *wd_config_find_key(
	const struct wd_config_key *keys, const char *name, struct wd_err *err);
/* Parses text as the key's type and sets it. */
int wd_config_set_key(
	const struct wd_config_key *key, void *values, const char *text, struct wd_err *err);
/* Sets a string or a list as it is; takes ownership of text, NULL being -ENOMEM. */
int wd_config_set_text(
	const struct wd_config_key *key, void *values, char *text, struct wd_err *err);

#endif
