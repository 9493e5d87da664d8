/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_ADDRESS_SET_H
#define WD_AGENT_ADDRESS_SET_H
/*
 * Sets of IP addresses, written as ranges ("169.254.0.0/16", "fe80::/10", "::1"). IPv4 addresses are kept
 * as IPv6 maps them (::ffff:a.b.c.d). Pure; constant after parsing, so any thread may ask.
 */
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "common/err.h"

#define ADDRESS_FORMS 6 /* the most that address_forms() gives */

struct address_range;
/* Zero-initialised: the empty set. */
struct address_set {
	struct address_range *ranges;
	size_t n;
};

/* Ranges with "\n" or ", " between; NULL or "": none. setting names the list in errors. */
int address_set_parse(const char *setting, const char *list, struct address_set *ret_set, struct wd_err *err);
void address_set_done(struct address_set *s);
/* The range that holds the address, as it was written; NULL when none does. */
const char *address_set_find(const struct address_set *s, const struct in6_addr *address);

/* False for what is no IP address. */
bool address_of(const struct sockaddr *sa, struct in6_addr *ret_address);
/* A numeric host in any notation that resolvers take (dotted, one decimal, octal or hexadecimal number, with
 * or without []); false for a name. */
bool address_of_text(const char *host, struct in6_addr *ret_address);
/* The one notation that inet_ntop(3) writes. */
bool address_of_number(const char *text, struct in6_addr *ret_address);
/* The address, and the IPv4 addresses that a packet to it may end up at: those that are embedded for
 * translation or tunnels (NAT64, 6to4, Teredo, ISATAP and their kin). Returns how many, at least 1. */
size_t address_forms(const struct in6_addr *address, struct in6_addr ret_forms[ADDRESS_FORMS]);

#endif
