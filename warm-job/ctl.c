/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warpdrive-ctl: the command line of WarpDrive. This file is the table of subcommands and the
 * choice among them; a subcommand lives in ctl_<name>.c.
 */
#include "warm-job/ctl.h"

#include <stdio.h>
#include <string.h>

#include "warm-job/ctl_commands.h"
#include "warm-job/ctl_completion.h"
#include "warm-job/ctl_man.h"
#include "warm-job/ctl_options.h"
#include "warm-job/ctl_supervise.h"

static enum ctl_exit help(const struct ctl_command *self, int argc, char **argv);
static enum ctl_exit completion(const struct ctl_command *self, int argc, char **argv);

/* clang-format off */
static const struct ctl_command commands[] = {
	{"mount", "URL DIR [-o OPTION,...]", "mount a dataset on a directory",
		"URL is one of\n"
		"  s3://BUCKET/PREFIX     S3 and its like; see -o endpoint, region, anonymous\n"
		"  http(s)://HOST/PATH/   a web server with a JSON listing, or with -o index=FILE\n"
		"  file:///DIR            a directory of this machine\n"
		"\n"
		"Credentials for s3:// come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and\n"
		"AWS_SESSION_TOKEN, else from the profile AWS_PROFILE (default: \"default\") of\n"
		"~/.aws/credentials. AWS_REGION and AWS_ENDPOINT_URL stand in for -o region and\n"
		"endpoint.\n"
		"\n"
		"When no agent and keeper answer in the run directory, private ones are started;\n"
		"they end with their last mount. The second group of options below is for such\n"
		"an agent only.\n"
		"\n"
		"  -o OPTION,...      mount options, see below; may be repeated; \"\\,\" is a comma\n"
		"                     in a value\n"
		"  --run-dir DIR      where the daemons' sockets are (WARPDRIVE_RUN_DIR,\n"
		"                     /run/warpdrive)\n"
		"\n"
		"  --cache-dir DIR    the cache (WARPDRIVE_CACHE_DIR, /var/cache/warpdrive)\n"
		"  --cache-size SIZE  its limit, for instance 200GiB\n"
		"  --config FILE      a configuration file of the agent\n"
		"  --set KEY=VALUE    one key of it; may be repeated (warpdrive-agent\n"
		"                     --print-defaults)\n"
		"  --read-ahead SIZE  the kernel's read-ahead on mounts of the private keeper\n"
		"\n"
		"Example:\n"
		"  warpdrive-ctl mount s3://training/imagenet /mnt/imagenet -o region=eu-west-1\n"
		"\n"
		"Mount options:\n",
		ctl_mount, ctl_options_print},
	{"umount", "DIR...", "unmount datasets",
		"  -f, --force        detach at once even while files are open below DIR; their\n"
		"                     readers go on until they close\n"
		"  --run-dir DIR      where the keeper's socket is (WARPDRIVE_RUN_DIR,\n"
		"                     /run/warpdrive)\n"
		"\n"
		"Exit code 3 when some of several directories could not be unmounted.\n",
		ctl_umount, NULL},
	{"warm", "PATH|URL...", "fill the cache before a dataset is read",
		"PATH is a directory or file inside a mount, URL that of a mounted dataset or\n"
		"below it. All of it is fetched into the node's cache. What is there already is\n"
		"not fetched again, so a warm that was interrupted goes on where it was. It needs\n"
		"no rights but to see the mount: where the agent's socket is not for this user,\n"
		"the agent is asked through the mount itself.\n"
		"\n"
		"What:\n"
		"  --recursive        directories with all that is below them (always so)\n"
		"  --include GLOB     only files whose path below the mount matches; \"*\" matches\n"
		"                     \"/\", too; may be repeated\n"
		"  --exclude GLOB     not those that match; may be repeated\n"
		"  --max-size SIZE    not files larger than this\n"
		"  --from-file FILE   a path per line (\"-\": standard input); relative ones start\n"
		"                     at PATH, else in the current directory\n"
		"  --verify           check what is in the cache, and fetch anew what is damaged\n"
		"  --pin              keep PATH and all below it from being evicted, as `pin`\n"
		"                     does\n"
		"How:\n"
		"  --workers N        files under way at once (32)\n"
		"  --bandwidth SIZE   bytes per second at most, for instance 200MiB\n"
		"  --timeout TIME     stop after so long, for instance 30m\n"
		"  --resume           go on where an earlier warm stopped (always so)\n"
		"  --run-dir DIR      where the agent's socket is (WARPDRIVE_RUN_DIR,\n"
		"                     /run/warpdrive)\n"
		"  --progress KIND    auto (tty on a terminal, else plain), tty (one line that is\n"
		"                     redrawn), plain (a line every 5 s), json (an object per\n"
		"                     line), none\n"
		"  --wait             wait for the end (the default); SIGINT and SIGTERM stop the\n"
		"                     task\n"
		"  --detach           print the task's number and leave it to the agent\n"
		"Tasks:\n"
		"  --list             the tasks of this node's agent; in a pod with PATH,\n"
		"                     those of its mount\n"
		"  --cancel ID        end one; in a pod with PATH, the mount that it is of\n"
		"\n"
		"Exit codes: 0 all is in the cache; 1 failed; 2 wrong usage; 3 some files failed\n"
		"(they are listed), the cache has no room, or time is up; 128+N stopped by\n"
		"signal N.\n"
		"\n"
		"Examples:\n"
		"  warpdrive-ctl warm /mnt/imagenet --exclude '*.json'\n"
		"  warpdrive-ctl warm s3://training/imagenet/train --detach\n"
		"\n"
		"An init container, so that a pod's first epoch finds its data on the node:\n"
		"  initContainers:\n"
		"    - name: warm\n"
		"      image: registry.example.org/warpdrive-ctl:1.0\n"
		"      args: [warm, /data]\n"
		"      volumeMounts: [{name: data, mountPath: /data, readOnly: true}]\n"
		"\n"
		"A Slurm prolog (warm-job/slurm/prolog is a whole one):\n"
		"  warpdrive-ctl warm --timeout 10m \"$WARPDRIVE_WARMUP_PATH\" || true\n",
		ctl_warm, NULL},
	{"status", "[-o KIND] [PATH]", "show mounts, datasets and the cache",
		"With PATH only the mount that it lies in, as a pod may ask that sees nothing\n"
		"but its volume.\n"
		"\n"
		"  -o, --output KIND  text; wide (more columns, names in full); json or yaml:\n"
		"                     everything the agent and the keeper say\n"
		"  --run-dir DIR      where the daemons' sockets are (WARPDRIVE_RUN_DIR,\n"
		"                     /run/warpdrive)\n"
		"\n"
		"Exit code 1 when neither daemon runs, 3 when one of them does not answer.\n",
		ctl_status, NULL},
	{"ls", "[-o KIND] [PATH|URL]", "list a directory, with how much is in the cache", ctl_ls_help, ctl_ls, NULL},
	{"evict", "PATH|URL...", "take data out of the cache", ctl_evict_help, ctl_evict, NULL},
	{"pin", "PATH|URL... | --list", "keep data in the cache", ctl_pin_help, ctl_pin, NULL},
	{"unpin", "PATH|URL...", "let pinned data make room again", ctl_unpin_help, ctl_unpin, NULL},
	{"stats", "[--interval TIME] [--count N]", "what the node does, a line per second", ctl_stats_help, ctl_stats, NULL},
	{"top", "[--by KIND] [--once]", "which mounts or pods read how much", ctl_top_help, ctl_top, NULL},
	{"cache", "shrink SIZE|default", "make the cache smaller while it is used", ctl_cache_help, ctl_cache, NULL},
	{"drain", "[--end]", "admit nothing more to the cache", ctl_drain_help, ctl_drain, NULL},
	{"reload", "", "have the agent read its settings again", ctl_reload_help, ctl_reload, NULL},
	{"trace", "[--mount DIR] [PATH]", "follow opens and reads live, with where the bytes came from",
		"PATH is a file or directory inside a mount; without one, all mounts are\n"
		"followed.\n"
		"A line for each open and read that the agent sees: the time at which it was\n"
		"asked for, where its bytes came from (local: the cache had all of them; origin:\n"
		"some came from there; -: none were needed yet), what it was, how long it waited,\n"
		"how many bytes at which offset, the mode, and the file.\n"
		"\n"
		"The agent sees what it is asked: opens, and reads of bytes that are not there.\n"
		"Files that are open by passthrough are read by the kernel alone, bytes that are\n"
		"present by the mount's server, and files that were open just now are opened by\n"
		"it, too. What servers did is counted, and told at the end.\n"
		"\n"
		"  --mount DIR        one mount; a relative PATH begins there\n"
		"  --pod UID          only what the pod with this uid does\n"
		"  --count N          end after so many lines\n"
		"  -o json            an object per line\n"
		"  --run-dir DIR      where the agent's socket is (WARPDRIVE_RUN_DIR,\n"
		"                     /run/warpdrive)\n"
		"\n"
		"It goes on until SIGINT or SIGTERM. Who reads the lines too slowly loses some,\n"
		"and is told; no reader of a file ever waits for it. For root, on the node.\n"
		"\n"
		"Example: warpdrive-ctl trace /mnt/imagenet/train-0001.tar\n",
		ctl_trace, NULL},
	{"dataset", "ls | pin DIR NAME [--output FILE]", "list the datasets in the cache; pin a version of one",
		"ls: the datasets of which something is in the node's cache, mounted or not, by\n"
		"when they were used last. What is known of a dataset counts, its size as well:\n"
		"with a \"+\" there are directories that were not listed yet. For administrators\n"
		"of the node.\n"
		"\n"
		"  -o, --output KIND  text, wide (URLs in full) or json\n"
		"  --run-dir DIR      where the agent's socket is (WARPDRIVE_RUN_DIR,\n"
		"                     /run/warpdrive)\n"
		"\n"
		"pin: writes down what the mounted directory DIR holds now: every file with its\n"
		"size, time and ETag, as JSON lines in NAME.jsonl. That file, put below the\n"
		"dataset's URL as .warpdrive/versions/NAME.jsonl, makes a version of it:\n"
		"\n"
		"  warpdrive-ctl mount URL DIR -o version=NAME\n"
		"\n"
		"shows exactly these files, whatever comes and goes later, and never asks the\n"
		"origin for names. A file that was changed since cannot be read (ESTALE) unless\n"
		"it is in the cache. With -o version=NAME,no-open files are opened without\n"
		"asking anyone and their pages are kept: best for many small files that are\n"
		"read again and again; large ones are faster by passthrough, without it.\n"
		"\n"
		"  --output FILE      write to FILE instead of NAME.jsonl\n"
		"\n"
		"Example:\n"
		"  warpdrive-ctl dataset pin /mnt/imagenet 2026-11\n"
		"  aws s3 cp 2026-11.jsonl s3://training/imagenet/.warpdrive/versions/\n",
		ctl_dataset, NULL},
	{"doctor", "[--bundle FILE]", "look for what is wrong with this node, and say what to do",
		"Checks the kernel, the run directory and its daemons, every WarpDrive mount of\n"
		"this machine, the cache disk, and each mount's origin with its own credentials.\n"
		"A line per check: ok, warn or FAIL, what was found, and a remedy. Nothing is\n"
		"changed, and no mount is touched. Run it as root.\n"
		"\n"
		"  -o json            the same as one JSON object\n"
		"  --bundle FILE      write a support archive as well (a plain tar file, mode\n"
		"                     0600): this report, what the daemons say of themselves,\n"
		"                     metrics, settings, the last part of their logs, kernel\n"
		"                     facts. Secrets are left out or blanked; it does name\n"
		"                     datasets and directories\n"
		"  --timeout SECONDS  how long to wait for each answer (5)\n"
		"  --run-dir DIR      where the daemons' sockets are (WARPDRIVE_RUN_DIR,\n"
		"                     /run/warpdrive)\n"
		"\n"
		"Exit code 0 when nothing failed, 1 when something did.\n",
		ctl_doctor, NULL},
	{"supervise", "[--run-dir DIR]", "look after a private agent and keeper",
		"`mount` starts it where no agent and keeper run. It starts both, restarts what\n"
		"dies, holds copies of what makes the mounts go on, and ends when they end,\n"
		"after the last unmount. It may be killed: the daemons go on, and the next\n"
		"`mount` starts another.\n"
		"\n"
		"  --run-dir DIR      where the sockets and logs are (WARPDRIVE_RUN_DIR,\n"
		"                     /run/warpdrive)\n"
		"  --agent-arg ARG    an argument of the agent's; may be repeated\n"
		"  --keeper-arg ARG   an argument of the keeper's; may be repeated\n"
		"  --ready-fd N       write a byte to descriptor N when listening\n"
		"\n"
		"On SIGTERM it leaves when the keeper has confirmed that it has every mount.\n",
		ctl_supervise, NULL},
	{"completion", "bash", "print a script that completes commands and options in bash",
		"Load it with:  source <(warpdrive-ctl completion bash)\n",
		completion, NULL},
	{"version", "", "show the versions of this program and of the running daemons",
		"  --run-dir DIR      where the daemons' sockets are (WARPDRIVE_RUN_DIR,\n"
		"                     /run/warpdrive)\n",
		ctl_version, NULL},
	{"help", "[COMMAND]", "show this list, or the help of one command",
		"  --man DIR          write the manual pages of all commands into DIR\n",
		help, NULL},
};
/* clang-format on */
#define NCOMMANDS (sizeof(commands) / sizeof(commands[0]))

static const struct ctl_command *find(const char *name)
{
	for (size_t i = 0; i < NCOMMANDS; i++) {
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	}
	return NULL;
}

static void overview(FILE *out)
{
	fprintf(out, "usage: warpdrive-ctl COMMAND ...\n\n"
		     "WarpDrive mounts datasets in object storage as directories, with a local "
		     "cache.\n\n");
	for (size_t i = 0; i < NCOMMANDS; i++)
		fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
	fprintf(out, "\n`warpdrive-ctl COMMAND --help` tells more about one command.\n"
		     "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 partly done.\n");
}

static enum ctl_exit write_manual(const char *dir)
{
	struct wd_err err = WD_ERR_INIT;

	if (ctl_man_write(commands, NCOMMANDS, dir, &err) == 0)
		return CTL_DONE;
	ctl_error("help: %s", err.msg);
	return CTL_FAILED;
}

static enum ctl_exit help(const struct ctl_command *self, int argc, char **argv)
{
	if (argc >= 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")))
		return ctl_print_help(self);
	if (argc == 3 && !strcmp(argv[1], "--man"))
		return write_manual(argv[2]);
	if (argc >= 2 && argv[1][0] == '-')
		return ctl_usage(self, "unknown option '%.20s'", argv[1]);
	if (argc < 2) {
		overview(stdout);
		return CTL_DONE;
	}
	const struct ctl_command *command = find(argv[1]);

	if (!command)
		return ctl_usage(self, "unknown command '%s'", argv[1]);
	return ctl_print_help(command);
}

static enum ctl_exit completion(const struct ctl_command *self, int argc, char **argv)
{
	if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")))
		return ctl_print_help(self);
	if (argc != 2 || strcmp(argv[1], "bash") != 0)
		return ctl_usage(self, "needs the name of a shell: bash");
	ctl_completion_bash(commands, NCOMMANDS, stdout);
	return CTL_DONE;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		overview(stderr);
		return CTL_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		overview(stdout);
		return CTL_DONE;
	}
	const struct ctl_command *command =
		!strcmp(argv[1], "--version") ? find("version") : find(argv[1]);

	if (!command) {
		ctl_error(
			"unknown command '%s': `warpdrive-ctl help` lists the known ones", argv[1]);
		return CTL_USAGE;
	}
	return command->run(command, argc - 1, argv + 1);
}
