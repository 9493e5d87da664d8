# SPDX-License-Identifier: Apache-2.0
"""The agent's control API as other programs speak it: by gRPC, on control.sock, about mounts that pods have."""

import json
import os
import unittest

import grpc
from client import BIN, CODE, DIR, Client
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from node import FILES, KUBELET, Node, wait_for

LARGE = f"{DIR}/large"
SIZE = 24 << 20
RUNNING, DONE, CANCELLED = 0, 1, 3
STREAMS = 8  # at once


class ControlTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node()
        os.makedirs(LARGE, exist_ok=True)
        for i in range(STREAMS + 1):
            with open(f"{LARGE}/{i}", "wb") as f:
                f.write(os.urandom(SIZE))
        cls.node.publish("small")
        cls.node.publish("large", volume_context={"url": f"file://{LARGE}"})
        cls.control = Client(f"{DIR}/run/control.sock")

    @classmethod
    def tearDownClass(cls):
        cls.control.close()
        for name in ("small", "large"):
            cls.node.unpublish(name)
        codes = cls.node.end()
        assert set(codes.values()) == {0}, codes

    def slowly(self, name):
        """A stream that goes on for a while."""
        return self.control.stream("Warm", {"target": f"{KUBELET}/large", "paths": [name], "bandwidth": 1 << 20})

    def tasks(self):
        return self.control.call("ListWarm").tasks

    def test_stream_tells_how_it_goes_until_all_is_there(self):
        news = list(self.control.stream("Warm", {"target": f"{KUBELET}/small", "token": "AAECAwQFBgcICQoLDA0ODw=="}))
        last = news[-1]
        self.assertEqual((last.state, last.files, last.files_done, last.files_failed), (DONE, len(FILES), len(FILES), 0))
        self.assertEqual(last.bytes_present, sum(map(len, FILES.values())))
        self.assertEqual(sorted(n.bytes_present for n in news), [n.bytes_present for n in news])
        status = json.loads(self.control.call("GetStatus").json)
        cached = {d["url"]: d["cached_bytes"] for d in status["datasets"]}
        self.assertIn(last.bytes_present, cached.values())

    def test_caller_that_goes_cancels_its_task(self):
        stream = self.slowly("0")
        task = next(stream).id
        self.assertIn(RUNNING, [t.state for t in self.tasks() if t.id == task])
        stream.cancel()
        wait_for(lambda: CANCELLED in [t.state for t in self.tasks() if t.id == task], "the task is cancelled")

    def test_figures_come_again_and_again(self):
        news = list(self.control.stream("Stats", {"interval_ms": 100, "count": 3}))
        self.assertEqual(len(news), 3)
        self.assertEqual(sorted(n.time_us for n in news), [n.time_us for n in news])
        self.assertGreater(news[-1].time_us - news[0].time_us, 100_000)
        self.assertEqual(news[-1].mounts, 2)
        stream = self.control.stream("Stats", {"interval_ms": 100})
        next(stream)
        stream.cancel()
        with self.assertRaises(grpc.RpcError) as caught:
            next(self.control.stream("Stats", {"interval_ms": 1}))
        self.assertEqual(caught.exception.code(), CODE.INVALID_ARGUMENT)

    def test_what_is_the_nodes_is_there_by_grpc(self):
        self.control.call("Pin", {"target": f"{KUBELET}/small"})
        self.assertEqual([r.is_setting for r in self.control.call("ListPins").rules], [False])
        self.control.call("Unpin", {"target": f"{KUBELET}/small"})
        self.assertTrue(self.control.call("Evict", {"target": f"{KUBELET}/small"}).is_done)
        mounts = self.control.call("ListMounts").mounts
        self.assertEqual({m.target for m in mounts}, {f"{KUBELET}/small", f"{KUBELET}/large"})

    def test_the_shipped_descriptors_are_all_that_a_caller_needs(self):
        files = descriptor_pb2.FileDescriptorSet()
        with open(os.path.join(BIN, "../common/control.protoset"), "rb") as f:
            files.ParseFromString(f.read())
        pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            pool.Add(file)
        method = pool.FindServiceByName("warpdrive.v1.Agent").methods_by_name["GetStats"]
        out = message_factory.GetMessageClass(method.output_type)
        call = self.control.channel.unary_unary(f"/{method.containing_service.full_name}/{method.name}",
                                                lambda b: b, out.FromString)
        self.assertEqual(call(b"", timeout=60).mounts, 2)

    def test_cancel_ends_a_stream(self):
        stream = self.slowly("1")
        self.control.call("CancelWarm", {"id": str(next(stream).id)})
        self.assertEqual([n.state for n in stream][-1], CANCELLED)

    def test_streams_have_bounds_and_calls_go_on(self):
        streams = [self.slowly(str(i)) for i in range(STREAMS)]
        for stream in streams:
            next(stream)
        with self.assertRaises(grpc.RpcError) as caught:
            next(self.slowly(str(STREAMS)))
        self.assertEqual(caught.exception.code(), CODE.RESOURCE_EXHAUSTED)
        self.control.call("GetStatus")
        for stream in streams:
            stream.cancel()
        wait_for(lambda: RUNNING not in [t.state for t in self.tasks()], "all tasks are over")

    def test_bad_requests_are_refused_by_name(self):
        for request, code, text in (
            ({"target": "/nowhere"}, CODE.NOT_FOUND, "/nowhere"),
            ({"target": f"{KUBELET}/small", "paths": ["../x"]}, CODE.INVALID_ARGUMENT, "../x"),
            ({"target": f"{KUBELET}/small", "token": "AAEC"}, CODE.INVALID_ARGUMENT, "token"),
        ):
            found, said = self.control.code("StartWarm", request)
            self.assertEqual(found, code, said)
            self.assertIn(text, said)
        self.assertEqual(self.control.code("GetWarm", {"id": "12345"})[0], CODE.NOT_FOUND)

    def test_bytes_that_are_no_message(self):
        for method in ("GetStatus", "StartWarm", "GetWarm", "CancelWarm", "ListWarm"):
            code, text = self.control.code(method, raw=b"\x0a\x7fabc")
            self.assertEqual(code, CODE.INTERNAL, text)
        self.assertEqual(self.control.code("NodeGetInfo")[0], CODE.UNIMPLEMENTED)

    def test_socket_is_for_the_agents_user_alone(self):
        self.assertEqual(os.stat(f"{DIR}/run/control.sock").st_mode & 0o777, 0o600)


if __name__ == "__main__":
    unittest.main()
