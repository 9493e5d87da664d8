# SPDX-License-Identifier: Apache-2.0
"""Secrets and tokens stay in memory: planted ones are looked for wherever they could get out, with logs at debug."""

import json
import os
import resource
import signal
import subprocess
import tarfile
import unittest
import urllib.request

from client import BIN, CODE, DIR, Daemon
from node import Node, mounts, read_all
from origin import Origin

TOKENS = "csi.storage.k8s.io/serviceAccount.tokens"
MARK = "CANARY"
METRICS = "127.0.0.1:29942"
DEBUG = {"WARPDRIVE_LOG": "debug"}


class CanaryNode(Node):
    sts = ""

    def begin(self, name):
        if name != "agent":
            return super().begin(name)
        settings = [f"http-listen={METRICS}", f"sts-endpoint={self.sts}", "request-deadline=5s",
                    f"access-log={DIR}/access.jsonl"]
        arguments = [a for s in settings for a in ("--set", s)]
        self.daemons[name] = Daemon("agent", "--cache-dir", f"{DIR}/cache", *arguments)


def ctl(*arguments):
    run = subprocess.run([f"{BIN}/warpdrive-ctl", *arguments, "--run-dir", f"{DIR}/run"], capture_output=True,
                         text=True, check=False)
    return run.stdout + run.stderr


def files_below(*roots):
    for root in roots:
        for where, _, names in os.walk(root):
            for name in names:
                path = f"{where}/{name}"
                if os.path.isfile(path) and not os.path.islink(path):
                    with open(path, "rb") as f:
                        yield path, f.read()


class CanaryTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        os.environ.update(DEBUG)
        cls.origin = Origin({f"d/{i}": b"x" * 1000 for i in range(3)})
        CanaryNode.sts = cls.origin.endpoint
        # a core of whatever may leave one
        cls.limit = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (cls.limit[1], cls.limit[1]))
        cls.node = CanaryNode()

    @classmethod
    def tearDownClass(cls):
        for name in DEBUG:
            del os.environ[name]
        resource.setrlimit(resource.RLIMIT_CORE, cls.limit)
        cls.node.end()
        cls.origin.stop()
        assert not mounts(), mounts()

    def request(self, name, secrets=None, **context):
        words = {"url": "s3://bucket/d", "endpoint": self.origin.endpoint, "pathStyle": "true", **context}
        return self.node.publish_request(name, volume_context=words, secrets=secrets or {})

    def keys(self, n):
        return {"accessKeyId": f"AK{n}", "secretAccessKey": f"{MARK}-secret-{n}", "sessionToken": f"{MARK}-session-{n}"}

    def tokens(self, n):
        return {"authenticationSource": "pod", "roleArn": "arn:aws:iam::1:role/r", TOKENS: json.dumps(
            {"sts.amazonaws.com": {"token": f"{MARK}-token-{n}", "expirationTimestamp": "2036-01-01T00:00:00Z"}})}

    def plant(self):
        """Secrets on every way that they can take, right ones and wrong ones."""
        call, code = self.node.client.call, self.node.client.code
        o = self.origin
        o.tokens = {f"{MARK}-token-{n}": (f"POD{n}", f"{MARK}-sts-{n}", f"{MARK}-session-{n}") for n in (1, 2)}
        o.once = [(503, MARK.lower().encode())]  # tried again, which a debug line tells
        for n in (1, 2):
            call("NodePublishVolume", self.request("keys", self.keys(n)))
            call("NodePublishVolume", self.request("pod", **self.tokens(n)))
            for name in ("keys", "pod"):
                self.assertEqual(len(read_all(self.node.target(name))), 3)
        self.assertLessEqual({f"{MARK}-session-{n}" for n in (1, 2)}, o.sessions)
        refusals = [
            self.request("bad", {"secretKey": f"{MARK}-unknown"}),
            self.request("bad", {"accessKeyId": "AK", "secretAccessKey": f"{MARK} blank"}),
            self.request("bad", **{**self.tokens(9), "audience": "another"}),
            self.request("bad", **{**self.tokens(9), TOKENS: f"{{{MARK}"}),
            self.request("bad", **self.tokens(9)),
            self.request("bad", self.keys(3), url=f"http://user:{MARK}-password@127.0.0.1:1/x?y", endpoint=""),
            self.request("bad", self.keys(3), endpoint=f"http://user:{MARK}-password@127.0.0.1:{o.port}"),
            self.request("bad", self.keys(3), nonsense=f"{MARK}-of-context"),
        ]
        o.keys = {"POD2", "AK2"}
        refusals.append(self.request("bad", self.keys(4)))
        for request in refusals:
            result, text = code("NodePublishVolume", request)
            self.assertNotEqual(result, CODE.OK, request)
            self.assertNotIn(MARK, text, request)
        call("NodePublishVolume", self.request("keys", self.keys(4)))  # not taken over
        call("NodePublishVolume", self.request("pod", **self.tokens(9)))
        for name in ("keys", "pod"):
            stats = call("NodeGetVolumeStats", {"volume_id": name, "volume_path": self.node.target(name)})
            self.assertTrue(stats.volume_condition.abnormal)
            self.assertNotIn(MARK, str(stats))

    def shown(self):
        """(where, what) of all that the programs show."""
        pids = {f"{n}": d.pid for n, d in self.node.daemons.items()}
        pids.update({f"server {p}": p for p in self.node.servers()})
        self.assertGreaterEqual(len(pids), 5)
        for name, pid in pids.items():
            for file in ("cmdline", "environ", "status", "mountinfo", "maps"):
                with open(f"/proc/{pid}/{file}", "rb") as f:
                    yield f"{name}: {file}", f.read()
        with urllib.request.urlopen(f"http://{METRICS}/metrics", timeout=30) as metrics:
            yield "metrics", metrics.read()
        with urllib.request.urlopen(f"http://{METRICS}/", timeout=30) as page:
            yield "page", page.read()
        with open(f"{DIR}/access.jsonl", "rb") as log:
            yield "access log", log.read()
        for command in (["status"], ["status", "-o", "json"], ["doctor"], ["doctor", "--bundle", f"{DIR}/bundle.tar"]):
            yield " ".join(command), ctl(*command).encode()
        with tarfile.open(f"{DIR}/bundle.tar") as bundle:
            for member in bundle.getmembers():
                content = bundle.extractfile(member)
                yield f"bundle: {member.name}", content.read() if content else b""
        yield from files_below(f"{DIR}/run", f"{DIR}/cache")

    def test_planted_secrets_are_found_nowhere(self):
        for name in ("keys", "pod"):
            self.addCleanup(self.node.unpublish, name)
        self.plant()
        sizes = {}
        for where, what in self.shown():
            sizes[where] = len(what)
            if MARK.encode() in what:
                at = what.index(MARK.encode())
                self.fail(f"{where}: ...{what[max(0, at - 200):at + 40]!r}")
        logs = [w for w in sizes if w.startswith(DIR) and w.endswith(".log")]
        self.assertEqual(len(logs), 3, logs)
        with open(f"{DIR}/run/agent.log", encoding="utf-8", errors="replace") as log:
            self.assertIn('"level":"debug"', log.read())
        self.abort_all()

    def aborted(self, pid):
        os.kill(pid, signal.SIGABRT)
        return os.WCOREDUMP(os.waitpid(pid, 0)[1])

    def abort_all(self):
        """None leaves a core, where a program that does not care for it leaves one."""
        careless = subprocess.Popen(["sleep", "1000"], cwd=DIR)
        if not self.aborted(careless.pid):
            print("# no cores here: whether the daemons leave any was not tried")
        for name in ("csi", "agent", "keeper"):
            self.assertFalse(self.aborted(self.node.daemons[name].pid), f"{name} left a core")
            self.node.begin(name)
        for path in os.listdir(DIR):
            if path.startswith("core"):
                os.unlink(f"{DIR}/{path}")


if __name__ == "__main__":
    unittest.main()
