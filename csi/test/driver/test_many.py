# SPDX-License-Identifier: Apache-2.0
"""A hundred mounts on one node: what they cost, and that nothing of them stays."""

import os
import unittest

from client import BIN
from node import FILES, Node, mounts, read_all, wait_for

MOUNTS = 100
RSS_MAX_KIB = 6 << 10  # of the keeper and of each server


def rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))


def is_sanitized():
    with open(f"{BIN}/warpdrive-fuse", "rb") as f:
        return any(name in f.read() for name in (b"__asan_init", b"__tsan_init"))


class ManyTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node()

    @classmethod
    def tearDownClass(cls):
        left, codes = mounts(), cls.node.end()
        assert not left, left
        assert set(codes.values()) == {0}, codes

    def descriptors(self):
        return {name: len(os.listdir(f"/proc/{d.pid}/fd")) for name, d in self.node.daemons.items()}

    def test_100_mounts(self):
        # what is made once and kept is there before the count begins
        self.node.publish("first")
        read_all(self.node.target("first"))
        self.node.unpublish("first")
        wait_for(lambda: not self.node.servers(), "the server ends")
        before = self.descriptors()
        names = [f"many-{i}" for i in range(MOUNTS)]
        self.node.settle("NodePublishVolume", [self.node.publish_request(n) for n in names])
        for name in names:
            self.assertEqual(read_all(self.node.target(name)), FILES)
        self.assertEqual(len(mounts()), MOUNTS)
        self.assertEqual(len(self.node.servers()), MOUNTS)
        if not is_sanitized():
            keeper = rss_kib(self.node.daemons["keeper"].pid)
            largest = max(rss_kib(p) for p in self.node.servers())
            self.assertLess(keeper, RSS_MAX_KIB)
            self.assertLess(largest, RSS_MAX_KIB)
        self.node.settle("NodeUnpublishVolume", [self.node.unpublish_request(n) for n in names])
        self.assertEqual(mounts(), {})
        self.assertEqual([n for n in names if not self.node.is_gone(n)], [])
        wait_for(lambda: not self.node.servers(), "the servers end")
        wait_for(lambda: all(n <= before[d] for d, n in self.descriptors().items()), "the descriptors are closed")


if __name__ == "__main__":
    unittest.main()
