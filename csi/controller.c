/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Controller service for datasets. A volume is a name for what its class (or claim) says: nothing
 * is made and nothing is deleted at the origin. The id is derived from the name alone, so that a call
 * that is repeated, also by the other replica, gives the same volume.
 *
 * A name that comes again with another size is a mistake and refused, as far as this process remembers
 * (the last CREATED_MAX names): a dataset's size is not chosen by anyone, so nothing depends on it.
 */
#include <string.h>
#include <xxhash.h>

#include "common/lock.h"
#include "csi/csi.pb-c.h"
#include "csi/driver.h"
#include "csi/volume.h"

#define ID_PREFIX "wd-"
#define NAME_KEPT 92 /* bytes of a long name that its id begins with, before the hash of all of it */
#define CREATED_MAX 1024

static struct {
	struct wd_mutex lock;
	struct created {
		uint64_t name; /* hash; 0: unused */
		int64_t required_bytes, limit_bytes;
	} list[CREATED_MAX];
	unsigned next; /* the one to be overwritten */
} created = {.lock = WD_MUTEX_INIT};

/* ---- capabilities of a request ---- */

static enum rpc_code check_capabilities(
	struct rpc_call *call, size_t n, Csi__V1__VolumeCapability *const *list)
{
	enum rpc_code code = RPC_OK;

	if (n == 0)
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "volume_capabilities: empty");
	for (size_t i = 0; i < n && code == RPC_OK; i++)
		code = volume_check_capability(call, list[i]);
	return code;
}

/* ---- the methods ---- */

static char *make_id(struct rpc_call *call, const char *name)
{
	XXH128_hash_t h;

	if (strlen(ID_PREFIX) + strlen(name) <= VOLUME_ID_MAX)
		return arena_printf(call->arena, ID_PREFIX "%s", name);
	h = XXH3_128bits(name, strlen(name));
	return arena_printf(call->arena, ID_PREFIX "%.*s-%016llx%016llx", NAME_KEPT, name,
		(unsigned long long)h.high64, (unsigned long long)h.low64);
}

/* False when the name is remembered with another size. */
static bool remember(const char *name, const Csi__V1__CapacityRange *range)
{
	struct created c = {XXH3_64bits(name, strlen(name)) | 1, range ? range->required_bytes : 0,
		range ? range->limit_bytes : 0};
	bool is_new = true, is_same = true;

	wd_lock(&created.lock);
	for (size_t i = 0; i < CREATED_MAX && is_new; i++) {
		if (created.list[i].name != c.name)
			continue;
		is_new = false;
		is_same = created.list[i].required_bytes == c.required_bytes &&
			  created.list[i].limit_bytes == c.limit_bytes;
	}
	if (is_new)
		created.list[created.next++ % CREATED_MAX] = c;
	wd_unlock(&created.lock);
	return is_same;
}

static enum rpc_code create_volume(struct rpc_call *call, const void *request, void *response)
{
	const Csi__V1__CreateVolumeRequest *in = request;
	Csi__V1__CreateVolumeResponse *out = response;
	Csi__V1__Volume *volume = arena_alloc(call->arena, sizeof(*volume));
	struct map parameters = MAP(in, parameters);
	enum rpc_code code = volume_check_id(call, "name", in->name);

	if (code == RPC_OK)
		code = check_capabilities(call, in->n_volume_capabilities, in->volume_capabilities);
	if (code == RPC_OK && in->volume_content_source)
		code = rpc_fail(call, RPC_INVALID_ARGUMENT, "volume_content_source: not supported");
	if (code == RPC_OK)
		code = volume_check_context(call, "parameters", parameters);
	if (code != RPC_OK)
		return code;
	if (!remember(in->name, in->capacity_range))
		return rpc_fail(call, RPC_ALREADY_EXISTS, "name: '%.128s' exists with another size", in->name);
	if (!volume)
		return rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "out of memory");
	csi__v1__volume__init(volume);
	volume->volume_id = make_id(call, in->name);
	if (!volume->volume_id)
		return rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "out of memory");
	volume->capacity_bytes = in->capacity_range ? in->capacity_range->required_bytes : 0;
	volume->n_volume_context = in->n_parameters;
	volume->volume_context = (Csi__V1__Volume__VolumeContextEntry **)(void *)in->parameters;
	for (size_t i = 0; i < in->n_parameters; i++) /* entries of all maps look alike */
		in->parameters[i]->base.descriptor = &csi__v1__volume__volume_context_entry__descriptor;
	out->volume = volume;
	return RPC_OK;
}

static enum rpc_code delete_volume(struct rpc_call *call, const void *request, void *response)
{
	const Csi__V1__DeleteVolumeRequest *in = request;

	/* an id that this driver can never have made names nothing: it is deleted already */
	return *in->volume_id ? RPC_OK : rpc_fail(call, RPC_INVALID_ARGUMENT, "volume_id: missing");
}

static enum rpc_code validate(struct rpc_call *call, const void *request, void *response)
{
	const Csi__V1__ValidateVolumeCapabilitiesRequest *in = request;
	Csi__V1__ValidateVolumeCapabilitiesResponse *out = response;
	Csi__V1__ValidateVolumeCapabilitiesResponse__Confirmed *confirmed =
		arena_alloc(call->arena, sizeof(*confirmed));
	enum rpc_code code;

	if (!*in->volume_id)
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "volume_id: missing");
	if (in->n_volume_capabilities == 0)
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "volume_capabilities: empty");
	if (strncmp(in->volume_id, ID_PREFIX, strlen(ID_PREFIX)) != 0)
		return rpc_fail(call, RPC_NOT_FOUND, "volume_id: '%.128s' is no volume of this driver", in->volume_id);
	code = check_capabilities(call, in->n_volume_capabilities, in->volume_capabilities);
	if (code != RPC_OK) { /* a "no" is an answer, not an error */
		out->message = (char *)call->text;
		call->text = NULL;
		return RPC_OK;
	}
	if (!confirmed)
		return rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "out of memory");
	csi__v1__validate_volume_capabilities_response__confirmed__init(confirmed);
	confirmed->n_volume_capabilities = in->n_volume_capabilities;
	confirmed->volume_capabilities = in->volume_capabilities;
	out->confirmed = confirmed;
	return RPC_OK;
}

#define CAPABILITY(name)                                                                           \
	{.base = PROTOBUF_C_MESSAGE_INIT(&csi__v1__controller_service_capability__rpc__descriptor), \
		.type = CSI__V1__CONTROLLER_SERVICE_CAPABILITY__RPC__TYPE__##name}
static enum rpc_code get_capabilities(struct rpc_call *call, const void *request, void *response)
{
	static Csi__V1__ControllerServiceCapability__RPC rpcs[] = {
		CAPABILITY(CREATE_DELETE_VOLUME), CAPABILITY(SINGLE_NODE_MULTI_WRITER)};
	const size_t n = sizeof(rpcs) / sizeof(rpcs[0]);
	Csi__V1__ControllerGetCapabilitiesResponse *out = response;
	Csi__V1__ControllerServiceCapability *all = arena_alloc(call->arena, n * sizeof(*all));

	out->capabilities = arena_alloc(call->arena, n * sizeof(*out->capabilities));
	if (!all || !out->capabilities)
		return rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "out of memory");
	for (size_t i = 0; i < n; i++) {
		csi__v1__controller_service_capability__init(&all[i]);
		all[i].type_case = CSI__V1__CONTROLLER_SERVICE_CAPABILITY__TYPE_RPC;
		all[i].rpc = &rpcs[i];
		out->capabilities[i] = &all[i];
	}
	out->n_capabilities = n;
	return RPC_OK;
}

#define P "/csi.v1.Controller/"
const struct rpc_method controller_methods[] = {
	{P "CreateVolume", &csi__v1__create_volume_request__descriptor,
		&csi__v1__create_volume_response__descriptor, create_volume, false},
	{P "DeleteVolume", &csi__v1__delete_volume_request__descriptor,
		&csi__v1__delete_volume_response__descriptor, delete_volume, false},
	{P "ValidateVolumeCapabilities", &csi__v1__validate_volume_capabilities_request__descriptor,
		&csi__v1__validate_volume_capabilities_response__descriptor, validate, false},
	{P "ControllerGetCapabilities", &csi__v1__controller_get_capabilities_request__descriptor,
		&csi__v1__controller_get_capabilities_response__descriptor, get_capabilities, true},
};
const size_t controller_nmethods = sizeof(controller_methods) / sizeof(controller_methods[0]);
