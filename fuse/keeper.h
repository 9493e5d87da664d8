/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_FUSE_KEEPER_H
#define WD_FUSE_KEEPER_H
/*
 * The keeper's state and the duties of its modules. One thread; nothing here blocks on a server, an
 * agent or a client: sends are non-blocking, and a peer that does not read is dropped.
 *
 *	keeper_loop.c      events and deadlines
 *	keeper_clients.c   keeper.sock: what ctl and csi ask
 *	keeper_mount.c     the life of a mount: asked, mounted, served, unmounted
 *	keeper_death.c     what follows a server's death: the next one, or giving up
 *	keeper_agent.c     the connection to the agent: mounts announced
 *	keeper_backing.c   backing ids, for the agent
 *	keeper_renew.c     other credentials for a mount
 *	keeper_holders.c   who else holds the mounts: deposits, offers, leave to end
 *	keeper_adopt.c     mounts of a keeper that is gone, and their servers
 *	keeper_record.c    files that say which mounts are held, and the dead ones cleaned up
 *	keeper_server.c    one server of a mount: started, watched, replaced
 *	keeper_watch.c     servers that are stopped or hang
 *	keeper_program.c   which program serves a mount; upgrades
 *	keeper_spawn.c, keeper_kernel.c, keeper_init.c   without state
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/deposit.h"
#include "common/err.h"
#include "common/keeper_stats.h"
#include "common/proto.h"

#define KEEPER_CLIENTS_MAX 64	     /* one more is refused at once */
#define KEEPER_MOUNTS_MAX 1024	     /* one more is refused with ENOSPC */
#define KEEPER_BACKINGS_MAX 65536    /* backing ids of one mount; then ENFILE */
#define KEEPER_HOLDERS_MAX 8	     /* the agent is the first; one more is refused with ENOSPC */
#define PROGRAM_ID_MAX 72

struct keeper;

/* Something that epoll watches, embedded in its owner. fd -1: not in use. */
struct source {
	int fd;
	void (*on_event)(struct keeper *k, struct source *source);
};

enum mount_state {
	MOUNT_ASKED,	 /* the agent is being asked */
	MOUNT_STARTING,	 /* mounted, the first server is not ready */
	MOUNT_SERVING,	 /* a server was ready; it may be between two servers */
	MOUNT_LINGERING, /* unmounted here, but another mount namespace still holds it */
	MOUNT_ENDING,	 /* unmounted, the server's end is awaited */
	MOUNT_LOST,	 /* its connection was aborted; it can only be unmounted */
};

/* How the agent knows of a mount. */
enum link_state {
	LINK_NONE,   /* not yet told */
	LINK_ADDING, /* MOUNT_ADD is unanswered */
	LINK_ADDED,
	LINK_REFUSED, /* told again at retry_at_ns */
};

/* A program for servers; counted. */
struct program {
	unsigned refs;
	int fd; /* -1: k->server_path, opened anew each time */
	char id[PROGRAM_ID_MAX];
};

/* A server that is started beside the one that serves, to take over from it. */
struct standby {
	struct source control, process;
	pid_t pid; /* 0: none */
	struct program *program;
	int agent_end; /* what the agent gets when it takes over */
	bool is_ready;
	uint32_t version;
	int64_t started_at_ns, until_ns;
};

/* The one program that is being tried. */
struct trial {
	struct source process;
	pid_t pid; /* 0: none */
	struct program *program;
	uint64_t request; /* of the agent; 0: it is gone */
	int64_t until_ns;
};

struct mount {
	struct mount *next;
	uint64_t id;
	char *target;
	char *dataset;	/* as the agent names it; NULL before its answer */
	uint32_t flags; /* enum wd_mount_flag */
	enum mount_state state;

	int fuse_fd, info_fd, tables_fd, description_fd, record_fd;
	uint32_t held_sent, held_by; /* by holder, a bit each: deposited, and confirmed */
	uint32_t held_stale; /* ... and what is being confirmed is out of date */
	unsigned major, minor;
	bool is_mounted;
	uint32_t backings; /* registered ids */

	enum link_state link;
	uint64_t link_id; /* of the MOUNT_ADD or MOUNT_SERVER that is unanswered */
	int64_t retry_at_ns;
	bool is_end_stale; /* a server was started while LINK_ADDING: the agent has another's end */
	int first_end;	   /* the server's end of the first socket pair, until a server has it */

	struct source control, process;
	struct source former; /* a server of an earlier keeper that is being ended */
	pid_t pid; /* 0: none */
	bool is_ready;
	uint32_t server_version; /* of the protocol, from READY on */
	/* keeper_watch.c */
	bool is_hung; /* and is being killed for it */
	int64_t watched_at_ns, alive_at_ns, ping_at_ns;
	int64_t stopped_at_ns; /* 0: it runs */
	unsigned pings_unanswered;
	unsigned hangs; /* servers that hung, in a row */
	/* keeper_program.c; programs may be NULL */
	struct program *program; /* what the server runs */
	struct program *refused; /* not to be tried here */
	struct program *former_program; /* served well before the last upgrade */
	struct standby standby;
	bool is_handing_over; /* the server is being ended for the standby */
	unsigned restarts;     /* servers beyond the first */
	unsigned young_deaths; /* in a row */
	/* 0: not set. down_since_ns: no server has served well since */
	int64_t started_at_ns, restart_at_ns, kill_at_ns, down_since_ns;
	int64_t stalled_since_ns; /* its readers have had no server since then; 0: they have one */
	int64_t undo_at_ns; /* the next try to unmount what failed */
	unsigned undo_tries;

	/* keeper_renew.c */
	uint64_t renew_id; /* of the MOUNT_RENEW that is unanswered; 0: none */
	uint64_t renew_client, renew_request;

	uint64_t client; /* who waits for this mount or umount; 0: nobody */
	uint64_t request;
	uint16_t request_type;
};

struct client {
	struct client *next;
	struct source source;
	uint64_t id;
	uint32_t role; /* 0: not yet greeted */
	uint32_t version; /* of the protocol, as agreed */
};

/* AGENT_OFFERING: it says what it holds; nothing is asked of it before that is known. */
enum agent_state { AGENT_AWAY, AGENT_GREETING, AGENT_OFFERING, AGENT_CONNECTED };

/* Somebody with copies of our descriptors. The first is the agent, whose client is 0. */
struct holder {
	bool is_used, is_ready;	 /* ready: it has offered all */
	bool is_released;	 /* it was given leave to end */
	bool has_refused;	 /* to be the one that stays */
	uint64_t client;
	unsigned unanswered;
};

struct keeper {
	/* configuration, borrowed */
	const char *run_dir, *server_path;
	uid_t server_uid;
	int ready_fd; /* told when it listens; -1: none */
	int64_t read_ahead;
	int64_t server_timeout_ns, stopped_timeout_ns; /* 0: none */
	int64_t give_up_ns;
	bool is_resend_off;
	bool is_exit_when_idle;

	int epoll_fd;
	struct source listener, signals, timer, inotify;
	bool is_stopping, had_mounts;
	bool is_released; /* a holder stays, and we may end */
	int64_t idle_since_ns, stop_again_at_ns, sweep_at_ns; /* 0: not set */

	struct source agent;
	enum agent_state agent_state;
	uint32_t agent_version; /* of the protocol: offered while GREETING, then agreed */
	uint64_t next_id;
	int64_t agent_retry_at_ns, greeting_until_ns, agent_backoff_ns;
	unsigned adds_unanswered;

	struct client *clients;
	unsigned nclients;
	struct holder holders[KEEPER_HOLDERS_MAX];
	int leave_asked; /* the holder that was asked whether we may end; -1: none */
	struct mount *mounts;
	unsigned nmounts;

	struct program *own, *offered; /* offered: NULL until the agent brings one */
	struct trial trial;

	uint64_t stats[WD_KEEPER_STATS_COUNT];
	bool is_stats_news; /* the agent has not been told */

	struct wd_msg in, out;
};

static inline void keeper_count(struct keeper *k, enum wd_keeper_stat stat)
{
	k->stats[stat]++;
	k->is_stats_news = true;
}

static inline void keeper_add_time(struct keeper *k, enum wd_keeper_stat stat, int64_t took_ns)
{
	k->stats[stat] += took_ns > 0 ? (uint64_t)took_ns / 1000 : 0;
	k->is_stats_news = true;
}

/* ---- keeper_loop.c ---- */
int source_watch(struct keeper *k, struct source *source, int fd,
	void (*on_event)(struct keeper *k, struct source *source), struct wd_err *err);
/* Stops watching and closes. Fine for one that is not in use. */
void source_close(struct keeper *k, struct source *source);
/* `to` takes the place of `from`, with its own on_event, which is set later by the caller. */
void source_move(struct keeper *k, struct source *from, struct source *to);

/* Waits for one event at most, handles it, and does all that is due; the timer is set for what is not. */
void keeper_round(struct keeper *k, int timeout_ms);
bool keeper_is_done(const struct keeper *k);

/* ---- keeper_clients.c ---- */
void clients_accept(struct keeper *k, struct source *source);
/* Answers a request of a client that may be gone. err NULL: k->out holds a good reply already. */
void client_reply(
	struct keeper *k, uint64_t client, struct wd_err *err, uint16_t type, uint64_t id);
void clients_close(struct keeper *k);

/* Sends k->out to a client, if it is there. */
void client_send(struct keeper *k, uint64_t client);

/* ---- keeper_mount.c ---- */
/* An empty mount, in no list; NULL when out of memory. Free it with mount_free, unless it was
 * enlisted. */
struct mount *mount_new(const char *target);
void mount_free(struct mount *m);
void mount_enlist(struct keeper *k, struct mount *m);
/* True from the first server's READY to the end: it is worth holding. */
bool mount_stands(const struct mount *m);
struct mount *mount_by_id(struct keeper *k, uint64_t id);
/* Takes up a MOUNT request; the answer follows later. */
int mount_request(struct keeper *k, uint64_t client, uint64_t request, const char *target,
	const void *description, size_t len, struct wd_err *err);
int mount_request_umount(struct keeper *k, uint64_t client, uint64_t request, const char *target,
	uint32_t flags, struct wd_err *err);
/* The agent agreed or refused. */
void mount_agreed(struct keeper *k, struct mount *m);
/* Answers who waits, undoes what was done and forgets the mount. */
void mount_fail(struct keeper *k, struct mount *m, struct wd_err *err);
/* It came to its proper end: answers who waits and forgets the mount. */
void mount_over(struct keeper *k, struct mount *m);
/* A server says that it is set up. */
void mount_server_ready(struct keeper *k, struct mount *m);
void mount_client_gone(struct keeper *k, uint64_t client);
/* What is due at now_ns; *ret_next gets the earliest deadline that is left, if earlier. */
void mount_timers(struct keeper *k, int64_t now_ns, int64_t *ret_next);
/* Ends what is not yet or no longer of use; with is_all all the others, too, that are not busy. */
void mounts_stop(struct keeper *k, bool is_all);

/* ---- keeper_death.c ---- */
/* A server is dead and reaped. */
void mount_server_dead(struct keeper *k, struct mount *m, bool was_ready, bool was_killed);
/* Starts the next server, now that none is alive. */
void mount_restart(struct keeper *k, struct mount *m);
/* When the mount is to be given up, should no server come up before; 0: there is no deadline. */
int64_t mount_give_up_at(const struct keeper *k, const struct mount *m);
/* No server can be brought up: ends the connection, or the mount that never served. */
void mount_give_up(struct keeper *k, struct mount *m);

/* ---- keeper_server.c ---- */
int server_start(struct keeper *k, struct mount *m, struct wd_err *err);
void server_go(struct keeper *k, struct mount *m);
/* Hands the server a new socket to the agent. Takes ownership of end. */
void server_send_agent_sock(struct keeper *k, struct mount *m, int end);

/* The process alone: program, the server's ends of its two sockets. */
int server_spawn(struct keeper *k, const struct mount *m, const struct program *p, int agent_end,
	int control, pid_t *ret_pid, int *ret_pidfd, struct wd_err *err);
/* The protocol version in a READY; 0: it is malformed. */
uint32_t server_ready_version(const struct wd_msg *m);
/* m->control and m->process were moved there: sets what they do. */
void server_moved(struct mount *m);

/* ---- keeper_program.c ---- */
int program_init(struct keeper *k, struct wd_err *err);
/* What the next server of m is to run; noted in m. */
const struct program *program_choose(struct keeper *k, struct mount *m);
/* Its servers die young, again and again. True when another program is to be run from now on. */
bool program_crashes(struct keeper *k, struct mount *m);
void program_forget(struct mount *m);
/* WD_MSG_SERVER_PROGRAM, in k->in. */
void program_offered(struct keeper *k);
/* Upgrades one mount at a time. */
void program_timers(struct keeper *k, int64_t now_ns, int64_t *ret_next);
void standby_init(struct mount *m);
/* Ends a standby, if there is one. */
void standby_cancel(struct keeper *k, struct mount *m);
/* The server is dead: true when a standby takes over, now or when it gets READY. */
bool standby_take_over(struct keeper *k, struct mount *m);

/* ---- keeper_watch.c ---- */
/* A server was started, or got its GO. */
void watch_start(struct keeper *k, struct mount *m);
/* It answered a PING. */
void watch_pong(struct keeper *k, struct mount *m);
/* A SIGCHLD came: children were stopped or continued, or died, which is no news here. */
void watch_children(struct keeper *k);
/* After how long without an answer the server of the moment is killed; 0: never. */
int64_t watch_hang_timeout(const struct keeper *k, const struct mount *m);
void watch_timers(struct keeper *k, int64_t now_ns, int64_t *ret_next);

/* ---- keeper_agent.c ---- */
/* Connects unless that is done or under way. */
int agent_connect(struct keeper *k, struct wd_err *err);
/* Tells the agent of mounts that it does not know, a few at a time. */
void agent_pump(struct keeper *k);
/* A new server got one end; this is the other. Takes ownership. */
void agent_replace_server(struct keeper *k, struct mount *m, int end);
/* Answers the agent's request id with an error. */
void agent_send_error(struct keeper *k, uint16_t type, uint64_t id, const struct wd_err *err);
/* Sends the counters if they changed. */
void agent_send_stats(struct keeper *k);
void agent_mount_gone(struct keeper *k, struct mount *m);
/* Sends k->out. An agent that does not read is as good as none. */
int agent_send(struct keeper *k);
/* It has offered all that it holds, or holds nothing ever: it is told of mounts from now on. */
void agent_reconciled(struct keeper *k);
void agent_timers(struct keeper *k, int64_t now_ns, int64_t *ret_next);
void agent_on_inotify(struct keeper *k, struct source *source);

/* The reason in an error reply of the agent's, for a person. */
void agent_take_reason(const struct wd_msg *in, struct wd_err *err);

/* ---- keeper_backing.c ---- */
/* The agent's BACKING_OPEN and BACKING_CLOSE, in k->in. */
void backing_on_open(struct keeper *k);
void backing_on_close(struct keeper *k);

/* ---- keeper_renew.c ---- */
/* Takes up a RENEW request; the answer follows later. */
int renew_request(struct keeper *k, uint64_t client, uint64_t request, const char *target,
	const void *description, size_t len, struct wd_err *err);
/* The agent's reply to a MOUNT_RENEW, in k->in. */
void renew_answered(struct keeper *k);
/* The agent, or the mount, goes: answers who waits. */
void renew_lost(struct keeper *k, struct mount *m);
void renew_client_gone(struct keeper *k, uint64_t client);

/* ---- keeper_holders.c ---- */
/* A part of the deposit has changed: every holder of the mount gets it anew. */
void holders_deposit_again(struct keeper *k, struct mount *m);
#define HOLDER_AGENT 0
/* The agent, or a client's first word as a holder. Returns the holder's number or -ENOSPC. */
int holder_begin(struct keeper *k, uint64_t client);
/* The number of a client's holder, or -1. */
int holder_of(const struct keeper *k, uint64_t client);
void holder_gone(struct keeper *k, int holder);
/* k->in is a message from that holder; false when it is none that holders send. -EPROTO in *ret_rc
 * when it is malformed. */
bool holder_message(struct keeper *k, int holder, int *ret_rc);
/* Deposits what is not deposited yet, a few at a time. */
void holders_pump(struct keeper *k);
/* The mount is about to be forgotten. */
void holders_unhold(struct keeper *k, struct mount *m);
/* Stopping: asks a holder that has everything for leave. False when nobody can be hoped for. */
bool holders_ask_leave(struct keeper *k);

/* ---- keeper_adopt.c ---- */
/* Takes the mount of a deposit over, or says why not: -ENOENT when it has ended. Takes what it
 * needs out of *d. */
int adopt(struct keeper *k, struct wd_deposit *d, struct wd_err *err);
/* True while a server that somebody else started serves the mount; it is being ended, and
 * mount_restart() follows. */
bool adopt_former_lives(struct keeper *k, struct mount *m);

/* ---- keeper_record.c ---- */
/* Makes the record of a mounted mount: a locked file, whose fd is returned. */
int record_make(const struct keeper *k, const struct mount *m, struct wd_err *err);
/* True when fd is this mount's record. */
bool record_is(const struct keeper *k, const struct mount *m, int fd);
void record_remove(const struct keeper *k, const struct mount *m);
/* Unmounts what was lost with its last holder and is not busy. True when something is left to look
 * after again. */
bool records_sweep(struct keeper *k);

/* ---- keeper_status.c ---- */
/* Writes the status into a fresh memfd. Returns it. */
int status_memfd(const struct keeper *k, struct wd_err *err);

#endif
