# SPDX-License-Identifier: Apache-2.0
"""Who may mount what, with which credentials, and what the kubelet is told: by the real driver, keeper and agent."""

import json
import signal
import unittest

from client import CODE, DIR, READ_ONLY_MANY, Daemon
from node import Node, mounts, read_all, wait_for
from origin import Origin

TOKENS = "csi.storage.k8s.io/serviceAccount.tokens"
ERROR = "<?xml version='1.0'?><Error><Code>{}</Code></Error>"


class AccessNode(Node):
    """A node of Kubernetes whose operator has opened loopback, where the test's origin is."""

    sts = ""

    def begin(self, name):
        if name != "agent":
            return super().begin(name)
        settings = ["http-listen=", "kubernetes=true", "allowed-addresses=127.0.0.1", f"sts-endpoint={self.sts}",
                    "request-deadline=10s", "metadata-ttl=100ms"]
        arguments = [a for s in settings for a in ("--set", s)]
        self.daemons[name] = Daemon("agent", "--cache-dir", f"{DIR}/cache", *arguments)


class AccessTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.origin = Origin({})
        AccessNode.sts = cls.origin.endpoint
        cls.node = AccessNode()

    @classmethod
    def tearDownClass(cls):
        left, codes = mounts(), cls.node.end()
        cls.origin.stop()
        assert not left, left
        assert set(codes.values()) == {0}, codes

    def setUp(self):
        o = self.origin
        o.objects = {f"{self.id()}/{i}": f"{self.id()} {i}\n".encode() * 100 for i in range(6)}
        o.keys, o.answer, o.moved, o.tokens, o.seen = None, None, None, {}, []
        self.content = {k.rsplit("/", 1)[1]: v for k, v in o.objects.items()}

    def request(self, name, key="AK", context=None, **changes):
        words = {"url": f"s3://bucket/{self.id()}", "endpoint": self.origin.endpoint, "pathStyle": "true"}
        secrets = {"accessKeyId": key, "secretAccessKey": f"secret-of-{key}"} if key else {}
        return self.node.publish_request(name, volume_context={**words, **(context or {})}, secrets=secrets, **changes)

    def publish(self, *args, **kwargs):
        return self.node.client.call("NodePublishVolume", self.request(*args, **kwargs))

    def refused(self, request):
        code, text = self.node.client.code("NodePublishVolume", request)
        self.assertNotIn(request["target_path"], mounts())
        return code, text

    def condition(self, name):
        request = {"volume_id": name, "volume_path": self.node.target(name)}
        return self.node.client.call("NodeGetVolumeStats", request).volume_condition

    def unpublish(self, name):
        self.node.unpublish(name)
        self.assertTrue(self.node.is_gone(name))

    def test_refusals_have_their_codes(self):
        for status, error, expected in (
                (403, "AccessDenied", CODE.PERMISSION_DENIED), (403, "InvalidAccessKeyId", CODE.UNAUTHENTICATED),
                (403, "SignatureDoesNotMatch", CODE.UNAUTHENTICATED), (400, "ExpiredToken", CODE.UNAUTHENTICATED),
                (401, "", CODE.UNAUTHENTICATED), (403, "", CODE.PERMISSION_DENIED),
                (404, "NoSuchBucket", CODE.NOT_FOUND)):
            self.origin.answer = (status, ERROR.format(error).encode() if error else b"")
            code, text = self.refused(self.request("refused"))
            self.assertEqual(code, expected, f"{status} {error}: {text}")
            self.assertNotIn("secret-of", text)

    def test_an_origin_that_is_away_is_mounted_and_shows(self):
        self.origin.answer = (503, b"")
        self.publish("away")
        condition = self.condition("away")
        self.assertTrue(condition.abnormal)
        self.assertRegex(condition.message, "origin: .*503")
        self.origin.answer = None
        self.assertEqual(read_all(self.node.target("away")), self.content)
        wait_for(lambda: not self.condition("away").abnormal, "the condition is well again")
        self.unpublish("away")

    def test_rotated_secrets_are_taken_over(self):
        self.origin.keys = {"AK1"}
        self.publish("rotated", "AK1")
        before = mounts()[self.node.target("rotated")]
        with open(f"{self.node.target('rotated')}/0", "rb") as f:
            self.assertEqual(f.read(), self.content["0"])
        self.origin.keys = {"AK2"}
        self.publish("rotated", "AK2")
        self.assertEqual(read_all(self.node.target("rotated")), self.content)
        # whoever comes next has the new ones: nothing of the old was kept
        self.origin.seen.clear()
        for name in ("agent", "keeper", "csi"):
            self.node.kill(name)
            self.origin.objects[f"{self.id()}/after-{name}"] = name.encode()
            wait_for(lambda n=name: f"after-{n}" in read_all(self.node.target("rotated")), f"the origin is asked ({name})")
        self.assertFalse([s for s in self.origin.seen if "Credential=AK1/" in s[2]])
        self.assertEqual(mounts()[self.node.target("rotated")], before)
        self.unpublish("rotated")

    def test_a_republish_is_ok_whatever_it_brings(self):
        self.origin.keys = {"AK1"}
        self.publish("kept", "AK1")
        self.publish("kept", "unknown")
        condition = self.condition("kept")
        self.assertRegex(condition.message, "credentials: .*InvalidAccessKeyId")
        self.assertTrue(condition.abnormal)
        self.publish("kept", "AK1", context={"nonsense": "1"})
        self.node.daemons["agent"].end(signal.SIGKILL)
        self.publish("kept", "AK2")
        self.node.begin("agent")
        self.assertEqual(read_all(self.node.target("kept")), self.content)
        wait_for(lambda: not self.condition("kept").abnormal, "the old ones are as good as ever")
        self.unpublish("kept")

    def test_hostile_inline_volumes_are_refused_by_the_rules_name(self):
        inline = {"csi.storage.k8s.io/ephemeral": "true", "endpoint": "", "pathStyle": "false"}
        for url, rule in (
                ("file:///", "allowed-origins"), ("file:///etc", "allowed-origins"),
                ("http://169.254.169.254/latest/", "blocked-addresses"), ("http://2852039166/", "blocked-addresses"),
                ("http://0xa9fea9fe/", "blocked-addresses"), ("http://[fd00:ec2::254]/", "blocked-addresses"),
                ("http://[::ffff:169.254.169.254]/", "blocked-addresses"), ("http://[::1]:1/", "blocked-addresses"),
                ("http://127.0.0.2/", "blocked-addresses")):
            context = {"url": url, "csi.storage.k8s.io/ephemeral": "true"}
            request = self.node.publish_request("hostile", volume_context=context)
            code, text = self.refused(request)
            self.assertEqual(code, CODE.PERMISSION_DENIED, f"{url}: {text}")
            self.assertIn(rule, text)
        self.origin.moved = "http://169.254.169.254/latest/"
        context = {"url": self.origin.endpoint, "csi.storage.k8s.io/ephemeral": "true"}
        code, text = self.refused(self.node.publish_request("hostile", volume_context=context))
        self.assertEqual(code, CODE.PERMISSION_DENIED, text)
        self.assertRegex(text, "redirect.*blocked-addresses")
        self.origin.moved = None
        code, text = self.refused(self.request("hostile", None, context={**inline, "endpoint": "http://169.254.169.254",
                                                                        "anonymous": "true"}))
        self.assertEqual(code, CODE.PERMISSION_DENIED, text)
        self.assertRegex(text, "endpoint.*blocked-addresses")
        code, text = self.refused(self.request("hostile", None, context={
            "authenticationSource": "node", "csi.storage.k8s.io/ephemeral": "true"}))
        self.assertEqual(code, CODE.PERMISSION_DENIED, text)
        self.assertIn("node-identity", text)

    def test_tokens_become_keys_and_are_renewed(self):
        def context(token):
            tokens = {"sts.amazonaws.com": {"token": token, "expirationTimestamp": "2036-01-01T00:00:00Z"}}
            return {"authenticationSource": "pod", "roleArn": "arn:aws:iam::1:role/r", TOKENS: json.dumps(tokens),
                    "csi.storage.k8s.io/pod.namespace": "ns", "csi.storage.k8s.io/serviceAccount.name": "sa"}

        self.origin.tokens = {"t1": ("KEY1", "s1", "session1")}
        self.origin.keys = {"KEY1"}
        self.publish("pod", None, context=context("t1"))
        self.assertEqual(read_all(self.node.target("pod")), self.content)
        self.origin.tokens, self.origin.keys = {"t2": ("KEY2", "s2", "session2")}, {"KEY2"}
        self.origin.objects[f"{self.id()}/new"] = b"new"
        self.publish("pod", None, context=context("t2"))
        wait_for(lambda: "new" in read_all(self.node.target("pod")), "the new keys are used")
        self.unpublish("pod")
        code, text = self.refused(self.request("pod", None, context=context("t0")))
        self.assertEqual(code, CODE.UNAUTHENTICATED, text)
        self.assertIn("InvalidIdentityToken", text)

    def test_mount_options_are_the_same_words_in_kebab_case(self):
        flags = [f"endpoint={self.origin.endpoint}", "path-style", "metadata-ttl=1s", "file-mode=0400"]
        capability = {**READ_ONLY_MANY, "mount": {"mount_flags": flags}}
        request = self.request("kebab", volume_capability=capability)
        del request["volume_context"]["endpoint"], request["volume_context"]["pathStyle"]
        self.node.client.call("NodePublishVolume", request)
        self.assertEqual(read_all(self.node.target("kebab")), self.content)
        self.unpublish("kebab")
        request["volume_capability"] = {**READ_ONLY_MANY, "mount": {"mount_flags": ["path-stile"]}}
        code, text = self.refused(request)
        self.assertEqual(code, CODE.INVALID_ARGUMENT, text)
        self.assertRegex(text, "'path-stile'.*path-style")

    def test_who_is_absent_is_waited_for_and_named(self):
        for name in ("agent", "keeper"):
            self.node.daemons[name].end(signal.SIGKILL)
            code, text = self.node.client.code("NodePublishVolume", self.request("absent"), timeout=6)
            self.assertEqual(code, CODE.UNAVAILABLE, text)
            self.assertIn(f"{name}.sock", text)
            call = self.node.client.start("NodePublishVolume", self.request("absent"))
            self.node.begin(name)
            self.assertEqual(call.code(), CODE.OK, call.details())
            self.assertEqual(read_all(self.node.target("absent")), self.content)
            self.unpublish("absent")


if __name__ == "__main__":
    unittest.main()
