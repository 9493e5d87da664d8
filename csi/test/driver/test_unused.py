# SPDX-License-Identifier: Apache-2.0
"""--check-unused against a stand-in of the Kubernetes API, which answers by pages."""

import http.server
import json
import subprocess
import threading
import unittest
import urllib.parse

from client import BIN, DIR

DRIVER = "csi.warpdrive.io"


def volume(claim, driver=DRIVER):
    return {"spec": {"csi": {"driver": driver}, "claimRef": {"namespace": "ns", "name": claim} if claim else None}}


def pod(name, *volumes, node="node1"):
    return {"metadata": {"namespace": "ns", "name": name}, "spec": {"nodeName": node, "volumes": list(volumes)}}


def claim_volume(claim):
    return {"name": "v", "persistentVolumeClaim": {"claimName": claim}}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802: the library's name
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        api = self.server
        api.asked.append(self.path)
        items = {"/api/v1/persistentvolumes": api.volumes, "/api/v1/pods": api.pods}[url.path]
        start = int(query.get("continue", ["0"])[0])
        page = items[start:start + 2] if isinstance(items, list) else items  # as small as a server may make them
        more = str(start + 2) if start + 2 < len(items) else ""
        body = json.dumps({"metadata": {"continue": more}, "items": page}).encode()
        self.send_response(api.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class UnusedTest(unittest.TestCase):
    def setUp(self):
        self.api = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.api.asked, self.api.status = [], 200
        self.api.volumes = [volume("other", "csi.example.org"), volume(None), volume("a"), volume("b"),
                            volume("eph-scratch")]
        self.api.pods = [pod("none", {"name": "v", "emptyDir": {}}), pod("other", claim_volume("other")),
                         pod("waiting", claim_volume("a"), node=None)]
        threading.Thread(target=self.api.serve_forever, daemon=True).start()
        with open(f"{DIR}/unused-token", "w", encoding="utf-8") as f:
            f.write("canary")

    def tearDown(self):
        self.api.shutdown()
        self.api.server_close()

    def check(self):
        done = subprocess.run(
            [f"{BIN}/warpdrive-csi", "--check-unused", "--kube-api", f"http://127.0.0.1:{self.api.server_port}",
             "--kube-token", f"{DIR}/unused-token"], capture_output=True, text=True, timeout=120, check=False)
        self.assertNotIn("canary", done.stdout + done.stderr)
        return done.returncode, done.stdout + done.stderr

    def test_unused(self):
        self.assertEqual(self.check(), (0, f"no pod has a volume of {DRIVER}\n"))
        self.assertIn("status.phase!%3DSucceeded%2Cstatus.phase!%3DFailed", self.api.asked[-1])

    def test_every_kind_of_use_is_listed(self):
        self.api.pods += [
            pod("claim", claim_volume("b")),
            pod("eph", {"name": "scratch", "ephemeral": {}}),
            pod("inline", {"name": "data", "csi": {"driver": DRIVER}}, {"name": "x", "csi": {"driver": "csi.example"}}),
        ]
        code, text = self.check()
        self.assertEqual(code, 1)
        self.assertIn("pod ns/claim on node node1: volume v (claim b)\n", text)
        self.assertIn("pod ns/eph on node node1: volume scratch (claim eph-scratch)\n", text)
        self.assertIn("pod ns/inline on node node1: volume data (inline)\n", text)
        self.assertIn(f"3 volumes of {DRIVER} are in use", text)
        self.assertEqual(text.count("pod ns/"), 3)

    def test_what_cannot_be_told_is_not_unused(self):
        self.api.status = 403
        code, text = self.check()
        self.assertEqual(code, 1)
        self.assertIn("'list' on persistentvolumes", text)
        self.api.status = 200
        self.api.pods = {}
        code, text = self.check()
        self.assertEqual(code, 1)
        self.assertIn("answer makes no sense", text)


if __name__ == "__main__":
    unittest.main()
