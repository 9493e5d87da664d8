# SPDX-License-Identifier: Apache-2.0
"""Publishing by the real driver, keeper and agent: contents, crowds, callers that go, parts that stop or restart."""

import os
import signal
import unittest

from client import CODE, READ_ONLY_MANY, READ_WRITE_MANY
from node import DATA, FILES, Node, mounts, read_all, wait_for


class PublishTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node()

    @classmethod
    def tearDownClass(cls):
        left, codes = mounts(), cls.node.end()
        assert not left, left
        assert set(codes.values()) == {0}, codes

    def publish(self, name, **changes):
        self.node.publish(name, **changes)
        self.assertEqual(read_all(self.node.target(name)), FILES)

    def unpublish(self, name):
        self.node.unpublish(name)
        self.assertTrue(self.node.is_gone(name))

    def test_mount_has_the_dataset_and_is_read_only(self):
        for capability in (READ_ONLY_MANY, READ_WRITE_MANY):
            self.publish("v", volume_capability=capability, readonly=False)
            target = self.node.target("v")
            _, kind, options = mounts()[target]
            self.assertEqual(kind, "fuse.warpdrive")
            self.assertLessEqual({"ro", "nosuid", "nodev"}, set(options))
            for attempt in (lambda: os.mkdir(f"{target}/d"), lambda: os.unlink(f"{target}/file-0"),
                            lambda: os.open(f"{target}/file-0", os.O_WRONLY), lambda: os.chmod(f"{target}/file-0", 0o777)):
                self.assertRaisesRegex(OSError, "Read-only", attempt)
            stats = self.node.client.call("NodeGetVolumeStats", {"volume_id": "v", "volume_path": target})
            self.assertFalse(stats.volume_condition.abnormal, stats.volume_condition.message)
            self.unpublish("v")
            self.node.unpublish("v")

    def test_64_callers_on_32_volumes(self):
        names = [f"crowd-{i}" for i in range(32)]
        self.node.settle("NodePublishVolume", [self.node.publish_request(n) for n in names * 2])
        self.assertLessEqual({self.node.target(n) for n in names}, set(mounts()))
        for name in names:
            self.assertEqual(read_all(self.node.target(name)), FILES)
        self.node.settle("NodeUnpublishVolume", [self.node.unpublish_request(n) for n in names * 2])
        for name in names:
            self.assertTrue(self.node.is_gone(name), name)
        wait_for(lambda: not self.node.servers(), "the servers end")

    def test_storm_of_republishes_touches_no_mount(self):
        self.publish("storm")
        before = mounts()[self.node.target("storm")]
        calls = [self.node.client.start("NodePublishVolume", self.node.publish_request("storm")) for _ in range(800)]
        codes = [c.code() for c in calls]
        # two calls on one target at once: one of them is told to come again
        self.assertLessEqual(set(codes), {CODE.OK, CODE.ABORTED, CODE.RESOURCE_EXHAUSTED})
        self.assertIn(CODE.OK, codes)
        self.node.publish("storm")
        self.assertEqual(mounts()[self.node.target("storm")], before)
        self.assertEqual(read_all(self.node.target("storm")), FILES)
        self.unpublish("storm")

    def stop(self, *pids):
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
            self.addCleanup(self.resume, pid)

    @staticmethod
    def resume(*pids):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass

    def test_caller_that_goes_leaves_nothing(self):
        names = [f"gone-{i}" for i in range(8)]
        agent = self.node.daemons["agent"].pid
        self.stop(agent)
        calls = [self.node.client.start("NodePublishVolume", self.node.publish_request(n)) for n in names]
        wait_for(lambda: all(os.path.lexists(self.node.target(n)) for n in names), "the keeper is asked")
        for call in calls:
            call.cancel()
        self.resume(agent)
        for name in names:
            wait_for(lambda n=name: self.node.is_gone(n), f"{name} is called off")
        self.publish(names[0])
        self.unpublish(names[0])

    def test_time_that_runs_out_is_told_before_the_deadline(self):
        agent = self.node.daemons["agent"].pid
        self.stop(agent)
        code, text = self.node.client.code("NodePublishVolume", self.node.publish_request("late"), timeout=6)
        self.assertEqual(code, CODE.UNAVAILABLE, text)
        self.resume(agent)
        wait_for(lambda: self.node.is_gone("late"), "the mount is called off")
        self.publish("late")
        self.unpublish("late")

    def every_call(self, name, mounted):
        """(method, request) of all RPCs; name is a fresh volume."""
        volume = {"name": name, "volume_capabilities": [READ_ONLY_MANY], "parameters": {"url": f"file://{DATA}"}}
        the_id = self.node.client.call("CreateVolume", volume).volume.volume_id
        return [
            ("GetPluginInfo", {}), ("GetPluginCapabilities", {}), ("Probe", {}), ("ControllerGetCapabilities", {}),
            ("NodeGetCapabilities", {}), ("NodeGetInfo", {}), ("CreateVolume", volume),
            ("ControllerGetVolume", {"volume_id": the_id}), ("DeleteVolume", {"volume_id": "other"}),
            ("ValidateVolumeCapabilities", {"volume_id": the_id, "volume_capabilities": [READ_ONLY_MANY]}),
            ("NodePublishVolume", self.node.publish_request(name)),
            ("NodePublishVolume", self.node.publish_request(mounted[0])),
            ("NodeGetVolumeStats", {"volume_id": mounted[0], "volume_path": self.node.target(mounted[0])}),
            ("NodeUnpublishVolume", self.node.unpublish_request(mounted[1])),
        ]

    def test_no_call_hangs_on_a_part_that_stopped(self):
        limit = 8  # seconds; calls that wait end after half of it
        for part in ("server", "agent", "keeper"):
            mounted = [f"{part}-{i}" for i in range(2)]
            for name in mounted:
                self.publish(name)
            calls = self.every_call(f"{part}-new", mounted)
            pids = self.node.servers() if part == "server" else [self.node.daemons[part].pid]
            self.stop(*pids)
            started = [(m, self.node.client.start(m, r, timeout=limit)) for m, r in calls]
            for method, call in started:
                with self.subTest(part=part, method=method):
                    self.assertNotEqual(call.code(), CODE.DEADLINE_EXCEEDED, call.details())
                    if not method.startswith("NodeUn") and method != "NodePublishVolume":
                        self.assertEqual(call.code(), CODE.OK, call.details())
            # what is mounted stays OK to publish, whatever is ill
            self.assertEqual(started[11][1].code(), CODE.OK, started[11][1].details())
            condition = started[12][1].result().volume_condition
            if part != "server":  # that one is replaced at once
                self.assertTrue(condition.abnormal)
                self.assertIn(part, condition.message)
            self.resume(*pids)
            self.assertEqual(read_all(self.node.target(mounted[0])), FILES)
            for name in (*mounted, f"{part}-new"):
                wait_for(lambda n=name: self.node.client.code("NodeUnpublishVolume", self.node.unpublish_request(n))[0]
                         == CODE.OK, f"{name} is unpublished")
                self.assertTrue(self.node.is_gone(name))

    def test_any_part_restarts_between_any_two_steps(self):
        name = "restart"
        stats = {"volume_id": name, "volume_path": self.node.target(name)}
        for part in ("csi", "keeper", "agent"):
            self.node.kill(part)
            self.publish(name)
            self.node.kill(part)
            self.publish(name)  # a republish, and it reads
            self.node.kill(part)
            self.node.client.call("NodeGetVolumeStats", stats)
            self.node.kill(part)
            self.assertEqual(read_all(self.node.target(name)), FILES)
            self.node.kill(part)
            self.unpublish(name)

    def test_agent_and_keeper_that_come_late_are_waited_for(self):
        for part in ("agent", "keeper"):
            self.node.daemons[part].end(signal.SIGKILL)
            call = self.node.client.start("NodePublishVolume", self.node.publish_request("early"))
            wait_for(lambda: os.path.lexists(self.node.target("early")), "the driver works on it")
            self.node.begin(part)
            self.assertEqual(call.code(), CODE.OK, call.details())
            self.assertEqual(read_all(self.node.target("early")), FILES)
            self.unpublish("early")


if __name__ == "__main__":
    unittest.main()
