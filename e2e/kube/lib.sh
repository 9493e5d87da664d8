# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What the cases of e2e/kube share; source it first. WD_E2E_DIR is a directory of the run, with the origin's
# `manifest`. What a case makes in namespace wd-e2e has its label and is removed when it ends.
set -euo pipefail

root=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
top=$(dirname "$(dirname "$root")")
case_name=$(basename "$0")
image=${WD_E2E_IMAGE:-localhost/warpdrive-e2e:e2e}
rounds=${WD_E2E_ROUNDS:-10}
driver=csi.warpdrive.io
label="wd-e2e-case=$case_name"

fail() {
	echo "FAIL: $*"
	exit 1
}

skip() {
	echo "$*"
	exit 77
}

# A line that run shows even when the case passes.
note() {
	echo "# $*"
}

k() { kubectl -n wd-e2e "$@"; }
w() { kubectl -n warpdrive "$@"; }

tidy() {
	local status=$?
	trap - EXIT
	if [ "$status" != 0 ] && [ "$status" != 77 ]; then
		k get pods,pvc 2>&1 || true
		k get events --sort-by=.lastTimestamp 2>&1 | tail -n 15 || true
		w get pods 2>&1 || true
		for part in keeper agent csi; do
			w logs "daemonset/warpdrive-$part" --tail=12 -c "$part" 2>&1 | cut -c1-400 || true
		done
	fi
	kubectl delete --ignore-not-found --wait=true --timeout=120s -n wd-e2e pod,pvc,secret -l "$label" >/dev/null || status=1
	kubectl delete --ignore-not-found --wait=true --timeout=60s storageclass -l "$label" >/dev/null || status=1
	exit "$status"
}
trap tidy EXIT

origin_url() {
	echo "http://$(k get pod origin -o 'jsonpath={.status.podIP}'):8080/"
}

# toxic WORDS: tells the origin how to misbehave (e2e/tools/toxic_origin.c)
toxic() {
	k exec origin -- bash -c "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /.toxic?$1 HTTP/1.0\r\n\r\n' >&3 && head -n 1 <&3" \
		>/dev/null
}

# The same tree as a bucket, of a name of its own, so that nothing of it is cached; requests must be signed with one of
# its keys. bucket_keys ID:SECRET...: those that it takes from now on; signed_by ID: how many requests that key has
# signed since.
bucket_name=wd-e2e-$RANDOM
bucket_keys() {
	local IFS=,
	k exec origin -- ln -sfn . "/data/tree/$bucket_name" # toxic_origin does not list it
	toxic "bucket=$bucket_name${*:+,$*}"
}

signed_by() {
	k exec origin -- bash -c \
		"exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /.toxic? HTTP/1.0\r\n\r\n' >&3 && sed /^error-in-200/q <&3" |
		sed -n "s/^signed-by-$1 //p"
}

# Attributes or parameters for that bucket, in flow form.
bucket() {
	local url
	url=$(origin_url)
	echo "url: 's3://$bucket_name', endpoint: '${url%/}', pathStyle: 'true'"
}

# keys_secret NAME ID:SECRET: a Secret with that key
keys_secret() {
	k create secret generic "$1" --from-literal="accessKeyId=${2%%:*}" --from-literal="secretAccessKey=${2#*:}" \
		--dry-run=client -o yaml | k label -f - --local "$label" -o yaml | k apply -f - >/dev/null
}

# class NAME PARAMETERS: a storage class; PARAMETERS are in YAML's flow form, without braces
class() {
	kubectl apply -f - >/dev/null <<YAML
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: $1, labels: {${label/=/: }}}
provisioner: $driver
parameters: {$2}
YAML
}

# claim NAME CLASS [MODE]
claim() {
	k apply -f - >/dev/null <<YAML
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: $1, labels: {${label/=/: }}}
spec:
  storageClassName: $2
  accessModes: [${3:-ReadOnlyMany}]
  resources: {requests: {storage: 1Gi}}
YAML
}

# A claim for the whole of the origin's tree.
dataset_claim() {
	class "wd-e2e-$1" "url: '$(origin_url)', index: index.jsonl"
	claim "$1" "wd-e2e-$1"
}

of_claim() { echo "persistentVolumeClaim: {claimName: $1}"; }

# inline ATTRIBUTES [SECRET]: an inline volume
inline() {
	echo "csi: {driver: $driver, readOnly: true, volumeAttributes: {$1}${2:+, nodePublishSecretRef: {name: $2\}}}"
}

# pod NAME VOLUME COMMAND [SPEC [MOUNT]]: the volume is at /data, the manifest at /manifest/manifest; COMMAND is for sh.
# SPEC: more of the pod's spec, MOUNT: more of the volume's mount, both in flow form.
pod() {
	local spec=${4:-terminationGracePeriodSeconds: 2}
	k apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata: {name: $1, labels: {${label/=/: }, app: $1}}
spec:
  restartPolicy: Never
  enableServiceLinks: false
  automountServiceAccountToken: false
  $spec
  containers:
  - name: main
    image: $image
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "$3"]
    volumeMounts:
    - {name: data, mountPath: /data${5:+, $5}}
    - {name: manifest, mountPath: /manifest}
  volumes:
  - name: data
    $2
  - name: manifest
    configMap: {name: manifest}
YAML
}

# succeeds POD [TIMEOUT]: it ends, with exit code 0; its last line is shown
succeeds() {
	k wait --for=jsonpath='{.status.containerStatuses[0].state.terminated}' --timeout="${2:-180s}" "pod/$1" >/dev/null ||
		{ k describe "pod/$1" | tail -n 12 && fail "pod '$1' did not end"; }
	[ "$(k get "pod/$1" -o 'jsonpath={.status.containerStatuses[0].state.terminated.exitCode}')" = 0 ] ||
		{ k logs "$1" | tail -n 20; k describe "pod/$1" | grep -A 6 'State:'; fail "pod '$1' failed"; }
	note "$(k logs "$1" | tail -n 1)"
}

runs() {
	k wait --for=jsonpath='{.status.phase}'=Running --timeout="${2:-120s}" "pod/$1" >/dev/null ||
		{ k describe "pod/$1" | tail -n 12 && fail "pod '$1' does not run"; }
}

# event_says OBJECT PATTERN [TIMEOUT_S]: an event of this pod or claim matches; it is shown
event_says() {
	local until=$((SECONDS + ${3:-90})) text uid
	uid=$(k get pods,pvc -o "jsonpath={.items[?(@.metadata.name==\"$1\")].metadata.uid}")
	while ! text=$(k get events --field-selector "involvedObject.uid=$uid" \
		-o 'jsonpath={range .items[*]}{.reason}: {.message}{"\n"}{end}' | grep -E -m 1 -- "$2"); do
		[ "$SECONDS" -lt "$until" ] || {
			k get events --field-selector "involvedObject.uid=$uid"
			fail "no event of '$1' says '$2'"
		}
		sleep 1 # events have no other way of being waited for by pattern
	done
	note "$(cut -c1-250 <<<"$text")"
}

node_of() { k get pod "$1" -o 'jsonpath={.spec.nodeName}'; }

# part NAME NODE: the pod of keeper, agent or csi there that is not going away; nothing when there is none
part() {
	w get pods -l "app.kubernetes.io/component=$1" --field-selector "spec.nodeName=$2" \
		-o 'go-template={{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}}{{end}}{{end}}'
}

# parts_ready: every pod of the driver is there and ready
parts_ready() {
	local name
	for name in agent csi; do
		w rollout status "daemonset/warpdrive-$name" --timeout=180s >/dev/null || fail "daemonset $name is not ready"
	done
	# OnDelete has no roll-out
	w wait --for=condition=Ready --timeout=180s pod -l app.kubernetes.io/component=keeper >/dev/null ||
		fail "daemonset keeper is not ready"
}

# delete_parts NODE PART...: deletes their pods there at once, and waits for others that are ready
delete_parts() {
	local node=$1 names=() name
	shift
	for name; do names+=("$(part "$name" "$node")"); done
	w delete pod --wait=true --timeout=120s "${names[@]}" >/dev/null || fail "pods ${names[*]} were not deleted"
	for name; do
		until part "$name" "$node" | grep -q .; do
			sleep 0.2 # for the controller to make it
		done
		w wait --for=condition=Ready --timeout=180s "pod/$(part "$name" "$node")" >/dev/null || fail "the next $name is not ready"
	done
}

# watch_start POD CLAIM: a pod that reads and checks without end; watch_end POD: its verdict. Nothing may have been
# wrong, and nothing have taken longer than 10 s.
watch_start() {
	pod "$1" "$(of_claim "$2")" "exec e2e-watch-tree --threads 2 /data /manifest/manifest" 'terminationGracePeriodSeconds: 60'
	runs "$1"
	k wait --for=jsonpath='{.status.phase}'=Running "pod/$1" >/dev/null
	until k logs "$1" --tail=1 | grep -q ': [1-9][0-9]* operations'; do sleep 0.5; done
}

watch_end() {
	local line longest
	k exec "$1" -- sh -c 'kill -TERM 1' || fail "reader '$1' is gone"
	k wait --for=jsonpath='{.status.containerStatuses[0].state.terminated}' --timeout=120s "pod/$1" >/dev/null ||
		fail "reader '$1' does not end"
	line=$(k logs "$1" --tail=1)
	note "$line"
	k logs "$1" | grep -v '^at ' | head -n 20
	grep -q ' errors 0 wrong 0 ' <<<"$line" || fail "reader: $line"
	longest=$(sed -n 's/.*longest_ms \([0-9]*\).*/\1/p' <<<"$line")
	[ "$longest" -le "${2:-10000}" ] || fail "an operation took $longest ms"
}

helm_args=()
[ -z "${WD_E2E_VALUES:-}" ] || helm_args+=(--values "$WD_E2E_VALUES")
need_helm() { command -v helm >/dev/null || skip "no helm on PATH"; }
