/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer target: the bytes of a request, from the wire to the handler's answer, for every method. Keeper and
 * API server are stand-ins; the claim is a part of the input. Whatever comes: nothing is left in the
 * kubelet's directory, an error says why, an answer can be decoded, what is to be mounted is a description
 * for a target below that directory, and what a claim chose lies within its class's allowedUrls.
 *
 *	input: method, lengths of two annotations, the annotations, the request
 */
#include <dirent.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/utf8.h"
#include "csi/csi.pb-c.h"
#include "csi/driver.h"
#include "csi/keeper.h"
#include "csi/url.h"
#include "csi/volume.h"
#include "csi/volume_id.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static struct driver driver;
/* as inputs call the kubelet's directory, whatever its name is in this process */
static const char template[] = "/tmp/wd-csi-fuzz-XXXXXX";
static char kubelet_dir[sizeof(template)];
static struct rpc_method methods[32];
static size_t nmethods;
static struct map annotations;

static void require(bool is_so)
{
	if (!is_so)
		abort();
}

/* ---- stand-ins ---- */

enum rpc_code claim_get(struct rpc_call *call, const struct kube *k, const char *namespace,
	const char *name, struct claim *ret_claim)
{
	*ret_claim = (struct claim){namespace, name, "0-1-2", annotations};
	return *namespace && *name ? RPC_OK : rpc_fail(call, RPC_INVALID_ARGUMENT, "no name");
}

enum rpc_code keeper_mount(
	struct rpc_call *call, const struct driver *d, const char *target, const char *description)
{
	json_t *root = json_loads(description, 0, NULL);
	const char *url = json_string_value(json_object_get(root, "url"));

	require(url && *url && json_is_object(json_object_get(root, "options")));
	require(strcmp(json_string_value(json_object_get(root, "target")), target) == 0);
	require(strncmp(target, kubelet_dir, strlen(kubelet_dir)) == 0 && !strstr(target, "/../"));
	json_decref(root);
	/* so that the target goes again */
	return rpc_fail(call, RPC_UNAVAILABLE, "nobody mounts here");
}

int keeper_renew(struct rpc_call *call, const struct driver *d, const char *target, const char *description,
	struct wd_err *err)
{
	return 0;
}

enum rpc_code keeper_umount(struct rpc_call *call, const struct driver *d, const char *target)
{
	return RPC_OK;
}

void keeper_look(struct rpc_call *call, const struct driver *d, const char *target,
	struct keeper_stats *ret_stats)
{
	*ret_stats = (struct keeper_stats){.is_served = true};
}

/* ---- what must hold ---- */

static void check_empty(void)
{
	DIR *dir = opendir(kubelet_dir);
	size_t n = 0;

	require(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	require(n == 2); /* "." and ".." */
}

static void check_text(const char *text)
{
	require(text && *text);
	for (uint32_t c; *text; text += wd_utf8_decode(text, &c))
		require(wd_utf8_decode(text, &c) > 0);
}

/* The driver remembers names: no input shall depend on those before it. */
static void delete_volume(struct rpc_call *call, char *id)
{
	Csi__V1__DeleteVolumeRequest in = CSI__V1__DELETE_VOLUME_REQUEST__INIT;
	uint8_t packed[VOLUME_ID_MAX + 8];
	void *bytes;
	size_t len;

	in.volume_id = id;
	len = csi__v1__delete_volume_request__pack(&in, packed);
	for (size_t i = 0; i < nmethods; i++)
		if (methods[i].in == &csi__v1__delete_volume_request__descriptor)
			require(rpc_run(&methods[i], call, packed, len, &bytes, &len) == RPC_OK);
}

static void check_volume(struct rpc_call *call, const Csi__V1__CreateVolumeRequest *in, const Csi__V1__Volume *v)
{
	struct map context = MAP(v, volume_context), parameters = MAP(in, parameters);
	const char *url = map_get(context, "url");
	struct volume_id id;

	require(volume_id_parse(v->volume_id, &id) && id.digest == volume_id_digest(context));
	require(volume_check_id(call, "volume_id", v->volume_id) == RPC_OK);
	require(url && url_check(call, "url", url) == RPC_OK);
	require(volume_check_context(call, "volume_context", context) == RPC_OK);
	if (map_get(parameters, "csi.storage.k8s.io/pvc/name") &&
		(map_get(annotations, "warpdrive.io/dataset") || map_get(annotations, "warpdrive.io/path")))
		require(url_is_allowed(map_get(parameters, "allowedUrls"), url));
	delete_volume(call, v->volume_id);
}

static void check_answer(struct rpc_call *call, const struct rpc_method *m, const uint8_t *data, size_t size,
	const void *bytes, size_t len)
{
	ProtobufCMessage *out = protobuf_c_message_unpack(m->out, &call->arena->allocator, len, bytes);

	require(out);
	if (m->out == &csi__v1__create_volume_response__descriptor) {
		Csi__V1__CreateVolumeRequest *in =
			csi__v1__create_volume_request__unpack(&call->arena->allocator, size, data);

		require(in);
		check_volume(call, in, ((Csi__V1__CreateVolumeResponse *)(void *)out)->volume);
	}
}

/* ---- a run ---- */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct wd_err err = WD_ERR_INIT;

	wd_log_init("fuzz");
	wd_log_set_level(WD_LOG_ERROR);
	for (size_t i = 0; i < identity_nmethods; i++)
		methods[nmethods++] = identity_methods[i];
	for (size_t i = 0; i < controller_nmethods; i++)
		methods[nmethods++] = controller_methods[i];
	for (size_t i = 0; i < node_nmethods; i++)
		methods[nmethods++] = node_methods[i];
	strcpy(kubelet_dir, template);
	require(mkdtemp(kubelet_dir) && driver_init(&driver, kubelet_dir, kubelet_dir, "node", &err) == 0);
	return 0;
}

static void __attribute__((destructor)) remove_directory(void)
{
	rmdir(kubelet_dir);
}

/* A string of the input, as the API server would hand it out: without NUL, and UTF-8. */
static char *take_text(struct arena *arena, const uint8_t **data, size_t *size, size_t len)
{
	char *text = arena_alloc(arena, len + 1);

	require(text);
	if (len > *size)
		len = *size;
	memcpy(text, *data, len);
	for (char *p = text; *p;) {
		uint32_t c;
		unsigned n = wd_utf8_decode(p, &c);

		if (n == 0)
			*p = '?';
		p += n ? n : 1;
	}
	*data += len;
	*size -= len;
	return text;
}

/* The second text is also what a pattern may name. */
static void take_annotations(struct arena *arena, const uint8_t **data, size_t *size)
{
	static const char *const keys[] = {"warpdrive.io/dataset", "warpdrive.io/path", "k"};
	struct map_entry *entries = arena_alloc(arena, 3 * sizeof(*entries));
	struct map_entry **list = arena_alloc(arena, 3 * sizeof(*list));
	size_t lens[2] = {(*data)[0], (*data)[1]};

	require(entries && list);
	*data += 2;
	*size -= 2;
	annotations = (struct map){0, list};
	for (size_t i = 0; i < 3; i++) {
		entries[i].key = (char *)keys[i];
		entries[i].value = i < 2 ? take_text(arena, data, size, lens[i]) : entries[1].value;
		if (*entries[i].value)
			list[annotations.n++] = &entries[i];
	}
}

/* Exactly as large as it is, so that a sanitizer sees a read past it. */
static uint8_t *copy_request(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1), *at;

	require(copy);
	memcpy(copy, data, size);
	while ((at = memmem(copy, size, template, sizeof(template) - 1)))
		memcpy(at, kubelet_dir, sizeof(template) - 1);
	return copy;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena arena;
	struct rpc_call call = {.arena = &arena, .arg = &driver, .deadline_ns = INT64_MAX, .cancel_fd = -1};
	const struct rpc_method *m;
	enum rpc_code code;
	uint8_t *request;
	void *bytes;
	size_t len;

	if (size < 3)
		return 0;
	arena_init(&arena);
	m = &methods[data[0] % nmethods];
	data++;
	size--;
	take_annotations(&arena, &data, &size);
	request = copy_request(data, size);
	code = rpc_run(m, &call, request, size, &bytes, &len);
	if (code == RPC_OK)
		check_answer(&call, m, request, size, bytes, len);
	else if (call.text) /* without one it is the code's name that is sent */
		check_text(call.text);
	check_empty();
	arena_done(&arena);
	free(request);
	return 0;
}
