/* SPDX-License-Identifier: Apache-2.0 */
/* Where a bucket is: its region and the host to ask, which a server's word may change. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/origin_s3.h"
#include "common/cleanup.h"
#include "common/log.h"

void s3_place_free(struct s3_place *place)
{
	if (!place)
		return;
	free(place->region);
	free(place->authority);
	free(place);
}

struct s3_place *s3_place_new(const struct s3_origin *s, const char *region)
{
	struct s3_place *place = calloc(1, sizeof(*place));
	wd_autofree char *host = NULL;

	if (!place)
		return NULL;
	place->region = strdup(region);
	if ((s->endpoint ? asprintf(&host, "%s", s->endpoint)
			 : asprintf(&host, "s3.%s.amazonaws.com", region)) < 0)
		host = NULL;
	if (!host || asprintf(&place->authority, "%s%s%s", s->is_path_style ? "" : s->bucket,
			     s->is_path_style ? "" : ".", host) < 0)
		place->authority = NULL;
	if (!place->region || !place->authority) {
		s3_place_free(place);
		return NULL;
	}
	return place;
}

/* A word from the server that becomes part of a host's name. */
static bool is_region(const char *region)
{
	size_t len = strlen(region);

	return len > 0 && len <= 32 && strspn(region, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

bool s3_move_to(struct s3_origin *s, const char *region)
{
	struct s3_place *place, *now;
	unsigned n = 0;
	bool has_moved;

	if (!is_region(region))
		return false;
	place = s3_place_new(s, region);
	wd_lock(&s->site.lock);
	now = atomic_load(&s->place);
	for (const struct s3_place *p = now; p; p = p->older)
		n++;
	has_moved = place && n < S3_PLACES_MAX && strcmp(now->region, region) != 0;
	if (has_moved) {
		place->older = now;
		atomic_store(&s->place, place);
	}
	wd_unlock(&s->site.lock);
	if (has_moved)
		wd_info("open '%s': the bucket is in region '%s', which is used from now on; set region=%s",
			s->site.base.url, region, region);
	else
		s3_place_free(place);
	return has_moved;
}
