/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer target: a mount's description, which anybody who may mount has written. What is taken
 * has a URL and permission bits that are some; what is refused says why. An identity never holds a
 * secret.
 */
#include "agent/mount_options.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool is_so)
{
	if (!is_so)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct settings settings = {.metadata_ttl = 60000, .negative_ttl = 5000};
	struct mount_options *o = NULL;
	struct wd_err err = WD_ERR_INIT;
	struct origin_options origin_options;
	char place[1400], identity[256];

	if (mount_options_parse(data, size, &settings, &o, &err) < 0) {
		require(!o && err.code > 0 && err.msg[0]);
		return 0;
	}
	require(o->url && o->url[0]);
	require(o->file_mode >= 0 && o->file_mode <= 0777);
	require(o->dir_mode >= 0 && o->dir_mode <= 0777);
	require(o->uid >= 0 && o->gid >= 0 && o->metadata_ttl >= 0 && o->negative_ttl >= 0);
	require(o->is_read_only);
	mount_options_origin(o, &settings, &origin_options);
	if (mount_options_place(o, place, sizeof(place)) == 0)
		require(strncmp(place, o->url, strlen(o->url)) == 0);
	if (mount_options_identity(o, identity, sizeof(identity)) == 0)
		require(!o->secret_key || strlen(o->secret_key) < 8 ||
			!strstr(identity, o->secret_key) || o->identity || o->source ||
			(o->access_key && strstr(o->access_key, o->secret_key)));
	mount_options_free(o);
	return 0;
}
