/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_PROTO_H
#define WD_COMMON_PROTO_H
/*
 * The wire protocol between keeper, agent, FUSE server and warpdrive-ctl.
 *
 * Transport: AF_UNIX SOCK_SEQPACKET, one message per packet, at most WD_MSG_MAX bytes and
 * WD_MSG_FDS file descriptors (SCM_RIGHTS). Integers are little-endian. A string or byte array is a
 * u32 length and its bytes (no terminator; it may hold any byte).
 *
 * Header (24 bytes): u32 magic, u16 type, u16 flags (0), u64 id, i32 status, u32 body length.
 * A request has status 0 and an id chosen by its sender; the reply carries the type with
 * WD_MSG_REPLY set, the same id, and status 0 or -errno. On an error reply the body is one string,
 * the reason. Messages marked "no reply" are never answered.
 *
 * On a listening socket (keeper.sock, agent.sock) the first message must be HELLO. A server's
 * socket is made by the keeper with socketpair(2) and handed to both ends: the socket is the
 * identity, and there is no hello.
 *
 * Everything that arrives is hostile until decoded: the reader below never reads past the packet,
 * turns sticky-bad at the first short field, and wd_rd_done() is false unless the body was consumed
 * exactly. Threads: a struct belongs to one thread; packets may be sent from any thread, since
 * each is one sendmsg(2).
 */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

/*
 * Version 2 knows more messages than version 1 (they say so below) and changes none. A program speaks
 * its own version and the one before: HELLO names the caller's, the reply the lower of both, which
 * is what they speak from then on. A listener of version 1 refuses a HELLO of version 2 (-EPROTO,
 * -EPROTONOSUPPORT); the caller then says hello again, with 1.
 *
 * WD_PREVIOUS_FORMATS builds programs that do as those of the release before; for tests of upgrades.
 */
#define WD_PROTO_OLDEST 1
#ifdef WD_PREVIOUS_FORMATS
#define WD_PROTO_VERSION 1
#else
#define WD_PROTO_VERSION 2
#endif
#define WD_PROTO_HOLDERS 2 /* the first version with holders */
#define WD_MSG_MAGIC 0x31504457u /* "WDP1" */
#define WD_MSG_MAX 65536
#define WD_MSG_HDR 24
#define WD_MSG_FDS 6
#define WD_MSG_REPLY 0x8000

enum wd_role { WD_ROLE_KEEPER = 1, WD_ROLE_CTL = 2, WD_ROLE_CSI = 3, WD_ROLE_SUPERVISOR = 4 };

enum wd_msg_type {
	/* anyone -> listener.  u32 protocol version, u32 role, str build version
	 * reply: u32 the protocol version that is spoken, str build version */
	WD_MSG_HELLO = 1,

	/* keeper -> agent.  u64 mount, bytes description (JSON, opaque to the keeper), str target,
	 * u32 flags (enum wd_mount_add_flag);
	 * fds: [server's socket end, tables memfd]. The agent checks the description and opens the
	 * dataset before it answers; a refusal's text is for the user.
	 * reply: u32 mount flags (enum wd_mount_flag), str dataset (what /proc/mounts shows) */
	WD_MSG_MOUNT_ADD = 10,
	/* keeper -> agent.  u64 mount; fds: [server's socket end]. A server was replaced; the agent
	 * drops the old end. reply: empty */
	WD_MSG_MOUNT_SERVER = 11,
	/* keeper -> agent.  u64 mount. reply: empty */
	WD_MSG_MOUNT_DEL = 12,
	/* Version 2. keeper -> agent.  u64 mount, bytes description: its credentials are the mount's from now on; URL,
	 * endpoint and index must be the mount's. reply: bytes description to keep in place of the one before, or
	 * empty when nothing has changed. An error: the old credentials stay (-EKEYREJECTED, -EACCES: the origin does
	 * not take these; -ENOSYS: an agent of an earlier build) */
	WD_MSG_MOUNT_RENEW = 13,

	/* agent -> keeper.  u64 mount; fds: [regular file, open for reading].
	 * reply: u32 backing id */
	WD_MSG_BACKING_OPEN = 20,
	/* agent -> keeper.  u64 mount, u32 backing id. reply: empty (ENOENT when unknown) */
	WD_MSG_BACKING_CLOSE = 21,

	/* server -> agent, on the server's own socket; "node" is a node id of that mount */
	/* u64 parent, str name. reply: attr. -ENOENT reply: u32 negative TTL in ms instead of text
	 */
	WD_MSG_LOOKUP = 30,
	/* u64 node. reply: attr */
	WD_MSG_GETATTR = 31,
	/* u64 node, u64 offset (0 or a child's offset cookie), u32 max body bytes.
	 * reply: u8 is_end, then entries until the body ends: u64 offset cookie, attr, str name.
	 * "." and ".." are the server's. Cookies are never reused within a directory. */
	WD_MSG_READDIR = 32,
	/* u64 node, u32 open flags (enum wd_open_flag). Idempotent per (mount, node) until RELEASE.
	 * reply: u8 mode (enum wd_open_mode), u32 backing id, u64 size;
	 * fds when mode is WD_OPEN_CACHED: [cache file, live map memfd]; WD_OPEN_DIRECT: none. */
	WD_MSG_OPEN = 33,
	/* u64 node. The last handle is closed and no id is pooled. no reply */
	WD_MSG_RELEASE = 34,
	/* u64 node, u64 offset, u32 length, u32 flags (enum wd_ensure_flag). Answered when all of
	 * the range is present, or with its bytes where the cache does not admit them. reply: u8
	 * how (enum wd_ensure_how), u64 position; fds when how is WD_ENSURE_FD: [memfd with the
	 * bytes at position] */
	WD_MSG_ENSURE = 35,
	/* u64 id of a request that nobody waits for any longer, or of an ENSURE whose bytes (FD) were
	 * read. no reply; the request itself is still answered, with -EINTR or its result. Bytes that
	 * are not given back may be cut to nothing when the mount has taken too many: then ENSURE is
	 * asked again */
	WD_MSG_CANCEL = 36,
	/* u64 node, u64 offset, u32 length: a reader is here (present data). no reply */
	WD_MSG_HINT = 37,
	/* empty. reply: u64 total bytes, u64 free bytes, u64 files */
	WD_MSG_STATFS = 38,
	/* u64 node, str name. reply: bytes value (-ENODATA when there is none) */
	WD_MSG_GETXATTR = 39,

	/* agent -> server */
	/* u64 parent, str name: the kernel shall forget the name. no reply */
	WD_MSG_INVAL_ENTRY = 50,

	/* ctl or csi -> keeper */
	/* str target (absolute), bytes description, u32 flags 0.
	 * reply: u64 mount, str dataset */
	WD_MSG_MOUNT = 60,
	/* str target, u32 flags (enum wd_umount_flag). reply: empty */
	WD_MSG_UMOUNT = 61,
	/* empty. reply: fds [memfd with JSON: version, pid, mounts[]: id, target, server_pid,
	 * restarts, state]. ctl -> agent, too, who asks the keeper (agent -> keeper, version 2) and passes the answer
	 * on: for those who may not open keeper.sock. -EAGAIN: no keeper is connected */
	WD_MSG_KEEPER_STATUS = 62,

	/* Version 2. csi -> keeper.  str target, bytes description: other credentials for a mount that stands. reply,
	 * after the agent has taken them over: empty. -ENOENT: there is no such mount; -ECONNREFUSED: the agent is
	 * away; else as of MOUNT_RENEW. The description that holders have is replaced by another HOLD */
	WD_MSG_RENEW = 63,

	/* ctl -> agent.  empty. reply: fds [memfd with JSON] */
	WD_MSG_STATUS = 70,

	/* keeper -> server, on the control socket pair made with the server */
	/* fds: [new agent socket end]; the agent was restarted. no reply */
	WD_MSG_AGENT_SOCK = 80,
	/* empty: start serving (the old server is reaped). no reply */
	WD_MSG_GO = 81,
	/* server -> keeper.  Everything is set up, waiting for GO. Body: u32 protocol version, or
	 * empty: version 1, which is what a server says that was not started with --protocol=N.
	 * no reply */
	WD_MSG_READY = 82,

	/* keeper and holder (agent, csi, supervisor), see common/hold.h */
	/* keeper -> agent.  empty: begin to offer. Answered only by an agent that is no holder, with
	 * an error; a holder sends its OFFERs and OFFERED. A holder that connects to the keeper
	 * begins unasked. */
	WD_MSG_HOLDINGS = 90,
	/* keeper -> holder.  A deposit (common/deposit.h): u64 mount, str target, str dataset,
	 * u32 mount flags, u32 major, u32 minor; fds: [fuse, info, tables, description, record].
	 * The id is the mount's. reply: empty: it is held */
	WD_MSG_HOLD = 91,
	/* keeper -> holder.  u64 mount: it ended. no reply */
	WD_MSG_UNHOLD = 92,
	/* holder -> keeper.  A deposit, as in HOLD. reply: empty: the keeper has it; -ENOENT: that
	 * mount has ended */
	WD_MSG_OFFER = 93,
	/* holder -> keeper.  u32 how many are held: all of them were offered. reply: empty, after
	 * the HOLDs of what the holder lacks were sent as far as there was room */
	WD_MSG_OFFERED = 94,
	/* both ways.  empty: may the sender end? reply: empty: the other side has all of the
	 * sender's mounts and stays; -EBUSY: no */
	WD_MSG_LEAVE = 95,
	/* ctl -> supervisor.  empty. reply: empty, when agent and keeper run; or why they cannot */
	WD_MSG_START = 96,

	/* ctl -> agent.  u64 mount (0: the agent itself). Looks at the agent's own state and its
	 * cache directory, or knocks at that mount's origin with its credentials (some seconds at
	 * most, unless its host hangs). reply: fds [memfd with JSON] */
	WD_MSG_CHECK = 120,
	/* ctl -> agent, or server -> agent for a call through its mount's control file (common/control.h).  str method of
	 * the control API (common/control.proto), bytes request. reply: bytes response; fds, where it is too long for
	 * the message: [memfd with the response], and the bytes are empty. A server's is never so long. On an error:
	 * why, for the caller */
	WD_MSG_CONTROL = 121,
	/* Version 2. keeper -> server, on the control socket: empty. reply: empty; there is none when
	 * a thread of the server hangs */
	WD_MSG_PING = 110,
	/* Version 2. keeper -> agent.  u32 count, count times u64: what common/keeper_stats.h lists,
	 * in its order; more or fewer come from another release. Sent whenever a number has
	 * changed. no reply */
	WD_MSG_KEEPER_STATS = 111,
	/* Version 2. agent -> keeper.  str id (a hash in hexadecimal), str build version;
	 * fds: [warpdrive-fuse: a sealed memfd, or a file that is opened for reading only]. What the
	 * servers are to run. reply, after it was tried: empty. -EACCES: it cannot be executed, but
	 * may be in another form */
	WD_MSG_SERVER_PROGRAM = 112,
};

enum wd_mount_flag {
	WD_MOUNT_READ_ONLY = 1,
	WD_MOUNT_NO_PASSTHROUGH = 2,
	WD_MOUNT_NO_OPEN = 4, /* nothing in it ever changes: the kernel is told to open files without asking */
};
/* AGAIN: the mount stands; the agent was restarted, and takes it back without asking the origin */
enum wd_mount_add_flag { WD_MOUNT_ADD_AGAIN = 1 };
enum wd_open_mode { WD_OPEN_PASSTHROUGH = 1, WD_OPEN_CACHED = 2, WD_OPEN_DIRECT = 3 };
enum wd_open_flag {
	WD_OPEN_REOPEN = 1,	    /* a restart: same mode as before, or the nearest */
	WD_OPEN_WAS_PASSTHROUGH = 2 /* with REOPEN: the table holds a backing id for it */
};
enum wd_ensure_flag { WD_ENSURE_BYTES = 1 /* the cache file could not be read: send the bytes */ };
enum wd_ensure_how { WD_ENSURE_PRESENT = 0, WD_ENSURE_FD = 1 };
enum wd_umount_flag { WD_UMOUNT_FORCE = 1 };

/* A node's attributes as they travel: 8+8+8+8+4+4+4+4+4+4+4 bytes. */
struct wd_attr {
	uint64_t node; /* FUSE node id: (path, version) */
	uint64_t ino;  /* st_ino: the path's */
	uint64_t size; /* bytes */
	int64_t mtime_s;
	uint32_t mtime_ns;
	uint32_t mode; /* S_IFREG or S_IFDIR and permissions */
	uint32_t uid, gid;
	uint32_t nlink;
	uint32_t entry_ttl_ms, attr_ttl_ms;
};
#define WD_ATTR_WIRE 60

/* The version to speak with a peer whose own is theirs; 0: there is none. */
static inline uint32_t wd_proto_common(uint32_t theirs)
{
#ifdef WD_PREVIOUS_FORMATS
	return theirs == WD_PROTO_VERSION ? theirs : 0;
#else
	uint32_t version = theirs < WD_PROTO_VERSION ? theirs : WD_PROTO_VERSION;

	return version >= WD_PROTO_OLDEST ? version : 0;
#endif
}

/* True when status, the answer to a HELLO of that version, means: try the version before. */
static inline bool wd_proto_is_too_new(uint32_t version, int status)
{
	return version > WD_PROTO_OLDEST && (status == -EPROTO || status == -EPROTONOSUPPORT);
}

/* ---- building a message ---- */

struct wd_msg {
	uint16_t type;
	uint64_t id;
	int32_t status;
	size_t len; /* of the body */
	bool overflow;
	unsigned nfds;
	int fds[WD_MSG_FDS];
	unsigned char buf[WD_MSG_MAX]; /* header and body */
};

/* Starts a request or a reply; a message is about 64 KiB, so keep one per thread. Forgets the fds
 * in m without closing them: after a receive, take them or call wd_msg_close_fds() first. */
void wd_msg_start(struct wd_msg *m, uint16_t type, uint64_t id);
void wd_msg_start_reply(struct wd_msg *m, uint16_t type, uint64_t id, int32_t status);
void wd_put_u8(struct wd_msg *m, uint8_t v);
void wd_put_u32(struct wd_msg *m, uint32_t v);
void wd_put_u64(struct wd_msg *m, uint64_t v);
void wd_put_bytes(struct wd_msg *m, const void *data, size_t len);
void wd_put_str(struct wd_msg *m, const char *s);
void wd_put_attr(struct wd_msg *m, const struct wd_attr *attr);
void wd_put_fd(struct wd_msg *m, int fd); /* borrowed until sent */
static inline unsigned char *wd_msg_body(struct wd_msg *m)
{
	return m->buf + WD_MSG_HDR;
}

/* Sends in one packet. flags: 0 or MSG_DONTWAIT. Returns 0, -EAGAIN, -EPIPE, -EMSGSIZE (overflow).
 */
int wd_msg_send(int sock, struct wd_msg *m, int flags);

/* Receives one packet into m; fds arrive O_CLOEXEC and belong to m until taken.
 * flags: 0 or MSG_DONTWAIT. Returns 1, 0 at end of file, -EAGAIN, or -EPROTO for a malformed packet
 * (fds already closed; the connection should be dropped). */
int wd_msg_recv(int sock, struct wd_msg *m, int flags);
/* Closes the fds that nobody took. */
void wd_msg_close_fds(struct wd_msg *m);
/* Takes fd i out of the message (-1 when there is none). */
int wd_msg_take_fd(struct wd_msg *m, unsigned i);

/* ---- reading a body ---- */

struct wd_rd {
	const unsigned char *p;
	size_t left;
	bool bad;
};

struct wd_rd wd_rd_start(const struct wd_msg *m);
uint8_t wd_rd_u8(struct wd_rd *r);
uint32_t wd_rd_u32(struct wd_rd *r);
uint64_t wd_rd_u64(struct wd_rd *r);
/* Points into the message; NULL and *ret_len 0 when bad. */
const void *wd_rd_bytes(struct wd_rd *r, size_t *ret_len);
/* Copies with a terminator; bad when it does not fit or holds a NUL. */
bool wd_rd_str(struct wd_rd *r, char *out, size_t cap);
bool wd_rd_attr(struct wd_rd *r, struct wd_attr *ret_attr);
/* True when nothing was bad and nothing is left over. */
bool wd_rd_done(const struct wd_rd *r);

/* ---- a client that calls and waits ---- */

/* Connects to a listener and says hello. Returns the socket, or -errno. */
int wd_client_connect(const char *path, enum wd_role role, struct wd_err *err);
/* The same, for who has less time than the 10 s that one may wait for a hello: -ETIMEDOUT after timeout_ms (< 0: the
 * 10 s). */
int wd_client_connect_within(const char *path, enum wd_role role, int timeout_ms, struct wd_err *err);
/* The same, and says which protocol version is spoken. */
int wd_client_connect_version(
	const char *path, enum wd_role role, uint32_t *ret_version, struct wd_err *err);
/* Sends request m and replaces it by its reply, fds included. Returns 0, or -errno (the status of
 * an error reply, with its reason in err); then m holds no fds. timeout_ms < 0 waits for ever; on
 * -ETIMEDOUT the connection stays usable if later requests have other ids: a late reply is dropped.
 * For connections on which nothing else arrives. */
int wd_client_call(int sock, struct wd_msg *m, int timeout_ms, struct wd_err *err);

/* A SEQPACKET listener: mode 0600, a stale socket replaced, a live one refused with EADDRINUSE. */
int wd_listen(const char *path, struct wd_err *err);
/* The same with mode 0660: the process's group may connect, too. */
int wd_listen_for_group(const char *path, struct wd_err *err);
/* The same two for SOCK_STREAM: what others' protocols (gRPC) want. */
int wd_listen_stream(const char *path, bool is_for_group, struct wd_err *err);

#endif
