/* SPDX-License-Identifier: Apache-2.0 */
/* See address_set.h. A range is a prefix of bits; the sets are a dozen ranges, so they are searched in line. */
#include "agent/address_set.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 64
#define SEPARATORS "\n, "

struct address_range {
	struct in6_addr first;
	unsigned bits;
	char text[TEXT_MAX];
};

static void map_v4(const void *v4, struct in6_addr *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->s6_addr[10] = ret->s6_addr[11] = 0xff;
	memcpy(&ret->s6_addr[12], v4, 4);
}

/* ---- parsing ---- */

static bool parse_range(const char *text, size_t len, struct address_range *r)
{
	struct in_addr v4;
	unsigned most;
	char *slash, *end;

	if (len >= sizeof(r->text))
		return false;
	memcpy(r->text, text, len);
	r->text[len] = '\0';
	slash = strchr(r->text, '/');
	if (slash)
		*slash = '\0';
	if (inet_pton(AF_INET, r->text, &v4) == 1) {
		map_v4(&v4, &r->first);
		most = 32;
	} else if (inet_pton(AF_INET6, r->text, &r->first) == 1) {
		most = 128;
	} else {
		return false;
	}
	r->bits = most;
	if (slash) {
		*slash = '/';
		r->bits = (unsigned)strtoul(slash + 1, &end, 10);
		if (slash[1] < '0' || slash[1] > '9' || *end || r->bits > most)
			return false;
	}
	r->bits += 128 - most;
	return true;
}

int address_set_parse(const char *setting, const char *list, struct address_set *ret_set, struct wd_err *err)
{
	struct address_set s = {0};

	for (const char *p = list; p && *(p += strspn(p, SEPARATORS)); p += strcspn(p, SEPARATORS)) {
		size_t len = strcspn(p, SEPARATORS);
		struct address_range *grown = realloc(s.ranges, (s.n + 1) * sizeof(*grown));

		if (grown)
			s.ranges = grown;
		if (!grown || !parse_range(p, len, &s.ranges[s.n])) {
			address_set_done(&s);
			return !grown ? wd_err_set(err, ENOMEM, "%s: out of memory", setting)
				      : wd_err_set(err, EINVAL,
						"%s: '%.*s' is no range of addresses such as 10.0.0.0/8 or fd00::/8",
						setting, (int)(len < TEXT_MAX ? len : TEXT_MAX), p);
		}
		s.n++;
	}
	*ret_set = s;
	return 0;
}

void address_set_done(struct address_set *s)
{
	free(s->ranges);
	*s = (struct address_set){0};
}

/* ---- asking ---- */

static bool has_prefix(const struct in6_addr *a, const struct in6_addr *prefix, unsigned bits)
{
	unsigned bytes = bits / 8, rest = bits % 8;

	if (memcmp(a->s6_addr, prefix->s6_addr, bytes) != 0)
		return false;
	return rest == 0 || ((a->s6_addr[bytes] ^ prefix->s6_addr[bytes]) >> (8 - rest)) == 0;
}

const char *address_set_find(const struct address_set *s, const struct in6_addr *address)
{
	for (size_t i = 0; i < s->n; i++)
		if (has_prefix(address, &s->ranges[i].first, s->ranges[i].bits))
			return s->ranges[i].text;
	return NULL;
}

bool address_of(const struct sockaddr *sa, struct in6_addr *ret_address)
{
	if (sa->sa_family == AF_INET)
		map_v4(&((const struct sockaddr_in *)(const void *)sa)->sin_addr, ret_address);
	else if (sa->sa_family == AF_INET6)
		*ret_address = ((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr;
	else
		return false;
	return true;
}

bool address_of_number(const char *text, struct in6_addr *ret_address)
{
	struct in_addr v4;

	if (inet_pton(AF_INET, text, &v4) != 1)
		return inet_pton(AF_INET6, text, ret_address) == 1;
	map_v4(&v4, ret_address);
	return true;
}

bool address_of_text(const char *host, struct in6_addr *ret_address)
{
	const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
	struct addrinfo *found = NULL;
	char bare[INET6_ADDRSTRLEN + 32];
	size_t len = strlen(host);
	bool is_address;

	if (len > 1 && host[0] == '[' && host[len - 1] == ']') {
		host++;
		len -= 2;
	}
	if (len == 0 || len >= sizeof(bare))
		return false;
	memcpy(bare, host, len);
	bare[len] = '\0';
	if (getaddrinfo(bare, NULL, &hints, &found) != 0)
		return false;
	is_address = address_of(found->ai_addr, ret_address);
	freeaddrinfo(found);
	return is_address;
}

/* The IPv4 address whose bytes are at these places in a. */
static void add_form(const struct in6_addr *a, const unsigned char at[4], unsigned char flip,
	struct in6_addr *forms, size_t *n)
{
	unsigned char v4[4];

	for (int i = 0; i < 4; i++)
		v4[i] = a->s6_addr[at[i]] ^ flip;
	map_v4(v4, &forms[(*n)++]);
}

size_t address_forms(const struct in6_addr *a, struct in6_addr forms[ADDRESS_FORMS])
{
	static const unsigned char last[4] = {12, 13, 14, 15}, nat64_48[4] = {6, 7, 9, 10},
				   nat64_56[4] = {7, 9, 10, 11}, nat64_64[4] = {9, 10, 11, 12},
				   sixtofour[4] = {2, 3, 4, 5};
	static const struct in6_addr zero, siit = {.s6_addr = {[8] = 0xff, 0xff}},
				     nat64 = {.s6_addr = {0x00, 0x64, 0xff, 0x9b}},
				     local_nat64 = {.s6_addr = {0x00, 0x64, 0xff, 0x9b, 0x00, 0x01}},
				     teredo = {.s6_addr = {0x20, 0x01}}, relay = {.s6_addr = {0x20, 0x02}};
	size_t n = 0;

	forms[n++] = *a;
	if ((has_prefix(a, &zero, 96) && !IN6_IS_ADDR_UNSPECIFIED(a) && !IN6_IS_ADDR_LOOPBACK(a)) ||
		has_prefix(a, &siit, 96) || has_prefix(a, &nat64, 96))
		add_form(a, last, 0, forms, &n);
	if (has_prefix(a, &local_nat64, 48)) { /* the operator chose the length (RFC 6052) */
		add_form(a, last, 0, forms, &n);
		add_form(a, nat64_48, 0, forms, &n);
		add_form(a, nat64_56, 0, forms, &n);
		add_form(a, nat64_64, 0, forms, &n);
	}
	if (has_prefix(a, &relay, 16))
		add_form(a, sixtofour, 0, forms, &n);
	if (has_prefix(a, &teredo, 32))
		add_form(a, last, 0xff, forms, &n);
	if ((a->s6_addr[8] & 0xfd) == 0 && a->s6_addr[9] == 0 && a->s6_addr[10] == 0x5e && a->s6_addr[11] == 0xfe)
		add_form(a, last, 0, forms, &n); /* ISATAP */
	return n;
}
