/* SPDX-License-Identifier: Apache-2.0 */
/* See ctl_completion.h. An option's line in a help text begins with two blanks and its names. */
#include "warm-job/ctl_completion.h"

#include <ctype.h>
#include <string.h>

static size_t option_length(const char *text)
{
	size_t n = 0;

	while (text[n] == '-' || isalnum((unsigned char)text[n]))
		n++;
	return n;
}

/* Prints the options that one line of help tells of, a blank before each. */
static void print_line(const char *line, FILE *out)
{
	while (*line == ' ')
		line++;
	while (line[0] == '-' && (line[1] == '-' || isalnum((unsigned char)line[1]))) {
		size_t n = option_length(line);

		fprintf(out, " %.*s", (int)n, line);
		line += n;
		if (strncmp(line, ", ", 2) != 0)
			break;
		line += 2;
	}
}

static void print_options(const struct ctl_command *c, FILE *out)
{
	fputs("--help", out);
	for (const char *line = c->help; line && *line; line = strchr(line, '\n')) {
		if (*line == '\n' && !*++line)
			break;
		if (!strncmp(line, "  -", 3))
			print_line(line, out);
	}
}

void ctl_completion_bash(const struct ctl_command *commands, size_t ncommands, FILE *out)
{
	fputs("# bash completion for warpdrive-ctl: source this, or put it where bash looks:\n"
	      "#   warpdrive-ctl completion bash >/usr/share/bash-completion/completions/warpdrive-ctl\n"
	      "_warpdrive_ctl()\n"
	      "{\n"
	      "\tlocal word=${COMP_WORDS[COMP_CWORD]} options=''\n"
	      "\tCOMPREPLY=()\n"
	      "\tif [ \"$COMP_CWORD\" = 1 ]; then\n"
	      "\t\tmapfile -t COMPREPLY < <(compgen -W '",
		out);
	for (size_t i = 0; i < ncommands; i++)
		fprintf(out, "%s%s", i ? " " : "", commands[i].name);
	fputs("' -- \"$word\")\n"
	      "\t\treturn\n"
	      "\tfi\n"
	      "\tcase ${COMP_WORDS[1]} in\n",
		out);
	for (size_t i = 0; i < ncommands; i++) {
		fprintf(out, "\t%s) options='", commands[i].name);
		print_options(&commands[i], out);
		fputs("' ;;\n", out);
	}
	fputs("\tesac\n"
	      "\tcase $word in\n"
	      "\t-*) mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$word\") ;;\n"
	      "\t*)\n"
	      "\t\tcompopt -o filenames 2>/dev/null || true\n"
	      "\t\tmapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n"
	      "\t\t;;\n"
	      "\tesac\n"
	      "}\n"
	      "complete -F _warpdrive_ctl warpdrive-ctl\n",
		out);
}
