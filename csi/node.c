/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Node service. A target is one of: free, ours, somebody else's; publish makes it ours,
 * unpublish makes it free and gone, and both are fine when that is so already. The kubelet calls
 * publish again and again (requiresRepublish): on a target that is mounted the answer is OK, in
 * whatever state the rest of the node is.
 */
#include <errno.h>
#include <string.h>

#include "common/log.h"
#include "csi/csi.pb-c.h"
#include "csi/driver.h"
#include "csi/keeper.h"
#include "csi/target.h"
#include "csi/volume.h"

static enum rpc_code publish_free(struct rpc_call *call, struct driver *d, const char *target,
	const Csi__V1__NodePublishVolumeRequest *in)
{
	struct volume_mount v = {.target = target,
		.context = MAP(in, volume_context),
		.secrets = MAP(in, secrets),
		.capability = in->volume_capability};
	const char *description;
	enum rpc_code code = volume_describe(call, &v, &description);

	if (code == RPC_OK)
		code = target_make(call, d, target);
	if (code != RPC_OK)
		return code;
	code = keeper_mount(call, d, target, description);
	if (code != RPC_OK) {
		const char *text = call->text; /* what matters is why it was not mounted */

		target_remove(call, d, target);
		call->text = text;
	}
	return code;
}

/* The target is mounted: that is all the kubelet has to know. New secrets and tokens are taken over; what is wrong
 * with them shows in the volume's condition, a metric and the log. */
static void republish(struct rpc_call *call, struct driver *d, const char *target,
	const Csi__V1__NodePublishVolumeRequest *in)
{
	struct volume_mount v = {.target = target,
		.context = MAP(in, volume_context),
		.secrets = MAP(in, secrets),
		.capability = in->volume_capability};
	struct wd_err err = WD_ERR_INIT;
	const char *description;

	if (!volume_has_credentials(&v))
		return;
	if (volume_describe(call, &v, &description) != RPC_OK) {
		wd_warn("republish '%s': %s", target, call->text);
		call->text = NULL;
		return;
	}
	if (keeper_renew(call, d, target, description, &err) < 0)
		wd_warn("republish '%s': the credentials stay as they were: %s", target, err.msg);
}

static enum rpc_code publish_claimed(struct rpc_call *call, struct driver *d, const char *target,
	const Csi__V1__NodePublishVolumeRequest *in)
{
	enum target_state state;
	enum rpc_code code = target_look(call, target, &state);

	if (code != RPC_OK)
		return code;
	if (state == TARGET_OURS) {
		republish(call, d, target, in);
		return RPC_OK;
	}
	if (state == TARGET_FOREIGN)
		return rpc_fail(call, RPC_INTERNAL,
			"target_path: something else is mounted at '%.200s'; unmount it first", target);
	return publish_free(call, d, target, in);
}

static enum rpc_code node_publish(struct rpc_call *call, const void *request, void *response)
{
	const Csi__V1__NodePublishVolumeRequest *in = request;
	struct driver *d = call->arg;
	const char *target;
	enum rpc_code code = volume_check_id(call, "volume_id", in->volume_id);

	if (code == RPC_OK)
		code = volume_check_capability(call, in->volume_capability);
	if (code == RPC_OK)
		code = target_check(call, d, "target_path", in->target_path, &target);
	if (code != RPC_OK)
		return code;
	if (!driver_claim(d, target))
		return rpc_fail(call, RPC_ABORTED, "another call works on this target");
	code = publish_claimed(call, d, target, in);
	driver_release(d, target);
	return code;
}

static enum rpc_code unpublish_claimed(struct rpc_call *call, struct driver *d, const char *target)
{
	enum target_state state;
	enum rpc_code code = target_look(call, target, &state);

	if (code == RPC_OK && state == TARGET_FOREIGN)
		code = rpc_fail(call, RPC_INTERNAL, "something else is mounted at '%.200s'", target);
	if (code == RPC_OK && state == TARGET_OURS)
		code = keeper_umount(call, d, target);
	if (code == RPC_OK)
		code = target_look(call, target, &state);
	if (code != RPC_OK)
		return code;
	if (state != TARGET_FREE)
		return rpc_fail(call, RPC_INTERNAL,
			"'%.200s' is still mounted, and the keeper does not know it; see its log", target);
	return target_remove(call, d, target);
}

static enum rpc_code node_unpublish(struct rpc_call *call, const void *request, void *response)
{
	const Csi__V1__NodeUnpublishVolumeRequest *in = request;
	struct driver *d = call->arg;
	const char *target;
	enum rpc_code code = volume_check_id(call, "volume_id", in->volume_id);

	if (code == RPC_OK)
		code = target_check(call, d, "target_path", in->target_path, &target);
	if (code != RPC_OK)
		return code;
	if (!driver_claim(d, target))
		return rpc_fail(call, RPC_ABORTED, "another call works on this target");
	code = unpublish_claimed(call, d, target);
	driver_release(d, target);
	return code;
}

static Csi__V1__VolumeUsage *make_usage(struct rpc_call *call, Csi__V1__VolumeUsage__Unit unit, uint64_t n)
{
	Csi__V1__VolumeUsage *u = arena_alloc(call->arena, sizeof(*u));

	if (!u)
		return NULL;
	csi__v1__volume_usage__init(u);
	u->unit = unit;
	u->total = u->used = (int64_t)n;
	return u;
}

static enum rpc_code node_get_volume_stats(struct rpc_call *call, const void *request, void *response)
{
	const Csi__V1__NodeGetVolumeStatsRequest *in = request;
	Csi__V1__NodeGetVolumeStatsResponse *out = response;
	Csi__V1__VolumeCondition *condition = arena_alloc(call->arena, sizeof(*condition));
	struct driver *d = call->arg;
	struct keeper_stats stats;
	enum target_state state;
	const char *target;
	enum rpc_code code = volume_check_id(call, "volume_id", in->volume_id);

	if (code != RPC_OK)
		return code;
	if (!*in->volume_path)
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "volume_path: missing");
	/* a path that could not be a target of ours is one where nothing of ours is */
	if (target_check(call, d, "volume_path", in->volume_path, &target) != RPC_OK)
		return RPC_NOT_FOUND;
	code = target_look(call, target, &state);
	if (code != RPC_OK)
		return code;
	if (state != TARGET_OURS)
		return rpc_fail(call, RPC_NOT_FOUND, "volume_path: no volume is mounted at '%.200s'", target);
	keeper_look(call, d, target, &stats);
	out->usage = arena_alloc(call->arena, 2 * sizeof(*out->usage));
	if (!condition || !out->usage)
		return rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "out of memory");
	csi__v1__volume_condition__init(condition);
	condition->abnormal = stats.trouble != NULL;
	condition->message = (char *)(stats.trouble ? stats.trouble : "the mount is served");
	out->volume_condition = condition;
	out->usage[0] = make_usage(call, CSI__V1__VOLUME_USAGE__UNIT__BYTES, stats.bytes);
	out->usage[1] = make_usage(call, CSI__V1__VOLUME_USAGE__UNIT__INODES, stats.objects);
	out->n_usage = out->usage[0] && out->usage[1] ? 2 : 0;
	return RPC_OK;
}

#define CAPABILITY(name)                                                                           \
	{.base = PROTOBUF_C_MESSAGE_INIT(&csi__v1__node_service_capability__rpc__descriptor),      \
		.type = CSI__V1__NODE_SERVICE_CAPABILITY__RPC__TYPE__##name}
static enum rpc_code node_get_capabilities(struct rpc_call *call, const void *request, void *response)
{
	static Csi__V1__NodeServiceCapability__RPC rpcs[] = {CAPABILITY(GET_VOLUME_STATS),
		CAPABILITY(VOLUME_CONDITION), CAPABILITY(SINGLE_NODE_MULTI_WRITER),
		CAPABILITY(VOLUME_MOUNT_GROUP)};
	const size_t n = sizeof(rpcs) / sizeof(rpcs[0]);
	Csi__V1__NodeGetCapabilitiesResponse *out = response;
	Csi__V1__NodeServiceCapability *all = arena_alloc(call->arena, n * sizeof(*all));

	out->capabilities = arena_alloc(call->arena, n * sizeof(*out->capabilities));
	if (!all || !out->capabilities)
		return rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "out of memory");
	for (size_t i = 0; i < n; i++) {
		csi__v1__node_service_capability__init(&all[i]);
		all[i].type_case = CSI__V1__NODE_SERVICE_CAPABILITY__TYPE_RPC;
		all[i].rpc = &rpcs[i];
		out->capabilities[i] = &all[i];
	}
	out->n_capabilities = n;
	return RPC_OK;
}

static enum rpc_code node_get_info(struct rpc_call *call, const void *request, void *response)
{
	Csi__V1__NodeGetInfoResponse *out = response;
	const struct driver *d = call->arg;

	out->node_id = (char *)d->node_id;
	out->max_volumes_per_node = d->max_volumes;
	return RPC_OK;
}

#define P "/csi.v1.Node/"
const struct rpc_method node_methods[] = {
	{P "NodePublishVolume", &csi__v1__node_publish_volume_request__descriptor,
		&csi__v1__node_publish_volume_response__descriptor, node_publish, RPC_UNARY},
	{P "NodeUnpublishVolume", &csi__v1__node_unpublish_volume_request__descriptor,
		&csi__v1__node_unpublish_volume_response__descriptor, node_unpublish, RPC_UNARY},
	{P "NodeGetVolumeStats", &csi__v1__node_get_volume_stats_request__descriptor,
		&csi__v1__node_get_volume_stats_response__descriptor, node_get_volume_stats, RPC_UNARY},
	{P "NodeGetCapabilities", &csi__v1__node_get_capabilities_request__descriptor,
		&csi__v1__node_get_capabilities_response__descriptor, node_get_capabilities, RPC_INLINE},
	{P "NodeGetInfo", &csi__v1__node_get_info_request__descriptor,
		&csi__v1__node_get_info_response__descriptor, node_get_info, RPC_INLINE},
};
const size_t node_nmethods = sizeof(node_methods) / sizeof(node_methods[0]);
