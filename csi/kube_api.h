/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_CSI_KUBE_API_H
#define WD_CSI_KUBE_API_H
/* Questions to the Kubernetes API: one GET at a time, with the pod's own service account. */
#include <jansson.h>

#include "common/rpc.h"

struct kube {
	const char *url;	/* of the API server; NULL: there is none */
	const char *token_path; /* read anew for each question: the kubelet replaces it */
	const char *ca_path;	/* NULL: the system's */
};

/* Fills what is not set yet from a pod's environment and service account. Strings are borrowed or live in
 * static memory. */
void kube_defaults(struct kube *k);

struct kube_question {
	const char *path;  /* with a query, encoded */
	const char *what;  /* "claim 'ns/name'": for errors */
	const char *right; /* "'get' on pods": what the service account needs */
};

/* Asks. *ret_answer is the caller's to json_decref(). Ends with the call's deadline or its caller. NOT_FOUND: there
 * is no such object. */
enum rpc_code kube_get(
	struct rpc_call *call, const struct kube *k, const struct kube_question *q, json_t **ret_answer);

#endif
