/* SPDX-License-Identifier: Apache-2.0 */
/* The Identity service: who we are and what we can. */
#include "csi/csi.pb-c.h"
#include "csi/driver.h"

static enum rpc_code get_plugin_info(struct rpc_call *call, const void *request, void *response)
{
	Csi__V1__GetPluginInfoResponse *out = response;

	out->name = (char *)DRIVER_NAME;
	out->vendor_version = (char *)WD_VERSION;
	return RPC_OK;
}

/* No accessibility constraints: an object store is not pinned to a zone. */
static enum rpc_code get_plugin_capabilities(struct rpc_call *call, const void *request, void *response)
{
	static Csi__V1__PluginCapability__Service service = {
		PROTOBUF_C_MESSAGE_INIT(&csi__v1__plugin_capability__service__descriptor),
		CSI__V1__PLUGIN_CAPABILITY__SERVICE__TYPE__CONTROLLER_SERVICE};
	static Csi__V1__PluginCapability capability = {
		.base = PROTOBUF_C_MESSAGE_INIT(&csi__v1__plugin_capability__descriptor),
		.type_case = CSI__V1__PLUGIN_CAPABILITY__TYPE_SERVICE,
		.service = &service};
	static Csi__V1__PluginCapability *list[] = {&capability};
	Csi__V1__GetPluginCapabilitiesResponse *out = response;

	out->n_capabilities = 1;
	out->capabilities = list;
	return RPC_OK;
}

static enum rpc_code probe(struct rpc_call *call, const void *request, void *response)
{
	static Csi__V1__BoolValue yes = {PROTOBUF_C_MESSAGE_INIT(&csi__v1__bool_value__descriptor), 1};
	Csi__V1__ProbeResponse *out = response;

	out->ready = &yes;
	return RPC_OK;
}

#define P "/csi.v1.Identity/"
const struct rpc_method identity_methods[] = {
	{P "GetPluginInfo", &csi__v1__get_plugin_info_request__descriptor,
		&csi__v1__get_plugin_info_response__descriptor, get_plugin_info, RPC_INLINE},
	{P "GetPluginCapabilities", &csi__v1__get_plugin_capabilities_request__descriptor,
		&csi__v1__get_plugin_capabilities_response__descriptor, get_plugin_capabilities, RPC_INLINE},
	{P "Probe", &csi__v1__probe_request__descriptor, &csi__v1__probe_response__descriptor, probe, RPC_INLINE},
};
const size_t identity_nmethods = sizeof(identity_methods) / sizeof(identity_methods[0]);
