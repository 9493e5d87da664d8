/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warpdrive-csi: speaks CSI and nothing else. Needs no capability: it asks the keeper for mounts
 * and reads what is mounted from the kernel's list.
 */
#include <curl/curl.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/log.h"
#include "common/options.h"
#include "csi/driver.h"
#include "csi/holder.h"
#include "csi/metrics_page.h"
#include "csi/unused.h"

#define GRACE_MS 10000
#define WORKERS 32 /* publishes wait for agent and origin */

struct options {
	const char *endpoint, *run_dir, *kubelet_dir, *node_id, *metrics_listen;
	struct kube kube;
	bool is_node, is_controller, is_check;
	int ready_fd; /* -1: none */
};

static const char *path_of(const char *endpoint)
{
	return strncmp(endpoint, "unix://", 7) == 0 ? endpoint + 7
	       : strncmp(endpoint, "unix:", 5) == 0 ? endpoint + 5
						    : endpoint;
}

static int set_endpoint(void *options, const char *text)
{
	struct options *o = options;

	o->endpoint = path_of(text);
	return o->endpoint[0] == '/' ? 0 : -EINVAL;
}

static int set_service(void *options, const char *name)
{
	struct options *o = options;

	o->is_node = strcmp(name, "node") == 0 || strcmp(name, "all") == 0;
	o->is_controller = strcmp(name, "controller") == 0 || strcmp(name, "all") == 0;
	return o->is_node || o->is_controller ? 0 : -EINVAL;
}

static int set_node_id(void *options, const char *name)
{
	((struct options *)options)->node_id = name;
	return *name && strlen(name) <= DRIVER_NODE_ID_MAX ? 0 : -EINVAL;
}

#define AT(field) offsetof(struct options, field)
static const struct wd_option options_known[] = {
	{"endpoint", WD_OPTION_CALL, 0, "SOCKET", NULL, "unix socket to serve, /path or unix:///path", set_endpoint},
	{"service", WD_OPTION_CALL, 0, "NAME", "all", "node, controller or all", set_service},
	{"node-id", WD_OPTION_CALL, 0, "NAME", NULL, "this node's name (default: the host name)", set_node_id},
	{"run-dir", WD_OPTION_TEXT, AT(run_dir), "DIR", NULL,
		"of keeper.sock and agent.sock (default /run/warpdrive)", NULL},
	{"kubelet-dir", WD_OPTION_TEXT, AT(kubelet_dir), "DIR", "/var/lib/kubelet", "targets lie below it", NULL},
	{"kube-api", WD_OPTION_TEXT, AT(kube.url), "URL", NULL,
		"API server, asked for claims by the controller (default: the\n"
		"cluster's own, with --kube-token and --kube-ca)", NULL},
	{"kube-token", WD_OPTION_TEXT, AT(kube.token_path), "FILE", NULL, "bearer token, read anew each time", NULL},
	{"kube-ca", WD_OPTION_TEXT, AT(kube.ca_path), "FILE", NULL,
		"certificates of the API server's authority", NULL},
	{"metrics-listen", WD_OPTION_TEXT, AT(metrics_listen), "ADDRESS:PORT", NULL,
		"serve /metrics, with the calls' times, for Prometheus (default: no)", NULL},
	{"check-unused", WD_OPTION_FLAG, AT(is_check), NULL, NULL,
		"list the pods that have volumes of this driver, and end: 0 when\n"
		"there are none, 1 when there are, or when it cannot be told", NULL},
	{"ready-fd", WD_OPTION_NUMBER, AT(ready_fd), "N", NULL, "write a byte to descriptor N when serving", NULL},
	{0},
};

static const struct wd_command command = {
	.name = "warpdrive-csi",
	.usage = "--endpoint SOCKET [options]",
	.about = "The CSI driver " DRIVER_NAME ": mounts datasets for the pods of a node through\n"
		 "warpdrive-keeper and warpdrive-agent, and provisions volumes.\n",
	.more = "Environment: WARPDRIVE_RUN_DIR, WARPDRIVE_LOG=debug|info|warn|error.\n",
	.options = options_known,
};

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

static void stop_serving(void *server)
{
	rpc_stop(server, GRACE_MS);
}

static int serve(const struct options *o, struct driver *d, struct wd_err *err)
{
	struct rpc_method *methods = calloc(identity_nmethods + node_nmethods + controller_nmethods, sizeof(*methods));
	struct rpc_config config = {.path = o->endpoint, .arg = d, .workers = WORKERS};
	struct rpc_server *server = NULL;
	struct metrics_page *page = NULL;
	int rc;

	if (!methods)
		return wd_err_set(err, ENOMEM, "out of memory");
	config.methods = methods;
	config.nmethods = collect(o, methods);
	rc = metrics_page_start(o->metrics_listen, &page, err);
	if (rc == 0)
		rc = rpc_start(&config, &server, err);
	if (rc == 0) {
		wd_info("warpdrive-csi " WD_VERSION " serves '%s' on node '%s'", o->endpoint, o->node_id);
		wd_tell_ready(o->ready_fd);
		rc = holder_run(o->is_node ? o->run_dir : NULL, stop_serving, server, err);
	}
	metrics_page_stop(page);
	free(methods);
	return rc;
}

static int check_unused(const struct kube *k)
{
	struct wd_err err = WD_ERR_INIT;
	int n = unused_check(k, &err);

	if (n < 0)
		wd_error("%s", err.msg);
	else if (n > 0)
		printf("%d volumes of " DRIVER_NAME " are in use: delete these pods first. Without the driver they could "
		       "not be ended, and their reads would fail.\n", n);
	else
		puts("no pod has a volume of " DRIVER_NAME);
	return n != 0;
}

int main(int argc, char **argv)
{
	static char host[HOST_NAME_MAX + 1];
	struct options o = {.run_dir = "/run/warpdrive", .node_id = host, .ready_fd = -1};
	struct wd_err err = WD_ERR_INIT;
	struct driver d;
	sigset_t signals;
	int rc;

	wd_log_init("csi");
	gethostname(host, HOST_NAME_MAX);
	if (getenv("WARPDRIVE_RUN_DIR"))
		o.run_dir = getenv("WARPDRIVE_RUN_DIR");
	rc = wd_options_parse(&command, argc, argv, &o);
	if (rc >= 0)
		return rc;
	if (!o.endpoint && !o.is_check) {
		fputs("warpdrive-csi: --endpoint is missing; see --help\n", stderr);
		return 2;
	}
	prctl(PR_SET_DUMPABLE, 0); /* requests carry secrets: no core dumps, no ptrace */
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	pthread_sigmask(SIG_BLOCK, &signals, NULL); /* before any thread, core's included */
	curl_global_init(CURL_GLOBAL_DEFAULT);
	kube_defaults(&o.kube);
	if (o.is_check)
		return check_unused(&o.kube);
	rc = driver_init(&d, o.run_dir, o.is_node ? o.kubelet_dir : NULL, o.node_id, &err);
	d.kube = o.kube;
	if (rc == 0)
		rc = serve(&o, &d, &err);
	driver_done(&d);
	if (rc < 0)
		wd_error("%s", err.msg);
	return rc < 0;
}
