# SPDX-License-Identifier: Apache-2.0
"""One node: agent, keeper, driver, a dataset of small files, and the mounts as the kernel lists them."""

import os
import signal
import time

from client import CODE, DEADLINE, DIR, READ_ONLY_MANY, Client, Daemon

KUBELET = f"{DIR}/kubelet"
DATA = f"{DIR}/data"
SOCKET = f"{DIR}/csi.sock"
FILES = {f"file-{i}": (f"content of file {i}\n" * (i + 1)).encode() for i in range(8)}


def wait_for(is_so, what):
    """Waits for what no event tells; generous, since it fails only when it never comes."""
    until = time.monotonic() + DEADLINE
    while not is_so():
        if time.monotonic() > until:
            raise AssertionError(f"in vain: {what}")
        time.sleep(0.01)


def mounts():
    """target -> (mount id, type, options) of what is mounted below the kubelet's directory."""
    found = {}
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        for line in f:
            fields = line.split()
            if fields[4].startswith(KUBELET + "/"):
                found[fields[4]] = (fields[0], fields[fields.index("-") + 1], fields[5].split(","))
    return found


def read_all(target):
    """Every file; raises what the file system says."""
    found = {}
    for name in os.listdir(target):
        with open(f"{target}/{name}", "rb") as f:
            found[name] = f.read()
    return found


class Node:
    def __init__(self):
        os.makedirs(KUBELET, exist_ok=True)
        os.makedirs(DATA, exist_ok=True)
        for name, content in FILES.items():
            with open(f"{DATA}/{name}", "wb") as f:
                f.write(content)
        self.daemons, self.client = {}, None
        for name in ("agent", "keeper", "csi"):
            self.begin(name)

    def begin(self, name):
        arguments = {
            "agent": ["--cache-dir", f"{DIR}/cache", "--set", "http-listen="],
            "keeper": [],
            "csi": ["--endpoint", SOCKET, "--kubelet-dir", KUBELET],
        }
        self.daemons[name] = Daemon(name, *arguments[name])
        if name == "csi":
            self.connect()

    def connect(self):
        if self.client:
            self.client.close()
        self.client = Client(SOCKET)

    def kill(self, name):
        """As the kernel's killer of memory hogs would; and the next one at once."""
        self.daemons[name].end(signal.SIGKILL)
        self.begin(name)

    def servers(self):
        """The FUSE servers' pids."""
        pid = self.daemons["keeper"].pid
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
            return [int(p) for p in f.read().split()]

    def end(self):
        if self.client:
            self.client.close()
        return {name: self.daemons[name].end() for name in ("csi", "keeper", "agent") if name in self.daemons}

    # ---- calls ----

    @staticmethod
    def target(name):
        return f"{KUBELET}/{name}"

    def publish_request(self, name, **changes):
        return {"volume_id": name, "target_path": self.target(name), "volume_capability": READ_ONLY_MANY,
                "readonly": True, "volume_context": {"url": f"file://{DATA}"}, **changes}

    def publish(self, name, **changes):
        return self.client.call("NodePublishVolume", self.publish_request(name, **changes))

    def unpublish_request(self, name):
        return {"volume_id": name, "target_path": self.target(name)}

    def unpublish(self, name):
        return self.client.call("NodeUnpublishVolume", self.unpublish_request(name))

    def is_gone(self, name):
        return self.target(name) not in mounts() and not os.path.lexists(self.target(name))

    def settle(self, method, requests):
        """Starts all of them at once and again those that were aborted, until none is."""
        left = list(requests)
        while left:
            calls = [(r, self.client.start(method, r)) for r in left]
            left = []
            for request, call in calls:
                if call.code() == CODE.ABORTED:
                    left.append(request)
                elif call.code() != CODE.OK:
                    raise AssertionError(f"{method}: {call.code()}: {call.details()}")
