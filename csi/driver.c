/* SPDX-License-Identifier: Apache-2.0 */
/* See driver.h. */
#include "csi/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct busy {
	struct busy *next;
	char target[];
};

int driver_init(struct driver *d, const char *run_dir, const char *kubelet_dir, const char *node_id,
	struct wd_err *err)
{
	size_t len = kubelet_dir ? strlen(kubelet_dir) : 0;
	char *dir;

	*d = (struct driver){.run_dir = run_dir, .node_id = node_id, .kubelet_fd = -1};
	wd_mutex_init(&d->lock);
	if (!kubelet_dir)
		return 0;
	if (kubelet_dir[0] != '/' || len < 2)
		return wd_err_set(err, EINVAL, "kubelet directory '%s': not an absolute path", kubelet_dir);
	while (len > 1 && kubelet_dir[len - 1] == '/')
		len--;
	dir = strndup(kubelet_dir, len);
	if (!dir)
		return wd_err_set(err, ENOMEM, "out of memory");
	d->kubelet_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (d->kubelet_fd < 0) {
		int code = errno;

		free(dir);
		return wd_err_sys(err, code, "open the kubelet directory '%s'", kubelet_dir);
	}
	d->kubelet_dir = dir;
	return 0;
}

void driver_done(struct driver *d)
{
	if (d->kubelet_fd >= 0)
		close(d->kubelet_fd);
	free((char *)d->kubelet_dir);
	wd_mutex_done(&d->lock);
}

bool driver_claim(struct driver *d, const char *target)
{
	size_t len = strlen(target) + 1;
	struct busy *mine = malloc(sizeof(*mine) + len), *b;

	if (!mine)
		return false;
	memcpy(mine->target, target, len);
	wd_lock(&d->lock);
	for (b = d->busy; b && strcmp(b->target, target) != 0; b = b->next)
		;
	if (!b) {
		mine->next = d->busy;
		d->busy = mine;
	}
	wd_unlock(&d->lock);
	if (b)
		free(mine);
	return !b;
}

void driver_release(struct driver *d, const char *target)
{
	struct busy **at, *b;

	wd_lock(&d->lock);
	for (at = &d->busy; *at && strcmp((*at)->target, target) != 0; at = &(*at)->next)
		;
	b = *at;
	if (b)
		*at = b->next;
	wd_unlock(&d->lock);
	free(b);
}
