/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of warm tasks, and what is said of them. A task has a thread of its own while it runs (warm_walk.c), for
 * it blocks: on listings, and until there is room among the files under way. The files' steps run on workers, transfer
 * threads and wherever a wish ends (warm_file.c).
 *
 * References: the table has one, the thread one, who looks at a task one, each of its files one.
 */
#include "agent/warm_internal.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

#define WORKERS 32 /* by default */

struct warms {
	struct agent *agent;
	struct wd_mutex lock;
	struct warm *tasks WD_GUARDED_BY(lock); /* the oldest first */
	uint64_t next_id WD_GUARDED_BY(lock);
	bool is_stopping WD_GUARDED_BY(lock);
	unsigned nthreads WD_GUARDED_BY(lock);
	struct wd_cond ended; /* a thread */
};

struct warms *warms_new(struct agent *a)
{
	struct warms *ws = calloc(1, sizeof(*ws));

	if (!ws)
		return NULL;
	ws->agent = a;
	wd_mutex_init(&ws->lock);
	wd_cond_init(&ws->ended);
	/* ids of another life of the agent are not taken for this one's */
	ws->next_id = (uint64_t)(wd_now_ns() / 1000000) << 16;
	return ws;
}

/* ---- strings ---- */

static void free_strings(char **strings)
{
	for (char **s = strings; s && *s; s++)
		free(*s);
	free(strings);
}

static char **copy_strings(char *const *strings, size_t n)
{
	char **out = calloc(n + 1, sizeof(*out));

	for (size_t i = 0; out && i < n; i++) {
		out[i] = strdup(strings[i]);
		if (!out[i]) {
			free_strings(out);
			return NULL;
		}
	}
	return out;
}

/* ---- a task's life ---- */

static void warm_free(struct warm *w)
{
	for (uint64_t i = 0; w->failed && i < w->p.failures; i++)
		free(w->failed[i].path);
	free(w->failed);
	free_strings(w->paths);
	free_strings(w->includes);
	free_strings(w->excludes);
	mount_unref(w->mount);
	wd_cond_done(&w->changed);
	wd_mutex_done(&w->lock);
	free(w);
}

void warm_unref(struct warm *w)
{
	if (w && atomic_fetch_sub(&w->refs, 1) == 1)
		warm_free(w);
}

static struct warm *warm_new(struct warms *ws, struct mount *mnt, const struct warm_options *o)
{
	struct warm *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	wd_mutex_init(&w->lock);
	wd_cond_init(&w->changed);
	w->warms = ws;
	w->mount = mount_ref(mnt);
	w->refs = 1;
	w->begun_ns = wd_now_ns();
	wd_lock(&w->lock);
	w->paced_tail = &w->paced;
	wd_unlock(&w->lock);
	w->options = *o;
	if (w->options.workers == 0)
		w->options.workers = WORKERS;
	if (w->options.workers > WARM_FILES_MAX)
		w->options.workers = WARM_FILES_MAX;
	w->paths = copy_strings(o->paths, o->npaths);
	w->includes = copy_strings(o->includes, o->nincludes);
	w->excludes = copy_strings(o->excludes, o->nexcludes);
	w->failed = calloc(WARM_FAILURES_MAX, sizeof(*w->failed));
	if (!w->paths || !w->includes || !w->excludes || !w->failed) {
		warm_unref(w);
		return NULL;
	}
	return w;
}

static bool is_over(struct warm *w)
{
	bool over;

	wd_lock(&w->lock);
	over = w->p.state != WARM_RUNNING;
	wd_unlock(&w->lock);
	return over;
}

/* Takes the oldest task that is over out of the table when there are too many. */
static struct warm *take_old_locked(struct warms *ws) WD_REQUIRES(ws->lock)
{
	unsigned n = 0;

	for (struct warm *w = ws->tasks; w; w = w->next)
		n++;
	for (struct warm **at = &ws->tasks; *at && n >= WARM_KEPT_MAX; at = &(*at)->next) {
		struct warm *w = *at;

		if (!is_over(w))
			continue;
		*at = w->next;
		return w;
	}
	return NULL;
}

/* A task that the same token began; how many run. */
static struct warm *find_token_locked(struct warms *ws, const struct mount *mnt, const struct warm_options *o,
	unsigned *ret_running) WD_REQUIRES(ws->lock)
{
	struct warm *found = NULL;

	*ret_running = 0;
	for (struct warm *w = ws->tasks; w; w = w->next) {
		*ret_running += !is_over(w);
		if (o->has_token && w->options.has_token && w->mount == mnt &&
			memcmp(w->options.token, o->token, WARM_TOKEN) == 0)
			found = w;
	}
	return found;
}

static int check_path(const char *path, struct wd_err *err)
{
	const char *p = path;

	while (*p) {
		size_t len = strcspn(p, "/");

		if ((len == 1 && p[0] == '.') || (len == 2 && p[0] == '.' && p[1] == '.') || len > TREE_NAME_MAX)
			return wd_err_set(err, EINVAL, "warm '%s': not a path below the mount", path);
		p += len;
		p += strspn(p, "/");
	}
	return 0;
}

static int start_thread_locked(struct warms *ws, struct warm *w) WD_REQUIRES(ws->lock)
{
	pthread_attr_t attr;
	pthread_t thread;
	int rc;

	atomic_fetch_add(&w->refs, 1); /* the thread's */
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	rc = -pthread_create(&thread, &attr, warm_run, w);
	pthread_attr_destroy(&attr);
	if (rc < 0)
		atomic_fetch_sub(&w->refs, 1);
	else
		ws->nthreads++;
	return rc;
}

int warm_start(struct warms *ws, struct mount *mnt, const struct warm_options *options, uint64_t *ret_id,
	struct wd_err *err)
{
	struct warm *w, *known, *old = NULL, **at;
	unsigned running;
	int rc = 0;

	for (size_t i = 0; i < options->npaths && rc == 0; i++)
		rc = check_path(options->paths[i], err);
	if (rc < 0)
		return rc;
	w = warm_new(ws, mnt, options);
	if (!w)
		return wd_err_set(err, ENOMEM, "warm '%s': out of memory", mnt->target);
	wd_lock(&ws->lock);
	known = find_token_locked(ws, mnt, options, &running);
	if (known) {
		*ret_id = known->id;
	} else if (ws->is_stopping) {
		rc = -ESHUTDOWN;
	} else if (running >= WARM_RUNNING_MAX) {
		rc = -EAGAIN;
	} else {
		old = take_old_locked(ws);
		w->id = w->p.id = ++ws->next_id;
		w->p.version = 1;
		rc = start_thread_locked(ws, w);
		if (rc == 0) {
			for (at = &ws->tasks; *at; at = &(*at)->next)
				;
			*ret_id = w->id;
			*at = w;
			w = NULL;
		}
	}
	wd_unlock(&ws->lock);
	warm_unref(old);
	warm_unref(w);
	if (rc == -EAGAIN)
		return wd_err_set(err, EAGAIN, "warm '%s': %u tasks run already; wait for one, or cancel it", mnt->target,
			WARM_RUNNING_MAX);
	return rc < 0 ? wd_err_set(err, -rc, "warm '%s': %s", mnt->target, strerror(-rc)) : 0;
}

struct warm *warm_find(struct warms *ws, const struct mount *mnt, uint64_t id)
{
	struct warm *w;

	wd_lock(&ws->lock);
	for (w = ws->tasks; w && (w->id != id || (mnt && w->mount != mnt)); w = w->next)
		;
	if (w)
		atomic_fetch_add(&w->refs, 1);
	wd_unlock(&ws->lock);
	return w;
}

size_t warm_list(struct warms *ws, const struct mount *mnt, uint64_t *ids, size_t max)
{
	size_t n = 0;

	wd_lock(&ws->lock);
	for (struct warm *w = ws->tasks; w && n < max; w = w->next)
		if (!mnt || w->mount == mnt)
			ids[n++] = w->id;
	wd_unlock(&ws->lock);
	return n;
}

void warm_cancel(struct warm *w)
{
	atomic_store(&w->is_cancelled, true);
	warm_files_cancel(w);
	wd_lock(&w->lock);
	warm_changed_locked(w);
	wd_unlock(&w->lock);
}

void warm_ended(struct warm *w, enum warm_state state)
{
	struct warms *ws = w->warms;

	wd_lock(&w->lock);
	w->p.state = state;
	w->p.elapsed_ms = (uint64_t)((wd_now_ns() - w->begun_ns) / 1000000);
	warm_changed_locked(w);
	wd_unlock(&w->lock);
	warm_unref(w); /* before anybody is told that it is the last */
	wd_lock(&ws->lock);
	ws->nthreads--;
	wd_cond_broadcast(&ws->ended);
	wd_unlock(&ws->lock);
}

/* Takes tasks out of the table: of this mount, or (NULL) all; each is cancelled. */
static void drop_tasks(struct warms *ws, const struct mount *mnt)
{
	struct warm *gone = NULL, *w;

	wd_lock(&ws->lock);
	for (struct warm **at = &ws->tasks; (w = *at);) {
		if (mnt && w->mount != mnt) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		w->next = gone;
		gone = w;
	}
	wd_unlock(&ws->lock);
	while ((w = gone)) {
		gone = w->next;
		warm_cancel(w);
		warm_unref(w);
	}
}

void warms_forget(struct warms *ws, const struct mount *mnt)
{
	if (ws)
		drop_tasks(ws, mnt);
}

void warms_stop(struct warms *ws)
{
	if (!ws)
		return;
	wd_lock(&ws->lock);
	ws->is_stopping = true;
	wd_unlock(&ws->lock);
	drop_tasks(ws, NULL);
	wd_lock(&ws->lock);
	while (ws->nthreads > 0)
		wd_cond_wait(&ws->ended, &ws->lock);
	wd_unlock(&ws->lock);
}

void warms_free(struct warms *ws)
{
	if (!ws)
		return;
	wd_cond_done(&ws->ended);
	wd_mutex_done(&ws->lock);
	free(ws);
}

/* ---- how it goes ---- */

void warm_changed_locked(struct warm *w)
{
	w->p.version++;
	wd_cond_broadcast(&w->changed);
}

bool warm_must_end(struct warm *w)
{
	bool is_gone;

	if (atomic_load(&w->is_cancelled) || atomic_load(&w->has_no_room))
		return true;
	wd_lock(&w->mount->lock);
	is_gone = w->mount->is_gone;
	wd_unlock(&w->mount->lock);
	if (is_gone)
		atomic_store(&w->is_cancelled, true);
	return is_gone;
}

void warm_note_failure(struct warm *w, const char *path, int code, const char *text)
{
	char *copy = strdup(path);

	wd_lock(&w->lock);
	w->p.files_failed++;
	if (copy && w->p.failures < WARM_FAILURES_MAX) {
		w->failed[w->p.failures++] = (struct warm_failed){copy, code, text};
		copy = NULL;
	}
	warm_changed_locked(w);
	wd_unlock(&w->lock);
	free(copy);
}

void warm_wait(struct warm *w, uint64_t version, int64_t until_ns)
{
	wd_lock(&w->lock);
	while (w->p.version == version && w->p.state == WARM_RUNNING && wd_now_ns() < until_ns)
		wd_cond_wait_until(&w->changed, &w->lock, until_ns);
	wd_unlock(&w->lock);
}

void warm_peek(struct warm *w, struct warm_progress *ret_progress)
{
	wd_lock(&w->lock);
	*ret_progress = w->p;
	wd_unlock(&w->lock);
}

void warm_look(struct warm *w, struct warm_progress *ret_progress)
{
	uint64_t recounted = is_over(w) ? warm_recount(w) : 0;

	wd_lock(&w->lock);
	*ret_progress = w->p;
	if (w->p.state == WARM_RUNNING) {
		for (struct warm_file *f = w->files; f; f = f->next) {
			uint64_t present = f->object ? object_present_bytes(f->object) : 0;

			ret_progress->bytes_present += present;
			if (f->object && present > f->present_before)
				ret_progress->bytes_fetched += present - f->present_before;
		}
		ret_progress->elapsed_ms = (uint64_t)((wd_now_ns() - w->begun_ns) / 1000000);
	} else {
		ret_progress->bytes_present = recounted;
	}
	wd_unlock(&w->lock);
}

const char *warm_target(const struct warm *w)
{
	return w->mount->target;
}

bool warm_failure(struct warm *w, uint64_t number, const char **ret_path, int *ret_code, const char **ret_text)
{
	bool is_there;

	wd_lock(&w->lock);
	is_there = number < w->p.failures;
	if (is_there) {
		*ret_path = w->failed[number].path;
		*ret_code = w->failed[number].code;
		*ret_text = w->failed[number].text;
	}
	wd_unlock(&w->lock);
	return is_there;
}
