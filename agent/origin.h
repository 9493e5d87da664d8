/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_ORIGIN_H
#define WD_AGENT_ORIGIN_H
/*
 * Where datasets come from. An origin is one URL opened with one set of options; below it live
 * objects named by keys. Keys here are relative to the URL's prefix, are bytes, and are untrusted.
 *
 * Adding a kind of origin is one file and one row in the table of origin.c.
 *
 * check, list, probe and stat block (they are called on worker threads); get is asynchronous and runs
 * on the transfer threads. Everything here may be called from any thread.
 *
 * Errors, the same for every kind: -ENOENT no such object or bucket (for origin_check() also no such
 * host; elsewhere a name server that fails is a fault, -EIO: it must not look like absence), -EACCES
 * refused (401, 403, EACCES), -ESTALE the object is not the version asked for (412, 416, another ETag,
 * another size), -EIO a lasting fault after the retries, -ECANCELED. The text names URL, status and
 * tries.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "agent/priority.h"
#include "common/err.h"

#define ORIGIN_ETAG_MAX 128
#define ORIGIN_KEY_MAX 1024

/* What tells one version of an object from another, as far as the origin can. */
struct version {
	uint64_t size;
	int64_t mtime_s;
	uint32_t mtime_ns;
	/* The validator as it goes into If-Match, quotes included; for file: one made of inode, size,
	 * mtime and ctime. Empty where the origin has none. A weak one (W/"...") is not sent; then
	 * size and Last-Modified decide. */
	char etag[ORIGIN_ETAG_MAX];
	/* False when it comes from a listing that has no validator: HEAD would tell more. */
	bool is_bound;
};

/* The same version? Sizes must be equal; where both have an ETag it decides, else mtime does. */
bool version_equal(const struct version *a, const struct version *b);

struct origin_options {
	const char *endpoint;	/* s3: http(s)://host[:port]; NULL: AWS by region */
	const char *region;	/* s3: default us-east-1 */
	bool is_path_style;	/* s3: bucket in the path, not in the host name */
	bool is_anonymous;	/* s3: unsigned requests */
	const char *access_key; /* s3; secrets stay in memory */
	const char *secret_key;
	const char *session_token;
	const char *bearer_token; /* http(s): sent as it is, unless the URL has a user */
	const char *subject; /* whom keys or token were made for; NULL: they stand for themselves */
	const char *ca_cert; /* file with PEM certificates */
	const char *index;   /* https: name (relative to the URL) of an index file of JSON lines */
	const char *version; /* a pinned version of the dataset (origin_manifest.h); NULL: as it is */
	int64_t deadline_ms; /* for one request with all its retries; 0: the default, 60 s */
};

/* One thing in a listing; strings are borrowed for the duration of the callback. */
struct origin_entry {
	const char *key; /* relative to the dataset; a prefix ends with "/" */
	size_t key_len;
	bool is_prefix;
	struct version version;
};
/* Returns false to end the listing early. */
typedef bool (*origin_entry_cb)(void *arg, const struct origin_entry *entry);

enum origin_kind { ORIGIN_NONE, ORIGIN_OBJECT, ORIGIN_PREFIX };

/* What can go wrong with one try of a request: identifier, label of the metric. */
#define ORIGIN_FAULTS(F)                                                                           \
	F(DNS, "dns")		  /* the host's name does not resolve */                           \
	F(CONNECT, "connect")	  /* refused, unreachable */                                       \
	F(TLS, "tls")		  /* no handshake, or a certificate that is not trusted */         \
	F(RESET, "reset")	  /* the connection broke, before or in the answer */              \
	F(STALL, "stall")	  /* nothing came for too long */                                  \
	F(THROTTLED, "throttled") /* 429, SlowDown */                                              \
	F(SERVER, "server")	  /* 5xx */                                                        \
	F(DENIED, "denied")	  /* 401, 403 and their kin */                                     \
	F(GONE, "gone")		  /* 404 for what was there */                                     \
	F(CHANGED, "changed")	  /* another version than the one asked for */                     \
	F(WRONG, "wrong")	  /* an answer that is not what was asked for */                   \
	F(REDIRECT, "redirect")	  /* one that is not followed */                                   \
	F(IO, "io")		  /* file: an error of the file system */                          \
	F(OTHER, "other")

enum origin_fault {
#define F(id, label) ORIGIN_FAULT_##id,
	ORIGIN_FAULTS(F)
#undef F
		ORIGIN_FAULT_COUNT
};

struct origin;
struct flow;

/* A ranged read in flight; the memory belongs to the caller and stays until done() is called. */
struct origin_get {
	const char *key;
	const struct version *version; /* If-Match */
	uint64_t offset, length;       /* length > 0, inside the object */
	/* Before origin_get(), unless it is demand; later origin_prioritise() alone changes it. */
	enum get_priority priority;
	struct flow *flow; /* whose it is (agent/flow.h), held by the caller until done(); NULL: the origin's own */
	/* Monotonic: when the reader's patience ends; 0: the origin's deadline from now on. Progress
	 * (256 KiB) moves it, and so does waiting in line while the origin is well. */
	int64_t deadline_ns;
	/* On a transfer thread, in order of offset, without gaps or repeats even across retries. HTTP
	 * gives up to 16 KiB at a time, file 1 MiB.
	 * Non-zero (-errno) ends the transfer with that status. */
	int (*sink)(void *arg, uint64_t offset, const void *data, size_t len);
	/* On a transfer thread, exactly once, last. status 0: every byte was given to sink. */
	void (*done)(void *arg, int status, const struct wd_err *err);
	void *arg;
	/* Out, with status < 0: faults that may pass lasted until the deadline. Else the status is
	 * definite: another try now would end the same way. */
	bool is_out_of_time;
	/* the origin's own */
	struct {
		uint64_t given;	     /* bytes the sink has */
		uint64_t progress_at; /* given, at the last progress */
		unsigned tries;
		int64_t due_ns, last_ns; /* while it waits for its origin to come back */
	} resume;
	void *priv;
	int64_t queued_ns;	  /* it waits since then */
	struct origin_get **line; /* where it waits; NULL: it does not */
	struct origin_get *prev, *next;
};

/* Counters of one kind of request, read by the metrics page. */
enum origin_op { ORIGIN_OP_LIST, ORIGIN_OP_HEAD, ORIGIN_OP_GET, ORIGIN_OP_STS, ORIGIN_OP_COUNT };
struct origin_stats {
	_Atomic uint64_t requests[ORIGIN_OP_COUNT];
	_Atomic uint64_t errors[ORIGIN_OP_COUNT];
	_Atomic uint64_t faults[ORIGIN_FAULT_COUNT]; /* by try, the overcome ones too */
	_Atomic uint64_t retries;
	_Atomic uint64_t bytes; /* of object data */
};
extern struct origin_stats origin_stats; /* of the whole process */

/* What suits the origin, as its answers so far have told: GETs of up to so many bytes, and so many ahead of one
 * stream. flow: whose limits count besides; NULL: nobody's. */
struct origin_advice {
	uint64_t get_bytes, window_bytes;
};
void origin_advise(struct origin *o, const struct flow *flow, struct origin_advice *ret_advice);

/* Starts and stops the transfer threads and their connection pools; once per process. max_transfers
 * bounds the transfers under way; more wait in the queue, demand first. */
int origins_start(unsigned threads, unsigned max_transfers, struct wd_err *err);
/* After how long without data a transfer is broken off and tried again; whole seconds, default 15. */
void origins_set_stall_timeout(int64_t timeout_ms);
/* Which addresses requests may go to (origin_policy.h); borrowed, set before the first origin is opened. NULL:
 * as a machine outside Kubernetes has it by default. */
struct origin_policy;
void origins_set_policy(const struct origin_policy *policy);
/* The blocking calls that this thread makes next count their deadline from since_ns, when the reader
 * began to wait, until one of them succeeds. 0: from the call. */
void origin_waiting_since(int64_t since_ns);
/* Ends the blocking calls (list, probe, stat, check) with -ECANCELED, those to come too. */
void origins_interrupt(void);
void origins_stop(void);

/* Opens URL: file:///dir, http(s)://host/path/, s3://bucket/prefix. An unknown scheme's error lists
 * the known ones; a bad option is named. No request is made. Options are copied. */
int origin_open(const char *url, const struct origin_options *options, struct origin **ret_origin,
	struct wd_err *err);
/* Waits for transfers under way (cancelled). */
void origin_close(struct origin *o);
/* For those who must not wait (a transfer's callback): closed by the next origins_reap(). NULL is fine. */
void origin_retire(struct origin *o);
void origins_reap(void);

/* Requests that start from now on, retries too, use the credentials in options; the rest of it is ignored. On
 * error the old ones stay. */
int origin_set_credentials(struct origin *o, const struct origin_options *options, struct wd_err *err);

/* Proves that the URL can be listed or read at all, for a clear error at mount time: bucket missing,
 * key refused, host unreachable, directory missing. Fails fast (a few seconds). err->code says more than the
 * result: EKEYREJECTED where it is the credentials themselves that are refused (with -EACCES), EHOSTDOWN where the
 * origin is away or ill, or its name does not resolve, and may be there the next time (with -EIO, -ENOENT). */
int origin_check(struct origin *o, struct wd_err *err);

/* What ails the origin, as far as its last requests tell; nothing is asked. text (only with trouble) says it in
 * words. */
enum origin_trouble {
	ORIGIN_WELL,
	ORIGIN_AWAY,
	ORIGIN_UNAUTHENTICATED, /* it does not know the credentials, or they have expired */
	ORIGIN_DENIED,		/* they may not list the dataset */
};
enum origin_trouble origin_trouble(struct origin *o, char *text, size_t cap);

/* How far the origin's clock was ahead of this machine's at its last answer; false when no answer had a
 * date yet (file: origins never have one). */
bool origin_clock_skew(const struct origin *o, int64_t *ret_s);

/* The URL as given, without user info, ending with "/". */
const char *origin_url(const struct origin *o);
/* True when list() can walk everything below a prefix in one go (S3, index file). */
bool origin_lists_recursively(const struct origin *o);

/*
 * Lists what is below prefix ("" or "a/b/"): one level (prefixes collapse to "name/"), or everything
 * when is_recursive. Pages are followed until the end, or until max_pages pages (0: no limit), or
 * until cb returns false. *ret_is_complete tells whether the end was reached.
 */
int origin_list(struct origin *o, const char *prefix, bool is_recursive, unsigned max_pages,
	origin_entry_cb cb, void *arg, bool *ret_is_complete, struct wd_err *err);

/* What is at key: an object, a prefix ("directory"; wins when both), or nothing. */
int origin_probe(struct origin *o, const char *key, enum origin_kind *ret_kind,
	struct version *ret_version, struct wd_err *err);

/* HEAD: the object's version, bound. */
int origin_stat(struct origin *o, const char *key, struct version *ret_version, struct wd_err *err);

/* warpdrive_origin_* */
void origin_print_metrics(FILE *out);

void origin_get(struct origin *o, struct origin_get *get);
/* Asks a transfer to end early; done() still comes (-ECANCELED unless it had ended). */
void origin_cancel(struct origin *o, struct origin_get *get);
/* Moves a read that waits for its place to another class, e.g. to GET_DEMAND when a reader came to wait for it.
 * GET_UNWANTED: one that waits ends with -ECANCELED, one that runs goes on. Also before origin_get(): then it
 * begins with that. The memory must last until this returns, also where done() has been called. */
void origin_prioritise(struct origin *o, struct origin_get *get, enum get_priority priority);

#endif
