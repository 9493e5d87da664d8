# SPDX-License-Identifier: Apache-2.0
"""Requests that mean harm: refused with the field's name, and nothing is created."""

import os
import random
import unittest

from client import CODE, DIR, METHODS, READ_ONLY_MANY, encode
from node import DATA, KUBELET, Node, mounts

CANARY = "canary-secret"
LONG = "x" * 10000
# a text of this length is replaced on the wire by bytes that a client's library would not send
PLACEHOLDER = "PLACEHOLDER"
RAW = [b"a\0bcdefghij", b"\0bcdefghijk", b"abcdefghi\xff\xfe", b"abcdefgh\xed\xa0\x80", b"abcdefghi\xc0\xaf"]


def tree():
    return sorted(os.path.join(d, n) for d, ds, fs in os.walk(KUBELET) for n in ds + fs)


class HostileTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node()
        os.makedirs(f"{KUBELET}/pods", exist_ok=True)
        os.makedirs(f"{DIR}/elsewhere", exist_ok=True)
        os.symlink(f"{DIR}/elsewhere", f"{KUBELET}/link")
        os.symlink(f"{DIR}/elsewhere/none", f"{KUBELET}/dangling")
        with open(f"{KUBELET}/file", "w", encoding="ascii"):
            pass

    @classmethod
    def tearDownClass(cls):
        log = cls.node.daemons["csi"].read_log()
        codes = cls.node.end()
        assert set(codes.values()) == {0}, codes
        assert CANARY not in log, "a secret is in the log"

    def setUp(self):
        self.before = tree()

    def tearDown(self):
        self.assertEqual(tree(), self.before)
        self.assertEqual(os.listdir(f"{DIR}/elsewhere"), [])
        self.assertEqual(mounts(), {})

    def good(self):
        """Of each method that takes anything a request that is served, but for what is published."""
        create = {"name": "good", "volume_capabilities": [READ_ONLY_MANY], "parameters": {"url": f"file://{DATA}"}}
        return {
            "CreateVolume": create,
            "DeleteVolume": {"volume_id": "good"},
            "ValidateVolumeCapabilities": {"volume_id": "good", "volume_capabilities": [READ_ONLY_MANY]},
            "ControllerGetVolume": {"volume_id": "good"},
            "NodePublishVolume": self.node.publish_request("pods/good", volume_id="good", secrets={"accessKeyId": CANARY}),
            "NodeUnpublishVolume": {"volume_id": "good", "target_path": self.node.target("pods/good")},
            "NodeGetVolumeStats": {"volume_id": "good", "volume_path": self.node.target("pods/good")},
        }

    def refuse(self, method, fields, names, raw=None):
        code, text = self.node.client.code(method, fields, raw=raw)
        with self.subTest(method=method, fields=str(fields)[:300]):
            self.assertEqual(code, CODE.INVALID_ARGUMENT, text)
            self.assertIn(names, text)
            self.assertNotIn(CANARY, text)
            self.assertLess(len(text), 1100)

    def test_ids(self):
        for method, good in self.good().items():
            field = "name" if method == "CreateVolume" else "volume_id"
            for bad in ("", "a/b", "/", "..", "../a", "a..b", "a b", "a\n", "\u00e9", LONG):
                self.refuse(method, {**good, field: bad}, field)
            packed = encode(method, {**good, field: PLACEHOLDER})
            for raw in RAW:
                self.refuse(method, {}, field, packed.replace(PLACEHOLDER.encode(), raw))

    def test_capabilities(self):
        def with_mode(method, mode):
            m = METHODS[method][1]()
            m.ParseFromString(encode(method, self.good()[method]))
            one = m.volume_capability if method == "NodePublishVolume" else m.volume_capabilities[0]
            one.access_mode.mode = mode
            return m.SerializeToString()

        for method in ("CreateVolume", "ValidateVolumeCapabilities"):
            self.refuse(method, {**self.good()[method], "volume_capabilities": []}, "volume_capabilities")
        for method in ("CreateVolume", "NodePublishVolume"):
            field = "volume_capability" if method[0] == "N" else "volume_capabilities"
            for bad in ({}, {"mount": {}}, {"access_mode": {"mode": 3}}, {"block": {}, "access_mode": {"mode": 3}}):
                self.refuse(method, {**self.good()[method], field: bad if method[0] == "N" else [bad]}, "volume_capabilit")
            for mode in (0, 8, 77, -1, 2**31 - 1):
                self.refuse(method, {}, "volume_capabilit", with_mode(method, mode))
        publish = self.good()["NodePublishVolume"]
        del publish["volume_capability"]
        self.refuse("NodePublishVolume", publish, "volume_capability")

    def test_paths(self):
        bad = ("", "relative", "/", "/etc/hostile", DIR, KUBELET, f"{KUBELET}/", f"{KUBELET}/../hostile", f"{KUBELET}//x",
               f"{KUBELET}/pods/../../elsewhere/x", f"{KUBELET}/./x", f"{KUBELET}-beside/x", f"{KUBELET}/{LONG}",
               f"{KUBELET}/{'x' * 300}", f"{KUBELET}" + "/d" * 3000)
        for method in ("NodePublishVolume", "NodeUnpublishVolume"):
            good = self.good()[method]
            for path in bad:
                self.refuse(method, {**good, "target_path": path}, "target_path")
            packed = encode(method, {**good, "target_path": f"{KUBELET}/{PLACEHOLDER}"})
            for raw in RAW:
                self.refuse(method, {}, "target_path", packed.replace(PLACEHOLDER.encode(), raw))
        publish = self.good()["NodePublishVolume"]
        for path in ("link/x", "link", "dangling", "dangling/x", "file", "file/x", "absent/x"):
            self.refuse("NodePublishVolume", {**publish, "target_path": f"{KUBELET}/{path}"}, "target_path")
        unpublish = self.good()["NodeUnpublishVolume"]
        self.refuse("NodeUnpublishVolume", {**unpublish, "target_path": f"{KUBELET}/link/x"}, "target_path")
        self.assertTrue(os.path.islink(f"{KUBELET}/link"))

    def test_contexts(self):
        url = f"file://{DATA}"
        rows = (({}, "url"), ({"url": ""}, "url"), ({"url": "nothing"}, "url"), ({"url": f"{url}/../x"}, "url"),
                ({"url": "file://" + LONG}, "url"), ({"url": url, "subPath": "../x"}, "subPath"),
                ({"url": url, LONG: "x"}, "volume_context"), ({"url": url, "k8s.io": "x"}, "'k8s.io'"),
                ({"url": url, "uid": "-1"}, "uid"), ({"url": url, "fileMode": "0999"}, "file-mode"))
        for context, names in rows:
            publish = {**self.good()["NodePublishVolume"], "volume_context": context}
            self.refuse("NodePublishVolume", publish, names)
        packed = encode("NodePublishVolume", {**self.good()["NodePublishVolume"], "secrets": {PLACEHOLDER: CANARY}})
        for raw in RAW:
            self.refuse("NodePublishVolume", {}, "secrets", packed.replace(PLACEHOLDER.encode(), raw))
        publish = {**self.good()["NodePublishVolume"], "secrets": {"unknown": CANARY}}
        self.refuse("NodePublishVolume", publish, "secrets")
        create = {**self.good()["CreateVolume"], "volume_content_source": {"snapshot": {"snapshot_id": "x"}}}
        self.refuse("CreateVolume", create, "volume_content_source")

    def test_bytes_that_are_no_message(self):
        numbers = random.Random(1)
        for method in (name for name, (path, _, _) in METHODS.items() if path.startswith("/csi.")):
            for length in (1, 2, 7, 40, 900):
                self.node.client.code(method, raw=numbers.randbytes(length))
            code, text = self.node.client.code(method, raw=b"\x0a\x7fabc")
            self.assertEqual(code, CODE.INTERNAL, text)
            code, text = self.node.client.code(method, raw=b"\0" * (5 << 20))
            self.assertEqual(code, CODE.RESOURCE_EXHAUSTED, text)
        self.node.client.call("Probe")


if __name__ == "__main__":
    unittest.main()
