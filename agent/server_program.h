/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_SERVER_PROGRAM_H
#define WD_AGENT_SERVER_PROGRAM_H
/*
 * The warpdrive-fuse that belongs to this agent, ready to be handed to keepers: so the servers are
 * upgraded with the agent, while the keeper stays.
 */
#include <stdbool.h>

#include "agent/keeper_link.h"
#include "agent/settings.h"

struct server_program;

/* Copies the program: into a sealed memfd, or where those cannot be executed into a file without a
 * name in the run directory. *ret is NULL, with 0, when there is none to bring: server-program is
 * "none", or it is not set and no warpdrive-fuse lies beside the agent. */
int server_program_load(
	const struct settings *s, struct server_program **ret, struct wd_err *err);
void server_program_free(struct server_program *p);
/* Hands it to the keeper that said hello; does nothing for NULL. Hub thread. */
void server_program_offer(struct server_program *p, struct keeper_link *link);
/* For tests: the descriptor, borrowed; its id; whether it is the file. */
int server_program_fd(const struct server_program *p);
const char *server_program_id(const struct server_program *p);
bool server_program_is_file(const struct server_program *p);

#endif
