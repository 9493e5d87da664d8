/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_ORIGIN_POLICY_H
#define WD_AGENT_ORIGIN_POLICY_H
/*
 * The operator's word on origins: which ones mounts may name (`allowed-origins`), and which addresses no
 * request goes to (`blocked-addresses`, less `allowed-addresses`), whatever name led there.
 *
 * allowed-origins holds globs: scheme://authority[/path]. A "*" in the authority never matches a "/"; a
 * pattern stands for what it matches and everything below it. The list is empty by default: every origin, but
 * file: only where this is no node of Kubernetes.
 *
 * Constant after it is made; any thread may ask.
 */
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "common/err.h"

/* Loopback, link-local, multicast, and where clouds keep their metadata services: always in blocked-addresses, so
 * that an operator who adds a range does not lose them. */
#define ORIGIN_BLOCKED_ADDRESSES                                                                              \
	"0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/4, 255.255.255.255, 100.100.100.200, "             \
	"192.0.0.192, 168.63.129.16, ::, ::1, fe80::/10, fec0::/10, ff00::/8, fd00:ec2::/32, fd20:ce::254"

struct settings;
struct origin_policy;

/* -EINVAL names the setting and the item that makes no sense. */
int origin_policy_new(
	const struct settings *settings, struct origin_policy **ret_policy, struct wd_err *err);
void origin_policy_free(struct origin_policy *p);

/* May a mount name this URL, with this endpoint (NULL: none)? -EACCES names the rule and the value. Nothing is
 * resolved: what a name leads to is known when a connection is made. */
int origin_policy_check(
	const struct origin_policy *p, const char *url, const char *endpoint, struct wd_err *err);

/* May a connection go to this address? If not, why_blocked gets the range. is_redirected: another host sent us
 * there. Then loopback counts as blocked on every machine unless allowed-addresses holds it. p NULL: no. */
bool origin_policy_allows(const struct origin_policy *p, const struct in6_addr *address, bool is_redirected,
	char *why_blocked, size_t cap);

bool origin_policy_is_on_kubernetes(const struct origin_policy *p);

#endif
