/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Controller service. A volume is a name for a place in object storage: nothing is made there
 * and nothing is deleted. What the place is follows from the class and the claim (provision.h), what the
 * volume is from its id (volume_id.h), so that a call that is repeated, also by another replica, gives the
 * same volume, and the controller keeps no state.
 *
 * A name that comes again with another size or place is a mistake and refused, as far as this process
 * remembers (the last CREATED_MAX names); nothing depends on that memory.
 */
#include <string.h>
#include <xxhash.h>

#include "common/lock.h"
#include "csi/csi.pb-c.h"
#include "csi/driver.h"
#include "csi/provision.h"
#include "csi/volume.h"
#include "csi/volume_id.h"

#define CREATED_MAX 1024
#define PVC_NAME "csi.storage.k8s.io/pvc/name"
#define PVC_NAMESPACE "csi.storage.k8s.io/pvc/namespace"
#define PV_UID_LEN 36 /* of the name "pvc-<uid>" that the provisioner gives by default */

static struct {
	struct wd_mutex lock;
	struct created {
		uint64_t name, id; /* hashes; 0: unused */
		int64_t required_bytes, limit_bytes;
	} list[CREATED_MAX];
	unsigned next; /* the one to be overwritten */
} created = {.lock = WD_MUTEX_INIT};

static uint64_t hash(const char *text)
{
	return XXH3_64bits(text, strlen(text)) | 1;
}

/* False when the name is remembered with another size or id. */
static bool remember(const char *name, const char *id, const Csi__V1__CapacityRange *range)
{
	struct created c = {hash(name), hash(id), range ? range->required_bytes : 0,
		range ? range->limit_bytes : 0};
	bool is_new = true, is_same = true;

	wd_lock(&created.lock);
	for (size_t i = 0; i < CREATED_MAX && is_new; i++) {
		if (created.list[i].name != c.name)
			continue;
		is_new = false;
		is_same = created.list[i].id == c.id &&
			  created.list[i].required_bytes == c.required_bytes &&
			  created.list[i].limit_bytes == c.limit_bytes;
	}
	if (is_new)
		created.list[created.next++ % CREATED_MAX] = c;
	wd_unlock(&created.lock);
	return is_same;
}

static void forget(const char *id)
{
	uint64_t h = hash(id);

	wd_lock(&created.lock);
	for (size_t i = 0; i < CREATED_MAX; i++)
		if (created.list[i].id == h)
			created.list[i] = (struct created){0};
	wd_unlock(&created.lock);
}

/* ---- capabilities of a request ---- */

static enum rpc_code check_capabilities(struct rpc_call *call, bool is_scratch, size_t n,
	Csi__V1__VolumeCapability *const *list)
{
	enum rpc_code code = RPC_OK;

	if (n == 0)
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "volume_capabilities: empty");
	for (size_t i = 0; i < n && code == RPC_OK; i++) {
		code = volume_check_capability(call, list[i]);
		if (code == RPC_OK)
			code = volume_check_mode(call, is_scratch, list[i]);
	}
	return code;
}

/* ---- making and deleting ---- */

/* The claim that the volume is for; *ret_claim is NULL where the request names none. */
static enum rpc_code find_claim(struct rpc_call *call, const Csi__V1__CreateVolumeRequest *in,
	const struct claim **ret_claim)
{
	struct map parameters = MAP(in, parameters);
	const char *name = map_get(parameters, PVC_NAME), *namespace = map_get(parameters, PVC_NAMESPACE);
	const struct driver *d = call->arg;
	struct claim *claim = arena_alloc(call->arena, sizeof(*claim));
	enum rpc_code code;

	*ret_claim = NULL;
	if (!name && !namespace)
		return RPC_OK;
	if (!claim)
		return rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "out of memory");
	code = claim_get(call, &d->kube, namespace ? namespace : "", name ? name : "", claim);
	if (code != RPC_OK)
		return code;
	/* a claim that was deleted and made anew meanwhile is another one */
	if (strncmp(in->name, "pvc-", 4) == 0 && strlen(in->name) == 4 + PV_UID_LEN &&
		strlen(claim->uid) == PV_UID_LEN && strcmp(in->name + 4, claim->uid) != 0)
		return rpc_fail(call, RPC_ABORTED, "claim '%s/%s' is not the one that '%.128s' is for",
			claim->namespace, claim->name, in->name);
	*ret_claim = claim;
	return RPC_OK;
}

static enum rpc_code make_volume(struct rpc_call *call, const char *id, struct map context,
	const Csi__V1__CapacityRange *range, Csi__V1__Volume **ret_volume)
{
	Csi__V1__Volume *volume = arena_alloc(call->arena, sizeof(*volume));

	if (!volume || !id)
		return rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "out of memory");
	csi__v1__volume__init(volume);
	volume->volume_id = (char *)id;
	volume->capacity_bytes = range ? range->required_bytes : 0;
	volume->n_volume_context = context.n;
	volume->volume_context = (Csi__V1__Volume__VolumeContextEntry **)(void *)context.entries;
	*ret_volume = volume;
	return RPC_OK;
}

static enum rpc_code create_volume(struct rpc_call *call, const void *request, void *response)
{
	const Csi__V1__CreateVolumeRequest *in = request;
	Csi__V1__CreateVolumeResponse *out = response;
	struct map parameters = MAP(in, parameters), context;
	const struct claim *claim;
	enum rpc_code code = volume_check_id(call, "name", in->name);

	if (code == RPC_OK)
		code = volume_check_parameters(call, parameters);
	if (code == RPC_OK)
		code = check_capabilities(call, volume_is_scratch(parameters), in->n_volume_capabilities,
			in->volume_capabilities);
	if (code == RPC_OK && in->volume_content_source)
		code = rpc_fail(call, RPC_INVALID_ARGUMENT, "volume_content_source: not supported");
	if (code == RPC_OK)
		code = find_claim(call, in, &claim);
	if (code == RPC_OK)
		code = provision(call, parameters, claim, &context);
	if (code == RPC_OK)
		code = make_volume(call, volume_id_make(call, in->name, context), context, in->capacity_range,
			&out->volume);
	if (code == RPC_OK && !remember(in->name, out->volume->volume_id, in->capacity_range))
		code = rpc_fail(call, RPC_ALREADY_EXISTS,
			"name: '%.128s' exists with another size or other parameters", in->name);
	return code;
}

static enum rpc_code delete_volume(struct rpc_call *call, const void *request, void *response)
{
	const Csi__V1__DeleteVolumeRequest *in = request;
	enum rpc_code code = volume_check_id(call, "volume_id", in->volume_id);

	/* an id that this driver can never have made names nothing: it is deleted already */
	if (code == RPC_OK)
		forget(in->volume_id);
	return code;
}

/* ---- questions ---- */

static enum rpc_code check_id(struct rpc_call *call, const char *text, struct volume_id *ret_id)
{
	enum rpc_code code = volume_check_id(call, "volume_id", text);

	if (code == RPC_OK && !volume_id_parse(text, ret_id))
		code = rpc_fail(call, RPC_NOT_FOUND, "volume_id: '%.128s' is no volume of this driver", text);
	return code;
}

static enum rpc_code get_volume(struct rpc_call *call, const void *request, void *response)
{
	const Csi__V1__ControllerGetVolumeRequest *in = request;
	Csi__V1__ControllerGetVolumeResponse *out = response;
	struct volume_id id;
	enum rpc_code code = check_id(call, in->volume_id, &id);

	if (code == RPC_OK)
		code = make_volume(call, in->volume_id, (struct map){0}, NULL, &out->volume);
	out->status = arena_alloc(call->arena, sizeof(*out->status));
	if (code == RPC_OK && !out->status)
		code = rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "out of memory");
	if (out->status)
		csi__v1__controller_get_volume_response__volume_status__init(out->status);
	return code;
}

/* RPC_OK when the volume is what the request says. */
static enum rpc_code check_claims(struct rpc_call *call,
	const Csi__V1__ValidateVolumeCapabilitiesRequest *in, const struct volume_id *id)
{
	struct map context = MAP(in, volume_context), parameters = MAP(in, parameters);
	enum rpc_code code = volume_check_context(call, "volume_context", context);

	if (code == RPC_OK)
		code = volume_check_parameters(call, parameters);
	if (code == RPC_OK)
		code = check_capabilities(
			call, id->is_scratch, in->n_volume_capabilities, in->volume_capabilities);
	if (code == RPC_OK && map_get(context, "url") && volume_id_digest(context) != id->digest)
		code = rpc_fail(call, RPC_INVALID_ARGUMENT, "volume_context: not the one of this volume");
	return code;
}

static enum rpc_code validate(struct rpc_call *call, const void *request, void *response)
{
	const Csi__V1__ValidateVolumeCapabilitiesRequest *in = request;
	Csi__V1__ValidateVolumeCapabilitiesResponse *out = response;
	Csi__V1__ValidateVolumeCapabilitiesResponse__Confirmed *confirmed =
		arena_alloc(call->arena, sizeof(*confirmed));
	struct volume_id id;
	enum rpc_code code;

	if (*in->volume_id && in->n_volume_capabilities == 0)
		return rpc_fail(call, RPC_INVALID_ARGUMENT, "volume_capabilities: empty");
	code = check_id(call, in->volume_id, &id);
	if (code != RPC_OK)
		return code;
	if (check_claims(call, in, &id) != RPC_OK) { /* a "no" is an answer, not an error */
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
		CAPABILITY(CREATE_DELETE_VOLUME), CAPABILITY(GET_VOLUME),
		CAPABILITY(SINGLE_NODE_MULTI_WRITER)};
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
		&csi__v1__create_volume_response__descriptor, create_volume, RPC_UNARY},
	{P "DeleteVolume", &csi__v1__delete_volume_request__descriptor,
		&csi__v1__delete_volume_response__descriptor, delete_volume, RPC_UNARY},
	{P "ValidateVolumeCapabilities", &csi__v1__validate_volume_capabilities_request__descriptor,
		&csi__v1__validate_volume_capabilities_response__descriptor, validate, RPC_UNARY},
	{P "ControllerGetVolume", &csi__v1__controller_get_volume_request__descriptor,
		&csi__v1__controller_get_volume_response__descriptor, get_volume, RPC_INLINE},
	{P "ControllerGetCapabilities", &csi__v1__controller_get_capabilities_request__descriptor,
		&csi__v1__controller_get_capabilities_response__descriptor, get_capabilities, RPC_INLINE},
};
const size_t controller_nmethods = sizeof(controller_methods) / sizeof(controller_methods[0]);
