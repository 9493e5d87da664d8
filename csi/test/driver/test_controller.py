# SPDX-License-Identifier: Apache-2.0
"""The controller against a stand-in of the Kubernetes API: which claim it asks for, and what it makes of it."""

import http.server
import json
import os
import ssl
import subprocess
import threading
import time
import unittest

from client import CODE, DEADLINE, DIR, READ_ONLY_MANY, READ_WRITE_MANY, Client, Daemon

UID = "01234567-89ab-cdef-0123-456789abcdef"
TOKEN = "canary-token-"


class Api(http.server.ThreadingHTTPServer):
    """Serves claims over TLS; `trouble` makes it misbehave."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.claims, self.token, self.trouble, self.asked = {}, "", None, []
        self.go_on = threading.Event()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{DIR}/api.crt", f"{DIR}/api.key")
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # a caller that went away is what some tests do


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802: the library's name
        api = self.server
        api.asked.append(self.path)
        if api.trouble == "hang":
            api.go_on.wait(DEADLINE)
            return
        claim = api.claims.get(self.path)
        if self.headers.get("Authorization") != "Bearer " + api.token:
            return self.answer(401, b"{}")
        if isinstance(api.trouble, int):
            return self.answer(api.trouble, b'{"kind":"Status"}')
        if isinstance(api.trouble, bytes):
            return self.answer(200, api.trouble)
        return self.answer(200 if claim else 404, json.dumps(claim or {"kind": "Status"}).encode())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class ControllerTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
             "2", "-subj", "/CN=api", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{DIR}/api.key",
             "-out", f"{DIR}/api.crt"], check=True, capture_output=True)
        cls.api = Api()
        cls.api_url = f"https://127.0.0.1:{cls.api.server_port}"
        cls.daemons = []
        cls.driver = cls.start_driver("a")

    @classmethod
    def start_driver(cls, name, *options):
        cls.daemons.append(Daemon(
            "csi", "--service", "controller", "--endpoint", f"{DIR}/{name}.sock", "--kube-api", cls.api_url,
            "--kube-token", f"{DIR}/token", "--kube-ca", f"{DIR}/api.crt", *options, log=f"{DIR}/run/csi-{name}.log"))
        return Client(f"{DIR}/{name}.sock")

    @classmethod
    def tearDownClass(cls):
        cls.api.go_on.set()
        cls.driver.close()
        codes = [d.end() for d in cls.daemons]
        cls.api.shutdown()
        cls.api.server_close()
        assert codes == [0] * len(codes), codes
        for d in cls.daemons:
            assert TOKEN not in d.read_log(), "a token is in the log"

    def setUp(self):
        self.api.trouble, self.api.claims, self.api.asked = None, {}, []
        self.set_token("1")

    def set_token(self, text):
        self.api.token = TOKEN + text
        with open(f"{DIR}/token.new", "w", encoding="ascii") as f:
            f.write(self.api.token + "\n")
        os.rename(f"{DIR}/token.new", f"{DIR}/token")

    def make_claim(self, annotations=None, uid=UID):
        self.api.claims["/api/v1/namespaces/team/persistentvolumeclaims/data"] = {
            "metadata": {"name": "data", "namespace": "team", "uid": uid, "annotations": annotations or {}}}

    def request(self, name, parameters, capability=None, with_claim=True):
        of_claim = {"csi.storage.k8s.io/pvc/name": "data", "csi.storage.k8s.io/pvc/namespace": "team",
                    "csi.storage.k8s.io/pv/name": name}
        return {"name": name, "volume_capabilities": [capability or READ_ONLY_MANY],
                "parameters": {**parameters, **(of_claim if with_claim else {})}}

    def create(self, *arguments, **keywords):
        return self.driver.call("CreateVolume", self.request(*arguments, **keywords)).volume

    def refuse(self, *arguments, **keywords):
        return self.driver.code("CreateVolume", self.request(*arguments, **keywords))

    def test_claim_chooses_its_dataset(self):
        self.make_claim({"warpdrive.io/dataset": "s3://public/imagenet", "other/key": "x"})
        volume = self.create("v-choose", {"allowedUrls": "s3://public/*", "region": "eu"}, READ_WRITE_MANY)
        self.assertEqual(dict(volume.volume_context), {"url": "s3://public/imagenet", "region": "eu"})
        self.assertTrue(volume.volume_id.startswith("wd-d-"))
        self.assertEqual(self.api.asked, ["/api/v1/namespaces/team/persistentvolumeclaims/data"])
        code, text = self.refuse("v-choose-2", {"allowedUrls": "s3://private/*"})
        self.assertEqual(code, CODE.PERMISSION_DENIED)
        self.assertIn("warpdrive.io/dataset", text)
        code, text = self.refuse("v-choose-3", {"url": "s3://public"})
        self.assertEqual(code, CODE.INVALID_ARGUMENT)
        self.assertIn("allowedUrls", text)

    def test_class_picks_a_directory_per_claim(self):
        self.make_claim({"team/name": "vision"})
        pattern = "${pvc.namespace}/${pvc.annotations['team/name']}/${pvc.name}"
        volume = self.create("v-pattern", {"url": "s3://b/", "pathPattern": pattern})
        self.assertEqual(dict(volume.volume_context), {"url": "s3://b/team/vision/data"})

    def test_scratch_has_its_own_prefix_and_says_that_it_cannot_be_written(self):
        self.make_claim()
        scratch = {"url": "s3://b/tmp", "mode": "scratch"}
        volume = self.create("pvc-" + UID, scratch)
        self.assertEqual(volume.volume_context["url"], f"s3://b/tmp/team-data-{UID}")
        self.assertTrue(volume.volume_id.startswith("wd-s-"))
        code, text = self.refuse("v-scratch-2", scratch, READ_WRITE_MANY)
        self.assertEqual(code, CODE.INVALID_ARGUMENT)
        self.assertIn("cannot write", text)
        answer = self.driver.call("ValidateVolumeCapabilities", {
            "volume_id": volume.volume_id, "volume_capabilities": [READ_WRITE_MANY]})
        self.assertIn("cannot write", answer.message)
        code, text = self.refuse("v-scratch-3", {**scratch, "reclaim": "delete"})
        self.assertEqual(code, CODE.INVALID_ARGUMENT)
        self.assertIn("reclaim 'delete'", text)

    def test_two_replicas_agree(self):
        self.make_claim({"warpdrive.io/path": "x"})
        request = self.request("v-two", {"url": "s3://b", "allowedUrls": "s3://b/*"})
        first = self.driver.call("CreateVolume", request).volume
        other = self.start_driver("b")
        self.assertEqual(first, other.call("CreateVolume", request).volume)
        self.assertEqual(first.volume_id, other.call("ControllerGetVolume", {"volume_id": first.volume_id}).volume.volume_id)
        for context, is_it in ((dict(first.volume_context), True), ({"url": "s3://b/y"}, False)):
            answer = other.call("ValidateVolumeCapabilities", {
                "volume_id": first.volume_id, "volume_context": context, "volume_capabilities": [READ_ONLY_MANY]})
            self.assertEqual(answer.HasField("confirmed"), is_it, answer.message)
        other.call("DeleteVolume", {"volume_id": first.volume_id})
        other.close()

    def test_one_name_is_one_volume(self):
        plain = {"with_claim": False}
        first = self.create("v-name", {"url": "s3://b/1"}, **plain)
        self.assertEqual(first, self.create("v-name", {"url": "s3://b/1"}, **plain))
        self.assertEqual(self.refuse("v-name", {"url": "s3://b/2"}, **plain)[0], CODE.ALREADY_EXISTS)
        self.driver.call("DeleteVolume", {"volume_id": first.volume_id})
        second = self.create("v-name", {"url": "s3://b/2"}, **plain)
        self.assertNotEqual(first.volume_id, second.volume_id)
        self.assertEqual(self.api.asked, [])

    def test_volumes_that_never_were(self):
        for method in ("ControllerGetVolume", "ValidateVolumeCapabilities"):
            fields = {"volume_capabilities": [READ_ONLY_MANY]} if method[0] == "V" else {}
            self.assertEqual(self.driver.code(method, {"volume_id": "pvc-1", **fields})[0], CODE.NOT_FOUND)
            self.assertEqual(self.driver.code(method, fields)[0], CODE.INVALID_ARGUMENT)
        self.driver.call("DeleteVolume", {"volume_id": "pvc-1"})

    def test_token_is_read_anew(self):
        self.make_claim()
        self.create("v-token-1", {"url": "s3://b"})
        self.set_token("2")
        self.create("v-token-2", {"url": "s3://b"})
        os.unlink(f"{DIR}/token")
        code, text = self.refuse("v-token-3", {"url": "s3://b"})
        self.assertEqual(code, CODE.UNAVAILABLE)
        self.assertIn(f"{DIR}/token", text)

    def test_what_the_api_server_says_is_told(self):
        self.make_claim()
        rows = [(401, CODE.UNAUTHENTICATED, "401"), (403, CODE.PERMISSION_DENIED, "persistentvolumeclaims"),
                (500, CODE.UNAVAILABLE, "500"), (404, CODE.NOT_FOUND, "team/data"), (302, CODE.UNAVAILABLE, "302"),
                (b"[]", CODE.UNAVAILABLE, "makes no sense"), (b"", CODE.UNAVAILABLE, "makes no sense"),
                (b'{"metadata":{"name":"other","uid":"1"}}', CODE.UNAVAILABLE, "makes no sense"),
                (b'{"metadata":{"name":"data","uid":"1","annotations":{"a":1}}}', CODE.UNAVAILABLE, "no sense"),
                (b"x" * (4 << 20), CODE.UNAVAILABLE, "team/data")]
        for trouble, code, says in rows:
            self.api.trouble = trouble
            got = self.refuse("v-trouble", {"url": "s3://b"})
            self.assertEqual(got[0], code, got)
            self.assertIn(says, got[1])

    def test_large_claim_is_read_whole(self):
        self.make_claim({"large": "x" * 1000000, "warpdrive.io/path": "y"})
        volume = self.create("v-large", {"url": "s3://b", "allowedUrls": "s3://b/*"})
        self.assertEqual(volume.volume_context["url"], "s3://b/y")

    def test_claim_that_was_made_anew_is_another_one(self):
        self.make_claim(uid="f" + UID[1:])
        self.assertEqual(self.refuse("pvc-" + UID, {"url": "s3://b"})[0], CODE.ABORTED)

    def test_names_of_claims_stay_in_their_place(self):
        for name in ("..", "../secrets/x", "a/b", "A", "%2e", "x" * 254, ""):
            request = self.request("v-names", {"url": "s3://b"})
            request["parameters"]["csi.storage.k8s.io/pvc/name"] = name
            self.assertEqual(self.driver.code("CreateVolume", request)[0], CODE.INVALID_ARGUMENT, name)
        self.assertEqual(self.api.asked, [])

    def test_api_server_that_hangs_holds_nobody(self):
        self.make_claim()
        self.api.trouble = "hang"
        request = self.request("v-hang", {"url": "s3://b"})
        self.assertEqual(self.driver.code("CreateVolume", request, timeout=2)[0], CODE.UNAVAILABLE)
        # as many as there are workers, and their callers go
        calls = [self.driver.start("CreateVolume", request) for _ in range(32)]
        until = time.monotonic() + DEADLINE
        while len(self.api.asked) < 33 and time.monotonic() < until:
            time.sleep(0.01)
        for call in calls:
            call.cancel()
        self.api.trouble = None
        self.create("v-hang", {"url": "s3://b"})

    def test_stranger_is_not_believed(self):
        self.make_claim()
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-subj", "/CN=other", "-keyout", os.devnull, "-out", f"{DIR}/other.crt"], check=True, capture_output=True)
        other = self.start_driver("c", "--kube-ca", f"{DIR}/other.crt")
        code, text = other.code("CreateVolume", self.request("v-tls", {"url": "s3://b"}))
        self.assertEqual(code, CODE.UNAVAILABLE)
        self.assertIn("certificate", text)
        self.assertEqual(self.api.asked, [])
        other.close()


if __name__ == "__main__":
    unittest.main()
