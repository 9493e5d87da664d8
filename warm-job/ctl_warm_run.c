/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See ctl_warm_run.h. News is what the agent sends when there is some (GetWarm waits for it); between two questions
 * lies a quarter of a second, since there is always news while files are fetched. When the agent goes away its tasks
 * are begun again in the next one.
 */
#include "warm-job/ctl_warm_run.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "common/lock.h"
#include "warm-job/ctl_warm_task.h"

#define ACTIVE_MAX 2
#define NEWS_MS 1000 /* how long the agent holds a question back */
#define PACE_MIN_MS 20
#define PACE_MAX_MS 250
#define RETRY_MS 500
#define CANCEL_MS 5000 /* for the last figures of cancelled tasks */

struct warm_run {
	const struct warm_args *args;
	struct warm_task *tasks;
	size_t ntasks;
	struct warm_show *show;
	int64_t deadline_ms; /* 0: none */
	bool is_away_told;
};

static volatile sig_atomic_t stop_signal;

static void note_signal(int signal)
{
	stop_signal = signal;
}

/* The next of the kind ends the process: whoever sends two does not want to wait. */
static void catch_signals(void)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
	struct sigaction action = {.sa_handler = note_signal, .sa_flags = (int)SA_RESETHAND};

	stop_signal = 0;
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		struct sigaction old;

		/* what nohup(1) has set stays */
		if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			sigaction(signals[i], &action, NULL);
	}
}

static int64_t now_ms(void)
{
	return wd_now_ns() / 1000000;
}

static void pause_ms(int64_t ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};

	nanosleep(&t, NULL); /* a signal ends it */
}

static bool is_to_stop(const struct warm_run *r)
{
	return stop_signal || (r->deadline_ms && now_ms() >= r->deadline_ms);
}

/* ---- tasks ---- */

static int add_task(struct warm_run *r, const struct warm_target *where, size_t first, size_t count)
{
	struct warm_task *more = realloc(r->tasks, (r->ntasks + 1) * sizeof(*more)), *t;

	if (!more)
		return -ENOMEM;
	r->tasks = more;
	t = &more[r->ntasks++];
	*t = (struct warm_task){.where = where, .first = first, .count = count};
	return getrandom(t->token, sizeof(t->token), 0) == sizeof(t->token) ? 0 : -EIO;
}

/* A task for all of a mount, or as many as its list of paths takes. */
static int add_tasks(struct warm_run *r, const struct warm_target *where, struct wd_err *err)
{
	struct warm_task empty = {.where = where};
	size_t base = warm_task_size(&empty, r->args), max = ctl_control_max(where->control), size = base, first = 0;
	int rc = 0;

	for (size_t i = 0; i < where->npaths && !where->is_whole && rc == 0; i++) {
		size_t one = strlen(where->paths[i]) + 4;

		if (size + one > max && i > first) {
			rc = add_task(r, where, first, i - first);
			first = i;
			size = base;
		}
		size += one;
	}
	if (rc == 0)
		rc = where->is_whole ? add_task(r, where, 0, 0) : add_task(r, where, first, where->npaths - first);
	return rc < 0 ? wd_err_sys(err, -rc, "warm '%s'", where->name) : 0;
}

int warm_run_new(
	const struct warm_places *places, const struct warm_args *args, struct warm_run **ret_run, struct wd_err *err)
{
	struct warm_run *r = calloc(1, sizeof(*r));

	if (!r)
		return wd_err_sys(err, ENOMEM, "warm");
	r->args = args;
	for (size_t i = 0; i < places->ntargets; i++) {
		int rc = places->targets[i].is_whole || places->targets[i].npaths ? add_tasks(r, &places->targets[i], err)
										  : 0;

		if (rc < 0) {
			warm_run_free(r);
			return rc;
		}
	}
	*ret_run = r;
	return 0;
}

void warm_run_free(struct warm_run *r)
{
	if (r)
		free(r->tasks);
	free(r);
}

static struct warm_sum sum_of(const struct warm_run *r)
{
	struct warm_sum sum = {.is_listed = true};

	for (size_t i = 0; i < r->ntasks; i++) {
		const struct warm_sum *one = &r->tasks[i].sum;

		sum.files += one->files;
		sum.files_done += one->files_done;
		sum.files_failed += one->files_failed;
		sum.files_skipped += one->files_skipped;
		sum.bytes += one->bytes;
		sum.bytes_present += one->bytes_present;
		sum.bytes_fetched += one->bytes_fetched;
		sum.is_listed = sum.is_listed && one->is_listed;
	}
	return sum;
}

static bool is_active(const struct warm_task *t)
{
	return t->is_begun && t->end == WARM_END_NONE;
}

/* ---- an agent that goes away ---- */

static void tell_away(struct warm_run *r)
{
	if (r->is_away_told)
		return;
	r->is_away_told = true;
	warm_show_clear(r->show);
	ctl_warn("warm: the agent went away: going on when it is back; what is in the cache is not fetched again");
}

/* Begins t again in the next agent. The mounts come back to that after it has started, so a refusal may be none. */
static int revive(struct warm_run *r, struct warm_task *t, struct wd_err *err)
{
	int64_t give_up_ms = now_ms() + WARM_AWAY_MS;
	int rc;

	tell_away(r);
	for (;;) {
		*err = WD_ERR_INIT;
		rc = ctl_control_reopen(t->where->control, err);
		if (rc == 0)
			rc = warm_task_begin(t, r->args, err);
		if (rc == 0 || rc == -EOPNOTSUPP)
			break;
		if (is_to_stop(r))
			return -EINTR;
		if (now_ms() >= give_up_ms)
			return wd_err_wrap(err, "the agent did not come back within %d s", WARM_AWAY_MS / 1000);
		pause_ms(RETRY_MS);
	}
	/* the others' ids are of the agent before, too */
	for (size_t i = 0; rc == 0 && i < r->ntasks; i++) {
		struct warm_task *other = &r->tasks[i];

		if (other != t && is_active(other) && other->where->control == t->where->control)
			other->is_stale = true;
	}
	return rc;
}

static bool is_agent_lost(int status)
{
	return ctl_control_is_lost(status) || status == -ENOENT || status == -ESTALE;
}

/* An agent that ends cancels its tasks and forgets them; one that somebody has cancelled it still knows. */
static int check_cancelled(struct warm_run *r, struct warm_task *t, struct wd_err *err)
{
	int rc = warm_task_poll(t, 0, r->show, err);

	if (rc < 0)
		t->end = WARM_END_NONE;
	return rc;
}

static int poll_task(struct warm_run *r, struct warm_task *t, uint32_t wait_ms, struct wd_err *err)
{
	int rc = t->is_stale ? warm_task_begin(t, r->args, err) : warm_task_poll(t, wait_ms, r->show, err);

	if (rc == 0 && t->end == WARM_END_CANCELLED)
		rc = check_cancelled(r, t, err);
	if (rc < 0 && rc != -EINTR && (is_agent_lost(rc) || t->is_stale))
		rc = revive(r, t, err);
	/* a signal that is none of ours, SIGWINCH for one (ours are seen by the caller); a mount with many calls */
	return rc == -EINTR || rc == -EBUSY ? 0 : rc;
}

static int begin_task(struct warm_run *r, struct warm_task *t, struct wd_err *err)
{
	int rc = warm_task_begin(t, r->args, err);

	/* the first word decides; later the agent is known to be one that comes back */
	if (rc < 0 && ctl_control_is_lost(rc) && t != r->tasks)
		rc = revive(r, t, err);
	return rc == -EINTR ? 0 : rc;
}

/* ---- from begin to end ---- */

/* Begins what there is room for and asks for news. Returns how many tasks are active, or -errno. */
static int turn(struct warm_run *r, struct wd_err *err)
{
	int active = 0, asked = 0, rc = 0;

	for (size_t i = 0; i < r->ntasks; i++)
		active += is_active(&r->tasks[i]);
	for (size_t i = 0; i < r->ntasks && active < ACTIVE_MAX && rc == 0; i++) {
		if (r->tasks[i].is_begun)
			continue;
		rc = begin_task(r, &r->tasks[i], err);
		active++;
	}
	for (size_t i = 0; i < r->ntasks && rc == 0; i++) {
		if (!is_active(&r->tasks[i]))
			continue;
		rc = poll_task(r, &r->tasks[i], asked++ ? 0 : NEWS_MS, err);
		if (!is_active(&r->tasks[i]))
			active--;
	}
	return rc < 0 ? rc : active;
}

static bool is_all_over(const struct warm_run *r)
{
	for (size_t i = 0; i < r->ntasks; i++) {
		if (!r->tasks[i].is_begun || r->tasks[i].end == WARM_END_NONE)
			return false;
	}
	return true;
}

/* The worst of the tasks; the enum is in the order of what is worse. */
static enum warm_end end_of_all(const struct warm_run *r)
{
	enum warm_end end = WARM_END_DONE;

	for (size_t i = 0; i < r->ntasks; i++)
		end = r->tasks[i].end > end ? r->tasks[i].end : end;
	return end;
}

/* Cancels what is under way and takes its last figures. Nothing that fails here matters. */
static void cancel(struct warm_run *r)
{
	int64_t until_ms = now_ms() + CANCEL_MS;
	struct wd_err err;

	for (size_t i = 0; i < r->ntasks; i++) {
		struct warm_task *t = &r->tasks[i];

		if (!is_active(t) || t->is_stale)
			continue;
		err = WD_ERR_INIT;
		if (warm_task_cancel(t->where->control, t->id, &err) < 0)
			continue;
		while (is_active(t) && now_ms() < until_ms && warm_task_poll(t, NEWS_MS, r->show, &err) == 0)
			;
	}
}

static enum warm_end run_to_end(struct warm_run *r)
{
	struct wd_err err = WD_ERR_INIT;
	int64_t pace = PACE_MIN_MS;

	while (!is_all_over(r)) {
		struct warm_sum sum;
		int rc = is_to_stop(r) ? 0 : turn(r, &err);

		if (is_to_stop(r)) {
			cancel(r);
			return is_all_over(r) && end_of_all(r) == WARM_END_DONE ? WARM_END_DONE
			       : stop_signal					? WARM_END_STOPPED
										: WARM_END_TIMEOUT;
		}
		if (rc < 0) {
			cancel(r);
			warm_show_clear(r->show);
			ctl_error("warm: %s", err.msg);
			return WARM_END_FAILED;
		}
		if (end_of_all(r) >= WARM_END_NO_ROOM) {
			cancel(r);
			return end_of_all(r);
		}
		sum = sum_of(r);
		warm_show_progress(r->show, &sum, now_ms());
		if (!is_all_over(r))
			pause_ms(pace);
		pace = 2 * pace < PACE_MAX_MS ? 2 * pace : PACE_MAX_MS;
	}
	return end_of_all(r);
}

static enum ctl_exit exit_of(enum warm_end end)
{
	switch (end) {
	case WARM_END_DONE:
		return CTL_DONE;
	case WARM_END_PARTLY:
	case WARM_END_NO_ROOM:
	case WARM_END_TIMEOUT:
		return CTL_PARTLY;
	case WARM_END_STOPPED:
		return (enum ctl_exit)(128 + stop_signal);
	default:
		return CTL_FAILED;
	}
}

enum ctl_exit warm_run_wait(struct warm_run *r, struct warm_show *show)
{
	struct warm_sum sum;
	enum warm_end end;

	r->show = show;
	r->deadline_ms = r->args->timeout_ms ? now_ms() + r->args->timeout_ms : 0;
	catch_signals();
	end = run_to_end(r);
	sum = sum_of(r);
	/* an error was told; figures of nothing would only hide it */
	if (end == WARM_END_FAILED && show->mode != WARM_JSON && !(r->ntasks && r->tasks[0].is_begun))
		return CTL_FAILED;
	warm_show_end(show, &sum, end, now_ms());
	return exit_of(end);
}

enum ctl_exit warm_run_detach(struct warm_run *r, bool as_json, FILE *out)
{
	struct wd_err err = WD_ERR_INIT;

	for (size_t i = 0; i < r->ntasks; i++) {
		struct warm_task *t = &r->tasks[i];

		if (warm_task_begin(t, r->args, &err) < 0) {
			ctl_error("warm '%s': %s", t->where->name, err.msg);
			return i ? CTL_PARTLY : CTL_FAILED;
		}
		fprintf(out, as_json ? "{\"event\":\"started\",\"id\":%" PRIu64 "}\n" : "%" PRIu64 "\n", t->id);
		fflush(out);
	}
	return CTL_DONE;
}
