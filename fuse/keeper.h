/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_FUSE_KEEPER_H
#define WD_FUSE_KEEPER_H
/*
 * The keeper's state and the duties of its modules. One thread; nothing here blocks on a server, an
 * agent or a client: sends are non-blocking, and a peer that does not read is dropped.
 *
 *	keeper_clients.c   keeper.sock: what ctl and csi ask
 *	keeper_mount.c     the life of a mount: asked, mounted, served, unmounted
 *	keeper_agent.c     the connection to the agent: mounts announced, backing ids brokered
 *	keeper_server.c    one server of a mount: started, watched, replaced
 *	keeper_spawn.c, keeper_kernel.c, keeper_init.c   without state
 *	keeper_watch.c     servers that hang
 *	keeper_spawn.c, keeper_kernel.c, keeper_init.c, keeper_mountinfo.c   without state
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"
#include "common/keeper_stats.h"
#include "common/proto.h"

#define KEEPER_CLIENTS_MAX 64	     /* one more is refused at once */
#define KEEPER_MOUNTS_MAX 1024	     /* one more is refused with ENOSPC */
#define KEEPER_BACKINGS_MAX 65536    /* backing ids of one mount; then ENFILE */
#define KEEPER_DATASET_MAX 2048	     /* bytes of a dataset's name, and the kernel's limit is 4096 */
#define KEEPER_DESCRIPTION_MAX 49152 /* bytes of a mount's description */

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

struct mount {
	struct mount *next;
	uint64_t id;
	char *target;
	unsigned char *description;
	size_t description_len;
	char *dataset;	/* as the agent names it; NULL before its answer */
	uint32_t flags; /* enum wd_mount_flag */
	enum mount_state state;

	int fuse_fd, info_fd, tables_fd;
	unsigned major, minor;
	bool is_mounted;
	uint32_t backings; /* registered ids */

	enum link_state link;
	uint64_t link_id; /* of the MOUNT_ADD or MOUNT_SERVER that is unanswered */
	int64_t retry_at_ns;
	bool is_end_stale; /* a server was started while LINK_ADDING: the agent has another's end */
	int first_end;	   /* the server's end of the first socket pair, until a server has it */

	struct source control, process;
	pid_t pid; /* 0: none */
	bool is_ready;
	uint32_t server_version; /* of the protocol, from READY on */
	/* keeper_watch.c */
	bool is_hung; /* and is being killed for it */
	int64_t alive_at_ns, ping_at_ns;
	unsigned pings_unanswered;
	unsigned restarts;     /* servers beyond the first */
	unsigned young_deaths; /* in a row */
	/* 0: not set. down_since_ns: no server has served well since */
	int64_t started_at_ns, restart_at_ns, kill_at_ns, down_since_ns;
	int64_t undo_at_ns; /* the next try to unmount what failed */
	unsigned undo_tries;

	uint64_t client; /* who waits for this mount or umount; 0: nobody */
	uint64_t request;
	uint16_t request_type;
};

struct client {
	struct client *next;
	struct source source;
	uint64_t id;
	bool is_greeted;
	uint32_t version; /* of the protocol, as agreed */
};

enum agent_state { AGENT_AWAY, AGENT_GREETING, AGENT_CONNECTED };

struct keeper {
	/* configuration, borrowed */
	const char *run_dir, *server_path;
	uid_t server_uid;
	int64_t read_ahead;
	int64_t server_timeout_ns; /* 0: none */
	int64_t give_up_ns;
	bool is_resend_off;
	bool is_exit_when_idle;

	int epoll_fd;
	struct source listener, signals, timer, inotify;
	bool is_stopping, had_mounts;

	struct source agent;
	enum agent_state agent_state;
	uint32_t agent_version; /* of the protocol: offered while GREETING, then agreed */
	uint64_t next_id;
	int64_t agent_retry_at_ns, greeting_until_ns, agent_backoff_ns;
	unsigned adds_unanswered;

	struct client *clients;
	unsigned nclients;
	struct mount *mounts;
	unsigned nmounts;

	uint64_t stats[WD_KEEPER_STATS_COUNT];
	bool is_stats_news; /* the agent has not been told */

	struct wd_msg in, out;
};

static inline void keeper_count(struct keeper *k, enum wd_keeper_stat stat)
{
	k->stats[stat]++;
	k->is_stats_news = true;
}

/* ---- keeper.c ---- */
int source_watch(struct keeper *k, struct source *source, int fd,
	void (*on_event)(struct keeper *k, struct source *source), struct wd_err *err);
/* Stops watching and closes. Fine for one that is not in use. */
void source_close(struct keeper *k, struct source *source);

/* ---- keeper_clients.c ---- */
void clients_accept(struct keeper *k, struct source *source);
/* Answers a request of a client that may be gone. err NULL: k->out holds a good reply already. */
void client_reply(
	struct keeper *k, uint64_t client, struct wd_err *err, uint16_t type, uint64_t id);
void clients_close(struct keeper *k);

/* ---- keeper_mount.c ---- */
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
/* A server says that it is set up, and: it is dead and reaped. */
void mount_server_ready(struct keeper *k, struct mount *m);
void mount_server_dead(struct keeper *k, struct mount *m, bool was_ready, bool was_killed);
void mount_client_gone(struct keeper *k, uint64_t client);
/* What is due at now_ns; *ret_next gets the earliest deadline that is left, if earlier. */
void mount_timers(struct keeper *k, int64_t now_ns, int64_t *ret_next);
/* Unmounts all that are not busy; true when none is left. */
bool mounts_stop(struct keeper *k);

/* ---- keeper_server.c ---- */
int server_start(struct keeper *k, struct mount *m, struct wd_err *err);
void server_go(struct keeper *k, struct mount *m);
/* Hands the server a new socket to the agent. Takes ownership of end. */
void server_send_agent_sock(struct keeper *k, struct mount *m, int end);

/* ---- keeper_watch.c ---- */
/* A server was started, or got its GO. */
void watch_start(struct keeper *k, struct mount *m);
/* It answered a PING. */
void watch_pong(struct mount *m);
void watch_timers(struct keeper *k, int64_t now_ns, int64_t *ret_next);

/* ---- keeper_agent.c ---- */
/* Connects unless that is done or under way. */
int agent_connect(struct keeper *k, struct wd_err *err);
/* Tells the agent of mounts that it does not know, a few at a time. */
void agent_pump(struct keeper *k);
/* A new server got one end; this is the other. Takes ownership. */
void agent_replace_server(struct keeper *k, struct mount *m, int end);
/* Sends the counters if they changed. */
void agent_send_stats(struct keeper *k);
void agent_mount_gone(struct keeper *k, struct mount *m);
void agent_timers(struct keeper *k, int64_t now_ns, int64_t *ret_next);
void agent_on_inotify(struct keeper *k, struct source *source);

/* ---- keeper_status.c ---- */
/* Writes the status into a fresh memfd. Returns it. */
int status_memfd(const struct keeper *k, struct wd_err *err);

#endif
