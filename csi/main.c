/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warpdrive-csi: speaks CSI and nothing else. Needs no capability: it asks the keeper for mounts
 * and reads what is mounted from the kernel's list.
 */
#include <curl/curl.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/config.h"
#include "common/log.h"
#include "csi/driver.h"
#include "csi/holder.h"

#define GRACE_MS 10000

struct options {
	const char *endpoint, *run_dir, *kubelet_dir, *node_id;
	struct kube kube;
	bool is_node, is_controller;
	int ready_fd; /* -1: none */
};

static void usage(FILE *out)
{
	fputs("usage: warpdrive-csi --endpoint SOCKET [options]\n"
	      "\n"
	      "The CSI driver " DRIVER_NAME ": mounts datasets for the pods of a node through\n"
	      "warpdrive-keeper and warpdrive-agent, and provisions volumes.\n"
	      "\n"
	      "  --endpoint SOCKET   unix socket to serve, /path or unix:///path\n"
	      "  --service NAME      node, controller or all (default all)\n"
	      "  --node-id NAME      this node's name (default: the host name)\n"
	      "  --run-dir DIR       of keeper.sock and agent.sock (default /run/warpdrive)\n"
	      "  --kubelet-dir DIR   targets lie below it (default /var/lib/kubelet)\n"
	      "  --kube-api URL      API server, asked for claims by the controller (default: the\n"
	      "                      cluster's own, with --kube-token and --kube-ca)\n"
	      "  --kube-token FILE   bearer token, read anew each time\n"
	      "  --kube-ca FILE      certificates of the API server's authority\n"
	      "  --ready-fd N        write a byte to descriptor N when serving\n"
	      "  --version, --help\n"
	      "\n"
	      "Environment: WARPDRIVE_RUN_DIR, WARPDRIVE_LOG=debug|info|warn|error.\n",
		out);
}

static int bad_usage(const char *text, const char *value)
{
	fprintf(stderr, "warpdrive-csi: %s '%s'; see --help\n", text, value);
	return 2;
}

static int set_service(struct options *o, const char *name)
{
	o->is_node = strcmp(name, "node") == 0 || strcmp(name, "all") == 0;
	o->is_controller = strcmp(name, "controller") == 0 || strcmp(name, "all") == 0;
	return o->is_node || o->is_controller ? 0 : -EINVAL;
}

static const char *path_of(const char *endpoint)
{
	return strncmp(endpoint, "unix://", 7) == 0 ? endpoint + 7
	       : strncmp(endpoint, "unix:", 5) == 0 ? endpoint + 5
						    : endpoint;
}

/* Returns -1 to go on, or an exit code. */
static int parse(int argc, char **argv, struct options *o)
{
	static const struct option options[] = {
		{"endpoint", required_argument, NULL, 'e'},
		{"service", required_argument, NULL, 's'},
		{"node-id", required_argument, NULL, 'n'},
		{"run-dir", required_argument, NULL, 'r'},
		{"kubelet-dir", required_argument, NULL, 'k'},
		{"kube-api", required_argument, NULL, 'a'},
		{"kube-token", required_argument, NULL, 't'},
		{"kube-ca", required_argument, NULL, 'c'},
		{"ready-fd", required_argument, NULL, 'f'},
		{"version", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "h", options, NULL)) >= 0) {
		switch (c) {
		case 'e':
			o->endpoint = path_of(optarg);
			break;
		case 's':
			if (set_service(o, optarg) < 0)
				return bad_usage("--service takes node, controller or all, not", optarg);
			break;
		case 'n':
			o->node_id = optarg;
			break;
		case 'r':
			o->run_dir = optarg;
			break;
		case 'k':
			o->kubelet_dir = optarg;
			break;
		case 'a':
			o->kube.url = optarg;
			break;
		case 't':
			o->kube.token_path = optarg;
			break;
		case 'c':
			o->kube.ca_path = optarg;
			break;
		case 'f':
			o->ready_fd = atoi(optarg);
			break;
		case 'v':
			puts("warpdrive-csi " WD_VERSION);
			return 0;
		case 'h':
			usage(stdout);
			return 0;
		default:
			return 2;
		}
	}
	if (optind < argc)
		return bad_usage("unexpected argument", argv[optind]);
	if (!o->endpoint || o->endpoint[0] != '/')
		return bad_usage("--endpoint takes an absolute path, not", o->endpoint ? o->endpoint : "");
	if (!*o->node_id || strlen(o->node_id) > DRIVER_NODE_ID_MAX)
		return bad_usage("--node-id takes a name of 1 to 192 bytes, not", o->node_id);
	return -1;
}

static size_t collect(const struct options *o, struct rpc_method *out)
{
	size_t n = 0;

	for (size_t i = 0; i < identity_nmethods; i++)
		out[n++] = identity_methods[i];
	for (size_t i = 0; o->is_node && i < node_nmethods; i++)
		out[n++] = node_methods[i];
	for (size_t i = 0; o->is_controller && i < controller_nmethods; i++)
		out[n++] = controller_methods[i];
	return n;
}

static void tell_ready(int fd)
{
	if (fd < 0)
		return;
	if (write(fd, "1", 1) < 0)
		wd_warn("tell descriptor %d of being ready: %s", fd, strerror(errno));
	close(fd);
}

static void stop_serving(void *server)
{
	rpc_stop(server, GRACE_MS);
}

static int serve(const struct options *o, struct driver *d, struct wd_err *err)
{
	struct rpc_method *methods = calloc(identity_nmethods + node_nmethods + controller_nmethods, sizeof(*methods));
	struct rpc_server *server = NULL;
	int rc;

	if (!methods)
		return wd_err_set(err, ENOMEM, "out of memory");
	rc = rpc_start(o->endpoint, methods, collect(o, methods), d, &server, err);
	if (rc == 0) {
		wd_info("warpdrive-csi " WD_VERSION " serves '%s' on node '%s'", o->endpoint, o->node_id);
		tell_ready(o->ready_fd);
		rc = holder_run(o->is_node ? o->run_dir : NULL, stop_serving, server, err);
	}
	free(methods);
	return rc;
}

int main(int argc, char **argv)
{
	static char host[HOST_NAME_MAX + 1];
	struct options o = {.run_dir = "/run/warpdrive", .kubelet_dir = "/var/lib/kubelet", .node_id = host,
		.is_node = true, .is_controller = true, .ready_fd = -1};
	struct wd_err err = WD_ERR_INIT;
	struct driver d;
	sigset_t signals;
	int rc;

	wd_log_init("csi");
	gethostname(host, HOST_NAME_MAX);
	if (getenv("WARPDRIVE_RUN_DIR"))
		o.run_dir = getenv("WARPDRIVE_RUN_DIR");
	rc = parse(argc, argv, &o);
	if (rc >= 0)
		return rc;
	prctl(PR_SET_DUMPABLE, 0); /* requests carry secrets: no core dumps, no ptrace */
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	pthread_sigmask(SIG_BLOCK, &signals, NULL); /* before any thread, core's included */
	curl_global_init(CURL_GLOBAL_DEFAULT);
	rc = driver_init(&d, o.run_dir, o.is_node ? o.kubelet_dir : NULL, o.node_id, &err);
	kube_defaults(&o.kube);
	d.kube = o.kube;
	if (rc == 0)
		rc = serve(&o, &d, &err);
	driver_done(&d);
	if (rc < 0)
		wd_error("%s", err.msg);
	return rc < 0;
}
