# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What end-to-end cases, the demo and the benchmarks share; source it first. Needs E2E_BIN (the programs) and
# E2E_ROOT (this directory). E2E_DIR is the private directory; where nobody gave one, one is made and removed.
# Everything that is started here is ended when the script ends, in reverse order.
set -euo pipefail

own_dir=''
if [ -z "${E2E_DIR:-}" ]; then
	E2E_DIR=$(mktemp -d -p "${TMPDIR:-/var/tmp}" warpdrive-XXXXXX)
	own_dir=1
fi
export E2E_DIR E2E_BIN E2E_ROOT

export WARPDRIVE_RUN_DIR=$E2E_DIR/run WARPDRIVE_CACHE_DIR=$E2E_DIR/cache
unset KUBERNETES_SERVICE_HOST # where CI runs in a pod: no node of it is meant here
ctl=$E2E_BIN/warpdrive-ctl
# what a private agent is told; cases add to it before their first mount
agent_options=(--set http-listen=)
keeper_options=()
started=() # pids, in order
mounted=() # mountpoints, in order
private=() # pids of daemons that a mount started

fail() {
	echo "FAIL: $*"
	exit 1
}

skip() {
	echo "$*"
	exit 77
}

# A line that e2e/run shows even when the case passes: measured figures.
note() {
	echo "# $*"
}

[ -c /dev/fuse ] || skip "no /dev/fuse"

# Without touching it: a stat would wait for a server or an agent that is gone.
is_mounted() {
	awk -v d="$1" '{ gsub(/\\040/, " ", $5) } $5 == d { found = 1 } END { exit !found }' /proc/self/mountinfo
}

# ---- ending ----

# Waits until a process that is not our child is gone.
wait_gone() {
	timeout 90 tail -s 0.05 --pid="$1" -f /dev/null || fail "process $1 did not end"
}

finish() {
	local status=$? i dir
	trap - EXIT
	set +e
	for ((i = ${#mounted[@]} - 1; i >= 0; i--)); do
		dir=${mounted[i]}
		is_mounted "$dir" && { "$ctl" umount "$dir" || "$ctl" umount --force "$dir" || umount -l "$dir"; }
	done
	for ((i = ${#started[@]} - 1; i >= 0; i--)); do
		kill "${started[i]}" 2>/dev/null
		timeout 20 tail -s 0.05 --pid="${started[i]}" -f /dev/null || kill -9 "${started[i]}"
	done
	# private daemons end by themselves after their last mount; the agent syncs the file system first, which
	# takes as long as the disk is busy
	for i in "${private[@]}"; do
		timeout 90 tail -s 0.05 --pid="$i" -f /dev/null && continue
		echo "still running: $(tr '\0' ' ' <"/proc/$i/cmdline"), in $(cat "/proc/$i/wchan")"
		status=1
	done
	[ -z "$own_dir" ] || rm -rf --one-file-system "$E2E_DIR"
	exit "$status"
}
trap finish EXIT
trap 'exit 1' INT TERM

# ---- daemons and mounts ----

# status EXPRESSION: a Python expression over the status object `s`
status() {
	"$ctl" status -o json | python3 -c "import json,sys; s = json.load(sys.stdin); print($1)"
}

# agent, keeper and, where there is one, the supervisor
daemon_pids() {
	supervisor_pid || true
	"$ctl" status -o json 2>/dev/null | python3 -c '
import json, sys
s = json.load(sys.stdin)
print(*[d["pid"] for d in (s["agent"], s["keeper"]) if d])' 2>/dev/null || true
}

# The private supervisor of this case.
supervisor_pid() { pgrep -f -- "^warpdrive-ctl supervise --run-dir $E2E_DIR/run "; }
agent_pid() { status 's["agent"]["pid"]'; }
keeper_pid() { status 's["keeper"]["pid"]'; }
server_pid() { status "[m['server_pid'] for m in s['mounts'] if m['target'] == '$1'][0]"; }

# mount_at DIR URL [OPTION...]: mounts, starting private daemons the first time
mount_at() {
	local dir=$1 url=$2 options=()
	shift 2
	mkdir -p "$dir"
	[ -S "$E2E_DIR/run/agent.sock" ] || options=("${agent_options[@]}" "${keeper_options[@]}")
	"$ctl" mount "$url" "$dir" "${options[@]}" "$@" || fail "mount $url on $dir"
	mounted+=("$dir")
	# shellcheck disable=SC2207
	[ ${#options[@]} -eq 0 ] || private+=($(daemon_pids))
}

umount_at() {
	"$ctl" umount "$1" || fail "umount $1"
	is_mounted "$1" && fail "$1 is still mounted"
	return 0
}

# start_daemon NAME ARGUMENT...: one that is not private, and stays until it is told; its pid is in $pid
start_daemon() {
	local name=$1 fifo=$E2E_DIR/ready.$RANDOM
	shift
	mkdir -p "$E2E_DIR/run"
	mkfifo "$fifo"
	"$E2E_BIN/$name" --run-dir "$E2E_DIR/run" "$@" --ready-fd 9 9>"$fifo" >>"$E2E_DIR/run/$name.log" 2>&1 &
	pid=$!
	[ "$(head -c 1 "$fifo" | wc -c)" = 1 ] || fail "$name did not start: $(tail -n 1 "$E2E_DIR/run/$name.log")"
	rm -f "$fifo"
	started+=("$pid")
}

start_agent() {
	start_daemon warpdrive-agent --cache-dir "$E2E_DIR/cache" "${agent_options[@]}"
}

start_keeper() {
	start_daemon warpdrive-keeper "${keeper_options[@]}"
}

# kib PID FIELD: a figure of /proc/PID/status in KiB
kib() {
	awk -v f="$2:" '$1 == f { print $2 }' "/proc/$1/status"
}

# ---- data ----

# How large the trees are: 20,000 files, but under a sanitizer, where each costs ten times as much.
# shellcheck disable=SC2034 # for the cases
tree_files=20000 tree_options=()
if grep -q __asan_init "$E2E_BIN/warpdrive-agent"; then
	# shellcheck disable=SC2034
	tree_files=2500 tree_options=(--files 2500 --many 1500 --big 200000000)
fi

# make_tree DIR [OPTION...]: writes DIR, and manifest and index beside it
make_tree() {
	local dir=$1
	shift
	"$E2E_BIN/e2e-make-tree" --out "$dir" --manifest "$dir.manifest" --index "$dir.index" \
		"${tree_options[@]}" "$@" >/dev/null
}

check_tree() {
	"$E2E_BIN/e2e-check-tree" "$@"
}

# random_file PATH BYTES: bytes that do not compress and differ from file to file
random_file() {
	head -c "$2" /dev/zero | openssl enc -aes-128-ctr -pass "pass:$1$RANDOM" -nosalt -pbkdf2 -iter 1 >"$1"
}

# ---- origins ----

# A port that nobody listens on, below those that the kernel gives to outgoing connections.
free_port() {
	python3 -c '
import random, socket
while True:
    with socket.socket() as s:
        try:
            port = random.randrange(11000, 32000)
            s.bind(("127.0.0.1", port))
        except OSError:
            continue
    print(port)
    break'
}

# start_nginx ROOT [EXTRA SERVER CONFIGURATION]: sets $http_url and $http_log
start_nginx() {
	local root=$1 extra=${2:-} dir port
	dir=$(mktemp -d -p "$E2E_DIR" nginx-XXXXXX)
	port=$(free_port)
	http_url=http://127.0.0.1:$port
	http_log=$dir/access.txt
	nginx_dir=$dir
	mkdir "$dir/tmp"
	if [ -n "$root" ]; then
		extra="root $root; index no-index-file; location / { autoindex on; autoindex_format json; } $extra"
	fi
	cat >"$dir/nginx.conf" <<CONF
worker_processes 2; worker_rlimit_nofile 20000; pid $dir/pid; error_log $dir/error.txt; daemon on; user root;
events { worker_connections 4096; }
http {
	log_format plain '\$request_method \$status \$body_bytes_sent \$request_uri';
	access_log $http_log plain;
	sendfile on; tcp_nodelay on; keepalive_requests 1000000; default_type application/octet-stream;
	client_body_temp_path $dir/tmp/b; proxy_temp_path $dir/tmp/p; fastcgi_temp_path $dir/tmp/f;
	uwsgi_temp_path $dir/tmp/u; scgi_temp_path $dir/tmp/s; client_max_body_size 0;
	server {
		listen 127.0.0.1:$port; merge_slashes off;
		$extra
	}
}
CONF
	nginx -p "$dir" -c "$dir/nginx.conf" -e "$dir/error.txt" || fail "nginx did not start"
	nginx_pid=$(cat "$dir/pid")
	started+=("$nginx_pid")
}

# stop_nginx, restart_nginx: the one that was started last; meanwhile its port refuses
stop_nginx() {
	kill "$nginx_pid"
	wait_gone "$nginx_pid"
}
restart_nginx() {
	nginx -p "$nginx_dir" -c "$nginx_dir/nginx.conf" -e "$nginx_dir/error.txt" || fail "nginx did not start again"
	nginx_pid=$(cat "$nginx_dir/pid")
	started+=("$nginx_pid")
}

# start_toxic ROOT: a server that misbehaves when it is told (tools/toxic_origin.c); sets $http_url
start_toxic() {
	local ready=$E2E_DIR/toxic.$RANDOM
	"$E2E_BIN/e2e-toxic-origin" --root "$1" --ready "$ready" --seed "${2:-1}" &
	started+=($!)
	timeout 60 sh -c "until [ -s '$ready' ]; do sleep 0.05; done" || fail "the toxic origin did not start"
	http_url=http://127.0.0.1:$(cat "$ready")
}

# toxic KEY=VALUE: tells it; prints what it has injected so far
toxic() {
	python3 -c '
import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
sys.stdout.write(opener.open(sys.argv[1], timeout=60).read().decode())' "$http_url/.toxic?${1:-}" || fail "toxic $*"
}

# serve_metrics: before the first mount; the private agent then shows its metrics to `metric`
serve_metrics() {
	metrics_port=$(free_port)
	agent_options+=(--set "http-listen=127.0.0.1:$metrics_port")
}

# metric SERIES: its value; nothing when there is none
metric() {
	python3 -c '
import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
for line in opener.open("http://127.0.0.1:" + sys.argv[1] + "/metrics", timeout=60).read().decode().splitlines():
    if line.startswith(sys.argv[2] + " "):
        print(int(float(line.split()[-1])))' "$metrics_port" "$1"
}

# agent_log TEXT...: how many lines of the agent's log have all of the texts in them
agent_log() {
	local lines
	lines=$(cat "$E2E_DIR/run/"*agent*.log)
	for text in "$@"; do lines=$(grep -F -- "$text" <<<"$lines" || true); done
	grep -c . <<<"$lines" || true
}

# The number of requests, and the bytes of object data, in an nginx log so far. Index files do not count.
log_requests() { grep -vc '/index\.jsonl$' "$1" || true; }
log_bytes() {
	awk '$1 == "GET" && ($2 == 200 || $2 == 206) && $4 !~ /\/index\.jsonl$/ { n += $3 } END { printf "%d\n", n }' "$1"
}

# start_s3: a Ceph gateway behind an nginx that counts; sets $s3_endpoint, $s3_log, exports the keys
start_s3() {
	command -v radosgw >/dev/null || skip "no radosgw"
	local port mon_port
	port=$(free_port) mon_port=$(free_port)
	"$E2E_ROOT/tools/ceph_origin" start "$E2E_DIR/ceph" "$port" "$mon_port" || fail "ceph did not start"
	# shellcheck disable=SC2207
	started+=($(cat "$E2E_DIR/ceph/run/mon.pid" "$E2E_DIR/ceph/run/osd.pid" "$E2E_DIR/ceph/run/rgw.pid"))
	start_nginx '' "location / { proxy_pass http://127.0.0.1:$port; proxy_set_header Host \$http_host;
		proxy_http_version 1.1; proxy_set_header Connection ''; proxy_request_buffering off;
		proxy_buffering off; }"
	s3_endpoint=$http_url
	# shellcheck disable=SC2034 # for the cases
	s3_log=$http_log
	export AWS_ACCESS_KEY_ID=AKTEST AWS_SECRET_ACCESS_KEY=SKTEST
	s3 make-bucket bucket
}

# s3 COMMAND ...: see tools/s3_client
s3() {
	python3 "$E2E_ROOT/tools/s3_client" --endpoint "$s3_endpoint" "$@" || fail "s3 $*"
}
